"""This host's packages: what is installed, where more comes from, what is offered there, how Debian orders versions.

Sources are read in both forms of sources.list(5): one line each (`.list`) and deb822 stanzas (`.sources`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from urllib.parse import urlsplit

from . import process
from .errors import CowError

FOLDER = Path("/etc/apt")
LISTS = Path("/var/lib/apt/lists")


@dataclass(frozen=True)
class Source:
    """Repositories that apt uses: one stanza, or one line.

    types: "deb", "deb-src". suites: such as bookworm-updates, or a path that ends in "/". components: such as main.
    options: everything else, as deb822 field name and value; continuation lines of a value begin with a space.
    """

    types: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()

    @property
    def signed_by(self) -> str | None:
        """Key files, fingerprints or a whole key; None when any key that apt trusts will do."""
        return next((value for name, value in self.options if name == "Signed-By"), None)

    @property
    def has_secret(self) -> bool:
        """Whether an address carries a password."""
        return any(urlsplit(uri).password for uri in self.uris if not uri.startswith("cdrom:"))

    def stanza(self) -> str:
        """Write it in deb822 form."""
        fields = [
            ("Types", " ".join(self.types)),
            ("URIs", " ".join(self.uris)),
            ("Suites", " ".join(self.suites)),
            ("Components", " ".join(self.components)),
            *self.options,
        ]
        # The value of a multi-line field begins on the line after its name.
        return "".join(f"{name}:{'' if value.startswith(chr(10)) else ' '}{value}\n" for name, value in fields if value)


@dataclass(frozen=True)
class Installed:
    """What dpkg knows: the host's architecture as Debian calls it (None without dpkg), and package name to version."""

    architecture: str | None
    versions: dict[str, str]


def installed(packages: Iterable[str], run: process.Runner = process.run) -> Installed:
    """Ask dpkg for the versions of packages; those that are not installed are left out."""
    names = sorted({"dpkg", *map(_package_name, packages)})
    try:
        answer = run(["dpkg-query", "--show", f"--showformat={_QUERY}", *names], accept=(0, 1))
    except process.CommandMissing:
        return Installed(None, {})
    rows = [line.split(" ") for line in answer.stdout.splitlines()]
    present = {name: (version, architecture) for name, status, version, architecture in rows if status == "installed"}
    return Installed(present["dpkg"][1], {name: version for name, (version, _) in present.items()})


def offers(packages: Iterable[str], run: process.Runner = process.run) -> dict[str, tuple[Offer, ...]]:
    """Ask apt what its package lists, as they were last fetched, offer of packages; nothing without apt."""
    try:
        return parse_policy(run(["apt-cache", "policy", *map(_package_name, packages)]).stdout)
    except process.CommandMissing:
        return {}


def have_lists(folder: Path = LISTS) -> bool:
    """Say whether package lists were ever fetched; without them, that nothing is offered means nothing."""
    return any(folder.glob("*Release"))


def read_sources(folder: Path = FOLDER) -> tuple[Source, ...]:
    """Read the sources that apt reads, in its order; what this user may not read is left out."""
    return tuple(source for file in _source_files(folder) for source in _parse_file(file))


def parse_list(text: str) -> tuple[Source, ...]:
    """Read the one-line form."""
    return tuple(_from_line(matched) for line in text.splitlines() if (matched := _LINE.match(line)))


def parse_deb822(text: str) -> tuple[Source, ...]:
    """Read deb822 stanzas; disabled ones are left out."""
    return tuple(_from_fields(fields) for fields in _stanzas(text) if fields.get("enabled", "yes").lower() not in _NO)


def backports_suite(codename: str) -> str:
    """Return what the backports of a release are called, by Debian and by Ubuntu."""
    return f"{codename}-backports"


def backports_configured(sources: Iterable[Source], codename: str) -> bool:
    """Say whether apt uses the release's backports already."""
    suite = backports_suite(codename)
    return any("deb" in source.types and suite in source.suites for source in sources)


def base_source(sources: Iterable[Source], codename: str) -> Source | None:
    """Return the source that the release itself comes from, not one of the vendors that reuse its suite's name.

    Most third-party repositories have a suite called like the release and a component called main. The release's own is
    told by what else is known of it: its address serves updates too, the distribution's key, its address's last part.
    """
    candidates = [source for source in sources if _may_be_base(source, codename)]
    updated = {uri for source in sources if _UPDATES.search(" ".join(source.suites)) for uri in _addresses(source)}
    return max(candidates, key=lambda source: _evidence(source, updated), default=None)


def backports_stanza(sources: Iterable[Source], codename: str) -> str | None:
    """Return the deb822 stanza that adds the release's backports from the mirror that serves the release.

    None when no source serves the release.
    """
    base = base_source(sources, codename)
    if base is None:
        return None
    return replace(base, types=("deb",), suites=(backports_suite(codename),)).stanza()


@dataclass(frozen=True)
class Offer:
    """A version of a package that a repository has, with the suite (archive) it is in."""

    version: str
    suite: str


def parse_policy(text: str) -> dict[str, tuple[Offer, ...]]:
    """Read `apt-cache policy PACKAGE...`: what the repositories offer of each package, in apt's order of preference.

    The installed version is not an offer unless a repository has it as well.
    """
    offers: dict[str, list[Offer]] = {}
    package = version = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            package = line.removesuffix(":")
            offers[package] = []
        elif matched := _POLICY_VERSION.match(line):
            version = matched["version"]
        elif matched := _POLICY_REPOSITORY.match(line):
            offers[package].append(Offer(version, matched["suite"]))
    return {name: tuple(found) for name, found in offers.items()}


def best_offer(offers: Iterable[Offer], *, from_backports: bool) -> str | None:
    """Return the highest version among the offers of backports, or among all others."""
    best: str | None = None
    for offer in offers:
        eligible = offer.suite.endswith("-backports") == from_backports
        if eligible and (best is None or compare_versions(offer.version, best) > 0):
            best = offer.version
    return best


def upstream_version(version: str) -> str:
    """Return 6.0.4 of 1:6.0.4+ds1-2+deb13u7~bpo12+1."""
    return re.sub(r"^[0-9]+:|[+~](ds|dfsg)[0-9.]*(?=-|$)", "", version).rsplit("-", 1)[0]


def compare_versions(left: str, right: str) -> int:
    """Return -1, 0 or 1 as `left` is lower than, equal to or higher than `right` in Debian's order (deb-version(7))."""
    (left_epoch, left_upstream, left_revision), (right_epoch, right_upstream, right_revision) = map(
        _split_version, (left, right)
    )
    return (
        _sign(left_epoch - right_epoch)
        or _compare_part(left_upstream, right_upstream)
        or _compare_part(left_revision, right_revision)
    )


_PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+", re.ASCII)
_QUERY = "${Package} ${db:Status-Status} ${Version} ${Architecture}\\n"
_NO = frozenset({"no", "false", "without", "off", "disable", "0"})
_FILE_NAME = re.compile(r"[\w.-]+\.(list|sources)", re.ASCII)
_LINE = re.compile(
    r"\s*(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s+)?"
    r"(?P<uri>cdrom:\[[^\]]*\]\S*|\S+)\s+(?P<suite>[^\s#]+)(?P<components>[^#]*)"
)
_FIELD_OF_OPTION = {"arch": "Architectures", "lang": "Languages", "target": "Targets", "pdiffs": "PDiffs"}
_SUFFIX_OF_OPERATOR = {"+": "-Add", "-": "-Remove"}
_OWN_FIELDS = ("types", "uris", "suites", "components", "enabled")
_NAMELESS_SUITES = frozenset({"stable", "oldstable", "testing"})
_UPDATES = re.compile(r"(?<!\S)\S+-updates(?!\S)")
_DISTRIBUTION_KEY = re.compile(r"(debian|ubuntu)-archive-keyring")
_DISTRIBUTION_PATH = re.compile(r"/(debian|ubuntu|ubuntu-ports)/*$")
_VENDOR = re.compile(r"//archive\.raspberrypi\.")
_POLICY_VERSION = re.compile(r" (?:\*\*\*|   ) (?P<version>\S+)")
_POLICY_REPOSITORY = re.compile(r" {6,}-?[0-9]+ \S+ (?P<suite>[^\s/]*)\S* .*Packages$")


def _package_name(name: str) -> str:
    if not _PACKAGE_NAME.fullmatch(name):
        raise CowError(
            f"{name!r} is not the name of a package. Write it as Debian does: lower case, digits, '+', '.', '-'."
        )
    return name


def _source_files(folder: Path) -> Iterator[Path]:
    main = folder / "sources.list"
    parts = folder / "sources.list.d"
    if main.is_file():
        yield main
    if parts.is_dir():
        yield from sorted(part for part in parts.iterdir() if _FILE_NAME.fullmatch(part.name))


def _parse_file(file: Path) -> tuple[Source, ...]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ()
    return parse_deb822(text) if file.suffix == ".sources" else parse_list(text)


def _from_line(matched: re.Match[str]) -> Source:
    return Source(
        types=(matched["type"],),
        uris=(matched["uri"],),
        suites=(matched["suite"],),
        components=tuple(matched["components"].split()),
        options=tuple(map(_field_of_option, (matched["options"] or "").split())),
    )


def _field_of_option(option: str) -> tuple[str, str]:
    """Turn arch+=i386,arm64 into ("Architectures-Add", "i386 arm64")."""
    key, _, value = option.partition("=")
    name = key.rstrip("+-").lower()
    suffix = _SUFFIX_OF_OPERATOR.get(key[len(name) :], "")
    return _proper(name) + suffix, value.replace(",", " ")


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Give each stanza as lower-case field name to value; comment lines may stand anywhere in it."""
    kept = "\n".join(line.rstrip() for line in text.splitlines() if not line.startswith("#"))
    for block in re.split(r"\n\n+", kept):
        fields = re.findall(r"^([^\s:]+):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE)
        if fields:
            yield {name.lower(): value for name, value in fields}


def _from_fields(fields: dict[str, str]) -> Source:
    types, uris, suites, components = (tuple(fields.get(name, "").split()) for name in _OWN_FIELDS[:4])
    options = ((_proper(name), value) for name, value in fields.items() if name not in _OWN_FIELDS)
    return Source(types, uris, suites, components, tuple(options))


def _proper(name: str) -> str:
    return _FIELD_OF_OPTION.get(name, name.title())


def _may_be_base(source: Source, codename: str) -> bool:
    return (
        "deb" in source.types
        and "main" in source.components
        and not _NAMELESS_SUITES.union((codename,)).isdisjoint(source.suites)
        and not any(uri.startswith("cdrom:") or _VENDOR.search(uri) for uri in source.uris)
    )


def _evidence(source: Source, updated: set[str]) -> tuple[bool, bool, bool]:
    return (
        not updated.isdisjoint(_addresses(source)),
        bool(_DISTRIBUTION_KEY.search(source.signed_by or "")),
        any(_DISTRIBUTION_PATH.search(uri) for uri in source.uris),
    )


def _addresses(source: Source) -> set[str]:
    return {uri.rstrip("/") for uri in source.uris}


def _split_version(version: str) -> tuple[int, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch), upstream, revision


def _compare_part(left: str, right: str) -> int:
    """Compare text and numbers in turn, as dpkg does: '~' before the end, letters before other characters."""
    pairs = zip_longest(re.findall(r"(\D*)(\d*)", left), re.findall(r"(\D*)(\d*)", right), fillvalue=("", ""))
    for (left_text, left_number), (right_text, right_number) in pairs:
        for a, b in zip_longest(left_text, right_text, fillvalue=""):
            if difference := _sign(_rank(a) - _rank(b)):
                return difference
        if difference := _sign(int(left_number or 0) - int(right_number or 0)):
            return difference
    return 0


def _rank(character: str) -> int:
    if not character:
        return 0
    if character == "~":
        return -1
    return ord(character) + (0 if character.isalpha() else 256)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)

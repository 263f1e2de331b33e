"""The resource: an image at a path, made from a source, known by the fingerprint of all that it was made from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from .. import kernel, manifest, mounts, names, process, tools
from ..errors import CowError
from ..plan import Plan, Step
from ..size import Size
from . import formats, record, resource, sizing, sources, verity, workshop
from .job import Built, Job, Options
from .purge import Purge
from .record import Inputs, Record
from .resource import Beside, Standing
from .sizing import Content
from .sources import Look, Source, Visible

RECIPE = 4
"""Changes when the same inputs give other bytes than before."""


@dataclass(frozen=True)
class Signing:
    """Key and certificate in PEM form."""

    key: Path
    certificate: Path


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for; the meaning is that of the module's options."""

    path: Path
    state: str
    src: str
    incus: Mapping[str, Any]
    options: Options
    purge: Purge
    strict: bool
    epoch: int | None
    verity: bool
    beside: bool
    signing: Signing | None
    root_hash: str
    mode: int
    rebuild: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the parameters of the module, and refuse what cannot be meant."""
        names.absolute_path(params["path"])
        options = Options.of(params)
        signing = (
            Signing(Path(params["signing"]["key"]), Path(params["signing"]["certificate"]))
            if params["signing"]
            else None
        )
        wanted = cls(
            path=Path(params["path"]),
            state=params["state"],
            src=params["src"] or "",
            incus=params["incus"] or {},
            options=options,
            purge=Purge(tuple(params["purge"])),
            strict=params["strict"],
            epoch=params["source_date_epoch"],
            verity=params["verity"],
            beside=params["verity_tree"] == "beside",
            signing=signing,
            root_hash=verity.root_hash(params["root_hash"]) if params["root_hash"] else "",
            mode=resource.mode(params["mode"]),
            rebuild=params["rebuild"],
        )
        wanted.check()
        return wanted

    def check(self) -> None:
        """Refuse what cannot be meant together."""
        resource.check_path(self.path)
        if self.state != "present":
            return
        formats.builder(self.options.format).check(self.options)
        if self.signing and not self.verity:
            raise CowError("Only a root hash can be signed. Set `verity: true`, or leave `signing` out.")
        if self.epoch is not None and not 0 <= self.epoch < 2**32:
            raise CowError(f"source_date_epoch is {self.epoch}. It can be from 0 to {2**32 - 1}.")


@dataclass(frozen=True)
class Found:
    """What there is at the path, and what the source is now.

    bytes: that the image takes at least.  wrong: what verification says.
    """

    standing: Standing
    source: Source | None = None
    look: Look | None = None
    inputs: Inputs | None = None
    lost: tuple[str, ...] = ()
    bytes: int = 0
    wrong: str = ""
    changes: tuple[str, ...] = ()


def observe(wanted: Wanted) -> Found:
    """Read what is there, and of the source what may have changed."""
    found = observe_result(wanted)
    if wanted.state == "verified":
        return _verified(wanted, found)
    if wanted.state == "absent":
        return found
    source = _source(wanted)
    sources.refuse_inside(source, wanted.path)
    before = record.load(wanted.path)
    known = record.known(wanted.path, before)
    tool_versions = _tools(wanted)
    look = source.look(known, wanted.purge)
    inputs = _inputs(wanted, look, tool_versions)
    changes: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    least = 0
    if look.manifest:
        builder = formats.builder(wanted.options.format)
        lost = tuple(builder.lost(look.manifest.tree, wanted.options))
        if found.standing.record is None or found.standing.record.inputs != inputs or wanted.rebuild:
            least = builder.foresee(Content(look.manifest.tree, look.manifest.runs), wanted.options)
        if known.manifest and before and before.inputs["content"] != look.identity:
            shown = wanted.purge.applied_to_manifest(known.manifest)
            changes = tuple(manifest.differences(shown, look.manifest, limit=8))
    return replace(found, source=source, look=look, inputs=inputs, lost=lost, bytes=least, changes=changes)


def observe_result(wanted: Wanted) -> Found:
    """Read what is there, and nothing of the source."""
    return Found(resource.observe(wanted.path, record.KIND))


def plan(found: Found, wanted: Wanted) -> Plan:
    """Decide what to do."""
    leftover = Plan.of(*resource.remove_leftover(found.standing))
    if wanted.state == "verified":
        if found.wrong:
            raise CowError(
                f"{wanted.path} is not what the root hash {wanted.root_hash} says: {found.wrong}. Do not use it."
            )
        return Plan()
    if wanted.state == "absent":
        return leftover + Plan.of(*resource.delete(found.standing))
    reason = resource.reason(found.standing, found.inputs, rebuild=wanted.rebuild)
    lost = found.lost if reason else _lost(found)
    if wanted.strict and lost:
        raise CowError(
            f"{wanted.options.format} does not keep {'; '.join(lost)}. Choose another format or method, or set "
            f"`strict: false` to do without."
        )
    if reason:
        return leftover + _build(found, wanted, reason)
    losses = Plan(warnings=tuple(f"The image lacks {loss}." for loss in lost))
    return leftover + Plan.of(*resource.chmod(found.standing, wanted.mode)) + losses


def describe(found: Found) -> dict[str, Any]:
    """Return what is there."""
    return {"image": dict(found.standing.record.result) if found.standing.record else None}


def _source(wanted: Wanted) -> Source:
    return sources.of_incus(wanted.incus) if wanted.incus else sources.of_path(Path(wanted.src))


def _verified(wanted: Wanted, found: Found) -> Found:
    if not found.standing.exists:
        raise CowError(f"There is no image at {wanted.path}.")
    before = record.load(wanted.path)
    if before is None or before.verity is None:
        raise CowError(
            f"{wanted.path} has no hash tree that there is a record of ({record.record_path(wanted.path)}). Build it "
            f"with `verity: true`, and take the record along when you copy it."
        )
    tools.require("veritysetup")
    tree_file = record.tree_path(wanted.path) if before.verity.beside else wanted.path
    if not tree_file.exists():
        raise CowError(f"The hash tree {tree_file} is not there.")
    wrong = verity.verify(wanted.path, tree_file, before.verity, wanted.root_hash)
    return replace(found, standing=replace(found.standing, record=before), wrong=wrong)


def _tools(wanted: Wanted) -> Mapping[str, str]:
    versions = dict(formats.builder(wanted.options.format).tools(wanted.options))
    if wanted.verity:
        said = process.run([tools.require("veritysetup"), "--version"]).stdout
        versions["veritysetup"] = said.split()[1] if len(said.split()) > 1 else "unknown"
    if wanted.signing:
        verity.require_signing(wanted.signing.key, wanted.signing.certificate)
    return versions


def _inputs(wanted: Wanted, look: Look, versions: Mapping[str, str]) -> Inputs:
    chosen = asdict(wanted.options)
    options = {f"option {name}": chosen[name] for name in formats.builder(wanted.options.format).heeds}
    return {
        "content": look.identity,
        "recipe": RECIPE,
        "option format": wanted.options.format,
        **options,
        "option purge": list(wanted.purge.patterns),
        "option source_date_epoch": wanted.epoch,
        "option verity": wanted.verity and ("beside" if wanted.beside else "appended"),
        "option signing": _certificate_digest(wanted.signing),
        **{f"version of {name}": version for name, version in versions.items()},
    }


def _certificate_digest(signing: Signing | None) -> str | None:
    if signing is None:
        return None
    return sources.sha256(signing.key, signing.certificate)


def _lost(found: Found) -> tuple[str, ...]:
    return found.lost or (tuple(found.standing.record.result["lost"]) if found.standing.record else ())


def _build(found: Found, wanted: Wanted, reason: str) -> Plan:
    if found.look is None or found.inputs is None or found.source is None:
        raise AssertionError("a source is looked at before anything is built from it")
    look, inputs, source = found.look, found.inputs, found.source
    if found.bytes:
        sources.refuse_no_room(wanted.path.parent, found.bytes)
    before, after = resource.differing(found.standing.record.inputs if found.standing.record else {}, inputs)
    if found.changes:
        after["changed"] = "; ".join(found.changes)
    step = Step(
        f"build {wanted.path} ({wanted.options.format}) from {source.words}: {reason}",
        run=lambda: _Build(wanted, found.standing, source, look, inputs).run(),
        before=before if found.standing.exists else None,
        after=after,
        destroys=resource.replaced(found.standing, _beside(wanted, look)),
        permit=resource.OVERWRITE,
    )
    losses = [f"The image will lack {loss}." for loss in found.lost]
    return Plan(steps=(step,), warnings=(*losses, *_tight(found.standing, inputs)))


def _beside(wanted: Wanted, look: Look) -> list[Path]:
    """Return the places of the files that lie beside the image."""
    path = wanted.path
    places = {
        record.tree_path(path): wanted.verity and wanted.beside,
        record.signature_path(path): wanted.signing,
        record.contents_path(path): look.whole,
        record.record_path(path): True,
    }
    return [place for place, wants in places.items() if wants]


def _tight(standing: Standing, inputs: Inputs) -> list[str]:
    """Warn where another image like the one that is there has no room; how large it gets is not known."""
    former = standing.record
    if former is None or any(former.inputs.get(key) != inputs[key] for key in inputs if key.startswith("option ")):
        return []
    free, taken = mounts.free(standing.path.parent), Size(former.result["allocated_bytes"])
    if taken.bytes <= free.bytes:
        return []
    folder = standing.path.parent
    said = f"The image that is there takes {taken.rounded()}, and stays until the new one is built. "
    return [f"{said}{folder} has {free.rounded()} free besides: the build fails when the new one needs more."]


@dataclass(frozen=True)
class _Build:
    wanted: Wanted
    standing: Standing
    source: Source
    look: Look
    inputs: Inputs

    def run(self) -> None:
        """Build in the folder beside, then put all in place."""
        from ..crew import meanwhile  # noqa: PLC0415  # takes long to load

        with meanwhile(self._contents) as contents, workshop.opened(self.wanted.path) as work:
            target = work / "image"
            with self.source.tree(self.look, self.wanted.purge, work) as visible:
                began = time.monotonic()
                built, epoch, lost = self._filled(visible, target, work)
                facts = self._facts(visible, built, epoch, lost)
            tree = self._hash_tree(target, work)
            measured = resource.measured(target, facts["payload_bytes"], time.monotonic() - began)
            result = {**facts, **measured, "verity": self._told(tree)}
            self._finish(work, target, result, tree, contents())

    def _contents(self) -> dict[Path, bytes]:
        """Return what the source has, as it is saved, by the place beside the image where it belongs."""
        return {record.contents_path(self.wanted.path): self.look.whole.encoded()} if self.look.whole else {}

    def _filled(self, visible: Visible, target: Path, work: Path) -> tuple[Built, int, list[str]]:
        options = self.wanted.options
        builder = formats.builder(options.format)
        content = Content(visible.tree, self.look.manifest.runs if self.look.manifest else None)
        lost = builder.lost(visible.tree, options)
        if self.wanted.strict and lost:
            raise CowError(f"{options.format} does not keep {'; '.join(lost)}. Nothing was changed.")
        if self.look.manifest is None:
            sources.refuse_no_room(work, builder.foresee(content, options))
        epoch = _newest(visible) if self.wanted.epoch is None else self.wanted.epoch
        (work / "tools").mkdir()
        job = Job(visible.root, content, target, work / "tools", options, self._identity, epoch)
        built = builder.build(job)
        target.chmod(0o600)
        kernel.start_writing(target)
        return built, epoch, lost

    @property
    def _fingerprint(self) -> str:
        return record.fingerprint(self.inputs)

    @property
    def _identity(self) -> UUID:
        return UUID(bytes=bytes.fromhex(self._fingerprint)[:16], version=4)

    def _hash_tree(self, target: Path, work: Path) -> verity.Tree | None:
        if not self.wanted.verity:
            return None
        beside = work / "verity" if self.wanted.beside else None
        tree = verity.add(target, beside, self._fingerprint, self._identity)
        if self.wanted.signing:
            signing = self.wanted.signing
            verity.sign(tree.root_hash, signing.key, signing.certificate, work / "signature", work)
        return tree

    def _told(self, tree: verity.Tree | None) -> dict[str, Any] | None:
        if tree is None:
            return None
        path = self.wanted.path
        told = {key: value for key, value in tree.record().items() if key != "beside"}
        return {
            **told,
            "tree_path": str(record.tree_path(path) if tree.beside else path),
            "signature_path": str(record.signature_path(path)) if self.wanted.signing else None,
        }

    def _facts(self, visible: Visible, built: Built, epoch: int, lost: list[str]) -> dict[str, Any]:
        return {
            "path": str(self.wanted.path),
            "format": self.wanted.options.format,
            **asdict(built),
            "payload_bytes": sizing.payload(visible.tree),
            "inodes": sizing.inodes_of(visible.tree),
            "uuid": str(self._identity) if self.wanted.options.format != "squashfs" else None,
            "source_date_epoch": epoch,
            "fingerprint": self._fingerprint,
            "lost": lost,
        }

    def _finish(
        self,
        work: Path,
        target: Path,
        result: Mapping[str, Any],
        tree: verity.Tree | None,
        contents: Mapping[Path, bytes],
    ) -> None:
        path = self.wanted.path
        made = {record.tree_path(path): work / "verity", record.signature_path(path): work / "signature"}
        files = {place: file for place, file in made.items() if file.exists()}
        new = Record(self.inputs, result, verity=tree, files=self.look.files)
        resource.publish(work, target, self.standing, self.wanted.mode, new, beside=Beside(files, contents))


def _newest(visible: Visible) -> int:
    newest = -(-max(entry.mtime_ns for entry in visible.tree.entries) // 10**9)
    return min(max(newest, 0), 2**32 - 1)

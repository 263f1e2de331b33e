"""How this machine gets Debian packages, so that a machine built here gets them in the same way."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .process import run

HOST_FROM_GUEST = "10.0.2.2"
"""Under this address QEMU's user network shows a guest this machine's own loopback."""

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
GUEST_CERTIFICATES = "/etc/apt/host-certificates.pem"

_INDEX = re.compile(r"^'(?P<uri>\S+?)/dists/(?P<release>[^/' ]+)/InRelease'", re.MULTILINE)
_OPTION = re.compile(
    r'^(?P<name>Acquire::(?:http|https|Retries|ForceIPv4|Check-Date|Check-Valid-Until)\S*) "(?P<value>.+)";$',
    re.MULTILINE,
)
_LOOPBACK = re.compile(r"(?<=//)(localhost|127\.0\.0\.1)(?=[:/])")


@dataclass(frozen=True)
class Apt:
    """This machine's Debian archives and the settings under which it downloads.

    archives: address and what follows the release's name in the suite ("", "-updates", "-security").
    options: lines in apt.conf's form.
    """

    archives: tuple[tuple[str, str], ...]
    options: tuple[str, ...]

    def sources(self, release: str) -> list[str]:
        """Lines of a sources.list for a release of Debian."""
        return [f"deb {uri} {release}{suffix} main contrib" for uri, suffix in self.archives]

    def guest_files(self, release: str) -> dict[str, str]:
        """Path and content of each file that gives these settings to a machine on QEMU's user network."""
        options = [_LOOPBACK.sub(HOST_FROM_GUEST, option) for option in self.options]
        files = {}
        if any(uri.startswith("https:") for uri, _ in self.archives):
            files[GUEST_CERTIFICATES] = CERTIFICATES.read_text()
            options.append(f'Acquire::https::CAInfo "{GUEST_CERTIFICATES}";')
        if self.archives:
            files["/etc/apt/sources.list"] = _lines(self.sources(release))
        return {**files, "/etc/apt/apt.conf.d/90host": _lines(options)}


def of_this_machine() -> Apt:
    """Ask apt. Without archives of Debian (another distribution) the tools' own default archive is left in place."""
    release = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return parse(release, run("apt-get", "update", "--print-uris"), run("apt-config", "dump"))


def parse(release: str, indexes: str, configuration: str) -> Apt:
    """Read the output of `apt-get update --print-uris` and `apt-config dump` of a machine that runs this release."""
    suffixes = {release: "", f"{release}-updates": "-updates", f"{release}-security": "-security"}
    archives = [
        (index["uri"], suffixes[index["release"]]) for index in _INDEX.finditer(indexes) if index["release"] in suffixes
    ]
    return Apt(
        tuple(archives), tuple(f'{option["name"]} "{option["value"]}";' for option in _OPTION.finditer(configuration))
    )


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)

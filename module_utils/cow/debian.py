"""Root file systems of Debian and its kin for containers, made on the spot from the packages of the host's mirror."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import apt, host, process
from .errors import CowError

VARIANTS = ("minbase", "important", "standard")
"""Package sets of mmdebstrap that a container can be made from."""
BUILD_TIMEOUT = 3600.0
"""Seconds; a minute is usual on a desktop, ten on a small board with a slow mirror."""

_ALWAYS = ("dbus", "systemd-resolved", "systemd-sysv", "udev")
_NETWORK = """\
[Match]
Name=eth0

[Network]
DHCP=yes

[DHCPv4]
ClientIdentifier=mac
"""
_HOOKS = (
    'chroot "$1" systemctl enable systemd-networkd.service systemd-resolved.service',
    'rm -f "$1/etc/hostname" && ln -sf /run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"',
    ': > "$1/etc/machine-id" && rm -f "$1/var/lib/dbus/machine-id"',
)
RECIPE = (_ALWAYS, _NETWORK, _HOOKS)
"""What every image has besides what is asked for; an image that was made with another recipe is out of date."""

_RELEASE = re.compile(r"[a-z][a-z0-9-]*", re.ASCII)
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?", re.ASCII)
_ROLLING = frozenset({"sid", "unstable"})


@dataclass(frozen=True)
class System:
    """What to make. packages: besides those of the variant. mirror: its address, "" for that of the host's apt."""

    release: str
    packages: tuple[str, ...] = ()
    variant: str = "important"
    mirror: str = ""

    def __post_init__(self) -> None:
        """Refuse names that no release or package has."""
        if not _RELEASE.fullmatch(self.release):
            raise CowError(f"{self.release!r} is not the code name of a release. Write it as apt does: trixie, say.")
        for package in self.packages:
            if not _PACKAGE.fullmatch(package):
                raise CowError(f"{package!r} cannot be the name of a package.")


def default_release() -> str:
    """Return the code name of the release that this host runs."""
    codename = host.operating_system(None).codename
    if codename is None:
        raise CowError("This host does not say which release it runs (/etc/os-release). Give the release of the image.")
    return codename


def build(system: System, target: Path) -> None:
    """Make the root file system as a tar, compressed as the name of `target` says; works in the folder of `target`.

    It boots systemd, takes its address on eth0 by DHCP, and has no identity of its own.
    """
    sources, network = target.with_name("sources"), target.with_name("eth0.network")
    sources.write_text(_sources(system), encoding="utf-8")
    network.write_text(_NETWORK, encoding="utf-8")
    hooks = (f"upload {network} /etc/systemd/network/eth0.network", *_HOOKS)
    try:
        process.run(
            [
                "mmdebstrap",
                "--quiet",
                "--mode=root",
                f"--variant={system.variant}",
                f"--include={','.join((*_ALWAYS, *system.packages))}",
                *(f"--customize-hook={hook}" for hook in hooks),
                "--",
                system.release,
                str(target),
                str(sources),
            ],
            timeout=BUILD_TIMEOUT,
            environment={"TMPDIR": str(target.parent)},
        )
    except process.CommandMissing as error:
        raise CowError(
            "An image is to be made from packages, but mmdebstrap is missing. Install the package mmdebstrap."
        ) from error


def architecture() -> str:
    """Return what the programs of this host run on, as dpkg calls it; Incus knows these names too."""
    return process.run(["dpkg", "--print-architecture"]).stdout.strip()


def following(wanted: str, release: str, found: Sequence[apt.Source]) -> list[apt.Source]:
    """Give the sources of the wanted release where a host of another one has its own, with updates and security fixes.

    Empty when no source serves the host's release.
    """
    suffixes = [""] if wanted in _ROLLING else ["", "-updates", "-security"]
    renamed = {f"{release}{suffix}": f"{wanted}{suffix}" for suffix in suffixes}
    fixes = {f"{release}-updates", f"{release}-security"}
    base = apt.base_source(found, release)
    followed = [
        replace(source, types=("deb",), suites=tuple(renamed[suite] for suite in source.suites if suite in renamed))
        for source in found
        if source == base or ("deb" in source.types and base is not None and not fixes.isdisjoint(source.suites))
    ]
    return [source for source in followed if source.suites]


def _sources(system: System) -> str:
    if system.mirror:
        return apt.Source(("deb",), (system.mirror,), (system.release,), ("main",)).stanza()
    release = default_release()
    sources = following(system.release, release, apt.read_sources())
    if not sources:
        raise CowError(f"apt on this host has no source for {release} to take packages from. Give the image a mirror.")
    if any(source.has_secret for source in sources):
        raise CowError("The addresses in apt's sources on this host hold a password. Give the image a mirror without.")
    return "\n".join(source.stanza() for source in sources)

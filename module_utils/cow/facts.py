"""What a host can do, gathered in one go: files, a handful of quick commands, one request to Incus."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import apt, host, mounts, process, reflink, tools, zfs_support
from .incus import daemon

DAEMON_PACKAGES = ("incus-base", "incus")
"""The packages that bring the daemon, the smaller one first; older releases have only the second."""

_PYTHON_APT = "python3-apt"


@dataclass(frozen=True)
class Wanted:
    """What to look at.

    paths, reflink_paths: folders, whether they exist or not. packages: whose installed versions are of interest.
    socket: of the Incus daemon. minimum_version: the lowest version of Incus that will do, "" for any.
    """

    paths: Sequence[str]
    reflink_paths: Sequence[str]
    packages: Sequence[str]
    socket: str
    minimum_version: str


@dataclass(frozen=True)
class PathFacts:
    """The file system that a path is on, or would be on."""

    file_system: str
    source: str
    mount_point: str
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Offered:
    """A package that brings the daemon, and its version."""

    package: str
    version: str


def gather(wanted: Wanted, run: process.Runner = process.run) -> dict[str, Any]:
    """Return the facts as plain data. Raises CowError for a path or package name that cannot be one."""
    known = (*DAEMON_PACKAGES, *zfs_support.PACKAGES, *tools.PACKAGES, _PYTHON_APT)
    installed = apt.installed((*wanted.packages, *known), run)
    versions = installed.versions
    system = host.operating_system(installed.architecture)
    return {
        "os": asdict(system),
        "service_manager": "systemd" if host.runs_systemd() else None,
        "virtualization": asdict(host.virtualization()),
        "file_systems": asdict(host.file_systems()),
        "paths": {path: asdict(_path_facts(Path(path))) for path in wanted.paths},
        "reflink": {path: _reflink(Path(path)) for path in wanted.reflink_paths},
        "tools": {name: _flat(tool) for name, tool in tools.observe(versions, system.machine, run).items()},
        "zfs": asdict(zfs_support.observe(versions, run)),
        "packages": {name: versions.get(name) for name in wanted.packages},
        "incus": _incus(wanted, versions, run),
        "apt": _apt(system.codename, versions),
    }


def _path_facts(path: Path) -> PathFacts:
    mount = mounts.under(path)
    status = os.statvfs(mounts.existing(path))
    return PathFacts(
        file_system=mount.fstype,
        source=mount.source,
        mount_point=str(mount.mount_point),
        size_bytes=status.f_blocks * status.f_frsize,
        free_bytes=mounts.free(path).bytes,
    )


def _reflink(path: Path) -> dict[str, Any]:
    facts = _path_facts(path)
    return {**asdict(reflink.attempt(path)), "file_system": facts.file_system, "free_bytes": facts.free_bytes}


def _flat(tool: tools.Tool) -> dict[str, Any]:
    return {"installed": tool.installed, "version": tool.version, **tool.features}


def _incus(wanted: Wanted, versions: Mapping[str, str], run: process.Runner) -> dict[str, Any]:
    found = daemon.observe(wanted.socket)
    package = next((name for name in DAEMON_PACKAGES if name in versions), None)
    of_server = found.server.version if found.server else None
    version = versions[package] if package else of_server
    suffices = version is not None and is_enough(version, wanted.minimum_version)
    nothing_missing = suffices and all(name in versions for name in wanted.packages)
    offers = {} if nothing_missing else apt.offers(DAEMON_PACKAGES, run)
    release, backports = (best_offer(offers, from_backports=from_backports) for from_backports in (False, True))
    return {
        "package": package or (release or backports or Offered(DAEMON_PACKAGES[0], "")).package,
        "version": version,
        "upstream_version": apt.upstream_version(version) if version else None,
        "suffices": suffices,
        "origin": "installed"
        if suffices
        else origin(release, backports, wanted.minimum_version, known=apt.have_lists()),
        "available": {
            "release": release.version if release else None,
            "backports": backports.version if backports else None,
        },
        "daemon": found.program,
        "socket": {"path": found.socket, "state": found.state, "why": found.why},
        "server": asdict(found.server) if found.server else None,
    }


def best_offer(offers: Mapping[str, Sequence[apt.Offer]], *, from_backports: bool) -> Offered | None:
    """Return what there is of the daemon in backports, or in the release and vendors' repositories."""
    for package in DAEMON_PACKAGES:
        if version := apt.best_offer(offers.get(package, ()), from_backports=from_backports):
            return Offered(package, version)
    return None


def is_enough(version: str, minimum_version: str) -> bool:
    """Compare in Debian's order; anything is enough for no minimum, and a minimum without an epoch is of any epoch."""
    comparable = version if ":" in minimum_version else version.rpartition(":")[2]
    return not minimum_version or apt.compare_versions(comparable, minimum_version) >= 0


def origin(release: Offered | None, backports: Offered | None, minimum_version: str, *, known: bool) -> str | None:
    """Say where a daemon that suffices would come from; `known`: whether there are package lists to tell."""
    if release and is_enough(release.version, minimum_version):
        return "release"
    if backports and not is_enough(backports.version, minimum_version):
        return "nowhere"
    return "backports" if known else None


def _apt(codename: str | None, versions: Mapping[str, str]) -> dict[str, Any]:
    sources = apt.read_sources()
    return {
        "sources": [_source(source) for source in sources],
        "lists_fetched": apt.have_lists(),
        "backports": _backports(sources, codename),
        "python_apt": _PYTHON_APT in versions or find_spec("apt") is not None,
    }


def _source(source: apt.Source) -> dict[str, Any]:
    return {
        "types": source.types,
        "uris": [re.sub(r"(?<=://)[^/@]*@", "", uri) for uri in source.uris],
        "suites": source.suites,
        "components": source.components,
        "signed_by": source.signed_by,
    }


def _backports(sources: Iterable[apt.Source], codename: str | None) -> dict[str, Any]:
    if codename is None:
        return {"suite": None, "configured": False, "stanza": None}
    base = apt.base_source(sources, codename)
    return {
        "suite": apt.backports_suite(codename),
        "configured": apt.backports_configured(sources, codename),
        # Facts are printed and cached: a password of the mirror must not be in them.
        "stanza": None if base is None or base.has_secret else apt.backports_stanza(sources, codename),
    }

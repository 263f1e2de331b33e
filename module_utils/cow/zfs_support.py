"""Which ZFS this host has, if any. Nothing is loaded, imported or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import apt, process, tools
from .errors import CowError

PACKAGES = ("zfsutils-linux", "zfs-fuse")
_QUICKLY = 10.0
"""Seconds; a suspended pool would hold `zpool` for ever."""


@dataclass(frozen=True)
class Pool:
    """An imported pool. Sizes are None where the command cannot give them exactly (zfs-fuse)."""

    name: str
    health: str
    size_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True)
class Support:
    """implementation: openzfs or zfs-fuse, by the commands that are installed; None without them.

    userland, module: versions; module is that of the loaded kernel module.
    module_error: what modprobe says when the commands are there and the module cannot be loaded.
    pools_error: what zpool says when it cannot list pools.
    """

    implementation: str | None = None
    userland: str | None = None
    module: str | None = None
    module_error: str | None = None
    pools: tuple[Pool, ...] = ()
    pools_error: str | None = None


def observe(
    packages: Mapping[str, str],
    run: process.Runner = process.run,
    find: Callable[[str], str | None] = tools.find,
    sys: Path = Path("/sys"),
) -> Support:
    """Look; `packages` has the installed versions of PACKAGES."""
    module = _module_version(sys)
    if find("zpool") is None:
        return Support(module=module)
    is_fuse = PACKAGES[0] not in packages and PACKAGES[1] in packages
    userland = packages.get(PACKAGES[is_fuse])
    module_error = None if is_fuse or module else _why_not_loadable(run)
    pools, pools_error = _pools(run, is_fuse=is_fuse) if is_fuse or module else ((), None)
    return Support(
        implementation="zfs-fuse" if is_fuse else "openzfs",
        userland=apt.upstream_version(userland) if userland else None,
        module=module,
        module_error=module_error,
        pools=pools,
        pools_error=pools_error,
    )


def _module_version(sys: Path) -> str | None:
    try:
        return (sys / "module/zfs/version").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _why_not_loadable(run: process.Runner) -> str | None:
    try:
        run(["modprobe", "--dry-run", "zfs"])
    except process.CommandFailed as error:
        return error.finished.stderr.strip() or str(error)
    except CowError as error:
        return str(error)
    return None


def _pools(run: process.Runner, *, is_fuse: bool) -> tuple[tuple[Pool, ...], str | None]:
    exact = () if is_fuse else ("-p", "-o", "name,health,size,free")
    try:
        listed = run(["zpool", "list", "-H", *(exact or ("-o", "name,health"))], timeout=_QUICKLY)
    except process.CommandFailed as error:
        return (), error.finished.stderr.strip() or str(error)
    except CowError as error:
        return (), str(error)
    return tuple(_pool(*line.split("\t")) for line in listed.stdout.splitlines() if "\t" in line), None


def _pool(name: str, health: str, size: str = "", free: str = "") -> Pool:
    return Pool(name, health, int(size) if size.isdigit() else None, int(free) if free.isdigit() else None)

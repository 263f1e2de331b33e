"""Which processes use a folder without a mount of this mount namespace that would tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import mounts
from .mounts import Mount

_PROC = Path("/proc")


def within(folder: Path) -> tuple[str, ...]:
    """Name the processes that work, run or have a file open in a folder, as far as their path of it is this one.

    What was removed from it and is still held open does not count.
    """
    real = os.path.realpath(folder)
    return tuple(
        _named(process)
        for process in _every()
        if any(path == real or path.startswith(f"{real}/") for path in _paths(process))
    )


@dataclass(frozen=True)
class Elsewhere:
    """A mount in another mount namespace, as containers have their own. process: one that is in it, in words."""

    process: str
    mount: Mount


def mounted_elsewhere(folder: Path) -> tuple[Elsewhere, ...]:
    """Return the mounts in other mount namespaces that show a folder or something in it, and those that lie in it.

    A mount that shows the folder because it shows all that is around it is none of them.
    """
    device, inside = mounts.place(folder)
    return tuple(
        Elsewhere(_named(process), mount)
        for process, table in _tables()
        for mount in table.values()
        if _shows(mount, table, device, inside)
    )


def staying(found: tuple[Elsewhere, ...], unmounted: Mount) -> tuple[Elsewhere, ...]:
    """Return those that are there still when a mount of this namespace is unmounted: copies of it may go with it."""
    going = {unmounted.peers} - {0}
    while more := {each.mount.peers for each in found if {each.mount.peers, each.mount.master} & going} - going - {0}:
        going |= more
    return tuple(each for each in found if not {each.mount.peers, each.mount.master} & going)


def _shows(mount: Mount, table: Mapping[int, Mount], device: str, inside: Path) -> bool:
    if mount.device == device and mount.root.is_relative_to(inside):
        return True
    below = table.get(mount.parent)
    return (
        below is not None
        and below.device == device
        and mount.mount_point.is_relative_to(below.mount_point)
        and below.inside(mount.mount_point).is_relative_to(inside)
    )


def _tables() -> Iterator[tuple[Path, Mapping[int, Mount]]]:
    """Yield the mounts of each other namespace, once for each folder that is the root there, with a process."""
    own, seen = os.readlink(_PROC / "self/ns/mnt"), set()  # noqa: PTH115
    for process in _every():
        with contextlib.suppress(OSError):  # it has ended
            view = (os.readlink(process / "ns/mnt"), os.readlink(process / "root"))  # noqa: PTH115
            if view[0] != own and view not in seen:
                table = mounts.parse((process / "mountinfo").read_bytes())
                seen.add(view)
                yield process, table


def _every() -> list[Path]:
    return [_PROC / str(number) for number in sorted(int(name) for name in os.listdir(_PROC) if name.isdigit())]  # noqa: PTH208


def _paths(process: Path) -> Iterator[str]:
    """What it refers to; nothing more once it has ended."""
    links = [str(process / name) for name in ("cwd", "root", "exe")]
    with contextlib.suppress(OSError):
        links += [str(process / "fd" / name) for name in os.listdir(process / "fd")]  # noqa: PTH208
    for link in links:
        with contextlib.suppress(OSError):
            path = os.readlink(link)  # noqa: PTH115
            if not path.endswith(" (deleted)"):
                yield path


def _named(process: Path) -> str:
    name = "one that has ended"
    with contextlib.suppress(OSError):
        name = (process / "comm").read_text(errors="replace").strip()
    return f"{name} (process {process.name})"

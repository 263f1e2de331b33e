"""Which processes use a folder without a mount that would tell."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")


def within(folder: Path) -> tuple[str, ...]:
    """Name the processes that work, run or have a file open in a folder, as far as their path of it is this one.

    What was removed from it and is still held open does not count.
    """
    real = os.path.realpath(folder)
    return tuple(
        f"{_name(process)} (process {process.name})"
        for process in sorted(_every(), key=lambda process: int(process.name))
        if any(path == real or path.startswith(f"{real}/") for path in _paths(process))
    )


def _every() -> Iterator[Path]:
    return (_PROC / name for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208


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


def _name(process: Path) -> str:
    with contextlib.suppress(OSError):
        return (process / "comm").read_text(errors="replace").strip()
    return "one that has ended"

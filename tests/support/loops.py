"""File systems in files."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import waiting
from .incusd import make_room_for_containers


@contextmanager
def btrfs(image: Path, folder: Path, size: int = 1 << 30) -> Iterator[Path]:
    """A new btrfs of `size` bytes (128 MiB or more) in the file `image`, mounted on `folder` during the block."""
    make_room_for_containers()
    with _mounted(image, folder, size, "mkfs.btrfs", "--quiet", "--nodiscard"):
        yield folder


@contextmanager
def xfs(image: Path, folder: Path, size: int = 1 << 30) -> Iterator[Path]:
    """A new XFS whose files can share data, of `size` bytes (300 MiB or more), as `btrfs`."""
    with _mounted(image, folder, size, "mkfs.xfs", "-q", "-K", "-m", "reflink=1"):
        yield folder


@contextmanager
def _mounted(image: Path, folder: Path, size: int, *mkfs: str) -> Iterator[None]:
    with image.open("wb") as file:
        file.truncate(size)
    folder.mkdir(exist_ok=True)
    _run(*mkfs, image)
    _run("mount", "-o", "loop", image, folder)
    try:
        yield
    finally:
        _run("umount", folder)
        # The kernel lets go of the loop device some time after the last mount is gone.
        waiting.until(lambda: not _run("losetup", "--associated", image))


def _run(*argv: str | Path) -> bytes:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout

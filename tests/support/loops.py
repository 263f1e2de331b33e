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
    with mounted(image, folder, size, "mkfs.btrfs", "--quiet", "--nodiscard"):
        yield folder


@contextmanager
def xfs(image: Path, folder: Path, size: int = 1 << 30) -> Iterator[Path]:
    """A new XFS with reflinks of `size` bytes (300 MiB or more), likewise."""
    with mounted(image, folder, size, "mkfs.xfs", "-q"):
        yield folder


@contextmanager
def ext4(image: Path, folder: Path, size: int = 1 << 30) -> Iterator[Path]:
    """A new ext4 of `size` bytes, likewise."""
    with mounted(image, folder, size, "mkfs.ext4", "-q"):
        yield folder


@contextmanager
def mounted(image: Path, folder: Path, size: int, *mkfs: str) -> Iterator[Path]:
    """What `mkfs` makes in the file `image` of `size` bytes, mounted on `folder` during the block."""
    with image.open("wb") as file:
        file.truncate(size)
    folder.mkdir(exist_ok=True)
    _run(*mkfs, image)
    _run("mount", "-o", "loop,noatime", image, folder)  # looking at a tree must not change it
    try:
        yield folder
    finally:
        _run("umount", folder)
        # The kernel lets go of the loop device some time after the last mount is gone.
        waiting.until(lambda: not _run("losetup", "--associated", image))


def _run(*argv: str | Path) -> bytes:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout

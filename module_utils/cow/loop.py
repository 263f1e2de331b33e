"""Files that are disks: what is in one that nobody has a record of."""

from __future__ import annotations

from pathlib import Path

from . import blockdev, btrfs
from .size import Size

_AT_MOST = Size(64 << 20)
"""The most that is allocated of a file with an empty file system on it; a btrfs of 10 GiB takes 5 MiB."""


def content(path: str) -> str:
    """Say what a file holds in a few words, "" when it is what an interrupted attempt to make a pool leaves behind.

    That is a file of holes, on which there is nothing yet, or a btrfs without a subvolume. Instances, images and
    volumes are subvolumes.
    """
    status = Path(path).stat()
    allocated = Size(status.st_blocks * 512)
    if status.st_size > 0 and allocated.bytes >= min(status.st_size, _AT_MOST.bytes):
        return f"{allocated.rounded()} of data"
    signature = blockdev.signature(path)
    if signature.startswith("btrfs "):
        return "a btrfs with subvolumes" if btrfs.has_subvolumes(path) else ""
    return signature

"""A btrfs seed, and the roots that are in it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .. import btrfs, names
from ..btrfs import Space, Subvolume, Superblock
from ..errors import CowError
from ..image import btrfs_seed

DESCRIPTION = "cowherd-media.json"
"""What says in an image, beside its roots, what they are."""


@dataclass(frozen=True)
class Seed:
    """A seed and what is in it.

    roots: its top-level subvolumes by name.
    """

    path: Path
    superblock: Superblock
    roots: dict[str, Subvolume]
    space: Space

    def root(self, name: str) -> Subvolume:
        """Return the root of that name, or refuse."""
        if name not in self.roots:
            there = names.shortened(sorted(self.roots)) or "none"
            raise CowError(f"The seed {self.path} has no root {name}. It has: {there}.")
        return self.roots[name]


def observe(path: Path, room: Path) -> Seed:
    """Look at the seed in a file or device; it is mounted for reading for a moment in the folder `room`."""
    found = check(path)
    with btrfs_seed.mounted(path, found, room) as (_, point):
        inside = btrfs.nested(point)
        roots = {each.path.name: each for each in inside if each.path.parent == point}
        space = btrfs.space(point)
    return Seed(path, found, roots, space)


def check(path: Path) -> Superblock:
    """Return the superblock of a seed, or say what else is at the path."""
    found = inspect(path)
    if not found.seed:
        raise CowError(
            f"{path} is a btrfs, but not a seed: it can be written to. Build one with live_image, or set the flag with "
            f"`btrfstune -S 1` while it is not mounted."
        )
    return found


def inspect(path: Path) -> Superblock:
    """Return the superblock of an image, seed or not, or say what is wrong with it."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise CowError(f"The seed {path} cannot be looked at: {error.strerror}.") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise CowError(f"{path} is neither a file nor a block device. Give the image of a seed.")
    found = btrfs.superblock(path)
    if found is None:
        raise CowError(f"{path} is not a btrfs. Give a seed, as live_image builds it.")
    if found.devices != 1:
        raise CowError(f"The seed {path} has {found.devices} devices. Only a seed of one device can be installed.")
    if (size := bytes_of(path)) < found.device_bytes:
        raise CowError(
            f"The seed {path} is cut short: it has {size} bytes of {found.device_bytes}. Get it again, as a whole."
        )
    return found


def bytes_of(path: Path) -> int:
    """Return the size of a file or block device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)

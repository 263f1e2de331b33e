"""Installs a root by growing a new file system out of the seed, whose compressed extents move as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..btrfs import Btrfs, Space
from ..image import btrfs_file, btrfs_seed, workshop
from ..size import whole_mib
from . import single_root
from .order import Order
from .seed import Seed
from .target import UNFINISHED_LABEL

_SPARE = 48 << 20
"""For the first MiB, and chunks of data that are not full."""
_PART = 16
"""A part of the content, for the same of large ones."""


def least_bytes(space: Space, metadata: str | None) -> int:
    """Return the size from which on a seed with so much in it is sure to fit."""
    size = btrfs_file.LEAST
    while (needed := whole_mib(_needed(size, space, metadata))) > size:
        size = needed
    return size


def _needed(size: int, space: Space, metadata: str | None) -> int:
    """Where metadata is to be there twice it may be there once meanwhile, a chunk at a time, or the other way round."""
    chunks = btrfs_file.chunks(size, space.metadata)
    twice = 2 * chunks.all + chunks.one
    return space.data + space.data // _PART + _SPARE + (twice if space.doubled or metadata == "dup" else chunks.all)


def install(seed: Seed, order: Order, device: str, room: Path, begin: Callable[[], None]) -> int:
    """Grow the file system onto a device, and return the bytes that it takes there.

    begin: called when the seed is mounted, before the device is touched.
    What else is in the seed is deleted before the seed is removed, so that it does not have to move.
    """
    tool = Btrfs(run=workshop.tool)
    with (
        single_root.unfinished_in_words(seed),
        btrfs_seed.sprouted(seed.path, seed.superblock, device, room, begin) as (source, point),
    ):
        tool.set_label(point, UNFINISHED_LABEL)  # not the seed's, by which live media may be found
        single_root.keep_only(point, order.root, tool)
        tool.remove_device(point, source)
        single_root.make_default(point / order.root, tool)
        tool.set_label(point, order.label)
        if order.metadata:
            tool.convert_metadata(point, order.metadata)
    if order.uuid:
        tool.set_uuid(device, order.uuid)
    return single_root.used_bytes(device)

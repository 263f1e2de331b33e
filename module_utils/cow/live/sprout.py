"""Installs a root by growing a new file system out of the seed, whose compressed extents move as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import btrfs
from ..btrfs import Btrfs, Space
from ..errors import CowError
from ..image import btrfs_file, btrfs_seed, workshop
from ..process import CommandFailed
from ..size import whole_mib
from . import seed as seeds
from .order import Order
from .seed import Seed

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
    try:
        with btrfs_seed.sprouted(seed.path, seed.superblock, device, room, begin) as (source, point):
            _keep_only(point, order.root, tool)
            tool.remove_device(point, source)
            _make_writable(point / order.root, tool)
            tool.set_default(point / order.root)
            tool.set_label(point, order.label)
            if order.metadata:
                tool.convert_metadata(point, order.metadata)
    except workshop.NoRoom as error:
        raise CowError(
            "The target is too small: there was no space left on it. It is marked as unfinished. Give a larger one."
        ) from error
    except CommandFailed as error:
        raise CowError(_in_words(error, seed)) from error
    if order.uuid:
        tool.set_uuid(device, order.uuid)
    return _used(device)


def _keep_only(point: Path, root: str, tool: Btrfs) -> None:
    (point / seeds.DESCRIPTION).unlink(missing_ok=True)
    own = point / root
    others = [each for each in btrfs.nested(point) if not each.path.is_relative_to(own)]
    for each in others:
        if each.readonly and not each.received_uuid and btrfs.nested(each.path):
            tool.set_readonly(each.path, readonly=False)
    for each in others:
        tool.delete(each.path)
    if others:
        tool.await_deletions(point)


def _make_writable(path: Path, tool: Btrfs) -> None:
    """Take a snapshot instead of a read-only root: one that was received is never made writable itself."""
    found = btrfs.at(path)
    if found is None or not found.readonly:
        return
    draft = path.with_name(f".{path.name}.writable")
    tool.snapshot(path, draft, readonly=False)
    tool.delete(path)
    draft.rename(path)


def _used(device: str) -> int:
    found = btrfs.superblock(Path(device))
    if found is None or found.seed or found.devices != 1:
        raise CowError(f"What was grown on {device} is not a btrfs of one device. Look at the kernel log.")
    return found.used_bytes


def _in_words(error: CommandFailed, seed: Seed) -> str:
    if "Input/output error" in error.finished.stderr:
        return (
            f"The seed {seed.path} is damaged, or a device fails: {error.finished.stderr.strip()} Verify the seed with "
            f"live_image (state: verified). The target is marked as unfinished."
        )
    return f"{error} The target is marked as unfinished."

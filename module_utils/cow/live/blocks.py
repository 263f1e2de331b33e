"""Installs a root by writing the blocks of the seed that are in use, as they are, onto the target.

What has to be otherwise on the target is changed in a copy of the metadata, in memory: the UUID, which is in each block
of it, the label, and the flag of a seed. So the target is never another device with the UUID of the seed, and what it
gets is written once. The superblock comes last.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from .. import btrfs, btrfs_extents, host, treecopy
from ..btrfs import Btrfs
from ..btrfs_extents import Run
from ..errors import CowError
from ..image import btrfs_file, btrfs_seed, workshop
from ..size import Size, whole_mib
from . import single_root, sprout
from .order import Order
from .seed import Seed

_LEAST = 256 << 20
"""The kernel lets no file system grow to less."""
_PIECE = 4 << 20
_WORKERS = 2
"""One that reads while the other writes."""
_Move = Callable[[int, list[memoryview], int], int]
"""Reads or writes a buffer at a place of a descriptor, and says how much."""
_SPARE = 64 << 20
"""For what a file system writes that is mounted for the first time on a larger device."""
_MEMORY = 4
"""One part in so many of the memory that is free may be taken for the metadata."""


def least_bytes(seed: Seed, metadata: str | None) -> int:
    """Return the size from which on a target is sure to be large enough: that of the seed, with what changes need.

    Where metadata is converted it is there once and twice meanwhile.
    """
    chunks = btrfs_file.chunks(seed.superblock.device_bytes, seed.space.metadata)
    converted = metadata is not None and seed.space.doubled != (metadata == "dup")
    more = 2 * chunks.all + chunks.one if converted else chunks.one * (2 if seed.space.doubled else 1)
    return max(_LEAST, whole_mib(seed.superblock.device_bytes + more))


def written_bytes(seed: Seed) -> int:
    """Return the most that is written: what is in use, and all of the metadata twice more, however it is changed."""
    return seed.superblock.used_bytes + 2 * seed.space.metadata + _SPARE


def why_never(seed: Seed) -> str:
    """Say why the blocks of the seed cannot be told from others; "" when they can."""
    unknown = seed.superblock.features & ~btrfs_extents.FEATURES
    return "the seed has features of btrfs that are newer than this method" if unknown else ""


def why_not(seed: Seed, order: Order, target_bytes: int | None, *, verified: bool) -> str:
    """Say why a sprout is the better one; "" when it is not."""
    if never := why_never(seed):
        return never
    if not verified:
        return "the seed is not verified beforehand, and a sprout compares each extent with its checksum"
    least = least_bytes(seed, order.metadata)
    if target_bytes is not None and target_bytes < least and sprout.least_bytes(seed.space, order.metadata) < least:
        return f"the target is smaller than {Size(least).rounded()}, which its blocks and what is changed need"
    if seed.space.metadata * _MEMORY > host.available_memory():
        return f"there is too little memory free for the metadata, of {Size(seed.space.metadata).rounded()}"
    return ""


def install(seed: Seed, order: Order, device: str, room: Path, begin: Callable[[], None]) -> int:
    """Write the file system onto a device, and return the bytes that it takes there.

    begin: called before the device is touched. The UUID is changed after that, as btrfstune refuses one that is on any
    device, and the target may have had it. The seed is read where it is, and not through the mount, which shows files.
    """
    tool = Btrfs(run=workshop.tool)
    with seed.path.open("rb") as source:  # before it is mounted, which tells another one that took its place
        with btrfs_seed.mounted(seed.path, seed.superblock, room) as (_, point):
            used = btrfs_extents.in_use(point, seed.superblock.node_bytes)
        with _draft(seed, source, used.metadata, room) as draft:
            tool.set_seed(str(draft), seed=False)
            tool.set_label(draft, order.label)
            begin()
            with single_root.unfinished_in_words(seed), ThreadPoolExecutor(1) as beside:
                changed = beside.submit(tool.set_uuid, str(draft), order.uuid or str(uuid4()))
                _write(source, used.data, draft, device, changed.result)
    with (
        single_root.unfinished_in_words(seed),
        workshop.mounted(device, room / "target", "-t", "btrfs", "-o", "noatime,subvolid=5") as point,
    ):
        tool.grow(point, seed.superblock.device_number)
        single_root.keep_only(point, order.root, tool)
        single_root.make_default(point / order.root, tool)
        if order.metadata:
            tool.convert_metadata(point, order.metadata)
    return single_root.used_bytes(device)


@contextmanager
def _draft(seed: Seed, source: BinaryIO, metadata: Iterable[Run], room: Path) -> Iterator[Path]:
    """Give a file in memory that is the seed without its data.

    Of small pages, as what is in none of them is not written to the target.
    """
    with workshop.mounted("cowherd-draft", room / "draft", "-t", "tmpfs", "-o", "mode=0700,huge=never") as folder:
        path = folder / "metadata"
        with path.open("xb") as file:
            file.truncate(seed.superblock.device_bytes)
            try:
                _copy(source.fileno(), (*metadata, *_superblocks(seed)), file.fileno())
            except OSError as error:
                raise CowError(
                    f"The metadata of {seed.path} could not be read into memory: {error.strerror}. Nothing was "
                    f"changed. Set `method: sprout` to have it without that."
                ) from error
        yield path


def _superblocks(seed: Seed) -> Iterator[Run]:
    for place in btrfs.SUPERBLOCKS:
        if place + btrfs.SUPERBLOCK_BYTES <= seed.superblock.device_bytes:
            yield Run(place, place + btrfs.SUPERBLOCK_BYTES)


def _write(seed: BinaryIO, used: Iterable[Run], draft: Path, device: str, changed: Callable[[], None]) -> None:
    """Write the data, then the metadata, and when they are on the device the superblock by which they are found.

    changed: returns when the draft is as it is to be, which it becomes while the data are written.
    """
    superblock = Run(btrfs.SUPERBLOCKS[0], btrfs.SUPERBLOCKS[0] + btrfs.SUPERBLOCK_BYTES)
    try:
        with open(device, "wb", buffering=0, opener=_direct) as target, draft.open("rb") as metadata:
            _copy(seed.fileno(), used, target.fileno())
            changed()
            rest = _without(superblock, itertools.starmap(Run, treecopy.segments(metadata.fileno())))
            for runs in (rest, [superblock]):
                _copy(metadata.fileno(), runs, target.fileno())
                os.fsync(target.fileno())
    except OSError as error:
        raise CowError(
            f"The seed {seed.name} could not be read, or {device} not be written: {error.strerror}. The target is "
            f"marked as unfinished. Look at the kernel log for the one that fails."
        ) from error


def _direct(device: str, flags: int) -> int:
    """Open a device past the memory of the kernel; what is there already stays."""
    return os.open(device, flags & ~(os.O_CREAT | os.O_TRUNC) | os.O_DIRECT)


def _without(left_out: Run, runs: Iterable[Run]) -> Iterator[Run]:
    for run in runs:
        for start, end in ((run.start, min(run.end, left_out.start)), (max(run.start, left_out.end), run.end)):
            if start < end:
                yield Run(start, end)


def _copy(source: int, runs: Iterable[Run], target: int) -> None:
    """Copy runs to the same places; one piece is read while another is written."""
    pieces = [Run(start, min(run.end, start + _PIECE)) for run in runs for start in range(run.start, run.end, _PIECE)]
    left = iter(pieces)
    with ThreadPoolExecutor(_WORKERS) as pool:
        parts = [pool.submit(_copy_pieces, source, left, target) for _ in range(_WORKERS)]
        for part in parts:
            part.result()


def _copy_pieces(source: int, left: Iterator[Run], target: int) -> None:
    """Copy what is left, by a buffer that begins a page, as writing past the memory of the kernel wants it."""
    with mmap.mmap(-1, _PIECE) as buffer, memoryview(buffer) as view:
        try:
            for piece in left:
                with view[: piece.bytes] as content:
                    _move_whole(os.preadv, source, content, piece.start)
                    _move_whole(os.pwritev, target, content, piece.start)
        except OSError:
            # So that the other one ends too: a disk that fails can take minutes for what is left.
            deque(left, maxlen=0)
            raise


def _move_whole(move: _Move, descriptor: int, content: memoryview, start: int) -> None:
    moved = 0
    while moved < len(content):
        with content[moved:] as rest:
            step = move(descriptor, [rest], start + moved)
        if not step:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        moved += step

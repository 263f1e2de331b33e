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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from .. import btrfs, btrfs_extents, treecopy
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
    if seed.space.metadata * _MEMORY > _free_memory():
        return f"there is too little memory free for the metadata, of {Size(seed.space.metadata).rounded()}"
    return ""


def install(seed: Seed, order: Order, device: str, room: Path, begin: Callable[[], None]) -> int:
    """Write the file system onto a device, and return the bytes that it takes there.

    begin: called before the device is touched. The UUID is changed after that, as btrfstune refuses one that is on any
    device, and the target may have had it. The seed is read where it is, and not through the mount, which shows files.
    """
    tool = Btrfs(run=workshop.tool)
    with btrfs_seed.mounted(seed.path, seed.superblock, room) as (_, point):
        used = btrfs_extents.in_use(point, seed.superblock.node_bytes)
    with _draft(seed, used.metadata, room) as draft:
        tool.set_seed(str(draft), seed=False)
        tool.set_label(draft, order.label)
        begin()
        with single_root.unfinished_in_words(seed):
            tool.set_uuid(str(draft), order.uuid or str(uuid4()))
            _write(seed.path, used.data, draft, device)
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
def _draft(seed: Seed, metadata: Iterable[Run], room: Path) -> Iterator[Path]:
    """Give a file in memory that is the seed without its data."""
    with workshop.mounted("cowherd-draft", room / "draft", "-t", "tmpfs", "-o", "mode=0700") as folder:
        path = folder / "metadata"
        with path.open("xb") as file, seed.path.open("rb", buffering=0) as source:
            file.truncate(seed.superblock.device_bytes)
            try:
                for start, piece in _pieces(source.fileno(), (*metadata, *_superblocks(seed))):
                    file.seek(start)
                    file.write(piece)
                file.flush()
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


def _write(seed: Path, used: Iterable[Run], draft: Path, device: str) -> None:
    """Write the data, then the metadata, and when that is on the device the superblock by which it is found."""
    target = os.open(device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, _PIECE) as buffer, seed.open("rb") as source, draft.open("r+b", buffering=0) as changed:
            superblock = _taken_out(changed.fileno())
            _put(target, buffer, _pieces(source.fileno(), used))
            written = itertools.starmap(Run, treecopy.segments(changed.fileno()))
            _put(target, buffer, _pieces(changed.fileno(), written))
            _put(target, buffer, [(btrfs.SUPERBLOCKS[0], superblock)])
    except OSError as error:
        raise CowError(
            f"The seed {seed} could not be read, or {device} not be written: {error.strerror}. The target is marked as "
            f"unfinished. Look at the kernel log for the one that fails."
        ) from error
    finally:
        os.close(target)


def _taken_out(draft: int) -> bytes:
    """Return the superblock, and leave zeros in its place."""
    superblock = os.pread(draft, btrfs.SUPERBLOCK_BYTES, btrfs.SUPERBLOCKS[0])
    os.pwrite(draft, bytes(btrfs.SUPERBLOCK_BYTES), btrfs.SUPERBLOCKS[0])
    return superblock


def _pieces(descriptor: int, runs: Iterable[Run]) -> Iterator[tuple[int, bytes]]:
    """Read runs piece by piece; each piece is on its way into memory while the one before it is written."""
    places = [(start, min(_PIECE, run.end - start)) for run in runs for start in range(run.start, run.end, _PIECE)]
    for number, (start, length) in enumerate(places):
        if number + 1 < len(places):
            os.posix_fadvise(descriptor, *places[number + 1], os.POSIX_FADV_WILLNEED)
        piece = os.pread(descriptor, length, start)
        if len(piece) < length:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        yield start, piece


def _put(target: int, buffer: mmap.mmap, pieces: Iterable[tuple[int, bytes]]) -> None:
    """Write past the memory of the kernel, which wants the address to be that of a page, and have it on the device."""
    with memoryview(buffer) as view:
        for start, piece in pieces:
            view[: len(piece)] = piece
            written = 0
            while written < len(piece):
                written += os.pwrite(target, view[written : len(piece)], start + written)
    os.fsync(target)


def _free_memory() -> int:
    """Return the bytes of memory that are free, or could be at once (MemAvailable in /proc/meminfo)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0

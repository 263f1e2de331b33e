"""Where on its device what a mounted btrfs has in use is, as its own trees say.

The layouts are those of linux/btrfs_tree.h: items of the tree of extents (EXTENT_ITEM, METADATA_ITEM) name what is in
use by its logical address, and items of the tree of chunks where that is on a device.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import btrfs
from .errors import CowError

_EXTENT_TREE, _CHUNK_TREE = 2, 3
_EXTENT, _TREE_BLOCK, _CHUNK = 168, 169, 228
_OF_CHUNK = struct.Struct("<Q16xQ12xH2x")
"""Length, profile, number of stripes."""
_STRIPE = struct.Struct("<QQ16x")
"""Device, place on it."""
_KINDS, _DATA = 7, 1
"""What is in a chunk: data, system data, metadata."""
_SPREAD = 1 << 3 | 1 << 6 | 1 << 7 | 1 << 8
"""RAID0, RAID10, RAID5 and RAID6, whose stripes have a part each."""
FEATURES = 0x10BFF
"""Those that leave the trees as they are read here (incompat_flags): not a metadata_uuid, zones, a second version of
the tree of extents, or a tree of stripes.
"""


@dataclass(frozen=True)
class Run:
    """Bytes of a device from `start` to before `end`."""

    start: int
    end: int

    @property
    def bytes(self) -> int:
        """How many there are."""
        return self.end - self.start


@dataclass(frozen=True)
class InUse:
    """Runs in their order on the device: of data, and of everything else, as which all of a mixed chunk counts."""

    data: tuple[Run, ...]
    metadata: tuple[Run, ...]


@dataclass(frozen=True)
class _Chunk:
    start: int
    end: int
    data: bool
    places: tuple[int, ...]

    def runs(self, address: int, length: int) -> Iterator[Run]:
        """Give where so many bytes of it are, each copy of them."""
        for place in self.places:
            yield Run(place + address - self.start, place + address - self.start + length)


def in_use(mounted: Path, node_bytes: int) -> InUse:
    """Read the trees of the file system at `mounted`, which has one device and is not written to meanwhile.

    node_bytes: of a block of its metadata.
    """
    chunks = sorted(_chunks(mounted), key=lambda chunk: chunk.start)
    starts = [chunk.start for chunk in chunks]
    data: list[Run] = []
    metadata: list[Run] = []
    for key, _ in btrfs.items(mounted, _EXTENT_TREE, kinds=(_EXTENT, _TREE_BLOCK)):
        length = key.offset if key.kind == _EXTENT else node_bytes
        place = bisect_right(starts, key.object) - 1
        if place < 0 or key.object + length > chunks[place].end:
            raise CowError(f"What is mounted at {mounted} has an extent at {key.object} that is in no chunk of it.")
        chunk = chunks[place]
        (data if chunk.data else metadata).extend(chunk.runs(key.object, length))
    return InUse(_joined(data), _joined(metadata))


def _chunks(mounted: Path) -> Iterator[_Chunk]:
    for key, content in btrfs.items(mounted, _CHUNK_TREE, kinds=(_CHUNK,)):
        length, profile, number = _OF_CHUNK.unpack_from(content)
        stripes = [_STRIPE.unpack_from(content, _OF_CHUNK.size + each * _STRIPE.size) for each in range(number)]
        if number > 1 and profile & _SPREAD:
            raise CowError(f"What is mounted at {mounted} is spread over several devices, and one is wanted.")
        places = tuple(place for _device, place in stripes)
        yield _Chunk(key.offset, key.offset + length, profile & _KINDS == _DATA, places)


def _joined(runs: Iterable[Run]) -> tuple[Run, ...]:
    joined: list[Run] = []
    for run in sorted(runs, key=lambda run: run.start):
        if joined and run.start <= joined[-1].end:
            joined[-1] = Run(joined[-1].start, max(joined[-1].end, run.end))
        else:
            joined.append(run)
    return tuple(joined)

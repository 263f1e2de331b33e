"""How large an ext4 has to be for a tree: what mke2fs allocates, computed from one walk of it.

The figures are those of ext4 with blocks of 4 KiB, inodes of 256 bytes, and the features of `ext4.FEATURES`. What is
computed is what `mke2fs -d` needs; a file system that the kernel fills needs more (`for_the_kernel`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from .. import manifest
from ..errors import CowError
from ..manifest import Runs
from ..tree import Entry, Tree

BLOCK = 4096
INODE = 256
_INODES_PER_BLOCK = BLOCK // INODE
_GROUP = 8 * BLOCK
"""Blocks of a group, as many as a bitmap of one block has bits; the most inodes of a group, for the same reason."""
_DESCRIPTOR = 64
"""Bytes of a group descriptor with the feature 64bit."""
_LEAST_LAST_GROUP = 50
"""Blocks that the last group, also when it is the only one, has besides its metadata, or mke2fs leaves it out."""
_RESERVED_INODES = 10
"""Numbers 1 to 10; the root of the tree is number 2."""
LOST_AND_FOUND = b"lost+found"
LOST_AND_FOUND_BLOCKS = 4

_EXTENT = 1 << 15
"""Blocks of the longest extent."""
_EXTENTS_IN_INODE = 4
_EXTENTS_IN_BLOCK = 340

_UNFORESEEN = 2000
"""Where there are several groups, one block in so many is for extents of files that metadata or the journal interrupts.

For a Debian tree of 367 MB without it, two blocks were missing. In a single group it is known which files these are.
"""
_BEFORE_METADATA = (15, 30)
"""Blocks of content behind which metadata of the first group comes: the bitmap of the inodes, and their table.

With flex_bg the one is 16 and the other 32 blocks behind the bitmap of the blocks, which comes before all content.
"""

_UNFORESEEN_BY_KERNEL = 512
"""Blocks that it promises to files before it knows how few they take."""

SHORT_TARGET = 59
"""Bytes of a symlink's target that fit into the inode."""
_FOLDER_BLOCK = BLOCK - 12
"""What a block of a folder has for entries besides its checksum."""
_SMALLEST_NAME = 12
_ROOM_FOR_XATTRS = INODE - 128 - 32 - 4
"""What is left in an inode after its fields, the additional fields, and the magic number of extended attributes."""
_XATTR_PREFIXES = (
    b"user.",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"trusted.",
    b"security.",
    b"system.",
)
"""Kept as a number each."""

_JOURNALS = (
    (2048, 0),
    (32768, 1024),
    (256 * 1024, 4096),
    (512 * 1024, 8192),
    (4096 * 1024, 16384),
    (8192 * 1024, 32768),
    (16384 * 1024, 65536),
    (32768 * 1024, 131072),
)
"""Below so many blocks of the file system, so many of the journal (ext2fs_default_journal_size of libext2fs)."""
_LEAST_WITH_JOURNAL = 2048
"""Blocks below which mke2fs makes no journal, also when one is asked for."""
_LARGEST_JOURNAL = 262144


@dataclass(frozen=True)
class Need:
    """What the content of a tree takes: blocks of files, folders and their like, and inodes; lost+found included."""

    blocks: int
    inodes: int

    def with_room(self, blocks: int, inodes: int) -> Need:
        """The same with so much more left free."""
        return Need(self.blocks + blocks, self.inodes + inodes)


@dataclass(frozen=True)
class Layout:
    """A file system: its blocks, inodes to ask mke2fs for, and blocks of its journal, 0 for none."""

    blocks: int
    inodes: int
    journal: int

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.blocks * BLOCK

    @property
    def free(self) -> int:
        """Blocks that it has for content; negative when it is too small for its own metadata."""
        return self.blocks - _metadata(self.blocks, self.inodes) - self.journal


def default_journal(blocks: int) -> int:
    """Return the blocks of the journal that mke2fs gives a file system of so many."""
    return next((journal for below, journal in _JOURNALS if blocks < below), _LARGEST_JOURNAL)


def next_journal(blocks: int) -> int:
    """Return the blocks of the journal that mke2fs gives the next larger file systems that get a larger one."""
    return default_journal(next((below for below, _ in _JOURNALS if blocks < below), blocks))


def blocks_to_grow(blocks: int) -> int:
    """Return the blocks that mke2fs keeps (resize_inode) for the descriptors of 1024 times as many groups."""
    groups = -(-blocks // _GROUP)
    copies = sum(1 for group in range(groups) if _has_superblock(group))
    return copies * min(BLOCK // 4, _descriptors(1024 * groups)) + 8


def smallest(need: Need, journal: int | None = None) -> Layout:
    """Return the smallest file system that holds `need`; `journal` is in blocks, None for the default of its size."""
    inodes = need.inodes
    # From what is needed in any case: of few blocks mke2fs would make many small groups, with more metadata.
    blocks = max(need.blocks + inodes // _INODES_PER_BLOCK, _LEAST_WITH_JOURNAL if journal else 0)
    while True:
        of_journal = default_journal(blocks) if journal is None else journal
        wanted = max(need.blocks + of_journal + _metadata(blocks, inodes), _least_with(of_journal, blocks, inodes))
        if wanted <= blocks:
            break
        blocks = wanted
    whole = _without_stub(blocks, inodes)
    return Layout(whole, inodes, default_journal(whole) if journal is None else journal)


def fixed(size: int, need: Need, journal: int | None = None) -> Layout:
    """Return the file system of `size` bytes with the inodes of `need`."""
    blocks = size // BLOCK
    if journal is None:
        journal = default_journal(blocks)
        if blocks < _least_with(journal, blocks, need.inodes):
            journal = 0
    return Layout(blocks, need.inodes, journal)


@dataclass(frozen=True)
class Content:
    """A tree with which blocks of its files are not all zeros; what is not known of that is read when it is needed."""

    tree: Tree
    known: Runs | None = None

    @cached_property
    def runs(self) -> Runs:
        """The runs of all files."""
        return manifest.runs_of(self.tree) if self.known is None else self.known


def need_of(content: Content) -> Need:
    """Add up what a tree takes.

    mke2fs takes blocks one after the other, in the order of the tree, and makes as many symlinks of one as it has hard
    links.
    """
    blocks, inodes, of_folders = 1 + LOST_AND_FOUND_BLOCKS, _RESERVED_INODES + 1, 0
    folders = {b".": _Folder(0), LOST_AND_FOUND: _Folder(1, LOST_AND_FOUND_BLOCKS)}
    folders[b"."].add(LOST_AND_FOUND, blocks)
    tree, runs = content.tree, content.runs
    leaders = tree.leaders()
    for entry in tree.entries:
        if entry.path in (b".", LOST_AND_FOUND):
            continue
        blocks += folders[entry.parent].add(entry.name, blocks)
        if leaders.get(entry.path, entry.path) != entry.path and not stat.S_ISLNK(entry.mode):
            continue
        inodes += 1
        if entry.is_folder:
            folders[entry.path] = _Folder(blocks)
            blocks += 1
            of_folders += _xattr_blocks(entry)  # taken when what is in it has been
        else:
            of_entry = runs.get(entry.path, (-(-entry.size // BLOCK),))
            blocks += _content_blocks(entry, of_entry, range(blocks, blocks + of_folders + 1)) + _xattr_blocks(entry)
    total = blocks + of_folders + sum(_xattr_blocks(entry) for entry in tree.entries[:1])
    has_one_group = total <= _GROUP // 2 and inodes <= _GROUP
    return Need(total if has_one_group else total + total // _UNFORESEEN, inodes)


def for_the_kernel(tree: Tree, need: Need) -> Need:
    """Return what a tree takes when it is copied into a mounted ext4.

    The kernel splits full blocks of large folders in halves, and keeps some blocks back for the extents of what it has
    yet to write: the smaller of 2 % and 4096 clusters (ext4_calculate_resv_clusters).
    """
    widest: dict[bytes, int] = {}
    for entry in tree.entries:
        widest[entry.parent] = widest.get(entry.parent, 0) + len(entry.name) + 12
    halves = sum(2 + -(-size // BLOCK) for size in widest.values() if size > BLOCK)
    kept_back = min(need.blocks // 50 + 1, 4096)
    return need.with_room(halves + kept_back + need.blocks // 50 + _UNFORESEEN_BY_KERNEL, 0)


def slowest_folder(tree: Tree) -> tuple[bytes, int, int]:
    """Return the folder that mke2fs is longest with, its entries, and how many blocks it looks at to fill it.

    For each new entry it looks through all blocks of the folder (ext2fs_link), at 10 microseconds for each.
    """
    counted: dict[bytes, tuple[int, int]] = {}
    for entry in tree.entries[1:]:
        entries, size = counted.get(entry.parent, (0, 0))
        counted[entry.parent] = (entries + 1, size + 8 + _padded(len(entry.name)))
    looks = {folder: entries * size // BLOCK // 2 for folder, (entries, size) in counted.items()}
    slowest = max(looks, key=lambda folder: looks[folder], default=b".")
    return slowest, counted.get(slowest, (0, 0))[0], looks.get(slowest, 0)


def largest_file(tree: Tree) -> int:
    """Return the size of the largest file in bytes."""
    return max((entry.size for entry in tree.entries if entry.is_file), default=0)


def payload(tree: Tree) -> int:
    """Return the bytes in the files of a tree, each file once, without holes."""
    once = {entry.identity: min(entry.size, entry.blocks * 512) for entry in tree.entries if entry.is_file}
    return sum(once.values())


def inodes_of(tree: Tree) -> int:
    """Return how many files, folders and other things a tree has."""
    return len({entry.identity for entry in tree.entries})


def _content_blocks(entry: Entry, runs: Iterable[int], starts: range) -> int:
    """Return the blocks of an entry that is no folder. starts: how many blocks of content may lie before it."""
    if stat.S_ISLNK(entry.mode):
        return int(entry.size > SHORT_TARGET)
    if not entry.is_file or not entry.size:
        return 0
    used = extents = 0
    for length in runs:
        extents += _extents(length) + _interruptions(range(starts.start + used, starts.stop + used + length - 1))
        used += length
    return used + extent_blocks(extents)


def _interruptions(blocks: range) -> int:
    """Say how often metadata lies within a row of blocks of the content."""
    return sum(blocks.start < place < blocks.stop for place in _BEFORE_METADATA)


def _extents(length: int) -> int:
    """Extents of so many blocks in a row, which metadata of the groups may interrupt twice in each group."""
    return -(-length // _EXTENT) + 2 * (length // _EXTENT)


def extent_blocks(extents: int) -> int:
    """Return the blocks of the tree that so many extents need besides those in the inode."""
    total = 0
    while extents > _EXTENTS_IN_INODE:
        extents = -(-extents // _EXTENTS_IN_BLOCK)
        total += extents
    return total


class _Folder:
    """A folder while it is filled: each entry goes into the first block that has room for it.

    start: how many blocks of content lie before it; a block more of it comes after all that has been written by then.
    """

    def __init__(self, start: int, blocks: int = 1) -> None:
        self._end, self._extents = start + blocks, 1
        self._room = [_FOLDER_BLOCK - 2 * _SMALLEST_NAME, *([_FOLDER_BLOCK] * (blocks - 1))]
        self._full = 0

    def add(self, name: bytes, place: int) -> int:
        """Return the blocks by which it grows for an entry. place: how many blocks of content there are by now."""
        room, before = self._room, len(self._room)
        size = 8 + _padded(len(name))
        block = next((number for number in range(self._full, before) if room[number] >= size), before)
        if block == before:
            room.append(_FOLDER_BLOCK)
        room[block] -= size
        while self._full < len(room) and room[self._full] < _SMALLEST_NAME:
            self._full += 1
        return self._grow(place) if len(room) > before else 0

    def _grow(self, place: int) -> int:
        further = int(place != self._end)
        of_extents = extent_blocks(self._extents + further) - extent_blocks(self._extents)
        self._extents += further
        self._end = place + 1
        return 1 + of_extents


def _xattr_blocks(entry: Entry) -> int:
    sizes = [_xattr_size(name, value) for name, value in entry.xattrs]
    if not sizes or sum(sizes) + 4 <= _ROOM_FOR_XATTRS:
        return 0
    if sum(sizes) + 4 > _ROOM_FOR_XATTRS + BLOCK - 32:
        raise CowError(
            f"{os.fsdecode(entry.path)} has {sum(sizes)} bytes of extended attributes, and ext4 has room for one block "
            f"of {BLOCK}. Remove some, or choose another format."
        )
    return 1


def _xattr_size(name: bytes, value: bytes) -> int:
    prefix = next((prefix for prefix in _XATTR_PREFIXES if name.startswith(prefix)), b"")
    is_acl = name.startswith(b"system.posix_acl_")
    return 16 + _padded(len(name) - len(prefix)) + _padded(_acl_size(value) if is_acl else len(value))


def _acl_size(value: bytes) -> int:
    """Return what an ACL takes on the disk: 8 bytes for an entry that names somebody, and 4 for others."""
    tags = (int.from_bytes(value[at : at + 2], "little") for at in range(4, len(value), 8))
    return 4 + sum(8 if tag in (0x02, 0x08) else 4 for tag in tags)


def _padded(length: int) -> int:
    return -(-length // 4) * 4


def _metadata(blocks: int, inodes: int) -> int:
    """Return the blocks of superblocks, descriptors, bitmaps and inode tables."""
    if not blocks:
        return 0
    groups = _groups(blocks, inodes)
    return groups * (2 + _table(inodes, groups)) + _superblocks(groups)


def _least_with(journal: int, blocks: int, inodes: int) -> int:
    """Return the least size for a journal: mke2fs refuses one of more than half of what is not superblocks."""
    return 2 * journal + _superblocks(_groups(blocks, inodes)) if journal else 0


def _groups(blocks: int, inodes: int) -> int:
    return -(-blocks // _blocks_per_group(blocks, inodes))


def _superblocks(groups: int) -> int:
    """Return the blocks of superblocks and descriptors, with their copies."""
    copies = sum(1 for group in range(groups) if _has_superblock(group))
    return copies * (1 + _descriptors(groups))


def _without_stub(blocks: int, inodes: int) -> int:
    """Return the size with which mke2fs keeps the last group, which else is too small for it to be made."""
    if _blocks_per_group(blocks, inodes) < _GROUP:
        return blocks  # mke2fs then chooses the size of the groups so that the last one is large enough
    groups = -(-blocks // _GROUP)
    rest = blocks % _GROUP
    metadata = 2 + _table(inodes, groups)
    if _has_superblock(groups - 1):
        metadata += 1 + _descriptors(groups)
    least = metadata + _LEAST_LAST_GROUP
    return blocks + (least - rest if 0 < rest < least else 0)


def _blocks_per_group(blocks: int, inodes: int) -> int:
    """Return the size of a group, which mke2fs makes smaller by 8 until no group has too many inodes."""
    groups = -(-inodes // _GROUP)
    if groups <= 1 or -(-blocks // _GROUP) >= groups:
        return _GROUP
    at_most = (blocks - 1) // (groups - 1)
    return max(_GROUP - -(-(_GROUP - at_most) // 8) * 8, 256)


def _table(inodes: int, groups: int) -> int:
    return -(-inodes // (groups * _INODES_PER_BLOCK))


def _descriptors(groups: int) -> int:
    return -(-groups * _DESCRIPTOR // BLOCK)


def _has_superblock(group: int) -> bool:
    """Whether a group has a copy of the superblock (sparse_super): 0, 1 and powers of 3, 5 and 7."""
    return group < 2 or any(_is_power(group, base) for base in (3, 5, 7))


def _is_power(number: int, base: int) -> bool:
    while number % base == 0:
        number //= base
    return number == 1

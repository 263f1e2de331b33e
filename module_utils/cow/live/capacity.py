"""How large a device has to be for a tree to be sure to fit on it, when the kernel copies it there.

Each file is counted in whole blocks, as nothing of it is compressed for sure. What the file systems keep for themselves
is estimated from above: what passes for enough must be, because it is found out when nothing is left of what was there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..image import sizing
from ..image.sizing import BLOCK, Need
from ..size import whole_mib
from ..tree import Entry, Tree

_MIB = 1 << 20
_EXTENTS = 128
"""One block in so many names extents, were each of them a block and were the blocks that name them half full."""
_NAME = 20
"""Bytes of an entry of a folder besides its name, with what finds it by its hash."""
_XATTR = 32
"""Bytes of an extended attribute besides its name and value."""

_EXT4_LEAST = 16 * _MIB
_EXT4_RATIOS = ((512 * _MIB, 4096), (4 << 40, 16384), (16 << 40, 32768))
"""Below so many bytes, an inode for so many, as mke2fs.conf has it; one for 65536 from there on."""
_EXT4_OWN = 1024
"""Blocks for a file of orphans, and for those that it promises to files before it knows how few they take."""

_XFS_LEAST = 300 * _MIB
_XFS_INODE = 512
_XFS_LOG, _XFS_POOL = 64 * _MIB, 32 * _MIB
"""Its log, and what it keeps back to be able to give space back."""
_XFS_KEPT = 32
"""One byte in so many is kept for the trees of each group."""
_XFS_INODES = 4
"""Inodes have one byte in so many at most (imaxpct)."""

_BTRFS_LEAST = 128 * _MIB
_BTRFS_INODE = 2048
"""Bytes of metadata of a file, twice."""


def need_of(tree: Tree) -> Need:
    """Add up what a tree takes in any file system, each file once."""
    once = {entry.identity: entry for entry in tree.entries}
    folders: dict[bytes, int] = {}
    for entry in tree.entries:
        folders[entry.parent] = folders.get(entry.parent, 0) + len(entry.name) + _NAME
    content = sum(map(_blocks, once.values()))
    # Blocks of large folders are split in halves.
    names = sum(-(-2 * size // BLOCK) for size in folders.values())
    return Need(content + content // _EXTENTS + names + sizing.LOST_AND_FOUND_BLOCKS, len(once))


def ext4_inodes(need: Need, size: int) -> int:
    """Return how many inodes an ext4 of so many bytes is to have: as many as usual, or more where it takes more."""
    ratio = next((ratio for below, ratio in _EXT4_RATIOS if size < below), 65536)
    return max(size // ratio, need.inodes + need.inodes // 8 + 32)


def _blocks(entry: Entry) -> int:
    attributes = sum(len(name) + len(value) + _XATTR for name, value in entry.xattrs)
    blocks = -(-attributes // BLOCK)
    if entry.is_folder:
        return blocks + 1
    if entry.is_file:
        return blocks + min(-(-entry.size // BLOCK), -(-entry.blocks * 512 // BLOCK))
    return blocks + (len(entry.target) > sizing.SHORT_TARGET)


def _ext4(need: Need) -> int:
    """The journal is that of the next larger size, so that what fits into a size fits into all larger ones."""
    size, kept_back = _EXT4_LEAST, min(need.blocks // 50 + 1, 4096)
    blocks = need.blocks + need.blocks // 50 + kept_back + _EXT4_OWN
    while True:
        own = sizing.blocks_to_grow(size // BLOCK)
        wanted = Need(blocks + own, ext4_inodes(need, size))
        least = whole_mib(sizing.smallest(wanted, sizing.next_journal(size // BLOCK)).bytes)
        if least <= size:
            return size
        size = least


def _xfs(need: Need) -> int:
    inodes = (need.inodes + need.inodes // 8 + 1024) * _XFS_INODE
    content = need.blocks * BLOCK + need.blocks * BLOCK // 64 + inodes + _XFS_LOG + _XFS_POOL
    return whole_mib(max(_XFS_LEAST, content + content // (_XFS_KEPT - 1), inodes * _XFS_INODES))


def _btrfs(need: Need) -> int:
    content = need.blocks * BLOCK + need.inodes * _BTRFS_INODE
    return whole_mib(content + content // 8 + _BTRFS_LEAST)


LEAST: Mapping[str, Callable[[Need], int]] = {"btrfs": _btrfs, "ext4": _ext4, "xfs": _xfs}
"""Bytes of a device from which on a tree is sure to fit, by file system."""

"""What of a tree's data is its own, and what it shares: asked file by file, with FIEMAP.

Works where the kernel tells which extents are shared, on btrfs and XFS; elsewhere nothing is shared. Data that is
inline in metadata is not counted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from .model import Sizes

_FIEMAP = 0xC020660B
_REQUEST = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_AT_ONCE = 128
_LAST, _INLINE, _SHARED = 0x1, 0x200, 0x2000
_ALL = 2**64 - 1


def measure(tree: Path) -> Sizes | None:
    """Measure the regular files in a tree, each once; links are not followed, other file systems not entered.

    A tree may be in use meanwhile: what goes before it was measured is left out. None when the tree itself is gone.
    """
    exclusive = shared = 0
    try:
        for of_file in _files(tree):
            exclusive += of_file.exclusive
            shared += of_file.shared
    except FileNotFoundError:
        return None
    return Sizes(exclusive, shared)


def _files(tree: Path) -> Iterator[Sizes]:
    seen: set[int] = set()
    device = tree.stat().st_dev
    for _, folders, names, descriptor in os.fwalk(tree):
        found = ((name, _status(name, descriptor)) for name in folders)
        folders[:] = [name for name, status in found if status and status.st_dev == device]
        for name in names:
            status = _status(name, descriptor)
            if not status or not stat.S_ISREG(status.st_mode) or not status.st_blocks or status.st_ino in seen:
                continue
            if status.st_nlink > 1:
                seen.add(status.st_ino)
            if measured := _measured(name, descriptor, status.st_blocks * 512):
                yield measured


def _status(name: str, folder: int) -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    return None


def _measured(name: str, folder: int, allocated: int) -> Sizes | None:
    """Return None for what is gone, or is something else than a file now."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            raise
        return None
    try:
        exclusive = shared = 0
        for length, flags in _extents(descriptor):
            if flags & _SHARED:
                shared += length
            elif not flags & _INLINE:
                exclusive += length
        return Sizes(exclusive, shared)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        return Sizes(exclusive=allocated, shared=0)
    finally:
        os.close(descriptor)


def _extents(descriptor: int) -> Iterator[tuple[int, int]]:
    """Yield length and flags of each extent."""
    start = 0
    while True:
        buffer = bytearray(_REQUEST.pack(start, _ALL - start, 0, 0, _AT_ONCE, 0) + bytes(_EXTENT.size * _AT_ONCE))
        fcntl.ioctl(descriptor, _FIEMAP, buffer)
        count = _REQUEST.unpack_from(buffer)[3]
        for index in range(count):
            logical, _, length, flags = _EXTENT.unpack_from(buffer, _REQUEST.size + index * _EXTENT.size)
            yield length, flags
            if flags & _LAST:
                return
            start = logical + length
        if not count:
            return

"""What of a tree's data is its own, and what it shares: asked file by file, with FIEMAP.

Works where the kernel tells which extents are shared, on btrfs and XFS; elsewhere nothing is shared. Data that is
inline in metadata is not counted.
"""

from __future__ import annotations

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


def measure(tree: Path) -> Sizes:
    """Measure the regular files in a tree, each once; links are not followed, other file systems not entered."""
    exclusive = shared = 0
    for of_file in _files(tree):
        exclusive += of_file.exclusive
        shared += of_file.shared
    return Sizes(exclusive, shared)


def _files(tree: Path) -> Iterator[Sizes]:
    seen: set[tuple[int, int]] = set()
    device = tree.stat().st_dev
    for _, folders, names, descriptor in os.fwalk(tree):
        folders[:] = [
            name for name in folders if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_dev == device
        ]
        for name in names:
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode) or not status.st_blocks or (key := (device, status.st_ino)) in seen:
                    continue
                if status.st_nlink > 1:
                    seen.add(key)
                yield _measured(name, descriptor, status.st_blocks * 512)
            except FileNotFoundError:
                continue  # A session's tree is in use while it is measured.


def _measured(name: str, folder: int, allocated: int) -> Sizes:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
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

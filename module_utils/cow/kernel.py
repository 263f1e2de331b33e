"""System calls that Python has no name for."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_SLAVE = 0x1000, 0x4000, 0x80000
_UMOUNT_NOFOLLOW = 8
_FITRIM, _FITHAW = 0xC0185879, 0xC0045878
_RANGE = struct.Struct("=QQQ")
"""Of FITRIM: first byte, how many, and the least that is worth it."""
_ENDING = 1.0
"""Seconds that a thread takes at most to end after Python has joined it."""
_SYNC_FILE_RANGE_WRITE = 2
_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 1, 2


def sync_file_system(path: Path) -> None:
    """Write what is dirty of the file system that holds `path` to its device (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc().syncfs(descriptor))
    finally:
        os.close(descriptor)


def start_writing(path: Path) -> None:
    """Have the kernel begin to write what is dirty of a file, and do not wait for it (sync_file_range(2)).

    Syncing it later waits for less, and tells what went wrong.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _libc().sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)
    finally:
        os.close(descriptor)


def trim(path: Path) -> int | None:
    """Have the file system that holds `path` give its free space back to the device (FITRIM, as fstrim(8) does).

    Returns the bytes that were given back, None where the device or the file system takes none.
    """
    asked = bytearray(_RANGE.pack(0, 2**64 - 1, 0))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _FITRIM, asked)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        return None
    finally:
        os.close(descriptor)
    return int(_RANGE.unpack(asked)[1])


def thaw(path: Path) -> None:
    """Let writes go on to the file system that holds `path` (FITHAW, as xfs_freeze -u does); fine when they can."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def punch_hole(descriptor: int, offset: int, length: int) -> None:
    """Give back the blocks of a range of an open file, which then reads as zeros (fallocate(2)).

    Raises OSError (EOPNOTSUPP) where the file system cannot.
    """
    mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
    _checked(_libc().fallocate(descriptor, mode, ctypes.c_int64(offset), ctypes.c_int64(length)))


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent, whose process id is given, ends (prctl(2))."""
    _checked(_libc().prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """Have mounts of the block seen by this process and its children alone, and gone when they end (unshare(2)).

    What is unmounted elsewhere meanwhile is unmounted here too, so that no file system is kept busy.
    For a process with one thread, besides those that are started in the block and end in it.
    """
    before = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        folder = Path.cwd()
        _checked(_libc().unshare(_CLONE_NEWNS))
        try:
            _checked(_libc().mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))
            yield
        finally:
            _return_to(before)
            os.chdir(folder)
    finally:
        os.close(before)


def _return_to(namespace: int) -> None:
    """Enter a mount namespace again, once the kernel too has seen the end of threads that were joined."""
    deadline = time.monotonic() + _ENDING
    while True:
        try:
            _checked(_libc().setns(namespace, _CLONE_NEWNS))
        except OSError as error:
            if error.errno != errno.EINVAL or time.monotonic() > deadline:
                raise
            time.sleep(0.001)
        else:
            return


def bind(what: bytes, point: bytes) -> None:
    """Show a file or folder at another one, without what is mounted in it (mount(2)).

    The paths may be those of open descriptors in /proc, that mount(8) would look up anew.
    """
    _checked(_libc().mount(what, point, None, _MS_BIND, None))


def unmount(point: bytes) -> None:
    """Take away what is mounted there; a symbolic link at the end of the path is not followed (umount2(2))."""
    _checked(_libc().umount2(point, _UMOUNT_NOFOLLOW))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(status: int) -> None:
    if status == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

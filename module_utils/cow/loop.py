"""Files that are disks: what is in one that nobody has a record of, and block devices that show one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from . import blockdev, btrfs
from .errors import CowError
from .size import Size

_GET_FREE, _CONFIGURE = 0x4C82, 0x4C0A
"""From linux/loop.h, since Linux 5.8, as are the layout (loop_config) and the flags."""
_CONFIG = struct.Struct("=II52xI64s112x64x")
_READ_ONLY, _AUTOCLEAR, _DIRECT = 1, 4, 16
_TRIES = 100

_AT_MOST = Size(64 << 20)
"""The most that is allocated of a file with an empty file system on it; a btrfs of 10 GiB takes 5 MiB."""


def content(path: str) -> str:
    """Say what a file holds in a few words, "" when it is what an interrupted attempt to make a pool leaves behind.

    That is a file of holes, on which there is nothing yet, or a btrfs without a subvolume. Instances, images and
    volumes are subvolumes.
    """
    status = Path(path).stat()
    allocated = Size(status.st_blocks * 512)
    if status.st_size > 0 and allocated.bytes >= min(status.st_size, _AT_MOST.bytes):
        return f"{allocated.rounded()} of data"
    signature = blockdev.signature(path)
    if signature.startswith("btrfs "):
        return "a btrfs with subvolumes" if btrfs.has_subvolumes(path) else ""
    return signature


def backed_by(path: Path) -> tuple[str, ...]:
    """Return the loop devices that show a file, whatever name they were given for it."""
    wanted = path.resolve()
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # it may be let go of just now
            if Path(os.fsdecode(backing.read_bytes().rstrip(b"\n"))) == wanted:
                found.append(f"/dev/{backing.parent.parent.name}")
    return tuple(sorted(found))


@contextlib.contextmanager
def attached(path: Path, *, readonly: bool, direct: bool = False) -> Iterator[str]:
    """Give a loop device of its own for a file or device during the block.

    It is not one that exists already, as `mount -o loop` may take, and goes with its last user when this process ends
    in any way.

    direct: what goes through it does not stay in memory for a second time, nor is more read than is asked for, where
        the file system can do that (O_DIRECT). For what is read or written once.
    """
    backing = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        flags = _AUTOCLEAR | (_READ_ONLY if readonly else 0) | (_DIRECT if direct else 0)
        config = _CONFIG.pack(backing, 0, flags, os.fsencode(path)[:63])
        number, device = _configure(config, os.O_RDONLY if readonly else os.O_RDWR)
    finally:
        os.close(backing)
    try:
        yield f"/dev/loop{number}"
    finally:
        os.close(device)


def _configure(config: bytes, mode: int) -> tuple[int, int]:
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _GET_FREE)
            device = os.open(f"/dev/loop{number}", mode | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _CONFIGURE, config)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # another process was quicker
                    raise
            else:
                return number, device
    finally:
        os.close(control)
    raise CowError("No loop device could be had: other processes took each one that was free. Start again.")

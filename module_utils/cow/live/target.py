"""The device or file that a root is installed on: what is on it, and how an unfinished installation is told."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import blockdev, loop
from ..errors import CowError
from ..image import workshop
from ..size import Size
from .seed import bytes_of

UNFINISHED_LABEL = "cowherd-part"
"""Of a file system that is being filled, for people who look at it. 12 bytes, the most that XFS has."""
UNKNOWN = "data"
"""What stands for content that nothing recognises, where it is named as to be destroyed."""
_MARKER = b"cowherd: this installation is not finished\n"
_SECTOR = 512
_LOOKED_AT = _MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """path: with symbolic links resolved.  device: a block device, not a file.

    bytes: its size, None for a file that is not there.
    content: what is on it in words, "" when nothing is.  names: words that it may be named by, the most exact first.
    unfinished: an installation was begun here and did not end. Of a file system that was to be filled by copying, the
        record of the installation says so.
    """

    path: Path
    device: bool
    bytes: int | None
    content: str
    names: tuple[str, ...]
    uuid: str
    unfinished: bool


def observe(path: Path) -> Target:
    """Look at a target without writing. Raises CowError when it is in use, or cannot be one."""
    real = path.resolve()
    try:
        mode = real.stat().st_mode
    except FileNotFoundError:
        return _absent(real)
    if stat.S_ISBLK(mode):
        _refuse_used_device(real)
    elif stat.S_ISREG(mode):
        _refuse_used_file(real)
    else:
        raise CowError(f"{path} is neither a block device nor a file. Give one of these as the target.")
    return _recognised(real, stat.S_ISBLK(mode))


@contextmanager
def writable(target: Target) -> Iterator[str]:
    """Give the block device of a target, kept from udev's eyes, which would open it, while it changes."""
    if not target.device:
        with loop.attached(target.path, readonly=False, direct=True) as device:
            yield device
        return
    descriptor = os.open(target.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield str(target.path)
    finally:
        os.close(descriptor)


def begin(device: str) -> None:
    """Mark a device as one with an unfinished installation, durably, then remove every signature that is on it."""
    _write_first_sector(device, _MARKER)
    workshop.tool(["wipefs", "--all", "--quiet", device])


def end(device: str) -> None:
    """Remove the mark; a tool that made a file system may have done so already."""
    if _is_marked(Path(device)):
        _write_first_sector(device, b"")


def _write_first_sector(device: str, content: bytes) -> None:
    descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, content.ljust(_SECTOR, b"\0"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_marked(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(_SECTOR).startswith(_MARKER)


def _absent(real: Path) -> Target:
    if not real.parent.is_dir():
        raise CowError(f"The folder {real.parent} does not exist. Make it, or choose another target.")
    if real.is_relative_to("/dev"):
        raise CowError(f"There is no device {real}. `lsblk` shows those that there are.")
    return Target(real, False, None, "", (), "", False)


def _refuse_used_device(real: Path) -> None:
    found = blockdev.inspect(str(real))
    if found and found.content.startswith(("mounted ", "in use ")):
        raise CowError(f"{real} is {found.content}. Unmount or stop that first, or choose another target.")
    if found and " partition" in found.content and found.content[0].isdigit():
        raise CowError(
            f"{real} has {found.content}. Give one of these as the target, or remove them first: `wipefs --all` of "
            f"each and of the disk, then `blockdev --rereadpt {real}`."
        )
    try:
        os.close(os.open(real, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise CowError(
            f"{real} is in use: a file system on it is mounted, or swap or another device is on it. Unmount or stop "
            f"that first, or choose another target."
        ) from error


def _refuse_used_file(real: Path) -> None:
    if devices := loop.backed_by(real):
        raise CowError(
            f"{real} is in use by {', '.join(devices)}. Unmount what is on it, and detach it (`losetup --detach`)."
        )


def _recognised(real: Path, device: bool) -> Target:
    found = blockdev.identify(str(real))
    size = bytes_of(real)
    marked = _is_marked(real)
    if found is None:
        unknown = not marked and _holds_data(real, device)
        content = "data that no tool recognises" if unknown else ""
        return Target(real, device, size, content, (UNKNOWN,) if unknown else (), "", marked)
    words = f"{found.type} {found.uuid}".strip() + (f" labelled {found.label!r}" if found.label else "")
    return Target(
        path=real,
        device=device,
        bytes=size,
        content="" if marked else words,
        names=tuple(filter(None, (found.uuid, found.type))),
        uuid=found.uuid,
        unfinished=marked,
    )


def _holds_data(real: Path, device: bool) -> bool:
    """Look at the beginning and end of a device, and at all of a file, which knows its holes.

    At the end is the copy of a partition table.
    """
    with real.open("rb") as file:
        if any(file.read(_LOOKED_AT)):
            return True
        if device:
            file.seek(max(0, bytes_of(real) - _LOOKED_AT))
            return any(file.read(_LOOKED_AT))
        position = _LOOKED_AT
        while True:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return False
                raise
            file.seek(position)
            if any(file.read(_LOOKED_AT)):
                return True
            position += _LOOKED_AT


def room_in_words(size: int) -> str:
    """Give bytes exactly, and for people."""
    return f"{size} bytes ({Size(size).rounded()})"


def identity(device: str) -> str:
    """Return the UUID of the file system that was made on a device."""
    found = blockdev.identify(device)
    if found is None or not found.uuid:
        raise CowError(f"There is no file system with a UUID on {device} after all. Look at the kernel log.")
    return found.uuid

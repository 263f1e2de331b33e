"""The device or file that a root is installed on: what is on it, and how an unfinished installation is told."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
BEHIND_THE_MARK = ("btrfs", "ext4")
"""File systems that leave the first sector alone; what else is on a marked device came there later."""
_LINGERS = 3.0
"""Seconds that a loop device may be there still that was let go of: udev looks at what changed."""
_PAUSE = 0.05


@dataclass(frozen=True)
class Target:
    """path: with symbolic links resolved.  device: a block device, not a file.

    bytes: its size, None for a file that is not there.
    content: what is on it in words, "" when nothing is.  names: words that it may be named by, the most exact first.
    label: of the file system.
    unfinished: an installation was begun here and did not end. An XFS has no room for the mark: its label and the
        record of the installation say so.
    """

    path: Path
    device: bool
    bytes: int | None
    content: str
    names: tuple[str, ...]
    uuid: str
    unfinished: bool
    label: str = ""


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
    with ExitStack() as stack:
        device = str(target.path)
        if not target.device:
            device = stack.enter_context(loop.attached(target.path, readonly=False, direct=True))
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield device


def begin(device: str) -> None:
    """Mark a device as unfinished, then remove every signature that is on it."""
    mark(device)
    workshop.tool(["wipefs", "--all", "--quiet", device])


def mark(device: str) -> None:
    """Mark a device as one with an unfinished installation, durably. What is behind the first sector stays."""
    _write_first_sector(device, _MARKER)


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
    deadline = time.monotonic() + _LINGERS
    while (devices := loop.backed_by(real)) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    if devices:
        raise CowError(
            f"{real} is in use by {', '.join(devices)}. Unmount what is on it, and detach it (`losetup --detach`)."
        )


def _recognised(real: Path, device: bool) -> Target:
    found = blockdev.identify(str(real))
    size = bytes_of(real)
    marked = _is_marked(real) and (found is None or found.type in BEHIND_THE_MARK)
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
        label=found.label,
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


def allocated_bytes(target: Target) -> int:
    """Return what a file takes on its disk already."""
    return 0 if target.bytes is None else target.path.stat().st_blocks * _SECTOR


def room_in_words(size: int) -> str:
    """Give bytes exactly, and for people."""
    return f"{size} bytes ({Size(size).rounded()})"


def identity(device: str) -> str:
    """Return the UUID of the file system that was made on a device."""
    found = blockdev.identify(device)
    if found is None or not found.uuid:
        raise CowError(f"There is no file system with a UUID on {device} after all. Look at the kernel log.")
    return found.uuid

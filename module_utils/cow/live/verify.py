"""Verifies an image by the checksums that it carries, and names what is damaged."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from .. import btrfs, btrfs_extents, host, names
from ..btrfs import Scrubbed, Superblock
from ..errors import CowError
from ..image import btrfs_seed
from ..tree import ROOT, Descent, names_in
from . import room
from . import seed as seeds

_CHUNK = 1 << 20
_MEMORY = 2
"""One part in so many of the memory that is free may be taken for what is read ahead."""
_NAMED = 50
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOATIME | os.O_CLOEXEC


@dataclass(frozen=True)
class Verified:
    """checksum: its type.  damaged: files and folders that cannot be read as a whole, as ROOT:/PATH."""

    checksum: str
    scrubbed: Scrubbed
    damaged: tuple[str, ...] = ()

    @property
    def wrong(self) -> str:
        """What is wrong, in words; "" when nothing is."""
        found = self.scrubbed
        if found.clean:
            return ""
        blocks = {
            f"blocks of data that cannot be read, or are not what their checksums ({self.checksum}) say": found.data,
            "damaged blocks of metadata": found.metadata,
            "damaged copies of the superblock": found.superblocks,
        }
        counted = "; ".join(f"{what}: {number}" for what, number in blocks.items() if number)
        named = f" Hit: {names.shortened(self.damaged, _NAMED)}." if self.damaged else " No file is hit."
        return f"{counted}.{named}"

    def require_whole(self, path: Path) -> None:
        """Raise CowError when the image at the path, which this was found of, is damaged."""
        if self.wrong:
            raise CowError(f"{path} is damaged: {self.wrong} Do not use it: build it or get it again.")


def verify(path: Path, *, buffered: bool = False) -> Verified:
    """Read all that is in use of an image in a file or on a device. Raises CowError when it cannot be mounted.

    buffered: what is read stays in memory as long as there is room, because it will be read again.
    """
    found = seeds.inspect(path)
    with room.opened() as folder, btrfs_seed.mounted(path, found, folder, buffered=buffered) as (_, point):
        with _read_ahead(path, found, point) if buffered else nullcontext():
            scrubbed = _scrubbed(point, path, found.device_number)
        return Verified(found.checksum, scrubbed, () if scrubbed.clean else tuple(sorted(damaged(point))))


@contextmanager
def _read_ahead(path: Path, found: Superblock, point: Path) -> Iterator[None]:
    """Have what is in use read into memory during the block, in more at a time than a scrub reads, if it has room."""
    over = threading.Event()

    def read() -> None:
        # What cannot be read is for the scrub to tell.
        with suppress(OSError, CowError), path.open("rb") as file:
            buffer = memoryview(bytearray(_CHUNK))
            used = btrfs_extents.in_use(point, found.node_bytes)
            for run in sorted((*used.data, *used.metadata), key=lambda run: run.start):
                for place in range(run.start, run.end, _CHUNK):
                    if over.is_set():
                        return
                    os.preadv(file.fileno(), [buffer[: run.end - place]], place)

    if found.used_bytes * _MEMORY > host.available_memory():
        yield
        return
    reading = threading.Thread(target=read)
    try:
        reading.start()
        yield
    finally:
        over.set()
        reading.join()


def _scrubbed(point: Path, path: Path, device: int) -> Scrubbed:
    try:
        return btrfs.scrub(point, device)
    except CowError as error:
        if os.strerror(errno.EIO) in str(error):
            raise CowError(
                f"{path} is damaged: its metadata cannot be read to the end, so that not even the damaged files can be "
                f"told. Do not use it: build it or get it again."
            ) from error
        raise


def damaged(point: Path) -> Iterator[str]:
    """Yield what in the tree that is mounted at `point` cannot be read because of the device."""
    by_inode: dict[tuple[int, int], bool] = {}
    pending = [ROOT]
    with Descent(point) as descent:
        while pending:
            path = pending.pop()
            try:
                entries = sorted(names_in(descent.at(path)))
            except OSError as error:
                _only_damage(error)
                yield _shown(path)
                continue
            for name in entries:
                below = name if path == ROOT else path + b"/" + name
                try:
                    status = os.stat(name, dir_fd=descent.at(path), follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(below)
                    elif not _is_readable(name, descent.at(path), status, by_inode):
                        yield _shown(below)
                except OSError as error:
                    _only_damage(error)
                    yield _shown(below)


def _is_readable(name: bytes, folder: int, status: os.stat_result, by_inode: dict[tuple[int, int], bool]) -> bool:
    """Say whether the content can be read; hard links are read once, and all their names are told."""
    key = (status.st_dev, status.st_ino)
    if key not in by_inode:
        by_inode[key] = _content_is_readable(name, folder, status.st_mode)
    return by_inode[key]


def _content_is_readable(name: bytes, folder: int, mode: int) -> bool:
    try:
        if stat.S_ISLNK(mode):
            os.readlink(name, dir_fd=folder)
        elif stat.S_ISREG(mode):
            _read(name, folder)
    except OSError as error:
        _only_damage(error)
        return False
    return True


def _read(name: bytes, folder: int) -> None:
    descriptor = os.open(name, _READ, dir_fd=folder)
    try:
        for attribute in os.listxattr(descriptor):
            os.getxattr(descriptor, attribute)
        position = 0
        while True:
            try:
                position = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            position += len(os.pread(descriptor, _CHUNK, position))
    finally:
        os.close(descriptor)


def _only_damage(error: OSError) -> None:
    """A block that is not what its checksum says gives EIO, one of metadata also EUCLEAN."""
    if error.errno not in (errno.EIO, errno.EUCLEAN):
        raise error


def _shown(path: bytes) -> str:
    """Write ROOT:/PATH."""
    if path == ROOT:
        return "the folder of the roots"
    root, _, inside = path.partition(b"/")
    return f"{root.decode('utf-8', 'backslashreplace')}:/{inside.decode('utf-8', 'backslashreplace')}"

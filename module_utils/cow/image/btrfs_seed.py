"""Mounts of a btrfs seed: a file system that is never written to, and grows new ones (sprouts) on other devices."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .. import btrfs, lock, loop
from ..btrfs import Superblock
from ..errors import CowError
from ..process import CommandFailed
from . import workshop

_PATIENCE = 6 * 3600.0
"""Seconds that a seed may be read by somebody else: it is copied from, or verified, as a whole."""


@contextmanager
def mounted(path: Path, found: Superblock, room: Path, *, buffered: bool = False) -> Iterator[tuple[str, Path]]:
    """Mount a seed for reading; gives its loop device and the folder. Others who want to do the same wait meanwhile.

    buffered: what is read stays in memory as long as there is room, because it will be read again.
    """
    with _of_one(found), _mounted(path, found, room, buffered=buffered) as both:
        yield both


@contextmanager
def sprouted(
    path: Path, found: Superblock, device: str, room: Path, begin: Callable[[], None] = lambda: None
) -> Iterator[tuple[str, Path]]:
    """Mount a seed with a device added to it, for writing.

    begin: called when the seed is mounted, before the device is added.

    The kernel mounts a file system once, from one of the devices that claim to be it. After a device was added it is
    another file system, and the next one can mount the seed, from a loop device of its own.
    """
    with ExitStack() as stack:
        with _of_one(found):
            source, point = stack.enter_context(_mounted(path, found, room))
            begin()
            btrfs.add_device(point, device)
        workshop.tool(["mount", "-o", "remount,rw", source, point])
        yield source, point


@contextmanager
def _of_one(found: Superblock) -> Iterator[None]:
    with lock.held(f"btrfs seed {found.uuid}", timeout=_PATIENCE):
        yield


@contextmanager
def _mounted(path: Path, found: Superblock, room: Path, *, buffered: bool = False) -> Iterator[tuple[str, Path]]:
    with ExitStack() as stack:
        source = stack.enter_context(loop.attached(path, readonly=True, direct=not buffered))
        options = ("-t", "btrfs", "-o", "ro,noatime,subvolid=5")
        try:
            point = stack.enter_context(workshop.mounted(source, room / "seed", *options))
        except CommandFailed as error:
            raise CowError(_why_not_mounted(path, error)) from error
        _refuse_other(path, found, source)
        yield source, point


def _refuse_other(path: Path, found: Superblock, source: str) -> None:
    """Refuse what took the place of the image that was looked at, as a new build of it does."""
    there = btrfs.superblock(Path(source))
    if there is None or (there.uuid, there.generation) != (found.uuid, found.generation):
        raise CowError(f"The seed {path} was replaced meanwhile by another one. Start again.")


def _why_not_mounted(path: Path, error: CommandFailed) -> str:
    said = error.finished.stderr.strip().splitlines()[0]
    if os.strerror(errno.EEXIST) in said or os.strerror(errno.EBUSY) in said:
        return f"The seed {path}, or a copy of it, is mounted elsewhere on this host. Unmount that, and start again."
    return (
        f"The seed {path} is damaged, or this kernel cannot mount it: {said} Get it again, or look at the kernel log."
    )

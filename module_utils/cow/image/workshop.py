"""Where an image is built: a folder beside it that nobody else can look into, mounts that nobody else sees.

Whatever ends the build, nothing of it goes on: tools die with this process, mounts and loop devices go with it. What a
kill leaves is the folder, which the next run recognises by its name.
"""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from .. import kernel, mounts, process
from ..errors import CowError
from ..process import CommandFailed, Finished
from ..tree import drop_acls, remove

_PATIENCE = 6 * 3600.0
"""Seconds that a tool may take."""
_ASKS_TO_END = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_TIED = ("setpriv", "--pdeathsig", "KILL")
_OWN_TIME = ("env", "--unset=SOURCE_DATE_EPOCH")
"""mksquashfs does not bear both this and an option for the time."""
_LITTLE = 32 << 20
"""Bytes: when no more are free, a failure is taken to be for want of room."""


class NoRoom(CowError):
    """A tool found no space left where it wrote."""


def folder_of(image: Path) -> Path:
    """Return where an image is built; being on the same file system, it can take the image's place by a rename."""
    return image.with_name(f".{image.name}.cowherd-build")


def clear(image: Path) -> None:
    """Remove what a killed build of this image left."""
    folder = folder_of(image)
    if folder.is_symlink() or folder.is_file():
        raise CowError(f"{folder} is in the way: it is not a folder. Remove it.")
    if folder.exists():
        remove(folder)


@contextmanager
def opened(image: Path) -> Iterator[Path]:
    """Give an empty folder to build an image in. Runs of one image take turns, so what is in it was left by a kill."""
    clear(image)
    folder = folder_of(image)
    folder.mkdir(mode=0o700)
    try:
        drop_acls(folder)
        with _told_to_end(), kernel.own_mounts():
            yield folder
    finally:
        with suppress(OSError, CowError):
            remove(folder)


def tool(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    accept: Sequence[int] = (0,),
    folder: Path | None = None,
) -> Finished:
    """Run a tool that ends when this process does, however that ends; in `folder`, where one is given."""
    own = [str(argument) for argument in argv]
    prefix = _TIED if environment and "SOURCE_DATE_EPOCH" in environment else (*_TIED, *_OWN_TIME)
    if folder:
        prefix = (*prefix, "env", f"--chdir={folder}")
    finished = process.run([*prefix, *own], timeout=_PATIENCE, environment=environment, accept=range(-64, 256))
    plain = Finished(tuple(own), finished.status, finished.stdout, finished.stderr)
    if finished.status in accept:
        return plain
    if "No space left on device" in finished.stderr + finished.stdout:
        raise NoRoom(f"There was no room left while `{shlex.join(own[:1])}` ran. Make room where the image is to be.")
    raise CommandFailed(plain)


@contextmanager
def mounted(what: str | Path, point: Path, *options: str) -> Iterator[Path]:
    """Mount something for the length of the block, on a folder that is made for it and stays.

    Removing it would wait for the disk where an image is written.
    """
    point.mkdir(exist_ok=True)
    process.run(["mount", *options, str(what), str(point)])
    try:
        yield point
    finally:
        process.run(["umount", str(point)], timeout=_PATIENCE)


def written(point: Path) -> None:
    """Have what was written to a mounted image in the image.

    Writing it later could fail where only the kernel's log says so: unmounting succeeds all the same.
    """
    try:
        kernel.sync_file_system(point)
    except OSError as error:
        raise CowError(
            f"What was copied could not be written to the image: {error.strerror}. Look at the kernel log."
        ) from error


@contextmanager
def room_explained(work: Path, said: str, *, besides: tuple[type[CowError], ...] = ()) -> Iterator[None]:
    """Say it in words when what is built in a folder fails for want of room there.

    besides: errors that have their own words, and pass as they are.
    """
    try:
        yield
    except CowError as error:
        if not isinstance(error, besides) and mounts.free(work).bytes < _LITTLE:
            raise NoRoom(said) from error
        raise


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Turn signals that ask for an end into an error, so that what was begun is cleared away."""
    before = {number: signal.signal(number, _end) for number in _ASKS_TO_END}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def past_return() -> None:
    """Let no signal end what is left to do, of which a part would be worse than all: renames, a moment's work."""
    for number in _ASKS_TO_END:
        signal.signal(number, signal.SIG_IGN)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    raise CowError(f"The build was told to end ({signal.Signals(number).name}). Nothing was changed.")


def synced(path: Path) -> None:
    """Have a file or folder on the disk before going on."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

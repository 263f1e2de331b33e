"""One writer for each resource of the host."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import CowError

FOLDER = Path("/run/cowherd/locks")


@contextlib.contextmanager
def held(
    resource: str,
    *,
    timeout: float = 60.0,
    folder: Path = FOLDER,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of a resource (such as "incus:/var/lib/incus/unix.socket") for the length of a with block.

    The lock is an flock(2) on a file in `folder`; the kernel gives it back when the process ends in any way. The file
    names its holder for the message, and stays: removing it would let two processes lock two files of one name.

    Raises CowError when another process holds it for longer than `timeout` seconds, or when there can be no lock.
    """
    descriptor = _open(folder, re.sub(r"[^A-Za-z0-9._-]+", "_", resource).strip("_") + ".lock")
    try:
        _acquire(descriptor, resource, clock() + timeout, clock, sleep)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(folder: Path, name: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CowError(f"The lock {folder / name} cannot be opened: {error.strerror}. Run this as root.") from error


def _acquire(
    descriptor: int, resource: str, deadline: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise CowError(
                    f"Another run (process {holder}) is changing {resource}. Wait for it to end, then start again."
                ) from None
            sleep(0.1)
        else:
            return

"""One writer for each resource of the host, or many readers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import Busy, CowError

FOLDER = Path("/run/cowherd/locks")


@contextlib.contextmanager
def held(
    resource: str,
    *,
    shared: bool = False,
    timeout: float = 60.0,
    folder: Path = FOLDER,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of a resource (such as "incus:/var/lib/incus/unix.socket") for the length of a with block.

    The lock is an flock(2) on a file in `folder`; the kernel gives it back when the process ends in any way. The file
    names its holder for the message, and stays: removing it would let two processes lock two files of one name.

    shared: with others that share it. One who wants it alone may wait for ever while they come and go: see `in_turn`.

    Raises Busy when another process holds it for longer than `timeout` seconds, CowError when there can be no lock.
    """
    descriptor = _open(folder, re.sub(r"[^A-Za-z0-9._-]+", "_", resource).strip("_") + ".lock")
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        _acquire(descriptor, kind, resource, clock() + timeout, clock=clock, sleep=sleep)
        with contextlib.suppress(OSError):  # on a full disk the name is missing, and the lock works
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(resource: str, *, shared: bool, timeout: float = 60.0, folder: Path = FOLDER) -> Iterator[None]:
    """Hold a lock that some share and others want alone, in the order in which they came.

    All take a second lock while they wait for the first: whoever wants it alone waits for those who have it now, and
    not for those who come later.
    """
    with contextlib.ExitStack() as turn:
        turn.enter_context(held(f"{resource}.turn", timeout=timeout, folder=folder))
        with held(resource, shared=shared, timeout=timeout, folder=folder):
            turn.close()
            yield


def _open(folder: Path, name: str) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CowError(f"The lock {folder / name} cannot be opened: {error.strerror}. Run this as root.") from error


def _acquire(
    descriptor: int,
    kind: int,
    resource: str,
    deadline: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    pause = 0.005
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if clock() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise Busy(
                    f"Another run (process {holder}) is changing {resource}. Wait for it to end, then start again."
                ) from None
            sleep(pause)
            pause = min(2 * pause, 0.1)
        else:
            return

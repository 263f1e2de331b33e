"""One writer for each resource of the host, or many readers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import Busy, CowError

FOLDER = Path("/run/cowherd/locks")
_FLOCK = struct.Struct("hhqqi")
"""struct flock of fcntl(2): kind, from where, first byte, how many, process."""
_LONGEST_NAME = 128
"""Of a lock's file, without what makes a longer one unique."""


@contextlib.contextmanager
def held(
    resource: str,
    *,
    member: str = "",
    shared: bool = False,
    timeout: float = 60.0,
    folder: Path = FOLDER,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Hold the lock of a resource (such as "incus:/var/lib/incus/unix.socket") for the length of a with block.

    The lock is an flock(2) on a file in `folder`, of a member an fcntl(2) on a byte of it, which belongs to the opened
    file likewise; the kernel gives it back when the process ends in any way. The file names its holder for the message,
    and stays: removing it would let two processes lock two files of one name.

    member: what of the resource is locked, as by a lock of its own. All members have one file, whose bytes are locked,
        for files of each would pile up; it names no holder.
    shared: with others that share it. One who wants it alone may wait for ever while they come and go: see `in_turn`.

    Raises Busy when another process holds it for longer than `timeout` seconds, CowError when there can be no lock.
    """
    descriptor = _open(folder, _file_name(resource))
    try:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        _acquire(descriptor, kind, resource, member, clock() + timeout, clock=clock, sleep=sleep)
        if not member:
            with contextlib.suppress(OSError):  # on a full disk the name is missing, and the lock works
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(
    resource: str, *, member: str = "", shared: bool, timeout: float = 60.0, folder: Path = FOLDER
) -> Iterator[None]:
    """Hold a lock that some share and others want alone, in the order in which they came.

    All take a second lock while they wait for the first: whoever wants it alone waits for those who have it now, and
    not for those who come later.
    """
    with contextlib.ExitStack() as turn:
        turn.enter_context(held(f"{resource}.turn", member=member, timeout=timeout, folder=folder))
        with held(resource, member=member, shared=shared, timeout=timeout, folder=folder):
            turn.close()
            yield


def _file_name(resource: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", resource).strip("_")
    if len(name) > _LONGEST_NAME:
        import hashlib  # noqa: PLC0415  # which clones of caches do without

        name = f"{name[:_LONGEST_NAME]}-{hashlib.sha256(os.fsencode(resource)).hexdigest()}"
    return f"{name}.lock"


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
    member: str,
    deadline: float,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    pause = 0.005
    while True:
        try:
            _lock(descriptor, kind, member)
        except BlockingIOError:
            if clock() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                which = f" (process {holder})" if holder else ""
                what = f"{member} of {resource}" if member else resource
                raise Busy(f"Another run{which} is changing {what}. Wait for it to end, then start again.") from None
            sleep(pause)
            pause = min(2 * pause, 0.1)
        else:
            return


def _lock(descriptor: int, kind: int, member: str) -> None:
    """Lock the file, or one byte of it; both locks are given back when the file that was opened is closed."""
    if not member:
        return fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    kind = fcntl.F_RDLCK if kind == fcntl.LOCK_SH else fcntl.F_WRLCK
    byte = zlib.crc32(member.encode())
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    return None

"""Whether a file system can share data between files."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from . import mounts

FICLONE = 0x40049409
"""ioctl_ficlone(2)"""


@dataclass(frozen=True)
class Reflink:
    """supported: whether a clone was made. why_not: the system's words when it was not."""

    supported: bool
    why_not: str | None = None


def attempt(path: Path) -> Reflink:
    """Try it with two files without a name, in `path` or its nearest ancestor that exists; they vanish when closed.

    The files stay empty: a file system that cannot clone says so for empty ones too, and ZFS would make the clone of
    fresh data wait for a transaction group.
    """
    folder = mounts.existing(path)
    folder = folder if folder.is_dir() else folder.parent
    try:
        with open(folder, "rb", opener=_nameless) as source, open(folder, "wb", opener=_nameless) as target:
            fcntl.ioctl(target, FICLONE, source.fileno())
    except OSError as error:
        return Reflink(supported=False, why_not=error.strerror)
    return Reflink(supported=True)


def _nameless(folder: str, flags: int) -> int:
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | (flags & os.O_CLOEXEC), 0o600)

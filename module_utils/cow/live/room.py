"""Where media are mounted: a folder in memory that nobody else sees, and that is gone when this process is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import kernel, process

_FOLDER = Path("/run/cowherd/live")


@contextmanager
def opened() -> Iterator[Path]:
    """Give an empty folder for mount points; what is mounted there belongs to this process and its children."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with kernel.own_mounts():
        process.run(["mount", "-t", "tmpfs", "-o", "mode=0700,size=1m", "cowherd-live", str(_FOLDER)])
        try:
            yield _FOLDER
        finally:
            process.run(["umount", str(_FOLDER)])

"""Changes of folders that a power cut leaves either made or not made."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file as a whole and with its mode: write, fsync, rename, fsync of the folder.

    There is one writer at a time.
    """
    draft = path.with_name(f".{path.name}.draft")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        if stat.S_IMODE(os.fstat(file.fileno()).st_mode) != mode:
            os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def link(path: Path, target: str) -> None:
    """Make the symbolic link at `path` lead to `target`, in place of where it led before."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)
    sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file; fine when there is none."""
    path.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Have the entries of a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

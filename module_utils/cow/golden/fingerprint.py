"""By what a tree is recognised as unchanged, without reading its files."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from ..tree import mounts_below
from .refusals import NotThere, Refusal


def of(tree: Path) -> str:
    """Return a digest of all names in the tree with their inodes, sizes and change times (ctime).

    The kernel sets the ctime at each change of content or attributes, and nobody can set it back. What belongs to the
    tree is what a copy takes: what is mounted in it does not, and a subvolume in it does.

    Of a tree in which something goes meanwhile the digest is like no other one.
    """
    try:
        return _of(tree)
    except FileNotFoundError:
        raise NotThere(f"The folder {tree} does not exist.") from None


def _of(tree: Path) -> str:
    digest = hashlib.sha256()
    itself = tree.lstat()
    if not stat.S_ISDIR(itself.st_mode):
        raise Refusal(f"{tree} is not a folder. Name the folder that holds the tree.")
    _add(digest, b".", itself)
    covered = {os.path.join(os.fsencode(tree), point) for point in mounts_below(tree)}  # noqa: PTH118
    for path, folders, names, descriptor in os.fwalk(os.fsencode(tree)):
        folders.sort()
        for name in (*folders, *sorted(names)):
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:
                digest.update(os.urandom(32))
            else:
                _add(digest, os.path.join(path, name), status)  # noqa: PTH118
        folders[:] = [name for name in folders if os.path.join(path, name) not in covered]  # noqa: PTH118
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: bytes, status: os.stat_result) -> None:
    numbers = (status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_ctime_ns)
    digest.update(b"%s\0%d %d %d %d %d\n" % (name, *numbers))

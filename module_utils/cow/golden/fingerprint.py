"""By what a tree is recognised as unchanged, without reading its files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .refusals import NotThere


def of(tree: Path) -> str:
    """Return a digest of all names in the tree with their inodes, sizes and change times (ctime).

    The kernel sets the ctime at each change of content or attributes, and nobody can set it back. A file system that
    is mounted in the tree is not entered.
    """
    digest = hashlib.sha256()
    try:
        device = tree.stat().st_dev
    except FileNotFoundError:
        raise NotThere(f"The folder {tree} does not exist.") from None
    _add(digest, b".", os.lstat(tree))
    for path, folders, names, descriptor in os.fwalk(os.fsencode(tree)):
        folders.sort()
        found = {name: os.stat(name, dir_fd=descriptor, follow_symlinks=False) for name in (*folders, *sorted(names))}
        for name, status in found.items():
            _add(digest, os.path.join(path, name), status)  # noqa: PTH118
        folders[:] = [name for name in folders if found[name].st_dev == device]
    return digest.hexdigest()


def _add(digest: hashlib._Hash, name: bytes, status: os.stat_result) -> None:
    numbers = (status.st_ino, status.st_mode, status.st_nlink, status.st_size, status.st_ctime_ns)
    digest.update(b"%s\0%d %d %d %d %d\n" % (name, *numbers))

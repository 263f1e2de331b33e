"""Has files of one file system that have equal contents share them, so that they are on the disk once."""

from __future__ import annotations

import errno
import fcntl
import struct
from pathlib import Path

from .manifest import BLOCK, Manifest
from .tree import Descent, Entry, opened

_FIDEDUPERANGE = 0xC0189436
"""ioctl_fideduperange(2)"""
_REQUEST = struct.Struct("=QQHHIqQQiI")
"""Of one target: where and how much of the source, the number of targets; the target, where, how much came of it."""
_BYTES, _STATUS = 7, 8
_CANNOT = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTTY, errno.EPERM, errno.ETXTBSY})
"""Of single files that are not stored like others, without checksums for instance."""


class Sharing:
    """The contents that there are already, in all trees that were added."""

    def __init__(self) -> None:
        self._first: dict[bytes, tuple[Path, Entry]] = {}

    def add(self, added: Manifest, base: Manifest | None = None) -> int:
        """Have the files of a tree share what another one has already, and return the bytes that they share now.

        base: the tree that this one began as a snapshot of, which was added before. What is in both under the same
        number is shared already; a file that was made anew in its place is not.
        """
        leaders = added.tree.leaders()
        shared_before = {entry.path: entry.inode for entry in base.tree.entries} if base else {}
        contents = base.contents if base else {}
        shared = 0
        for entry in added.tree.entries:
            if not entry.is_file or entry.size < BLOCK or leaders.get(entry.path, entry.path) != entry.path:
                continue
            digest = added.contents[entry.path]
            if contents.get(entry.path) == digest and shared_before.get(entry.path) == entry.inode:
                continue
            root, first = self._first.setdefault(digest, (added.tree.root, entry))
            if first is not entry:
                shared += _share(root, first, added.tree.root, entry)
        return shared


def _share(root: Path, first: Entry, other_root: Path, other: Entry) -> int:
    with (
        Descent(root) as folders,
        Descent(other_root) as other_folders,
        opened(folders.at(first.parent), first.name) as source,
        opened(other_folders.at(other.parent), other.name) as target,
    ):
        return share(source, target, other.size)


def share(source: int, target: int, size: int) -> int:
    """Have two open files of this size share their contents, as far as the kernel finds them equal, and say how far."""
    done = 0
    while done < size:
        request = bytearray(_REQUEST.pack(done, size - done, 1, 0, 0, target, done, 0, 0, 0))
        try:
            fcntl.ioctl(source, _FIDEDUPERANGE, request)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return done
        answer = _REQUEST.unpack(request)
        if answer[_STATUS] or not answer[_BYTES]:
            return done
        done += answer[_BYTES]
    return done

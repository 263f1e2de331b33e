"""Hides what is mounted in a tree from the tools that read it through a view of its root.

A view, which is a bind mount or an overlay, shows what is under a mount: that is no part of the tree either. So each
folder that something is mounted on is covered by an empty one that has the attributes which the walk read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .. import kernel
from ..tree import Descent, Entry, Tree, drop_acls, place

_ITSELF = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def on(view: Path, tree: Tree, kept: Collection[bytes], work: Path) -> Iterator[None]:
    """Cover the mount points of the tree in a view of it. kept: the paths that the view shows as the tree has them."""
    entries = tree.by_path()
    covered = [entries[path] for path in tree.mounts if path in kept and path in entries]
    with ExitStack() as stack:
        if covered:
            work.mkdir()
            _cover(view, tree.root, covered, work, stack)
        yield


def _cover(view: Path, root: Path, covered: list[Entry], work: Path, stack: ExitStack) -> None:
    with Descent(root) as source, Descent(view) as shown:
        for number, entry in enumerate(covered):
            if entry.is_folder:
                empty = work / str(number)
                empty.mkdir()
                dress(empty, entry)
                itself = os.open(empty, _ITSELF)
            else:
                # A file that is mounted over another one is what the tree has there.
                itself = os.open(entry.name, _ITSELF, dir_fd=source.at(entry.parent))
            _bind(itself, shown.at(entry.parent), entry.name)
            stack.callback(_unbind, view, entry)


def dress(ours: Path | int, entry: Entry) -> None:
    """Give a folder or an open file of ours the attributes of another one, its flags aside."""
    drop_acls(ours)
    os.chown(ours, entry.uid, entry.gid)
    os.chmod(ours, stat.S_IMODE(entry.mode))  # noqa: PTH101  # a descriptor is no path
    for name, value in entry.xattrs:
        os.setxattr(ours, name, value)
    os.utime(ours, ns=(entry.mtime_ns, entry.mtime_ns))


def _bind(what: int, folder: int, name: bytes) -> None:
    point = os.open(name, _ITSELF, dir_fd=folder)
    try:
        kernel.bind(b"/proc/self/fd/%d" % what, b"/proc/self/fd/%d" % point)
    finally:
        os.close(point)
        os.close(what)


def _unbind(view: Path, entry: Entry) -> None:
    with Descent(view) as descent:
        kernel.unmount(place(descent.at(entry.parent), entry.name))

"""What a file tree holds: one walk that reads every attribute and follows no symbolic link.

Paths are bytes, relative to the root, "." for the root itself. Trees may be hostile and may change while they are
walked: every folder is opened by its own name from the folder above it, never by a path that somebody could redirect.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from . import mounts
from .errors import CowError

ROOT = b"."

FLAGS = 0x8 | 0x10 | 0x20 | 0x40 | 0x80 | 0x10000
"""The flags of chattr(1) that are part of a file on every file system that has flags: S, i, a, d, A and D.

From linux/fs.h (FS_SYNC_FL, FS_IMMUTABLE_FL, FS_APPEND_FL, FS_NODUMP_FL, FS_NOATIME_FL, FS_DIRSYNC_FL). Others say how
one file system stores a file (compression, copy on write, extents), and are left to the file system.
"""

BLOCKING_FLAGS = 0x10 | 0x20
"""Immutable and append-only: while a file has one of them it cannot be changed, a folder cannot lose entries."""

_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h; the argument is an int, whatever the macro says."""

DEFAULT_ACL = b"system.posix_acl_default"
"""Of folders: what is made in one gets it as its ACL."""

ACLS = (b"system.posix_acl_access", DEFAULT_ACL)

_STORAGE_PROPERTIES = (b"btrfs.", b"trusted.SGI_ACL_")
"""Extended attributes that say how one file system stores a file. XFS shows where it keeps ACLs, besides the ACLs."""

_RACY_NS = 2_000_000_000
"""A change this close before the walk may have been followed by one that left the same time: coarse clocks tick."""

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""For a name that is a file or a folder, or was a moment ago."""

_WITH_FLAGS = (stat.S_IFREG, stat.S_IFDIR)
_NO_FLAGS = frozenset({errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESPIPE})
"""What is said of a name that was taken away, or given to something else, since it was read."""


class Entry(NamedTuple):
    """One name in a tree, with all attributes of what it names.

    mode: type and permissions, as st_mode.  size: bytes of a file's content or of a symlink's target, else 0.
    mtime_ns, ctime_ns: nanoseconds since 1970.  device, inode: together they tell which names are hard links.
    links: hard links, also such as are outside the tree.  blocks: 512 bytes each.  rdev: of a device file.
    target: of a symlink.  xattrs: name and value, sorted; ACLs and capabilities are among them.  flags: those of FLAGS.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    device: int
    inode: int
    links: int
    blocks: int
    rdev: int
    target: bytes
    xattrs: tuple[tuple[bytes, bytes], ...]
    flags: int

    @property
    def is_folder(self) -> bool:
        """Whether it can hold other entries."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it has content."""
        return stat.S_ISREG(self.mode)

    @property
    def identity(self) -> tuple[int, int]:
        """What hard links have in common."""
        return (self.device, self.inode)

    @property
    def name(self) -> bytes:
        """The last part of the path."""
        return self.path.rpartition(b"/")[2]

    @property
    def parent(self) -> bytes:
        """The path of the folder that it is in."""
        return self.path.rpartition(b"/")[0] or ROOT


@dataclass(frozen=True)
class Tree:
    """All entries below and with the root: parents before children, names of a folder in the order of their bytes.

    began_ns: when the walk began.  mounts: folders on which something else is mounted; they are not looked into.
    vanished: whether something was taken away while the walk was at it.
    """

    root: Path
    entries: tuple[Entry, ...]
    began_ns: int
    mounts: tuple[bytes, ...] = ()
    vanished: bool = False

    def by_path(self) -> dict[bytes, Entry]:
        """Path to entry, in the order of the walk."""
        return {entry.path: entry for entry in self.entries}

    def leaders(self) -> dict[bytes, bytes]:
        """For each name of a file with several names in this tree the first of them, which has itself."""
        first: dict[tuple[int, int], bytes] = {}
        named = (entry for entry in self.entries if entry.links > 1 and not entry.is_folder)
        leading = {entry.path: first.setdefault(entry.identity, entry.path) for entry in named}
        shared = {leader for path, leader in leading.items() if path != leader}
        return {path: leader for path, leader in leading.items() if leader in shared}

    def settled(self, entry: Entry) -> bool:
        """Whether a later change of it is sure to show in its ctime."""
        return entry.ctime_ns < self.began_ns - _RACY_NS


@dataclass
class Descent:
    """Opens folders below a root, each from the one above it; keeps the way to the last one open.

    Raises OSError when a part is missing, or is a symbolic link.
    """

    root: Path
    _path: bytes = ROOT
    _names: list[bytes] = field(default_factory=list)
    _descriptors: list[int] = field(default_factory=list)

    def __enter__(self) -> Self:
        _allow_depth()
        self._descriptors = [os.open(self.root, _OPEN_FOLDER)]
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()

    def at(self, path: bytes) -> int:
        """Return a descriptor of the folder, valid until the next call."""
        if path != self._path:
            self._go([] if path == ROOT else path.split(b"/"))
            self._path = path
        return self._descriptors[-1]

    def _go(self, names: list[bytes]) -> None:
        shared = 0
        while shared < min(len(names), len(self._names)) and names[shared] == self._names[shared]:
            shared += 1
        for descriptor in self._descriptors[shared + 1 :]:
            os.close(descriptor)
        del self._descriptors[shared + 1 :], self._names[shared:]
        self._path = b"/".join(self._names) or ROOT
        for name in names[shared:]:
            self._descriptors.append(os.open(name, _OPEN_FOLDER, dir_fd=self._descriptors[-1]))
            self._names.append(name)
            self._path = b"/".join(self._names)


def walk(root: Path, known: Tree | None = None) -> Tree:
    """Read the tree at `root`.

    known: an earlier walk of the same tree. An entry whose ctime has not changed since is taken from it, so that its
        flags and extended attributes are not read again.

    Raises CowError when the root is not a folder or something in the tree cannot be read; what vanishes meanwhile is
    left out, and the tree says so.
    """
    began_ns = time.time_ns()
    covered = mounts_below(root)
    before = {entry.path: entry for entry in known.entries if known.settled(entry)} if known else {}
    try:
        with Descent(root) as descent:
            walker = _Walker(descent, covered, before)
            entries = tuple(walker.run())
    except OSError as error:
        raise CowError(f"The tree {root} cannot be read: {said(error)}.") from error
    return Tree(root, entries, began_ns, tuple(sorted(covered)), walker.vanished)


def is_unchanged(found: Tree) -> bool:
    """Whether another walk would find the same, as the times of change tell, for which no folder is read.

    False as well where they cannot tell, because something had changed just before the tree was walked.
    """
    if not all(map(found.settled, found.entries)) or mounts_below(found.root) != frozenset(found.mounts):
        return False
    try:
        with Descent(found.root) as descent:
            return all(_unchanged(_status(descent, entry.path), entry) for entry in found.entries)
    except OSError:
        return False


def _status(descent: Descent, path: bytes) -> os.stat_result:
    parent, _, name = path.rpartition(b"/")
    return os.stat(name, dir_fd=descent.at(parent or ROOT), follow_symlinks=False)


def said(error: OSError) -> str:
    """Return the reason in words, with the file that it was about where the error has that, and no descriptor."""
    named = isinstance(error.filename, str | bytes) and error.filename
    return f"{error.strerror} ({os.fsdecode(error.filename)})" if named else str(error.strerror)


class _Walker:
    def __init__(self, descent: Descent, covered: frozenset[bytes], before: dict[bytes, Entry]) -> None:
        self._descent, self._covered, self._before = descent, covered, before
        self.vanished = False

    def run(self) -> Iterator[Entry]:
        yield read_open(self._descent.at(ROOT), ROOT)
        pending = self._folder(ROOT)
        while pending:
            entry = pending.pop()
            yield entry
            if entry.is_folder and entry.path not in self._covered:
                pending.extend(self._folder(entry.path))

    def _folder(self, path: bytes) -> list[Entry]:
        """Return the entries of one folder, last name first."""
        try:
            folder = self._descent.at(path)
            names = sorted(names_in(folder), reverse=True)
        except OSError as error:
            if path == ROOT or error.errno not in VANISHED:
                raise
            self.vanished = True
            return []
        found = (self._entry(folder, path, name) for name in names)
        return [entry for entry in found if entry is not None]

    def _entry(self, folder: int, parent: bytes, name: bytes) -> Entry | None:
        path = name if parent == ROOT else parent + b"/" + name
        try:
            return read(folder, name, path, self._before.get(path))
        except OSError as error:
            if error.errno not in VANISHED:
                raise
            self.vanished = True
            return None


def names_in(folder: int) -> list[bytes]:
    """Return the names in the folder that the descriptor shows."""
    with os.scandir(folder) as found:
        return [os.fsencode(each.name) for each in found]


def read(folder: int, name: bytes, path: bytes, before: Entry | None = None) -> Entry:
    """Read what `name` is in the folder that the descriptor shows; `before` is returned when it is still true."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if before is not None and _unchanged(status, before):
        return before
    if stat.S_IFMT(status.st_mode) in _WITH_FLAGS:
        descriptor = os.open(name, OPEN_FILE, dir_fd=folder)
        try:
            return read_open(descriptor, path)
        finally:
            os.close(descriptor)
    target = os.readlink(name, dir_fd=folder) if stat.S_ISLNK(status.st_mode) else b""
    return _entry(status, path, target=target, xattrs=_xattrs(place(folder, name)), flags=0)


def read_open(descriptor: int, path: bytes) -> Entry:
    """Read the entry of an open file or folder."""
    return _entry(
        os.fstat(descriptor), path, target=b"", xattrs=_xattrs(descriptor), flags=_raw_flags(descriptor) & FLAGS
    )


@contextlib.contextmanager
def opened(folder: int, name: bytes, flags: int = os.O_RDONLY) -> Iterator[int]:
    """Open a file or folder, and no link, in the folder that the descriptor shows, for the length of the block."""
    descriptor = os.open(name, flags | OPEN_FILE, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def place(folder: int, name: bytes) -> bytes:
    """A path for calls that take no folder descriptor; only its last part is looked up, however deep the folder is."""
    return b"/proc/self/fd/%d/%s" % (folder, name)


def remove(root: Path) -> None:
    """Remove a tree, however deep, also where flags keep it from that."""
    with contextlib.suppress(OSError, RecursionError):
        shutil.rmtree(root)
        return
    found = walk(root)
    unblock(found)
    with Descent(root) as descent:
        for entry in found.entries[:0:-1]:
            (os.rmdir if entry.is_folder else os.unlink)(entry.name, dir_fd=descent.at(entry.parent))
    root.rmdir()


def drop_acls(place: int | Path) -> None:
    """Take away the ACLs that a new file or folder inherited, so that nothing below it inherits them in turn."""
    for name in ACLS:
        remove_xattr(place if isinstance(place, int) else os.fsencode(place), name)


def remove_xattr(place: int | bytes, name: bytes) -> None:
    """Take an attribute away from an open file, or from what is at a path; fine when there is none."""
    try:
        os.removexattr(place, name, follow_symlinks=isinstance(place, int))
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise


def set_flags(descriptor: int, wanted: int) -> None:
    """Make those of FLAGS that are in `wanted`, and no others of them, the flags of an open file or folder."""
    found = _raw_flags(descriptor)
    if found & FLAGS != wanted:
        fcntl.ioctl(descriptor, _SET_FLAGS, (found & ~FLAGS | wanted).to_bytes(4, sys.byteorder))


def unblock(found: Tree) -> None:
    """Take away the flags that keep the entries of a tree from being changed or removed."""
    _flag(found, ~BLOCKING_FLAGS)


def block(found: Tree) -> None:
    """Give the entries of a tree the flags back that `unblock` took away."""
    _flag(found, ~0)


def _flag(found: Tree, which: int) -> None:
    with Descent(found.root) as descent:
        for entry in found.entries:
            if entry.flags & BLOCKING_FLAGS:
                with opened(descent.at(entry.parent), entry.name) as descriptor:
                    set_flags(descriptor, entry.flags & which)


def _raw_flags(descriptor: int) -> int:
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, _GET_FLAGS, bytes(4)), sys.byteorder)
    except OSError as error:
        if error.errno not in _NO_FLAGS:
            raise
        return 0


def _unchanged(status: os.stat_result, before: Entry) -> bool:
    return (
        status.st_ctime_ns == before.ctime_ns
        and status.st_ino == before.inode
        and status.st_dev == before.device
        and status.st_mode == before.mode
        and status.st_nlink == before.links
        and (status.st_size == before.size or before.is_folder)
    )


def _entry(
    status: os.stat_result, path: bytes, *, target: bytes, xattrs: tuple[tuple[bytes, bytes], ...], flags: int
) -> Entry:
    kind = stat.S_IFMT(status.st_mode)
    return Entry(
        path=path,
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        device=status.st_dev,
        inode=status.st_ino,
        links=status.st_nlink,
        blocks=status.st_blocks,
        rdev=status.st_rdev if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0,
        target=target,
        xattrs=xattrs,
        flags=flags,
    )


def _xattrs(place: int | bytes) -> tuple[tuple[bytes, bytes], ...]:
    follow = isinstance(place, int)
    try:
        names = os.listxattr(place, follow_symlinks=follow)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return ()
    if not names:
        return ()
    encoded = sorted(map(os.fsencode, names))
    return tuple(
        (name, os.getxattr(place, name, follow_symlinks=follow))
        for name in encoded
        if not name.startswith(_STORAGE_PROPERTIES)
    )


def mounts_below(root: Path) -> frozenset[bytes]:
    """Return the paths in the tree at `root` on which something else is mounted."""
    top = root.resolve()
    points = (mount.mount_point for mount in mounts.every())
    return frozenset(os.fsencode(point.relative_to(top)) for point in points if point != top and top in point.parents)


def _allow_depth() -> None:
    """Folders are nested as deep as anybody likes, and each level takes a descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""Copies file trees with all attributes: in parallel where there is nothing yet, and only what differs where there is.

Kept are owners, modes, nanosecond times of modification, extended attributes with ACLs and capabilities, flags, hard
links, holes, device files, sockets and FIFOs. Contents are shared with the source (reflinks) where the file system can.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from . import manifest
from .crew import Count, Crew, crew
from .errors import CowError
from .kernel import punch_hole
from .manifest import Manifest
from .tree import (
    BLOCKING_FLAGS,
    DEFAULT_ACL,
    OPEN_FILE,
    ROOT,
    VANISHED,
    Descent,
    Entry,
    drop_acls,
    mounts_below,
    opened,
    place,
    read,
    read_open,
    remove_xattr,
    said,
    set_flags,
)

_Item = TypeVar("_Item")

_FICLONE = 0x40049409
"""From linux/fs.h."""

_NO_REFLINK = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})
_NO_RANGE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})
_PIECE = 64 << 20
"""Bytes that are copied between two looks at the progress."""

_BUDGET = 256
"""Entries after which a worker hands back the folders that it has not looked into, for others to take."""


@dataclass(frozen=True)
class Copied:
    """What a copy or an update has done so far.

    entries: names that were made or changed.  bytes: of content that was written or shared.
    reflinked: of these, the bytes that the source and the copy share.
    """

    entries: int = 0
    bytes: int = 0
    reflinked: int = 0

    def __add__(self, other: Copied) -> Copied:
        return Copied(self.entries + other.entries, self.bytes + other.bytes, self.reflinked + other.reflinked)


Progress = Callable[[Copied], None]


@dataclass(frozen=True)
class _Manner:
    """As the parameters of `copy` of these names say."""

    live: bool
    sparse: bool


def copy(
    source: Path,
    target: Path,
    *,
    workers: int | None = None,
    live: bool = False,
    sparse: bool = False,
    progress: Progress | None = None,
) -> Copied:
    """Copy the tree at `source` to `target`, which is made or is an empty folder.

    workers: processes; by default one for each processor.
    live: the source is in use: what vanishes while it is copied is left out instead of being an error.
    sparse: blocks of zeros become holes, also where the source has them written, and nothing is shared.
    progress: called about twice a second.

    What is mounted in the source is not part of it. When this raises CowError, the target is incomplete: the caller
    tells finished copies from others. The copy is not synced to the disk.
    """
    target.mkdir(exist_ok=True)
    if any(target.iterdir()):
        raise CowError(f"{target} is not empty. A copy is made only where nothing can be overwritten.")
    try:
        drop_acls(target)
        copying = partial(_copying, source, target, mounts_below(source), _Manner(live, sparse))
        with crew(copying, workers) as processes:
            return _Copy(processes, progress).run()
    except OSError as error:
        raise CowError(f"{source} cannot be copied to {target}: {error.strerror}.") from error


def update(source: Manifest, target: Manifest, progress: Progress | None = None) -> Copied:
    """Make the tree of `target` equal to that of `source`, and write nothing that is equal already.

    Files are changed in place and block by block, so that what they share with snapshots stays shared. Neither tree may
    change meanwhile.

    Raises CowError when something cannot be read or written; another update continues the work.
    """
    try:
        with Descent(source.tree.root) as readable, Descent(target.tree.root) as writable:
            return _Update(source, target, _Writer(readable, writable), progress).run()
    except OSError as error:
        raise CowError(f"{target.tree.root} cannot be made equal to {source.tree.root}: {said(error)}.") from error


class _Writer:
    """Makes entries of one tree in another."""

    def __init__(
        self, source: Descent, target: Descent, told: Callable[[int], None] = lambda _: None, *, sparse: bool = False
    ) -> None:
        self._source, self._target, self._told, self._sparse = source, target, told, sparse
        self._can_reflink = not sparse
        self._own = (os.geteuid(), os.getegid())
        self._entries = self._bytes = self._reflinked = 0

    @property
    def done(self) -> Copied:
        """What has been done so far."""
        return Copied(self._entries, self._bytes, self._reflinked)

    def make(self, entry: Entry) -> None:
        """Make what is not there, with content, without the attributes of a folder."""
        folder = self._target.at(entry.parent)
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFREG:
            with opened(self._source.at(entry.parent), entry.name) as source:
                self.make_file(entry, source)
            return
        if kind == stat.S_IFDIR:
            os.mkdir(entry.name, 0o700, dir_fd=folder)
        elif kind == stat.S_IFLNK:
            os.symlink(entry.target, entry.name, dir_fd=folder)
            _dress(entry, folder)
        else:
            os.mknod(entry.name, kind | 0o600, entry.rdev, dir_fd=folder)
            _dress(entry, folder)
        self._entries += 1

    def link(self, leader: Entry, entry: Entry) -> None:
        """Give what the leader names another name."""
        with Descent(self._target.root) as other:
            os.link(
                leader.name, entry.name, src_dir_fd=other.at(leader.parent), dst_dir_fd=self._target.at(entry.parent),
                follow_symlinks=False,
            )  # fmt: skip
        self._entries += 1

    def dress(self, entry: Entry, present: Entry | None = None) -> None:
        """Give an entry its attributes; `present` is how it was found, None when it was just made."""
        if entry.path == ROOT:
            _dress_open(entry, self._target.at(ROOT), present)
        else:
            _dress(entry, self._target.at(entry.parent), present)

    def dress_again(self, entry: Entry) -> None:
        """Give an entry its attributes, whatever it has by now."""
        if entry.path == ROOT:
            present = read_open(self._target.at(ROOT), ROOT)
        else:
            present = read(self._target.at(entry.parent), entry.name, entry.path)
        self.unblock(present)
        self.dress(entry, present)

    def unblock(self, entry: Entry) -> None:
        """Take away the flags that keep an entry of the target from being changed."""
        if entry.flags & BLOCKING_FLAGS:
            with opened(self._target.at(entry.parent), entry.name if entry.path != ROOT else b".") as file:
                set_flags(file, entry.flags & ~BLOCKING_FLAGS)

    def drop_default_acl(self, folder: Entry) -> None:
        """Take away what entries inherit that are made in a folder of the target."""
        if any(name == DEFAULT_ACL for name, _ in folder.xattrs):
            name = folder.name if folder.path != ROOT else b"."
            with opened(self._target.at(folder.parent), name) as open_folder:
                remove_xattr(open_folder, DEFAULT_ACL)

    def remove(self, entry: Entry) -> None:
        """Take an entry out of the target; folders are empty by then."""
        folder = self._target.at(entry.parent)
        (os.rmdir if entry.is_folder else os.unlink)(entry.name, dir_fd=folder)
        self._entries += 1

    def rewrite(self, entry: Entry) -> None:
        """Make the content of a file that is there equal to the source's, block by block."""
        source_folder, target_folder = self._source.at(entry.parent), self._target.at(entry.parent)
        with (
            opened(source_folder, entry.name) as source,
            opened(target_folder, entry.name, os.O_RDWR) as target,
        ):
            written = _rewrite(source, target, self._told)
        self._entries += 1
        self._bytes += written

    def make_file(self, entry: Entry, source: int) -> None:
        """Make a file that is not there from the open one."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        # Nobody else may read it before it has its owner.
        mode = entry.mode & 0o777 if (entry.uid, entry.gid) == self._own else 0o600
        target = os.open(entry.name, flags, mode, dir_fd=self._target.at(entry.parent))
        try:
            self._reflinked += self._fill(source, target, entry.size)
            _dress_open(entry, target, None)
        finally:
            os.close(target)
        self._entries += 1
        self._bytes += entry.size

    def _fill(self, source: int, target: int, size: int) -> int:
        """Fill an empty file; return the bytes that are shared."""
        if not size:
            return 0
        if self._can_reflink:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError as error:
                if error.errno not in _NO_REFLINK:
                    raise
                # Between two file systems never; within one, a single file may refuse (chattr +C).
                self._can_reflink = error.errno not in (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY)
            else:
                self._told(size)
                return size
        if self._sparse:
            _copy_blocks(source, target, self._told)
        else:
            for start, end in segments(source):
                _copy_range(source, target, start, end, self._told)
        os.ftruncate(target, os.fstat(source).st_size)
        return 0


def segments(source: int) -> Iterator[tuple[int, int]]:
    """Yield where a file has data."""
    end = 0
    while True:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(source, start, os.SEEK_HOLE)
        yield start, end


def _copy_blocks(source: int, target: int, told: Callable[[int], None]) -> None:
    """Copy what is not zeros."""
    for start, chunk in manifest.data(source):
        written = 0
        while written < len(chunk):
            written += os.pwrite(target, chunk[written:] if written else chunk, start + written)
        told(len(chunk))


def _copy_range(source: int, target: int, start: int, end: int, told: Callable[[int], None]) -> None:
    while start < end:
        length = min(end - start, _PIECE)
        try:
            copied = os.copy_file_range(source, target, length, start, start)
        except OSError as error:
            if error.errno not in _NO_RANGE:
                raise
            copied = os.pwrite(target, os.pread(source, min(length, manifest.CHUNK), start), start)
        if not copied:
            return  # the source has become shorter
        told(copied)
        start += copied


def _rewrite(source: int, target: int, told: Callable[[int], None]) -> int:
    """Return the bytes that were written."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    end = written = 0
    for start, chunk in manifest.data(source):
        _clear(target, end, start)
        written += _write_differences(target, start, chunk)
        end = start + len(chunk)
        told(len(chunk))
    _clear(target, end, size)
    return written


def _write_differences(target: int, start: int, chunk: bytes) -> int:
    present = os.pread(target, len(chunk), start)
    if present == chunk:
        return 0
    written = 0
    for offset in range(0, len(chunk), manifest.BLOCK):
        block = chunk[offset : offset + manifest.BLOCK]
        if present[offset : offset + manifest.BLOCK] != block:
            written += os.pwrite(target, block, start + offset)
    return written


def _clear(target: int, start: int, end: int) -> None:
    """Make a range of the target read as zeros, without blocks where that can be done."""
    if start >= end:
        return
    try:
        punch_hole(target, start, end - start)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        for position in range(start, end, manifest.CHUNK):
            os.pwrite(target, bytes(min(manifest.CHUNK, end - position)), position)


def _dress(entry: Entry, folder: int, present: Entry | None = None) -> None:
    if entry.is_folder or entry.is_file:
        with opened(folder, entry.name) as descriptor:
            _dress_open(entry, descriptor, present)
        return
    os.chown(entry.name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(entry.name, stat.S_IMODE(entry.mode), dir_fd=folder)
    _set_xattrs(place(folder, entry.name), entry, present)
    os.utime(entry.name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)


def _dress_open(entry: Entry, descriptor: int, present: Entry | None) -> None:
    """Owner before mode (it clears set-user-id) and before capabilities, times before flags (they forbid it)."""
    # Each change is a transaction of the file system, for whose locks workers wait.
    status = os.fstat(descriptor)
    changes_owner = (status.st_uid, status.st_gid) != (entry.uid, entry.gid)
    if changes_owner:
        os.fchown(descriptor, entry.uid, entry.gid)
    if changes_owner or stat.S_IMODE(status.st_mode) != stat.S_IMODE(entry.mode):
        os.fchmod(descriptor, stat.S_IMODE(entry.mode))
    if entry.xattrs or present:
        _set_xattrs(descriptor, entry, present)
    os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
    if entry.flags or (present and present.flags):
        set_flags(descriptor, entry.flags)


def _set_xattrs(place: int | bytes, entry: Entry, present: Entry | None) -> None:
    follow = isinstance(place, int)
    wanted, found = dict(entry.xattrs), dict(present.xattrs) if present else {}
    for name in found.keys() - wanted.keys():
        remove_xattr(place, name)  # a change of the owner may have taken it away: capabilities
    for name, value in wanted.items():
        # Also what is there already: a new owner takes capabilities away, and a new mode changes the ACL.
        os.setxattr(place, name, value, follow_symlinks=follow)


class _Update:
    """The work of `update`: removals deepest first, then all in the order of the source, folders' attributes last."""

    def __init__(self, source: Manifest, target: Manifest, writer: _Writer, progress: Progress | None) -> None:
        self._source, self._target, self._writer, self._progress = source, target, writer, progress
        self._wanted, self._found = source.tree.by_path(), target.tree.by_path()
        self._leaders = source.tree.leaders()
        self._touched: set[bytes] = set()
        self._unblocked: set[tuple[int, int]] = set()

    def run(self) -> Copied:
        for path in reversed(tuple(self._found)):
            if path not in self._wanted or not self._same_kind(path):
                self._remove(path)
        owners: dict[tuple[int, int], bytes] = {}
        made: set[bytes] = set()
        for path, entry in self._wanted.items():
            leader = self._leaders.get(path, path)
            found = self._found.get(path)
            if found and not entry.is_folder and owners.setdefault(found.identity, leader) != leader:
                self._remove(path)
                found = None
            if leader != path:
                self._link(entry, self._wanted[leader], found, leader in made)
            elif found:
                self._amend(entry, found)
            else:
                self._make(entry)
                made.add(path)
            self._tell()
        self._finish()
        return self._writer.done

    def _same_kind(self, path: bytes) -> bool:
        wanted, found = self._wanted[path], self._found[path]
        if stat.S_IFMT(wanted.mode) != stat.S_IFMT(found.mode):
            return False
        return (wanted.target, wanted.rdev) == (found.target, found.rdev)

    def _remove(self, path: bytes) -> None:
        entry = self._found.pop(path)
        self._touch_parent(path)
        self._unblock(entry)
        self._writer.remove(entry)

    def _make(self, entry: Entry) -> None:
        self._touch_parent(entry.path)
        self._writer.make(entry)
        if entry.is_folder:
            self._touched.add(entry.path)

    def _link(self, entry: Entry, leader: Entry, found: Entry | None, leader_is_new: bool) -> None:
        leading = self._found.get(leader.path)
        if found and leading and not leader_is_new and found.identity == leading.identity:
            return
        if found:
            self._remove(entry.path)
        self._touch_parent(entry.path)
        if leader.flags & BLOCKING_FLAGS:
            self._writer.unblock(leader)
            self._touched.add(leader.path)
        self._writer.link(leader, entry)

    def _amend(self, entry: Entry, found: Entry) -> None:
        path = entry.path
        if entry.is_file and self._source.contents[path] != self._target.contents[path]:
            self._unblock(found)
            self._writer.rewrite(entry)
        elif manifest.same(entry, found):
            return
        else:
            self._unblock(found)
        if entry.is_folder:
            self._touched.add(path)
        else:
            self._writer.dress(entry, found)

    def _touch_parent(self, path: bytes) -> None:
        parent = path.rpartition(b"/")[0] or ROOT
        if parent not in self._touched:
            self._touched.add(parent)
            if parent in self._found:
                self._unblock(self._found[parent])

    def _unblock(self, found: Entry) -> None:
        self._writer.unblock(found)
        self._writer.drop_default_acl(found)
        self._unblocked.add(found.identity)

    def _finish(self) -> None:
        """Folders have changed with their entries, and flags were taken away through another name."""
        unblocked = {path for path, found in self._found.items() if found.identity in self._unblocked}
        again = {self._leaders.get(path, path) for path in self._touched | unblocked} & self._wanted.keys()
        for path in sorted(again, reverse=True):
            self._writer.dress_again(self._wanted[path])

    def _tell(self) -> None:
        if self._progress:
            self._progress(self._writer.done)


@dataclass(frozen=True)
class _Task:
    """What a worker is given: folders to copy, then names of hard-linked files, then folders to finish."""

    folders: tuple[bytes, ...] = ()
    groups: tuple[tuple[Entry, ...], ...] = ()
    finish: tuple[Entry, ...] = ()


@dataclass
class _Report:
    """What came of a task: what is left of it, and what can only be done when all folders have been copied."""

    done: Copied = field(default_factory=Copied)
    folders: list[bytes] = field(default_factory=list)
    linked: list[Entry] = field(default_factory=list)
    finish: list[Entry] = field(default_factory=list)


class _Copy:
    """Three rounds: folders and what is in them, hard links, the attributes of folders that got such."""

    def __init__(self, workers: Crew[_Task, _Report], progress: Progress | None) -> None:
        self._workers, self._progress = workers, progress
        self._done = Copied()
        self._linked: list[Entry] = []
        self._finish: list[Entry] = []

    def run(self) -> Copied:
        self._round([_Task(folders=(ROOT,))])
        groups: dict[tuple[int, int], list[Entry]] = {}
        for entry in self._linked:
            groups.setdefault(entry.identity, []).append(entry)
        self._round([_Task(groups=part) for part in _parts([tuple(names) for names in groups.values()])])
        self._round([_Task(finish=part) for part in _parts(self._finish)])
        return self._done

    def _round(self, tasks: list[_Task]) -> None:
        self._workers.run(tasks, self._received, self._tell)

    def _received(self, report: _Report) -> list[_Task]:
        self._done += report.done
        self._linked += report.linked
        self._finish += report.finish
        return [_Task(folders=part) for part in _parts(report.folders, 16)]

    def _tell(self) -> None:
        if self._progress:
            count = max(self._workers.counted, self._done.bytes)
            self._progress(Copied(self._done.entries, count, self._done.reflinked))


def _parts(items: Sequence[_Item], length: int = _BUDGET) -> list[tuple[_Item, ...]]:
    return [tuple(items[start : start + length]) for start in range(0, len(items), length)]


@contextmanager
def _copying(
    source: Path, target: Path, covered: frozenset[bytes], manner: _Manner, count: Count
) -> Iterator[Callable[[_Task], _Report]]:
    """What a worker does."""
    os.umask(0)
    try:
        with Descent(source) as readable, Descent(target) as writable:
            yield _Worker(readable, writable, covered, manner, count).report
    except OSError as error:
        raise CowError(f"{source} cannot be copied to {target}: {said(error)}.") from error


class _Worker:
    def __init__(
        self, source: Descent, target: Descent, covered: frozenset[bytes], manner: _Manner, count: Count
    ) -> None:
        self._readable, self._target, self._covered, self._manner = source, target, covered, manner
        self._count = count

    def report(self, task: _Task) -> _Report:
        """Do a task."""
        self._writer = _Writer(self._readable, self._target, self._count, sparse=self._manner.sparse)
        report = _Report()
        self._copy_folders(list(task.folders), report)
        for names in task.groups:
            self._copy_group(names)
        for folder in task.finish:
            self._writer.dress(folder)
        report.done = self._writer.done
        return report

    def _copy_folders(self, folders: list[bytes], report: _Report) -> None:
        while folders and self._writer.done.entries < _BUDGET:
            self._copy_folder(folders.pop(), folders, report)
        report.folders = folders

    def _copy_folder(self, path: bytes, folders: list[bytes], report: _Report) -> None:
        """Copy what is in a folder; its own attributes come after, and after those of hard links in it."""
        linked_before = len(report.linked)
        with self._bearing_with_loss(path):
            descriptor = self._readable.at(path)
            itself = read_open(descriptor, path)
            with os.scandir(descriptor) as found:
                for each in found:
                    self._copy_entry(path, each, folders, report)
            if len(report.linked) > linked_before:
                report.finish.append(itself)
            else:
                self._writer.dress(itself)

    def _copy_entry(self, parent: bytes, found: os.DirEntry[str], folders: list[bytes], report: _Report) -> None:
        name = os.fsencode(found.name)
        path = name if parent == ROOT else parent + b"/" + name
        try:
            entry = self._copy_file(parent, name, path) if found.is_file(follow_symlinks=False) else None
            entry = entry or self._copy_other(parent, name, path)
        except OSError as error:
            self._bear_with_loss(error, path)
            return
        if entry.links > 1 and not entry.is_folder:
            report.linked.append(entry)
        elif entry.is_folder and path not in self._covered:
            folders.append(path)

    def _copy_file(self, parent: bytes, name: bytes, path: bytes) -> Entry | None:
        """Copy a file that has one name; None when it has become something else."""
        source = os.open(name, OPEN_FILE, dir_fd=self._readable.at(parent))
        try:
            entry = read_open(source, path)
            if entry.links == 1 and entry.is_file:
                self._writer.make_file(entry, source)
            return entry if entry.is_file else None
        finally:
            os.close(source)

    def _copy_other(self, parent: bytes, name: bytes, path: bytes) -> Entry:
        entry = read(self._readable.at(parent), name, path)
        if entry.is_folder or entry.links == 1:
            self._writer.make(entry)
        if path in self._covered:
            self._writer.dress(entry)
        return entry

    def _copy_group(self, names: Iterable[Entry]) -> None:
        leader = None
        for entry in names:
            with self._bearing_with_loss(entry.path):
                if leader is None:
                    self._writer.make(entry._replace(flags=0))
                    leader = entry
                else:
                    self._writer.link(leader, entry)
        if leader and leader.flags:  # an immutable file gets no further names
            self._writer.dress(leader)

    @contextmanager
    def _bearing_with_loss(self, path: bytes) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._bear_with_loss(error, path)

    def _bear_with_loss(self, error: OSError, path: bytes) -> None:
        if not self._manner.live or path == ROOT or error.errno not in VANISHED:
            if not isinstance(error.filename, bytes):  # calls on an open file have no name of it
                error.filename = path
            raise error

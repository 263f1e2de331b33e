"""What a file tree is: every attribute and a digest of every content, comparable and hashable.

Two trees are equal when nobody who reads them as root can tell them apart, but for inode numbers, change times and how
their files are laid out on the disk.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import stat
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from .errors import CowError
from .kernel import sync_file_system
from .tree import VANISHED, Descent, Entry, Tree, opened, said, walk

FORMAT = 3
CHUNK = 1 << 20
"""Bytes that are read at once."""

BLOCK = 1 << 12
"""Bytes in which zeros are told from data: what a hole is made of on most file systems."""

_ZEROS = bytes(BLOCK)
_SMALL = 1 << 16
"""Bytes below which a file is read in one go, as most are."""
_NO_PLACES = hashlib.sha256().digest()
_BATCH, _BATCH_BYTES = 256, 16 << 20
"""Files that a process takes at once, and bytes in them after which it takes no more; fewer are not worth another."""

Runs = Mapping[bytes, "array[int]"]
"""Of files by path how many blocks in a row are not all zeros, from one block of zeros to the next."""

Progress = Callable[[int], None]
"""Told the bytes that were read since it was last called."""


@dataclass(frozen=True)
class Manifest:
    """A tree, and the SHA-256 of the content of each regular file by path.

    runs: of those files alone that have blocks of zeros.
    """

    tree: Tree
    contents: Mapping[bytes, bytes]
    runs: Runs = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 (64 hexadecimal digits) of all that `differences` compares; equal trees have the same."""
        leaders = self.tree.leaders()
        total = hashlib.sha256()
        for entry in self.tree.entries:
            line = (entry.path, _essence(entry), self.contents.get(entry.path, b""), leaders.get(entry.path, b""))
            total.update(repr(line).encode())
        return total.hexdigest()

    def encoded(self) -> bytes:
        """Return it as the content of a file for `load`."""
        return gzip.compress(json.dumps(self._document(), separators=(",", ":")).encode("ascii"), compresslevel=1)

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read one that was saved. Raises CowError when the file is missing, damaged or of another format."""
        try:
            with gzip.open(path, "rb") as file:
                return cls._of_document(json.load(file))
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CowError(f"The manifest {path} cannot be used: {error}.") from error

    def _document(self) -> dict[str, Any]:
        """By columns, which takes half the time that it takes by entries."""
        tree = self.tree
        columns = dict(zip(Entry._fields, zip(*tree.entries, strict=True), strict=True))
        return {
            "format": FORMAT,
            "root": _text(os.fsencode(tree.root)),
            "began_ns": tree.began_ns,
            "mounts": list(map(_text, tree.mounts)),
            "vanished": tree.vanished,
            **columns,
            "path": list(map(_text, columns["path"])),
            "target": list(map(_text, columns["target"])),
            "xattrs": [[(_text(name), _text(value)) for name, value in pairs] for pairs in columns["xattrs"]],
            "contents": [self.contents[path].hex() if path in self.contents else "" for path in columns["path"]],
            "runs": {_text(path): runs.tolist() for path, runs in self.runs.items()},
        }

    @classmethod
    def _of_document(cls, document: Mapping[str, Any]) -> Manifest:
        if document["format"] != FORMAT:
            raise CowError(f"it has format {document['format']}, this version reads {FORMAT}")
        columns = {
            **document,
            "path": list(map(_bytes, document["path"])),
            "target": map(_bytes, document["target"]),
            "xattrs": (
                tuple((_bytes(name), _bytes(value)) for name, value in pairs) if pairs else ()
                for pairs in document["xattrs"]
            ),
        }
        entries = tuple(map(Entry._make, zip(*(columns[name] for name in Entry._fields), strict=True)))
        digests = zip(columns["path"], document["contents"], strict=True)
        contents = {path: bytes.fromhex(digest) for path, digest in digests if digest}
        runs = {_bytes(path): array("Q", counted) for path, counted in document["runs"].items()}
        covered = tuple(map(_bytes, document["mounts"]))
        root = Path(os.fsdecode(_bytes(document["root"])))
        return cls(Tree(root, entries, document["began_ns"], covered, document["vanished"]), contents, runs)


def of(root: Path, known: Manifest | None = None, progress: Progress | None = None) -> Manifest:
    """Read the tree at `root` and all contents, or with `known` only those that may have changed since.

    A file whose inode, ctime and size are as they were is taken to have its content still. That holds for writes
    through mappings too: the file system is synced between the walk and the reading, so that a later write is seen in
    the ctime.

    Raises CowError when something cannot be read. What vanishes meanwhile is left out, and `tree.vanished` says so.
    """
    tree = walk(root, known.tree if known else None)
    sync_file_system(root)
    return of_tree(tree, known, progress)


def of_tree(tree: Tree, known: Manifest | None = None, progress: Progress | None = None) -> Manifest:
    """The same for a tree that was walked already; contents must not have changed since."""
    kept = _still_known(tree, known) if known else {}
    by_inode: dict[tuple[int, int], list[Entry]] = {}
    for entry in tree.entries:
        if entry.is_file and entry.path not in kept:
            by_inode.setdefault(entry.identity, []).append(entry)
    runs = {path: known.runs[path] for path in kept if path in known.runs} if known else {}
    contents = _read_all(tree.root, [names[0] for names in by_inode.values()], progress)
    for names in by_inode.values():
        if content := contents.get(names[0].path):
            kept |= {entry.path: content.digest for entry in names}
            runs |= {entry.path: content.runs for entry in names if content.runs is not None}
    entries = tuple(entry for entry in tree.entries if not entry.is_file or entry.path in kept)
    lost = len(entries) < len(tree.entries)
    return Manifest(Tree(tree.root, entries, tree.began_ns, tree.mounts, tree.vanished or lost), kept, runs)


def runs_of(tree: Tree) -> Runs:
    """Read the contents of a tree that was walked already for the runs alone."""
    found: dict[bytes, array[int]] = {}
    once = {entry.identity: entry for entry in reversed(tree.entries) if entry.is_file}
    with Descent(tree.root) as descent:
        for entry in reversed(once.values()):
            with opened(descent.at(entry.parent), entry.name) as descriptor:
                counted = _Runs()
                for start, chunk in data(descriptor):
                    counted.add(start, len(chunk))
            runs = counted.of(entry.size)
            if runs is not None:
                found[entry.path] = runs
    return found


def differences(first: Manifest, second: Manifest, limit: int = 20) -> list[str]:
    """Say what the second tree has otherwise than the first, at most `limit` sentences; none when they are equal."""
    return list(islice(_differences(first, second), limit))


def _differences(first: Manifest, second: Manifest) -> Iterator[str]:
    ours, theirs = first.tree.by_path(), second.tree.by_path()
    our_leaders, their_leaders = first.tree.leaders(), second.tree.leaders()
    for path, entry in ours.items():
        other = theirs.get(path)
        if other is None:
            yield f"{_shown(path)} is missing"
            continue
        yield from (
            f"{_shown(path)} has {name} {_said(name, found)} instead of {_said(name, wanted)}"
            for (name, wanted), (_, found) in zip(_named(entry), _named(other), strict=True)
            if wanted != found
        )
        if first.contents.get(path) != second.contents.get(path) and entry.is_file and other.is_file:
            yield f"{_shown(path)} has other content"
        if our_leaders.get(path) != their_leaders.get(path):
            yield f"{_shown(path)} is hard-linked to other names"
    yield from (f"{_shown(path)} is too many" for path in theirs if path not in ours)


def same(first: Entry, second: Entry) -> bool:
    """Whether two entries have the same attributes; contents and hard links aside."""
    return _essence(first) == _essence(second)


def _essence(entry: Entry) -> tuple[Any, ...]:
    return (
        entry.mode,
        entry.uid,
        entry.gid,
        entry.size,
        entry.mtime_ns,
        entry.rdev,
        entry.target,
        entry.xattrs,
        entry.flags,
    )


_ESSENCE = ("mode", "uid", "gid", "size", "mtime", "device number", "target", "extended attributes", "flags")


def _named(entry: Entry) -> Iterable[tuple[str, Any]]:
    return zip(_ESSENCE, _essence(entry), strict=True)


def _said(name: str, value: Any) -> str:
    if name == "mode":
        return stat.filemode(value)
    if name == "extended attributes":
        return ", ".join(f"{_shown(key)}={content.hex()}" for key, content in value) or "none"
    return _shown(value) if isinstance(value, bytes) else str(value)


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")


def _still_known(tree: Tree, known: Manifest) -> dict[bytes, bytes]:
    before = known.tree.by_path()
    kept: dict[bytes, bytes] = {}
    for entry in tree.entries:
        old = before.get(entry.path)
        if old is None or not entry.is_file or not known.tree.settled(old):
            continue
        if (entry.identity, entry.ctime_ns, entry.size) == (old.identity, old.ctime_ns, old.size):
            with suppress(KeyError):
                kept[entry.path] = known.contents[entry.path]
    return kept


class _Runs:
    """Counts what `data` yields."""

    def __init__(self) -> None:
        self.end = 0
        self._counted = array("Q", [0])

    def add(self, start: int, length: int) -> None:
        if start != self.end:
            self._counted.append(0)
        self._counted[-1] += -(-length // BLOCK)
        self.end = start + length

    def of(self, size: int) -> array[int] | None:
        """Return them; None where there is no block of zeros."""
        return None if self.end == size and len(self._counted) == 1 else array("Q", filter(None, self._counted))


@dataclass(frozen=True)
class _Content:
    digest: bytes
    runs: array[int] | None


def _read_all(root: Path, files: Sequence[Entry], progress: Progress | None) -> dict[bytes, _Content]:
    batches = tuple(_batches(files))
    if len(batches) < 2:
        with _reading(root, files, progress) as read:
            return dict(read(slice(None)))
    from .crew import crew  # noqa: PLC0415  # takes long to load, for those who only compare

    found: dict[bytes, _Content] = {}
    told = 0

    def received(contents: Iterable[tuple[bytes, _Content]]) -> tuple[slice, ...]:
        found.update(contents)
        return ()

    def tell() -> None:
        nonlocal told
        before, told = told, readers.counted
        if progress and told > before:
            progress(told - before)

    with crew(partial(_reading, root, files), min(len(batches), os.cpu_count() or 1)) as readers:
        readers.run(batches, received, tell)
    return found


def _batches(files: Sequence[Entry]) -> Iterator[slice]:
    """Divide them into what one process takes at once."""
    start = size = 0
    for end, entry in enumerate(files, 1):
        size += entry.size
        if end - start == _BATCH or size >= _BATCH_BYTES or end == len(files):
            yield slice(start, end)
            start, size = end, 0


@contextmanager
def _reading(
    root: Path, files: Sequence[Entry], progress: Progress | None
) -> Iterator[Callable[[slice], list[tuple[bytes, _Content]]]]:
    """Give what reads some of the files, and leaves out what has vanished."""
    try:
        with Descent(root) as descent:
            yield lambda which: list(_read(descent, files[which], progress))
    except OSError as error:
        raise CowError(f"The tree {root} cannot be read: {said(error)}.") from error


def _read(descent: Descent, files: Iterable[Entry], progress: Progress | None) -> Iterator[tuple[bytes, _Content]]:
    for entry in files:
        try:
            with opened(descent.at(entry.parent), entry.name) as descriptor:
                content = _content(descriptor, progress)
        except OSError as error:
            if error.errno not in VANISHED:
                raise CowError(f"{_shown(entry.path)} cannot be read: {error.strerror}.") from error
        else:
            yield entry.path, content


def content_digest(descriptor: int, progress: Progress | None = None) -> bytes:
    """Return the digest of an open file's content, however it is laid out.

    It is the SHA-256 of the file's size, of where it has blocks of `BLOCK` bytes that are not all zeros, and of the
    SHA-256 of those blocks: holes take no time, and a hole and written zeros are the same.
    """
    return _content(descriptor, progress).digest


def _content(descriptor: int, progress: Progress | None = None) -> _Content:
    size = os.fstat(descriptor).st_size
    if size < _SMALL and len(chunk := os.pread(descriptor, size + 1, 0)) == size and chunk and _is_solid(chunk):
        if progress:
            progress(size)
        whole = hashlib.sha256(chunk).digest()
        return _Content(hashlib.sha256(b"%d %d " % (size, size) + _NO_PLACES + whole).digest(), None)
    blocks, places, runs = hashlib.sha256(), hashlib.sha256(), _Runs()
    for start, chunk in data(descriptor):
        if start != runs.end:
            places.update(b"%d-%d " % (runs.end, start))
        blocks.update(chunk)
        runs.add(start, len(chunk))
        if progress:
            progress(len(chunk))
    size = os.fstat(descriptor).st_size
    digest = hashlib.sha256(b"%d %d " % (size, runs.end) + places.digest() + blocks.digest()).digest()
    return _Content(digest, runs.of(size))


def data(descriptor: int) -> Iterator[tuple[int, bytes]]:
    """Yield where the content of an open file is not zeros, and what is there: runs of whole blocks, or to its end."""
    position = 0
    size = os.fstat(descriptor).st_size
    while position < size and (start := _next_data(descriptor, position)) is not None:
        position = start - start % BLOCK
        chunk = os.pread(descriptor, min(CHUNK, size - position), position)
        if not chunk:
            return
        yield from _without_zeros(position, chunk)
        position += len(chunk)


def _next_data(descriptor: int, position: int) -> int | None:
    try:
        return os.lseek(descriptor, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        raise


def _without_zeros(position: int, chunk: bytes) -> Iterator[tuple[int, bytes]]:
    if _is_solid(chunk):
        yield position, chunk
        return
    for offset in range(0, len(chunk), BLOCK):
        block = chunk[offset : offset + BLOCK]
        if block.count(0) < len(block):
            yield position + offset, block


def _is_solid(chunk: bytes) -> bool:
    """Whether no block is all zeros; the last one may be cut short."""
    rest = chunk[len(chunk) - len(chunk) % BLOCK :]
    return _ZEROS not in chunk and (not rest or rest != _ZEROS[: len(rest)])


def _text(name: bytes) -> str:
    """Any bytes in a form that JSON has."""
    return name.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")

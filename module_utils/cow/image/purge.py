"""What is left out of an image: in a record of the tree, and in the tree itself where it is ours."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import CowError
from ..manifest import Manifest, content_digest
from ..tree import BLOCKING_FLAGS, ROOT, Descent, Entry, Tree, block, place, remove, set_flags, unblock
from . import covers, workshop

USUAL = (
    "etc/machine-id",
    "etc/resolv.conf",
    "etc/ssh/ssh_host_*_key",
    "etc/ssh/ssh_host_*_key.pub",
    "var/cache/apt/*.bin",
    "var/cache/apt/archives/*.deb",
    "var/lib/apt/lists/*_*",
    "var/lib/dbus/machine-id",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
    "var/log/journal/*",
    "tmp/*",
    "var/tmp/*",
)
"""What is not to be the same on two machines, what belongs to the one that a tree comes from, and caches."""
EMPTIED = frozenset({b"etc/machine-id"})
"""Kept as empty files: systemd cannot make this one on a file system that is still read-only (machine-id(5))."""

_OF_OVERLAYS = b"trusted.overlay."


@dataclass(frozen=True)
class Purge:
    """Patterns of paths from the root of a tree, in which * and ? stand for parts of a name, never for a slash."""

    patterns: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse patterns that would never match, or leave nothing."""
        for pattern in self.patterns:
            if any(part in ("", ".", "..") for part in pattern.split("/")):
                raise CowError(
                    f"{pattern!r} is not a pattern for what to leave out. Write it from the root of the tree, such as "
                    f"var/cache/*, without '/' at its beginning or end and without '..'."
                )

    def matched(self, tree: Tree) -> tuple[Entry, ...]:
        """Return the topmost entries that match; what is in a folder that does goes with it."""
        if not self.patterns:
            return ()
        form = re.compile(b"|".join(map(_translated, self.patterns)), re.DOTALL)
        found: set[bytes] = set()
        for entry in tree.entries:
            if entry.path != ROOT and not _is_under(entry.path, found) and form.fullmatch(entry.path):
                found.add(entry.path)
        return tuple(entry for entry in tree.entries if entry.path in found and _matters(entry))

    def applied(self, tree: Tree) -> Tree:
        """Return the tree as it is in the image."""
        matched = {entry.path for entry in self.matched(tree)}
        if not matched:
            return tree
        removed = {path for path in matched if path not in EMPTIED}
        entries = (entry for entry in tree.entries if entry.path not in removed and not _is_under(entry.path, removed))
        return replace(tree, entries=tuple(_emptied(entry) if entry.path in matched else entry for entry in entries))

    def applied_to_manifest(self, manifest: Manifest) -> Manifest:
        """Return the tree with its contents as it is in the image."""
        tree = self.applied(manifest.tree)
        if tree is manifest.tree:
            return manifest
        emptied = {entry.path for entry in self.matched(manifest.tree)}
        files = [entry.path for entry in tree.entries if entry.is_file]
        nothing = _digest_of_nothing()
        contents = {path: nothing if path in emptied else manifest.contents[path] for path in files}
        return Manifest(tree, contents, manifest.runs)

    def carry_out(self, root: Path, tree: Tree) -> None:
        """Remove it from a tree that is ours; what stays keeps its times and flags."""
        touched: dict[bytes, Entry] = {}
        folders = tree.by_path()
        matched = self.matched(tree)
        blocked = _blocked(matched, tree)
        unblock(replace(tree, root=root, entries=blocked))
        with Descent(root) as descent:
            for entry in matched:
                _remove(descent.at(entry.parent), entry)
                touched[entry.parent] = folders[entry.parent]
            for path, folder in touched.items():
                os.utime(descent.at(path), ns=(folder.mtime_ns, folder.mtime_ns))
        if blocked:
            inodes, paths = {entry.identity for entry in blocked}, {entry.path for entry in blocked}
            left = (each for each in self.applied(tree).entries if each.identity in inodes or each.path in paths)
            block(replace(tree, root=root, entries=tuple(left)))


@contextmanager
def view(purge: Purge, tree: Tree, point: Path, work: Path) -> Iterator[Path]:
    """Show the tree at a new folder as it is in the image: without what is purged, and what is mounted in it.

    It is a bind mount, or an overlay in which is removed what is purged. What is part of an overlay itself cannot be
    seen in another one, and flags that keep files from being removed are in force there: such trees are copied.
    work: for files besides.
    """
    matched = purge.matched(tree)
    if matched and (any(map(_is_of_an_overlay, tree.entries)) or _blocked(matched, tree)):
        from .. import treecopy  # noqa: PLC0415  # which takes longest to load

        treecopy.copy(tree.root, point)
        purge.carry_out(point, tree)
        yield point
        return
    whole = _seen(purge, tree, point, work) if matched else workshop.mounted(tree.root, point, "--bind")
    with whole, covers.on(point, tree, _kept(purge, tree, matched) if tree.mounts else (), work / "covers"):
        yield point


@contextmanager
def _seen(purge: Purge, tree: Tree, point: Path, work: Path) -> Iterator[Path]:
    """Show the tree as an overlay in which is removed what is purged."""
    with workshop.mounted("tmpfs", work / "changes", "-t", "tmpfs", "-o", "mode=0700") as memory:
        upper, scratch = memory / "upper", memory / "scratch"
        upper.mkdir()
        scratch.mkdir()
        options = f"lowerdir={_escaped(tree.root)},upperdir={_escaped(upper)},workdir={_escaped(scratch)}"
        with workshop.mounted("overlay", point, "-t", "overlay", "-o", options):
            purge.carry_out(point, tree)
            # The root of an overlay has the attributes of the folder for changes, which was made a moment ago.
            covers.dress(point, tree.entries[0])
            yield point


def _escaped(folder: Path) -> str:
    return re.sub(r"([\\:,])", r"\\\1", str(folder))


def _kept(purge: Purge, tree: Tree, matched: Iterable[Entry]) -> set[bytes]:
    return {entry.path for entry in purge.applied(tree).entries} - {entry.path for entry in matched}


def _is_of_an_overlay(entry: Entry) -> bool:
    """Whether it is a whiteout or has an attribute of overlayfs (Documentation/filesystems/overlayfs.rst)."""
    is_whiteout = stat.S_ISCHR(entry.mode) and entry.rdev == 0
    return is_whiteout or any(name.startswith(_OF_OVERLAYS) for name, _ in entry.xattrs)


def _blocked(matched: Iterable[Entry], tree: Tree) -> tuple[Entry, ...]:
    """Return those with a flag that keeps what is matched, or something in it, from being removed."""
    paths = {entry.path for entry in matched}
    parents = {entry.parent for entry in matched}
    return tuple(
        entry
        for entry in tree.entries
        if entry.flags & BLOCKING_FLAGS
        and (entry.path in paths or entry.path in parents or _is_under(entry.path, paths))
    )


def _digest_of_nothing() -> bytes:
    with os.fdopen(os.memfd_create("nothing"), "rb") as file:
        return content_digest(file.fileno())


def _remove(folder: int, entry: Entry) -> None:
    if entry.path in EMPTIED:
        _empty(folder, entry)
    elif entry.is_folder:
        remove(Path(os.fsdecode(place(folder, entry.name))))
    else:
        os.unlink(entry.name, dir_fd=folder)


def _empty(folder: int, entry: Entry) -> None:
    """Put an empty file in its place; other names of it keep the content."""
    os.unlink(entry.name, dir_fd=folder)
    descriptor = os.open(entry.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        covers.dress(descriptor, entry)
        with suppress(OSError):  # an overlay has none
            set_flags(descriptor, entry.flags & ~BLOCKING_FLAGS)
    finally:
        os.close(descriptor)


def _matters(entry: Entry) -> bool:
    """An empty machine-id is what is wanted; a link in its place is left as it is."""
    return entry.path not in EMPTIED or (stat.S_ISREG(entry.mode) and entry.size > 0)


def _emptied(entry: Entry) -> Entry:
    """A file of its own; no file has inode 0."""
    return entry._replace(size=0, blocks=0, links=1, inode=0 if entry.links > 1 else entry.inode)


def _is_under(path: bytes, folders: set[bytes]) -> bool:
    while path := path.rpartition(b"/")[0]:
        if path in folders:
            return True
    return False


def _translated(pattern: str) -> bytes:
    parts = {b"*": b"[^/]*", b"?": b"[^/]"}
    return b"".join(parts.get(piece, re.escape(piece)) for piece in re.split(rb"([*?])", os.fsencode(pattern)) if piece)

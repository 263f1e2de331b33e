"""What of a tree a format does not keep, in words."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from ..tree import ACLS, Entry, Tree

_LARGE_HOLE = 1 << 20


def acls(tree: Tree, why: str) -> list[str]:
    """POSIX ACLs."""
    having = (entry for entry in tree.entries if any(name in ACLS for name, _ in entry.xattrs))
    return _said("POSIX ACLs", having, why)


def flags(tree: Tree) -> list[str]:
    """Flags of chattr(1)."""
    return _said("flags (chattr)", (entry for entry in tree.entries if entry.flags), "they are not copied")


def linked_symlinks(tree: Tree) -> list[str]:
    """That one symlink has several names."""
    by_path, leaders = tree.by_path(), tree.leaders()
    linked = (by_path[path] for path in leaders if stat.S_ISLNK(by_path[path].mode))
    return _said("hard links", linked, "mke2fs makes symlinks of their own of them")


def times(tree: Tree, earliest: int, latest: int, why: str) -> list[str]:
    """Modification times outside of what can be stored, in seconds since 1970."""
    outside = (entry for entry in tree.entries if not earliest <= entry.mtime_ns // 10**9 <= latest)
    return _said("modification times", outside, why)


def fractions(tree: Tree, why: str) -> list[str]:
    """Fractions of seconds of modification times."""
    return _said("fractions of seconds", (entry for entry in tree.entries if entry.mtime_ns % 10**9), why)


def device_numbers(tree: Tree, why: str) -> list[str]:
    """What device files lead to."""
    return _said("device numbers", (entry for entry in tree.entries if entry.rdev), why)


def holes(tree: Tree, why: str) -> list[str]:
    """Holes that are large enough to matter."""
    having = (entry for entry in tree.entries if entry.is_file and entry.size - entry.blocks * 512 > _LARGE_HOLE)
    return _said("holes", having, why)


def _said(what: str, entries: Iterable[Entry], why: str) -> list[str]:
    found = list(entries)
    if not found:
        return []
    return [f"{what} of {len(found)} files, such as {os.fsdecode(found[0].path)}, as {why}"]

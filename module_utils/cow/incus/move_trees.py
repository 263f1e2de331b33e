"""The files of instances on pools that are folders: measured, told apart, and made equal on two pools.

An instance's volume is a folder with rootfs, metadata.yaml and templates in it. Incus also keeps backup.yaml there, its
own record, which it writes anew whenever the instance's configuration changes, and which is no part of the instance.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import manifest, treecopy
from ..btrfs import Btrfs
from ..errors import CowError
from ..kernel import sync_file_system
from ..manifest import Manifest
from ..tree import ROOT, VANISHED, Entry, Tree, unblock, walk
from .client import Server
from .move_checks import Sizes
from .pools import Pool
from .profiles import Key

RECORD = "backup.yaml"
"""What Incus writes into a volume for itself."""
_BLOCK = 512
_SHOWN = 5
_SETTLES_WITHIN = 2.1
"""Seconds after which a file that is changed again has another ctime for sure (see tree.py)."""

Told = Callable[[int], None]
"""Told the bytes that were read since it was last called."""


@dataclass(frozen=True)
class Volumes:
    """Where the files of an instance on a pool are."""

    server: Server
    pool: Pool
    key: Key

    @property
    def root(self) -> Path:
        """The volume of the instance itself."""
        return self._pool / "containers" / self._name

    @property
    def snapshots(self) -> Path:
        """Where those of its snapshots are."""
        return self._pool / "containers-snapshots" / self._name

    def snapshot(self, name: str) -> Path:
        """The volume of a snapshot."""
        return self.snapshots / name

    @property
    def draft(self) -> Path:
        """Where a snapshot is mended before it takes the place of the one that Incus made."""
        return self._pool / f"cowherd-draft-{self._name}"

    @property
    def _pool(self) -> Path:
        return Path(self.server.folder) / "storage-pools" / self.pool.name

    @property
    def _name(self) -> str:
        return self.key.name if self.key.project == "default" else f"{self.key.project}_{self.key.name}"


def look(volume: Path, known: Tree | None = None) -> Tree:
    """Walk a volume, without what Incus keeps there for itself."""
    found, record = walk(volume, known), RECORD.encode()
    entries = (
        # Each record that is written into the volume changes its time.
        entry._replace(mtime_ns=0) if entry.path == ROOT else entry
        for entry in found.entries
        if not entry.path.startswith(record)
    )
    return replace(found, entries=tuple(entries))


def read(volume: Path, known: Manifest | None = None, told: Told | None = None, *, in_use: bool = False) -> Manifest:
    """Read a volume with all contents, or with `known` only those that may have changed since."""
    found = look(volume, known.tree if known else None)
    if in_use:
        # Between the walk and the reading, so that what is written through mappings later shows in a ctime.
        sync_file_system(volume)
    return manifest.of_tree(found, known, told)


def fingerprint(tree: Tree) -> str:
    """What changes when anything in a tree does, contents included as far as ctime tells; a move or rename does not."""
    total = hashlib.sha256()
    for entry in tree.entries:
        if entry.path != ROOT:
            total.update(repr((entry.path, entry.inode, entry.mode, entry.size, entry.ctime_ns)).encode())
    return total.hexdigest()


def fingerprints(volumes: Volumes, snapshots: tuple[str, ...]) -> dict[str, str]:
    """Take the fingerprints of the root ("") and of snapshots."""
    return {"": fingerprint(look(volumes.root)), **fingerprints_of_snapshots(volumes, snapshots)}


def fingerprints_of_snapshots(volumes: Volumes, snapshots: tuple[str, ...]) -> dict[str, str]:
    """Take the fingerprints of snapshots."""
    return {name: fingerprint(look(volumes.snapshot(name))) for name in snapshots}


def total_blocks(volumes: Volumes, snapshots: tuple[str, ...]) -> int:
    """What root and snapshots take, in bytes."""
    trees = (look(volumes.root), *(look(volumes.snapshot(name)) for name in snapshots))
    return sum(_BLOCK * entry.blocks for tree in trees for entry in _counted(tree))


def measure(volumes: Volumes, snapshots: tuple[str, ...], target: Pool) -> Sizes:
    """Measure root and snapshots (the oldest first), and what they take on a target at most.

    Where the target clones, Incus copies into each snapshot only what differs from the one before by size or time.
    """
    needed, before = 0, set[tuple[bytes, int, int]]()
    sizes: dict[str, int] = {}
    entries = 0
    for name in (*snapshots, ""):
        found = look(volumes.snapshot(name) if name else volumes.root)
        counted = _counted(found)
        sizes[name] = sum(entry.blocks for entry in counted) * _BLOCK
        now = {(entry.path, entry.size, entry.mtime_ns) for entry in counted if entry.is_file}
        needed += _BLOCK * sum(
            entry.blocks
            for entry in counted
            if not (target.can_clone and entry.is_file and (entry.path, entry.size, entry.mtime_ns) in before)
        )
        before, entries = now, len(found.entries)
    return Sizes(sizes.pop(""), sizes, needed, entries)


def fill_running(source: Volumes, target: Volumes, told: Told) -> tuple[Manifest, Manifest]:
    """Make the copy equal to a source that may change meanwhile; return what both are then, nearly."""
    first, second = read(source.root, told=told, in_use=True), read(target.root, told=told)
    for _ in range(2):
        try:
            treecopy.update(first, second)
        except CowError as error:
            if not _only_vanished(error):
                raise
        first, second = read(source.root, first, in_use=True), read(target.root, second)
    return first, second


def settled(source: Volumes, target: Volumes, first: Manifest, second: Manifest) -> tuple[Manifest, Manifest]:
    """Read both once more, when what was written lately is old enough to be known by its ctime."""
    sync_file_system(target.root)
    time.sleep(_SETTLES_WITHIN)
    return read(source.root, first, in_use=True), read(target.root, second)


def fill_stopped(
    source: Volumes, target: Volumes, known: tuple[Manifest, Manifest], told: Told
) -> tuple[Manifest, Manifest]:
    """Make the copy equal to a source that is stopped, and compare both. CowError when they are not equal then.

    known: what both were; nobody has changed the copy since.
    """
    first = read(source.root, known[0], told)
    treecopy.update(first, known[1])
    second = read(target.root, known[1], told)
    require_equal(first, second, "the copy")
    sync_file_system(target.root)
    return first, second


def mend_snapshot(source: Path, target: Volumes, name: str, tool: Btrfs, told: Told) -> Manifest:
    """Make the copy of a snapshot equal to its source, and return what both are."""
    wanted, found = read(source, told=told), read(target.snapshot(name), told=told)
    if manifest.differences(wanted, found, 1):
        if target.pool.driver == "btrfs":
            _replace_snapshot(wanted, target, name, tool)
        else:
            treecopy.update(wanted, found)
        found = read(target.snapshot(name), found)
    require_equal(wanted, found, f"the copy of snapshot {name}")
    return wanted


def discard_draft(target: Volumes, tool: Btrfs) -> None:
    """Remove what an interrupted run was mending."""
    if target.pool.driver == "btrfs" and target.draft.exists():
        tool.delete(target.draft)


def let_go(volumes: Volumes, snapshots: tuple[str, ...]) -> None:
    """Take away the flags that keep Incus from removing a volume that is about to go; subvolumes go with them."""
    if volumes.pool.driver != "dir":
        return
    for volume in (volumes.root, *(volumes.snapshot(name) for name in snapshots)):
        if volume.exists():
            unblock(walk(volume))


def require_equal(wanted: Manifest, found: Manifest, what: str) -> None:
    """Raise CowError with the first differences unless both are equal."""
    said = manifest.differences(wanted, found, _SHOWN)
    if said:
        raise CowError(f"In {what}, {'; '.join(said)}. The source is left in its place. Run again.")


def _replace_snapshot(wanted: Manifest, target: Volumes, name: str, tool: Btrfs) -> None:
    """Mend a clone, and put a read-only snapshot of that in the place of the one that Incus made.

    The latter may have been received from another pool, and such a one must never be made writable.
    """
    discard_draft(target, tool)
    tool.snapshot(target.snapshot(name), target.draft, readonly=False)
    treecopy.update(wanted, read(target.draft))
    sync_file_system(target.draft)
    tool.delete(target.snapshot(name))
    tool.snapshot(target.draft, target.snapshot(name), readonly=True)
    tool.delete(target.draft)


def _counted(tree: Tree) -> tuple[Entry, ...]:
    """Each file once, however many names it has."""
    return tuple({entry.identity: entry for entry in tree.entries}.values())


def _only_vanished(error: CowError) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in VANISHED


def total_bytes(*manifests: Manifest) -> int:
    """What is in all files, in bytes."""
    return sum(entry.size for one in manifests for entry in one.tree.entries if entry.is_file)


def digests(manifests: Mapping[str, Manifest]) -> dict[str, str]:
    """The digest of each manifest."""
    return {name: one.digest for name, one in manifests.items()}

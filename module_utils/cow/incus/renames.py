"""Renames of instances that the server was interrupted in, and that no call of its API can finish or undo.

Incus renames the volume in its database, then its folders, then the instance (RenameInstance in
internal/server/storage/backend.go and Rename in internal/server/instance/drivers/driver_lxc.go, 6.0 to 7.x). A daemon
that is killed, or a host that loses its power, in between leaves an instance whose volume has another name: all of it
is there, but it cannot be started or renamed, and removing it leaves the volume behind, whose name is then taken for
good. As Incus does not sync the folders, a host that loses its power may have those under the old name later on, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from .. import durable
from ..errors import CowError
from . import instances
from .client import Server
from .instances import Instance
from .move_trees import RECORD, Volumes
from .pools import Pool
from .profiles import Key


def sync(volumes: Volumes) -> None:
    """Have the names of a renamed instance's folders on the disk, and of the links to them."""
    for folder in (volumes.root, volumes.snapshots):
        for parent in (folder.parent, _link(volumes, folder).parent):
            if parent.exists():
                durable.sync_folder(parent)


def undo_half(server: Server, pool: Pool, found: Instance, keys: Iterable[Key], *, needed: bool) -> None:
    """Give the volume of an instance the instance's name again, where a rename among `keys` is half done.

    The server must be at nothing with it. It may be interrupted anywhere, and taken again. needed: whether its files
    are, or it is about to be removed. CowError when they are and the folder of the volume is not there, or the server's
    database is not as it is known.
    """
    right = Volumes(server, pool, found.key)
    others = [Volumes(server, pool, key) for key in keys if key != found.key]
    has_record = _has_record(right)
    is_half = partial(_has_its_files, right, found) if has_record else _has_its_record
    half = next(filter(is_half, others), None)
    if half is not None:
        _put_back(half.root, right.root)
        if found.snapshots:
            _put_back(half.snapshots, right.snapshots)
        for folder in (half.root, half.snapshots):
            if _is_linked(half, folder):
                _link(half, folder).unlink()
        if not _has_files(right.root) and (needed or not right.root.parent.exists()):
            raise CowError(
                f"Incus was interrupted while it renamed {found.key}, whose files are neither in {right.root} nor in "
                f"{half.root}. Is pool {pool.name} mounted? Mount it, and run again."
            )
    for folder in (right.root, right.snapshots):
        if folder.exists() and not _is_linked(right, folder):
            durable.link(_link(right, folder), str(folder))
    if half is not None and not has_record:
        _rename_record(half, right)


def _link(volumes: Volumes, folder: Path) -> Path:
    """Where Incus keeps a link to a folder of a volume, whatever the pool."""
    return Path(volumes.server.folder) / folder.parent.name / folder.name


def _is_linked(volumes: Volumes, folder: Path) -> bool:
    return _link(volumes, folder).resolve() == folder.resolve()


def _has_record(volumes: Volumes) -> bool:
    key = volumes.key
    path = ("storage-pools", volumes.pool.name, "volumes", "container", key.name)
    return volumes.server.exists(*path, project=key.project)


def _has_its_record(half: Volumes) -> bool:
    """Whether the record is that of the other name, and of no instance that has that name on the pool."""
    there = instances.read(half.server, half.key)
    return _has_record(half) and (there is None or there.pool != half.pool.name)


def _has_its_files(right: Volumes, found: Instance, half: Volumes) -> bool:
    """Whether the instance's folders are there, and not where they belong."""
    pairs = [(half.root, right.root), *([(half.snapshots, right.snapshots)] if found.snapshots else [])]
    misplaced = any(_has_files(wrong) and not _has_files(place) for wrong, place in pairs)
    return misplaced and instances.read(half.server, half.key) is None


def _has_files(folder: Path) -> bool:
    """Whether there is more in it than in a folder that Incus makes when it misses one."""
    return folder.exists() and any(each.name != RECORD for each in folder.iterdir())


def _put_back(wrong: Path, right: Path) -> None:
    if not _has_files(wrong) or _has_files(right):
        return
    if right.exists():
        (right / RECORD).unlink(missing_ok=True)
        right.rmdir()
    wrong.rename(right)
    durable.sync_folder(right.parent)


def _rename_record(half: Volumes, right: Volumes) -> None:
    pool, old, new = half.pool.name, half.key, right.key
    statement = (
        f"UPDATE storage_volumes SET name = {_quoted(new.name)} WHERE name = {_quoted(old.name)} AND type = 0"  # noqa: S608
        f" AND storage_pool_id = (SELECT id FROM storage_pools WHERE name = {_quoted(pool)})"
        f" AND project_id = (SELECT id FROM projects WHERE name = {_quoted(new.project)})"
    )
    changed = right.server.change_database(statement)
    if changed != 1:
        raise CowError(
            f"Incus was interrupted while it renamed {new}, and its database is not as it is known here: {changed} "
            f"volumes are called {old.name} on pool {pool}. Nothing is lost; see `incus admin sql global .dump`."
        )


def _quoted(text: str) -> str:
    """Any text in a form in which SQL takes it for nothing else; Incus divides statements at each semicolon."""
    return f"CAST(X'{text.encode().hex()}' AS TEXT)"

"""Renames of instances that the server was interrupted in, and that no call of its API can finish or undo.

Incus renames the volume in its database, then its folders, then the instance (RenameInstance in
internal/server/storage/backend.go and Rename in internal/server/instance/drivers/driver_lxc.go, 6.0 to 7.x). A daemon
that is killed, or a host that loses its power, in between leaves an instance whose volume has another name: all of it
is there, but it cannot be started or renamed, and removing it leaves the volume behind, whose name is then taken for
good. As Incus does not sync the folders, a host that loses its power may have those under the old name later on, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .. import names
from ..durable import sync_folder
from ..errors import CowError
from .client import Server
from .move_trees import Volumes
from .pools import Pool
from .profiles import Key


def sync(volumes: Volumes) -> None:
    """Have the names of the folders of a renamed instance on the disk."""
    for folder in (volumes.root, volumes.snapshots):
        if folder.parent.exists():
            sync_folder(folder.parent)


def undo_half(server: Server, pool: Pool, key: Key, keys: Iterable[Key]) -> None:
    """Give the volume of an instance the instance's name again, where a rename among `keys` is half done.

    The server must be at nothing with it. It may be interrupted anywhere, and taken again. CowError when the folder of
    the volume is not there, or the server's database is not as it is known.
    """
    has_record = _has_record(server, pool, key)
    free = [Volumes(server, pool, other) for other in keys if other != key and not _is_there(server, other)]
    if has_record:
        half = next((other for other in free if other.root.exists() or other.snapshots.exists()), None)
    else:
        half = next((other for other in free if _has_record(server, pool, other.key)), None)
    if half is None:
        return
    right = Volumes(server, pool, key)
    _put_back(server, half.root, right.root)
    _put_back(server, half.snapshots, right.snapshots)
    if not right.root.exists():
        raise CowError(
            f"Incus was interrupted while it renamed {key}, whose files are neither in {right.root} nor in "
            f"{half.root}. Is pool {pool.name} mounted? Mount it, and run again."
        )
    if not has_record:
        _rename_record(server, pool, half.key, key)


def _is_there(server: Server, key: Key) -> bool:
    return server.exists("instances", key.name, project=key.project)


def _has_record(server: Server, pool: Pool, key: Key) -> bool:
    return server.exists("storage-pools", pool.name, "volumes", "container", key.name, project=key.project)


def _put_back(server: Server, wrong: Path, right: Path) -> None:
    """Rename a folder of the pool if that is done already, and have the link in the server's own folder lead to it."""
    if wrong.exists() and not right.exists():
        wrong.rename(right)
        sync_folder(right.parent)
    if not right.exists():
        return
    links = Path(server.folder) / right.parent.name
    (links / wrong.name).unlink(missing_ok=True)
    if not (links / right.name).is_symlink():
        (links / right.name).symlink_to(right)
    sync_folder(links)


def _rename_record(server: Server, pool: Pool, half: Key, key: Key) -> None:
    """None of the names has a quote, as they are checked for what they may have."""
    statement = (
        f"UPDATE storage_volumes SET name = '{names.instance(key.name)}'"  # noqa: S608
        f" WHERE name = '{names.instance(half.name)}' AND type = 0"
        f" AND storage_pool_id = (SELECT id FROM storage_pools WHERE name = '{names.pool(pool.name)}')"
        f" AND project_id = (SELECT id FROM projects WHERE name = '{names.project(key.project)}')"
    )
    changed = server.change_database(statement)
    if changed != 1:
        raise CowError(
            f"Incus was interrupted while it renamed {key}, and its database is not as it is known here: {changed} "
            f"volumes are called {half.name} on pool {pool.name}. Nothing is lost; see `incus admin sql global .dump`."
        )

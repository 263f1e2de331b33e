"""Renames of instances that the server was interrupted in, and that no call of its API can finish or undo.

Incus renames the volume in its database first, then on the storage, and the instance last, each durably by itself
(RenameInstance in internal/server/storage/backend.go and Rename in internal/server/instance/drivers/driver_lxc.go, 6.0
to 7.x). A daemon that is killed, or a host that loses its power, in between leaves an instance whose volume has another
name: all of it is there, but it cannot be started or renamed, and removing it leaves the volume behind, whose name is
then taken for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..durable import sync_folder
from ..errors import CowError
from .client import Server
from .move_trees import Volumes
from .pools import Pool
from .profiles import Key


def undo_half(server: Server, pool: Pool, key: Key, names: Iterable[Key]) -> None:
    """Give the volume of an instance the instance's name again, where a rename to one of `names` is half done.

    The server must be at nothing with it. It may be interrupted anywhere, and taken again. CowError when the server's
    database is not as it is known.
    """
    if _has_volume(server, pool, key):
        return
    half = next((other for other in names if _has_volume(server, pool, other) and not _is_there(server, other)), None)
    if half is None:
        return
    wrong, right = Volumes(server, pool, half), Volumes(server, pool, key)
    _put_back(server, wrong.root, right.root)
    _put_back(server, wrong.snapshots, right.snapshots)
    _rename_in_database(server, pool, half, key)


def _has_volume(server: Server, pool: Pool, key: Key) -> bool:
    return server.exists("storage-pools", pool.name, "volumes", "container", key.name, project=key.project)


def _is_there(server: Server, key: Key) -> bool:
    return server.exists("instances", key.name, project=key.project)


def _put_back(server: Server, wrong: Path, right: Path) -> None:
    """Rename a folder of the pool if that is done already, and have the link in the server's own folder lead to it."""
    if wrong.exists() and not right.exists():
        wrong.rename(right)
        sync_folder(right.parent)
    links = Path(server.folder) / right.parent.name
    (links / wrong.name).unlink(missing_ok=True)
    if right.exists() and not (links / right.name).is_symlink():
        (links / right.name).symlink_to(right)


def _rename_in_database(server: Server, pool: Pool, half: Key, key: Key) -> None:
    """The names are those of instances, pools and projects, none of which can have a quote."""
    statement = (
        f"UPDATE storage_volumes SET name = '{key.name}' WHERE name = '{half.name}' AND type = 0"  # noqa: S608
        f" AND storage_pool_id = (SELECT id FROM storage_pools WHERE name = '{pool.name}')"
        f" AND project_id = (SELECT id FROM projects WHERE name = '{key.project}')"
    )
    changed = server.change_database(statement)
    if changed != 1 or not _has_volume(server, pool, key):
        raise CowError(
            f"Incus was interrupted while it renamed {key} to {half.name}, and its database is not as it is known "
            f"here: {changed} volumes were renamed instead of one. Nothing is lost; see `incus admin sql global .dump`."
        )

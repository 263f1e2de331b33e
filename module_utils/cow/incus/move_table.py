"""The table of a plan: every instance, and what a move of it to another pool would mean. Only reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .. import names
from ..errors import CowError
from . import instances, move_checks, move_trees, moves, moving
from .client import Server
from .instances import Instance
from .move_checks import Allowed, Host, Sizes
from .move_trees import Volumes

_SECONDS_PER_ENTRY = 40e-6
"""What it takes to look at one file after the stop, on both sides: measured on two slow cores."""
_SECONDS_OF_REQUESTS = 0.5
"""What the requests to the server and the start take."""


@dataclass(frozen=True)
class Asked:
    """What the operator wants to know."""

    pool: str
    from_pool: str
    names: tuple[str, ...]
    protected: tuple[str, ...]
    fingerprint: bool
    allowed: Allowed

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Asked:
        """Take it from the options of incus_instance_info and check it."""
        return cls(
            pool=names.pool(params["pool"]) if params["pool"] else "",
            from_pool=names.pool(params["from_pool"]) if params["from_pool"] else "",
            names=tuple(params["names"]),
            protected=tuple(params["protected"]),
            fingerprint=params["fingerprint"],
            allowed=moving.allowed(params),
        )


def read(server: Server, asked: Asked) -> dict[str, Any]:
    """Return the values of the module."""
    known = moves.read_all(server)
    host = move_checks.read_host(server, list(asked.protected), known=known)
    for pool in filter(None, (asked.pool, asked.from_pool)):
        if pool not in host.pools:
            raise CowError(f"There is no pool {pool}. There are {names.shortened(sorted(host.pools))}.")
    # One whose move was interrupted between two renames is under another name just now.
    under_way = {move.key for move in known.values() if move.is_active}
    wanted = instances.require(asked.names, {*host.instances, *under_way}, "names") or frozenset(host.instances)
    found = [instances.read(server, key) for key in sorted(wanted)]
    listed = [one for one in found if one is not None and asked.from_pool in ("", one.pool)]
    sizes = {one.key: _sizes(server, one, host, asked) for one in listed}
    rows = [_row(server, one, host, asked, sizes[one.key]) for one in listed]
    return {
        "instances": rows,
        "moves": [moving.summary(move) for move in sorted(known.values(), key=lambda move: move.key)],
        "foreign": [str(key) for key in host.foreign],
        "space": _space(host, asked, rows),
    }


def _sizes(server: Server, found: Instance, host: Host, asked: Asked) -> Sizes | None:
    if not asked.pool or not _has_files(found, host):
        return None
    try:
        return moving.measure(server, found, host, asked.pool)
    except CowError:
        if any(move.is_active and found.key in (*move.source_keys, *move.copy_keys) for move in host.moves.values()):
            return (
                None  # as Incus was interrupted while it renamed it, its files may be elsewhere until the move goes on
            )
        raise


def _row(server: Server, found: Instance, host: Host, asked: Asked, sizes: Sizes | None) -> dict[str, Any]:
    move = moves.of(host.moves, found.key, found)
    return {
        "name": found.key.name,
        "project": found.key.project,
        "type": found.kind,
        "status": found.status,
        "uuid": found.uuid,
        "pool": found.pool,
        "protected": any(True for _ in move_checks.protection(found, host)),
        "move": moves.describe(move),
        "snapshots": [
            {
                "name": snapshot.name,
                "created_at": snapshot.created,
                "expires_at": snapshot.expires,
                "size_bytes": sizes.snapshots[snapshot.name] if sizes else None,
            }
            for snapshot in found.snapshots
        ],
        "size_bytes": sizes.root if sizes else None,
        "needed_bytes": sizes.needed if sizes else None,
        "expected_downtime_seconds": _downtime(found, sizes) if asked.pool else None,
        "not_carried": list(move_checks.not_carried(found)),
        "refused": _refused(found, host, asked, sizes),
        "fingerprint": _fingerprint(server, found, host) if asked.fingerprint else None,
    }


def _refused(found: Instance, host: Host, asked: Asked, sizes: Sizes | None) -> list[str]:
    """Why a move would be refused; not for one that is on the pool already, or is on its way there."""
    move = moves.of(host.moves, found.key, found)
    under_way = move is not None and move.is_active and move.to_pool == asked.pool
    if not asked.pool or found.pool == asked.pool or under_way:
        return list(move_checks.protection(found, host))
    said = list(move_checks.refusals(found, asked.pool, host, asked.allowed))
    if said or sizes is None:
        return said
    target = host.pools[asked.pool]
    return list(move_checks.refusals_of_size(found, sizes, target, move_checks.room(target), asked.allowed))


def _downtime(found: Instance, sizes: Sizes | None) -> float | None:
    if sizes is None:
        return None
    return round(_SECONDS_OF_REQUESTS + sizes.entries * _SECONDS_PER_ENTRY, 1) if found.is_running else 0.0


def _space(host: Host, asked: Asked, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not asked.pool:
        return None
    there = move_checks.room(host.pools[asked.pool])
    to_move = (row for row in rows if not row["refused"] and row["pool"] != asked.pool)
    return {
        "free_bytes": there.pool,
        "host_free_bytes": there.host,
        "needed_bytes": sum(row["needed_bytes"] or 0 for row in to_move),
    }


def _fingerprint(server: Server, found: Instance, host: Host) -> dict[str, str]:
    state = server.get("instances", found.key.name, "state", project=found.key.project)
    return {
        "configuration": _digest(
            [found.body, [[one.name, one.created, one.expires] for one in found.snapshots], list(found.backups)]
        ),
        "power": _digest([found.status, found.last_used, state["pid"], state.get("started_at", "")]),
        "tree": _tree(server, found, host),
    }


def _tree(server: Server, found: Instance, host: Host) -> str:
    if not _has_files(found, host):
        return ""
    volumes = Volumes(server, host.pools[found.pool], found.key)
    return _digest(move_trees.fingerprints(volumes, tuple(snapshot.name for snapshot in found.snapshots)))


def _has_files(found: Instance, host: Host) -> bool:
    pool = host.pools.get(found.pool)
    return found.kind == instances.CONTAINER and pool is not None and pool.driver in move_checks.DRIVERS


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

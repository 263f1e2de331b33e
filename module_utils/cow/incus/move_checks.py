"""Why an instance is not moved to another pool, and what a move of it does not keep."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import mounts, names
from ..size import Size
from . import instances, moves, pools
from .client import Server
from .instances import Instance
from .moves import Move
from .pools import Pool
from .profiles import Key

TESTED_VERSIONS = ("6.0",)
"""Versions of Incus that moves are tested with: all that begin like this."""
DRIVERS = ("dir", "btrfs")
"""Drivers whose volumes are folders that can be read and written while Incus runs."""
_OWN_PROTECTION = "user.cowherd.protected"
_OTHERS_PROTECTION = "security.protection.delete"
_LOW_LEVEL = "restricted.containers.lowlevel"
_TRUE = ("true", "1", "yes", "on")


@dataclass(frozen=True)
class Allowed:
    """What the operator allows. headroom: what has to stay free on the target."""

    headroom: Size
    other_disks: bool = False
    untested_version: bool = False


@dataclass(frozen=True)
class Host:
    """What decides whether an instance is moved, besides itself.

    restricted: projects in which nobody may give an instance the identity of another.
    """

    version: str
    instances: Mapping[Key, Instance]
    pools: Mapping[str, Pool]
    moves: Mapping[str, Move]
    protected: frozenset[Key] = frozenset()
    restricted: frozenset[str] = frozenset()

    @property
    def foreign(self) -> tuple[Key, ...]:
        """Instances that are called like those of a move and that no journal knows."""
        known = {aside.uuid for move in self.moves.values() for aside in move.asides}
        known |= {uuid for move in self.moves.values() for uuid in (move.uuid, move.kept_uuid, move.copy_uuid)}
        marks = {move.mark for move in self.moves.values()}
        return tuple(
            key
            for key, found in self.instances.items()
            if moves.is_own_name(key.name) and found.uuid not in known and found.config.get(moves.MARK) not in marks
        )


@dataclass(frozen=True)
class Sizes:
    """What the files of an instance hold.

    root, snapshots: bytes. needed: bytes that both take on the target at most. entries: files of the root.
    """

    root: int
    snapshots: Mapping[str, int]
    needed: int
    entries: int


@dataclass(frozen=True)
class Room:
    """What is free for a pool. host: on the host's file system, None when the pool is not in a sparse file there."""

    pool: int
    host: int | None = None

    @property
    def free(self) -> int:
        """What can be written at most."""
        return self.pool if self.host is None else min(self.pool, self.host)


def read_host(server: Server, protected: list[str], *, known: Mapping[str, Move]) -> Host:
    """Read all that decides. CowError when an entry of `protected` names no instance."""
    every = instances.read_all(server)
    return Host(
        version=str(server.get()["environment"]["server_version"]),
        instances=every,
        pools={pool.name: pool for pool in pools.read_all(server)},
        moves=known,
        protected=instances.require(protected, every, "protected"),
        restricted=frozenset(
            body["name"] for body in server.get("projects", recursion=1) if _is_restricted(body["config"])
        ),
    )


def room(pool: Pool) -> Room:
    """Read what is free for a pool."""
    free = max((pool.size or 0) - (pool.used or 0), 0)
    source = Path(pool.source)
    # Incus makes loop files sparse: they take room on the host's file system only as they fill.
    return Room(free, mounts.free(source).bytes if source.is_file() else None)


def protection(found: Instance, host: Host) -> Iterator[str]:
    """Yield why an instance must not be touched at all."""
    if found.key in host.protected:
        yield f"{found.key} is protected: it is listed in protected. It is not touched."
    if found.expanded_config.get(_OWN_PROTECTION, "").lower() in _TRUE:
        yield f"{found.key} is protected: {_OWN_PROTECTION} is set. It is not touched; unset the key if that is meant."


def refusals(found: Instance, to_pool: str, host: Host, allowed: Allowed) -> Iterator[str]:
    """Yield why an instance is not moved to a pool, each in a sentence for the operator."""
    yield from protection(found, host)
    yield from _of_kind(found)
    yield from _of_pools(found, to_pool, host)
    yield from _of_disks(found, allowed)
    yield from _of_host(found, host, allowed)


def refusals_of_size(found: Instance, sizes: Sizes, target: Pool, room_there: Room, allowed: Allowed) -> Iterator[str]:
    """Yield why an instance of this size is not moved to a pool."""
    limit = found.root.get("size", "")
    if limit and sizes.root > Size.parse(limit).bytes:
        yield (
            f"The root disk of {found.key} has the size {limit}, but {Size(sizes.root).rounded()} are in it, which the "
            f"pool {found.pool} did not enforce and {target.name} will. Raise the size of the root disk."
        )
    if sizes.needed + allowed.headroom.bytes > room_there.free:
        where = f"pool {target.name}"
        if room_there.host is not None and room_there.host < room_there.pool:
            where = f"the file system under the file of pool {target.name} ({target.source}, which is sparse)"
        yield (
            f"{found.key} needs up to {Size(sizes.needed).rounded()} and {allowed.headroom} are to stay free, but "
            f"{where} has only {Size(room_there.free).rounded()} free. Make room there, or lower headroom."
        )


def not_carried(found: Instance) -> tuple[str, ...]:
    """Say what a move does not keep."""
    backups = names.shortened(found.backups)
    return (
        "the date of creation of the instance, which becomes that of the move",
        *([f"the backups {backups} that the server keeps; they stay with the kept source"] if backups else []),
    )


def _of_kind(found: Instance) -> Iterator[str]:
    if found.kind != instances.CONTAINER:
        yield f"{found.key} is a {found.kind.replace('-', ' ')}. Only containers are moved."
    if found.ephemeral:
        yield f"{found.key} is ephemeral: it is deleted when it is stopped. Make it persistent first."
    if found.stateful or any(snapshot.stateful for snapshot in found.snapshots):
        yield f"{found.key} has a saved state of memory, or a snapshot with one, which is not carried. Remove it first."
    if found.status not in (instances.RUNNING, instances.STOPPED):
        yield f"{found.key} is in the state {found.status}; wanted is Running or Stopped. Start or stop it first."
    if found.expanded_config.get(_OTHERS_PROTECTION, "").lower() in _TRUE:
        yield (
            f"{found.key} has {_OTHERS_PROTECTION} set, so that somebody wants it to stay. "
            f"It is not moved; unset the key if that is meant."
        )
    if not found.uuid:
        yield f"{found.key} has no {instances.UUID}, by which it is told from others. Start it once to have one."


def _of_pools(found: Instance, to_pool: str, host: Host) -> Iterator[str]:
    target = host.pools.get(to_pool)
    if target is None:
        yield f"There is no pool {to_pool} to move {found.key} to. There are {names.shortened(sorted(host.pools))}."
    elif target.status != "Created":
        yield f"Pool {to_pool} is not available (its status is {target.status})."
    if not found.pool:
        yield f"{found.key} has no root disk on a pool."
    for pool in (host.pools.get(found.pool), target):
        if pool is not None and pool.driver not in DRIVERS:
            yield (
                f"Pool {pool.name} has driver {pool.driver}. Moves are made between pools of the drivers "
                f"{' and '.join(DRIVERS)}, as others do not let the files of snapshots be compared and mended."
            )


def _of_disks(found: Instance, allowed: Allowed) -> Iterator[str]:
    others = sorted(
        name
        for name, options in found.expanded_devices.items()
        if options.get("pool") == found.pool and name != found.root_name
    )
    if others and not allowed.other_disks:
        yield (
            f"{found.key} has further disks on pool {found.pool} ({names.shortened(others)}), which would stay there. "
            f"Set allow_other_disks to have it moved without them."
        )


def _of_host(found: Instance, host: Host, allowed: Allowed) -> Iterator[str]:
    if moves.MARK in found.config:
        yield f"{found.key} is a copy or a kept source of a move, and is not moved itself."
    if not allowed.untested_version and not _is_tested(host.version):
        yield (
            f"The server is Incus {host.version}; moves are tested with {', '.join(TESTED_VERSIONS)}. "
            f"Set allow_untested_version to move {found.key} nevertheless."
        )
    if found.key.project in host.restricted:
        yield (
            f"The project {found.key.project} is restricted, and {_LOW_LEVEL} is not allow: in it no instance can be "
            f"given the uuid and the MAC addresses of {found.key}. Allow that for the time of the move."
        )
    foreign = [str(key) for key in host.foreign if key.project == found.key.project]
    if foreign:
        yield (
            f"{names.shortened(foreign)} looks like what a move has left behind, but no journal on this host knows it. "
            f"It is left as it is. Find out whose it is, and rename or remove it."
        )


def _is_restricted(config: Mapping[str, str]) -> bool:
    return config.get("restricted", "").lower() in _TRUE and config.get(_LOW_LEVEL) != "allow"


def _is_tested(version: str) -> bool:
    found = re.match(r"\d+\.\d+", version)
    return found is not None and found[0] in TESTED_VERSIONS

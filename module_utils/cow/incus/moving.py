"""An instance's root on a pool: what there is, what is wanted, and the steps from one to the other."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import names
from ..errors import CowError
from ..plan import Plan, Step
from ..progress import Progress
from ..size import Size
from . import instances, move_checks, move_trees, moves
from .client import CHANGE_TIMEOUT, Server
from .instances import Instance
from .move_checks import Allowed, Host
from .move_steps import Bounds, Mover
from .move_trees import Volumes
from .moves import Aside, Move
from .pools import Pool
from .profiles import Key

MOVED = "moved"
ROLLED_BACK = "rolled_back"
CLEANED = "cleaned"
_HOUR = 3600.0


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for. retention: hours."""

    key: Key
    state: str
    pool: str
    protected: tuple[str, ...]
    bounds: Bounds
    allowed: Allowed
    retention: float
    progress_file: Path | None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_instance_pool and check it."""
        for option in ("stop_timeout", "health_timeout"):
            if params[option] < 1:
                raise CowError(f"{option} is {params[option]}, wanted is at least 1 second.")
        if params["retention"] < 0:
            raise CowError(f"retention is {params['retention']:g}, wanted is a number of hours that is not negative.")
        if not params["health_command"]:
            raise CowError("health_command is empty. Give a command, such as [true].")
        if params["state"] == MOVED and not params["pool"]:
            raise CowError("state is moved and pool is empty. Give the pool that the root is to be on.")
        path = params["progress_file"]
        return cls(
            key=Key(names.project(params["project"]), names.instance(params["name"])),
            state=params["state"],
            pool=names.pool(params["pool"]) if params["pool"] else "",
            protected=tuple(params["protected"]),
            bounds=Bounds(params["stop_timeout"], params["health_timeout"], tuple(params["health_command"])),
            allowed=allowed(params),
            retention=params["retention"],
            progress_file=Path(names.absolute_path(path)) if path else None,
        )


@dataclass(frozen=True)
class Found:
    """What decides about an instance.

    instance: what has the wanted name. move: the journal of its last move. here: the instance that the journal is of,
    whatever it is called. refusals: why a new move of it would not be made.
    """

    host: Host
    instance: Instance | None
    move: Move | None
    here: Instance | None
    refusals: tuple[str, ...] = ()


def allowed(params: Mapping[str, Any]) -> Allowed:
    """Take what is allowed from the options of a module."""
    return Allowed(
        headroom=Size.parse(params["headroom"]),
        other_disks=params["allow_other_disks"],
        untested_version=params["allow_untested_version"],
    )


def observe(server: Server, wanted: Wanted) -> Found:
    """Read the instance, the journals, and all that decides."""
    if server.clustered():
        raise CowError("The Incus daemon is a member of a cluster. Instances are moved on single hosts only.")
    known = moves.read_all(server)
    host = move_checks.read_host(server, list(wanted.protected), known=known)
    there = instances.read(server, wanted.key)
    move = moves.of(known, wanted.key, there)
    here = next((one for one in host.instances.values() if move and one.uuid == move.uuid), None)
    found = Found(host, there, move, here)
    if wanted.state != MOVED or there is None:
        return found
    if move is not None and move.phase == moves.COPYING:  # what it has copied so far is made anew, so that it has room
        return replace(found, refusals=tuple(move_checks.refusals(there, wanted.pool, host, wanted.allowed)))
    if not _is_new(found, wanted):
        return found
    return replace(found, refusals=refusals(server, there, wanted.pool, host, wanted.allowed))


def refusals(server: Server, found: Instance, to_pool: str, host: Host, allow: Allowed) -> tuple[str, ...]:
    """Say why a new move of an instance to a pool would not be made; its files are read last."""
    said = tuple(move_checks.refusals(found, to_pool, host, allow))
    if said:
        return said
    target = host.pools[to_pool]
    sizes = measure(server, found, host, to_pool)
    return tuple(move_checks.refusals_of_size(found, sizes, target, move_checks.room(target), allow))


def measure(server: Server, found: Instance, host: Host, to_pool: str) -> move_checks.Sizes:
    """Measure the files of an instance."""
    volumes = Volumes(server, host.pools[found.pool], found.key)
    return move_trees.measure(volumes, tuple(one.name for one in found.snapshots), host.pools[to_pool])


def plan(server: Server, found: Found, wanted: Wanted) -> Plan:
    """Plan what leads to the wanted state, from whatever an interrupted run has left."""
    if found.instance is None and found.move is None:
        raise CowError(f"There is no instance {wanted.key} on this host, and no journal of a move of it.")
    if found.instance is not None:
        _refuse(tuple(move_checks.protection(found.instance, found.host)))
    if wanted.state == ROLLED_BACK:
        return _plan_rollback(server, found, wanted)
    if wanted.state == CLEANED:
        return _plan_cleaning(server, found, wanted)
    return _plan_move(server, found, wanted)


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module."""
    here = found.instance
    return {
        "instance": None
        if here is None
        else {
            "name": here.key.name,
            "project": here.key.project,
            "pool": here.pool,
            "status": here.status,
            "uuid": here.uuid,
        },
        "move": moves.describe(found.move),
        "not_carried": list(move_checks.not_carried(here)) if here else [],
    }


def _is_new(found: Found, wanted: Wanted) -> bool:
    """Whether a move would begin, and none is to be gone on with."""
    active = found.move is not None and found.move.is_active
    return not active and found.instance is not None and found.instance.pool != wanted.pool


def _plan_move(server: Server, found: Found, wanted: Wanted) -> Plan:
    move = found.move
    if move is not None and move.is_active:
        return _plan_going_on(server, found, move, wanted)
    if found.instance is None:
        raise CowError(_gone(found, wanted))
    if not _is_new(found, wanted):
        return Plan()
    _refuse(found.refusals)
    fresh = _new_move(found.instance, move, wanted)
    mover = _mover(server, found, fresh, wanted)
    return Plan.of(*_steps(mover, found.instance.is_running, len(found.instance.snapshots))) + Plan(
        warnings=_warnings(found.instance)
    )


def _plan_going_on(server: Server, found: Found, move: Move, wanted: Wanted) -> Plan:
    if move.to_pool != wanted.pool:
        raise CowError(
            f"A move of {move.key} to pool {move.to_pool} is not finished ({move.phase}), wanted is {wanted.pool}. "
            f"Finish it with pool={move.to_pool}, or undo it with state=rolled_back."
        )
    mover = _mover(server, found, move, wanted)
    if move.phase == moves.ROLLING_BACK:
        again = f"The undoing of an earlier move of {move.key} is finished first. Run again to have it moved."
        return Plan.of(_rollback_step(mover)) + Plan(warnings=(again,))
    _refuse_strangers(found, move)
    _refuse(found.refusals)
    running = bool(found.instance and found.instance.is_running) or move.was_running
    steps = _steps(mover, running, len(found.instance.snapshots) if found.instance else 0)
    done = {moves.COPYING: 0, moves.FILLING: 1, moves.STOPPING: 1, moves.VERIFIED: 3, moves.STARTING: 4}[move.phase]
    return Plan(steps=steps[done:])


def _steps(mover: Mover, running: bool, snapshots: int) -> tuple[Step, ...]:
    move = mover.move
    with_snapshots = {0: "", 1: " with 1 snapshot"}.get(snapshots, f" with {snapshots} snapshots")
    where = f"from pool {move.from_pool} to {move.to_pool}"
    stop = f"stop {move.key}, bring" if running else "bring"
    end = f"start {move.key} and look whether it is well" if running else f"note that {move.key} is moved"
    table: tuple[tuple[str, Callable[[], None], Mapping[str, Any], Mapping[str, Any]], ...] = (
        (f"copy {move.key}{with_snapshots} {where} as {move.copy.name}", mover.copy, {}, {str(move.copy): "is a copy"}),
        (f"make {move.copy.name} equal to {move.key}, file by file", mover.fill, {}, {str(move.copy): "is equal"}),
        (f"{stop} {move.copy.name} up to date, and compare both", mover.stop_and_compare, {}, {"compared": "yes"}),
        (
            f"set {move.key} aside as {move.kept.name}, and put {move.copy.name} in its place",
            mover.commit,
            {str(move.key): f"pool {move.from_pool}"},
            {str(move.key): f"pool {move.to_pool}", str(move.kept): f"pool {move.from_pool}, switched off"},
        ),
        (end, mover.start, {}, {"journal": "moved"}),
    )
    return tuple(
        Step(title=title, run=partial(_run, mover, action), before=before or None, after=after)
        for title, action, before, after in table
    )


def _run(mover: Mover, action: Callable[[], None]) -> None:
    try:
        action()
    finally:
        mover.progress.end()


def _new_move(found: Instance, last: Move | None, wanted: Wanted) -> Move:
    own = moves.checked_uuid(found)
    serial = last.serial + 1 if last else 1
    return Move(
        project=found.key.project,
        name=found.key.name,
        uuid=own,
        serial=serial,
        from_pool=found.pool,
        to_pool=wanted.pool,
        phase=moves.COPYING,
        original=found.body,
        kept_uuid=_derived(own, serial, "kept"),
        copy_uuid=_derived(own, serial, "copy"),
        began=time.time(),
        asides=last.asides if last else (),
    )


def _derived(own: str, serial: int, what: str) -> str:
    return str(uuid.uuid5(uuid.UUID(own), f"{what} {serial}"))


def _mover(server: Server, found: Found, move: Move, wanted: Wanted) -> Mover:
    for pool in (move.from_pool, move.to_pool):
        if pool not in found.host.pools:
            raise CowError(f"There is no pool {pool} any more, which the move of {move.key} concerns.")
    return Mover(
        server=server,
        move=move,
        source_pool=found.host.pools[move.from_pool],
        target_pool=found.host.pools[move.to_pool],
        bounds=wanted.bounds,
        progress=Progress(wanted.progress_file, str(move.key)),
    )


def _plan_rollback(server: Server, found: Found, wanted: Wanted) -> Plan:
    move = found.move
    if move is None or move.phase == moves.ROLLED_BACK:
        return Plan()
    _refuse_strangers(found, move)
    mover = _mover(server, found, move, wanted)
    if move.phase != moves.MOVED:
        return Plan.of(_rollback_step(mover))
    kept = next((aside for aside in move.asides if aside.name == move.kept.name), None)
    if kept is None:
        raise CowError(f"The source of the move of {move.key} was removed with state=cleaned. There is no way back.")
    if kept.going:
        raise CowError(
            f"The removal of {move.kept}, the source of the move of {move.key}, had begun. There is no way back: "
            f"finish it with state=cleaned."
        )
    _refuse((*_touched(server, found, move, kept),))
    stays = (
        f"What was written to {move.key} since {moves.as_text(move.ended)} stays in {move.undone}, which is kept aside."
    )
    return Plan.of(_rollback_step(mover)) + Plan(warnings=(stays,))


def _rollback_step(mover: Mover) -> Step:
    move = mover.move
    return Step(
        title=f"put {move.key} back to pool {move.from_pool}",
        run=partial(_run, mover, mover.roll_back),
        before={str(move.key): f"{move.phase}, to pool {move.to_pool}"},
        after={str(move.key): f"pool {move.from_pool}"},
    )


def _plan_cleaning(server: Server, found: Found, wanted: Wanted) -> Plan:
    move = found.move
    if move is None:
        return Plan()
    if move.is_active:
        raise CowError(
            f"The move of {move.key} is not finished ({move.phase}). Finish it by running it again, or undo it with "
            f"state=rolled_back. Nothing is removed before that."
        )
    _refuse(tuple(_why_not_cleaned(server, found, move, wanted)))
    steps = [
        Step(
            title=f"remove {Key(move.project, aside.name)}, set aside by a move of {move.key}, from pool {aside.pool}",
            run=partial(_remove, server, found.host.pools[aside.pool], move, aside),
            before={str(Key(move.project, aside.name)): f"pool {aside.pool}, since {moves.as_text(aside.since)}"},
            destroys=f"what the move of {move.key} has kept on pool {aside.pool}, snapshots and backups included",
            permit="remove_source",
        )
        for aside in move.asides
    ]
    forget = Step(
        title=f"forget the move of {move.key}",
        run=partial(moves.forget, server, move),
        before={"journal": move.phase},
    )
    return Plan.of(*steps, forget)


def _why_not_cleaned(server: Server, found: Found, move: Move, wanted: Wanted) -> list[str]:
    if not move.asides:
        return []
    here = found.here
    if here is None:
        gone = f"{move.key} is gone (no instance has the uuid {move.uuid})"
        way_out = "It stays. Put it back with state=rolled_back, or remove it yourself."
        return [f"{gone}, so that what is kept aside may be all that there is of it. {way_out}"]
    if here.key != move.key:
        return [
            f"{move.key} is called {here.key} now. Rename it back, or remove what is kept aside yourself. It stays."
        ]
    expected = move.to_pool if move.phase == moves.MOVED else move.from_pool
    if here.pool != expected:
        return [f"{move.key} is on pool {here.pool}, and the journal says {expected}. What is kept aside stays."]
    said: list[str] = []
    for aside in move.asides:
        hours = (time.time() - aside.since) / _HOUR
        if hours < wanted.retention:
            said.append(
                f"{Key(move.project, aside.name)} was set aside {hours:.1f} hours ago and is kept for "
                f"{wanted.retention:g} (retention)."
            )
        if not aside.compared:
            said.append(f"The journal does not say that {aside.name} was compared with what is in its place. It stays.")
        said += _touched(server, found, move, aside)
    return said


def _touched(server: Server, found: Found, move: Move, aside: Aside) -> list[str]:
    """Say what somebody did to an instance that was set aside."""
    key = Key(move.project, aside.name)
    known = found.host.instances.get(key)
    if aside.going and (known is None or known.uuid == aside.uuid):
        return []  # nobody had touched it when its removal began, which was cut off
    if known is None or known.uuid != aside.uuid:
        is_what = "is gone" if known is None else f"is another instance now (uuid {known.uuid})"
        return [f"{key}, which the move of {move.key} has set aside, {is_what}. Nothing is changed."]
    there = instances.read(server, key)
    if there is None or there.is_running or there.last_used != aside.last_used:
        return [
            f"{key} was started by somebody since it was set aside, so that it is not the source any more. It stays."
        ]
    volumes = Volumes(server, found.host.pools[aside.pool], key)
    present = tuple(snapshot.name for snapshot in there.snapshots)
    fresh = [name for name in present if name not in aside.fingerprints]
    now = move_trees.fingerprints(volumes, tuple(name for name in present if name not in fresh))
    written = [name or "its root" for name, value in now.items() if aside.fingerprints.get(name) != value]
    if fresh or written:
        return [f"{key} was changed by somebody since it was set aside ({names.shortened(fresh + written)}). It stays."]
    return []


def _remove(server: Server, pool: Pool, move: Move, aside: Aside) -> None:
    key = Key(move.project, aside.name)
    instances.await_operations(server, (key,), CHANGE_TIMEOUT)  # which an earlier run may have begun
    there = instances.read(server, key)
    if there is not None:
        if there.uuid != aside.uuid or there.status != instances.STOPPED:
            raise CowError(f"{key} was replaced or started by somebody right now. It stays.")
        moves.write(server, moves.with_aside_going(moves.read_all(server).get(move.uuid, move), aside.name))
        move_trees.let_go(Volumes(server, pool, key), tuple(snapshot.name for snapshot in there.snapshots))
        instances.delete(server, key)
    now = moves.read_all(server).get(move.uuid, move)
    moves.write(server, moves.without_aside(now, aside.name))


def _refuse(said: tuple[str, ...]) -> None:
    if said:
        raise CowError(" ".join(said))


def _refuse_strangers(found: Found, move: Move) -> None:
    """Raise CowError when what has the instance's name is of no part in its move, or it has another name now."""
    there = found.host.instances.get(move.key)
    own = (move.uuid, move.kept_uuid, move.copy_uuid)
    if there is not None and there.uuid not in own and there.config.get(moves.MARK) != move.mark:
        raise CowError(
            f"{move.key} is another instance now (uuid {there.uuid}) than the one that was moved (uuid {move.uuid}). "
            f"Nothing is changed. Rename it, so that the move can be finished or undone."
        )
    ours = (move.key, move.copy, move.kept, move.undone)
    if found.here is not None and found.here.key not in ours:
        raise CowError(
            f"{move.key}, which was moved, is called {found.here.key} now. Nothing is changed. Rename it back first."
        )


def _gone(found: Found, wanted: Wanted) -> str:
    called = f" It is called {found.here.key} now." if found.here else ""
    return f"There is no instance {wanted.key} on this host any more, though a journal knows of a move of it.{called}"


def _warnings(found: Instance) -> tuple[str, ...]:
    return (f"Not carried: {move_checks.not_carried(found)[1]}.",) if found.backups else ()


def summary(move: Move) -> dict[str, Any]:
    """Give a move for a list of moves."""
    return {"name": move.name, "project": move.project, "uuid": move.uuid, **(moves.describe(move) or {})}

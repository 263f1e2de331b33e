"""What is done to move an instance to another pool, and to undo that, one step after the other.

Every step looks at what there is before it changes anything, so that it can be taken again from wherever it was
interrupted. Source and copy are told apart by their pools and by the uuids and the mark that the journal has.

No two instances have one uuid at any time, or can be started by the server beside each other: the source gives up its
uuid and its devices before the copy gets them, and has none of the source's addresses from then on.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..btrfs import Btrfs
from ..errors import CowError
from ..manifest import Manifest
from ..progress import Progress
from . import instances, move_trees, moves, profiles, renames
from .client import CHANGE_TIMEOUT, ApiError, Server
from .instances import AUTOSTART, UUID, Instance
from .move_trees import Volumes
from .moves import Aside, Move
from .pools import Pool
from .profiles import Devices, Key

_COPY_WITHIN = 7 * 86400.0
"""Seconds that Incus may take to copy an instance."""
_COPIES, _COPIES_WITHIN = 5, 20.0
"""How often Incus may copy because files changed meanwhile; what is copied fast as often as these seconds allow."""
_CHANGING = ("exit status 24", "failed verification -- update discarded")
"""What Incus 6.0 says of rsync, discarding the copy, when files went while it ran, or were written all the time."""
_POLL = 0.2
_LATE_STOP = 30.0
"""Seconds in which one that did not stop in time is watched, as it may still be about to."""
_GENERATION = "volatile.uuid.generation"
_CHANGED_IN_PLACE = "limits.priority"
_OF_A_RUN = ("volatile.last_state.power", "volatile.last_state.ready")
_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@dataclass(frozen=True)
class Bounds:
    """How long things may take, and what tells that an instance is well. Seconds."""

    stop_timeout: int
    health_timeout: int
    health_command: tuple[str, ...]


@dataclass
class Mover:
    """Takes the steps of one move. `move` is what the journal says, and what it says is written before it is done."""

    server: Server
    move: Move
    source_pool: Pool
    target_pool: Pool
    bounds: Bounds
    progress: Progress
    tool: Btrfs = field(default_factory=Btrfs)
    known: tuple[Manifest, Manifest] | None = None
    total: int = 0

    def copy(self) -> None:
        """Have Incus copy the source with its snapshots, which it may run through, to an instance that is off."""
        found = self._source_in_place()
        self._note(phase=moves.COPYING, original=found.body)
        self._discard_copy()
        try:
            self._have_it_copied(found)
            self._rehearse()
        except ApiError as error:
            with contextlib.suppress(CowError):
                self._discard_copy()  # half a copy is of no use, and takes the room
            advice = " Files went or changed during each copy: stop it, then run again." if _changing(error) else ""
            raise CowError(f"{error} {self.move.key} is as it was.{advice}") from error
        self._note(phase=moves.FILLING)

    def _have_it_copied(self, found: Instance) -> None:
        body = _copy_body(found, self.move)
        again_until = time.monotonic() + _COPIES_WITHIN
        for attempt in itertools.count(1):
            told = self._tell_copying(found, attempt)
            try:
                self.server.work("instances", body=body, within=_COPY_WITHIN, told=told, project=self.move.project)
            except ApiError as error:
                if not _changing(error) or (attempt >= _COPIES and time.monotonic() > again_until):
                    raise
                self._discard_copy()
            else:
                return

    def fill(self) -> None:
        """Make the copy equal to the source, which may run, and its snapshots to the source's."""
        if self.move.phase == moves.STOPPING:
            self._put_back()  # an interrupted run has left it down
            self._note(phase=moves.FILLING, was_running=False)
        found = self._source_in_place()
        if not self._is_copied(found):
            self.copy()
            found = self._source_in_place()
        with self._noticing_that_it_was_taken_away():
            self._fill(found)

    def _fill(self, found: Instance) -> None:
        source, target = self._volumes()
        move_trees.discard_draft(target, self.tool)
        told = _Told(self.progress, "comparing while it runs", 2 * self._total(found))
        compared = {
            snapshot.name: move_trees.mend_snapshot(
                source.snapshot(snapshot.name), target, snapshot.name, self.tool, told
            )
            for snapshot in found.snapshots
        }
        first, second = move_trees.fill_running(source, target, told)
        self.known = move_trees.settled(source, target, first, second)
        self._note(
            snapshot_digests=move_trees.digests(compared),
            bytes=move_trees.total_bytes(first, *compared.values()),
        )

    @contextlib.contextmanager
    def _noticing_that_it_was_taken_away(self) -> Iterator[None]:
        """Say so when somebody has renamed or removed the source, and not what came of it."""
        try:
            yield
        except CowError:
            self._source_in_place()
            raise

    def stop_and_compare(self) -> None:
        """Stop the source, bring the copy up to date, and compare both. What fails leaves the source running again."""
        with self._put_back_when_failing():
            self._stop()
            self._compare()

    def commit(self) -> None:
        """Set the source aside, and give the copy its name and identity."""
        with self._put_back_when_failing():
            self._settle()
            self._settle_copy(needed=True)
            self._require_untouched()
            self._set_source_aside()
            self._dress(self._the_copy(), self.move.original)
            self._rename(self._the_source(), self.move.kept)
            self._rename(self._the_copy(), self.move.key)
            self._give_identity(self._the_copy(), asleep=True)
            self._note(phase=moves.STARTING)

    def start(self) -> None:
        """Start the copy where the source ran, and look whether it is well. What fails puts the source back."""
        with self._put_back_when_failing():
            self._give_identity(self._the_copy())
            downtime = 0.0
            if self.move.was_running:
                self._start(self._the_copy())
                downtime = time.time() - self.move.stopped_at if self.move.stopped_at else 0.0
                self._require_health()
            kept = self._the_source()
            if kept is None:
                raise CowError(f"The kept source {self.move.kept} is gone.")
            self._note(
                phase=moves.MOVED,
                ended=time.time(),
                downtime=downtime,
                asides=(*self.move.asides, self._aside(kept, self.move.fingerprints)),
            )
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def roll_back(self) -> None:
        """Put the source back in its place, from whichever step; what was put in its place is kept where it ran."""
        self._roll_back(force=False)

    def _roll_back(self, *, force: bool) -> None:
        self._settle()
        move, copy = self.move, self._the_copy()
        needed = copy is not None and (copy.key == move.key or bool(copy.last_used))
        # What is wrong with a copy that is not needed is said when it is discarded, with the source in its place.
        with contextlib.nullcontext() if needed else contextlib.suppress(CowError):
            self._settle_copy(needed=needed)
        if move.phase != moves.ROLLING_BACK:
            runs = copy.is_running if copy and move.phase == moves.MOVED else move.was_running
            self._note(phase=moves.ROLLING_BACK, was_running=runs)
        ever_ran = copy is not None and bool(copy.last_used)
        if copy is not None and copy.key == move.key:
            self._halt(copy, force=force)
            copy = self._the_copy()
        if copy is not None and (ever_ran or copy.key == move.key):
            self._mask(copy, move.copy_uuid)
        source = self._the_source()
        if source is None:
            raise CowError(f"The source of the move of {move.key} is neither at {move.key} nor at {move.kept}.")
        self._dress(source, move.original)
        if copy is not None and copy.key == move.key:
            self._rename(self._the_copy(), move.undone)
        self._rename(self._the_source(), move.key)
        self._give_identity(self._the_source())
        if self.move.was_running:
            self._start(self._the_source())
        self._end_rollback(ever_ran=ever_ran)

    def _end_rollback(self, *, ever_ran: bool) -> None:
        copy = self._the_copy()
        if copy is not None and not ever_ran:
            self._discard_copy()
        asides = tuple(aside for aside in self.move.asides if aside.name != self.move.kept.name)
        if copy is not None and ever_ran and copy.key.name not in {aside.name for aside in asides}:
            names = tuple(snapshot.name for snapshot in copy.snapshots)
            volumes = Volumes(self.server, self.target_pool, copy.key)
            asides = (*asides, self._aside(copy, move_trees.fingerprints(volumes, names)))
        self._note(phase=moves.ROLLED_BACK, ended=time.time(), asides=asides)

    @contextlib.contextmanager
    def _put_back_when_failing(self) -> Iterator[None]:
        """Signals wait, as the instance is down meanwhile; what fails has the source in its place and running again."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            yield
        except (CowError, OSError) as error:
            said = str(error) if isinstance(error, CowError) else f"The system refused: {error.strerror}."
            try:
                self._put_back()
            except (CowError, OSError) as second:
                raise CowError(
                    f"{said} Putting {self.move.key} back was not possible either: {second} "
                    f"The journal says how far it is: run again, or roll back with state=rolled_back."
                ) from error
            raise CowError(f"{said} {self.move.key} is back where it was.") from error

    def _put_back(self) -> None:
        if self.move.phase not in moves.BEFORE_COMMIT:
            self._roll_back(force=True)
            return
        source = self._the_source()
        if source is not None and source.key == self.move.key:
            self._give_identity(source)
            if self.move.was_running:
                self._start(self._the_source())

    def _stop(self) -> None:
        found = self._source_in_place()
        runs = found.is_running
        if found.status not in (instances.RUNNING, instances.STOPPED):
            raise CowError(f"{found.key} is in the state {found.status}; wanted is Running or Stopped.")
        self._note(
            phase=moves.STOPPING,
            was_running=runs,
            addresses=tuple(sorted(instances.addresses(self.server, found))) if runs else (),
            stopped_at=time.time() if runs else 0.0,
            original=found.body,
            nics=self._bridged(found),
        )
        if runs:
            self._shut_down(found)
        found = self._source_in_place()
        if found.config.get(AUTOSTART) != "false":
            # Else a daemon that is started anew would start the source under the hands of the copy.
            instances.replace(self.server, found, config={**found.config, AUTOSTART: "false"})

    def _shut_down(self, found: Instance) -> None:
        self.progress.say("stopping")
        try:
            instances.stop(self.server, found.key, self.bounds.stop_timeout)
        except ApiError as error:
            late = self._stopped_late(found)
            ended = "It ended only after that" if late else "It still runs"
            raise CowError(
                f"{found.key} did not stop within {self.bounds.stop_timeout} s ({error.message}). {ended}. "
                f"Give it more time with stop_timeout, or stop it yourself."
            ) from error

    def _stopped_late(self, found: Instance) -> bool:
        deadline = time.monotonic() + max(_LATE_STOP, self.bounds.stop_timeout)
        while time.monotonic() < deadline:
            now = instances.read(self.server, found.key)
            if now is None or not now.is_running:
                return True
            time.sleep(_POLL)
        return False

    def _compare(self) -> None:
        began = time.time()
        found = self._source_in_place()
        if found.status != instances.STOPPED:
            raise CowError(f"{found.key} was started by somebody while it was being moved.")
        copy = self._require_copy()
        if _dates(found) != _dates(copy):
            raise CowError(
                f"Snapshots of {found.key} were made, removed or changed while it was copied. "
                f"Run again, which copies anew."
            )
        source, target = self._volumes()
        told = _Told(self.progress, "comparing", self.move.bytes)
        if self.known is None:
            self.known = (move_trees.read(source.root, told=told), move_trees.read(target.root, told=told))
        self.known = move_trees.fill_stopped(source, target, self.known, told)
        first = self.known[0]
        snapshots = tuple(snapshot.name for snapshot in found.snapshots)
        self._note(
            phase=moves.VERIFIED,
            last_used=found.last_used,
            fingerprints={
                **move_trees.fingerprints_of_snapshots(source, snapshots),
                "": move_trees.fingerprint(first.tree),
            },
            digest=first.digest,
            verifying=time.time() - began,
        )

    def _require_untouched(self) -> None:
        """Nobody has used either since they were compared."""
        source, copy = self._the_source(), self._the_copy()
        if source is None or copy is None:
            raise CowError(f"{self.move.key} or its copy {self.move.copy} was removed or renamed by somebody.")
        if source.is_running or source.last_used != self.move.last_used or copy.is_running or copy.last_used:
            raise CowError(f"{source.key} or {copy.key} was started by somebody after they had been compared.")
        if self.known is None:  # compared by an earlier run
            volumes = Volumes(self.server, self.source_pool, source.key)
            if move_trees.fingerprint(move_trees.look(volumes.root)) != self.move.fingerprints[""]:
                raise CowError(f"Files of {source.key} were written by somebody after they had been compared.")

    def _set_source_aside(self) -> None:
        source = self._the_source()
        if source is not None and source.uuid != self.move.kept_uuid:
            self._mask(source, self.move.kept_uuid)

    def _mask(self, found: Instance, uuid: str) -> None:
        """Make an instance one that cannot disturb: off, marked, with a uuid of its own, and no device but its root."""
        devices = _masked(found)
        if found.uuid == uuid and found.devices == devices and found.config.get(moves.MARK) == self.move.mark:
            return
        config = {**found.config, UUID: uuid, _GENERATION: uuid, AUTOSTART: "false", moves.MARK: self.move.mark}
        instances.replace(self.server, found, devices=devices, config=config)

    def _dress(self, found: Instance | None, original: Mapping[str, Any]) -> None:
        """Give an instance the source's devices, profiles and description; its root stays on its pool.

        Its NICs get a MAC address of their own by that, and are not yet as they are to be.
        """
        if found is None:
            raise CowError(f"{self.move.copy} was removed or renamed by somebody.")
        devices = {**self._devices(found, original), **self._provisional_nics()}
        wanted = {"devices": devices, "profiles": list(original["profiles"]), "description": original["description"]}
        if any(found.body[name] != value for name, value in wanted.items()):
            instances.replace(self.server, found, **wanted)

    def _devices(self, found: Instance, original: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """The source's devices for an instance, whose root stays on its pool."""
        devices = _devices_on(original, found, self.move.from_pool)
        if found.root_name not in devices and self._inherited_pool(original) != found.pool:
            # The profile was repointed meanwhile, and Incus would refuse the root disk that would be inherited.
            devices[found.root_name] = dict(found.root)
        return devices

    def _inherited_pool(self, original: Mapping[str, Any]) -> str:
        """The pool of the root disk that the source's profiles give; the last one that has one counts."""
        bodies = [self.server.get("profiles", name, project=self.move.project) for name in original["profiles"]]
        roots = [options for body in bodies for options in body["devices"].values() if profiles.is_root(options)]
        return str(roots[-1]["pool"]) if roots else ""

    def _give_identity(self, found: Instance | None, *, asleep: bool = False) -> None:
        """Give an instance the source's whole configuration, once it has the name: renaming makes it a new one.

        MAC addresses come before the last change of the NICs, upon which the server tells its DHCP and DNS of them, and
        the instance-id of cloud-init, which the server renews then, comes after it. With `asleep` a daemon that is
        started does not start the instance: the journal does not say yet that it may run.
        """
        if found is None:
            raise CowError(f"{self.move.key} was removed or renamed by somebody.")
        devices = self._devices(found, self.move.original)
        now = self._configured(found, asleep)
        if now.devices != devices:
            instances.replace(self.server, now, devices=devices)
            now = self._configured(self._require(found.key), asleep)
        wanted = self._config(now, asleep)
        changed = sorted(key for key in {*wanted, *now.config} if wanted.get(key) != now.config.get(key))
        if changed:
            raise CowError(f"The server changed {', '.join(changed)} of {found.key} by itself.")

    def _config(self, found: Instance, asleep: bool) -> dict[str, str]:
        wanted = _identity(self.move.original["config"], found)
        return {**wanted, AUTOSTART: "false"} if asleep else wanted

    def _configured(self, found: Instance, asleep: bool) -> Instance:
        wanted = self._config(found, asleep)
        if found.config == wanted:
            return found
        instances.replace(self.server, found, config=wanted)
        return self._require(found.key)

    def _bridged(self, found: Instance) -> dict[str, dict[str, str]]:
        """The NICs on bridges of the server, which writes their MAC addresses where its DHCP and DNS read them."""
        nics = {name: dict(options) for name, options in found.expanded_devices.items() if options["type"] == "nic"}
        return {name: options for name, options in nics.items() if self._is_bridge(options.get("network", ""))}

    def _is_bridge(self, network: str) -> bool:
        known = self.server.find("networks", network, project=self.move.project) if network else None
        return known is not None and known.body["type"] == "bridge"

    def _provisional_nics(self) -> dict[str, dict[str, str]]:
        """NICs that differ from what they are to be in one option, which the server changes in place."""
        return {
            name: {**options, _CHANGED_IN_PLACE: "2" if options.get(_CHANGED_IN_PLACE) == "1" else "1"}
            for name, options in self.move.nics.items()
        }

    def _rename(self, found: Instance | None, to: Key) -> None:
        if found is None:
            raise CowError(f"{self.move.key} or its copy was removed or renamed by somebody.")
        if found.key != to:
            instances.rename(self.server, found.key, to.name)
        pool = self.source_pool if found.pool == self.source_pool.name else self.target_pool
        renames.sync(Volumes(self.server, pool, to))  # as the run that had it renamed may have ended before

    def _start(self, found: Instance | None) -> None:
        if found is not None and not found.is_running:
            self.progress.say("starting")
            instances.start(self.server, found.key, self.bounds.health_timeout)

    def _halt(self, found: Instance, *, force: bool) -> None:
        if not found.is_running:
            return
        try:
            instances.stop(self.server, found.key, self.bounds.stop_timeout)
        except ApiError as error:
            if not force:
                raise CowError(
                    f"{found.key} did not stop within {self.bounds.stop_timeout} s ({error.message}), so that the move "
                    f"is not undone yet. Give it more time with stop_timeout, or stop it yourself."
                ) from error
            instances.stop(self.server, found.key, 0, force=True)

    def _require_health(self) -> None:
        self.progress.say("looking whether it is well")
        deadline = time.monotonic() + self.bounds.health_timeout
        while (said := self._complaint()) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if said:
            raise CowError(f"{self.move.key} is not well {self.bounds.health_timeout} s after its start: {said}")

    def _complaint(self) -> str:
        found = self._require(self.move.key)
        if not found.is_running:
            return f"it is {found.status}."
        try:
            missing = set(self.move.addresses) - instances.addresses(self.server, found)
            if missing:
                return f"it does not have the address {', '.join(sorted(missing))} that it had before."
            instances.execute(self.server, found.key, self.bounds.health_command)
        except CowError as error:
            return str(error)
        return ""

    def _rehearse(self) -> None:
        """Try on the copy, before anything of the source is touched, what must not be refused in the middle."""
        copy = self._require_copy()
        self._mask(copy, self.move.copy_uuid)
        self._rename(copy, self.move.undone)
        self._rename(self._require(self.move.undone), self.move.copy)

    def _source_in_place(self) -> Instance:
        """The source under its own name; CowError when somebody has taken it away."""
        found = instances.read(self.server, self.move.key)
        if found is None or found.uuid != self.move.uuid or found.pool != self.move.from_pool:
            raise CowError(
                f"{self.move.key} was renamed, moved or removed by somebody while it was being moved. Its unfinished "
                f"copy {self.move.copy} stays as it is. Give {self.move.key} its name back and run again, "
                f"or remove the copy with state=rolled_back."
            )
        return found

    def _the_source(self) -> Instance | None:
        return self._find(self.move.from_pool, self.move.source_keys, self.move.kept_uuid)

    def _the_copy(self) -> Instance | None:
        return self._find(self.move.to_pool, self.move.copy_keys, self.move.copy_uuid)

    def _find(self, pool: str, keys: tuple[Key, ...], own_uuid: str) -> Instance | None:
        for key in keys:
            found = instances.read(self.server, key)
            if found is not None and found.pool == pool and self._is_of_move(found, own_uuid):
                return found
        return None

    def _is_of_move(self, found: Instance, own_uuid: str) -> bool:
        return found.uuid in (self.move.uuid, own_uuid) or found.config.get(moves.MARK) == self.move.mark

    def _require(self, key: Key) -> Instance:
        found = instances.read(self.server, key)
        if found is None:
            raise CowError(f"{key} was removed or renamed by somebody.")
        return found

    def _require_copy(self) -> Instance:
        found = self._the_copy()
        if found is None:
            raise CowError(f"The copy {self.move.copy} was removed or renamed by somebody. Run again.")
        return found

    def _is_copied(self, found: Instance) -> bool:
        """Whether there is a whole copy with the snapshots that the source has."""
        copy = self._the_copy()
        if copy is None or _dates(copy) != _dates(found):
            return False
        _, target = self._volumes()
        return all(target.snapshot(snapshot.name).exists() for snapshot in copy.snapshots)

    def _discard_copy(self) -> None:
        """Remove the copy of this move, which never ran."""
        self._settle()
        self._settle_copy(needed=False)
        copy = self._the_copy()
        taken = instances.read(self.server, self.move.copy) if copy is None else None
        if taken is not None:
            raise CowError(
                f"{taken.key} has the name of the copy, but is not of this move. "
                f"Rename it, or remove it if it is not needed."
            )
        _, target = self._volumes()
        move_trees.discard_draft(target, self.tool)
        if copy is None or copy.key == self.move.key:
            return
        if copy.is_running or copy.last_used:
            raise CowError(
                f"{copy.key}, a copy that is not finished, was started by somebody. Remove it if it is not needed."
            )
        names = tuple(snapshot.name for snapshot in copy.snapshots)
        move_trees.let_go(Volumes(self.server, self.target_pool, copy.key), names)
        instances.delete(self.server, copy.key)

    def _settle(self) -> None:
        """Wait for what an interrupted run has asked for, and put right what Incus itself was interrupted in."""
        move = self.move
        waiting = partial(self.progress.say, "waiting for what Incus is still at")
        within = _COPY_WITHIN if move.phase == moves.COPYING else CHANGE_TIMEOUT
        instances.await_operations(self.server, (move.copy, move.kept, move.undone), within, waiting)
        instances.await_operations(self.server, (move.key,), CHANGE_TIMEOUT, waiting, only=instances.CHANGES)
        source = self._the_source()
        if source is not None:
            renames.undo_half(self.server, self.source_pool, source, move.source_keys, needed=True)

    def _settle_copy(self, *, needed: bool) -> None:
        """Put right what Incus was interrupted in of the copy."""
        move, copy = self.move, self._the_copy()
        if copy is not None:
            # One that is not whole has not had the source's name yet: what is called so on its pool is something else.
            keys = (move.copy, move.undone) if move.phase == moves.COPYING else move.copy_keys
            renames.undo_half(self.server, self.target_pool, copy, keys, needed=needed)

    def _volumes(self) -> tuple[Volumes, Volumes]:
        copy = self.move.copy
        return Volumes(self.server, self.source_pool, self.move.key), Volumes(self.server, self.target_pool, copy)

    def _aside(self, found: Instance, fingerprints: Mapping[str, str]) -> Aside:
        return Aside(
            name=found.key.name,
            uuid=found.uuid,
            pool=found.pool,
            since=time.time(),
            last_used=found.last_used,
            fingerprints=dict(fingerprints),
            compared=bool(self.move.digest),
        )

    def _total(self, found: Instance) -> int:
        if not self.total:
            source, _ = self._volumes()
            self.total = move_trees.total_blocks(source, tuple(snapshot.name for snapshot in found.snapshots))
        return self.total

    def _note(self, **changes: Any) -> None:
        after = replace(self.move, **changes)
        moves.write(self.server, after)
        self.move = after

    def _tell_copying(self, found: Instance, attempt: int) -> Callable[[], None]:
        phase = "copying" if attempt == 1 else f"copying again, as files changed ({attempt})"
        path = ("storage-pools", self.target_pool.name, "resources")
        before = self.server.get(*path)["space"]["used"]
        total = self._total(found)

        def tell() -> None:
            used = self.server.get(*path)["space"]["used"]
            self.progress.say(phase, min(max(used - before, 0), total), total)

        self.progress.say(phase, 0, total)
        return tell


@dataclass
class _Told:
    """Adds up what was read, and says it."""

    progress: Progress
    phase: str
    total: int
    done: int = 0

    def __call__(self, amount: int) -> None:
        self.done += amount
        self.progress.say(self.phase, min(self.done, self.total), self.total)


def _changing(error: ApiError) -> bool:
    return any(said in error.message for said in _CHANGING)


def _copy_body(found: Instance, move: Move) -> dict[str, Any]:
    return {
        "name": move.copy.name,
        "type": instances.CONTAINER,
        "architecture": found.architecture,
        "source": {"type": "copy", "source": found.key.name, "project": move.project, "allow_inconsistent": True},
        "profiles": list(found.profiles),
        "config": {AUTOSTART: "false", moves.MARK: move.mark, UUID: move.copy_uuid},
        "devices": {**_masked(found), found.root_name: {**found.root, "pool": move.to_pool}},
        "description": found.description,
    }


def _masked(found: Instance) -> dict[str, dict[str, str]]:
    """No devices but the root disk, which is the instance's own, so that its profiles can be changed."""
    others = {name: {"type": "none"} for name in found.expanded_devices if name != found.root_name}
    return {**others, found.root_name: dict(found.root)}


def _devices_on(original: Mapping[str, Any], found: Instance, from_pool: str) -> dict[str, dict[str, str]]:
    """The source's devices for an instance, which has a root disk of its own where that is on another pool."""
    own: Devices = original["devices"]
    devices = {name: dict(options) for name, options in own.items()}
    if found.pool != from_pool:
        devices[found.root_name] = dict(found.root)
    return devices


def _identity(original: Mapping[str, str], found: Instance) -> dict[str, str]:
    """The source's configuration, but for what the server notes of a run."""
    kept = {key: value for key, value in original.items() if not _is_of_a_run(key)}
    return {**kept, **{key: value for key, value in found.config.items() if _is_of_a_run(key)}}


def _is_of_a_run(key: str) -> bool:
    return key in _OF_A_RUN or (key.startswith("volatile.") and key.endswith(".host_name"))


def _dates(found: Instance) -> list[tuple[str, str, str]]:
    return [(snapshot.name, snapshot.created, snapshot.expires) for snapshot in found.snapshots]

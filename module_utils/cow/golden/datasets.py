"""Golden trees on ZFS: a generation is a dataset with a snapshot, a session a clone of that snapshot.

In the store: PROJECT, with PROJECT/generations/N and PROJECT/sessions/ID. The snapshot of generation N is called
golden-N, which is unique in a project, for it moves: `zfs promote` gives the newest generation the snapshots of those
it came from, and those become clones of it. So a generation is found by the name of its snapshot, wherever that is,
and one that goes hands those of others back before. Its own snapshot may have to stay where two others branch from it;
it goes with the last of those. What is noted of each is in user properties of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from .. import lock, mounts, process
from ..errors import CowError
from ..zfs import Properties, Zfs
from .model import BEGUN_WITH, BUILDING, COMPLETE, REMOVING, UNMARKED, Generation, Project, Record, Room, Session, Sizes
from .refusals import Exists, InUse, NotThere, Refusal

TAG = "cowherd"
"""The hold on the snapshot of a generation."""
SESSIONS = Path("/var/lib/cowherd/sessions")
"""Where sessions are mounted that name no path."""
_BUSY_FOR = 5.0
_BUILDING_AT = Path("/run/cowherd/building")

_KIND, _STATE, _GENERATION, _PATH, _CREATED, _SOURCE, _FINGERPRINT, _CURRENT, _MADE_FOLDER = (
    f"cowherd:{name}"
    for name in (
        "kind",
        "state",
        "generation",
        "path",
        "created",
        "source",
        "fingerprint",
        "current",
        "made-folder",
    )
)
_READ = (
    "type", "origin", "creation", "used", "referenced", "mounted", "userrefs",
    _KIND, _STATE, _GENERATION, _PATH, _CREATED, _SOURCE, _FINGERPRINT, _CURRENT, _MADE_FOLDER,
)  # fmt: skip


@dataclass(frozen=True)
class Inventory:
    """All that is below the dataset of a project, by name, and what of it is ours."""

    base: str
    found: Mapping[str, Properties]

    def own(self, name: str, kind: str) -> bool:
        """Say whether a dataset or snapshot is there and was made by us as this kind."""
        marked = self.found.get(name, {}).get(_KIND)
        return marked is not None and marked.own and marked.value == kind

    def value(self, name: str, key: str) -> str:
        """Return a property that was set on this very dataset, "" when it was not."""
        prop = self.found[name][key]
        return prop.value if prop.own else ""

    def number(self, name: str, key: str) -> int:
        """Return such a property as a number, 0 when it is none."""
        text = self.value(name, key)
        return int(text) if text.isdigit() else 0

    @property
    def generations(self) -> dict[int, str]:
        """The datasets of generations."""
        numbered = re.compile(re.escape(f"{self.base}/generations/") + r"([0-9]+)")
        matches = (numbered.fullmatch(name) for name in self.found if self.own(name, "generation"))
        return {int(match[1]): match[0] for match in matches if match}

    @property
    def sessions(self) -> dict[str, str]:
        """The datasets of sessions."""
        prefix = f"{self.base}/sessions/"
        return {name.removeprefix(prefix): name for name in self.found if self.own(name, "session")}

    @property
    def snapshots(self) -> dict[int, str]:
        """The snapshots of generations, wherever they are."""
        named = re.compile(r".*@golden-([0-9]+)")
        matches = (named.fullmatch(name) for name in self.found if self.own(name, "golden"))
        return {int(match[1]): match[0] for match in matches if match}

    @property
    def leftovers(self) -> dict[int, str]:
        """The snapshots of generations that are no more, or not yet, and that no other one branches from."""
        origins = {self.origin(name) for name in self.found}
        return {
            number: name
            for number, name in self.snapshots.items()
            if number not in self.generations and name not in origins
        }

    @property
    def places(self) -> tuple[str, ...]:
        """The datasets that hold generations and sessions, as far as they are there and ours."""
        return tuple(name for name in _places(self.base) if self.own(name, "place"))

    @property
    def foreign(self) -> tuple[str, ...]:
        """What is there and is not ours."""
        ours = {self.base, *self.places, *self.generations.values(), *self.sessions.values(), *self.snapshots.values()}
        return tuple(name for name in self.found if name not in ours)

    def snapshots_on(self, name: str) -> list[str]:
        """Return the snapshots of a dataset, oldest first, of whomever they are."""
        return [each for each in self.found if each.startswith(f"{name}@")]

    def held_by_others(self, snapshot: str) -> bool:
        """Say whether a snapshot has more holds than the one of ours, as from tools that replicate."""
        count = self.found[snapshot]["userrefs"].value
        return count.isdigit() and int(count) > 1

    def origin(self, name: str) -> str:
        """Return the snapshot that a dataset is a clone of, "" for none."""
        origin = self.found[name]["origin"].value
        return "" if origin == "-" else origin

    def generation_of(self, session: str) -> int | None:
        """Return the number of the generation that a session is a clone of."""
        match = re.fullmatch(r".*@golden-([0-9]+)", self.origin(session))
        return int(match[1]) if match else None


@dataclass(frozen=True)
class Datasets:
    """The backend zfs; `location` is a dataset."""

    location: str
    tool: Zfs = field(default_factory=Zfs)
    name: str = "zfs"
    lock_folder: Path = lock.FOLDER
    atomic: bool = True
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def projects(self) -> tuple[str, ...]:
        """Return the names of the datasets in the store that are ours."""
        found = self.tool.read([self.location], [_KIND], below=True)
        if not found:
            raise NotThere(f"The dataset {self.location} does not exist. Create it, or name another store.")
        prefix = f"{self.location}/"
        return tuple(
            sorted(
                name.removeprefix(prefix)
                for name, has in found.items()
                if has[_KIND].own and has[_KIND].value == "project" and "/" not in name.removeprefix(prefix)
            )
        )

    def read(self, project: str) -> Project | None:
        """Read all that is below the project's dataset in one go."""
        inventory = self._inventory(project)
        if inventory is None:
            return None
        base = inventory.base
        numbers = sorted({*inventory.generations, *inventory.leftovers})
        table = mounts.every()
        return Project(
            name=project,
            current=inventory.number(base, _CURRENT) or None,
            generations=tuple(_generation(inventory, number) for number in numbers),
            sessions=tuple(self._session(inventory, name, table) for name in sorted(inventory.sessions)),
            foreign=inventory.foreign,
            whole=inventory.places == _places(base),
        )

    def read_current(self, project: str) -> tuple[int, Room] | None:
        """Read the pointer and the room in one go, and whether what it points to is complete."""
        base, pool = self._base(project), self._pool
        found = self.tool.read([base, pool], [_KIND, _CURRENT, "used", "available"])
        inventory = Inventory(base, found)
        if not inventory.own(base, "project") or not (current := inventory.number(base, _CURRENT)):
            return None
        name = self._generation(project, current)
        pointed = Inventory(base, self.tool.read([name], [_KIND, _STATE]))
        if not pointed.own(name, "generation") or pointed.value(name, _STATE) != COMPLETE:
            return None
        return current, _room(found[pool], found[base])

    def room(self, project: str) -> Room:
        """Read what the pool has, and what of it is left for the project."""
        base, pool = self._base(project), self._pool
        found = self.tool.read([pool, self.location, base], ["used", "available"])
        if self.location not in found:
            raise NotThere(f"The dataset {self.location} does not exist. Create it, or name another store.")
        return _room(found[pool], found.get(base, found[self.location]))

    def sizes(self, project: Project) -> tuple[dict[int, Sizes], dict[str, Sizes]]:
        """Ask ZFS, which counts what is referenced, and what would come back.

        All of a generation is shared that has clones: sessions, or what came of them. ZFS does not tell what of it they
        have all replaced.
        """
        inventory = self._inventory(project.name)
        if inventory is None:
            return {}, {}
        generations = {number: self._generation_sizes(inventory, number) for number in inventory.generations}
        return generations, {name: _sizes(inventory.found[each]) for name, each in inventory.sessions.items()}

    def trimmable(self) -> tuple[Path, ...]:
        """None: a dataset frees what it has no use for, and the pool trims its devices by itself (autotrim)."""
        return ()

    def locked(
        self, project: str, part: str, *, member: str = "", shared: bool = False, timeout: float = 60.0
    ) -> AbstractContextManager[None]:
        """Lock by the name of the dataset, which is one on a host."""
        resource = f"golden:{self._base(project)}.{part}"
        return lock.in_turn(resource, member=member, shared=shared, timeout=timeout, folder=self.lock_folder)

    def create_project(self, project: str) -> None:
        """Make the datasets; those that an interrupted run made already stay."""
        base = self._base(project)
        places = {base: "project", **dict.fromkeys(_places(base), "place")}
        found = Inventory(base, self.tool.read([self.location, *places], [_KIND, BEGUN_WITH]))
        if self.location not in found.found:
            raise NotThere(f"The dataset {self.location} does not exist. Create it, or name another store.")
        begun = found.value(self.location, BEGUN_WITH)
        if begun not in ("", self.name):
            raise Refusal(f"The store {self.location} was begun with the backend {begun}, not {self.name}.")
        for name, kind in places.items():
            if name in found.found and not found.own(name, kind):
                raise Exists(f"The dataset {name} exists and was not made by Cowherd. Choose another project or store.")
        if not begun:
            self.tool.set(self.location, BEGUN_WITH, self.name)
        for name, kind in places.items():
            if name not in found.found:
                # Tools that snapshot everything at one time would keep `zfs promote` from moving snapshots.
                self.tool.create(name, {"mountpoint": "none", "com.sun:auto-snapshot": "false", _KIND: kind})

    def remove_project(self, project: Project) -> None:
        """Destroy the datasets that were the place of the project."""
        base = self._base(project.name)
        if project.foreign:
            raise InUse(f"{project.foreign[0]} was not made by Cowherd and stays, and so does {base}. Move it away.")
        for name in (*_places(base), base):
            if self.tool.read([name], [_KIND]):
                self._destroy(name)

    def build(self, project: str, number: int, source: Path) -> None:
        """Copy into a file system that is mounted for this only."""
        from ..treecopy import copy  # noqa: PLC0415

        name = self._generation(project, number)
        folder = self._building_at(name)
        folder.mkdir(parents=True, exist_ok=True)
        self._create(name, folder, project)
        self._mount(name, folder)
        try:
            copy(source, folder)
        except CowError as error:
            if os.strerror(errno.EOPNOTSUPP) not in str(error) or self._keeps_acls(name):
                raise
            raise CowError(
                f"{error} {name} keeps no ACLs. If the tree has any, run `zfs set acltype=posixacl {self.location}`."
            ) from error
        self._unmount(name, folder)
        with contextlib.suppress(FileNotFoundError):
            folder.rmdir()

    def capture(self, project: str, number: int, session: Session) -> None:
        """Take a snapshot of the session, and a clone of that, which is to take it over."""
        name = self._session_dataset(project, session.name)
        snapshot = f"{name}@golden-{number}"
        self._snapshot(snapshot, session)
        properties = {_KIND: "generation", _STATE: BUILDING, _GENERATION: str(number)}
        self.tool.clone(snapshot, self._generation(project, number), {**self._at_rest(), **properties})

    def seal(self, project: str, number: int) -> None:
        """Take the snapshot if there is none yet, hold it, and take over all that the generation came from."""
        name = self._generation(project, number)
        snapshot = f"{name}@golden-{number}"
        if self.tool.origin(name) is None and not self.tool.read([snapshot], ["type"]):
            for key, value in self._at_rest().items():
                self.tool.set(name, key, value)
            self.tool.take(snapshot, {_KIND: "golden"})
        self.tool.promote(name)
        self.tool.hold(TAG, snapshot)

    def complete(self, project: str, number: int, record: Record) -> None:
        """Note it in properties, the state last."""
        name = self._generation(project, number)
        noted = {_CREATED: str(record.created), _SOURCE: record.source, _FINGERPRINT: record.fingerprint}
        for key, value in {**noted, _STATE: COMPLETE}.items():
            self.tool.set(name, key, value)

    def point(self, project: str, number: int) -> None:
        """Set the pointer."""
        self.tool.set(self._base(project), _CURRENT, str(number))

    def rebase(self, project: str, number: int, session: Session) -> None:
        """Nothing is left to do: the session is a clone of the snapshot that was taken of it."""

    def require_free_generation(self, project: Project, number: int) -> None:
        """See that what is below it, cloned from it or holds it is none of others."""
        self._require_free_of_others(self._require(project.name), number)

    def withdraw(self, project: Project, number: int) -> None:
        """Note it, and hand the snapshots of others back."""
        inventory = self._require(project.name)
        self._require_free_of_others(inventory, number)
        if name := inventory.generations.get(number):
            self._begin_removal(inventory, name)
            self._hand_back(project.name, number)

    def remove_generation(self, project: Project, number: int) -> None:
        """Destroy the dataset and its own snapshot, or what is left of them."""
        inventory = self._require(project.name)
        name, own = inventory.generations.get(number), inventory.snapshots.get(number)
        if name and own and own.startswith(f"{name}@"):
            self._destroy_snapshot(own)
        if name:
            self._destroy(name)
        left = self._require(project.name)
        for snapshot in left.leftovers.values():
            if not self.tool.clones(snapshot) and not left.held_by_others(snapshot):
                self._destroy_snapshot(snapshot)

    def claim(self, project: str, number: int, session: Session) -> None:
        """Clone, which is one step and durable; `fill` has nothing left to do."""
        name = self._session_dataset(project, session.name)
        properties = {
            **self._in_use_at(session.path),
            _KIND: "session",
            _STATE: COMPLETE,
            _GENERATION: str(number),
            _PATH: session.path,
            _CREATED: str(session.created),
            _MADE_FOLDER: str(int(session.made_folder)),
        }
        try:
            self.tool.clone(f"{self._generation(project, number)}@golden-{number}", name, properties)
        except process.CommandFailed as failure:
            said = failure.finished.stderr
            if "dataset already exists" in said:
                raise Exists(f"There is a session or dataset {name} already. Choose another name.") from failure
            if "dataset does not exist" not in said:
                raise
            snapshot = self._require(project).snapshots.get(number)
            if snapshot is None:
                raise NotThere(f"There is no generation {number} of {project}.") from failure
            self.tool.clone(snapshot, name, properties)

    def fill(self, project: str, number: int, session: Session) -> None:
        """Nothing is left to do."""

    def tree(self, project: str, session: Session) -> Path:  # noqa: ARG002
        """Where it is mounted."""
        return Path(session.path)

    def default_path(self, project: str, session: str) -> str:
        """Where a session is seen that names no path; other stores may have sessions of the same name."""
        return str(mounts.point(SESSIONS / _as_file_name(self.location) / project / session))

    def mount(self, project: str, session: Session) -> None:
        """Mount the clone."""
        self._mount(self._session_dataset(project, session.name), Path(session.path))

    def unmount(self, project: str, session: Session) -> None:
        """Unmount the clone."""
        self._unmount(self._session_dataset(project, session.name), Path(session.path))

    def require_free_session(self, project: str, session: Session) -> None:
        """See that nothing is below it but snapshots of ours, and that nothing is a clone of those."""
        self._removable_snapshots(self._require(project), session)

    def remove_session(self, project: str, session: Session) -> None:
        """Destroy the clone, and before it the snapshot that an interrupted promotion left."""
        inventory = self._require(project)
        for snapshot in self._removable_snapshots(inventory, session):
            self._destroy_snapshot(snapshot)
        self._destroy(inventory.sessions[session.name])

    # What differs between file systems and volumes.

    def _at_rest(self) -> dict[str, str]:
        """Properties of a generation, which is never mounted again."""
        return {"readonly": "on", "canmount": "noauto", "mountpoint": "none"}

    def _in_use_at(self, path: str) -> dict[str, str]:
        """Properties of a session."""
        return {"canmount": "noauto", "mountpoint": path}

    def _keeps_acls(self, name: str) -> bool:
        """Whether ZFS does not say that it keeps none; a volume, and zfs-fuse, do not have the property."""
        try:
            return self.tool.read([name], ["acltype"])[name]["acltype"].value != "off"
        except process.CommandFailed:
            return True

    def _create(self, name: str, folder: Path, project: str) -> None:  # noqa: ARG002
        number = name.rpartition("/")[2]
        properties = {"canmount": "noauto", "mountpoint": str(folder)}
        self.tool.create(name, {**properties, _KIND: "generation", _STATE: BUILDING, _GENERATION: number})

    def _snapshot(self, snapshot: str, session: Session) -> None:
        from ..kernel import sync_file_system  # noqa: PLC0415

        sync_file_system(Path(session.path))
        self.tool.take(snapshot, {_KIND: "golden"})

    def _mount(self, name: str, folder: Path) -> None:
        if not self._is_mounted(name, folder, mounts.every()):
            folder.mkdir(parents=True, exist_ok=True)
            self.tool.mount(name)

    def _unmount(self, name: str, folder: Path) -> None:
        try:
            self.tool.unmount(name)
        except process.CommandFailed as failure:
            if "busy" not in failure.finished.stderr:
                raise
            raise InUse(f"{name} is in use at {folder}: {_last_line(failure)}. End what uses it.") from failure

    def _sources(self, name: str) -> tuple[str, ...]:
        """What mountinfo says is mounted when this dataset is."""
        return (name,)

    def _is_mounted(self, name: str, folder: Path, table: tuple[mounts.Mount, ...]) -> bool:
        """Whether it is what is seen there: something else may lie over it."""
        here = [mount for mount in table if mount.mount_point == folder]
        return bool(here) and here[-1].source in self._sources(name)

    def _generation_sizes(self, inventory: Inventory, number: int) -> Sizes:
        name, snapshot = inventory.generations[number], inventory.snapshots.get(number)
        if snapshot is None:
            return _sizes(inventory.found[name])
        referenced = int(inventory.found[snapshot]["referenced"].value)
        if any(clone != name for clone in self.tool.clones(snapshot)):
            return Sizes(exclusive=0, shared=referenced)
        exclusive = int(inventory.found[snapshot]["used"].value)
        if snapshot == (inventory.snapshots_on(name) or [""])[-1]:
            # What the dataset itself refers to as well goes with it, and is not in what the snapshot uses.
            exclusive = self.tool.written(name)[snapshot]
        return Sizes(exclusive=min(exclusive, referenced), shared=max(referenced - exclusive, 0))

    # Names and readings.

    @property
    def _pool(self) -> str:
        return self.location.partition("/")[0]

    def _base(self, project: str) -> str:
        return f"{self.location}/{project}"

    def _generation(self, project: str, number: int) -> str:
        return f"{self._base(project)}/generations/{number}"

    def _session_dataset(self, project: str, session: str) -> str:
        return f"{self._base(project)}/sessions/{session}"

    def _building_at(self, name: str) -> Path:
        return _BUILDING_AT / _as_file_name(name)

    def _inventory(self, project: str) -> Inventory | None:
        base = self._base(project)
        found = self.tool.read([base], _READ, below=True)
        if not found:
            return None
        inventory = Inventory(base, found)
        if not inventory.own(base, "project"):
            raise Refusal(f"The dataset {base} exists and was not made by Cowherd. Choose another project or store.")
        return inventory

    def _require(self, project: str) -> Inventory:
        inventory = self._inventory(project)
        if inventory is None:
            raise NotThere(f"The dataset {self._base(project)} does not exist any more.")
        return inventory

    def _session(self, inventory: Inventory, session: str, table: tuple[mounts.Mount, ...]) -> Session:
        name = inventory.sessions[session]
        path = inventory.value(name, _PATH)
        return Session(
            name=session,
            generation=inventory.generation_of(name),
            state=inventory.value(name, _STATE) or UNMARKED,
            path=path,
            mounted=bool(path) and self._is_mounted(name, Path(path), table),
            created=inventory.number(name, _CREATED),
            made_folder=inventory.value(name, _MADE_FOLDER) == "1",
        )

    # Removal.

    def _removable_snapshots(self, inventory: Inventory, session: Session) -> list[str]:
        name = inventory.sessions[session.name]
        snapshots = inventory.snapshots_on(name)
        below = [each for each in inventory.found if each.startswith(f"{name}/")]
        if others := [*(each for each in snapshots if each not in inventory.snapshots.values()), *below]:
            raise InUse(f"{', '.join(others)} was not made by Cowherd. Destroy it first, or keep the session.")
        if held := [each for each in snapshots if inventory.held_by_others(each)]:
            raise InUse(f"Session {session.name} cannot be removed: {self._said_of_holds(held[0])}")
        for snapshot in snapshots:
            if clones := self.tool.clones(snapshot):
                project = inventory.base.rpartition("/")[2]
                raise InUse(f"{', '.join(clones)} came from {snapshot}. Run `cow-session gc {project}` first.")
        return snapshots

    def _require_free_of_others(self, inventory: Inventory, number: int) -> None:
        """Refuse while something that is not ours depends on a generation, before anything is changed."""
        name, leftovers = inventory.generations.get(number), inventory.leftovers
        ours = {*inventory.generations.values(), *inventory.sessions.values(), *inventory.snapshots.values()}
        within = [each for each in inventory.found if name and each.startswith((f"{name}@", f"{name}/"))]
        going = [
            snapshot
            for key, snapshot in inventory.snapshots.items()
            if key == number or (snapshot in within and key in leftovers)
        ]
        clones = [clone for snapshot in going for clone in self.tool.clones(snapshot)]
        if others := [each for each in (*within, *clones) if each not in ours]:
            raise InUse(
                f"Generation {number} cannot be removed: {', '.join(others)} depends on it, "
                f"and was not made by Cowherd. Destroy that first, or let the generation stay."
            )
        if held := [each for each in going if inventory.held_by_others(each)]:
            raise InUse(f"Generation {number} cannot be removed: {self._said_of_holds(held[0])}")

    def _said_of_holds(self, snapshot: str) -> str:
        """Say what of others holds a snapshot, by name where they can be listed, which zfs-fuse cannot."""
        with contextlib.suppress(process.CommandFailed):
            if tags := [tag for tag in self.tool.holds(snapshot) if tag != TAG]:
                return (
                    f"the hold {', '.join(tags)} on {snapshot} was not made by Cowherd. "
                    f"Run `zfs release {tags[0]} {snapshot}` when nobody needs it."
                )
        return (
            f"a hold on {snapshot} was not made by Cowherd. See `zfs holds {snapshot}`, and run `zfs release` "
            f"when nobody needs it."
        )

    def _begin_removal(self, inventory: Inventory, name: str) -> None:
        """Note it, and unmount what an interrupted build left mounted."""
        if inventory.value(name, _STATE) != REMOVING:
            self.tool.set(name, _STATE, REMOVING)
        if at := [mount.mount_point for mount in mounts.every() if mount.source in self._sources(name)]:
            self._unmount(name, at[-1])

    def _hand_back(self, project: str, number: int) -> None:
        """Give the snapshots that a generation took over from others to those; newest first, for older ones go along.

        Its own snapshot, when it was taken of a session and the promotion did not come to its end, goes to that.
        """
        while True:
            inventory = self._require(project)
            name = inventory.generations[number]
            here = {each: key for key, each in inventory.snapshots.items() if each.startswith(f"{name}@")}
            generations = [each for each in inventory.generations.values() if inventory.origin(each) in here]
            sessions = [each for each in inventory.sessions.values() if inventory.origin(each) in here]
            if not (dependents := generations or sessions):
                break
            newest = max(dependents, key=lambda each: here[inventory.origin(each)])
            self.tool.run(["zfs", "promote", newest])
        for each in (snapshot for snapshot, key in here.items() if key != number):
            self._destroy_snapshot(each)

    def _destroy_snapshot(self, snapshot: str) -> None:
        self.tool.release(TAG, snapshot)
        self._destroy(snapshot)

    def _destroy(self, name: str) -> None:
        """Destroy it; what was unmounted, or a new device that udev looks at, may be busy for a moment yet."""
        deadline = self.clock() + _BUSY_FOR
        while True:
            try:
                return self.tool.destroy(name)
            except process.CommandFailed as failure:
                said = failure.finished.stderr
                if "busy" in said and self.clock() < deadline:
                    self.sleep(0.05)
                    continue
                if "busy" in said or "dependent clones" in said or "has children" in said:
                    raise InUse(f"{name} is in use and stays: {_last_line(failure)}") from failure
                raise


def _places(base: str) -> tuple[str, ...]:
    return f"{base}/generations", f"{base}/sessions"


def _as_file_name(dataset: str) -> str:
    """Return a name that no other dataset has: none has a plus in it."""
    return dataset.replace("/", "+")


def _generation(inventory: Inventory, number: int) -> Generation:
    name = inventory.generations.get(number)
    if name is None:
        return Generation(number, REMOVING)  # its snapshot alone is left
    state = inventory.value(name, _STATE) or UNMARKED
    if state != COMPLETE:
        return Generation(number, state)
    record = Record(
        created=inventory.number(name, _CREATED),
        source=inventory.value(name, _SOURCE),
        fingerprint=inventory.value(name, _FINGERPRINT),
    )
    return Generation(number, state, record)


def _room(pool: Properties, place: Properties) -> Room:
    total = int(pool["used"].value) + int(pool["available"].value)
    return Room(free=int(place["available"].value), total=total)


def _sizes(found: Properties) -> Sizes:
    used, referenced = int(found["used"].value), int(found["referenced"].value)
    exclusive = min(used, referenced)
    return Sizes(exclusive=exclusive, shared=referenced - exclusive)


def _last_line(failure: process.CommandFailed) -> str:
    return " ".join(failure.finished.stderr.split()) or str(failure)

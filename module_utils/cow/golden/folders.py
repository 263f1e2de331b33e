"""Golden trees in folders: what is common to btrfs, reflinks and plain copies.

In the store: PROJECT with generations/N, sessions/ID, markers/ and the link `current`, and .cowherd with what the store
is and its locks. A marker is a file of JSON that is replaced as a whole; a tree without one is not ours to judge.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from .. import durable, lock, mounts, process
from .model import (
    BUILDING,
    COMPLETE,
    GONE,
    MAKING,
    REMOVING,
    UNMARKED,
    Generation,
    Project,
    Record,
    Room,
    Session,
    Sizes,
)
from .refusals import Exists, InUse, NotThere, Refusal, no_project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OWN = ".cowherd"
"""The folder in a store that says what it is; no project can be called so."""
_PLACES = ("generations", "sessions", "markers")
_MODES = {"generations": 0o700}
"""Owners of files in a generation could write to them otherwise, where it is no read-only subvolume."""
_PROJECT = "project.json"
_CURRENT = "current"
_CURRENT_DRAFT = f".{_CURRENT}.draft"
_NUMBER = r"[1-9][0-9]{0,17}"
_MARKER = r"(generation)-([1-9][0-9]{0,17})|(session)-(.+)"
_REMOVAL = ".removal"
"""What a marker ends in whose tree is about to go from a full disk."""
_DRAFT = r"\..+\.draft"
_TORN_AT_MOST = 100


@dataclass(frozen=True)
class Folders:
    """The part of a backend in a folder that does not depend on how a tree is cloned."""

    location: str
    name: str = "copy"
    atomic: bool = False

    def projects(self) -> tuple[str, ...]:
        """Return the names of the folders in the store that are ours."""
        names = sorted(entry.name for entry in self._store().iterdir() if entry.name != OWN)
        return tuple(name for name in names if (self._base(name) / "markers" / _PROJECT).exists())

    def read(self, project: str) -> Project | None:
        """Read the pointer, then the rest; again when a promotion came in between."""
        if not self._is_there(project):
            return None
        for _ in range(_TORN_AT_MOST):
            current = self._current(project)
            found = self._read(project, current)
            pointed = found.generation(current)
            if current == self._current(project) and (current is None or (pointed and pointed.state == COMPLETE)):
                break
        return found

    def read_current(self, project: str) -> tuple[int, Room] | None:
        """Follow the pointer."""
        current = self._current(project)
        if current is None or self._marker(project, "generation", str(current)).get("state") != COMPLETE:
            return None
        return current, self.room(project)

    def room(self, project: str) -> Room:  # noqa: ARG002
        """Ask the file system of the store."""
        status = os.statvfs(self._store())
        return Room(free=status.f_bavail * status.f_frsize, total=status.f_blocks * status.f_frsize)

    def sizes(self, project: Project) -> tuple[dict[int, Sizes], dict[str, Sizes]]:
        """Look at which parts of each file are shared."""
        from .extents import measure  # noqa: PLC0415

        trees = {each.number: self._generation(project.name, each.number) for each in project.generations}
        folders = {each.name: self._session_folder(project.name, each.name) for each in project.sessions}
        generations = {number: sizes for number, tree in trees.items() if (sizes := measure(tree))}
        return generations, {name: sizes for name, tree in folders.items() if (sizes := measure(tree))}

    def trimmable(self) -> tuple[Path, ...]:
        """The file system that the store is on."""
        return (mounts.under(self._store()).mount_point,)

    def locked(
        self, project: str, part: str, *, member: str = "", shared: bool = False, timeout: float = 60.0
    ) -> AbstractContextManager[None]:
        """Lock in the store, which may be seen at several paths. Nothing but the making of a project begins a store."""
        folder = self._store() / OWN / "locks"
        if part != "generations" and not self._is_there(project):
            raise no_project(project, self.location)
        return lock.in_turn(f"{project}.{part}", member=member, shared=shared, timeout=timeout, folder=folder)

    def create_project(self, project: str) -> None:
        """Make the folders, and the marker that makes them ours."""
        base = self._base(project)
        self._require_unused(base)
        record = self._store() / OWN / "store.json"
        if not record.exists():
            record.parent.mkdir(mode=0o755, exist_ok=True)
            durable.write(record, _json({"backend": self.name}))
        base.mkdir(mode=0o755, exist_ok=True)
        for place in _PLACES:
            (base / place).mkdir(mode=_MODES.get(place, 0o755), exist_ok=True)
        durable.write(base / "markers" / _PROJECT, _json({"backend": self.name}))
        durable.sync_folder(self._store())

    def remove_project(self, project: Project) -> None:
        """Remove the folders, which are empty; the marker last."""
        base = self._base(project.name)
        if project.foreign:
            raise InUse(f"{project.foreign[0]} was not made by Cowherd and stays, and so does {base}. Move it away.")
        for link in (_CURRENT, _CURRENT_DRAFT):
            (base / link).unlink(missing_ok=True)
        for place in ("generations", "sessions"):
            with contextlib.suppress(FileNotFoundError):
                (base / place).rmdir()
        for draft in (base / "markers").glob(".*.draft"):  # of runs that were killed
            draft.unlink()
        durable.remove(base / "markers" / _PROJECT)
        (base / "markers").rmdir()
        base.rmdir()
        durable.sync_folder(self._store())

    def build(self, project: str, number: int, source: Path) -> None:
        """Copy into a new tree."""
        self._begin(project, number)
        self._fill_from(source, self._generation(project, number))
        self._settle(self._generation(project, number))

    def capture(self, project: str, number: int, session: Session) -> None:
        """Clone the session's tree."""
        tree = self._session_folder(project, session.name)
        self._begin(project, number)
        self._clone_tree(tree, self._generation(project, number), readonly=True)
        self._settle(self._generation(project, number))

    def seal(self, project: str, number: int) -> None:
        """Nothing is left to do: `build` and `capture` have it on the disk, which may take long."""

    def complete(self, project: str, number: int, record: Record) -> None:
        """Replace the marker."""
        noted = {"created": record.created, "source": record.source, "fingerprint": record.fingerprint}
        self._mark(project, "generation", str(number), {"state": COMPLETE, **noted})

    def point(self, project: str, number: int) -> None:
        """Replace the link."""
        durable.link(self._base(project) / _CURRENT, f"generations/{number}")

    def rebase(self, project: str, number: int, session: Session) -> None:
        """Note that the session is what the generation was made from."""
        self._mark(project, "session", session.name, {**self._session_marker(session), "generation": number})

    def require_free_generation(self, project: Project, number: int) -> None:
        """See that nothing is mounted in it, and that it is not mounted elsewhere."""
        self._require_unmounted(self._generation(project.name, number))

    def withdraw(self, project: Project, number: int) -> None:
        """Note that the tree is about to go."""
        self.require_free_generation(project, number)
        marker = self._marker(project.name, "generation", str(number))
        self._mark_removal(project.name, "generation", str(number), marker)

    def remove_generation(self, project: Project, number: int) -> None:
        """Remove the tree, then the marker."""
        self.require_free_generation(project, number)
        self._remove(project.name, "generation", str(number), self._generation(project.name, number))

    def claim(self, project: str, number: int, session: Session) -> None:
        """Write the marker, by which the generation stays."""
        self._claim(project, number, session, MAKING)

    def fill(self, project: str, number: int, session: Session) -> None:
        """Clone the tree, then replace the marker."""
        tree = self._session_folder(project, session.name)
        self._clone_tree(self._generation(project, number), tree, readonly=False)
        self._sync(tree)
        self._mark_session(project, number, session, COMPLETE)

    def tree(self, project: str, session: Session) -> Path:
        """In the store, whether mounted or not."""
        return self._session_folder(project, session.name)

    def default_path(self, project: str, session: str) -> str:
        """Where a session is seen that names no path."""
        return str(self._session_folder(project, session))

    def mount(self, project: str, session: Session) -> None:
        """Bind the folder to the path, unless that is where it is."""
        tree, path = self._session_folder(project, session.name), Path(session.path)
        if tree != path and not _is_bound(tree, path, mounts.every()):
            path.mkdir(parents=True, exist_ok=True)
            process.run(["mount", "--bind", "--", str(tree), str(path)])

    def unmount(self, project: str, session: Session) -> None:
        """Undo that."""
        tree, path = self._session_folder(project, session.name), Path(session.path)
        if tree != path and _is_bound(tree, path, mounts.every()):
            try:
                process.run(["umount", "--", str(path)])
            except process.CommandFailed as failure:
                said = " ".join(failure.finished.stderr.split())
                if "busy" not in said:
                    raise
                raise InUse(f"Session {session.name} is in use at {path}: {said} End what uses it.") from failure

    def require_free_session(self, project: str, session: Session) -> None:
        """See that nothing but its own mount shows the folder or is in it, and that no process is."""
        from ..processes import within  # noqa: PLC0415

        tree, path = self._session_folder(project, session.name), Path(session.path)
        bound = session.mounted and tree != path
        self._require_unmounted(tree, besides=path if bound else None)
        if users := within(tree):
            raise InUse(f"Session {session.name} is in use at {tree} by {', '.join(users)}. End what uses it.")

    def remove_session(self, project: str, session: Session) -> None:
        """Remove the tree, then the marker."""
        tree = self._session_folder(project, session.name)
        self._require_unmounted(tree)
        noted = {**self._session_marker(session), "generation": session.generation}
        self._mark_removal(project, "session", session.name, noted)
        self._remove(project, "session", session.name, tree)

    # What each technology does in its way.

    def _fill_from(self, source: Path, tree: Path) -> None:
        from ..treecopy import copy  # noqa: PLC0415

        copy(source, tree)

    def _clone_tree(self, source: Path, tree: Path, *, readonly: bool) -> None:  # noqa: ARG002
        self._fill_from(source, tree)

    def _settle(self, tree: Path) -> None:
        """Have all of a tree on the disk, as it is to stay."""
        self._sync(tree)

    def _remove_tree(self, tree: Path) -> None:
        try:
            _remove_folder(tree)
        except PermissionError:
            _unblock(tree)
            _remove_folder(tree)

    def _sync(self, tree: Path) -> None:
        from ..kernel import sync_file_system  # noqa: PLC0415

        sync_file_system(tree)

    # Names and readings.

    def _store(self) -> Path:
        store = Path(self.location)
        if not store.is_dir():
            raise NotThere(f"The folder {store} does not exist. Create it, or name another store.")
        return store

    def _base(self, project: str) -> Path:
        return Path(self.location, project)

    def _generation(self, project: str, number: int) -> Path:
        return self._base(project) / "generations" / str(number)

    def _session_folder(self, project: str, session: str) -> Path:
        return self._base(project) / "sessions" / session

    def _is_there(self, project: str) -> bool:
        """Say whether a project is; refuse what is in its place and is not ours."""
        base = self._base(project)
        if (base / "markers" / _PROJECT).exists():
            return True
        self._require_unused(base)
        return False

    def _marker_path(self, project: str, kind: str, name: str) -> Path:
        return self._base(project) / "markers" / f"{kind}-{name}.json"

    def _marker(self, project: str, kind: str, name: str) -> dict[str, Any]:
        """Return what is noted, {} when nothing is, or nothing that can be read."""
        path = self._marker_path(project, kind, name)
        try:
            noted = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {"state": REMOVING} if path.with_suffix(_REMOVAL).exists() else {}
        except ValueError:
            return {}
        return noted if isinstance(noted, dict) else {}

    def _mark(self, project: str, kind: str, name: str, noted: Mapping[str, Any]) -> None:
        durable.write(self._marker_path(project, kind, name), _json(noted))

    def _remove(self, project: str, kind: str, name: str, tree: Path) -> None:
        """Remove a tree whose removal is noted, then its marker: nothing is left that has none."""
        self._remove_tree(tree)
        if os.path.lexists(tree):
            raise InUse(f"{tree} is not gone, so something uses or replaced it. Look at it, and end what uses it.")
        self._unmark(project, kind, name)

    def _mark_removal(self, project: str, kind: str, name: str, noted: Mapping[str, Any]) -> None:
        """Note that the tree is about to go. A full disk has no room for a new marker, and has to become less full."""
        if noted.get("state") == REMOVING:
            return
        try:
            self._mark(project, kind, name, {**noted, "state": REMOVING})
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            if not self.atomic:  # else the tree goes in one step, and the marker is of one that is gone
                path = self._marker_path(project, kind, name)
                path.replace(path.with_suffix(_REMOVAL))
                durable.sync_folder(path.parent)

    def _unmark(self, project: str, kind: str, name: str) -> None:
        path = self._marker_path(project, kind, name)
        durable.remove(path)
        durable.remove(path.with_suffix(_REMOVAL))

    def _begin(self, project: str, number: int) -> None:
        """Mark a generation as one that is being built, where nobody else can reach it, in former projects either."""
        for place, mode in _MODES.items():
            folder = self._base(project) / place
            if stat.S_IMODE(folder.stat().st_mode) != mode:
                folder.chmod(mode)
        self._mark(project, "generation", str(number), {"state": BUILDING})

    def _claim(self, project: str, number: int, session: Session, state: str) -> None:
        marker = self._marker_path(project, "session", session.name)
        if marker.exists() or os.path.lexists(self._session_folder(project, session.name)):
            raise Exists(f"There is a session {session.name} of {project} already. Choose another name.")
        if session.path != self.default_path(project, session.name):
            self._require_path_of_none(project, session.path)
        self._mark_session(project, number, session, state)

    def _require_path_of_none(self, project: str, path: str) -> None:
        """Refuse a path at which another session is seen, or was until it was unmounted and will be again."""
        for marker in (self._base(project) / "markers").glob("session-*.json"):
            name = marker.stem.removeprefix("session-")
            noted = self._marker(project, "session", name)
            if (
                noted.get("path") == path
                and noted.get("state") == COMPLETE
                and self._session_folder(project, name).is_dir()
            ):
                raise Exists(f"Session {name} of {project} is the one at {path}. Choose another path, or destroy it.")

    def _mark_session(self, project: str, number: int, session: Session, state: str) -> None:
        noted = {**self._session_marker(session), "generation": number, "state": state}
        self._mark(project, "session", session.name, noted)

    def _session_marker(self, session: Session) -> dict[str, Any]:
        return {
            "state": session.state,
            "path": session.path,
            "created": session.created,
            "made_folder": session.made_folder,
        }

    def _current(self, project: str) -> int | None:
        try:
            target = str((self._base(project) / _CURRENT).readlink())
        except FileNotFoundError:
            return None
        number = target.removeprefix("generations/")
        if not number.isdigit():
            raise Refusal(f"{self._base(project) / _CURRENT} leads to {target}, which is not a generation. Remove it.")
        return int(number)

    def _read(self, project: str, current: int | None) -> Project:
        base = self._base(project)
        # Markers before trees: a tree is made after its marker, and goes before it.
        named = {name: name.removesuffix(".json").removesuffix(_REMOVAL) for name in _names_in(base / "markers")}
        marked = [match for name in named.values() if (match := re.fullmatch(_MARKER, name))]
        trees = {place: _names_in(base / place) for place in ("generations", "sessions")}
        generations = {match[2] for match in marked if match[1]} | {
            name
            for name in trees["generations"]
            if re.fullmatch(_NUMBER, name) and (base / "generations" / name).is_dir()
        }
        sessions = {match[4] for match in marked if match[3]} | {
            name for name in trees["sessions"] if (base / "sessions" / name).is_dir()
        }
        foreign = [base / name for name in _names_in(base) if name not in (*_PLACES, _CURRENT, _CURRENT_DRAFT)]
        foreign += [base / "generations" / name for name in trees["generations"] if name not in generations]
        foreign += [base / "sessions" / name for name in trees["sessions"] if name not in sessions]
        foreign += [
            base / "markers" / name
            for name, bare in named.items()
            if name != _PROJECT and not re.fullmatch(_MARKER, bare) and not re.fullmatch(_DRAFT, name)
        ]
        table = mounts.every()
        return Project(
            name=project,
            current=current,
            generations=tuple(
                each
                for each in (self._read_generation(project, int(name)) for name in sorted(generations, key=int))
                if each
            ),
            sessions=tuple(
                each for each in (self._read_session(project, name, table) for name in sorted(sessions)) if each
            ),
            foreign=tuple(str(path) for path in foreign if os.path.lexists(path)),
        )

    def _read_generation(self, project: str, number: int) -> Generation | None:
        """Return None for one that went while this looked."""
        noted = self._marker(project, "generation", str(number))
        state = noted.get("state", UNMARKED)
        if not self._generation(project, number).is_dir():
            return None if state == UNMARKED else Generation(number, GONE if state == COMPLETE else state)
        if state != COMPLETE:
            return Generation(number, state)
        return Generation(number, state, Record(noted["created"], noted["source"], noted["fingerprint"]))

    def _read_session(self, project: str, name: str, table: tuple[mounts.Mount, ...]) -> Session | None:
        """Return None for one that went while this looked."""
        noted = self._marker(project, "session", name)
        tree = self._session_folder(project, name)
        state = noted.get("state", UNMARKED)
        path = noted.get("path", str(tree))
        there = tree.is_dir()
        if state == UNMARKED and not there:
            return None
        return Session(
            name=name,
            generation=noted.get("generation"),
            state=GONE if state == COMPLETE and not there else state,
            path=path,
            mounted=there and ((path == str(tree) and state == COMPLETE) or _is_bound(tree, Path(path), table)),
            created=noted.get("created", 0),
            made_folder=noted.get("made_folder", False),
        )

    def _require_unused(self, base: Path) -> None:
        """Refuse a folder that holds something, unless that is what an interrupted run made before the marker."""
        if not os.path.lexists(base):
            return
        if base.is_symlink() or not base.is_dir():
            raise Exists(f"{base} exists and is no folder. Choose another project or store.")
        for entry in base.iterdir():
            drafts = all(inner.name.startswith(".") for inner in entry.iterdir()) if entry.is_dir() else False
            if entry.name not in _PLACES or not drafts:
                raise Exists(
                    f"{base} exists and was not made by Cowherd: it holds {entry.name}. Choose another project."
                )

    def _require_unmounted(self, tree: Path, *, besides: Path | None = None) -> None:
        """Refuse a folder that is mounted somewhere, or has a mount in it; but for one mount at `besides`.

        Containers have it mounted where this process does not see it.
        """
        from ..processes import mounted_elsewhere, staying  # noqa: PLC0415

        if not tree.is_dir():
            return
        shown = list(mounts.showing(tree))
        elsewhere = mounted_elsewhere(tree)
        for own in [mount for mount in shown if mount.mount_point == besides][-1:]:
            shown.remove(own)
            elsewhere = staying(elsewhere, own)
        if shown:
            listed = ", ".join(str(mount.mount_point) for mount in shown)
            raise InUse(f"{tree} is in use by what is mounted at {listed}. Unmount that first.")
        if elsewhere:
            listed = ", ".join(f"{each.process} has it at {each.mount.mount_point}" for each in elsewhere)
            raise InUse(
                f"{tree} is mounted in a mount namespace of its own, as containers have: {listed}. "
                f"Unmount it there, or end that first."
            )


def _is_bound(tree: Path, path: Path, table: tuple[mounts.Mount, ...]) -> bool:
    here = [mount for mount in table if mount.mount_point == path]
    if not here or not tree.is_dir():
        return False
    own = mounts.under(tree)
    return here[-1].device == own.device and here[-1].root == own.inside(tree.resolve())


def _remove_folder(folder: Path) -> None:
    """Remove a folder, also while somebody removes files in it, at which rmtree ends before Python 3.13."""
    from shutil import rmtree  # noqa: PLC0415

    for _ in range(_TORN_AT_MOST):
        if not os.path.lexists(folder):
            break
        with contextlib.suppress(FileNotFoundError):
            rmtree(folder)


def _unblock(tree: Path) -> None:
    """Clear the flags of files in a tree that keep root from removing them (chattr +i, +a)."""
    from ..tree import BLOCKING_FLAGS, Descent, set_flags, walk  # noqa: PLC0415

    with Descent(tree) as descent:
        for entry in walk(tree).entries:
            if entry.flags & BLOCKING_FLAGS:
                folder = descent.at(entry.path if entry.is_folder else entry.parent)
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                descriptor = os.open(b"." if entry.is_folder else entry.name, flags, dir_fd=folder)
                try:
                    set_flags(descriptor, 0)
                finally:
                    os.close(descriptor)


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def _json(noted: Mapping[str, Any]) -> bytes:
    return json.dumps(noted, sort_keys=True).encode() + b"\n"

"""The rules of a store, once for all backends: in which order things are done, and what is refused.

One run at a time changes the generations of a project (the lock "generations"). A session is made or destroyed under a
lock of its own, and from the choice of its generation until it is noted under a shared lock ("sessions"), which those
who withdraw or seal a generation take alone. So clones wait for neither each other nor for the copy of a new
generation or the deletion of an old one, and what they choose stays until they have it. What is mounted at a path is
mounted under the lock of that path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from .. import lock, mounts, names
from ..errors import Busy, CowError
from ..size import Size
from .model import BUILDING, COMPLETE, GONE, MAKING, REMOVING, UNMARKED, Generation, Project, Record, Room, Session
from .refusals import Exists, InUse, NoRoom, NotThere, Refusal, no_project

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .backend import Backend

RESERVE = "2%"
_LONG = 24 * 3600.0
"""Seconds to wait for a run that copies a tree."""
_SHORT = 60.0


@dataclass(frozen=True)
class Source:
    """What the next generation is made from: a folder, or a session."""

    folder: Path | None = None
    session: str | None = None

    def __str__(self) -> str:
        return f"session:{self.session}" if self.session else f"directory:{self.folder}"


@dataclass(frozen=True)
class Store:
    """A store with the backend in effect; `why` says in words how that was chosen."""

    backend: Backend
    why: str = ""
    clock: Callable[[], float] = time.time

    def project(self, name: str) -> Project:
        """Read a project that has to exist."""
        project = self.backend.read(names.golden_project(name))
        if project is None:
            raise no_project(name, self.backend.location)
        return project

    # Sessions.

    def clone(
        self, project: str, name: str, *, path: str | None = None, generation: int | None = None, reserve: str = RESERVE
    ) -> Session:
        """Make a session and mount it. Nothing of it is left when that fails."""
        names.golden_project(project)
        names.session(name)
        where = self._require_free(project, name, path)
        try:
            with self._session_lock(project, name), self._path_lock(where):
                return self._clone(project, self._planned(project, name, path), generation, reserve)
        except OSError as error:
            if error.errno == errno.ENOSPC:  # before the room was looked at
                require_room(self.backend.room(project), reserve, self.backend.location)
            raise

    def _clone(self, project: str, session: Session, generation: int | None, reserve: str) -> Session:
        with self.backend.locked(project, "sessions", shared=True):
            number, room = self._to_clone(project, generation)
            require_room(room, reserve, self.backend.location)
            self.backend.claim(project, number, session)
        claimed = replace(session, generation=number, state=MAKING)
        try:
            self.backend.fill(project, number, claimed)
            self.backend.mount(project, claimed)
        except (CowError, OSError):
            self._take_back(project, claimed)
            raise
        return replace(claimed, state=COMPLETE, mounted=True)

    def mount(self, project: str, name: str) -> Session:
        """Mount a session that exists; fine when it is mounted."""
        with self._session_lock(project, name):
            session = self.session(project, name)
            if session.state != COMPLETE:
                raise Refusal(
                    f"Session {name} of {project} is {session.state}, and only a complete one can be mounted."
                )
            if not session.mounted:
                with self._path_lock(session.path):
                    require_free_path(Path(session.path))
                    self.backend.mount(project, session)
        return replace(session, mounted=True)

    def session(self, project: str, name: str) -> Session:
        """Read a session that has to exist."""
        session = self.project(project).session(names.session(name))
        if session is None:
            raise NotThere(f"There is no session {name} of {project} in {self.backend.location}.")
        return session

    def destroy(self, project: str, name: str) -> None:
        """Unmount a session and destroy it. Nothing is changed when its mount is in use."""
        with self._session_lock(project, name):
            self._destroy(project, self.session(project, name))

    def discard(self, project: str, name: str, state: str) -> None:
        """Destroy a session that a run left in this state; one that a run is still at is refused at once."""
        with self._session_lock(project, name, timeout=0):
            session = self.session(project, name)
            _require_still(f"Session {name} of {project}", session.state, state)
            self._destroy(project, session)

    # Generations.

    def create_project(self, project: str) -> None:
        """Make the place for a project."""
        with self._generations_lock(project):
            found = self.backend.read(project)
            if found is None or not found.whole:
                self.backend.create_project(project)

    def is_changing(self, project: str) -> bool:
        """Say whether another run is changing the generations of a project now."""
        try:
            with self._generations_lock(project, 0):
                return False
        except Busy:
            return True

    def promote(self, project: str, number: int, source: Source, fingerprint: str, current: int | None) -> None:
        """Make `number` of a source, and make it current in place of `current`, as it was when that was planned.

        A crash anywhere leaves the old generation current, and one with the state BUILDING or a complete one besides.
        """
        with self._generations_lock(project):
            found = self.project(project)
            if found.current != current or found.last >= number:
                raise InUse(f"Another run made generation {found.last} of {project} meanwhile. Start again.")
            with self._session_lock(project, source.session) if source.session else contextlib.nullcontext():
                self._make(project, number, source)
                self._require_unchanged(project, source, fingerprint)
                with self.backend.locked(project, "sessions"):
                    self.backend.seal(project, number)
                    self.backend.complete(project, number, Record(int(self.clock()), str(source), fingerprint))
                    self.backend.point(project, number)
                if source.session:
                    self.backend.rebase(project, number, self.session(project, source.session))

    def remove_generation(self, project: str, number: int, state: str, *, wait: float = _LONG) -> None:
        """Remove a generation that is not current and has no sessions, and is in this state still."""
        with self._generations_lock(project, wait):
            with self.backend.locked(project, "sessions", timeout=wait or _SHORT):
                found = self.project(project)
                generation = require_removable(found, number)
                _require_still(f"Generation {number} of {project}", generation.state, state)
                self.backend.withdraw(found, number)
            self.backend.remove_generation(found, number)

    def remove_project(self, project: str) -> None:
        """Remove all generations and the place of a project that has no sessions."""
        with self._generations_lock(project), self.backend.locked(project, "sessions"):
            found = self.project(project)
            self.require_project_removable(found)
            for generation in sorted(found.generations, key=lambda each: each.number):
                self.backend.withdraw(found, generation.number)
                self.backend.remove_generation(found, generation.number)
            self.backend.remove_project(self.project(project))

    def require_project_removable(self, project: Project) -> None:
        """Refuse to remove a project that has sessions, or in which there is what is not known to be ours."""
        require_no_sessions(project, tuple(each for each in project.sessions if each.state != UNMARKED))
        if unknown := (*unmarked(project), *project.foreign):
            raise Refusal(
                f"Project {project.name} cannot be removed: {names.shortened(unknown)} has no marker or was not made "
                f"by Cowherd, so whether it is needed cannot be told. Look at it, and move or remove it by hand."
            )
        for generation in project.generations:
            self.backend.require_free_generation(project, generation.number)

    def tree(self, project: str, source: Source) -> Path:
        """Where the files of a source are; refuses a session whose files cannot be seen."""
        if source.folder:
            return source.folder
        return self.backend.tree(project, self._promotable(project, source.session or ""))

    # Parts of the above.

    def planned_path(self, project: str, name: str, path: str | None) -> str:
        """Where a session is to be seen: where it was asked for, or where the backend puts it."""
        return session_path(path) if path else self.backend.default_path(project, name)

    def _require_free(self, project: str, name: str, path: str | None) -> str:
        """Return where a session is to be seen, where nothing is."""
        where = self.planned_path(project, name, path)
        if path is None and os.path.lexists(where):
            raise Exists(f"There is a session {name} of {project} already, or something else at {where}.")
        require_free_path(Path(where))
        return where

    def _planned(self, project: str, name: str, path: str | None) -> Session:
        where = self._require_free(project, name, path)
        return Session(
            name=name,
            generation=None,
            state=MAKING,
            path=where,
            created=int(self.clock()),
            made_folder=not os.path.lexists(where),
        )

    def _to_clone(self, project: str, generation: int | None) -> tuple[int, Room]:
        if generation is None and (quick := self.backend.read_current(project)):
            return quick
        found = self.project(project)
        return to_clone(found, generation).number, self.backend.room(project)

    def _promotable(self, project: str, name: str) -> Session:
        """Return a session whose files can be seen."""
        session = self.session(project, name)
        if session.state != COMPLETE:
            raise Refusal(
                f"Session {session.name} of {project} is {session.state}, and only a complete one is promoted."
            )
        if not session.mounted:
            raise Refusal(
                f"Session {session.name} of {project} is not mounted at {session.path}. "
                f"Run `cow-session mount {project} {session.name}` first."
            )
        return session

    def _make(self, project: str, number: int, source: Source) -> None:
        if source.session:
            # It may have been unmounted since this was planned, and another file system be frozen in its stead.
            self.backend.capture(project, number, self._promotable(project, source.session))
        elif source.folder:
            self.backend.build(project, number, source.folder)

    def _require_unchanged(self, project: str, source: Source, fingerprint: str) -> None:
        """Refuse a copy of something that changed while it was copied."""
        from . import fingerprint as fingerprints  # noqa: PLC0415

        if source.session and self.backend.atomic:
            return
        tree = self.tree(project, source)
        if fingerprints.of(tree) != fingerprint:
            raise Refusal(
                f"{tree} changed while it was copied, so the copy may be of no moment that ever was. "
                f"Stop what writes to it, and start again; the current generation is as it was."
            )

    def require_destroyable(self, project: str, session: Session) -> None:
        """Refuse to destroy a session that is not known to be ours, or that something else needs."""
        if session.state == UNMARKED:
            raise Refusal(
                f"{session.name} of {project} has no marker, so whether it is a session of ours cannot be told. "
                f"Look at it, and remove it by hand if nobody needs it."
            )
        self.backend.require_free_session(project, session)

    def _destroy(self, project: str, session: Session) -> None:
        self.require_destroyable(project, session)
        if session.mounted:
            self.backend.unmount(project, session)
        try:
            self.backend.remove_session(project, session)
        except InUse:
            with contextlib.suppress(CowError, OSError):
                if session.mounted and self.session(project, session.name).state == session.state:
                    self.backend.mount(project, session)
            raise
        if session.made_folder:
            with contextlib.suppress(OSError):
                Path(session.path).rmdir()

    def _take_back(self, project: str, session: Session) -> None:
        """Undo a session that could not be made; what cannot be undone is left to garbage collection."""
        with contextlib.suppress(CowError, OSError):
            found = self.session(project, session.name)
            self._destroy(project, found)

    def _generations_lock(self, project: str, wait: float = _LONG) -> AbstractContextManager[None]:
        return self.backend.locked(project, "generations", timeout=wait)

    @contextlib.contextmanager
    def _session_lock(self, project: str, name: str, timeout: float = _LONG) -> Iterator[None]:
        with self.backend.locked(project, "session", member=name, timeout=timeout):
            yield

    def _path_lock(self, path: str) -> AbstractContextManager[None]:
        """Lock a path of this host, at which other stores may have sessions, but not a folder in the store itself."""
        if Path(path).is_relative_to(self.backend.location):
            return contextlib.nullcontext()
        return lock.in_turn("golden:paths", member=path, shared=False, timeout=_LONG)


def session_path(path: str) -> str:
    """Return the path that a session is asked for at as it is noted, and compared with what is mounted."""
    return names.one_line(str(mounts.point(Path(names.absolute_path(path)))))


def _require_still(what: str, state: str, expected: str) -> None:
    if state != expected:
        raise Busy(f"{what} is {state} now and was {expected} before: another run is at it. Start again.")


def to_clone(project: Project, number: int | None) -> Generation:
    """Return the generation that a new session is a clone of."""
    wanted = project.current if number is None else number
    if wanted is None:
        raise NotThere(f"Project {project.name} has no generation yet. Promote a folder first.")
    generation = project.generation(wanted)
    if generation is None or generation.state != COMPLETE:
        there = ", ".join(str(each.number) for each in project.generations if each.state == COMPLETE) or "none"
        state = f"Its state is {generation.state}. " if generation else ""
        raise NotThere(
            f"There is no complete generation {wanted} of {project.name}. {state}Complete ones are: {there}."
        )
    return generation


def require_keep(keep: int) -> int:
    """Refuse to keep no generation at all."""
    if keep < 1:
        raise CowError(f"keep is {keep}, and the current generation is kept always. Give 1 or more.")
    return keep


def superseded(project: Project, keep: int) -> tuple[Generation, ...]:
    """Return the complete generations beyond the newest `keep`, which have no sessions and are not current."""
    complete = [each for each in project.generations if each.state == COMPLETE]
    newest = {project.current, *(each.number for each in complete[-keep:])} if keep else {project.current}
    return tuple(each for each in complete if each.number not in newest and not project.sessions_of(each.number))


def unfinished(project: Project) -> tuple[Generation, ...]:
    """Return the generations that an interrupted run left, and that nobody can be using."""
    return tuple(
        each
        for each in project.generations
        if each.number != project.current and each.state in (BUILDING, REMOVING, GONE)
    )


def unmarked(project: Project) -> tuple[str, ...]:
    """Return the sessions and generations, in words, of which it cannot be told whose they are."""
    return (
        *(f"session {each.name}" for each in project.sessions if each.state == UNMARKED),
        *(f"generation {each.number}" for each in project.generations if each.state == UNMARKED),
    )


def require_removable(project: Project, number: int) -> Generation:
    """Refuse to remove what is not there, is current, has sessions, or is not known to be ours."""
    generation = project.generation(number)
    if generation is None:
        raise NotThere(f"There is no generation {number} of {project.name}.")
    if number == project.current:
        raise InUse(f"Generation {number} of {project.name} is current. Promote another one first.")
    if generation.state == UNMARKED:
        raise Refusal(
            f"Generation {number} of {project.name} has no marker, so whether it is ours cannot be told. "
            f"Look at it, and remove it by hand if nobody needs it."
        )
    if generation.state == COMPLETE:
        require_no_sessions(project, project.sessions_of(number), f"Generation {number} of ")
    return generation


def require_no_sessions(project: Project, sessions: tuple[Session, ...], what: str = "Project ") -> None:
    """Refuse while there are sessions, by their names."""
    if sessions:
        listed = names.shortened([each.name for each in sessions])
        raise InUse(f"{what}{project.name} has sessions: {listed}. Destroy them first.")


def require_free_path(path: Path) -> None:
    """Refuse a path at which there is something, which a mount would hide."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        raise Exists(f"{path} exists and is no folder. Choose another path, or move it away.")
    with os.scandir(path) as entries:
        first = next(entries, None)
    # What is mounted meanwhile is told as that, and not by what it holds.
    if any(mount.mount_point == path for mount in mounts.every()):
        raise Exists(f"Something is mounted at {path}. Choose another path, or unmount it.")
    if first:
        raise Exists(f"{path} is not empty: it holds {first.name}. Choose another path, or move that away.")


def require_room(room: Room, reserve: str, location: str) -> None:
    """Refuse a new session when the store is nearly full, with figures."""
    kept = Size.parse(reserve, whole=Size(room.total))
    if room.free <= kept.bytes:
        raise NoRoom(
            f"{location} has {Size(room.free).rounded()} free of {Size(room.total).rounded()}, and {kept.rounded()} "
            f"(reserve {reserve}) are to stay free. Destroy sessions, collect garbage, or make it larger."
        )

"""What it takes to have a generation or a session, or not to have it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .. import mounts, names
from ..errors import CowError, Drift
from ..plan import Plan, Step
from ..size import Size
from . import fingerprint, views
from .model import COMPLETE, Generation, Project, Record, Room, Session
from .refusals import Exists, InUse, NotThere, Refusal
from .store import (
    RESERVE,
    Source,
    Store,
    require_free_path,
    require_keep,
    require_removable,
    require_room,
    session_path,
    superseded,
    to_clone,
    unfinished,
)

KEEP = 3


@dataclass(frozen=True)
class WantedCache:
    """What an operator asks for of a project; generation: the one that is to go, None for all of it."""

    project: str
    present: bool = True
    source: Source | None = None
    keep: int = KEEP
    generation: int | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> WantedCache:
        """Read it from the parameters of the module."""
        present = params["state"] == "present"
        folder, session = params["source"], params["session"]
        if present and params["generation"] is not None:
            raise CowError("A generation is named with state: absent only. New ones get the next number.")
        if not present and (folder or session):
            raise CowError("With state: absent nothing is promoted. Leave out source and session.")
        if params.get("volume_size"):
            Size.parse(params["volume_size"])
        source = Source(
            # A link may lead elsewhere at the next look, so it is followed once.
            Path(names.one_line(os.path.realpath(names.absolute_path(folder)))) if folder else None,
            names.session(session) if session else None,
        )
        return cls(
            project=names.golden_project(params["project"]),
            present=present,
            source=source if folder or session else None,
            keep=require_keep(params["keep"]),
            generation=params["generation"],
        )


@dataclass(frozen=True)
class FoundCache:
    """The project, None for none, and the fingerprint of the source as it is."""

    project: Project | None = None
    fingerprint: str = ""


def observe_cache(store: Store, wanted: WantedCache) -> FoundCache:
    """Read the project, and look at the source."""
    project = store.backend.read(wanted.project)
    if not (wanted.present and wanted.source):
        return FoundCache(project)
    if project is None and wanted.source.session:
        store.project(wanted.project)
    tree = store.tree(wanted.project, wanted.source)
    _require_outside(tree, wanted.source, store)
    return FoundCache(project, fingerprint.of(tree))


@dataclass(frozen=True)
class Cleaning:
    """The removal of what a run was not asked for by name: what has to stay does not make the run fail.

    warn: told what turned out to stay as the plan was run. not_removed: all that stays, and why.
    """

    store: Store
    warn: Callable[[str], None]
    not_removed: list[dict[str, str]]

    def plan(self, project: Project, generations: tuple[Generation, ...]) -> Plan:
        """Have those removed that nothing keeps from it, and warn of the others."""
        steps, warnings = [], []
        for each in generations:
            try:
                self.store.backend.require_free_generation(project, each.number)
            except InUse as error:
                warnings.append(self._note(project, each, error))
            else:
                steps.append(self._step(project, each))
        return Plan(tuple(steps), tuple(warnings))

    def _step(self, project: Project, generation: Generation) -> Step:
        removal = _remove(project, generation, self.store)

        def run() -> None:
            try:
                removal.run()
            except (CowError, OSError) as error:
                self.warn(self._note(project, generation, error))

        return replace(removal, run=run)

    def _note(self, project: Project, generation: Generation, error: Exception) -> str:
        what = f"generation {generation.number} of {project.name} ({_kind(generation)})"
        self.not_removed.append({"what": what, "msg": str(error)})
        return f"Not removed: {what}. {error}"


def plan_cache(found: FoundCache, wanted: WantedCache, store: Store, warn: Callable[[str], None]) -> Plan:
    """Decide what is to be done; `warn` is told what could not be cleaned up as it was done."""
    if not wanted.present:
        return _removal(found.project, wanted, store)
    cleaning = Cleaning(store, warn, [])
    name, project = wanted.project, found.project or Project(wanted.project)
    create = Step(
        title=f"create golden project {name} in {store.backend.location} ({store.backend.name})",
        run=lambda: store.create_project(name),
        after={"project": name, "backend": store.backend.name},
    )
    creation = Plan() if found.project and project.whole else Plan.of(create)
    plan = creation + cleaning.plan(project, unfinished(project))
    if wanted.source and not _is_current(project, wanted.source, found.fingerprint):
        number = project.last + 1  # also after those that are to be removed first, which may have to stay
        plan += Plan.of(_promotion(project, number, wanted.source, found.fingerprint, store))
        upcoming = Generation(number, COMPLETE, Record(0, str(wanted.source), found.fingerprint))
        project = replace(project, current=number, generations=(*project.generations, upcoming))
    plan += cleaning.plan(project, superseded(project, wanted.keep))
    return replace(plan, facts={**views.in_effect(store), "not_removed": cleaning.not_removed})


def describe_cache(found: FoundCache, store: Store) -> dict[str, Any]:
    """Give the return values of the module."""
    project = found.project
    return {
        **views.in_effect(store),
        "current": project.current if project else None,
        "generations": views.generations(project),
    }


@dataclass(frozen=True)
class WantedSession:
    """What an operator asks for of a session; path and generation: None for what it has, or for the usual."""

    project: str
    name: str
    present: bool = True
    path: str | None = None
    generation: int | None = None
    reserve: str = RESERVE

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> WantedSession:
        """Read it from the parameters of the module."""
        Size.parse(params["reserve"], whole=Size(0))
        return cls(
            project=names.golden_project(params["project"]),
            name=names.session(params["name"]),
            present=params["state"] == "present",
            path=session_path(params["path"]) if params["path"] else None,
            generation=params["generation"],
            reserve=params["reserve"],
        )


@dataclass(frozen=True)
class FoundSession:
    """The project and its session, None for none, and how much room there is."""

    project: Project | None
    session: Session | None
    room: Room


def observe_session(store: Store, wanted: WantedSession) -> FoundSession:
    """Read the project and the room."""
    project = store.backend.read(wanted.project)
    session = project.session(wanted.name) if project else None
    return FoundSession(project, session, store.backend.room(wanted.project))


def plan_session(found: FoundSession, wanted: WantedSession, store: Store) -> Plan:
    """Decide what is to be done."""
    session = found.session
    facts = views.in_effect(store)
    if not wanted.present:
        steps = [_destruction(wanted, session, store)] if session else []
    elif session is None:
        steps = [_clone(found, wanted, store)]
    else:
        _require_as_wanted(session, wanted)
        steps = [] if session.mounted else [_mount(session, wanted, store)]
    return Plan(steps=tuple(steps), facts=facts)


def describe_session(found: FoundSession, store: Store) -> dict[str, Any]:
    """Give the return values of the module; of the session none when there is none."""
    if found.session is None:
        return views.in_effect(store)
    shown = views.session(found.session)
    del shown["state"]
    return {**views.in_effect(store), **shown}


def _is_current(project: Project, source: Source, seen: str) -> bool:
    """Say whether the current generation was made from this source as it is now."""
    current = project.generation(project.current)
    record = current.record if current else None
    return record is not None and record.source == str(source) and record.fingerprint == seen


def _promotion(project: Project, number: int, source: Source, seen: str, store: Store) -> Step:
    what = f"session {source.session}" if source.session else str(source.folder)
    return Step(
        title=f"make generation {number} of {project.name} from {what}, and make it current",
        run=lambda: store.promote(project.name, number, source, seen, project.current),
        before={"current": project.current},
        after={"current": number, "source": str(source)},
    )


def _remove(project: Project, generation: Generation, store: Store) -> Step:
    return Step(
        title=f"remove {_kind(generation)} generation {generation.number} of {project.name}",
        run=lambda: store.remove_generation(project.name, generation.number, generation.state),
        before={"generation": generation.number, "state": generation.state},
    )


def _kind(generation: Generation) -> str:
    return "superseded" if generation.state == COMPLETE else "unfinished"


def _removal(project: Project | None, wanted: WantedCache, store: Store) -> Plan:
    facts = {**views.in_effect(store), "not_removed": []}
    if project is None:
        return Plan(facts=facts)
    if wanted.generation is not None:
        if project.generation(wanted.generation) is None:
            return Plan(facts=facts)
        generation = require_removable(project, wanted.generation)
        step = replace(
            _remove(project, generation, store),
            title=f"remove generation {generation.number} of {project.name}",
            destroys=f"generation {generation.number} of {project.name}",
            permit="state",
        )
        return Plan(steps=(step,), facts=facts)
    store.require_project_removable(project)
    return Plan(
        steps=(
            Step(
                title=f"remove golden project {project.name} with {len(project.generations)} generations",
                run=lambda: store.remove_project(project.name),
                before={"project": project.name, "generations": [each.number for each in project.generations]},
                destroys=f"all generations of {project.name}",
                permit="state",
            ),
        ),
        facts=facts,
    )


def _require_outside(tree: Path, source: Source, store: Store) -> None:
    """Refuse a folder that has the store in it, or is in it."""
    location = Path(store.backend.location)
    if source.folder and location.is_absolute():
        real, own = tree.resolve(), location.resolve()
        if real.is_relative_to(own) or own.is_relative_to(real):
            raise CowError(f"{tree} and the store {location} are in one another. Name a source outside of the store.")
    if source.folder and not tree.is_dir():
        raise NotThere(f"The folder {tree} does not exist. Name the one that the build made.")
    mounts.under(tree)


def _clone(found: FoundSession, wanted: WantedSession, store: Store) -> Step:
    project = found.project or store.project(wanted.project)
    generation = to_clone(project, wanted.generation)
    require_room(found.room, wanted.reserve, store.backend.location)
    path = store.planned_path(wanted.project, wanted.name, wanted.path)
    require_free_path(Path(path))
    if taken := [each.name for each in project.sessions if each.path == path and each.state == COMPLETE]:
        raise Exists(
            f"Session {taken[0]} of {project.name} is the one at {path}. Choose another path, or destroy that one."
        )
    return Step(
        title=f"clone generation {generation.number} of {wanted.project} for session {wanted.name} at {path}",
        run=lambda: _discard(
            store.clone(
                wanted.project, wanted.name, path=wanted.path, generation=generation.number, reserve=wanted.reserve
            )
        ),
        after={"session": wanted.name, "generation": generation.number, "path": path},
    )


def _mount(session: Session, wanted: WantedSession, store: Store) -> Step:
    require_free_path(Path(session.path))
    return Step(
        title=f"mount session {session.name} of {wanted.project} at {session.path}",
        run=lambda: _discard(store.mount(wanted.project, session.name)),
        before={"mounted": False},
        after={"mounted": True},
    )


def _destruction(wanted: WantedSession, session: Session, store: Store) -> Step:
    store.require_destroyable(wanted.project, session)
    return Step(
        title=f"destroy session {session.name} of {wanted.project}",
        run=lambda: store.destroy(wanted.project, session.name),
        before={"session": session.name, "generation": session.generation, "path": session.path},
        destroys=f"what was written in {session.path}",
        permit="state",
    )


def _require_as_wanted(session: Session, wanted: WantedSession) -> None:
    if session.state != COMPLETE:
        raise Refusal(
            f"Session {session.name} of {wanted.project} is {session.state}, not complete. "
            f"Run `cow-session gc {wanted.project}`, then start again."
        )
    if wanted.path and wanted.path != session.path:
        raise Drift(
            f"Session {session.name} of {wanted.project} is at {session.path}, and {wanted.path} is asked for. "
            f"Ask for {session.path}, or destroy the session first."
        )
    if wanted.generation is not None and wanted.generation != session.generation:
        raise Drift(
            f"Session {session.name} of {wanted.project} is a clone of generation {session.generation}, and "
            f"{wanted.generation} is asked for. Ask for that one, or destroy the session first."
        )


def _discard(_: object) -> None:
    """Steps return nothing."""

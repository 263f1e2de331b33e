"""Garbage collection: finishes what interrupted runs left, and removes generations that are superseded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import names
from ..errors import Busy, CowError
from .model import COMPLETE, GONE, UNMARKED, Generation, Project, Session
from .store import Store, require_keep, superseded, unfinished

GRACE = 3600
_CHANGING = "another run is changing the generations of the project, as a promotion does; it is left for the next time"


@dataclass(frozen=True)
class Item:
    """One thing that is or would be removed: in words, and how. needs: number of the generation that it keeps."""

    what: str
    remove: Callable[[], None] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Findings:
    """What is to be removed, and what is only told, as (what, why)."""

    items: tuple[Item, ...] = ()
    reported: tuple[tuple[str, str], ...] = ()


def collect(store: Store, project: str | None, *, keep: int, grace: int, dry_run: bool) -> dict[str, Any]:
    """Collect in one project or all; a failure at one thing does not keep the others from being removed.

    grace: seconds for which a superseded generation, and a half-made session, is left alone.
    Returns removed (would_remove in a dry run), reported and failed.
    """
    require_keep(keep)
    if grace < 0:
        raise CowError(f"grace is {grace}. Give 0 seconds or more.")
    wanted = [names.golden_project(project)] if project else store.backend.projects()
    removed: list[str] = []
    reported: list[dict[str, str]] = []
    failed: list[dict[str, str]] = []
    for name in wanted:
        try:
            findings = look(store, store.project(name), keep=keep, grace=grace, changing=store.is_changing(name))
        except (CowError, OSError) as error:
            failed.append({"what": f"project {name}", "msg": str(error)})
            continue
        done = [item.what for item in findings.items] if dry_run else []
        kept, not_done = ([], []) if dry_run else _remove(findings.items, done)
        reported += [{"what": what, "why": why} for what, why in (*findings.reported, *kept)]
        removed += done
        failed += not_done
    done_as = "would_remove" if dry_run else "removed"
    return {"dry_run": dry_run, done_as: removed, "reported": reported, "failed": failed}


def look(store: Store, project: Project, *, keep: int, grace: int, changing: bool = False) -> Findings:
    """Decide what of a project is to be removed; of generations nothing while another run is changing them."""
    old_enough = store.clock() - grace
    sessions = [each for each in project.sessions if each.state not in (COMPLETE, UNMARKED)]
    ready = [each for each in sessions if not (each.mounted and each.state != GONE) and each.created <= old_enough]
    generations = [
        each for each in superseded(project, keep) if each.record and _superseded_at(project, each) <= old_enough
    ]
    of_sessions = tuple(_session_item(store, project, each) for each in ready)
    of_generations = (
        *(_generation_item(store, project, each, each.state) for each in unfinished(project)),
        *(_generation_item(store, project, each, "superseded") for each in generations),
    )
    reported = _reported(project, [each for each in sessions if each not in ready])
    if changing:
        return Findings(of_sessions, (*((item.what, _CHANGING) for item in of_generations), *reported))
    return Findings((*of_sessions, *of_generations), tuple(reported))


def _superseded_at(project: Project, generation: Generation) -> int:
    """When the next complete generation came."""
    later = [each.record.created for each in project.generations if each.record and each.number > generation.number]
    return min(later, default=0)


def _session_item(store: Store, project: Project, session: Session) -> Item:
    return Item(
        what=f"session {session.name} of {project.name} ({session.state})",
        remove=lambda: store.discard(project.name, session.name, session.state),
    )


def _generation_item(store: Store, project: Project, generation: Generation, why: str) -> Item:
    return Item(
        what=f"generation {generation.number} of {project.name} ({why})",
        remove=lambda: store.remove_generation(project.name, generation.number, generation.state, wait=0),
    )


def _reported(project: Project, young: Sequence[Session]) -> list[tuple[str, str]]:
    unmarked = "it has no marker, so whether it is in use cannot be told; look at it and remove it by hand"
    return [
        *((f"session {each.name} of {project.name}", f"{each.state}, mounted or too young") for each in young),
        *((f"session {each.name} of {project.name}", unmarked) for each in project.sessions if each.state == UNMARKED),
        *(
            (f"generation {each.number} of {project.name}", unmarked)
            for each in project.generations
            if each.state == UNMARKED
        ),
        *((each, "it was not made by Cowherd") for each in project.foreign),
    ]


def _remove(items: Sequence[Item], removed: list[str]) -> tuple[list[tuple[str, str]], list[dict[str, str]]]:
    """Remove all, and note what was in `removed`; returns what another run is at meanwhile, and what failed."""
    kept, failed = [], []
    for item in items:
        try:
            item.remove()
        except Busy as error:
            kept.append((item.what, str(error)))
        except (CowError, OSError) as error:
            failed.append({"what": item.what, "msg": str(error)})
        else:
            removed.append(item.what)
    return kept, failed

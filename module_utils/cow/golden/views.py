"""What is there, as the modules and the command return it."""

from __future__ import annotations

import time
from pathlib import Path

from .. import mounts, names
from .model import Generation, Project, Session, Sizes
from .store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def listed(store: Store, project: str | None, *, sizes: bool) -> dict[str, Any]:
    """Describe the projects of a store, or one."""
    wanted = [names.golden_project(project)] if project else store.backend.projects()
    room = store.backend.room(wanted[0] if wanted else "none")
    return {
        **in_effect(store),
        "store": store.backend.location,
        "free_bytes": room.free,
        "total_bytes": room.total,
        "projects": [_project(store, store.project(name), sizes=sizes) for name in wanted],
    }


def in_effect(store: Store) -> dict[str, Any]:
    """Say which backend it is, and why."""
    return {"backend": store.backend.name, "why": store.why}


def generations(project: Project | None) -> list[dict[str, Any]]:
    """Describe the generations of a project without their sizes."""
    return [generation(project, each) for each in project.generations] if project else []


def generation(project: Project, each: Generation) -> dict[str, Any]:
    """Describe a generation."""
    return {
        "number": each.number,
        "current": each.number == project.current,
        "state": each.state,
        "created": when(each.record.created) if each.record else None,
        "source": each.record.source if each.record else None,
        "sessions": [session.name for session in project.sessions_of(each.number)],
    }


def session(each: Session) -> dict[str, Any]:
    """Describe a session."""
    return {
        "name": each.name,
        "generation": each.generation,
        "state": each.state,
        "path": each.path,
        "mounted": each.mounted,
        "created": when(each.created),
        "d_type": mounts.tells_kinds(Path(each.path)) if each.mounted else None,
    }


def when(seconds: int) -> str:
    """Write a time in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _project(store: Store, project: Project, *, sizes: bool) -> dict[str, Any]:
    of_generations, of_sessions = store.backend.sizes(project) if sizes else ({}, {})
    return {
        "name": project.name,
        "current": project.current,
        "generations": [
            {**generation(project, each), **_sizes(of_generations.get(each.number))} for each in project.generations
        ],
        "sessions": [{**session(each), **_sizes(of_sessions.get(each.name))} for each in project.sessions],
        "foreign": list(project.foreign),
    }


def _sizes(sizes: Sizes | None) -> dict[str, int | None]:
    return {
        "apparent_bytes": sizes.apparent if sizes else None,
        "exclusive_bytes": sizes.exclusive if sizes else None,
        "shared_bytes": sizes.shared if sizes else None,
    }

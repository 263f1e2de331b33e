"""Why something is refused. A program that calls `cow-session` tells the reasons apart by its exit status."""

from __future__ import annotations

from ..errors import CowError


class Refusal(CowError):
    """Something is not done; `status` is the exit status of `cow-session`, `reason` a word for programs."""

    status = 1
    reason = "refused"


class NotThere(Refusal):
    """There is no such project, generation or session."""

    status = 3
    reason = "absent"


def no_project(name: str, location: str) -> NotThere:
    """Say that there is no such project, and how there is one."""
    return NotThere(
        f"There is no project {name} in {location}. "
        f"Make its first generation with golden_cache or `cow-session promote`."
    )


class Exists(Refusal):
    """There is one already, or something else is in its place."""

    status = 4
    reason = "exists"


class InUse(Refusal):
    """It is mounted and in use, or has sessions."""

    status = 5
    reason = "in-use"


class NoRoom(Refusal):
    """The store has less free space than is to be kept."""

    status = 6
    reason = "no-room"

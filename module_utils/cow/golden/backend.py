"""What a technology has to offer so that golden trees can be kept with it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from .model import Project, Record, Room, Session, Sizes


class Backend(Protocol):
    """One technology in one store. `store.py` calls it, in an order that holds for all.

    Each method is one step after which a crash leaves something that `read` can tell. Methods that remove are fine with
    what is half there, and finish it. What is not marked as ours is never touched.

    name: zfs, zvol, btrfs, reflink or copy. location: the store as a person names it. atomic: whether `capture` takes a
    tree as it is at one moment, though it is written to.
    """

    @property
    def name(self) -> str:
        """Return the word for the technology."""

    @property
    def location(self) -> str:
        """Return the folder or dataset."""

    @property
    def atomic(self) -> bool:
        """Say whether what is captured is of one moment."""

    def projects(self) -> tuple[str, ...]:
        """Return the names of the projects in the store."""

    def read(self, project: str) -> Project | None:
        """Read a project without a lock; None on the positive answer that there is none."""

    def read_current(self, project: str) -> tuple[int, Room] | None:
        """Read what a clone needs to know, as quickly as can be; None where `read` has to say what there is."""

    def room(self, project: str) -> Room:
        """Read how much room there is for a project, which need not exist."""

    def sizes(self, project: Project) -> tuple[dict[int, Sizes], dict[str, Sizes]]:
        """Measure the generations by number and the sessions by name."""

    def trimmable(self) -> tuple[Path, ...]:
        """Where the file systems of the store are mounted that keep what was freed in them until they are trimmed."""

    def locked(
        self, project: str, part: str, *, member: str = "", shared: bool = False, timeout: float = 60.0
    ) -> AbstractContextManager[None]:
        """Hold a lock of the project; `part` tells its locks apart, and `member` those of many things of one kind."""

    def create_project(self, project: str) -> None:
        """Make the place for a project, or what is missing of it, and note with which backend the store was begun."""

    def remove_project(self, project: Project) -> None:
        """Remove the place of a project in which nothing of ours is left."""

    def build(self, project: str, number: int, source: Path) -> None:
        """Copy a folder as an unfinished generation. Takes long."""

    def capture(self, project: str, number: int, session: Session) -> None:
        """Take the tree of a session, as it is at one moment, as an unfinished generation. May take long."""

    def seal(self, project: str, number: int) -> None:
        """Make an unfinished generation unchangeable, held, and independent of all others; nobody clones meanwhile."""

    def complete(self, project: str, number: int, record: Record) -> None:
        """Mark it as complete, durably."""

    def point(self, project: str, number: int) -> None:
        """Make it the current one, durably and at once."""

    def require_free_generation(self, project: Project, number: int) -> None:
        """Refuse, InUse, while something that is not ours needs the generation. Changes nothing."""

    def withdraw(self, project: Project, number: int) -> None:
        """Note that a generation without sessions is about to go, and give others what they need of it.

        No clone is made meanwhile. InUse as by `require_free_generation`.
        """

    def remove_generation(self, project: Project, number: int) -> None:
        """Remove a generation that was withdrawn. Takes long where it is a tree of files."""

    def rebase(self, project: str, number: int, session: Session) -> None:
        """Have the session that a generation was made from count as a clone of that."""

    def claim(self, project: str, number: int, session: Session) -> None:
        """Note that there is to be a session, durably, so that its generation stays. Exists when there is one."""

    def fill(self, project: str, number: int, session: Session) -> None:
        """Clone the generation for the session that was claimed, and mark it complete. May take long."""

    def default_path(self, project: str, session: str) -> str:
        """Where a session is seen that names no path."""

    def tree(self, project: str, session: Session) -> Path:
        """Where the files of a session are while it is mounted."""

    def mount(self, project: str, session: Session) -> None:
        """Have the session seen at its path, where there is an empty folder."""

    def unmount(self, project: str, session: Session) -> None:
        """Have it seen there no longer; InUse when it is in use."""

    def require_free_session(self, project: str, session: Session) -> None:
        """Refuse, InUse, what would keep a session from being removed, but for what uses its mount. Changes nothing."""

    def remove_session(self, project: str, session: Session) -> None:
        """Remove a session that is not mounted, also a half-made one."""

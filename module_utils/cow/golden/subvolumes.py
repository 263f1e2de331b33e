"""Golden trees on btrfs: a generation is a read-only subvolume, a session a writable snapshot of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from .. import btrfs
from ..btrfs import Btrfs
from ..errors import CowError
from .folders import Folders
from .model import COMPLETE, Session
from .refusals import InUse


@dataclass(frozen=True)
class Subvolumes(Folders):
    """The backend btrfs."""

    name: str = "btrfs"
    atomic: bool = True
    tool: Btrfs = field(default_factory=Btrfs)

    def capture(self, project: str, number: int, session: Session) -> None:
        """Take a read-only snapshot, which leaves nothing out."""
        tree = self._session_folder(project, session.name)
        if inner := btrfs.nested(tree):
            raise InUse(
                f"Session {session.name} has subvolumes in it, which a snapshot would leave out: {inner[0].path}. "
                f"Delete them, or make them folders."
            )
        super().capture(project, number, session)

    def claim(self, project: str, number: int, session: Session) -> None:
        """Write the marker, then take the snapshot, which is one step and on the disk when it is taken.

        `fill` has nothing left to do. Killed in between, this leaves a session that is gone.
        """
        self._claim(project, number, session, COMPLETE)
        tree = self._session_folder(project, session.name)
        try:
            self._clone_tree(self._generation(project, number), tree, readonly=False)
        except CowError:
            with contextlib.suppress(OSError):
                self._unmark(project, "session", session.name)
            raise

    def fill(self, project: str, number: int, session: Session) -> None:
        """Nothing is left to do."""

    def _fill_from(self, source: Path, tree: Path) -> None:
        self.tool.create(tree)
        super()._fill_from(source, tree)

    def _clone_tree(self, source: Path, tree: Path, *, readonly: bool) -> None:
        self.tool.snapshot(source, tree, readonly=readonly)

    def _settle(self, tree: Path) -> None:
        super()._settle(tree)
        self.tool.set_readonly(tree, readonly=True)

    def _remove_tree(self, tree: Path) -> None:
        if btrfs.at(tree) is None:
            return
        for inner in btrfs.nested(tree):
            self.tool.delete(inner.path)
        self.tool.delete(tree)

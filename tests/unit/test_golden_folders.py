"""Golden trees in folders: what is left when something else changes a tree, and what others can do meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from ansible.module_utils.cow.golden import extents, fingerprint
from ansible.module_utils.cow.golden.folders import Folders
from ansible.module_utils.cow.golden.model import COMPLETE, REMOVING, Session
from ansible.module_utils.cow.golden.refusals import NotThere, Refusal
from ansible.module_utils.cow.golden.store import Source, Store

_first: list[str] = []
_hooks: list[object] = []


def _remove_first(event: str, args: tuple[object, ...]) -> None:
    """Remove a file right before somebody else removes it."""
    if event == "os.remove" and _first and str(args[0]).endswith(Path(_first[0]).name):
        os.unlink(_first.pop())  # noqa: PTH108


@contextmanager
def removed_meanwhile(path: Path) -> Iterator[None]:
    if _remove_first not in _hooks:
        _hooks.append(_remove_first)
        sys.addaudithook(_remove_first)
    _first.append(str(path))
    yield
    assert not _first


def test_a_file_that_goes_meanwhile_does_not_keep_the_rest(tmp_path: Path) -> None:
    backend = Folders(str(tmp_path))
    backend.create_project("p")
    session = Session("a", 1, "making", backend.default_path("p", "a"))
    backend.claim("p", 1, session)
    tree = Path(session.path)
    (tree / "folder").mkdir(parents=True)
    for name in ("folder/first", "folder/more", "more"):
        (tree / name).touch()
    with removed_meanwhile(tree / "folder/first"):
        backend.remove_session("p", session)
    assert not tree.exists()
    project = backend.read("p")
    assert project
    assert project.sessions == ()


@dataclass(frozen=True)
class Meanwhile(Folders):
    """Makes a session whenever a generation goes to the disk, or is deleted."""

    seen: list[tuple[str, str, int | None]] = field(default_factory=list)

    def _settle(self, tree: Path) -> None:
        self._clone("settle")
        super()._settle(tree)

    def _remove_tree(self, tree: Path) -> None:
        self._clone("remove")
        super()._remove_tree(tree)

    def _clone(self, what: str) -> None:
        project = self.read("p")
        if project and project.current:
            made = Store(Folders(self.location)).clone("p", f"s{len(self.seen)}")
            self.seen.append((what, project.generations[0].state, made.generation))


def begun(backend: Folders, folder: Path) -> Store:
    """A store with generation 1 of a project."""
    source, store = folder / "source", Store(backend)
    source.mkdir()
    (source / "file").write_text("first\n")
    store.create_project("p")
    store.promote("p", 1, Source(source), fingerprint.of(source), None)
    return store


def test_sessions_are_made_while_a_generation_is_written_or_deleted(tmp_path: Path) -> None:
    backend = Meanwhile(str(tmp_path / "store"))
    Path(backend.location).mkdir()
    store = begun(backend, tmp_path)
    source = tmp_path / "source"
    store.promote("p", 2, Source(source), fingerprint.of(source), 1)
    assert backend.seen == [("settle", COMPLETE, 1)]
    store.destroy("p", "s0")
    backend.seen.clear()
    store.remove_generation("p", 1, COMPLETE)
    assert backend.seen == [("remove", REMOVING, 2)]
    assert [each.number for each in store.project("p").generations] == [2]
    assert (tmp_path / "store/p/sessions/s0/file").read_text() == "first\n"


def test_a_session_that_is_not_mounted_any_more_is_not_captured(tmp_path: Path) -> None:
    """Though it was when the promotion was planned."""
    backend = Folders(str(tmp_path / "store"))
    Path(backend.location).mkdir()
    store = begun(backend, tmp_path)
    elsewhere = Session("a", 1, COMPLETE, str(tmp_path / "elsewhere"))
    backend.claim("p", 1, elsewhere)
    backend.fill("p", 1, elsewhere)
    seen = fingerprint.of(tmp_path / "store/p/sessions/a")
    with pytest.raises(Refusal, match="is not mounted at "):
        store.promote("p", 2, Source(session="a"), seen, 1)
    assert [each.number for each in store.project("p").generations] == [1]


def test_a_tree_that_is_gone(tmp_path: Path) -> None:
    assert extents.measure(tmp_path / "none") is None
    with pytest.raises(NotThere, match="does not exist"):
        fingerprint.of(tmp_path / "none")


def test_names_that_are_gone_before_they_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not count, and the tree is like no other one."""
    for name in ("file", "link"):
        (tmp_path / name).write_bytes(bytes(100_000))
    (tmp_path / "folder").mkdir()
    whole = extents.measure(tmp_path)
    assert whole
    walk = os.fwalk

    def with_more(*args: str) -> Iterator[tuple[str | bytes, list[str | bytes], list[str | bytes], int]]:
        for path, folders, names, descriptor in walk(*args):
            gone = b"gone" if isinstance(path, bytes) else "gone"
            yield path, [*folders, gone], [*names, gone], descriptor

    monkeypatch.setattr(os, "fwalk", with_more)
    assert extents.measure(tmp_path) == whole
    assert fingerprint.of(tmp_path) != fingerprint.of(tmp_path)

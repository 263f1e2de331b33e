"""Golden trees in folders: what is left when something else changes a tree while it goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.cow.golden.folders import Folders
from ansible.module_utils.cow.golden.model import Session

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

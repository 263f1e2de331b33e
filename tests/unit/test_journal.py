from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.journal import Journal
from hypothesis import given
from hypothesis import strategies as st

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
documents = st.dictionaries(
    st.text(),
    st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8),
    max_size=5,
)

CALLS = [(os, "open"), (os, "fdopen"), (os, "fsync"), (os, "close"), (Path, "mkdir"), (Path, "replace")]
"""The calls between which a write can be cut off."""


class Crash(BaseException):
    """The end of the process, for what the code under test can tell."""


@contextmanager
def journal() -> Iterator[Journal]:
    with TemporaryDirectory() as folder:
        yield Journal(Path(folder, "state", "work.journal"), "work")


@contextmanager
def crash_at(number: int) -> Iterator[list[str]]:
    """Crash before the call with this number, counted over CALLS from 0; gives the names of the calls made."""
    made: list[str] = []

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if len(made) == number:
                raise Crash
            made.append(name)
            return original(*args, **options)

        return call

    patches = [mock.patch.object(owner, name, counted(name, getattr(owner, name))) for owner, name in CALLS]
    for patch in patches:
        patch.start()
    try:
        yield made
    finally:
        for patch in patches:
            patch.stop()


def calls_of_a_write() -> int:
    with journal() as work, crash_at(-1) as made:
        work.write({})
    assert {"open", "fdopen", "fsync", "replace"} <= set(made)
    return len(made)


def same(one: object, other: object) -> bool:
    """Equal also in what Python's == passes over: True is not 1."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(documents)
def test_what_is_read_is_what_was_written(document: dict[str, Any]) -> None:
    with journal() as work:
        assert work.read() is None
        work.write(document)
        assert same(work.read(), document)
        work.remove()
        assert work.read() is None
        work.remove()


@given(st.lists(st.tuples(documents, st.integers(0, calls_of_a_write())), min_size=1, max_size=6))
def test_after_a_crash_it_is_one_of_the_states_written(writes: list[tuple[dict[str, Any], int]]) -> None:
    with journal() as work:
        before = None
        for document, crash in writes:
            ended = False
            with suppress(Crash), crash_at(crash):
                work.write(document)
                ended = True
            found = work.read()
            assert same(found, document) or (not ended and same(found, before))
            before = found


@given(documents, st.data())
def test_damage_is_refused(document: dict[str, Any], data: st.DataObject) -> None:
    with journal() as work:
        work.write(document)
        raw = work.path.read_bytes()
        start = data.draw(st.integers(0, len(raw) - 1), "start")
        length = data.draw(st.integers(0, len(raw) - start), "length")
        damaged = raw[:start] + data.draw(st.binary(max_size=8), "put in") + raw[start + length :]
        work.path.write_bytes(damaged)
        with suppress(CowError):
            # White space, and escapes that mean the same character, are no damage.
            assert same(work.read(), document)
        assert work.path.read_bytes() == damaged


@given(st.binary())
def test_any_bytes_are_refused(raw: bytes) -> None:
    with journal() as work:
        work.path.parent.mkdir()
        work.path.write_bytes(raw)
        with pytest.raises(CowError, match="is damaged"):
            work.read()


def test_other_work_and_newer_formats_are_refused() -> None:
    with journal() as work:
        work.write({"step": 1})
        with pytest.raises(CowError, match=r"belongs to other work \(work, not other\)"):
            Journal(work.path, "other").read()
        envelope = json.loads(work.path.read_bytes())
        work.path.write_text(json.dumps({**envelope, "format": 2}))
        with pytest.raises(CowError, match="has format 2"):
            work.read()


def test_only_its_owner_may_read_it() -> None:
    with journal() as work:
        work.write({})
        assert stat.S_IMODE(work.path.stat().st_mode) == 0o600


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CowError, match="cannot be written: File exists"):
        Journal(tmp_path / "file" / "journal", "work").write({})
    with pytest.raises(CowError, match="cannot be read: Is a directory"):
        Journal(tmp_path, "work").read()

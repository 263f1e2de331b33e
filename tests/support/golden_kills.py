"""Operations on golden trees that are killed before each change that they make, and what has to hold after that.

Each operation is run again and again, killed one change later each time, until it comes to its end. After each kill
five live sessions have to be as they were, and garbage collection has to leave nothing that is half done. The first
promotion of all begins with an empty store each time, and has to come to its end when it is asked for again.

It needs nothing but the standard library, as `golden_trees`.
"""

from __future__ import annotations

import itertools
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import golden_trees
from .golden_trees import Store, content

LIVE = tuple(f"live{number}" for number in range(5))
Trees = dict[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Kill:
    """One run that was killed, and after which all was as it has to be.

    before: the change that it did not come to. done: whether what was asked for had come to pass already.
    """

    before: str
    done: bool


@dataclass(frozen=True)
class Outcome:
    """The kills after which all was whole, and what was wrong after the next one; "" when that was the end."""

    backend: str
    operation: str
    kills: tuple[Kill, ...]
    failure: str = ""

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Outcome:
        """One that was printed."""
        return cls(**{**given, "kills": tuple(Kill(**kill) for kill in given["kills"])})


def live_sessions(store: Store) -> Trees:
    """Five sessions, each with something of its own."""
    for name in LIVE:
        (store.clone(name) / "own").write_text(name)
    return trees_of(store, LIVE)


def trees_of(store: Store, names: tuple[str, ...]) -> Trees:
    """The content of sessions by name."""
    return {name: content(store.seen(store.path(name))) for name in names}


def recovered(store: Store) -> dict[str, Any]:
    """Collect garbage, after which nothing is left that is half done; returns what is there."""
    report = store.run("gc", "--grace", 0, "--keep", 3)
    assert report["failed"] == []
    project = store.project()
    states = {each["state"] for each in (*project["generations"], *project["sessions"])}
    assert states == {"complete"}, (report, project)
    return project


def promote_first(store: Store) -> Iterator[Kill]:
    """The store and the project are as they were or are begun, and the same promotion goes on from there."""
    source = store.source()
    tree = content(source)
    for step in itertools.count(1):
        empty = store.inner(f"empty{step}")
        before = _killed(empty, step, "promote", "p", "--source", source)
        projects = empty.run("list", "--no-sizes")["projects"]
        done = [each["current"] for each in projects] == [1]
        printed = empty.run("promote", "p", "--source", source)
        assert printed["changed"] is not done
        assert content(empty.clone("new")) == tree
        assert recovered(empty)["current"] == printed["current"]
        empty.run("destroy", "p", "new")
        if before is None:
            assert done
            return
        yield Kill(before, done)


def promote_session(store: Store) -> Iterator[Kill]:
    """The old or the new generation is current, and whole."""
    generations: dict[int, Mapping[str, Any]] = {1: content(store.begin())}
    live = live_sessions(store)
    for step in itertools.count(1):
        (store.seen(store.path("live0")) / "step").write_text(f"{step}\n")
        live |= trees_of(store, ("live0",))
        old, before = max(generations), _killed(store, step, "promote", "p", "live0")
        current = _after_promotion(store, live, generations, live["live0"])
        if before is None:
            assert current > old
            return
        yield Kill(before, done=current > old)


def promote_folder(store: Store) -> Iterator[Kill]:
    """The old or the new generation is current, and whole."""
    source = store.begin()
    generations: dict[int, Mapping[str, Any]] = {1: content(source)}
    live = live_sessions(store)
    for step in itertools.count(1):
        _write(source, step)
        old, before = max(generations), _killed(store, step, "promote", "p", "--source", source)
        current = _after_promotion(store, live, generations, content(source))
        if before is None:
            assert current > old
            return
        yield Kill(before, done=current > old)


def clone(store: Store) -> Iterator[Kill]:
    """The session is there and whole, or can be made."""
    tree = content(store.begin())
    live = live_sessions(store)
    for step in itertools.count(1):
        before = _killed(store, step, "clone", "p", "new", "--at", store.path("new"))
        assert trees_of(store, LIVE) == live
        if is_there := _has(recovered(store), "new"):
            store.run("mount", "p", "new")
        else:
            store.clone("new")
        assert content(store.seen(store.path("new"))) == tree
        store.run("destroy", "p", "new")
        if before is None:
            assert is_there
            return
        yield Kill(before, done=is_there)


def destroy(store: Store) -> Iterator[Kill]:
    """The session is gone, or is there with all that was written in it."""
    store.begin()
    live = live_sessions(store)
    for step in itertools.count(1):
        (store.clone("old") / "own").touch()
        before = _killed(store, step, "destroy", "p", "old")
        assert trees_of(store, LIVE) == live
        if is_there := _has(recovered(store), "old"):
            store.run("mount", "p", "old")
            assert (store.seen(store.path("old")) / "own").exists()
            store.run("destroy", "p", "old")
        if before is None:
            assert not is_there
            return
        yield Kill(before, done=not is_there)


def collect(store: Store) -> Iterator[Kill]:
    """The current generation stays, and so does the one that the sessions are of."""
    source = store.begin()
    live = live_sessions(store)
    for step in itertools.count(0):
        _write(source, step)
        current = store.run("promote", "p", "--source", source, "--keep", 9)["current"]
        if not step:
            continue
        before = _killed(store, step, "gc", "--grace", 0, "--keep", 1)
        assert trees_of(store, LIVE) == live
        left = {each["number"] for each in store.project()["generations"]}
        assert recovered(store)["current"] == current
        assert content(store.clone("new")) == content(source)
        store.run("destroy", "p", "new")
        if before is None:
            assert left == {1, current}
            return
        yield Kill(before, done=left == {1, current})


OPERATIONS: dict[str, Callable[[Store], Iterator[Kill]]] = {
    "first promotion": promote_first,
    "promote a session": promote_session,
    "promote a folder": promote_folder,
    "clone": clone,
    "destroy": destroy,
    "gc": collect,
}


def outcome(store: Store, operation: str) -> Outcome:
    """Kill an operation until it comes to its end, or something is not as it has to be."""
    kills: list[Kill] = []
    try:
        kills.extend(OPERATIONS[operation](store))
    except AssertionError:
        return Outcome(store.backend, operation, tuple(kills), traceback.format_exc())
    return Outcome(store.backend, operation, tuple(kills))


def _killed(store: Store, change: int, *argv: str | Path | int) -> str | None:
    """Run cow-session and kill it before a change; returns that one in words, None where it ended by itself."""
    finished = store.execute(*argv, killed_before=change)
    assert finished.returncode in {0, -signal.SIGKILL, 128 + signal.SIGKILL}, f"{finished.stdout}{finished.stderr}"
    return finished.stderr if finished.returncode else None


def _after_promotion(
    store: Store, live: Trees, generations: dict[int, Mapping[str, Any]], promoted: Mapping[str, Any]
) -> int:
    """The newest known or a new generation is current and whole, and sessions are as they were; before and after gc.

    Returns the current one, which is in `generations` then.
    """
    assert trees_of(store, LIVE) == live
    current: int = store.run("clone", "p", "new", "--at", store.path("new"))["generation"]
    assert current >= max(generations)
    generations.setdefault(current, promoted)
    assert content(store.seen(store.path("new"))) == generations[current]
    assert recovered(store)["current"] == current
    assert trees_of(store, (*LIVE, "new")) == {**live, "new": generations[current]}
    store.run("destroy", "p", "new")
    return current


def _write(source: Path, step: int) -> None:
    (source / "step").write_text(f"{step}\n")
    golden_trees.keep_whole_seconds(source)


def _has(project: Mapping[str, Any], session: str) -> bool:
    return session in [each["name"] for each in project["sessions"]]

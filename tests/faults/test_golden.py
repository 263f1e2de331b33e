"""Golden trees when things go wrong: killed at each step, two at once, no space, markers that are missing."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden
from tests.support.golden import Place, Store, content

KILLED = Path(golden.__file__).with_name("killed.py")
LIVE = [f"live{number}" for number in range(5)]
Trees = dict[str, dict[str, tuple[Any, ...]]]


@pytest.fixture(scope="module", params=("btrfs", "copy", "zfs"))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with golden.place(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with golden.store(place) as made:
        yield made


def run_killed(store: Store, before: int, *argv: str | Path | int) -> bool:
    """Run cow-session and kill it before a change; returns whether it was killed, not having ended by itself."""
    own = len(store.within)
    command = store.command(*argv)
    finished = subprocess.run(
        [*command[:own], sys.executable, "-P", KILLED, str(before), *command[own + 1 :]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode in {0, -signal.SIGKILL, 128 + signal.SIGKILL}, f"{finished.stdout}{finished.stderr}"
    return finished.returncode != 0


def live_sessions(store: Store) -> Trees:
    """Five sessions, each with something of its own."""
    for name in LIVE:
        (store.clone(name) / "own").write_text(name)
    return trees_of(store, LIVE)


def trees_of(store: Store, names: list[str]) -> Trees:
    return {name: content(store.seen(store.path(name))) for name in names}


def recovered(store: Store) -> dict[str, Any]:
    """Collect garbage, after which nothing is left that is half done; returns what is there."""
    report = store.run("gc", "--grace", 0, "--keep", 3)
    assert report["failed"] == []
    project = store.project()
    states = {each["state"] for each in (*project["generations"], *project["sessions"])}
    assert states == {"complete"}, (report, project)
    return project


def test_killed_at_each_step_of_a_promotion_of_a_session(store: Store) -> None:
    source = store.begin()
    current, live = 1, live_sessions(store)
    generations: dict[int, Mapping[str, Any]] = {1: content(source)}
    for step in itertools.count(1):
        (store.seen(store.path("live0")) / "step").write_text(f"{step}\n")
        live |= trees_of(store, ["live0"])
        old, was_killed = current, run_killed(store, step, "promote", "p", "live0")
        current = after_a_kill(store, old, live, generations, live["live0"])
        if not was_killed:
            break
    assert step > 5
    assert current > old


def test_killed_at_each_step_of_a_promotion_of_a_folder(store: Store) -> None:
    source = store.begin()
    current, live = 1, live_sessions(store)
    generations: dict[int, Mapping[str, Any]] = {1: content(source)}
    for step in itertools.count(1):
        (source / "step").write_text(f"{step}\n")
        golden.keep_whole_seconds(source)
        old, was_killed = current, run_killed(store, step, "promote", "p", "--source", source)
        current = after_a_kill(store, old, live, generations, content(source))
        if not was_killed:
            break
    assert step > 5
    assert current > old


def after_a_kill(
    store: Store, old: int, live: Trees, generations: dict[int, Mapping[str, Any]], promoted: Mapping[str, Any]
) -> int:
    """The old or the new generation is current and whole, and the sessions are as they were; before and after gc.

    Returns the current one.
    """
    assert trees_of(store, LIVE) == live
    current: int = store.run("clone", "p", "new", "--at", store.path("new"))["generation"]
    assert current >= old
    if current != old:
        generations[current] = promoted
    assert content(store.seen(store.path("new"))) == generations[current]
    assert recovered(store)["current"] == current
    assert trees_of(store, [*LIVE, "new"]) == {**live, "new": generations[current]}
    store.run("destroy", "p", "new")
    return current


def test_killed_at_each_step_of_a_clone(store: Store) -> None:
    source = store.begin()
    live = live_sessions(store)
    for step in itertools.count(1):
        was_killed = run_killed(store, step, "clone", "p", "new", "--at", store.path("new"))
        assert trees_of(store, LIVE) == live
        if "new" in [each["name"] for each in recovered(store)["sessions"]]:
            store.run("mount", "p", "new")
            assert content(store.seen(store.path("new"))) == content(source)
            store.run("destroy", "p", "new")
        if not was_killed:
            break
    assert step > 2


def test_killed_at_each_step_of_a_destruction(store: Store) -> None:
    store.begin()
    live = live_sessions(store)
    for step in itertools.count(1):
        (store.clone("old") / "own").touch()
        was_killed = run_killed(store, step, "destroy", "p", "old")
        assert trees_of(store, LIVE) == live
        if "old" in [each["name"] for each in recovered(store)["sessions"]]:
            store.run("mount", "p", "old")
            assert (store.seen(store.path("old")) / "own").exists()
            store.run("destroy", "p", "old")
        if not was_killed:
            break
    assert step > 1


def test_killed_at_each_step_of_garbage_collection(store: Store) -> None:
    source = store.begin()
    live = live_sessions(store)
    for step in itertools.count(0):
        (source / "step").write_text(f"{step}\n")
        golden.keep_whole_seconds(source)
        current = store.run("promote", "p", "--source", source, "--keep", 9)["current"]
        if not step:
            continue
        was_killed = run_killed(store, step, "gc", "--grace", 0, "--keep", 1)
        assert trees_of(store, LIVE) == live
        assert recovered(store)["current"] == current
        assert content(store.clone("new")) == content(source)
        store.run("destroy", "p", "new")
        if not was_killed:
            break
    assert step > 3


def test_two_promotions_at_once(store: Store) -> None:
    store.begin()
    live = live_sessions(store)
    done = golden.together([store.command("promote", "p", name) for name in LIVE[:3]])
    assert {status for status, _ in done} <= {0, 5}
    promoted = [name for name, (status, _) in zip(LIVE, done, strict=False) if status == 0]
    assert promoted
    assert store.current() == 1 + len(promoted)
    assert content(store.clone("new")) in [live[name] for name in promoted]
    assert trees_of(store, LIVE) == live
    recovered(store)


def test_clones_during_a_promotion(store: Store) -> None:
    source = store.begin()
    before = content(source)
    for number in range(40):
        (source / f"more{number}").write_bytes(bytes(100_000))
    golden.keep_whole_seconds(source)
    clones = [store.command("clone", "p", f"s{n}", "--at", store.path(f"s{n}")) for n in range(8)]
    done = golden.together([store.command("promote", "p", "--source", source), *clones])
    assert [status for status, _ in done] == [0] * 9
    for number in range(8):
        assert content(store.seen(store.path(f"s{number}"))) in (before, content(source))
    assert store.current() == 2


def test_no_space(store: Store) -> None:
    """The last bytes are taken: what was promised stays, new sessions are refused, and it works again with space."""
    source = store.begin()
    live = live_sessions(store)
    (source / "large").write_bytes(b"\1" * 8_000_000)
    golden.keep_whole_seconds(source)
    with golden.filled(store):
        assert store.run("promote", "p", "--source", source, status=1)["error"] == "refused"
        refusal = store.run("clone", "p", "new", "--at", store.path("new"), status=6)
        assert "are to stay free" in refusal["msg"]
        assert store.current() == 1
        assert trees_of(store, LIVE) == live
        store.run("destroy", "p", LIVE[4])
        assert trees_of(store, LIVE[:4]) == {name: live[name] for name in LIVE[:4]}
    recovered(store)
    assert store.run("promote", "p", "--source", source)["current"] == 2
    assert content(store.clone("new")) == content(source)


def test_missing_markers_are_reported(store: Store) -> None:
    source = store.begin()
    live = live_sessions(store)
    (source / "text").write_text("second\n")
    store.run("promote", "p", "--source", source)
    store.run("destroy", "p", LIVE[4])
    golden.forget(store, "session", LIVE[0])
    golden.forget(store, "generation", "1")
    for dry_run in ([], ["--dry-run"]):
        report = store.run("gc", "--grace", 0, "--keep", 1, *dry_run)
        assert report["failed"] == []
        assert {each["what"] for each in report["reported"]} == {f"session {LIVE[0]} of p", "generation 1 of p"}
        assert not report.get("removed", report.get("would_remove"))
    assert "has no marker" in store.run("destroy", "p", LIVE[0], status=1)["msg"]
    assert "Its state is unmarked" in store.run("clone", "p", "new", "--generation", 1, status=3)["msg"]
    assert store.module("golden_cache", project="p", state="absent").get("failed")
    kept = LIVE[:4]
    assert trees_of(store, kept) == {name: live[name] for name in kept}

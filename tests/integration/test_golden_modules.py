"""golden_cache, golden_session, golden_cache_info and golden_command as Ansible runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden, golden_trees
from tests.support.ansible import four_runs, run_module
from tests.support.golden import Place, Store
from tests.support.golden_trees import content


@pytest.fixture(scope="module", params=("btrfs", "zfs"))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with golden.place(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def refused(store: Store, name: str, /, **args: Any) -> str:
    """The message of a run that fails and changes nothing, the same in check mode."""
    before = store.state()
    in_check, in_run = (store.module(name, check, **args) for check in (True, False))
    assert in_run["failed"], in_run
    assert in_check["msg"] == in_run["msg"]
    assert store.state() == before
    return str(in_run["msg"])


def test_a_project_from_a_folder(store: Store) -> None:
    source = golden_trees.tree(store.folder / "source", whole_seconds=store.whole_seconds)
    runs = store.four("golden_cache", project="p", source=source, expect=store.place.backend)
    assert runs.do["steps"] == [
        f"create golden project p in {store.location} ({store.place.backend})",
        f"make generation 1 of p from {source}, and make it current",
    ]
    assert runs.check["current"] is None
    for result in (runs.do, runs.again):
        assert (result["backend"], result["current"]) == (store.place.backend, 1)
        (generation,) = result["generations"]
        assert (generation["state"], generation["source"], generation["sessions"]) == (
            "complete",
            f"directory:{source}",
            [],
        )
        assert generation["created"].endswith("Z")
    assert content(store.clone("alice")) == content(source)


def test_generations_from_folders_and_sessions(store: Store) -> None:
    source = store.begin()
    alice = store.clone("alice")
    (alice / "new").touch()
    promoted = store.four("golden_cache", project="p", session="alice")
    assert promoted.do["steps"] == ["make generation 2 of p from session alice, and make it current"]
    assert promoted.do["diff"][0]["before"] == "current: 1\n"
    (source / "text").write_text("third\n")
    third = store.four("golden_cache", project="p", source=source, keep=1)
    assert third.do["steps"] == [
        f"make generation 3 of p from {source}, and make it current",
        "remove superseded generation 1 of p",
    ]
    assert [each["number"] for each in third.again["generations"]] == [2, 3]


def test_a_generation_and_a_project_are_removed(store: Store) -> None:
    source = store.begin()
    store.clone("alice")
    (source / "text").write_text("second\n")
    store.module("golden_cache", project="p", source=source)
    assert "has sessions: alice" in refused(store, "golden_cache", project="p", generation=1, state="absent")
    assert "is current" in refused(store, "golden_cache", project="p", generation=2, state="absent")
    assert "has sessions: alice" in refused(store, "golden_cache", project="p", state="absent")
    store.run("destroy", "p", "alice")
    one = store.four("golden_cache", project="p", generation=1, state="absent")
    assert one.do["steps"] == ["remove generation 1 of p"]
    everything = store.four("golden_cache", project="p", state="absent")
    assert everything.do["steps"] == ["remove golden project p with 1 generations"]
    assert everything.again["generations"] == []


def test_a_session(store: Store) -> None:
    source = store.begin()
    path = store.path("alice")
    made = store.four("golden_session", project="p", name="alice", path=path)
    assert made.do["steps"] == [f"clone generation 1 of p for session alice at {path}"]
    assert "path" not in made.check
    for result in (made.do, made.again):
        found = (result["name"], result["generation"], result["path"], result["mounted"], result["backend"])
        assert found == ("alice", 1, str(path), True, store.place.backend)
    assert content(store.seen(path)) == content(source)
    (store.seen(path) / "own").touch()
    store.unmount_all()
    again = store.four("golden_session", project="p", name="alice")
    assert again.do["steps"] == [f"mount session alice of p at {path}"]
    assert (store.seen(path) / "own").exists()
    gone = store.four("golden_session", project="p", name="alice", state="absent")
    assert gone.do["steps"] == ["destroy session alice of p"]
    assert not store.seen(path).exists()


def test_a_session_is_refused(store: Store) -> None:
    source = store.begin()
    path = store.path("alice")
    asked = {"project": "p", "name": "alice"}
    assert "no project none" in refused(store, "golden_session", project="none", name="alice")
    assert "no complete generation 7" in refused(store, "golden_session", **asked, generation=7)
    assert "is not empty" in refused(store, "golden_session", **asked, path=source)
    assert "are to stay free" in refused(store, "golden_session", **asked, path=path, reserve="100%")
    assert "is not a size" in refused(store, "golden_session", **asked, reserve="some")
    for name in ("a/b", "..", "-a", ""):
        assert "cannot be the name of a session" in refused(store, "golden_session", project="p", name=name)
    store.clone("alice")
    assert f"is at {path}" in refused(store, "golden_session", **asked, path=store.path("other"))
    (source / "text").write_text("second\n")
    store.module("golden_cache", project="p", source=source)
    assert "is a clone of generation 1" in refused(store, "golden_session", **asked, generation=2)


def test_a_session_without_a_marker_is_not_destroyed(store: Store) -> None:
    store.begin()
    store.clone("alice")
    golden.forget(store, "session", "alice")
    assert "has no marker" in refused(store, "golden_session", project="p", name="alice", state="absent")


def test_a_source_is_refused(store: Store) -> None:
    store.begin()
    assert "/nonexistent does not exist" in refused(store, "golden_cache", project="p", source="/nonexistent")
    assert "no session none" in refused(store, "golden_cache", project="p", session="none")
    assert "no project none" in refused(store, "golden_cache", project="none", session="a")
    assert "Give 1 or more" in refused(store, "golden_cache", project="p", keep=0)
    assert "state: absent only" in refused(store, "golden_cache", project="p", generation=1)
    assert "mutually exclusive" in refused(store, "golden_cache", project="p", session="a", source="/tmp")
    store.clone("alice")
    store.unmount_all()
    assert "is not mounted" in refused(store, "golden_cache", project="p", session="alice")
    if not store.place.fuse:
        assert "in one another" in refused(store, "golden_cache", project="p", source=f"{store.location}/p")


def test_info(store: Store) -> None:
    store.begin()
    store.clone("alice")
    info = store.module("golden_cache_info")
    assert (info["changed"], info["backend"], info["store"]) == (False, store.place.backend, store.location)
    assert 0 < info["free_bytes"] < info["total_bytes"]
    (project,) = info["projects"]
    assert (project["name"], project["current"], project["foreign"]) == ("p", 1, [])
    assert project["generations"][0]["sessions"] == ["alice"]
    (session,) = project["sessions"]
    assert (session["name"], session["generation"], session["state"], session["mounted"]) == (
        "alice",
        1,
        "complete",
        True,
    )
    assert session["apparent_bytes"] == session["exclusive_bytes"] + session["shared_bytes"]
    without = store.module("golden_cache_info", project="p", sizes=False)["projects"][0]["sessions"][0]
    assert (without["apparent_bytes"], without["exclusive_bytes"]) == (None, None)
    assert "no project none" in refused(store, "golden_cache_info", project="none")


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "cow-session"
    made = four_runs("golden_command", {"path": str(path)}, state=lambda: sorted(tmp_path.iterdir()))
    assert made.do["steps"] == [f"write {path}"]
    assert made.again["sha256"] == made.do["sha256"]
    assert subprocess.run([path, "--help"], capture_output=True, check=False).returncode == 0
    assert subprocess.run([path], capture_output=True, check=False).returncode == 2
    path.chmod(0o700)
    assert run_module("golden_command", {"path": str(path)})["changed"]
    assert path.stat().st_mode & 0o777 == 0o755
    gone = four_runs("golden_command", {"path": str(path), "state": "absent"})
    assert gone.do["steps"] == [f"remove {path}"]
    path.write_text("#!/bin/sh\n")
    for state in ("present", "absent"):
        assert "is another program" in run_module("golden_command", {"path": str(path), "state": state})["msg"]
    assert "does not exist" in run_module("golden_command", {"path": str(tmp_path / "none" / "x")})["msg"]


def test_the_configuration(tmp_path: Path) -> None:
    path, configuration = tmp_path / "cow-session", tmp_path / "golden.json"
    run_module("golden_command", {"path": str(path)})
    store = tmp_path / "store"
    store.mkdir()

    def said(text: str) -> tuple[int, dict[str, Any]]:
        configuration.write_text(text)
        finished = subprocess.run([path, "--config", configuration, "list"], capture_output=True, check=False)
        return finished.returncode, json.loads(finished.stdout)

    status, printed = said(json.dumps({"store": str(store), "backend": "copy"}))
    assert (status, printed["projects"], printed["backend"]) == (0, [], "copy")
    for text, why in (
        ("{}", "Which store is not said"),
        ("[]", "is not an object"),
        ('{"colour": 1}', "has colour"),
        ("{", "is not JSON"),
        ('{"keep": "3"}', 'has keep: "3". Write a whole number'),
        ('{"grace": true}', "has grace: true. Write a whole number"),
        ('{"backend": "ext4"}', "Write one of auto, zfs"),
        ('{"expect": "auto"}', "Write one of zfs"),
        ('{"reserve": null}', "has reserve: null. Write a size"),
        ('{"store": 1}', "has store: 1. Write a text in quotes"),
    ):
        status, printed = said(text)
        assert status == 1
        assert why in printed["msg"]
    assert list(store.iterdir()) == []

"""Golden trees when things go wrong: killed at each step, two at once, no space, markers that are missing."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import golden, golden_kills, golden_trees, waiting
from tests.support.golden import Place, Store
from tests.support.golden_kills import LIVE, live_sessions, recovered, trees_of
from tests.support.golden_trees import content

FEWEST = {"first promotion": 8, "promote a session": 5, "promote a folder": 5, "clone": 1, "destroy": 1, "gc": 3}
"""Changes that each operation makes at least, whatever the technology."""


IN_PARALLEL = 300
"""Changes of the worker that begins a copy of `add_many`, at which it has handed folders to others."""


@pytest.fixture(scope="module", params=("btrfs", "copy", "zfs"))
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with golden.place(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.mark.parametrize("operation", golden_kills.OPERATIONS)
def test_killed_before_each_change(store: Store, operation: str) -> None:
    kills = list(golden_kills.OPERATIONS[operation](store))
    assert len(kills) >= FEWEST[operation]


@pytest.mark.parametrize("until", [1, 100, IN_PARALLEL])
def test_killed_in_the_middle_of_a_copy(store: Store, until: int) -> None:
    """What is half copied is no generation that a session could be of, and the next run clears it away."""
    source = store.begin()
    before, live = content(source), live_sessions(store)
    add_many(source)
    with store.copying("promote", "p", "--source", source, until=until) as run:
        assert states(store) == {1: "complete", 2: "building"}
        assert content(store.clone("meanwhile")) == before
        kill(store, run)
    assert states(store) == {1: "complete", 2: "building"}
    assert store.current() == 1
    assert trees_of(store, LIVE) == live
    assert content(store.clone("after")) == before
    assert recovered(store)["current"] == 1
    assert states(store) == {1: "complete"}
    assert store.run("promote", "p", "--source", source)["current"] == 2
    assert content(store.clone("new")) == content(source)


def test_a_copy_fails_with_one_of_its_workers(store: Store) -> None:
    """And the next promotion clears away what it left, without garbage collection."""
    source = store.begin()
    before = content(source)
    add_many(source)
    with store.copying("promote", "p", "--source", source, until=IN_PARALLEL) as run:
        os.kill(waiting.until(lambda: processes(run, "T"))[0], signal.SIGKILL)
        printed, _ = run.communicate(timeout=120)
    assert run.returncode == 1
    assert "ended from outside" in json.loads(printed)["msg"]
    assert states(store) == {1: "complete", 2: "building"}
    assert content(store.clone("after")) == before
    printed = store.run("promote", "p", "--source", source)
    assert "remove unfinished generation 2 of p" in printed["steps"]
    assert states(store) == dict.fromkeys((1, printed["current"]), "complete")
    assert content(store.clone("new")) == content(source)


@pytest.mark.parametrize("place", ["copy"], indirect=True)
@pytest.mark.parametrize("until", [1, 100, IN_PARALLEL])
def test_a_session_is_killed_in_the_middle_of_its_copy(store: Store, until: int) -> None:
    """It is not seen at its path, and its name is free again after garbage collection."""
    source = store.begin()
    add_many(source)
    store.run("promote", "p", "--source", source)
    with store.copying("clone", "p", "new", "--at", store.path("new"), until=until) as run:
        assert not store.path("new").exists()
        (session,) = store.project()["sessions"]
        assert (session["state"], session["mounted"]) == ("making", False)
        kill(store, run)
    assert not store.path("new").exists()
    assert "only a complete one" in store.run("mount", "p", "new", status=1)["msg"]
    store.run("promote", "p", "new", status=1)
    assert recovered(store)["sessions"] == []
    assert content(store.clone("new")) == content(source)


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
    golden_trees.keep_whole_seconds(source)
    clones = [store.command("clone", "p", f"s{n}", "--at", store.path(f"s{n}")) for n in range(8)]
    done = golden.together([store.command("promote", "p", "--source", source), *clones])
    assert [status for status, _ in done] == [0] * 9
    for number in range(8):
        assert content(store.seen(store.path(f"s{number}"))) in (before, content(source))
    assert store.current() == 2


def test_sessions_do_not_wait_for_each_other(store: Store) -> None:
    """Not even for one whose name has half the bits of a digest in common."""
    store.begin()
    digest = zlib.crc32(b"alice") & 0xFFFF
    alike = next(name for number in itertools.count() if zlib.crc32((name := f"s{number}").encode()) & 0xFFFF == digest)
    with store.stopped("clone", "p", "alice", "--at", store.path("alice"), before=1 if store.place.fuse else 2):
        store.clone(alike)
        store.run("destroy", "p", alike)
        assert store.run("gc", "--grace", 0)["failed"] == []
    assert store.seen(store.path("alice") / "text").read_text() == "as it was\n"


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
def test_garbage_collection_during_a_promotion(store: Store, dry_run: list[str]) -> None:
    """What is being made is neither removed nor a failure."""
    source = store.begin()
    for text in ("second\n", "third\n"):
        (source / "text").write_text(text)
        golden_trees.keep_whole_seconds(source)
        with store.stopped("promote", "p", "--source", source, before=4 if store.place.fuse else 6):
            states = {each["number"]: each["state"] for each in store.project()["generations"]}
            assert states.pop(max(states)) == "building"
            report = store.run("gc", "--grace", 0, "--keep", 1, *dry_run)
            assert not report.get("removed", report.get("would_remove"))
            assert report["failed"] == []
            reported = {each["what"]: each["why"] for each in report["reported"]}
            assert list(reported) == [
                f"generation {len(states) + 1} of p (building)",
                *(f"generation {number} of p (superseded)" for number in list(states)[:-1]),
            ]
            assert "another run is changing" in reported[f"generation {len(states) + 1} of p (building)"]
    assert store.current() == 3
    assert content(store.clone("new")) == content(source)


def test_a_session_of_what_a_promotion_is_about_to_remove(store: Store) -> None:
    source = store.begin()
    before = content(source)
    (source / "text").write_text("second\n")
    golden_trees.keep_whole_seconds(source)
    with store.stopped("promote", "p", "--source", source, "--keep", 1, before=4 if store.place.fuse else 6) as printed:
        alice = store.clone("alice")
    assert (printed["changed"], printed["current"]) == (True, 2)
    (stays,) = printed["not_removed"]
    assert stays["what"] == "generation 1 of p (superseded)"
    assert "has sessions: alice" in stays["msg"]
    assert states(store) == {1: "complete", 2: "complete"}
    assert content(alice) == before
    again = store.run("promote", "p", "--source", source, "--keep", 1)
    assert (again["changed"], again["not_removed"]) == (False, [])


def test_what_was_left_unfinished_and_has_to_stay(store: Store) -> None:
    """The next promotion takes the number after it."""
    source = store.begin()
    alice = store.clone("alice")
    (alice / "new").touch()
    assert store.execute("promote", "p", "alice", killed_before=3 if store.place.fuse else 12).returncode
    assert states(store) == {1: "complete", 2: "building"}
    with golden.needed(store, 2) as theirs:
        runs = store.four("golden_cache", project="p", session="alice")
        assert runs.do["steps"] == ["make generation 3 of p from session alice, and make it current"]
        for result in (runs.check, runs.do, runs.again):
            (stays,) = result["not_removed"]
            assert stays["what"] == "generation 2 of p (unfinished)"
            assert theirs in stays["msg"]
    assert states(store) == {1: "complete", 2: "building", 3: "complete"}
    assert store.run("promote", "p", "alice")["steps"] == ["remove unfinished generation 2 of p"]
    assert states(store) == {1: "complete", 3: "complete"}
    assert content(store.clone("bob")) == content(alice)
    assert content(store.seen(store.run("clone", "p", "carol", "--generation", 1)["path"])) == content(source)


@pytest.mark.parametrize("place", ["btrfs", "copy"], indirect=True)  # zfs-fuse itself ends under such a writer
def test_a_session_that_is_written_to_is_measured_and_promoted(store: Store) -> None:
    """Files and folders come and go meanwhile. Where a copy is not of one moment, it is refused in words."""
    store.begin()
    with busy(store.clone("alice")):
        for _ in range(10):
            (session,) = store.run("list")["projects"][0]["sessions"]
            assert session["apparent_bytes"] >= 300_000
        for _ in range(5):
            done = store.execute("promote", "p", "alice")
            printed = json.loads(done.stdout)
            assert done.returncode == (1 if store.backend == "copy" else 0), printed
            if store.backend == "copy":
                said = ("changed while it was copied", "cannot be copied")
                assert any(each in printed["msg"] for each in said), printed
    recovered(store)


@contextlib.contextmanager
def busy(folder: Path) -> Iterator[None]:
    """Somebody makes and removes files and folders in it all the time during the block."""
    writer = """
import itertools, shutil, sys
from pathlib import Path
top = Path(sys.argv[1])
for number in itertools.count():
    for name in range(40):
        made = top / f"at{name}" / "in"
        made.mkdir(parents=True)
        (made / "file").write_bytes(bytes(5000))
        (top / f"file{name}").write_bytes(bytes(5000))
        if not number + name:
            print("begun", flush=True)
    for name in range(40):
        (top / f"file{name}").unlink()
        shutil.rmtree(top / f"at{name}")
"""
    with subprocess.Popen([sys.executable, "-c", writer, folder], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        try:
            yield
            assert process.poll() is None
        finally:
            process.kill()


def test_no_space(store: Store) -> None:
    """The last bytes are taken: what was promised stays, new sessions are refused, and it works again with space."""
    source = store.begin()
    live = live_sessions(store)
    (source / "large").write_bytes(b"\1" * 8_000_000)
    golden_trees.keep_whole_seconds(source)
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


@pytest.mark.parametrize("kind", ["generation", "session"])
def test_a_project_with_a_missing_marker_is_not_removed(store: Store, kind: str) -> None:
    """Nor is what of it could be removed."""
    source = store.begin()
    (source / "text").write_text("second\n")
    store.run("promote", "p", "--source", source)
    name = "1"
    if kind == "session":
        store.clone(name := "alice")
    golden.forget(store, kind, name)
    before = store.state()
    for check in (True, False):
        refused = store.module("golden_cache", check, project="p", state="absent")
        assert f"{kind} {name} has no marker" in refused["msg"]
    assert store.state() == before


def test_a_project_with_something_of_others_is_not_removed(store: Store) -> None:
    """A folder or dataset that is named as a generation; and a clone of a generation elsewhere, or a mount of it."""
    source = store.begin()
    (source / "text").write_text("second\n")
    store.run("promote", "p", "--source", source)

    def refusal() -> str:
        before = store.state()
        for check in (True, False):
            msg = store.module("golden_cache", check, project="p", state="absent")["msg"]
        assert store.state() == before
        return str(msg)

    theirs = store.folder / "theirs"
    if fuse := store.place.fuse:
        fuse.run("zfs", "create", f"{store.location}/p/generations/7")
        assert "generations/7 has no marker" in refusal()
        fuse.run("zfs", "destroy", f"{store.location}/p/generations/7")
        fuse.run("zfs", "clone", f"{store.location}/p/generations/2@golden-2", f"{store.location}/theirs")
        assert f"{store.location}/theirs depends on it" in refusal()
        fuse.run("zfs", "destroy", f"{store.location}/theirs")
    else:
        for made in ("generations/7", "generations/07", "sessions/x"):
            folder = Path(store.location, "p", made)
            folder.mkdir()
            (folder / "file").touch()
            assert "has no marker or was not made by" in refusal()
            assert (folder / "file").exists()
            (folder / "file").unlink()
            folder.rmdir()
        for made in ("generations/7", "sessions/x", "markers/note", "note"):
            file = Path(store.location, "p", made)
            file.touch()
            assert f"{file} has no marker or was not made by" in refusal()
            file.unlink()
        theirs.mkdir()
        subprocess.run(["mount", "--bind", Path(store.location, "p/generations/2"), theirs], check=True)
        assert f"mounted at {theirs}" in refusal()
        subprocess.run(["umount", theirs], check=True)
    assert store.module("golden_cache", project="p", state="absent")["changed"]
    assert store.run("list")["projects"] == []


@pytest.mark.parametrize("place", ["zfs"], indirect=True)
def test_a_half_made_or_half_removed_project_goes(store: Store) -> None:
    """Killed before each dataset is made; and what is left when its places are destroyed, but it is not."""
    source = store.source()
    for change in range(1, 5):
        empty = store.inner(f"empty{change}")
        killed = empty.execute("promote", "p", "--source", source, killed_before=change)
        assert killed.stderr == ("zfs set" if change == 1 else "zfs create")
        is_there = change > 2
        assert [each["name"] for each in empty.run("list", "--no-sizes")["projects"]] == ["p"] * is_there
        assert empty.run("gc", "--grace", 0)["failed"] == []
        assert empty.run("mount") == {"mounted": [], "failed": []}
        assert empty.run("clone", "p", "new", "--at", store.path("new"), status=3)["error"] == "absent"
        assert empty.module("golden_cache", project="p", state="absent")["changed"] is is_there
        assert empty.run("list")["projects"] == []
        assert empty.run("promote", "p", "--source", source)["current"] == 1
    assert store.place.fuse
    theirs = store.inner("theirs")
    theirs.execute("promote", "p", "--source", source, killed_before=3)
    store.place.fuse.run("zfs", "create", f"{theirs.location}/p/generations")
    before = store.state()
    refused = theirs.run("promote", "p", "--source", source, status=4)
    assert "was not made by Cowherd" in refused["msg"]
    assert "was not made by Cowherd" in theirs.module("golden_cache", project="p", state="absent")["msg"]
    assert store.state() == before


@pytest.mark.parametrize("place", ["zfs"], indirect=True)
def test_a_generation_with_something_of_others_is_not_removed(store: Store) -> None:
    """A dataset below it; a hold on its snapshot. It can be cloned as before."""
    source = store.begin()
    tree = content(source)
    (source / "text").write_text("second\n")
    golden_trees.keep_whole_seconds(source)
    store.run("promote", "p", "--source", source)
    fuse = store.place.fuse
    assert fuse
    generation = f"{store.location}/p/generations/1"
    snapshot = f"{generation}@golden-1"

    def holds() -> str:
        return fuse.run("zfs", "get", "-H", "-o", "value", "userrefs", snapshot)

    def refusal() -> str:
        before = store.state(), holds()
        (failed,) = store.run("gc", "--grace", 0, "--keep", 1, status=7)["failed"]
        for args in ({"generation": 1}, {}):
            assert store.module("golden_cache", project="p", state="absent", **args).get("failed")
        assert (store.state(), holds()) == before
        store.run("clone", "p", "old", "--generation", 1, "--at", store.path("old"))
        assert content(store.seen(store.path("old"))) == tree
        store.run("destroy", "p", "old")
        return str(failed["msg"])

    fuse.run("zfs", "create", "-o", "mountpoint=none", f"{generation}/x")
    assert f"{generation}/x depends on it" in refusal()
    fuse.run("zfs", "destroy", f"{generation}/x")
    fuse.run("zfs", "hold", "replication", snapshot)
    assert f"hold on {snapshot} was not made by Cowherd" in refusal()
    fuse.run("zfs", "release", "replication", snapshot)
    assert store.run("gc", "--grace", 0, "--keep", 1)["failed"] == []
    assert [each["number"] for each in store.project()["generations"]] == [2]


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


def add_many(source: Path) -> None:
    """Have so many files in a source that all workers copy some, and hard links between those of two."""
    for number in range(40):
        folder = source / f"many{number}"
        folder.mkdir()
        for name in range(30):
            (folder / f"{name}").write_text(f"{number} {name}\n")
        (folder / "link").hardlink_to(source / f"many{number // 2}" / "0")
    golden_trees.keep_whole_seconds(source)


def states(store: Store) -> dict[int, str]:
    """The states of generations by number."""
    return {each["number"]: each["state"] for each in store.project()["generations"]}


def kill(store: Store, run: subprocess.Popen[bytes]) -> None:
    """Kill a run, whose workers end with it by themselves; with zfs-fuse, where it is another's child, all at once."""
    if store.place.fuse:
        os.killpg(run.pid, signal.SIGKILL)
    run.kill()
    run.wait()
    waiting.until(lambda: not processes(run))


def processes(run: subprocess.Popen[bytes], state: str = "") -> list[int]:
    """Those of a run that have not ended, or are in one state of proc_pid_stat(5)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            now, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == run.pid and (now == state if state else now != "Z"):
                found.append(int(stat.parent.name))
    return found

"""Golden trees and sessions on each technology, through cow-session as services call it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import manifest

from tests.support import golden, namespaces, trees, waiting
from tests.support.golden import Place, Store
from tests.support.golden_trees import content


@pytest.fixture(scope="module", params=golden.BACKENDS)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with golden.place(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


def test_a_session_is_a_clone_that_can_be_written(store: Store) -> None:
    source = store.begin()
    alice, bob = store.clone("alice"), store.clone("bob")
    assert content(alice) == content(bob) == content(source)
    assert (alice / "text").stat().st_nlink == 2
    told = {each["d_type"] for each in store.project()["sessions"]}
    assert told == {not store.place.fuse}  # zfs-fuse does not tell kinds
    (alice / "text").write_text("changed\n")
    (alice / "folder" / "deep" / "data").unlink()
    assert content(bob) == content(source)
    assert content(store.clone("carol")) == content(source)


def test_a_generation_is_not_changed_by_whom_its_files_belong_to(store: Store) -> None:
    """In a project that was begun when all could enter, from the next promotion on."""
    source = store.begin()
    if store.place.fuse:
        mounted = store.place.fuse.run("zfs", "get", "-H", "-r", "-o", "value", "mounted", f"{store.location}/p")
        assert "yes" not in mounted.split()
        return
    Path(store.location, "p/generations").chmod(0o755)
    store.run("clone", "p", "alice")
    (store.seen(store.run("clone", "p", "carol")["path"]) / "new").touch()
    store.run("promote", "p", "carol")
    for tree, is_written in (("sessions/alice", True), ("generations/1", False), ("current", False)):
        writing = ["sh", "-c", f"echo more >>p/{tree}/text"]
        done = subprocess.run(writing, cwd=store.location, user=1234, group=4321, capture_output=True, check=False)
        assert (done.returncode == 0) == is_written, tree
    bob = store.run("clone", "p", "bob", "--generation", 1)["path"]
    assert content(store.seen(bob)) == content(source)


def test_a_session_without_a_path_has_one(store: Store) -> None:
    source = store.begin()
    printed = store.run("clone", "p", "alice")
    assert content(store.seen(printed["path"])) == content(source)
    store.run("clone", "p", "alice", status=4)
    store.run("destroy", "p", "alice")
    assert not store.seen(printed["path"]).exists()


def test_a_promoted_session_is_what_new_sessions_start_from(store: Store) -> None:
    source = store.begin()
    alice, bob = store.clone("alice"), store.clone("bob")
    (alice / "new").write_text("of alice\n")
    printed = store.run("promote", "p", "alice")
    assert (printed["changed"], printed["current"]) == (True, 2)
    assert content(store.clone("carol")) == content(alice)
    assert content(bob) == content(source)
    (alice / "later").write_text("not promoted\n")
    assert "later" not in content(store.clone("dave"))
    assert {each["number"]: each["sessions"] for each in store.project()["generations"]} == {
        1: ["bob"],
        2: ["alice", "carol", "dave"],
    }


def test_what_has_not_changed_is_not_promoted_again(store: Store) -> None:
    source = store.begin()
    assert not store.run("promote", "p", "--source", source)["changed"]
    alice = store.clone("alice")
    (alice / "new").touch()
    assert store.run("promote", "p", "alice")["changed"]
    assert not store.run("promote", "p", "alice")["changed"]
    (source / "text").chmod(0o600)
    assert store.run("promote", "p", "--source", source)["current"] == 3


def test_a_source_that_is_a_link_is_followed_once(store: Store) -> None:
    """As builds have it: the link leads to the newest, and what it leads to is what is promoted."""
    source = store.begin()
    link = store.folder / "current"
    link.symlink_to(source.name)
    assert not store.run("promote", "p", "--source", link)["changed"]
    (source / "folder" / "deep" / "script").write_text("changed\n")
    assert store.run("promote", "p", "--source", link)["current"] == 2
    assert (store.clone("alice") / "folder" / "deep" / "script").read_text() == "changed\n"
    link.unlink()
    link.symlink_to(source.name + "/text")
    assert "does not exist" in store.run("promote", "p", "--source", link, status=3)["msg"]
    assert [each["state"] for each in store.project()["generations"]] == ["complete"] * 2


def test_old_generations_go_when_nobody_uses_them(store: Store) -> None:
    source = store.begin()
    store.clone("alice")
    for number in range(2, 6):
        (source / "text").write_text(f"{number}\n")
        assert store.run("promote", "p", "--source", source, "--keep", 2)["current"] == number
    assert [each["number"] for each in store.project()["generations"]] == [1, 4, 5]
    store.run("destroy", "p", "alice")
    assert store.run("gc", "--keep", 2)["removed"] == []
    would = store.run("gc", "--keep", 2, "--grace", 0, "--dry-run")["would_remove"]
    assert would == ["generation 1 of p (superseded)"]
    assert [each["number"] for each in store.project()["generations"]] == [1, 4, 5]
    assert store.run("gc", "--keep", 2, "--grace", 0)["removed"] == would
    assert [each["number"] for each in store.project()["generations"]] == [4, 5]
    assert (store.clone("bob") / "text").read_text() == "5\n"


def test_generations_go_in_any_order(store: Store) -> None:
    """A promotion takes over snapshots of older generations: they have to come back to whom they belong."""
    store.begin()
    expected: dict[str, object] = {}
    for number in range(1, 5):
        session = store.clone(f"s{number}")
        (session / f"of-{number}").touch()
        expected[f"s{number}"] = content(session)
        store.run("promote", "p", f"s{number}", "--keep", 9)
    # Each is a clone of what was made of it now: s1 of 2, s2 of 3, s3 of 4, s4 of 5.
    assert store.module("golden_cache", project="p", generation=3, state="absent").get("failed")
    store.run("destroy", "p", "s2")
    assert store.module("golden_cache", project="p", generation=3, state="absent")["changed"]
    (store.seen(store.path("s1")) / "again").touch()
    assert store.run("promote", "p", "s1", "--keep", 9)["current"] == 6
    for name in ("s3", "s4"):
        assert content(store.seen(store.path(name))) == expected[name]
    for name in ("s1", "s3", "s4"):
        store.run("destroy", "p", name)
    removed = store.run("gc", "--keep", 1, "--grace", 0)
    assert (len(removed["removed"]), removed["failed"]) == (4, [])
    assert "again" in content(store.clone("last"))


def test_sessions_are_mounted_again_after_a_reboot(store: Store) -> None:
    store.begin()
    for name in ("alice", "bob"):
        (store.clone(name) / "of").write_text(name)
    store.unmount_all()
    assert not [each for each in store.project()["sessions"] if each["mounted"]]
    printed = store.run("mount")
    assert ([each["name"] for each in printed["mounted"]], printed["failed"]) == (["alice", "bob"], [])
    assert (store.seen(store.path("bob")) / "of").read_text() == "bob"
    store.run("mount", "p", "alice")


def test_the_file_systems_of_the_store_are_trimmed(store: Store) -> None:
    store.begin()
    alice = store.clone("alice")
    (alice / "large").write_bytes(os.urandom(8_000_000))
    subprocess.run(["sync"], check=True)
    (alice / "large").unlink()
    subprocess.run(["sync"], check=True)
    printed = store.run("trim")
    assert printed["failed"] == []
    if store.place.fuse:
        assert printed["trimmed"] == []  # a pool does it by itself
        return
    (trimmed,) = printed["trimmed"]
    assert trimmed["path"] == str(store.place.top)
    assert trimmed["bytes"] >= 8_000_000


@contextmanager
def occupied(store: Store, use: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell that has done this in the store, and waits for a line."""
    shell = [*store.within, "sh", "-c", f"{use} && echo in && read line"]
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout
        user.stdout.readline()
        yield user


def test_a_session_in_use_is_not_destroyed(store: Store) -> None:
    store.begin()
    alice = store.clone("alice")
    with occupied(store, f"cd {store.path('alice')}") as user:
        assert store.run("destroy", "p", "alice", status=5)["error"] == "in-use"
        assert (alice / "text").exists()
        user.communicate(b"\n")
    store.run("destroy", "p", "alice")
    assert not store.seen(store.path("alice")).exists()
    assert store.project()["sessions"] == []


def test_a_session_without_a_mount_in_use_is_not_destroyed(store: Store) -> None:
    store.begin()
    path = store.run("clone", "p", "alice")["path"]
    for use in (f"cd {path}/folder", f"exec 3<{path}/text"):
        with occupied(store, use) as user:
            before = store.state()
            refused = store.run("destroy", "p", "alice", status=5)
            assert refused["error"] == "in-use"
            if not store.place.fuse:
                assert f"by sh (process {user.pid})" in refused["msg"]
            assert store.state() == before
            user.communicate(b"\n")
    store.run("destroy", "p", "alice")
    assert not store.seen(path).exists()


def test_a_refused_destroy_leaves_the_session_mounted(store: Store) -> None:
    """A snapshot, a dataset or a clone of others on ZFS; a second mount of the folder, or one in it, elsewhere."""
    store.begin()
    alice = store.clone("alice")

    def refusal() -> str:
        before = store.state()
        msg = store.module("golden_session", True, project="p", name="alice", state="absent")["msg"]
        assert store.run("destroy", "p", "alice", status=5)["msg"] == msg
        assert (store.state(), (alice / "text").exists()) == (before, True)
        return str(msg)

    if fuse := store.place.fuse:
        dataset = f"{store.location}/p/sessions/alice"
        for made in (f"{dataset}@theirs", f"{dataset}/theirs"):
            fuse.run("zfs", *(["snapshot"] if "@" in made else ["create", "-o", "mountpoint=none"]), made)
            assert f"{made} was not made by Cowherd" in refusal()
            fuse.run("zfs", "destroy", made)
        killed = itertools.takewhile(
            lambda change: "zfs promote" not in store.execute("promote", "p", "alice", killed_before=change).stderr,
            itertools.count(1),
        )
        for _ in killed:
            store.run("gc", "--grace", 0)
        assert f"{store.location}/p/generations/2 came from {dataset}@golden-2" in refusal()
        store.run("gc", "--grace", 0)
    else:
        tree, other = Path(store.location, "p/sessions/alice"), store.folder / "other"
        other.mkdir()
        for made, on in ((tree, other), (other, tree / "folder/deep")):
            subprocess.run(["mount", "--bind", made, on], check=True)
            assert f"mounted at {on}" in refusal()
            subprocess.run(["umount", on], check=True)
    store.run("destroy", "p", "alice")
    assert store.project()["sessions"] == []


def test_a_session_that_a_container_has_is_not_destroyed(store: Store) -> None:
    """Though nobody else sees where it is mounted there: the tree, a part of it, or something in it."""
    if store.place.fuse:
        return  # ZFS itself refuses
    store.begin()
    store.clone("alice")
    store.run("clone", "p", "bob")
    other = store.folder / "other"
    other.mkdir()
    for name in ("alice", "bob"):
        tree = Path(store.location, "p/sessions", name)
        for made, on in ((tree, other), (tree / "folder/deep", other), (other, tree / "folder/deep")):
            with namespaces.sees(made, on) as container:
                before = store.state()
                refused = store.run("destroy", "p", name, status=5)
                assert f"sh (process {container.pid}) has it at {on}" in refused["msg"]
                assert store.module("golden_session", True, project="p", name=name, state="absent")["failed"]
                assert (store.state(), (tree / "text").exists()) == (before, True)
    for name in ("alice", "bob"):
        store.run("destroy", "p", name)
    assert store.project()["sessions"] == []


def test_a_mount_of_a_session_that_a_container_has_a_copy_of(store: Store) -> None:
    """It goes with that in the host, or stays when it does not depend on that."""
    if store.place.fuse:
        return
    store.begin()
    at, other = store.folder / "at", store.folder / "other"
    for folder in (at, other):
        folder.mkdir()
    subprocess.run(["mount", "--bind", at, at], check=True)
    subprocess.run(["mount", "--make-shared", at], check=True)
    alice = store.clone("alice")
    with namespaces.sees(other, other, propagation="private") as container:
        assert f"process {container.pid}) has it at {alice}" in store.run("destroy", "p", "alice", status=5)["msg"]
        assert (alice / "text").exists()
    with namespaces.sees(other, other, propagation="slave") as container:
        assert str(alice) in Path(f"/proc/{container.pid}/mountinfo").read_text()
        store.run("destroy", "p", "alice")
        assert str(alice) not in Path(f"/proc/{container.pid}/mountinfo").read_text()
    assert not alice.exists()


def test_a_generation_that_a_container_has_is_not_removed(store: Store) -> None:
    if store.place.fuse:
        return
    source = store.begin()
    (source / "text").write_text("second\n")
    store.run("promote", "p", "--source", source)
    first, other = Path(store.location, "p/generations/1"), store.folder / "other"
    other.mkdir()
    with namespaces.sees(first, other) as container:
        before = store.state()
        (failed,) = store.run("gc", "--grace", 0, "--keep", 1, status=7)["failed"]
        assert f"sh (process {container.pid}) has it at {other}" in failed["msg"]
        assert store.state() == before
        assert (first / "text").read_text() == "as it was\n"
    assert store.run("gc", "--grace", 0, "--keep", 1)["removed"] == ["generation 1 of p (superseded)"]


def test_what_cannot_be_removed_does_not_keep_from_promoting(store: Store) -> None:
    source = store.begin()
    (source / "text").write_text("second\n")
    with golden.needed(store, 1) as theirs:
        runs = store.four("golden_cache", project="p", source=source, keep=1)
        assert runs.do["steps"] == [f"make generation 2 of p from {source}, and make it current"]
        for result in (runs.check, runs.do, runs.again, runs.again_check):
            (stays,) = result["not_removed"]
            assert stays["what"] == "generation 1 of p (superseded)"
            assert theirs in stays["msg"]
            assert f"Not removed: generation 1 of p (superseded). {stays['msg']}" in str(result["warnings"])
        printed = store.run("promote", "p", "--source", source, "--keep", 1)
        assert (printed["changed"], printed["not_removed"]) == (False, [stays])
        assert store.module("golden_cache", project="p", generation=1, state="absent")["failed"]
    printed = store.run("promote", "p", "--source", source, "--keep", 1)
    assert (printed["steps"], printed["not_removed"]) == (["remove superseded generation 1 of p"], [])
    assert [each["number"] for each in store.project()["generations"]] == [2]


def test_an_empty_folder_is_mounted_on_and_stays(store: Store) -> None:
    store.begin()
    store.seen(store.path("alice")).mkdir(parents=True)
    store.clone("alice")
    store.run("destroy", "p", "alice")
    assert store.seen(store.path("alice")).is_dir()


def test_sizes_add_up(store: Store) -> None:
    store.begin()
    for number in range(10):
        (store.clone(f"s{number}") / "own").write_bytes(os.urandom(200_000))
    (project,) = waiting.until(lambda: _measured(store))
    trees = [*project["generations"], *project["sessions"]]
    assert len(trees) == 11
    for each in trees:
        assert each["apparent_bytes"] == each["exclusive_bytes"] + each["shared_bytes"], each
        assert each["apparent_bytes"] >= 300_000
    for session in project["sessions"]:
        shares = store.place.backend != "copy"
        assert (session["shared_bytes"] >= 290_000) == shares, session
        assert (session["exclusive_bytes"] < 480_000) == shares, session


def _measured(store: Store) -> list[dict[str, Any]]:
    """What `list` says once all that was written is on the disk, which ZFS does by and by."""
    subprocess.run(["sync"], check=True)
    if store.place.fuse:  # else after half a minute; a property is written together with all that was before
        store.place.fuse.run("zfs", "set", "test:sync=now", store.location)
    projects: list[dict[str, Any]] = store.run("list")["projects"]
    return projects if all(each["exclusive_bytes"] >= 200_000 for each in projects[0]["sessions"]) else []


def test_clones_can_be_made_at_one_time(store: Store) -> None:
    source = store.begin()
    done = golden.together([store.command("clone", "p", f"s{n}", "--at", store.path(f"s{n}")) for n in range(6)])
    assert [status for status, _ in done] == [0] * 6
    for number in range(6):
        assert content(store.seen(store.path(f"s{number}"))) == content(source)
    done = golden.together([store.command("clone", "p", "same", "--at", store.path(f"t{n}")) for n in range(3)])
    assert sorted(status for status, _ in done) == [0, 4, 4]


def test_one_session_is_made_at_a_path(store: Store) -> None:
    source = store.begin()
    before, path = store.state(), store.path("one")
    done = golden.together([store.command("clone", "p", f"s{number}", "--at", path) for number in range(6)])
    assert sorted(status for status, _ in done) == [0, 4, 4, 4, 4, 4]
    for status, printed in done:
        assert status == 0 or f"Something is mounted at {path}" in printed["msg"]
    (session,) = store.project()["sessions"]
    assert content(store.seen(path)) == content(source)
    store.unmount_all()
    if not store.place.fuse:
        assert (
            f"{session['name']} of p is the one at {path}"
            in store.run("clone", "p", "x", "--at", path, status=4)["msg"]
        )
    refused = store.module("golden_session", project="p", name="x", path=path)
    assert f"{session['name']} of p is the one at {path}" in refused["msg"]
    store.run("mount", "p", session["name"])
    store.run("destroy", "p", session["name"])
    assert not store.seen(path).exists()
    if not store.place.fuse:  # else space that was freed is still counted
        assert [each[0] for each in store.state()[1]] == [each[0] for each in before[1]]
    assert store.project()["sessions"] == []


@pytest.mark.parametrize(
    ("argv", "status", "said"),
    [
        (("clone", "none", "a"), 3, "no project none"),
        (("clone", "p", "a", "--generation", "7"), 3, "no complete generation 7 of p"),
        (("promote", "p", "none"), 3, "no session none of p"),
        (("promote", "p", "--source", "/nonexistent"), 3, "/nonexistent does not exist"),
        (("destroy", "p", "none"), 3, "no session none of p"),
        (("mount", "p", "none"), 3, "no session none of p"),
        (("list", "none"), 3, "no project none"),
        (("clone", "p", "a/b"), 1, "cannot be the name of a session"),
        (("clone", "p", ".."), 1, "cannot be the name of a session"),
        (("clone", "p", "--", "-a"), 1, "cannot be the name of a session"),
        (("clone", "..", "a"), 1, "cannot be the name of a golden project"),
        (("clone", "p", "a", "--at", "relative"), 1, "not an absolute path"),
        (("clone", "p", "a", "--at", "/srv/x\ny"), 1, "a line break or another control character"),
        (("clone", "p", "a", "--at", "/srv/x\u2028y"), 1, "a line break or another control character"),
        (("promote", "p", "--source", "/srv/x\ny"), 1, "a line break or another control character"),
        (("clone", "p", "a", "--at", "{folder}"), 4, "is not empty"),
        (("clone", "p", "a", "--at", "{folder}/source-p/text"), 4, "is no folder"),
        (("clone", "p", "a", "--at", "/proc"), 4, "is mounted at /proc"),
        (("clone", "p", "a", "--reserve", "100%"), 6, "are to stay free"),
        (("clone", "p", "a", "--reserve", "many"), 1, "is not a size"),
        (("promote", "p", "--source", "{folder}/source-p", "--keep", "0"), 1, "Give 1 or more"),
        (("gc", "p", "--keep", "0"), 1, "Give 1 or more"),
        (("gc", "--keep", "-1", "--dry-run"), 1, "Give 1 or more"),
        (("gc", "--grace", "-1"), 1, "Give 0 seconds or more"),
    ],
)
def test_bad_input_changes_nothing(begun: Store, argv: tuple[str, ...], status: int, said: str) -> None:
    before = begun.state()
    filled = [each.format(folder=begun.folder) for each in argv]
    assert said in begun.run(*filled, status=status)["msg"]
    assert begun.state() == before
    assert begun.project()["sessions"] == []


@pytest.fixture(scope="module")
def begun(place: Place) -> Iterator[Store]:
    """A store with a project that tests leave as it is."""
    with golden.store(place) as made:
        made.begin()
        yield made


def test_what_is_refused_does_not_begin_a_store(store: Store) -> None:
    for argv in (("clone", "none", "a"), ("destroy", "none", "a"), ("mount", "none", "a"), ("gc", "none")):
        assert "no project none" in str(store.run(*argv, status=7 if argv[0] == "gc" else 3))
    if not store.place.fuse:
        assert list(Path(store.location).iterdir()) == []


def test_the_backend_is_as_expected_or_it_is_an_error(store: Store) -> None:
    other = "zfs" if store.place.backend != "zfs" else "btrfs"
    argv = store.command("list")
    refused = subprocess.run(
        [*argv[:-1], f"--expect={other}", "list"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    assert refused.returncode == 1
    assert f"The backend {other} was expected" in json.loads(refused.stdout)["msg"]


def test_a_store_keeps_its_backend(store: Store) -> None:
    source = store.begin()
    found = store.module("golden_cache_info", sizes=False, backend="auto")
    assert found["backend"] == store.place.backend
    assert "begun with it" in found["why"]
    before = store.state()
    other = {"zfs": "zvol", "copy": "btrfs"}.get(store.backend, "copy")
    assert f"was begun with the backend {store.backend}" in store.module("golden_cache_info", backend=other)["msg"]
    asked = [
        each.replace(f"={store.backend}", f"={other}") for each in store.command("promote", "p", "--source", source)
    ]
    refused = subprocess.run(asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    assert f"was begun with the backend {store.backend}" in json.loads(refused.stdout)["msg"]
    assert store.state() == before


def test_a_current_generation_without_a_marker_is_not_used(store: Store) -> None:
    store.begin()
    golden.forget(store, "generation", "1")
    before = store.state()
    assert "Its state is unmarked" in store.run("clone", "p", "alice", "--at", store.path("alice"), status=3)["msg"]
    refused = store.module("golden_session", project="p", name="alice", path=store.path("alice"))
    assert "Its state is unmarked" in refused["msg"]
    assert store.state() == before


def test_a_path_below_a_symlink(store: Store) -> None:
    source = store.begin()
    (store.folder / "data").mkdir()
    (store.folder / "home").symlink_to("data")
    asked, real = store.folder / "home" / "in" / "alice", store.folder / "data" / "in" / "alice"
    made = store.run("clone", "p", "alice", "--at", asked)
    assert (made["path"], made["mounted"]) == (str(real), True)
    assert [each["mounted"] for each in store.project()["sessions"]] == [True]
    again = store.module("golden_session", project="p", name="alice", path=asked)
    assert (again["changed"], again["path"]) == (False, str(real))
    store.run("mount", "p", "alice")
    (store.seen(real) / "new").touch()
    assert store.run("promote", "p", "alice")["current"] == 2
    store.unmount_all()
    store.run("mount")
    assert (store.seen(real) / "new").exists()
    store.run("destroy", "p", "alice")
    assert not store.seen(real).exists()
    made = store.module("golden_session", project="p", name="bob", path=asked)
    assert made["path"] == str(real)
    assert content(store.seen(real)).keys() == content(source).keys() | {"new"}


def test_a_line_break_behind_a_symlink_is_refused(store: Store) -> None:
    source = store.begin()
    (broken := store.folder / "x\ny").mkdir()
    (store.folder / "link").symlink_to(broken.name)
    before = store.state()
    for argv in (
        ("clone", "p", "a", "--at", store.folder / "link/a"),
        ("promote", "p", "--source", store.folder / "link"),
    ):
        assert "a line break or another control character" in store.run(*argv, status=1)["msg"]
    assert store.state() == before
    assert list(broken.iterdir()) == []
    assert not store.run("promote", "p", "--source", source)["changed"]


def test_one_damaged_project_does_not_keep_the_sessions_of_others_from_being_mounted(store: Store) -> None:
    store.begin()
    store.begin("q")
    (store.clone("alice", "q") / "own").touch()
    store.unmount_all()
    if fuse := store.place.fuse:
        fuse.run("zfs", "set", "cowherd:source=/srv/x\ny", f"{store.location}/p/generations/1")
    else:
        link = Path(store.location, "p/current")
        link.unlink()
        link.symlink_to("elsewhere")
    printed = store.run("mount", status=1)
    assert [each["name"] for each in printed["mounted"]] == ["alice"]
    ((what, msg),) = [each.values() for each in printed["failed"]]
    assert what == "project p"
    assert ("has a line break in it" if store.place.fuse else "is not a generation") in msg
    assert (store.seen(store.path("alice")) / "own").exists()
    assert store.run("mount", "p", status=1)["msg"] == msg


def test_a_source_whose_name_has_a_tab_of_former_releases_is_read(tmp_path: Path) -> None:
    """And other characters at which Python breaks lines, and ZFS does not."""
    with golden.place("zfs", tmp_path) as place, golden.store(place) as store:
        store.begin()
        assert place.fuse
        noted = "directory:/srv/a\tb\x0bc\x85d\u2028e"
        place.fuse.run("zfs", "set", f"cowherd:source={noted}", f"{store.location}/p/generations/1")
        assert [each["source"] for each in store.project()["generations"]] == [noted]


def test_stores_of_names_that_are_alike_have_folders_of_their_own(tmp_path: Path) -> None:
    """And a session is where its property says, where former releases put it."""
    with golden.place("zfs", tmp_path) as place, golden.store(place) as outer:
        outer.inner("a")
        stores = [outer.inner("a/b"), outer.inner("a_b")]
        source = outer.source()
        paths = []
        for store in stores:
            store.run("promote", "p", "--source", source)
            paths.append(store.run("clone", "p", "alice")["path"])
        assert len({*paths}) == 2
        assert [path.split("/")[-3] for path in paths] == [store.location.replace("/", "+") for store in stores]
        former, dataset = f"/var/lib/cowherd/sessions/{stores[0].location.replace('/', '_')}/p/bob", "p/sessions/bob"
        stores[0].run("clone", "p", "bob", "--at", former)
        assert place.fuse
        held = place.fuse.run("zfs", "get", "-H", "-o", "value", "cowherd:path", f"{stores[0].location}/{dataset}")
        assert held == f"{former}\n"
        assert not stores[0].module("golden_session", project="p", name="bob")["changed"]
        stores[0].run("clone", "p", "bob", status=4)
        for store in stores:
            store.run("destroy", "p", "alice")
        stores[0].run("destroy", "p", "bob")


def test_what_is_not_ours_is_left_alone(store: Store) -> None:
    source = store.begin()
    if fuse := store.place.fuse:
        for name in ("theirs", "p/sessions/theirs", "p/generations/7"):
            fuse.run("zfs", "create", f"{store.location}/{name}")
    else:
        for name in ("theirs", "p/sessions/theirs", "p/generations/7"):
            Path(store.location, name).mkdir()
            Path(store.location, name, "file").touch()
    report = store.run("gc", "--grace", 0, "--keep", 1)
    assert (report["removed"], report["failed"]) == ([], [])
    assert len(report["reported"]) == 2
    assert store.run("clone", "theirs", "a", status=1 if store.place.fuse else 4)["error"] in {"refused", "exists"}
    store.run("destroy", "p", "theirs", status=3 if store.place.fuse else 1)
    assert content(store.clone("alice")) == content(source)
    assert store.module("golden_cache", project="p", state="absent").get("failed")


def test_nothing_of_a_tree_is_lost(store: Store) -> None:
    if store.place.fuse:
        return  # zfs-fuse keeps neither nanoseconds nor flags nor ACLs; OpenZFS is tested in a virtual machine.
    with trees.hostile(store.folder / "hostile") as source:
        store.run("promote", "p", "--source", source)
        alice = store.clone("alice")
        assert manifest.differences(manifest.of(source), manifest.of(alice)) == []
        store.run("promote", "p", "alice")
        bob = store.clone("bob")
        assert manifest.differences(manifest.of(source), manifest.of(bob)) == []
        for name in ("alice", "bob"):
            store.run("destroy", "p", name)
        assert store.run("gc", "--keep", 1, "--grace", 0)["failed"] == []
        store.module("golden_cache", project="p", state="absent")
        assert store.run("list")["projects"] == []


def test_a_change_in_a_subvolume_of_the_source_is_seen(tmp_path: Path) -> None:
    """It has a device number of its own, and is part of the tree nevertheless; what is mounted is not."""
    with golden.place("btrfs", tmp_path) as place, golden.store(place) as store:
        source = store.folder / "source"
        source.mkdir()
        subprocess.run(["btrfs", "-q", "subvolume", "create", source / "cache"], check=True)
        (source / "cache" / "file").write_text("first\n")
        (source / "mounted").mkdir()
        assert store.run("promote", "p", "--source", source)["current"] == 1
        (source / "cache" / "file").write_text("second\n")
        assert store.run("promote", "p", "--source", source)["current"] == 2
        assert (store.clone("alice") / "cache" / "file").read_text() == "second\n"
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", source / "mounted"], check=True)
        try:
            (source / "mounted" / "folder").mkdir()
            store.run("promote", "p", "--source", source)
            (source / "mounted" / "folder" / "file").touch()
            assert not store.run("promote", "p", "--source", source)["changed"]
        finally:
            subprocess.run(["umount", source / "mounted"], check=True)


def test_what_a_generation_gives_back_on_zfs_is_said(tmp_path: Path) -> None:
    """Though two refer to it always: a dataset and its snapshot."""
    with golden.place("zfs", tmp_path) as place, golden.store(place) as store:
        store.begin()
        assert settled(store, lambda of: 300_000 <= of[1] <= 900_000) == [1]
        (store.clone("alice") / "own").write_bytes(os.urandom(4_000_000))
        assert settled(store, lambda of: of[1] == 0) == [1]
        store.run("promote", "p", "alice")
        assert settled(store, lambda of: of[1] < 900_000 and of[2] == 0) == [1, 2]
        store.run("destroy", "p", "alice")
        assert settled(store, lambda of: of[1] < 900_000 and 4_000_000 <= of[2] <= 5_000_000) == [1, 2]
        (store.clone("bob") / "own").unlink()
        store.run("promote", "p", "bob")
        assert settled(store, lambda of: 4_000_000 <= of[2] <= 5_000_000 and of[3] == 0) == [1, 2, 3]
        before = used(store)
        assert store.module("golden_cache", project="p", generation=2, state="absent")["changed"]
        waiting.until(lambda: before - used(store) >= 4_000_000)
        assert before - used(store) <= 5_000_000


def settled(store: Store, expected: Callable[[dict[int, int]], bool]) -> list[int]:
    """The generations once the bytes that each would give back are as expected, which comes with all being written."""

    def exclusive() -> dict[int, int]:
        (project,) = store.run("list")["projects"]
        for each in project["generations"]:
            assert each["apparent_bytes"] == each["exclusive_bytes"] + each["shared_bytes"] >= 290_000
        return {each["number"]: each["exclusive_bytes"] for each in project["generations"]}

    waiting.until(lambda: expected(exclusive()))
    return list(exclusive())


def used(store: Store) -> int:
    assert store.place.fuse
    return int(store.place.fuse.run("zfs", "get", "-Hp", "-o", "value", "used", store.location))

"""Moves that are cut off everywhere: nothing is lost, nothing runs twice, and the next run finishes or undoes them."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import faults, migration
from tests.support.faults import AFTER, BEFORE, Cut, Ended
from tests.support.incus_runs import run
from tests.support.incusd import Incusd
from tests.support.loops import ext4
from tests.support.lossy import losing
from tests.support.migration import MODULE, equal, identity, launch, names, record, rootfs
from tests.support.waiting import until

CLEAN = {"state": "cleaned", "retention": 0.0, "remove_source": True}


@pytest.fixture
def host(incusd: Incusd, busybox_image: tuple[Path, Path]) -> Iterator[Incusd]:
    """A daemon with the pools slow and fast, and mary, who is protected."""
    migration.prepare(incusd, busybox_image)
    launch(incusd, "mary")
    until(lambda: incusd.address("mary"))
    yield incusd
    migration.let_go(incusd)


def begin(daemon: Incusd) -> dict[str, Any]:
    """Have a running c1 with a snapshot that needs to be mended; return its record."""
    launch(daemon, "c1", "-c", "boot.autostart=true")
    root = rootfs(daemon, "c1")
    (root / "first").write_text("one file")
    os.link(root / "first", root / "second")
    daemon.run("snapshot", "create", "c1", "s1")
    until(lambda: daemon.address("c1"))
    return record(daemon, "c1")


def go(daemon: Incusd, cut: Cut | None = None, **options: Any) -> Ended:
    wanted = {"name": "c1", "protected": ["mary"], "socket": str(daemon.socket), **options}
    if wanted.get("state", "moved") == "moved":
        wanted["pool"] = "fast"
    return faults.run(MODULE, wanted, cut)


def require_one_of_each(daemon: Incusd, before: dict[str, Any]) -> None:
    """No two instances have one uuid or MAC address, at most one runs that was c1, and the source has all its files."""
    until(lambda: not (daemon.api("GET", "/1.0/operations") or {}).get("running"))
    every = daemon.api("GET", "/1.0/instances?recursion=1")
    for key in ("volatile.uuid", "volatile.eth0.hwaddr"):
        values = [one["config"][key] for one in every if key in one["config"]]
        assert len(values) == len(set(values)), f"{key} twice: {values}"
    ours = [one for one in every if one["name"] != "mary"]
    assert sum(one["status"] == "Running" for one in ours) <= 1
    sources = [one["name"] for one in ours if one["expanded_devices"]["root"]["pool"] == "slow"]
    assert len(sources) == 1
    for snapshot in ("", "s1"):
        root = rootfs(daemon, sources[0], "slow", snapshot)
        assert (root / "first").read_text() == "one file"
        assert (root / "first").stat().st_ino == (root / "second").stat().st_ino
    assert [one["name"] for one in record(daemon, sources[0])["snapshots"]] == ["s1"]
    assert before["name"] == "c1"


def require_well(daemon: Incusd, before: dict[str, Any], pool: str) -> None:
    """c1 runs on the pool, as it was, with its files."""
    after = record(daemon, "c1")
    assert identity(after) == identity(before)
    assert after["expanded_devices"]["root"]["pool"] == pool
    for snapshot in ("", "s1"):
        root = rootfs(daemon, "c1", pool, snapshot)
        assert (root / "first").read_text() == "one file"
        assert (root / "first").stat().st_ino == (root / "second").stat().st_ino


def recover(daemon: Incusd, before: dict[str, Any], way: str) -> None:
    """Finish or undo what was cut off, twice, and leave c1 alone on the host."""
    options = {} if way == "moved" else {"state": "rolled_back"}
    ended = go(daemon, **options)
    if any("Run again to have it moved" in str(each) for each in ended.result.get("warnings", [])):
        ended = go(daemon, **options)
    assert not ended.result.get("failed"), ended.result["msg"]
    moved = way == "moved"
    require_well(daemon, before, "fast" if moved else "slow")
    assert go(daemon, **options).result["changed"] is False
    if moved:
        source = ended.result["move"]["kept"]
        equal(rootfs(daemon, source, "slow", "s1"), rootfs(daemon, "c1", "fast", "s1"))
    require_one_of_each(daemon, before)
    daemon.run("stop", "--force", "c1")
    for name in names(daemon):
        if name != "mary":
            daemon.run("delete", name)
    for path in (daemon.dir / "cowherd" / "moves").glob("*.json"):
        path.unlink()


def is_request(what: str) -> bool:
    """Whether a place is a request to the server."""
    return " /1.0/" in what


def places(daemon: Incusd) -> tuple[str, ...]:
    """Where a whole move changes something."""
    before = begin(daemon)
    ended = go(daemon)
    assert not ended.result.get("failed"), ended.result["msg"]
    recover(daemon, before, "moved")
    return ended.places


@pytest.mark.parametrize("part", range(4))
def test_a_run_killed_at_every_step(host: Incusd, part: int) -> None:
    mary = migration.with_ctimes(host, "mary")
    every = places(host)
    assert len(every) > 25, every
    for place, what in list(enumerate(every))[part::4]:
        # After a request the server may still be at it; after all else it is as before what comes next.
        cuts = [(BEFORE, "moved"), *([(AFTER, "rolled_back")] if is_request(what) else [])]
        for when, way in cuts:
            before = begin(host)
            ended = go(host, Cut(place, when))
            assert ended.status < 0, (what, when, ended)
            try:
                require_one_of_each(host, before)
                recover(host, before, way)
            except Exception as error:
                raise AssertionError(f"killed {when} {place} ({what}), then {way}: {error}") from error
    assert migration.with_ctimes(host, "mary") == mary


def test_a_daemon_killed_at_every_step(host: Incusd) -> None:
    every = places(host)
    requests = [place for place, what in enumerate(every) if is_request(what)]
    for turn, place in enumerate(requests):
        before = begin(host)
        assert host._process
        ended = go(host, Cut(place, AFTER, host._process.pid))
        host.kill()
        host.start()
        way = ("moved", "rolled_back")[turn % 2]
        try:
            assert ended.result, ended
            require_one_of_each(host, before)
            recover(host, before, way)
        except Exception as error:
            raise AssertionError(f"daemon killed after {place} ({every[place]}), then {way}: {error}") from error


def half_renamed(daemon: Incusd, old: str, new: str, pool: str, stage: int) -> None:
    """Leave what is left of an interrupted rename: the volume's record, its folders and their links, one by one.

    The last stages are those of a host that lost its power, where the record was on the disk and the folders were not
    yet, and of one on which Incus was asked to use it then.
    """
    volumes, links = daemon.dir / "storage-pools" / pool, daemon.dir
    if stage >= POWER_LOST:
        daemon.run("rename", old, new)
        old, new = new, old
    else:
        statement = f"UPDATE storage_volumes SET name='{new}' WHERE name='{old}'"  # noqa: S608 - names of instances
        daemon.run("admin", "sql", "global", statement)
    for folder in ("containers", "containers-snapshots")[:stage]:
        (volumes / folder / old).rename(volumes / folder / new)
        (links / folder / old).unlink()
    if stage >= LINKED:
        for folder in ("containers", "containers-snapshots"):
            (links / folder / new).symlink_to(volumes / folder / new)
    if stage == USED:
        (volumes / "containers" / old).mkdir()
        (volumes / "containers" / old / "backup.yaml").touch()


LINKED, POWER_LOST, USED = 3, 4, 5
RENAMES = {
    "moved": [("move-of-", "undone-of-"), ("undone-of-", "move-of-"), ("c1", "kept-of-"), ("move-of-", "c1")],
    "rolled_back": [("c1", "undone-of-"), ("kept-of-", "c1")],
}
"""From what to what a move, and its undoing after the copy ran, rename in this order."""


def own_name(daemon: Incusd, prefix: str) -> str:
    """The name with this prefix that the journal's move gives; c1 is one as it is."""
    suffix = next(name for name in names(daemon) if "-of-" in name).rpartition("-of-")[2]
    return prefix if prefix == "c1" else prefix + suffix


@pytest.mark.parametrize(("state", "first"), [("moved", 0), ("moved", 2), ("rolled_back", 2), ("rolled_back", 4)])
def test_a_rename_that_the_daemon_was_killed_in(host: Incusd, state: str, first: int) -> None:
    before = begin(host)
    every = go(host).places
    if state == "rolled_back":
        every = go(host, state=state).places
    recover(host, before, state)
    renames = [place for place, what in enumerate(every) if re.fullmatch(r"POST /1.0/instances/[^/]+", what)]
    for turn, (place, (old, new)) in enumerate(zip(renames, RENAMES[state], strict=True)):
        stage = (first + turn) % (USED + 1)
        way = ("moved", "rolled_back")[turn % 2]
        before = begin(host)
        if state == "rolled_back":
            go(host)
        ended = go(host, Cut(place, BEFORE), state=state)
        assert ended.status < 0, ended
        is_copy = (old, new) not in (("c1", "kept-of-"), ("kept-of-", "c1"))
        half_renamed(host, own_name(host, old), own_name(host, new), "fast" if is_copy else "slow", stage)
        try:
            assert not run(host, "incus_instance_info", pool="fast").get("failed")
            recover(host, before, way)
        except Exception as error:
            raise AssertionError(f"killed while {old} became {new}, then {way}: {error}") from error
    volumes = host.run("admin", "sql", "global", "-f", "compact", "SELECT name FROM storage_volumes WHERE type = 0")
    assert volumes.split()[1:] == ["mary"]


@pytest.mark.parametrize(("old", "new", "pool"), [("c1", "kept-of-", "slow"), ("move-of-", "c1", "fast")])
def test_a_rename_that_was_interrupted_on_a_pool_that_is_not_there(host: Incusd, old: str, new: str, pool: str) -> None:
    """The source has to be there to be put back; of a copy that never ran nothing is needed for that."""
    is_it = re.compile(rf"POST /1.0/instances/{old}[^/]*").fullmatch
    place = [place for place, what in enumerate(places(host)) if is_it(what)][-1]
    before = begin(host)
    assert go(host, Cut(place, BEFORE)).status < 0
    half_renamed(host, own_name(host, old), own_name(host, new), pool, LINKED)
    folder = host.dir / "storage-pools" / pool
    subprocess.run(["mount", "-t", "tmpfs", "nothing", folder], check=True)
    ended = go(host, state="rolled_back")
    assert f"Is pool {pool} mounted? Mount it, and run again." in ended.result["msg"]
    if pool == "fast":
        require_well(host, before, "slow")
    subprocess.run(["umount", folder], check=True)
    recover(host, before, "rolled_back")


def test_an_answer_lost_at_every_request(host: Incusd) -> None:
    every = [what for what in places(host) if is_request(what)]
    for number, what in enumerate(every):
        before = begin(host)
        with losing(host.dir, host.socket, number) as socket:
            ended = go(host, socket=str(socket))
        # A probe of its health is made again; all else is for the next run to look at.
        lost = "Whether it took effect is not known" in ended.result.get("msg", "")
        assert lost != what.startswith("POST /1.0/instances/c1/exec"), (what, ended)
        way = ("moved", "rolled_back")[number % 2]
        try:
            require_one_of_each(host, before)
            recover(host, before, way)
        except Exception as error:
            raise AssertionError(f"answer {number} lost ({what}), then {way}: {error}") from error


def test_a_rollback_killed_at_every_step(host: Incusd) -> None:
    before = begin(host)
    go(host)
    every = go(host, state="rolled_back").places
    recover(host, before, "rolled_back")
    for place, what in enumerate(every):
        before = begin(host)
        assert not go(host).result.get("failed")
        ended = go(host, Cut(place, AFTER), state="rolled_back")
        assert ended.status < 0, what
        try:
            require_one_of_each(host, before)
            recover(host, before, ("rolled_back", "moved")[place % 2])
        except Exception as error:
            raise AssertionError(f"killed after {place} ({what}): {error}") from error


def test_a_clean_up_killed_at_every_step(host: Incusd) -> None:
    before = begin(host)
    go(host)
    every = go(host, **CLEAN).places
    for place in range(len(every)):
        host.run("delete", "--force", "c1")
        before = begin(host)
        go(host)
        assert go(host, Cut(place, AFTER), **CLEAN).status < 0
        journal = next((host.dir / "cowherd" / "moves").glob("*.json"), None)
        if journal and ('"going": true' in journal.read_text() or '"asides": []' in journal.read_text()):
            assert "There is no way back" in go(host, state="rolled_back").result["msg"]
            require_well(host, before, "fast")
        assert not go(host, **CLEAN).result.get("failed")
        assert names(host) == ["c1", "mary"]
        require_well(host, before, "fast")


def test_a_full_target(host: Incusd) -> None:
    before = begin(host)
    (rootfs(host, "c1") / "big").write_bytes(os.urandom(200 << 20))
    filler = rootfs(host, "c1", "fast").parents[2] / "filler"
    with filler.open("wb") as file:
        file.write(bytes(1) + os.urandom(1 << 20) * 480)
    ended = go(host, headroom="0B")
    assert ended.result["failed"]
    assert record(host, "c1")["status"] == "Running"
    filler.unlink()
    recover(host, before, "moved")


def test_a_full_file_system_under_the_journal(host: Incusd, tmp_path: Path) -> None:
    before = begin(host)
    folder = host.dir / "cowherd"
    folder.mkdir(exist_ok=True)
    with ext4(tmp_path / "image", folder, 16 << 20):
        (folder / "moves").mkdir()
        ended = moved_while_it_fills_up(host, folder)
        assert "cannot be written" in ended.result.get("msg", ""), ended
        assert record(host, "c1")["status"] == "Running"
        require_well(host, before, "slow")
        (folder / "filler").unlink()
        recover(host, before, "moved")


def moved_while_it_fills_up(daemon: Incusd, folder: Path) -> Ended:
    """Move while the file system under the journal fills up during the copy, and stays full."""
    over = threading.Event()

    def fill() -> None:
        until(lambda: over.is_set() or any((folder / "moves").glob("*.json")), within=300, every=0.01)
        with (folder / "filler").open("wb", buffering=0) as file:
            while not over.is_set():
                try:
                    file.write(bytes(1 << 10))  # the block size of so small an ext4
                except OSError:  # an older journal may just have given back its blocks
                    over.wait(0.005)

    filling = threading.Thread(target=fill)
    filling.start()
    try:
        return go(daemon)
    finally:
        over.set()
        filling.join()


def test_two_runs_at_once(host: Incusd) -> None:
    before = begin(host)
    results: list[dict[str, Any]] = []
    options = {"name": "c1", "pool": "fast", "protected": ["mary"]}
    runs = [threading.Thread(target=lambda: results.append(run(host, MODULE, **options))) for _ in range(2)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()
    assert sorted(result["changed"] for result in results) == [False, True]
    recover(host, before, "moved")


def test_a_host_that_is_switched_off_in_the_middle(host: Incusd) -> None:
    every = places(host)
    for what in ("journal stopping", "journal verified", "journal starting"):
        before = begin(host)
        assert go(host, Cut(every.index(what), AFTER)).status < 0
        host.shut_down()
        host.start()
        require_one_of_each(host, before)
        until(lambda: host.address("mary"))
        recover(host, before, "moved")

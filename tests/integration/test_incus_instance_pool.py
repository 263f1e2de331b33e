"""incus_instance_pool on a private daemon: moves with everything kept, refusals, the way back, and clean-up."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import migration
from tests.support.incus_runs import four, refused, run, state, unchanged
from tests.support.incusd import Incusd
from tests.support.migration import MODULE, equal, identity, launch, names, record, rootfs, volume
from tests.support.waiting import until


@pytest.fixture
def host(incusd: Incusd, busybox_image: tuple[Path, Path]) -> Iterator[Incusd]:
    """A daemon with the dir pool slow and the btrfs pool fast."""
    migration.prepare(incusd, busybox_image)
    yield incusd
    migration.let_go(incusd)


def move(daemon: Incusd, name: str = "c1", **options: Any) -> dict[str, Any]:
    result = run(daemon, MODULE, name=name, **{"pool": "fast", **options})
    assert not result.get("failed"), result["msg"]
    return result


def kept(result: dict[str, Any]) -> str:
    return str(result["move"]["kept"])


def journals(daemon: Incusd) -> list[Path]:
    return sorted((daemon.dir / "cowherd" / "moves").glob("*.json"))


def test_everything_is_the_same_after_a_move(host: Incusd) -> None:
    launch(host, "c1", "-c", "boot.autostart=true", "-c", "user.note=x", "-c", "snapshots.expiry=4w", files=True)
    host.run("snapshot", "create", "c1", "first")
    (rootfs(host, "c1") / "hostile" / "shared").write_text("other")
    host.run("config", "set", "c1", "user.note", "y")
    host.run("snapshot", "create", "c1", "second", "--no-expiry")
    before, address = record(host, "c1"), until(lambda: host.address("c1"))
    runs = four(host, MODULE, name="c1", pool="fast")
    after, source = record(host, "c1"), kept(runs.do)
    assert identity(after) == identity(before)
    assert after["expanded_devices"]["root"]["pool"] == "fast"
    assert until(lambda: host.address("c1")) == address
    for snapshot in ("first", "second"):
        equal(rootfs(host, source, "slow", snapshot), rootfs(host, "c1", "fast", snapshot))
    equal(rootfs(host, source) / "hostile", rootfs(host, "c1", "fast") / "hostile")
    result = runs.do["move"]
    assert (result["phase"], result["from_pool"], result["to_pool"]) == ("moved", "slow", "fast")
    assert set(result["snapshot_digests"]) == {"first", "second"}
    assert runs.check["move"] is None
    off = record(host, source)
    assert off["status"] == "Stopped"
    assert off["config"]["boot.autostart"] == "false"
    assert off["config"]["volatile.uuid"] != after["config"]["volatile.uuid"]
    assert not [key for key in off["config"] if key.endswith(".hwaddr")]


def test_root_and_snapshots_share_what_they_have_in_common(host: Incusd) -> None:
    launch(host, "c1")
    payload = os.urandom(40 << 20)
    (rootfs(host, "c1") / "big").write_bytes(payload)
    os.link(rootfs(host, "c1") / "big", rootfs(host, "c1") / "link")
    for name in ("first", "second"):
        host.run("snapshot", "create", "c1", name)
    move(host)
    for sync in (["subvolume", "sync"], ["filesystem", "sync"]):
        subprocess.run(["btrfs", *sync, volume(host, "c1", "fast")], check=True, capture_output=True)
    until(lambda: host.api("GET", "/1.0/storage-pools/fast/resources")["space"]["used"] < 2 * len(payload))


def test_a_stopped_container_stays_stopped(host: Incusd) -> None:
    launch(host, "c1", files=True)
    host.run("stop", "c1")
    before = record(host, "c1")
    runs = four(host, MODULE, name="c1", pool="fast")
    assert identity(record(host, "c1")) == identity(before)
    assert runs.do["move"]["downtime_seconds"] == 0
    equal(rootfs(host, kept(runs.do)), rootfs(host, "c1", "fast"))


@pytest.mark.parametrize(("source", "target"), [("btrfs", "btrfs"), ("btrfs", "dir"), ("dir", "dir")])
def test_other_pairs_of_drivers(incusd: Incusd, busybox_image: tuple[Path, Path], source: str, target: str) -> None:
    migration.prepare(incusd, busybox_image, source=source, target=target)
    launch(incusd, "c1", files=True)
    incusd.run("snapshot", "create", "c1", "first")
    (rootfs(incusd, "c1") / "new").write_text("new")
    incusd.run("snapshot", "create", "c1", "second")
    before = record(incusd, "c1")
    result = move(incusd)
    assert identity(record(incusd, "c1")) == identity(before)
    for snapshot in ("first", "second"):
        equal(rootfs(incusd, kept(result), "slow", snapshot), rootfs(incusd, "c1", "fast", snapshot))
    equal(rootfs(incusd, kept(result)) / "hostile", rootfs(incusd, "c1", "fast") / "hostile")
    done = run(incusd, MODULE, name="c1", state="cleaned", retention=0, remove_source=True)
    assert not done.get("failed"), done["msg"]
    assert names(incusd) == ["c1"]
    migration.let_go(incusd)


def test_there_and_back_and_there_again_and_cleaned(host: Incusd) -> None:
    launch(host, "c1", files=True)
    host.run("snapshot", "create", "c1", "first")
    before = record(host, "c1")
    first = move(host)
    (rootfs(host, "c1", "fast") / "since").write_text("written since the move")
    back = four(host, MODULE, name="c1", state="rolled_back")
    assert "What was written to c1 since" in str(back.do["warnings"])
    assert identity(record(host, "c1")) == identity(before)
    (undone,) = back.do["move"]["aside"]
    assert (rootfs(host, undone, "fast") / "since").exists()
    assert kept(first) not in names(host)
    again = move(host)
    assert identity(record(host, "c1")) == identity(before)
    assert again["move"]["aside"] == [undone, kept(again)]
    message = refused(host, MODULE, name="c1", state="cleaned", remove_source=True)
    assert f"{undone} was set aside 0.0 hours ago and is kept for 168" in message
    message = refused(host, MODULE, name="c1", state="cleaned", retention=0)
    assert "would destroy what the move of c1 has kept on pool fast" in message
    four(host, MODULE, name="c1", state="cleaned", retention=0, remove_source=True)
    assert names(host) == ["c1"]
    assert journals(host) == []
    unchanged(host, MODULE, name="c1", state="rolled_back")


def test_no_instance_shares_a_uuid(host: Incusd) -> None:
    launch(host, "c1")
    move(host)
    run(host, MODULE, name="c1", state="rolled_back")
    move(host)
    uuids = [one["config"]["volatile.uuid"] for one in host.api("GET", "/1.0/instances?recursion=1")]
    assert len(uuids) == 3
    assert len(set(uuids)) == 3


def test_kept_sources_that_somebody_used_are_no_way_back(host: Incusd) -> None:
    launch(host, "c1")
    source = kept(move(host))
    host.run("start", source)
    host.run("stop", source)
    for options in ({"state": "rolled_back"}, {"state": "cleaned", "retention": 0, "remove_source": True}):
        assert f"{source} was started by somebody" in refused(host, MODULE, name="c1", **options)


def test_written_kept_sources_and_renamed_containers_are_noticed(host: Incusd) -> None:
    launch(host, "c1")
    source = kept(move(host))
    clean = {"state": "cleaned", "retention": 0, "remove_source": True}
    file = rootfs(host, source) / "etc" / "passwd"
    times = file.stat()
    file.write_bytes(file.read_bytes())
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    for options in ({"state": "rolled_back"}, clean):
        assert f"{source} was changed by somebody since it was set aside" in refused(host, MODULE, name="c1", **options)
    host.run("stop", "c1")
    host.run("rename", "c1", "c9")
    for name in ("c1", "c9"):
        for options in ({"state": "rolled_back"}, clean):
            assert "is called c9 now" in refused(host, MODULE, name=name, **options)
    host.run("delete", "c9")
    assert "c1 is gone" in refused(host, MODULE, name="c1", **clean)
    assert source in names(host)


def test_a_deleted_container_can_be_put_back(host: Incusd) -> None:
    launch(host, "c1")
    before = identity(record(host, "c1"))
    move(host)
    host.run("delete", "--force", "c1")
    four(host, MODULE, name="c1", state="rolled_back")
    assert record(host, "c1")["status"] == "Running"
    assert identity(record(host, "c1")) == before


def test_another_project_and_the_longest_name(host: Incusd) -> None:
    name = "c" * 63
    host.run("project", "create", "shop", "-c", "features.images=false", "-c", "features.profiles=false")
    host.run("launch", "bb", name, "--storage", "slow", "--project", "shop")
    runs = four(host, MODULE, name=name, project="shop", pool="fast", protected=[])
    assert len(kept(runs.do)) <= 63
    four(host, MODULE, name=name, project="shop", state="rolled_back")


def test_a_restricted_project_without_room_is_refused_before_anything(host: Incusd) -> None:
    host.run("project", "create", "shop", "-c", "features.images=false", "-c", "limits.containers=1")
    host.run("launch", "bb", "c1", "--storage", "slow", "--project", "shop")
    result = run(host, MODULE, name="c1", project="shop", pool="fast")
    assert "Reached maximum number of instances" in result["msg"]
    found = host.api("GET", "/1.0/instances?recursion=1&project=shop")
    assert [(one["name"], one["status"]) for one in found] == [("c1", "Running")]
    host.run("project", "set", "shop", "limits.containers=2", "restricted=true")
    assert "The project shop is restricted" in run(host, MODULE, name="c1", project="shop", pool="fast")["msg"]
    host.run("project", "set", "shop", "restricted.containers.lowlevel=allow")
    assert not run(host, MODULE, name="c1", project="shop", pool="fast").get("failed")
    assert not run(host, MODULE, name="c1", project="shop", state="rolled_back").get("failed")


def test_static_addresses_and_a_root_inherited_from_a_profile(host: Incusd) -> None:
    host.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=slow", "size=500MiB")
    address = host.subnet.removesuffix(".1/24") + ".77"
    host.run("create", "bb", "c1", "--network", host.bridge)
    host.run("config", "device", "set", "c1", "eth0", f"ipv4.address={address}")
    host.run("start", "c1")
    until(lambda: host.address("c1") == address)
    move(host)
    until(lambda: host.address("c1") == address)
    hosts = "".join(path.read_text() for path in (host.dir / "networks" / host.bridge / "dnsmasq.hosts").iterdir())
    assert hosts.strip() == f"{record(host, 'c1')['config']['volatile.eth0.hwaddr']},{address},c1"
    assert record(host, "c1")["devices"]["root"] == {"type": "disk", "path": "/", "pool": "fast", "size": "500MiB"}
    before = record(host, "c1")["config"]["volatile.eth0.hwaddr"]
    move(host, state="rolled_back")
    found = record(host, "c1")
    assert "root" not in found["devices"]
    assert found["config"]["volatile.eth0.hwaddr"] == before


def script(daemon: Incusd, name: str, text: str) -> None:
    init = rootfs(daemon, name) / "sbin" / "init"
    init.write_text(f"#!/bin/sh\n{text}\nwhile :; do sleep 1; done\n")
    daemon.run("restart", "--force", name)
    time.sleep(0.5)


def test_a_container_that_does_not_stop_goes_on_running(host: Incusd) -> None:
    launch(host, "c1")
    script(host, "c1", "trap '' PWR TERM")
    pid = migration.pid(host, "c1")
    result = run(host, MODULE, name="c1", pool="fast", stop_timeout=1)
    assert "c1 did not stop within 1 s" in result["msg"]
    assert "It still runs" in result["msg"]
    found = record(host, "c1")
    assert (migration.pid(host, "c1"), found["config"].get("boot.autostart")) == (pid, None)


def test_a_container_that_stops_too_late_is_started_again(host: Incusd) -> None:
    launch(host, "c1")
    script(host, "c1", "trap 'sleep 4; exit 0' PWR TERM")
    result = run(host, MODULE, name="c1", pool="fast", stop_timeout=1)
    assert "It ended only after that" in result["msg"]
    assert record(host, "c1")["status"] == "Running"


@pytest.mark.parametrize("command", [["false"], ["/no/such/program"]])
def test_a_container_that_is_not_well_is_put_back(host: Incusd, command: list[str]) -> None:
    launch(host, "c1")
    before = identity(record(host, "c1"))
    result = run(host, MODULE, name="c1", pool="fast", health_command=command, health_timeout=1)
    assert "c1 is not well 1 s after its start" in result["msg"]
    assert "c1 is back where it was" in result["msg"]
    assert identity(record(host, "c1")) == before
    assert record(host, "c1")["expanded_devices"]["root"]["pool"] == "slow"


def test_writes_until_the_stop_are_carried(host: Incusd) -> None:
    launch(host, "c1")
    step = "i=$((i+1)); echo $i > /count; mkdir -p /d$((i%7)); rm -rf /d$(((i+3)%7)); echo $i >> /log"
    busy = f"i=0; while :; do {step}; done"
    host.run("exec", "c1", "--", "sh", "-c", f"({busy}) >/dev/null 2>&1 &")
    result = move(host)
    assert (rootfs(host, kept(result)) / "log").read_text() == (rootfs(host, "c1", "fast") / "log").read_text()


@pytest.mark.parametrize("copies", [1, 4, 1000])
def test_files_that_go_while_they_are_copied(host: Incusd, copies: int) -> None:
    """Incus gives a copy up in which rsync misses files; such are made again for a while."""
    launch(host, "c1")
    root = rootfs(host, "c1")
    (root / "a").mkdir()
    (root / "a" / "big").write_bytes(os.urandom(100 << 20))
    with going_while_copied(host, root / "b", copies):
        result = run(host, MODULE, name="c1", pool="fast")
    if copies < 1000:
        assert not result.get("failed"), result["msg"]
        assert not (rootfs(host, "c1", "fast") / "b" / "1").exists()
    else:
        assert "Files went or changed during each copy: stop it, then run again." in result["msg"]
        assert record(host, "c1")["status"] == "Running"
        assert names(host) == ["c1"]


@contextmanager
def going_while_copied(host: Incusd, folder: Path, copies: int) -> Iterator[None]:
    """Have files that rsync has listed, and go while it is at a big file before them, in as many copies."""
    folder.mkdir()
    over = threading.Event()

    def copied(part: str = "") -> list[Path]:
        return list((host.dir / "storage-pools" / "fast" / "containers").glob(f"move-of-c1-*{part}"))

    def take_away() -> None:
        for _ in itertools.takewhile(lambda _: not over.is_set(), range(copies)):
            for number in range(300):
                (folder / f"{number}").write_text("here")
            until(lambda: copied("/rootfs/a/.big.*") or over.is_set(), within=60, every=0.005)
            for path in folder.iterdir():
                path.unlink()
            until(lambda: not copied() or over.is_set(), within=60, every=0.005)

    taking = threading.Thread(target=take_away)
    taking.start()
    try:
        yield
    finally:
        over.set()
        taking.join()


def test_what_the_owner_does_meanwhile(host: Incusd, tmp_path: Path) -> None:
    progress = tmp_path / "progress"

    def during(action: Callable[[], None]) -> dict[str, Any]:
        launch(host, "c1", files=True)
        result: dict[str, Any] = {}
        options = {"name": "c1", "pool": "fast", "progress_file": progress}
        runner = threading.Thread(target=lambda: result.update(run(host, MODULE, **options)))
        runner.start()
        until(
            lambda: progress.exists() and json.loads(progress.read_text())["phase"] == "comparing while it runs",
            within=300,
            every=0.01,
        )
        action()
        runner.join()
        migration.let_go(host)
        return result

    def clear() -> None:
        for name in names(host):
            host.run("delete", "--force", name)
        for path in journals(host):
            path.unlink()

    result = during(lambda: host.run("stop", "c1"))
    assert record(host, "c1")["status"] == "Stopped"
    assert result["move"]["phase"] == "moved"
    clear()
    result = during(lambda: (host.run("stop", "c1"), host.run("rename", "c1", "c9"))[0])
    assert "c1 was renamed, moved or removed by somebody" in result["msg"]
    host.run("rename", "c9", "c1")
    assert move(host)["move"]["phase"] == "moved"
    clear()
    result = during(lambda: host.run("snapshot", "create", "c1", "new"))
    assert "Snapshots of c1 were made, removed or changed" in result["msg"]
    assert record(host, "c1")["status"] == "Running"
    assert move(host)["move"]["phase"] == "moved"
    assert [one["name"] for one in record(host, "c1")["snapshots"]] == ["new"]
    clear()
    result = during(lambda: host.run("delete", "--force", "c1"))
    assert "c1 was renamed, moved or removed by somebody" in result["msg"]
    assert len(names(host)) == 1
    assert not progress.exists()


def test_protected_instances_are_not_touched(host: Incusd) -> None:
    for name in ("c1", "mary", "naira"):
        launch(host, name)
    host.run("config", "set", "naira", "user.cowherd.protected=true")
    host.run("create", "bb", "stanley", "--storage", "slow")
    for name in ("mary", "naira"):
        until((rootfs(host, name) / "etc" / "resolv.conf").exists)
    before = {name: migration.with_ctimes(host, name) for name in ("mary", "naira", "stanley")}
    protected = {"protected": ["mary", "default/stanley"]}
    for name, why in (
        ("mary", "listed in protected"),
        ("stanley", "listed"),
        ("naira", "user.cowherd.protected is set"),
    ):
        for options in ({"pool": "fast"}, {"state": "rolled_back"}, {"state": "cleaned"}):
            assert why in refused(host, MODULE, name=name, **options, **protected)
    move(host, **protected)
    move(host, state="rolled_back", **protected)
    assert {name: migration.with_ctimes(host, name) for name in before} == before


BAD_INPUT: tuple[tuple[dict[str, Any], str], ...] = (
    ({"name": "nobody"}, "There is no instance nobody"),
    ({"name": "c*"}, "'c*' cannot be the name of a"),
    ({"protected": ["marry"]}, "marry in protected is no instance of this host"),
    ({"protected": ["m*"]}, "'m*' does not name an instance"),
    ({"protected": ["shop/mary"]}, "shop/mary in protected is no instance"),
    ({"pool": "nowhere"}, "There is no pool nowhere to move c1 to. There are fast, slow"),
    ({"pool": "-x"}, "'-x' cannot be the name of a storage pool"),
    ({"headroom": "900GiB"}, "900GiB are to stay free"),
    ({"headroom": "much"}, "'much' is not a size"),
    ({"stop_timeout": 0}, "stop_timeout is 0"),
    ({"health_command": []}, "health_command is empty"),
    ({"progress_file": "here"}, "is not an absolute path"),
    ({"retention": -1}, "retention is -1"),
    ({"pool": None}, "state is moved and pool is empty"),
)


def test_bad_input(host: Incusd) -> None:
    host.run("create", "bb", "c1", "--storage", "slow")
    before = state(host)
    for options, said in BAD_INPUT:
        result = run(host, MODULE, **{"name": "c1", "pool": "fast", **options})
        assert said in result["msg"]
    assert state(host) == before


def test_instances_that_are_not_moved(host: Incusd) -> None:
    def said(name: str = "c1", **options: Any) -> str:
        return refused(host, MODULE, **{"name": name, "pool": "fast", **options})

    host.run("launch", "bb", "gone", "--storage", "slow", "--ephemeral")
    assert "gone is ephemeral" in said("gone")
    launch(host, "c1")
    host.run("pause", "c1")
    assert "c1 is in the state Frozen" in said()
    host.run("resume", "c1")
    host.run("config", "set", "c1", "security.protection.delete=true")
    assert "security.protection.delete" in said()
    host.run("config", "unset", "c1", "security.protection.delete")
    host.run("storage", "volume", "create", "slow", "data")
    host.run("stop", "--force", "c1")
    host.run("config", "device", "add", "c1", "data", "disk", "pool=slow", "source=data", "path=/data")
    assert "c1 has further disks on pool slow (data)" in said()
    move(host, allow_other_disks=True)
    assert record(host, "c1")["devices"]["data"]["pool"] == "slow"
    host.run("create", "bb", "move-of-c2-123456", "--storage", "slow")
    host.run("create", "bb", "c2", "--storage", "slow")
    assert "move-of-c2-123456 looks like what a move has left behind" in said("c2")


def test_a_root_disk_smaller_than_its_content_is_refused(host: Incusd) -> None:
    launch(host, "c1")
    (rootfs(host, "c1") / "big").write_bytes(os.urandom(30 << 20))
    host.run("config", "device", "set", "c1", "root", "size=20MiB")
    assert "The root disk of c1 has the size 20MiB, but" in refused(host, MODULE, name="c1", pool="fast")


def test_a_sparse_loop_file_counts_what_the_host_has_free(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    migration.prepare(incusd, busybox_image)
    incusd.run("create", "bb", "c1", "--storage", "slow")
    free = os.statvfs(incusd.dir)
    size = free.f_bavail * free.f_frsize + (8 << 30)
    incusd.run("storage", "create", "vast", "btrfs", f"size={size}B")
    headroom = f"{free.f_bavail * free.f_frsize + (2 << 30)}B"
    message = refused(incusd, MODULE, name="c1", pool="vast", headroom=headroom)
    assert "the file system under the file of pool vast" in message


def test_damaged_and_foreign_journals_are_refused(host: Incusd) -> None:
    launch(host, "c1")
    move(host)
    (journal,) = journals(host)
    good = journal.read_bytes()
    damaged = {
        "is damaged": good[:-40],
        "its checksum does not match": good.replace(b'"moved"', b'"starting"'),
        "belongs to other work": good.replace(b'"move-instance"', b'"other"'),
    }
    for said, raw in damaged.items():
        journal.write_bytes(raw)
        for options in ({"pool": "fast"}, {"state": "rolled_back"}, {"state": "cleaned"}):
            assert said in refused(host, MODULE, name="c1", **options)
    journal.write_bytes(good)
    other = journal.with_name(f"{'0' * 8}-0000-0000-0000-{'0' * 12}.json")
    other.write_bytes(good)
    assert "is not one of a move that this version can read" in refused(host, MODULE, name="c1", pool="fast")
    other.unlink()
    unchanged(host, MODULE, name="c1", pool="fast")


def test_after_a_move_that_was_undone_another_pool_can_be_chosen(host: Incusd) -> None:
    launch(host, "c1")
    host.run("storage", "create", "third", "dir")
    result = run(host, MODULE, name="c1", pool="fast", health_command=["false"], health_timeout=1)
    assert result["failed"]
    assert move(host, pool="third")["instance"]["pool"] == "third"

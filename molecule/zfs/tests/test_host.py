"""Incus on OpenZFS, and golden trees on it, before and after a reboot. The tests run in this order."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host
from tests.support import openzfs_kills
from tests.support.golden_kills import Outcome

POOLS = {"default": "tank/incus", "disk": "disk", "loop": "loop"}
"""Pools of Incus, and the dataset that each is in."""

STORES = {"golden": "/srv/alice", "volumes": "/srv/volume-of-alice"}
"""Stores of golden trees by their configuration, and where the session alice of each is."""

TREE = "/root/tree"
REBOOTED_WITHIN = 300

of_each_pool = pytest.mark.parametrize(("pool", "dataset"), POOLS.items())
of_each_store = pytest.mark.parametrize(("store", "path"), STORES.items())


@of_each_pool
def test_the_pool_of_incus_is_on_zfs(host: Host, pool: str, dataset: str) -> None:
    found = _api(host, f"/1.0/storage-pools/{pool}")
    assert found["driver"] == "zfs"
    assert found["config"]["zfs.pool_name"] == dataset


@of_each_pool
def test_a_container_is_a_clone(host: Host, pool: str, dataset: str) -> None:
    host.check_output("incus --quiet launch base %s --storage %s </dev/null", f"on-{pool}", pool)
    origin = host.check_output("zfs get -H -o value origin %s", f"{dataset}/containers/on-{pool}")
    assert origin.startswith(f"{dataset}/images/")
    assert _api(host, f"/1.0/instances/on-{pool}")["status"] == "Running"


def test_a_device_of_a_pool_is_refused(host: Host) -> None:
    said = host.run("zpool create refused /dev/vdc")
    assert said.failed
    found = host.ansible("golden_store", "store=other/golden device=/dev/vdc", check=False)
    assert "/dev/vdc is not empty" in found["msg"]
    assert host.run("zpool list other").failed


@of_each_store
def test_a_session_is_the_tree(host: Host, store: str, path: str) -> None:
    assert host.run("diff --recursive --no-dereference %s %s", TREE, path).stdout == ""
    assert host.file(f"{path}/docs/pool.md").mode == 0o640
    assert host.file(f"{path}/docs").mode == 0o751
    assert host.check_output("stat --format=%%h %s", f"{path}/second-name") == "2"
    assert _session(host, store, "alice")["mounted"]


def test_volumes_are_xfs_that_containers_can_be_on(host: Host) -> None:
    mount = host.mount_point(STORES["volumes"])
    assert mount.filesystem == "xfs"
    assert "nouuid" in mount.options
    assert "ftype=1" in host.check_output("xfs_info %s", STORES["volumes"])


@of_each_store
def test_a_live_session_becomes_the_next_generation(host: Host, store: str, path: str) -> None:
    host.check_output("echo %s >%s", f"by alice on {store}", f"{path}/note")
    promoted = _command(host, store, "promote", "monorepo", "alice")
    assert promoted["current"] == 2
    assert _session(host, store, "bob")["generation"] == 1
    assert not host.file(f"{_session(host, store, 'bob')['path']}/note").exists
    cloned = _command(host, store, "clone", "monorepo", "carol")
    assert host.file(f"{cloned['path']}/note").content_string == f"by alice on {store}\n"
    host.check_output("echo later >>%s", f"{path}/note")
    dataset = "tank/golden" if store == "golden" else "tank/volumes"
    assert host.check_output("zfs get -H -o value origin %s", f"{dataset}/monorepo/generations/2") == "-"


@of_each_store
def test_what_is_listed_adds_up(host: Host, store: str, path: str) -> None:
    (project,) = _command(host, store, "list", "monorepo")["projects"]
    for each in [*project["generations"], *project["sessions"]]:
        assert each["apparent_bytes"] == each["exclusive_bytes"] + each["shared_bytes"] > 0, each
    assert _session(host, store, "alice")["path"] == path


@of_each_store
def test_what_is_used_stays(host: Host, store: str, path: str) -> None:
    refused = _command(host, store, "destroy", "monorepo", "alice", busy=path, status=5)
    assert refused["error"]
    assert host.file(f"{path}/note").exists


@of_each_store
def test_garbage_collection_leaves_what_is_used(host: Host, store: str, path: str) -> None:
    before = _command(host, store, "list", "--no-sizes")["projects"]
    _command(host, store, "gc", "--dry-run")
    _command(host, store, "gc")
    assert _command(host, store, "list", "--no-sizes")["projects"] == before
    assert host.file(path).is_directory


@of_each_store
def test_a_session_goes(host: Host, store: str, path: str) -> None:
    carol = _session(host, store, "carol")["path"]
    _command(host, store, "destroy", "monorepo", "carol")
    assert carol not in host.check_output("cat /proc/self/mountinfo")
    assert host.file(f"{path}/note").exists


def test_killed_before_each_change_of_a_promotion(host: Host) -> None:
    for part in openzfs_kills.PARTS:
        source = Path(openzfs_kills.__file__).with_name(part)
        host.ansible("copy", f"src={source} dest=/root/support/ mode=0644", check=False)
    printed = host.check_output("cd /root && python3 -m support.openzfs_kills zvol 'promote a session'")
    found = Outcome.of(json.loads(printed))
    assert not found.failure, found.failure
    assert {"xfs_freeze", "zfs clone", "zfs promote", "zfs set"} <= {kill.before for kill in found.kills}


def test_all_is_there_after_a_reboot(host: Host) -> None:
    booted = host.file("/proc/sys/kernel/random/boot_id").content_string
    host.run("systemctl reboot")
    deadline = time.monotonic() + REBOOTED_WITHIN
    while time.monotonic() < deadline:
        try:
            if host.run("cat /proc/sys/kernel/random/boot_id").stdout.strip() not in ("", booted.strip()):
                break
        except (RuntimeError, AssertionError):
            pass
        time.sleep(2)
    host.run("systemctl is-system-running --wait")
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


@of_each_store
def test_sessions_are_mounted_again(host: Host, store: str, path: str) -> None:
    for name in ("alice", "bob"):
        assert _session(host, store, name)["mounted"], name
    assert host.file(f"{path}/note").content_string == f"by alice on {store}\nlater\n"
    assert host.mount_point(path).exists
    assert store != "volumes" or "nouuid" in host.mount_point(path).options


@of_each_store
def test_timers_wait(host: Host, store: str, path: str) -> None:
    del path
    assert host.service(f"cow-session-{store}-gc.timer").is_running
    assert host.file(f"/etc/systemd/system/cow-session-{store}-trim.timer").exists == (store == "volumes")
    assert store != "volumes" or host.service("cow-session-volumes-trim.timer").is_running


def test_a_store_that_has_volumes_is_trimmed_though_none_were_asked_for(host: Host) -> None:
    assert host.service("cow-session-found-trim.timer").is_running
    assert json.loads(host.file("/etc/cowherd/found.json").content_string)["backend"] == "auto"
    assert _command(host, "found", "list", "--no-sizes")["backend"] == "zvol"


def test_volumes_give_back_what_was_freed(host: Host) -> None:
    host.check_output("systemctl start cow-session-volumes-trim.service")
    trimmed = _command(host, "volumes", "trim")["trimmed"]
    assert STORES["volumes"] in [each["path"] for each in trimmed]
    assert all(each["bytes"] is not None for each in trimmed)
    assert _command(host, "golden", "trim")["trimmed"] == []


@of_each_pool
def test_containers_run_again(host: Host, pool: str, dataset: str) -> None:
    del dataset
    host.check_output("incus --quiet start %s </dev/null || true", f"on-{pool}")
    assert _api(host, f"/1.0/instances/on-{pool}")["status"] == "Running"


def _session(host: Host, store: str, name: str) -> dict[str, Any]:
    (project,) = _command(host, store, "list", "monorepo", "--no-sizes")["projects"]
    (found,) = (each for each in project["sessions"] if each["name"] == name)
    return dict(found)


def _command(host: Host, store: str, *argv: str, busy: str = "", status: int = 0) -> dict[str, Any]:
    """What cow-session prints; busy: a folder that a process works in meanwhile."""
    command = f"cow-session --config /etc/cowherd/{store}.json {' '.join(argv)} </dev/null"
    finished = host.run(f"cd {busy} && {command}" if busy else command)
    assert finished.rc == status, f"{argv}: {finished.stdout}{finished.stderr}"
    printed: dict[str, Any] = json.loads(finished.stdout)
    return printed


def _api(host: Host, path: str) -> Any:
    return json.loads(host.check_output("incus query %s", path))

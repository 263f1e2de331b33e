"""Incus on OpenZFS, and golden trees on it, before and after a reboot. The tests run in this order."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from testinfra.host import Host
from tests.support import openzfs_modules
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
    """In all that a manifest has: ACLs and capabilities, nanoseconds, holes, device nodes, names that links share."""
    compared = _compared(host, path)
    assert compared["differences"] == []
    assert {"security.capability", "system.posix_acl_access", "system.posix_acl_default"} <= set(compared["attributes"])
    assert int(host.check_output("stat --format=%%b %s", f"{path}/sparse")) < 1000
    assert _sessions(host, store)["alice"]["mounted"]


def test_a_tree_with_acls_is_refused_where_they_would_be_lost(host: Host) -> None:
    host.check_output("zfs create -o acltype=off -o mountpoint=none tank/plain")
    plain = "cow-session --config /nonexistent --store tank/plain --backend zfs"
    said = host.run(f"{plain} promote p --source {TREE}")
    assert said.rc == 1
    assert "acltype=posixacl" in said.stdout
    assert json.loads(host.check_output(f"{plain} list --no-sizes"))["projects"][0]["current"] is None


def test_volumes_are_xfs_that_containers_can_be_on(host: Host) -> None:
    mount = host.mount_point(STORES["volumes"])
    assert mount.filesystem == "xfs"
    assert "nouuid" in mount.options
    assert "ftype=1" in host.check_output("xfs_info %s", STORES["volumes"])


@of_each_store
def test_a_live_session_becomes_the_next_generation(host: Host, store: str, path: str) -> None:
    """While somebody writes in it, who is not kept from that afterwards."""
    host.check_output("echo %s >%s", f"by alice on {store}", f"{path}/note")
    promote = f"cow-session --config /etc/cowherd/{store}.json promote monorepo alice"
    write = f"n=0; until [ -e /run/over ]; do n=$((n + 1)); echo $n >>{path}/log; sleep 0.1; done"
    script = f"rm -f /run/over; ({write}) & {promote} && sleep 2; touch /run/over; wait; echo later >>{path}/note"
    promoted = json.loads(host.check_output("timeout 300 sh -c %s </dev/null", script))
    assert promoted["current"] == 2
    cloned = _command(host, store, "clone", "monorepo", "carol")
    bob = _sessions(host, store)["bob"]
    assert bob["generation"] == 1
    assert _compared(host, bob["path"])["differences"] == []
    assert host.file(f"{cloned['path']}/note").content_string == f"by alice on {store}\n"
    then, now = (host.check_output(f"cat {folder}/log 2>/dev/null") for folder in (cloned["path"], path))
    assert now.startswith(then)
    assert len(now) > len(then)
    dataset = {"golden": "tank/golden", "volumes": "tank/volumes"}[store]
    assert host.check_output("zfs get -H -o value origin %s", f"{dataset}/monorepo/generations/2") == "-"


def test_sessions_were_made_by_the_fork_server(host: Host) -> None:
    assert host.service("cow-session.socket").is_running
    printed = host.check_output("journalctl --unit cow-session.service --output cat --no-pager")
    assert "Started cow-session.service" in printed


@of_each_store
def test_what_is_listed_adds_up(host: Host, store: str, path: str) -> None:
    (project,) = _command(host, store, "list", "monorepo")["projects"]
    for each in [*project["generations"], *project["sessions"]]:
        assert each["apparent_bytes"] == each["exclusive_bytes"] + each["shared_bytes"] > 0, each
    assert path in [each["path"] for each in project["sessions"]]


@of_each_store
def test_what_is_used_stays(host: Host, store: str, path: str) -> None:
    refused = _command(host, store, "destroy", "monorepo", "alice", busy=path, status=5)
    assert refused["error"]
    assert host.file(f"{path}/note").exists


@of_each_store
def test_a_session_goes_and_then_the_generation_that_it_alone_kept(host: Host, store: str, path: str) -> None:
    """Not the current one, and not the one that bob is a clone of."""
    assert _command(host, store, "promote", "monorepo", "alice")["current"] == 3
    collect = ("gc", "monorepo", "--grace", "0", "--keep", "1")
    assert _command(host, store, *collect)["removed"] == []
    carol = _sessions(host, store)["carol"]["path"]
    _command(host, store, "destroy", "monorepo", "carol")
    assert carol not in host.check_output("cat /proc/self/mountinfo")
    announced = _command(host, store, *collect, "--dry-run")
    assert _generations(host, store) == [1, 2, 3]
    collected = _command(host, store, *collect)
    assert collected["removed"] == announced["would_remove"]
    assert [each.partition(" (")[0] for each in collected["removed"]] == ["generation 2 of monorepo"]
    assert collected["failed"] == []
    assert _generations(host, store) == [1, 3]
    assert _compared(host, _sessions(host, store)["bob"]["path"])["differences"] == []
    assert host.file(f"{path}/note").content_string == f"by alice on {store}\nlater\n"


def test_killed_before_each_change_of_a_promotion(host: Host) -> None:
    printed = host.check_output("cd /root && python3 -m support.openzfs_kills zvol 'promote a session'")
    found = Outcome.of(json.loads(printed))
    assert not found.failure, found.failure
    assert {"xfs_freeze", "zfs clone", "zfs promote", "zfs set"} <= {kill.before for kill in found.kills}


def test_the_modules_of_clones_and_snapshots(host: Host) -> None:
    printed = host.check_output("cd /root && python3 -m support.openzfs_modules")
    checked = {line["check"]: line["failure"] for line in map(json.loads, printed.splitlines())}
    assert set(checked.values()) == {""}, checked
    assert set(checked) == {check.__name__ for check in openzfs_modules.CHECKS}


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
    sessions = _sessions(host, store)
    assert all(sessions[name]["mounted"] for name in ("alice", "bob")), sessions
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


def _sessions(host: Host, store: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in _project(host, store)["sessions"]}


def _generations(host: Host, store: str) -> list[int]:
    return [each["number"] for each in _project(host, store)["generations"]]


def _project(host: Host, store: str) -> dict[str, Any]:
    (project,) = _command(host, store, "list", "monorepo", "--no-sizes")["projects"]
    return dict(project)


def _compared(host: Host, path: str) -> dict[str, Any]:
    """How a folder differs from the tree, and which extended attributes that has."""
    printed = host.check_output("cd /root && python3 -m support.openzfs_trees compare %s %s", TREE, path)
    compared: dict[str, Any] = json.loads(printed)
    return compared


def _command(host: Host, store: str, *argv: str, busy: str = "", status: int = 0) -> dict[str, Any]:
    """What cow-session prints; busy: a folder that a process works in meanwhile."""
    command = f"cow-session --config /etc/cowherd/{store}.json {' '.join(argv)} </dev/null"
    finished = host.run(f"cd {busy} && {command}" if busy else command)
    assert finished.rc == status, f"{argv}: {finished.stdout}{finished.stderr}"
    printed: dict[str, Any] = json.loads(finished.stdout)
    return printed


def _api(host: Host, path: str) -> Any:
    return json.loads(host.check_output("incus query %s", path))

"""What is there after a migration that was put back, made again and cleaned up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

PROTECTED = ("mary", "naira", "stanley")


def test_the_plays_said_how_far_they_were() -> None:
    said = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "plays.log").read_text()
    assert "progress old: c1: " in said


def test_the_container_runs_on_the_new_pool(host: Host) -> None:
    found = _api(host, "/1.0/instances/c1?recursion=1")
    assert found["status"] == "Running"
    assert found["expanded_devices"]["root"]["pool"] == "fast"
    assert [snapshot["name"] for snapshot in found["snapshots"]] == ["before"]


def test_its_files_are_there_with_their_hard_links(host: Host) -> None:
    root = "/var/lib/incus/storage-pools/fast/containers/c1/rootfs/root"
    assert host.file(f"{root}/second").content_string == "kept\n"
    assert host.check_output("stat --format %%h %s", f"{root}/first") == "2"


def test_nothing_is_left_aside(host: Host) -> None:
    assert sorted(one["name"] for one in _api(host, "/1.0/instances?recursion=1")) == ["c1", *PROTECTED]


def test_the_profile_stays_for_those_that_inherit_from_it(host: Host) -> None:
    assert _api(host, "/1.0/profiles/default")["devices"]["root"]["pool"] == "slow"


@pytest.mark.parametrize("name", PROTECTED)
def test_the_protected_ones_run_on_as_they_did(host: Host, name: str) -> None:
    before, now = (_facts(bodies, name) for bodies in (_before(host), _api(host, "/1.0/instances?recursion=2")))
    assert now == before
    assert now["pool"] == "slow"


def _before(host: Host) -> Any:
    return json.loads(host.file("/root/before.json").content_string)


def _facts(bodies: Any, name: str) -> dict[str, Any]:
    """What tells that an instance was not touched."""
    body = next(body for body in bodies if body["name"] == name)
    return {
        "config": body["config"],
        "devices": body["devices"],
        "pool": body["expanded_devices"]["root"]["pool"],
        "pid": body["state"]["pid"],
        "started": body["last_used_at"],
    }


def _api(host: Host, path: str) -> Any:
    return json.loads(host.check_output("incus query %s", path))

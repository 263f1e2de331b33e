"""incus_profile_pool on a private daemon: profiles of all projects, and instances that stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import migration
from tests.support.incus_runs import four, refused, unchanged
from tests.support.incusd import Incusd
from tests.support.migration import record, with_ctimes

MODULE = "incus_profile_pool"
POOLS = {"from_pool": "slow", "pool": "fast"}


@pytest.fixture
def host(incusd: Incusd, busybox_image: tuple[Path, Path]) -> Incusd:
    migration.prepare(incusd, busybox_image)
    incusd.run("project", "create", "shop", "-c", "features.images=false")
    for project in ("default", "shop"):
        options = ("root", "disk", "path=/", "pool=slow", "size=300MiB")
        incusd.run("profile", "device", "add", "default", *options, "--project", project)
    return incusd


def pool(daemon: Incusd, project: str = "default") -> Any:
    return daemon.api("GET", f"/1.0/profiles/default?project={project}")["devices"]["root"]["pool"]


def test_profiles_of_all_projects_are_repointed(host: Incusd) -> None:
    runs = four(host, MODULE, **POOLS)
    assert runs.do["steps"] == [
        "put the root disk of profile default on pool fast",
        "put the root disk of profile shop/default on pool fast",
    ]
    assert [pool(host), pool(host, "shop")] == ["fast", "fast"]
    assert host.api("GET", "/1.0/profiles/default")["devices"]["root"]["size"] == "300MiB"


def test_a_profile_whose_root_is_inherited_stays(host: Incusd) -> None:
    host.run("create", "bb", "c1")
    host.run("launch", "bb", "mary", "--project", "shop")
    result = unchanged(host, MODULE, **POOLS, protected=["shop/mary"])
    why = [one["why_it_stays"] for one in result["profiles"]]
    assert "inherited by c1, which Incus does not move" in why[0]
    assert "inherited by shop/mary, which is protected. Set pin_protected" in why[1]
    assert all("incus launch IMAGE NAME --storage fast" in each for each in why)


def test_protected_instances_are_pinned_without_a_restart(host: Incusd) -> None:
    host.run("launch", "bb", "mary")
    before = with_ctimes(host, "mary")
    runs = four(host, MODULE, **POOLS, protected=["mary"], pin_protected=True)
    assert runs.do["steps"][0] == "pin the root disk of mary to pool slow"
    assert record(host, "mary")["devices"]["root"] == {"type": "disk", "path": "/", "pool": "slow", "size": "300MiB"}
    after = with_ctimes(host, "mary")
    assert after[1:3] == before[1:3]
    assert [one for one in after[3] if b"rootfs" in one[0]] == [one for one in before[3] if b"rootfs" in one[0]]
    assert pool(host) == "fast"


def test_after_a_move_nothing_holds_the_profile(host: Incusd) -> None:
    host.run("launch", "bb", "c1")
    four(host, "incus_instance_pool", name="c1", pool="fast")
    four(host, MODULE, **POOLS)
    assert pool(host) == "fast"
    assert record(host, "c1")["status"] == "Running"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": "none"}, "There is no pool none"),
        ({"pool": "slow"}, "from_pool and pool are both slow"),
        ({"protected": ["marry"]}, "marry in protected is no instance"),
    ],
)
def test_bad_input(host: Incusd, options: dict[str, Any], said: str) -> None:
    assert said in refused(host, MODULE, **{**POOLS, **options})

"""incus_preseed on a private daemon: everything in one plan, which knows what its own earlier steps change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.incus_runs import four, refused, run, state, unchanged
from tests.support.incusd import Incusd

MODULE = "incus_preseed"


def wanted(daemon: Incusd, image: tuple[Path, Path]) -> dict[str, Any]:
    """What a host gets: a bridge, a pool, a default profile that uses both, and an image unpacked on the pool."""
    return {
        "networks": [{"name": daemon.bridge, "config": {"ipv4.address": daemon.subnet, "ipv6.address": "none"}}],
        "storage_pools": [{"name": "default", "size": "1GiB", "recreate_empty": True, "drift": "report"}],
        "profiles": [
            {"name": "default", "fallback_devices": {"eth0": {"type": "nic", "network": daemon.bridge}}},
            {
                "name": "default",
                "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}},
                "drift": "report",
            },
        ],
        "images": [
            {
                "alias": "busybox",
                "files": {"metadata": str(image[0]), "rootfs": str(image[1])},
                "pools": ["default"],
            }
        ],
    }


def profile(daemon: Incusd) -> dict[str, Any]:
    found: dict[str, Any] = daemon.api("GET", "/1.0/profiles/default")["devices"]
    return found


def first_words(steps: list[str]) -> list[str]:
    return [title.split(":")[0] for title in steps]


def test_empty_daemon(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    runs = four(incusd, MODULE, **wanted(incusd, busybox_image))
    assert first_words(runs.do["steps"]) == [
        f"create network {incusd.bridge} (bridge)",
        "create storage pool default",
        "set device eth0 of profile default",
        "set device root of profile default",
        "import image busybox",
        "unpack image busybox on storage pool default",
    ]
    assert runs.check["locations"]["default"]["kind"] == "loop"
    assert runs.do["drift"] == []
    assert runs.check["storage_pools"] == []
    assert runs.again["storage_pools"][0]["driver"] == "btrfs"
    incusd.run("launch", "busybox", "c1")


def test_pool_made_again_has_the_image_unpacked_again(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    incusd.run("storage", "create", "default", "dir")
    incusd.run("image", "import", *busybox_image, "--alias", "busybox")
    disk0 = {"type": "disk", "path": "/", "pool": "default", "size": "5GiB"}
    incusd.api("PUT", "/1.0/profiles/default", {"devices": {"disk0": disk0}})
    runs = four(incusd, MODULE, **wanted(incusd, busybox_image))
    steps = first_words(runs.do["steps"])
    assert steps[1:5] == [
        "detach storage pool default from profile default for now",
        "delete the empty storage pool default (dir)",
        "create storage pool default",
        "attach storage pool default to profile default again",
    ]
    assert steps[-1] == "unpack image busybox on storage pool default"
    assert profile(incusd) == {"disk0": disk0, "eth0": {"type": "nic", "network": incusd.bridge}}


def test_dir_pool_with_an_instance_is_reported_and_left(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    incusd.run("storage", "create", "default", "dir")
    incusd.run("create", "--empty", "c1", "--storage", "default")
    before = state(incusd)
    options = wanted(incusd, busybox_image)
    runs = four(incusd, MODULE, **options)
    (drift,) = runs.again["drift"]
    assert "Pool default has driver dir and holds instances c1" in drift
    assert "playbooks/migrate.yml" in drift
    assert drift in str(runs.check["warnings"])
    after = state(incusd)
    assert [instance["devices"] for instance in after["instances"]] == [
        instance["devices"] for instance in before["instances"]
    ]
    assert [pool["driver"] for pool in after["storage-pools"]] == ["dir"]
    options["storage_pools"][0]["drift"] = "fail"
    assert drift == refused(incusd, MODULE, **options)


def test_image_is_not_unpacked_on_a_new_pool_that_copies(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    options = wanted(incusd, busybox_image)
    options["storage_pools"][0]["driver"] = "dir"
    runs = four(incusd, MODULE, **options)
    assert not [title for title in runs.do["steps"] if title.startswith("unpack")]


def test_drift_of_pool_and_profile_are_both_told(incusd: Incusd) -> None:
    for name in ("default", "slow"):
        incusd.run("storage", "create", name, "dir")
    root = {"type": "disk", "path": "/", "pool": "slow"}
    incusd.api("PUT", "/1.0/profiles/default", {"devices": {"root": root}})
    for name in ("default", "slow"):
        incusd.run("create", "--empty", f"on-{name}", "--storage", name)
    incusd.run("create", "--empty", "heir")
    result = unchanged(
        incusd,
        MODULE,
        storage_pools=[{"name": "default", "drift": "report"}],
        profiles=[{"name": "default", "devices": {"root": {**root, "pool": "default"}}, "drift": "report"}],
    )
    assert len(result["drift"]) == 2
    assert "inherit it (heir)" in result["drift"][1]


def test_nothing_is_done_when_a_later_part_cannot_be(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    options = wanted(incusd, busybox_image)
    options["profiles"].append({"name": "web", "project": "none"})
    assert "There is no project none" in refused(incusd, MODULE, **options)
    options = wanted(incusd, busybox_image)
    options["images"][0]["pools"].append("nowhere")
    assert "nowhere, which is no pool here" in refused(incusd, MODULE, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"storage_pools": [{"size": "1GiB"}]},
            "storage_pools, entry without a name: missing required arguments: name",
        ),
        ({"storage_pools": [{"name": "fast", "siz": "1GiB"}]}, "storage_pools, entry fast: "),
        ({"storage_pools": [{"name": "fast", "size": "big"}]}, "'big' is not a size"),
        ({"storage_pools": [{"name": "fast"}, {"name": "fast"}]}, "storage pool fast is listed more than once"),
        ({"networks": [{"name": "cowbr0"}, {"name": "cowbr0"}]}, "network cowbr0 is listed more than once"),
        ({"profiles": [{"name": "default", "devices": {"root": "fast"}}]}, "The device root of profile default is"),
        ({"profiles": ["default"]}, "profiles"),
        ({"pools": []}, "Unsupported parameters"),
    ],
)
def test_bad_input(incusd: Incusd, options: dict[str, Any], said: str) -> None:
    before = state(incusd)
    assert said in run(incusd, MODULE, **options)["msg"]
    assert state(incusd) == before

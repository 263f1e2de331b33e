"""incus_storage_pool_info on a private daemon: who uses a pool, in all projects."""

from __future__ import annotations

from pathlib import Path

from tests.support.incus_runs import run, state
from tests.support.incusd import Incusd

MODULE = "incus_storage_pool_info"


def test_none(incusd: Incusd) -> None:
    for options in ({}, {"name": "fast"}):
        assert run(incusd, MODULE, **options)["pools"] == []


def test_all_who_use_a_pool(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    incusd.run("storage", "create", "fast", "btrfs", "size=1GiB")
    incusd.run("storage", "create", "slow", "dir")
    incusd.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast")
    incusd.run("image", "import", *busybox_image, "--alias", "busybox")
    (image,) = incusd.api("GET", "/1.0/images?recursion=1")
    incusd.run("project", "create", "shop", "-c", "features.images=false", "-c", "features.profiles=false")
    for project in ("default", "shop"):
        incusd.run("create", "busybox", "c1", "--project", project)
        incusd.run("snapshot", "create", "c1", "s1", "--project", project)
        incusd.run("storage", "volume", "create", "fast", "data", "--project", project)
        incusd.run("storage", "volume", "snapshot", "create", "fast", "data", "v1", "--project", project)
    before = state(incusd)
    fast, slow = run(incusd, MODULE)["pools"]
    assert fast["used_by"] == {
        "instances": ["c1", "shop/c1"],
        "volumes": ["data", "shop/data"],
        "buckets": [],
        "images": [image["fingerprint"]],
        "profiles": ["default"],
    }
    assert (fast["driver"], fast["source"], fast["can_clone"]) == ("btrfs", f"{incusd.dir}/disks/fast.img", True)
    assert 0 < fast["used_bytes"] < fast["size_bytes"] == 1 << 30
    assert (slow["driver"], slow["can_clone"], slow["half_made"]) == ("dir", False, False)
    assert not any(slow["used_by"].values())
    assert [pool["name"] for pool in run(incusd, MODULE, name="slow", check=True)["pools"]] == ["slow"]
    assert state(incusd) == before


def test_bad_name(incusd: Incusd) -> None:
    assert "cannot be the name of a storage pool" in run(incusd, MODULE, name="-x")["msg"]

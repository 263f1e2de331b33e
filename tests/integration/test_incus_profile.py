"""incus_profile on a private daemon: devices are merged, and root disks that instances inherit stay where they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.incus_runs import four, refused, run, state, unchanged
from tests.support.incusd import Incusd

MODULE = "incus_profile"


def root(pool: str, **options: str) -> dict[str, str]:
    return {"type": "disk", "path": "/", "pool": pool, **options}


def profile(daemon: Incusd, name: str = "default", project: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = daemon.api("GET", f"/1.0/profiles/{name}?project={project}")
    return found


def put(daemon: Incusd, name: str = "default", project: str = "default", **body: Any) -> None:
    daemon.api("PUT", f"/1.0/profiles/{name}?project={project}", body)


@pytest.fixture
def pools(incusd: Incusd) -> Incusd:
    """A daemon with the pools slow and fast."""
    for name in ("slow", "fast"):
        incusd.run("storage", "create", name, "dir")
    return incusd


def test_create_and_delete(pools: Incusd) -> None:
    options = {"config": {"limits.cpu": 2, "security.nesting": True}, "devices": {"root": root("fast")}}
    runs = four(pools, MODULE, name="web", description="for the web", **options)
    assert runs.do["steps"] == ["create profile web"]
    assert runs.check["profile"] is None
    assert runs.again["profile"] == {
        "name": "web",
        "project": "default",
        "description": "for the web",
        "config": {"limits.cpu": "2", "security.nesting": "true"},
        "devices": {"root": root("fast")},
        "used_by": [],
    }
    pools.run("create", "--empty", "c1", "--profile", "web")
    assert "Profile web is used by c1" in refused(pools, MODULE, name="web", state="absent")
    pools.run("delete", "c1")
    assert four(pools, MODULE, name="web", state="absent").do["steps"] == ["delete profile web"]
    assert "cannot be removed" in refused(pools, MODULE, name="default", state="absent")


def test_what_a_profile_has_stays(pools: Incusd) -> None:
    put(
        pools,
        description="ours",
        config={"user.a": "1", "user.b": "2", "user.c": "3"},
        devices={"disk0": root("slow", size="5GiB"), "gpu": {"type": "gpu"}, "tty": {"type": "none"}},
    )
    runs = four(
        pools,
        MODULE,
        name="default",
        config={"user.b": "4", "user.c": None},
        devices={"root": root("fast")},
        remove_devices=["tty", "never there"],
    )
    assert runs.do["steps"] == ["set device disk0, device tty, user.b, user.c of profile default"]
    found = profile(pools)
    assert found["description"] == "ours"
    assert found["config"] == {"user.a": "1", "user.b": "4"}
    assert found["devices"] == {"disk0": root("fast", size="5GiB"), "gpu": {"type": "gpu"}}


def test_a_root_disk_can_be_given_another_name(pools: Incusd) -> None:
    put(pools, devices={"disk0": root("slow")})
    four(pools, MODULE, name="default", devices={"root": root("slow")}, remove_devices=["disk0"])
    assert profile(pools)["devices"] == {"root": root("slow")}


def test_fallback_devices_only_fill_a_gap(pools: Incusd) -> None:
    nic = {"type": "nic", "nictype": "p2p"}
    fallback = {"eth0": nic, "root": root("fast"), "data": {"type": "disk", "path": "/data", "source": "/srv"}}
    put(pools, devices={"net": {"type": "nic", "nictype": "p2p", "name": "up0"}, "disk0": root("slow")})
    runs = four(pools, MODULE, name="default", fallback_devices=fallback)
    assert runs.do["steps"] == ["set device data of profile default"]
    assert set(profile(pools)["devices"]) == {"net", "disk0", "data"}
    put(pools, devices={"eth0": {"type": "none"}})
    four(pools, MODULE, name="default", fallback_devices=fallback)
    assert profile(pools)["devices"] == {"eth0": {"type": "none"}, "root": root("fast"), "data": fallback["data"]}


def test_a_name_that_something_else_has_is_refused(pools: Incusd) -> None:
    data = {"type": "disk", "path": "/data", "source": "/srv"}
    put(pools, devices={"root": data})
    message = refused(pools, MODULE, name="default", devices={"root": root("fast")})
    assert "has a device root that is something else: path=/data source=/srv type=disk" in message
    reported = unchanged(pools, MODULE, name="default", devices={"root": root("fast")}, drift="report")
    assert reported["drift"] == message
    four(pools, MODULE, name="default", devices={"root": root("fast")}, remove_devices=["root"])
    assert profile(pools)["devices"] == {"root": root("fast")}


def test_root_disk_that_instances_inherit_stays(pools: Incusd) -> None:
    put(pools, devices={"root": root("slow")})
    pools.run("create", "--empty", "own", "-s", "slow")
    pools.run("profile", "create", "web")
    put(pools, "web", devices={"root": root("slow")})
    pools.run("create", "--empty", "later", "--profile", "default", "--profile", "web")
    four(pools, MODULE, name="default", devices={"root": root("fast")})
    four(pools, MODULE, name="default", devices={"root": root("slow")})
    pools.run("create", "--empty", "c1")
    wanted = {"name": "default", "devices": {"root": root("fast")}, "description": "other"}
    message = refused(pools, MODULE, **wanted)
    assert "root disk on pool slow, wanted is fast, but instances inherit it (c1)" in message
    reported = unchanged(pools, MODULE, drift="report", **wanted)
    assert reported["drift"] == message
    assert message in str(reported["warnings"])
    assert "inherit it (c1)" in refused(pools, MODULE, name="default", remove_devices=["root"])
    assert "inherit it (later)" in refused(pools, MODULE, name="web", devices={"root": root("fast")})
    four(pools, MODULE, name="default", devices={"root": root("slow", size="5GiB")})


def test_profiles_of_another_project(pools: Incusd) -> None:
    pools.run("project", "create", "shop", "-c", "features.profiles=true", "-c", "features.images=false")
    pools.run("project", "create", "shared", "-c", "features.profiles=false", "-c", "features.images=false")
    put(pools, devices={"root": root("slow")})
    put(pools, project="shop", devices={"root": root("slow")})
    pools.run("create", "--empty", "c1", "--project", "shop")
    four(pools, MODULE, name="default", devices={"root": root("fast")})
    message = refused(pools, MODULE, name="default", project="shop", devices={"root": root("fast")})
    assert "Profile shop/default has its root disk on pool slow" in message
    assert "inherit it (shop/c1)" in message
    pools.run("create", "--empty", "c2", "--project", "shared")
    message = refused(pools, MODULE, name="default", devices={"root": root("slow")})
    assert "inherit it (shared/c2)" in message
    runs = four(pools, MODULE, name="web", project="shop", config={"user.a": "1"})
    assert runs.do["steps"] == ["create profile shop/web"]
    for project in ("shared", "none"):
        message = refused(pools, MODULE, name="web", project=project)
        assert f"There is no project {project} with profiles of its own" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "-x"}, "'-x' cannot be the name of a profile"),
        ({"name": "a/b"}, "'a/b' cannot be the name of a profile"),
        ({"project": "../x"}, "cannot be the name of a project"),
        ({"devices": {"root": "fast"}}, "The device root of profile default is 'fast', wanted are its options"),
        ({"devices": {"root": {"path": "/"}}}, "The device root of profile default has no type"),
        ({"devices": {"root": {"type": "disk", "path": ["/"]}}}, "The value of path of device root"),
        ({"config": {"user.a": {}}}, "The value of user.a of profile default is {}"),
        ({"config": {"no.such.key": "1"}}, "Incus refused to"),
        ({"device": {}}, "Unsupported parameters"),
    ],
)
def test_bad_input(incusd: Incusd, options: dict[str, Any], said: str) -> None:
    before = state(incusd)
    assert said in run(incusd, MODULE, **{"name": "default", **options})["msg"]
    assert state(incusd) == before

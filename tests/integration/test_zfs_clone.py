"""zfs_clone and zfs_snapshot on a ZFS in user space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import zfs_fuse
from tests.support.ansible import FourRuns, four_runs, run_module
from tests.support.zfs_fuse import ZfsFuse


@pytest.fixture(scope="module")
def fuse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZfsFuse]:
    with zfs_fuse.running(tmp_path_factory.mktemp("zfs")) as running:
        yield running


@pytest.fixture
def pool(fuse: ZfsFuse) -> str:
    """A pool with golden, its snapshot golden@monday, and work."""
    name = fuse.pool()
    fuse.run("zfs", "create", f"{name}/golden")
    fuse.run("zfs", "snapshot", f"{name}/golden@monday")
    fuse.run("zfs", "create", f"{name}/work")
    return name


def state(fuse: ZfsFuse, pool: str) -> str:
    return fuse.run("zfs", "get", "-Hp", "-r", "-o", "name,property,value,source", "all", pool)


def names(fuse: ZfsFuse, pool: str) -> list[str]:
    return fuse.run("zfs", "list", "-H", "-r", "-t", "all", "-o", "name", pool).split()


def four(fuse: ZfsFuse, pool: str, module: str, /, **args: Any) -> FourRuns:
    return four_runs(module, args, state=lambda: names(fuse, pool), within=fuse.within)


def refused(fuse: ZfsFuse, pool: str, module: str, /, **args: Any) -> str:
    before = state(fuse, pool)
    in_check, in_run = (run_module(module, args, check, within=fuse.within) for check in (True, False))
    assert in_run["failed"], in_run
    assert in_check["msg"] == in_run["msg"]
    assert state(fuse, pool) == before
    return str(in_run["msg"])


def test_clone_and_destroy(fuse: ZfsFuse, pool: str) -> None:
    name, origin = f"{pool}/work/alice", f"{pool}/golden@monday"
    properties = {"canmount": "noauto", "atime": "off", "site:owner": "alice"}
    made = four(fuse, pool, "zfs_clone", name=name, origin=origin, properties=properties)
    assert made.do["steps"] == [f"clone {origin} as {name}"]
    assert (made.again["name"], made.again["origin"], made.again["properties"]) == (name, origin, properties)
    changed = four(fuse, pool, "zfs_clone", name=name, origin=origin, properties={"site:owner": "bob"})
    assert changed.do["steps"] == [f"set site:owner of {name} to bob"]
    assert changed.do["diff"][0]["before"] == "site:owner: alice\n"
    gone = four(fuse, pool, "zfs_clone", name=name, state="absent")
    assert gone.do["steps"] == [f"destroy {name}"]
    assert name not in names(fuse, pool)


def test_promote(fuse: ZfsFuse, pool: str) -> None:
    """Through two generations, so that one promotion is not enough."""
    first, second = f"{pool}/work/first", f"{pool}/work/second"
    fuse.run("zfs", "clone", f"{pool}/golden@monday", first)
    fuse.run("zfs", "snapshot", f"{first}@tuesday")
    done = four(fuse, pool, "zfs_clone", name=second, origin=f"{first}@tuesday", promote=True)
    assert done.do["steps"] == [f"clone {first}@tuesday as {second}", f"promote {second}"]
    assert done.again["origin"] is None
    assert {f"{second}@monday", f"{second}@tuesday"} <= set(names(fuse, pool))
    for origin in (f"{pool}/golden@monday", f"{first}@tuesday"):
        assert "is not a clone" in refused(fuse, pool, "zfs_clone", name=second, origin=origin)
    assert "only copy" in refused(fuse, pool, "zfs_clone", name=second, state="absent")
    assert "is a clone of" in refused(fuse, pool, "zfs_clone", name=first, origin=f"{second}@monday")


def test_an_interrupted_promotion_is_continued(fuse: ZfsFuse, pool: str) -> None:
    first, second = f"{pool}/work/first", f"{pool}/work/second"
    fuse.run("zfs", "clone", f"{pool}/golden@monday", first)
    fuse.run("zfs", "snapshot", f"{first}@tuesday")
    fuse.run("zfs", "clone", f"{first}@tuesday", second)
    fuse.run("zfs", "promote", second)
    origin = f"{first}@tuesday"
    assert "set promote: true" in refused(fuse, pool, "zfs_clone", name=second, origin=origin)
    done = four(fuse, pool, "zfs_clone", name=second, origin=origin, promote=True)
    assert done.do["steps"] == [f"promote {second}"]
    assert f"{pool}/golden@monday" in done.do["diff"][0]["before"]
    assert done.again["origin"] is None
    # A snapshot of that name is no sign of it while the origin is where it was.
    third = f"{pool}/work/third"
    fuse.run("zfs", "snapshot", f"{pool}/golden@wednesday")
    fuse.run("zfs", "clone", f"{pool}/golden@wednesday", third)
    fuse.run("zfs", "snapshot", f"{third}@tuesday")
    message = refused(fuse, pool, "zfs_clone", name=third, origin=f"{second}@tuesday", promote=True)
    assert f"is a clone of {pool}/golden@wednesday" in message
    assert "promote" not in message


def test_a_clone_that_others_depend_on_stays(fuse: ZfsFuse, pool: str) -> None:
    name = f"{pool}/work/alice"
    fuse.run("zfs", "clone", f"{pool}/golden@monday", name)
    fuse.run("zfs", "snapshot", f"{name}@mine")
    fuse.run("zfs", "clone", f"{name}@mine", f"{pool}/work/bob")
    message = refused(fuse, pool, "zfs_clone", name=name, state="absent")
    assert f"{name}@mine (with the clones {pool}/work/bob)" in message
    other = refused(fuse, pool, "zfs_clone", name=f"{pool}/work/bob", origin=f"{pool}/golden@monday", state="absent")
    assert f"is a clone of {name}@mine" in other


def test_snapshot(fuse: ZfsFuse, pool: str) -> None:
    name = f"{pool}/golden@tuesday"
    made = four(fuse, pool, "zfs_snapshot", name=name, properties={"site:build": "4711"})
    assert made.do["steps"] == [f"take snapshot {name}"]
    assert (made.again["name"], made.again["holds"], made.again["clones"]) == (name, [], [])
    assert made.again["properties"] == {"site:build": "4711"}
    assert made.again["created"].endswith("Z")
    changed = four(fuse, pool, "zfs_snapshot", name=name, properties={"site:build": "4712"})
    assert changed.do["steps"] == [f"set site:build of {name} to 4712"]
    assert four(fuse, pool, "zfs_snapshot", name=name, state="absent").do["steps"] == [f"destroy {name}"]


def test_a_snapshot_is_held(fuse: ZfsFuse, pool: str) -> None:
    """Holds are taken; to list them is what zfs-fuse cannot do, so that the second run is for OpenZFS."""
    name = f"{pool}/golden@held"
    done = run_module("zfs_snapshot", {"name": name, "holds": ["release-7"]}, check=True, within=fuse.within)
    assert done["steps"] == [f"take snapshot {name}", f"hold {name} with the tag release-7"]
    run_module("zfs_snapshot", {"name": name, "holds": ["release-7"]}, within=fuse.within)
    assert fuse.run("zfs", "get", "-Hp", "-o", "value", "userrefs", name) == "1\n"


def test_a_snapshot_with_clones_stays(fuse: ZfsFuse, pool: str) -> None:
    fuse.run("zfs", "clone", f"{pool}/golden@monday", f"{pool}/work/alice")
    message = refused(fuse, pool, "zfs_snapshot", name=f"{pool}/golden@monday", state="absent")
    assert f"has the clones {pool}/work/alice" in message


@pytest.mark.parametrize(
    ("module", "args", "said"),
    [
        ("zfs_clone", {"name": "{pool}", "origin": "{pool}/golden@monday"}, "is a pool"),
        ("zfs_clone", {"name": "{pool}/work/-a", "origin": "{pool}/golden@monday"}, "is not a dataset"),
        ("zfs_clone", {"name": "{pool}/work/a", "origin": "{pool}/golden"}, "is not a snapshot"),
        ("zfs_clone", {"name": "{pool}/work/a", "origin": "{pool}/golden@none"}, "golden@none does not exist"),
        ("zfs_clone", {"name": "{pool}/none/a", "origin": "{pool}/golden@monday"}, "{pool}/none does not exist"),
        ("zfs_clone", {"name": "{pool}/work/a"}, "origin"),
        ("zfs_clone", {"name": "{pool}/golden", "origin": "{pool}/golden@monday"}, "is not a clone"),
        ("zfs_clone", {"name": "{pool}/golden", "state": "absent"}, "only copy"),
        ("zfs_snapshot", {"name": "{pool}/golden"}, "is not a snapshot"),
        ("zfs_snapshot", {"name": "{pool}/none@a"}, "{pool}/none does not exist"),
        ("zfs_snapshot", {"name": "{pool}/golden@a", "properties": {"atime": "off"}}, "user properties"),
        ("zfs_snapshot", {"name": "{pool}/golden@a", "holds": ["a b"]}, "tag of a hold"),
    ],
)
def test_bad_input(fuse: ZfsFuse, pool: str, module: str, args: dict[str, Any], said: str) -> None:
    filled = {key: value.format(pool=pool) if isinstance(value, str) else value for key, value in args.items()}
    assert said.format(pool=pool) in refused(fuse, pool, module, **filled)


def test_absent_is_what_it_is_already(fuse: ZfsFuse, pool: str) -> None:
    for module, name in (("zfs_clone", f"{pool}/none/a"), ("zfs_snapshot", f"{pool}/none@a")):
        result = run_module(module, {"name": name, "state": "absent"}, within=fuse.within)
        assert (result["changed"], result["steps"]) == (False, [])

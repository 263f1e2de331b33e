"""What zfs_clone and zfs_snapshot do on any ZFS: checks that each get a pool as `begun` leaves it.

It needs no more than the modules do, as `golden_trees`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .ansible import FourRuns, Result, four_runs_by


class Zfs(Protocol):
    """A ZFS, and modules on its host."""

    def run(self, *argv: str) -> str:
        """Run a command there, and return its output; AssertionError when it fails."""

    def module(self, name: str, args: Mapping[str, Any], check: bool = False) -> Result:
        """Run a module there."""


def begun(zfs: Zfs, pool: str) -> str:
    """Give an empty pool golden, its snapshot golden@monday, and work; returns its name."""
    zfs.run("zfs", "create", f"{pool}/golden")
    zfs.run("zfs", "snapshot", f"{pool}/golden@monday")
    zfs.run("zfs", "create", f"{pool}/work")
    return pool


def state(zfs: Zfs, pool: str) -> str:
    """All that a module could change; not the space that is used, which ZFS counts some seconds later."""
    own = zfs.run("zfs", "get", "-Hp", "-r", "-s", "local", "-o", "name,property,value", "all", pool)
    return own + zfs.run("zfs", "get", "-Hp", "-r", "-o", "name,property,value", "mounted,origin,userrefs", pool)


def names(zfs: Zfs, pool: str) -> list[str]:
    return zfs.run("zfs", "list", "-H", "-r", "-t", "all", "-o", "name", pool).split()


def four(zfs: Zfs, pool: str, module: str, /, **args: Any) -> FourRuns:
    return four_runs_by(lambda check: zfs.module(module, args, check), state=lambda: names(zfs, pool))


def refused(zfs: Zfs, pool: str, module: str, /, **args: Any) -> str:
    before = state(zfs, pool)
    in_check, in_run = (zfs.module(module, args, check) for check in (True, False))
    assert in_run["failed"], in_run
    assert in_check["msg"] == in_run["msg"]
    assert state(zfs, pool) == before
    return str(in_run["msg"])


def clone_and_destroy(zfs: Zfs, pool: str) -> None:
    name, origin = f"{pool}/work/alice", f"{pool}/golden@monday"
    properties = {"canmount": "noauto", "atime": "off", "site:owner": "alice"}
    made = four(zfs, pool, "zfs_clone", name=name, origin=origin, properties=properties)
    assert made.do["steps"] == [f"clone {origin} as {name}"]
    assert (made.again["name"], made.again["origin"], made.again["properties"]) == (name, origin, properties)
    changed = four(zfs, pool, "zfs_clone", name=name, origin=origin, properties={"site:owner": "bob"})
    assert changed.do["steps"] == [f"set site:owner of {name} to bob"]
    assert changed.do["diff"][0]["before"] == "site:owner: alice\n"
    gone = four(zfs, pool, "zfs_clone", name=name, state="absent")
    assert gone.do["steps"] == [f"destroy {name}"]
    assert name not in names(zfs, pool)


def promote(zfs: Zfs, pool: str) -> None:
    """Through two generations, so that one promotion is not enough."""
    first, second = f"{pool}/work/first", f"{pool}/work/second"
    zfs.run("zfs", "clone", f"{pool}/golden@monday", first)
    zfs.run("zfs", "snapshot", f"{first}@tuesday")
    done = four(zfs, pool, "zfs_clone", name=second, origin=f"{first}@tuesday", promote=True)
    assert done.do["steps"] == [f"clone {first}@tuesday as {second}", f"promote {second}"]
    assert done.again["origin"] is None
    assert {f"{second}@monday", f"{second}@tuesday"} <= set(names(zfs, pool))
    for origin in (f"{pool}/golden@monday", f"{first}@tuesday"):
        assert "is not a clone" in refused(zfs, pool, "zfs_clone", name=second, origin=origin)
    assert "only copy" in refused(zfs, pool, "zfs_clone", name=second, state="absent")
    assert "is a clone of" in refused(zfs, pool, "zfs_clone", name=first, origin=f"{second}@monday")


def an_interrupted_promotion_is_continued(zfs: Zfs, pool: str) -> None:
    first, second = f"{pool}/work/first", f"{pool}/work/second"
    zfs.run("zfs", "clone", f"{pool}/golden@monday", first)
    zfs.run("zfs", "snapshot", f"{first}@tuesday")
    zfs.run("zfs", "clone", f"{first}@tuesday", second)
    zfs.run("zfs", "promote", second)
    origin = f"{first}@tuesday"
    assert "set promote: true" in refused(zfs, pool, "zfs_clone", name=second, origin=origin)
    done = four(zfs, pool, "zfs_clone", name=second, origin=origin, promote=True)
    assert done.do["steps"] == [f"promote {second}"]
    assert f"{pool}/golden@monday" in done.do["diff"][0]["before"]
    assert done.again["origin"] is None
    # A snapshot of that name is no sign of it while the origin is where it was.
    third = f"{pool}/work/third"
    zfs.run("zfs", "snapshot", f"{pool}/golden@wednesday")
    zfs.run("zfs", "clone", f"{pool}/golden@wednesday", third)
    zfs.run("zfs", "snapshot", f"{third}@tuesday")
    message = refused(zfs, pool, "zfs_clone", name=third, origin=f"{second}@tuesday", promote=True)
    assert f"is a clone of {pool}/golden@wednesday" in message
    assert "promote" not in message


def a_clone_that_others_depend_on_stays(zfs: Zfs, pool: str) -> None:
    name = f"{pool}/work/alice"
    zfs.run("zfs", "clone", f"{pool}/golden@monday", name)
    zfs.run("zfs", "snapshot", f"{name}@mine")
    zfs.run("zfs", "clone", f"{name}@mine", f"{pool}/work/bob")
    message = refused(zfs, pool, "zfs_clone", name=name, state="absent")
    assert f"{name}@mine (with the clones {pool}/work/bob)" in message
    other = refused(zfs, pool, "zfs_clone", name=f"{pool}/work/bob", origin=f"{pool}/golden@monday", state="absent")
    assert f"is a clone of {name}@mine" in other


def snapshot(zfs: Zfs, pool: str) -> None:
    name = f"{pool}/golden@tuesday"
    made = four(zfs, pool, "zfs_snapshot", name=name, properties={"site:build": "4711"})
    assert made.do["steps"] == [f"take snapshot {name}"]
    assert (made.again["name"], made.again["holds"], made.again["clones"]) == (name, [], [])
    assert made.again["properties"] == {"site:build": "4711"}
    assert made.again["created"].endswith("Z")
    changed = four(zfs, pool, "zfs_snapshot", name=name, properties={"site:build": "4712"})
    assert changed.do["steps"] == [f"set site:build of {name} to 4712"]
    assert four(zfs, pool, "zfs_snapshot", name=name, state="absent").do["steps"] == [f"destroy {name}"]


def a_snapshot_with_clones_stays(zfs: Zfs, pool: str) -> None:
    zfs.run("zfs", "clone", f"{pool}/golden@monday", f"{pool}/work/alice")
    message = refused(zfs, pool, "zfs_snapshot", name=f"{pool}/golden@monday", state="absent")
    assert f"has the clones {pool}/work/alice" in message


def absent_is_what_it_is_already(zfs: Zfs, pool: str) -> None:
    for module, name in (("zfs_clone", f"{pool}/none/a"), ("zfs_snapshot", f"{pool}/none@a")):
        result = zfs.module(module, {"name": name, "state": "absent"})
        assert (result["changed"], result["steps"]) == (False, [])


CHECKS: tuple[Callable[[Zfs, str], None], ...] = (
    clone_and_destroy,
    promote,
    an_interrupted_promotion_is_continued,
    a_clone_that_others_depend_on_stays,
    snapshot,
    a_snapshot_with_clones_stays,
    absent_is_what_it_is_already,
)

"""A host with a container on a `dir` pool, and what must hold of it whatever happens to a move."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.manifest import Manifest
from ansible.module_utils.cow.tree import Tree, walk

from . import trees
from .incusd import Incusd

MODULE = "incus_instance_pool"
OF_A_RUN = ("volatile.last_state.power", "volatile.last_state.ready", "volatile.eth0.host_name")

_seeds = itertools.count(1)


def prepare(
    daemon: Incusd, image: tuple[Path, Path], *, target: str = "btrfs", source: str = "dir", size: str = "768MiB"
) -> None:
    """Give a daemon the image bb, the pools slow and fast, and a bridge."""
    daemon.run("image", "import", *image, "--alias", "bb")
    for name, driver in (("slow", source), ("fast", target)):
        daemon.run("storage", "create", name, driver, *([f"size={size}"] if driver == "btrfs" else []))
    daemon.make_bridge()


def launch(daemon: Incusd, name: str, *options: str, files: bool = False) -> None:
    """Launch a busybox container on the pool slow; with `files`, one whose tree has all that a copy can lose."""
    daemon.run("launch", "bb", name, "--storage", "slow", "--network", daemon.bridge, *options)
    if files:
        folder = rootfs(daemon, name) / "hostile"
        trees.make_hostile(folder, next(_seeds), depth=30)
        # Incus copies and snapshots a dir pool with rsync, which reads holes byte by byte.
        os.truncate(folder / "sparse", 24 << 20)


def volume(daemon: Incusd, name: str, pool: str = "slow", snapshot: str = "") -> Path:
    """The folder of an instance, or of a snapshot of it."""
    folder = daemon.dir / "storage-pools" / pool
    return folder / "containers-snapshots" / name / snapshot if snapshot else folder / "containers" / name


def rootfs(daemon: Incusd, name: str, pool: str = "slow", snapshot: str = "") -> Path:
    """Its root file system."""
    return volume(daemon, name, pool, snapshot) / "rootfs"


def contents(path: Path) -> Manifest:
    """Everything in a root file system."""
    return manifest.of(path)


def with_ctimes(daemon: Incusd, name: str, pool: str = "slow") -> Any:
    """What tells that nobody has touched an instance: its record, its state, and its tree with the times of change."""
    record = daemon.api("GET", f"/1.0/instances/{name}?recursion=1")
    state = record.pop("state")
    return record, state["pid"], state["started_at"], _ctimes(walk(volume(daemon, name, pool)))


def _ctimes(tree: Tree) -> list[tuple[bytes, int, int]]:
    return [(entry.path, entry.inode, entry.ctime_ns) for entry in tree.entries]


def record(daemon: Incusd, name: str) -> dict[str, Any]:
    """An instance with its snapshots, as the server has it."""
    found: dict[str, Any] = daemon.api("GET", f"/1.0/instances/{name}")
    found["snapshots"] = daemon.api("GET", f"/1.0/instances/{name}/snapshots?recursion=1") or []
    return found


def pid(daemon: Incusd, name: str) -> int:
    """The process id of its init."""
    return int(daemon.api("GET", f"/1.0/instances/{name}/state")["pid"])


def names(daemon: Incusd) -> list[str]:
    """The names of all instances of the default project."""
    return sorted(one["name"] for one in daemon.api("GET", "/1.0/instances?recursion=1") or [])


def identity(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a move must keep of a record: all but the pool of the root disk and what the server notes of a run."""
    config = {key: value for key, value in found["config"].items() if key not in OF_A_RUN}
    devices = {name: options for name, options in found["devices"].items() if options.get("path") != "/"}
    snapshots = [
        (one["name"], one["created_at"], one["expires_at"], one["config"], one["profiles"])
        for one in found["snapshots"]
    ]
    kept = ("profiles", "description", "architecture", "ephemeral", "status")
    return {"config": config, "devices": devices, "snapshots": snapshots, **{key: found[key] for key in kept}}


def equal(first: Path, second: Path) -> None:
    """Assert that two root file systems are equal."""
    assert manifest.differences(contents(first), contents(second)) == []


def let_go(daemon: Incusd) -> None:
    """Take away the flags that keep Incus from deleting what tests have made."""
    for pool in (daemon.dir / "storage-pools").glob("*"):
        for folder in ("containers", "containers-snapshots"):
            subprocess.run(["chattr", "-R", "-f", "-i", "-a", pool / folder], capture_output=True, check=False)

"""Whatever state a host is in: one run converges it, check mode has said how, the next run changes nothing."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.incus_runs import die_after, run, state
from tests.support.incusd import Incusd

MODULE = "incus_preseed"
POOL = {"name": "default", "size": "1GiB", "recreate_empty": True, "drift": "report"}
CONTENT = "what must not be lost"


@dataclass(frozen=True)
class Host:
    """A state that a host can be in.

    pool: how the wanted pool is. holds: what a `dir` pool holds. root: the device of the default profile that is the
    root disk, "" for none. image: whether it is imported, and unpacked. second: a project with profiles of its own.
    """

    pool: str
    holds: str
    root: str
    nic: bool
    network: bool
    image: str
    second: bool

    @property
    def root_disk(self) -> dict[str, str]:
        """The root disk in the profiles that have one."""
        return {"type": "disk", "path": "/", "pool": "another" if self.pool == "another" else "default"}

    @property
    def keeps_driver(self) -> bool:
        """Whether the pool has to stay a `dir` pool."""
        return self.pool == "dir" and self.holds != ""


hosts = st.builds(
    Host,
    pool=st.sampled_from(["", "btrfs", "small btrfs", "dir", "dir", "half-made", "interrupted", "another"]),
    holds=st.sampled_from(["", "instance", "volume"]),
    root=st.sampled_from(["", "root", "disk0"]),
    nic=st.booleans(),
    network=st.booleans(),
    image=st.sampled_from(["", "imported", "unpacked"]),
    second=st.booleans(),
)


@settings(
    max_examples=12,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(host=hosts)
def test_one_run_converges(shared_incusd: Incusd, busybox_image: tuple[Path, Path], host: Host) -> None:
    daemon = shared_incusd
    try:
        converges(daemon, busybox_image, host)
    finally:
        daemon.clean()


def converges(daemon: Incusd, busybox_image: tuple[Path, Path], host: Host) -> None:
    make(daemon, host, busybox_image)
    options = wanted(daemon, busybox_image)
    before = state(daemon)
    planned = run(daemon, MODULE, check=True, **options)
    assert not planned.get("failed"), planned["msg"]
    assert state(daemon) == before
    kept = contents(daemon)
    done = run(daemon, MODULE, **options)
    assert not done.get("failed"), done["msg"]
    assert (done["steps"], done["diff"], done["drift"]) == (planned["steps"], planned["diff"], planned["drift"])
    for check in (False, True):
        again = run(daemon, MODULE, check=check, **options)
        assert (again["changed"], again["steps"]) == (False, [])
    assert contents(daemon) == kept
    assert_converged(daemon, host, done["drift"])


def wanted(daemon: Incusd, image: tuple[Path, Path]) -> dict[str, Any]:
    files = {"metadata": str(image[0]), "rootfs": str(image[1])}
    return {
        "networks": [{"name": daemon.bridge, "config": {"ipv4.address": daemon.subnet, "ipv6.address": "none"}}],
        "storage_pools": [POOL],
        "profiles": [
            {
                "name": "default",
                "devices": {"root": {"type": "disk", "path": "/", "pool": "default"}},
                "fallback_devices": {"eth0": {"type": "nic", "network": daemon.bridge}},
                "drift": "report",
            }
        ],
        "images": [{"alias": "busybox", "files": files, "pools": ["default"]}],
    }


def make(daemon: Incusd, host: Host, image: tuple[Path, Path]) -> None:
    """Bring the daemon, which is empty, into this state."""
    if host.network or host.nic:
        daemon.make_bridge()
    if host.image or host.holds == "instance":
        daemon.run("image", "import", *image, "--alias", "busybox")
    put_profiles(daemon, host)
    make_pool(daemon, host)
    if host.image == "unpacked" and host.pool in ("btrfs", "small btrfs"):
        daemon.run("create", "busybox", "c2", "--no-profiles", "--storage", "default")
        daemon.run("delete", "c2")


def put_profiles(daemon: Incusd, host: Host) -> None:
    devices: dict[str, Any] = {host.root: host.root_disk} if host.root else {}
    if host.nic:
        devices["net0"] = {"type": "nic", "network": daemon.bridge, "name": "eth0"}
    daemon.api("PUT", "/1.0/profiles/default", {"devices": devices})
    if host.second:
        daemon.run("project", "create", "shop", "-c", "features.profiles=true")
        daemon.api("PUT", "/1.0/profiles/default?project=shop", {"devices": {"its": host.root_disk}})


def make_pool(daemon: Incusd, host: Host) -> None:
    if host.pool in ("btrfs", "small btrfs", "half-made"):
        daemon.run("storage", "create", "default", "btrfs", "size=" + ("512MiB" if "small" in host.pool else "1GiB"))
    elif host.pool in ("dir", "interrupted", "another"):
        daemon.run("storage", "create", "another" if host.pool == "another" else "default", "dir")
    if host.pool == "half-made":
        # As a crash leaves it: a record without a source, of a pool that was never reported as ready.
        daemon.run("admin", "sql", "global", "UPDATE storage_pools_nodes SET state = 0")
        daemon.run("admin", "sql", "global", "DELETE FROM storage_pools_config WHERE key = 'source'")
        subprocess.run(["umount", daemon.dir / "storage-pools/default"], check=True)
        (daemon.dir / "storage-pools/default").rmdir()
        (daemon.dir / "disks/default.img").unlink()
    elif host.pool == "interrupted":
        die_after(daemon, "delete", "incus_storage_pool", **POOL)
    elif host.pool:
        fill(daemon, host)


def fill(daemon: Incusd, host: Host) -> None:
    pool = "another" if host.pool == "another" else "default"
    if host.holds == "instance":
        inherited = [] if host.root else ["--storage", pool]
        daemon.run("create", "busybox", "c1", *inherited)
        (daemon.dir / "storage-pools" / pool / "containers/c1/rootfs/root/file").write_text(CONTENT)
    elif host.holds == "volume":
        daemon.run("storage", "volume", "create", pool, "data")
        (daemon.dir / "storage-pools" / pool / "custom/default_data/file").write_text(CONTENT)


def contents(daemon: Incusd) -> dict[str, Any]:
    """The instances and custom volumes, and what was written into them."""
    instances = daemon.api("GET", "/1.0/instances?recursion=1&all-projects=true")
    files = (daemon.dir / "storage-pools").glob("*/c*/*/**/file")
    return {
        "instances": [(instance["name"], instance["status"], instance["devices"]) for instance in instances],
        "files": {str(path): path.read_text() for path in files},
    }


def assert_converged(daemon: Incusd, host: Host, drift: list[str]) -> None:
    pool = daemon.api("GET", "/1.0/storage-pools/default")
    assert (pool["driver"], pool["status"]) == ("dir" if host.keeps_driver else "btrfs", "Created")
    assert host.keeps_driver == any("Pool default has driver dir" in sentence for sentence in drift)
    if not host.keeps_driver:
        assert daemon.api("GET", "/1.0/storage-pools/default/resources")["space"]["total"] == 1 << 30
        image = daemon.api("GET", "/1.0/images/aliases/busybox")["target"]
        assert f"/1.0/images/{image}" in pool["used_by"]
    devices = daemon.api("GET", "/1.0/profiles/default")["devices"].values()
    roots = [device for device in devices if device.get("path") == "/"]
    stays = host.pool == "another" and host.root != "" and host.holds == "instance"
    assert [root["pool"] for root in roots] == ["another" if stays else "default"]
    assert stays == any("Profile default has its root disk on pool another" in sentence for sentence in drift)
    if not stays:
        assert [device["network"] for device in devices if device["type"] == "nic"] == [daemon.bridge]
    if host.second:
        assert daemon.api("GET", "/1.0/profiles/default?project=shop")["devices"] == {"its": host.root_disk}

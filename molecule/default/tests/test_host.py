"""What site.yml makes of a bare Debian."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

POOL = "default"
IMAGE = "base"
CONTAINER = "of-the-test"


def test_incus_is_there_after_a_restart_too(host: Host) -> None:
    assert host.service("incus.socket").is_enabled
    assert host.service("incus").is_running


def test_the_pool_clones(host: Host) -> None:
    assert _api(host, f"/1.0/storage-pools/{POOL}")["driver"] == "btrfs"


def test_root_disks_are_on_the_pool(host: Host) -> None:
    devices = _api(host, "/1.0/profiles/default")["devices"]
    assert devices["root"] == {"type": "disk", "path": "/", "pool": POOL}


def test_the_image_is_unpacked_on_the_pool(host: Host) -> None:
    fingerprint = _api(host, f"/1.0/images/aliases/{IMAGE}")["target"]
    assert f"/1.0/storage-pools/{POOL}/volumes/image/{fingerprint}" in _api(host, f"/1.0/storage-pools/{POOL}/volumes")


def test_the_probe_left_nothing(host: Host) -> None:
    assert _api(host, "/1.0/instances?all-projects=true") == []


def test_a_launched_container_is_a_snapshot_with_a_network(host: Host, container: str) -> None:
    subvolume = f"/var/lib/incus/storage-pools/{POOL}/containers/{container}"
    assert "Parent UUID:" in host.check_output("btrfs subvolume show %s", subvolume)
    assert _address(host, container)


@pytest.fixture
def container(host: Host) -> Iterator[str]:
    """A running container of the base image."""
    try:
        host.check_output("incus --quiet launch %s %s </dev/null", IMAGE, CONTAINER)
        yield CONTAINER
    finally:
        host.run("incus --quiet delete --force %s", CONTAINER)


def _address(host: Host, container: str) -> str:
    """The container's IPv4 address, once it has one."""
    for _ in range(30):
        network = _api(host, f"/1.0/instances/{container}/state")["network"] or {}
        for address in network.get("eth0", {}).get("addresses", []):
            if address["family"] == "inet":
                return str(address["address"])
        time.sleep(1)
    return ""


def _api(host: Host, path: str) -> Any:
    return json.loads(host.check_output("incus query %s", path))

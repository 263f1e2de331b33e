"""What is refused before a move, as a table of instances and hosts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.cow.incus import move_checks
from ansible.module_utils.cow.incus.instances import Instance, Snapshot
from ansible.module_utils.cow.incus.move_checks import Allowed, Host, Room, Sizes
from ansible.module_utils.cow.incus.pools import Pool
from ansible.module_utils.cow.incus.profiles import Key
from ansible.module_utils.cow.size import GIB, Size

C1 = Key("default", "c1")
ROOT = {"type": "disk", "path": "/", "pool": "slow"}
UUID = "7175e023-cbaf-43e9-b08d-7f2ce708862c"
ALLOWED = Allowed(headroom=Size(0))


def instance(key: Key = C1, **changes: Any) -> Instance:
    config = changes.pop("config", {})
    devices = {"root": ROOT, **changes.pop("devices", {})}
    whole = {"volatile.uuid": UUID, **config}
    plain = Instance(
        key=key,
        kind="container",
        status="Running",
        config=whole,
        devices=devices,
        expanded_config=whole,
        expanded_devices=devices,
        profiles=("default",),
    )
    return replace(plain, **changes)


def pool(name: str, driver: str = "dir", status: str = "Created") -> Pool:
    return Pool(name=name, driver=driver, config={"source": f"/pools/{name}"}, status=status)


def host(*others: Instance, **changes: Any) -> Host:
    pools = {
        one.name: one
        for one in (pool("slow"), pool("fast", "btrfs"), pool("tank", "zfs"), pool("off", "dir", "Unavailable"))
    }
    plain = Host(version="6.0.4", instances={one.key: one for one in others}, pools=pools, moves={})
    return replace(plain, **changes)


def refusals(found: Instance, to: str = "fast", on: Host | None = None, allowed: Allowed = ALLOWED) -> list[str]:
    return list(move_checks.refusals(found, to, on or host(found), allowed))


def test_a_plain_container_is_moved() -> None:
    assert refusals(instance()) == []
    assert refusals(instance(status="Stopped")) == []


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (instance(kind="virtual-machine"), "c1 is a virtual machine. Only containers are moved."),
        (instance(ephemeral=True), "c1 is ephemeral"),
        (instance(stateful=True), "a saved state of memory"),
        (instance(snapshots=(Snapshot("s", "2026", "", stateful=True),)), "a saved state of memory"),
        (instance(status="Error"), "c1 is in the state Error; wanted is Running or Stopped"),
        (instance(status="Frozen"), "c1 is in the state Frozen"),
        (instance(config={"security.protection.delete": "true"}), "security.protection.delete"),
        (instance(config={"user.cowherd.protected": "True"}), "user.cowherd.protected is set"),
        (instance(config={"volatile.uuid": ""}), "c1 has no volatile.uuid"),
        (instance(config={"user.cowherd.move": "x:1"}), "a copy or a kept source of a move"),
        (instance(expanded_devices={}), "c1 has no root disk"),
        (
            instance(devices={"data": {"type": "disk", "pool": "slow", "path": "/d"}}),
            "further disks on pool slow (data)",
        ),
    ],
)
def test_containers_that_are_refused(found: Instance, said: str) -> None:
    assert any(said in each for each in refusals(found))


def test_further_disks_elsewhere_do_not_matter() -> None:
    assert refusals(instance(devices={"data": {"type": "disk", "pool": "fast", "path": "/d"}})) == []
    further = instance(devices={"data": {"type": "disk", "pool": "slow", "path": "/d"}})
    assert refusals(further, allowed=replace(ALLOWED, other_disks=True)) == []


def test_pools_that_are_refused() -> None:
    assert "There is no pool none to move c1 to. There are fast, off, slow, tank." in refusals(instance(), "none")
    assert "Pool off is not available (its status is Unavailable)." in refusals(instance(), "off")
    assert any("Pool tank has driver zfs" in each for each in refusals(instance(), "tank"))


def test_protected_and_foreign_instances() -> None:
    found = instance()
    assert "listed in protected" in refusals(found, on=host(found, protected=frozenset({C1})))[0]
    stranger = instance(Key("default", "move-of-c2-abcdef"), config={"volatile.uuid": "other"})
    assert "no journal on this host knows it" in refusals(found, on=host(found, stranger))[0]
    elsewhere = instance(Key("shop", "kept-of-c2-abcdef"), config={"volatile.uuid": "other"})
    assert refusals(found, on=host(found, elsewhere)) == []


@pytest.mark.parametrize("version", ["6.1", "7.0", "6.10.1", "5.21", "", "next"])
def test_untested_versions(version: str) -> None:
    found = instance()
    on = host(found, version=version)
    assert "Set allow_untested_version" in refusals(found, on=on)[0]
    assert refusals(found, on=on, allowed=replace(ALLOWED, untested_version=True)) == []


def sizes(root: int) -> Sizes:
    return Sizes(root=root, snapshots={}, needed=root, entries=10)


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (Room(5 << 30), None),
        (Room(3 << 30), "pool fast has only 3.0 GiB free"),
        (Room(9 << 30, 3 << 30), "the file system under the file of pool fast"),
        (Room(9 << 30, 5 << 30), None),
    ],
)
def test_the_space_gate(room: Room, said: str | None) -> None:
    allowed = replace(ALLOWED, headroom=GIB)
    found = list(move_checks.refusals_of_size(instance(), sizes(3 << 30), pool("fast", "btrfs"), room, allowed))
    assert (said is None) == (not found)
    assert said is None or said in found[0]


def test_a_root_disk_that_is_fuller_than_it_may_be() -> None:
    found = instance(expanded_devices={"root": {**ROOT, "size": "1GiB"}})
    said = list(move_checks.refusals_of_size(found, sizes(2 << 30), pool("fast", "btrfs"), Room(9 << 30), ALLOWED))
    assert "The root disk of c1 has the size 1GiB, but 2.0 GiB are in it" in said[0]

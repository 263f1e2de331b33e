"""incus_network on a private daemon: bridges, addresses that may be any, and interfaces that are not Incus's."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from tests.support.incus_runs import four, refused, run, state, unchanged
from tests.support.incusd import Incusd

MODULE = "incus_network"


def config(daemon: Incusd) -> dict[str, str]:
    found: dict[str, str] = daemon.api("GET", f"/1.0/networks/{daemon.bridge}")["config"]
    return found


def test_bridge(incusd: Incusd) -> None:
    wanted = {"ipv4.address": incusd.subnet, "ipv4.nat": True, "ipv6.address": "none"}
    runs = four(incusd, MODULE, name=incusd.bridge, config=wanted, description="for tests")
    assert runs.do["steps"] == [f"create network {incusd.bridge} (bridge)"]
    assert runs.check["network"] is None
    assert runs.again["network"]["config"] == {**wanted, "ipv4.nat": "true"}
    assert (runs.again["network"]["managed"], runs.again["network"]["description"]) == (True, "for tests")
    changed = four(incusd, MODULE, name=incusd.bridge, config={"ipv4.nat": None, "ipv4.dhcp": False}, description="")
    assert changed.do["steps"] == [f"set description, ipv4.dhcp, ipv4.nat of network {incusd.bridge}"]
    assert config(incusd) == {"ipv4.address": incusd.subnet, "ipv4.dhcp": "false", "ipv6.address": "none"}
    deleted = four(incusd, MODULE, name=incusd.bridge, state="absent")
    assert deleted.do["steps"] == [f"delete network {incusd.bridge}"]


def test_any_address_will_do(incusd: Incusd) -> None:
    wanted = {"ipv4.address": "auto", "ipv6.address": "none"}
    runs = four(incusd, MODULE, name=incusd.bridge, config=wanted)
    chosen = config(incusd)["ipv4.address"]
    assert ip_interface(chosen).is_private
    assert chosen in runs.check["diff"][0]["after"]
    assert runs.again["network"]["config"]["ipv4.address"] == chosen
    run(incusd, MODULE, name=incusd.bridge, config={"ipv4.address": incusd.subnet})
    unchanged(incusd, MODULE, name=incusd.bridge, config=wanted)
    run(incusd, MODULE, name=incusd.bridge, config={"ipv4.address": "none"})
    four(incusd, MODULE, name=incusd.bridge, config=wanted)
    assert ip_interface(config(incusd)["ipv4.address"]).is_private


def test_network_in_use_is_not_deleted(incusd: Incusd) -> None:
    incusd.make_bridge()
    nic = {"eth0": {"type": "nic", "network": incusd.bridge}}
    incusd.api("PUT", "/1.0/profiles/default", {"devices": nic})
    assert "is used by profiles/default" in refused(incusd, MODULE, name=incusd.bridge, state="absent")


@pytest.mark.parametrize("wanted", ["present", "absent"])
def test_interface_of_the_host_is_left_alone(incusd: Incusd, wanted: str) -> None:
    assert "lo is an interface of the host (loopback)" in refused(incusd, MODULE, name="lo", state=wanted)


def test_another_type_is_drift(incusd: Incusd) -> None:
    incusd.make_bridge()
    message = refused(incusd, MODULE, name=incusd.bridge, type="macvlan", config={"parent": "lo"})
    assert "is of type bridge, wanted is macvlan" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "-x"}, "'-x' cannot be the name of a network"),
        ({"name": "a/b"}, "'a/b' cannot be the name of a network"),
        ({"name": "a-name-of-16-byte"}, "cannot be the name of a network"),
        ({"config": {"ipv4.address": "everywhere"}}, "Incus refused to"),
        ({"config": {"ipv4.address": ["10.0.0.1/24"]}}, "The value of ipv4.address of network"),
        ({"type": "tunnel"}, "value of type must be one of"),
        ({"confg": {}}, "Unsupported parameters"),
    ],
)
def test_bad_input(incusd: Incusd, options: dict[str, Any], said: str) -> None:
    before = state(incusd)
    assert said in run(incusd, MODULE, **{"name": incusd.bridge, **options})["msg"]
    assert state(incusd) == before


def test_absent_is_what_it_is_already(incusd: Incusd) -> None:
    unchanged(incusd, MODULE, name=incusd.bridge, state="absent")

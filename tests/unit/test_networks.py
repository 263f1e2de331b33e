"""What is planned for a network, as tables of found against wanted."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError, Drift
from ansible.module_utils.cow.incus import networks
from ansible.module_utils.cow.incus.client import Server
from ansible.module_utils.cow.incus.networks import Found, Network, Wanted
from ansible.module_utils.cow.plan import Plan

SERVER = Server("/nonexistent/unix.socket")
BRIDGE = Network("br0", "bridge", managed=True, config={"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true"})


def planned(found: Network | None, taken: tuple[IPv4Network, ...] = (), **params: Any) -> Plan:
    known = {} if found is None else {found.name: found}
    return networks.plan(SERVER, Found(known, taken), Wanted.of({"name": "br0", **params}))


@pytest.mark.parametrize(
    ("found", "params", "expected"),
    [
        (None, {}, ["create network br0 (bridge)"]),
        (None, {"type": "macvlan"}, ["create network br0 (macvlan)"]),
        (BRIDGE, {}, []),
        (BRIDGE, {"config": {"ipv4.address": "auto", "ipv4.nat": True}}, []),
        (BRIDGE, {"config": {"ipv4.dhcp": None, "ipv6.address": ""}}, []),
        (BRIDGE, {"config": {"ipv4.nat": False, "ipv4.dhcp": True}}, ["set ipv4.dhcp, ipv4.nat of network br0"]),
        (BRIDGE, {"config": {"ipv4.nat": None}}, ["set ipv4.nat of network br0"]),
        (BRIDGE, {"config": {"ipv6.address": "auto"}}, ["set ipv6.address of network br0"]),
        (replace(BRIDGE, config={"ipv4.address": "none"}), {"config": {"ipv4.address": "none"}}, []),
        (BRIDGE, {"description": ""}, []),
        (BRIDGE, {"description": "x"}, ["set description of network br0"]),
        (replace(BRIDGE, description="x"), {}, []),
    ],
)
def test_steps(found: Network | None, params: dict[str, Any], expected: list[str]) -> None:
    assert planned(found, **params).titles == expected


@pytest.mark.parametrize("found", [None, replace(BRIDGE, config={"ipv4.address": "none"}), replace(BRIDGE, config={})])
def test_any_address_is_one_that_nothing_has(found: Network | None) -> None:
    taken: tuple[IPv4Network, ...] = ()
    for _ in range(3):
        (step,) = planned(found, taken, config={"ipv4.address": "auto"}).steps
        assert step.after
        chosen = IPv4Interface(step.after["ipv4.address"])
        assert chosen.is_private
        assert not any(chosen.network.overlaps(network) for network in taken)
        taken = (*taken, chosen.network)


@pytest.mark.parametrize(
    ("found", "params", "kind", "said"),
    [
        (replace(BRIDGE, managed=False, type="physical"), {}, CowError, "is an interface of the host (physical)"),
        (BRIDGE, {"type": "macvlan"}, Drift, "is of type bridge, wanted is macvlan"),
    ],
)
def test_errors(found: Network, params: dict[str, Any], kind: type[CowError], said: str) -> None:
    with pytest.raises(kind) as refusal:
        planned(found, **params)
    assert said in str(refusal.value)


def test_removal() -> None:
    assert networks.plan_absent(SERVER, Found(), "br0").steps == ()
    assert networks.plan_absent(SERVER, Found({"br0": BRIDGE}), "br0").titles == ["delete network br0"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(BRIDGE, users=("profiles/default", "instances/c1")), "is used by profiles/default, instances/c1"),
        (replace(BRIDGE, managed=False), "is an interface of the host"),
    ],
)
def test_no_removal(found: Network, said: str) -> None:
    with pytest.raises(CowError, match=said):
        networks.plan_absent(SERVER, Found({"br0": found}), "br0")

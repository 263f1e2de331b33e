"""A subnet for a bridge overlaps nothing that the host reaches."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from ansible.module_utils.cow import subnets
from ansible.module_utils.cow.errors import CowError
from hypothesis import given
from hypothesis import strategies as st

ROUTES = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_routes_are_read() -> None:
    assert list(subnets.routed(ROUTES)) == [IPv4Network("192.0.2.0/24")]


@pytest.mark.parametrize(
    ("configuration", "found"),
    [
        ("nameserver 10.1.2.3\n", ["10.1.2.3/32"]),
        ("nameserver\t10.1.2.3 # the router\nsearch example\n", ["10.1.2.3/32"]),
        ("nameserver ::1\nnameserver localhost\nnameserver\n", []),
        ("", []),
    ],
)
def test_name_servers_are_read(configuration: str, found: list[str]) -> None:
    assert list(subnets.name_servers(configuration)) == [IPv4Network(network) for network in found]


@given(seed=st.text(), taken=st.lists(st.integers(0, 255), max_size=20))
def test_a_subnet_overlaps_nothing_and_is_the_same_each_time(seed: str, taken: list[int]) -> None:
    known = [IPv4Network(f"10.{second}.0.0/16") for second in taken]
    chosen = subnets.unused(known, seed)
    assert not any(chosen.network.overlaps(network) for network in known)
    assert chosen.network.prefixlen == 24
    assert chosen == subnets.unused(known, seed)


def test_a_host_that_reaches_everything_is_told_what_to_do() -> None:
    with pytest.raises(CowError, match=r"Give the network's ipv4\.address"):
        subnets.unused([IPv4Network("10.0.0.0/8")], "")

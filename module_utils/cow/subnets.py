"""A private IPv4 subnet that this host has no route to yet."""

from __future__ import annotations

import hashlib
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

from .errors import CowError

_ROUTES = Path("/proc/net/route")
_RESOLVERS = Path("/etc/resolv.conf")
_PREFIX = 24
_ATTEMPTS = 1000


def taken() -> tuple[IPv4Network, ...]:
    """Read what the host reaches already: the networks that it has a route to, and its name servers."""
    routes = (line.split() for line in _ROUTES.read_text().splitlines()[1:])
    # Hexadecimal, in the host's byte order (proc_net(5)).
    networks = [IPv4Network((_address(route[1]), str(_address(route[7])))) for route in routes]
    return (*(network for network in networks if network.prefixlen), *_name_servers())


def unused(known: Iterable[IPv4Network], seed: str) -> IPv4Interface:
    """Choose a /24 of 10.0.0.0/8 (RFC 1918) that overlaps none of the known ones, and its first address.

    The same seed gives the same order of candidates, so that check mode names the subnet that the run then takes.
    """
    known = tuple(known)
    for attempt in range(_ATTEMPTS):
        digest = hashlib.sha256(f"{seed} {attempt}".encode()).digest()
        candidate = IPv4Network((f"10.{digest[0]}.{digest[1]}.0", _PREFIX))
        if not any(candidate.overlaps(network) for network in known):
            return IPv4Interface((candidate.network_address + 1, _PREFIX))
    raise CowError("No private IPv4 subnet is free on this host. Give the network's ipv4.address yourself.")


def _name_servers() -> Iterable[IPv4Network]:
    lines = _RESOLVERS.read_text().splitlines() if _RESOLVERS.exists() else []
    for line in lines:
        keyword, _, address = line.strip().partition(" ")
        if keyword == "nameserver" and ":" not in address:
            yield IPv4Network(address.strip())


def _address(hexadecimal: str) -> IPv4Address:
    return IPv4Address(socket.inet_ntoa(struct.pack("=L", int(hexadecimal, 16))))

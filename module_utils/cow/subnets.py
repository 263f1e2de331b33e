"""A private IPv4 subnet that this host has no route to yet."""

from __future__ import annotations

import contextlib
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
    return (*routed(_ROUTES.read_text()), *name_servers(_RESOLVERS.read_text() if _RESOLVERS.exists() else ""))


def routed(table: str) -> Iterable[IPv4Network]:
    """Read the networks in /proc/net/route, where addresses are hexadecimal in the host's byte order (proc_net(5))."""
    for row in map(str.split, table.splitlines()[1:]):
        network = IPv4Network((_address(row[1]), str(_address(row[7]))))
        if network.prefixlen:
            yield network


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


def name_servers(configuration: str) -> Iterable[IPv4Network]:
    """Read the IPv4 addresses of the name servers in resolv.conf(5)."""
    for words in map(str.split, configuration.splitlines()):
        if words[:1] == ["nameserver"] and len(words) > 1:
            # What is no IPv4 address is of no concern here: IPv6, or a mistake that the resolver passes over as well.
            with contextlib.suppress(ValueError):
                yield IPv4Network(words[1])


def _address(hexadecimal: str) -> IPv4Address:
    return IPv4Address(socket.inet_ntoa(struct.pack("=L", int(hexadecimal, 16))))

"""Managed networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from .. import names, subnets
from ..errors import CowError, Drift
from ..plan import Plan, Step
from . import settings
from .client import Server
from .settings import Settings

AUTO = "auto"


@dataclass(frozen=True)
class Network:
    """A network as the server has it. managed: made by Incus; others are interfaces of the host."""

    name: str
    type: str
    managed: bool
    config: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    status: str = ""
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The network that is wanted; configuration it has besides stays."""

    name: str
    type: str = "bridge"
    config: Mapping[str, str] = field(default_factory=dict)
    description: str | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_network and check it."""
        return cls(
            name=names.network(params["name"]),
            type=params.get("type") or "bridge",
            config=settings.as_text(params.get("config") or {}, f"network {params['name']}"),
            description=params.get("description"),
        )


@dataclass(frozen=True)
class Found:
    """Every network of the default project by name, the host's own interfaces included, and the subnets in use."""

    networks: Mapping[str, Network] = field(default_factory=dict)
    taken: tuple[IPv4Network, ...] = ()


def observe(server: Server) -> Found:
    """Read the networks, and which subnets the host reaches."""
    return Found({body["name"]: _network(body) for body in server.get("networks", recursion=1)}, subnets.taken())


def describe(network: Network | None) -> dict[str, Any]:
    """Give a network as return value of a module."""
    if network is None:
        return {"network": None}
    return {
        "network": {
            "name": network.name,
            "type": network.type,
            "managed": network.managed,
            "description": network.description,
            "status": network.status,
            "config": dict(network.config),
            "used_by": list(network.users),
        }
    }


def plan(server: Server, everything: Found, wanted: Wanted) -> Plan:
    """Plan what makes the network be there with the wanted configuration.

    An address that is wanted as "auto" is satisfied by any. For a new IPv4 address, a subnet is chosen here that the
    host does not reach: the server's choice asks the network, and fails where something answers for every address.
    """
    found = everything.networks.get(wanted.name)
    if found is None:
        return Plan.of(_create(server, wanted, _with_subnet(server, everything, wanted.name, wanted.config)))
    _refuse_other_kind(found, wanted)
    known = settings.together(found.config, found.description)
    asked = settings.together({**wanted.config, **_kept(found.config, wanted.config)}, wanted.description)
    after = _with_subnet(server, everything, wanted.name, settings.differing(known, asked))
    if not after:
        return Plan()
    title = f"set {', '.join(sorted(after))} of network {wanted.name}"
    return Plan.of(settings.step(server, ("networks", wanted.name), title, known, after))


def plan_absent(server: Server, everything: Found, name: str) -> Plan:
    """Plan the removal of a network that nothing uses."""
    found = everything.networks.get(name)
    if found is None:
        return Plan()
    if not found.managed:
        raise CowError(
            f"{found.name} is an interface of the host ({found.type}), no network of Incus. It is left alone."
        )
    if found.users:
        raise CowError(f"Network {found.name} is used by {names.shortened(found.users)}. Take it off these first.")
    step = Step(
        title=f"delete network {found.name}",
        run=lambda: server.delete("networks", found.name),
        before={"type": found.type, **found.config},
    )
    return Plan.of(step)


def _refuse_other_kind(found: Network, wanted: Wanted) -> None:
    if not found.managed:
        raise CowError(
            f"{wanted.name} is an interface of the host ({found.type}) and no network of Incus. It is left alone: "
            f"choose another name for the network, or use the interface as `parent` of a NIC."
        )
    if found.type != wanted.type:
        raise Drift(
            f"Network {wanted.name} is of type {found.type}, wanted is {wanted.type}. A network's type cannot be "
            f"changed: correct the inventory, or give the new network another name."
        )


def _kept(found: Settings, wanted: Settings) -> Settings:
    auto = (key for key, value in wanted.items() if value == AUTO)
    return {key: found[key] for key in auto if found.get(key) not in (None, "", "none")}


def _with_subnet(server: Server, everything: Found, name: str, wanted: Settings) -> Settings:
    if wanted.get("ipv4.address") != AUTO:
        return wanted
    return {**wanted, "ipv4.address": str(subnets.unused(everything.taken, f"{server.folder} {name}"))}


def _network(body: Mapping[str, Any]) -> Network:
    return Network(
        name=body["name"],
        type=body["type"],
        managed=body["managed"],
        config=body["config"],
        description=body["description"],
        status=body["status"],
        users=tuple(url.removeprefix("/1.0/") for url in body["used_by"]),
    )


def _create(server: Server, wanted: Wanted, config: Settings) -> Step:
    body = {
        "name": wanted.name,
        "type": wanted.type,
        "description": wanted.description or "",
        "config": settings.merged({}, config),
    }
    return Step(
        title=f"create network {wanted.name} ({wanted.type})",
        run=lambda: server.post("networks", body=body),
        after={"type": wanted.type, **config},
    )

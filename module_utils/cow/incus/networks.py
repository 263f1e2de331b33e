"""Managed networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from .. import names, subnets
from ..errors import CowError, Drift
from ..plan import Plan, Step
from .client import Server
from .profiles import as_text

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
            config=as_text(params.get("config") or {}),
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
        return Plan.of(_create(server, _with_subnet(server, everything, wanted)))
    _refuse_other_kind(found, wanted)
    differing = {key: value for key, value in wanted.config.items() if _differs(found.config.get(key), value)}
    config = _with_subnet(server, everything, replace(wanted, config=differing)).config
    description = wanted.description if wanted.description not in (None, found.description) else None
    after = {**config, **({} if description is None else {"description": description})}
    if not after:
        return Plan()
    known = {"description": found.description, **found.config}
    return Plan.of(
        Step(
            title=f"set {', '.join(sorted(after))} of network {wanted.name}",
            run=partial(_update, server, wanted.name, config, description),
            before={key: known.get(key) for key in after},
            after=after,
        )
    )


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


def _with_subnet(server: Server, everything: Found, wanted: Wanted) -> Wanted:
    if wanted.config.get("ipv4.address") != AUTO:
        return wanted
    subnet = subnets.unused(everything.taken, f"{server.folder} {wanted.name}")
    return replace(wanted, config={**wanted.config, "ipv4.address": str(subnet)})


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


def _differs(found: str | None, wanted: str) -> bool:
    return found in (None, "", "none") if wanted == AUTO else found != wanted


def _create(server: Server, wanted: Wanted) -> Step:
    body = {
        "name": wanted.name,
        "type": wanted.type,
        "description": wanted.description or "",
        "config": dict(wanted.config),
    }
    return Step(
        title=f"create network {wanted.name} ({wanted.type})",
        run=lambda: server.post("networks", body=body),
        after={"type": wanted.type, **wanted.config},
    )


def _update(server: Server, name: str, config: Mapping[str, str], description: str | None) -> None:
    found = server.find("networks", name)
    if found is None:
        raise CowError(f"Network {name} was removed by somebody while it was being changed. Run again.")
    body = {
        "config": {**found.body["config"], **config},
        "description": found.body["description"] if description is None else description,
    }
    server.put("networks", name, body=body, etag=found.etag)

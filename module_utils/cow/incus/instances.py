"""Instances: what the server says of them, and the changes that a move makes to them, one request each."""

from __future__ import annotations

import itertools
import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import names
from ..errors import CowError
from . import profiles
from .client import Server, parts
from .profiles import Devices, Key

CONTAINER = "container"
RUNNING = "Running"
STOPPED = "Stopped"
UUID = "volatile.uuid"
AUTOSTART = "boot.autostart"
_NEVER = ("0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z")
_SHOWN_OUTPUT = 2000
"""Characters from the end of what a failed command said."""
_POLL = 0.2
CHANGES = frozenset({"Renaming instance", "Updating instance", "Starting instance", "Stopping instance"})
"""Descriptions of operations that are asked for here, as Incus 6.0 to 7.x has them; others are somebody else's."""
_EXEC = "Executing command"
"""One that may last for as long as it likes, and changes nothing of the instance."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of an instance. expires: "" when it does not."""

    name: str
    created: str
    expires: str
    stateful: bool = False


@dataclass(frozen=True)
class Instance:
    """An instance as the server has it.

    config, devices: its own; expanded_config, expanded_devices: with those of its profiles. profiles: in order.
    last_used: when it was started last, "" when it never was. backups: names of those that the server keeps.
    """

    key: Key
    kind: str
    status: str
    config: Mapping[str, str]
    devices: Devices
    expanded_config: Mapping[str, str]
    expanded_devices: Devices
    profiles: tuple[str, ...]
    architecture: str = ""
    description: str = ""
    ephemeral: bool = False
    stateful: bool = False
    last_used: str = ""
    snapshots: tuple[Snapshot, ...] = ()
    backups: tuple[str, ...] = ()
    etag: str = field(default="", compare=False)

    @property
    def uuid(self) -> str:
        """What tells it from all others, whatever it is called; "" for one of an old server."""
        return self.config.get(UUID, "")

    @property
    def root_name(self) -> str:
        """The name of its root disk, "" when it has none."""
        return next((name for name, options in self.expanded_devices.items() if profiles.is_root(options)), "")

    @property
    def root(self) -> Mapping[str, str]:
        """The options of its root disk, with its own before those of its profiles."""
        return self.expanded_devices.get(self.root_name, {})

    @property
    def pool(self) -> str:
        """The pool that its root is on, "" when it has none."""
        return self.root.get("pool", "")

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.status == RUNNING

    @property
    def body(self) -> dict[str, Any]:
        """What a PUT takes to have it as it is."""
        return {
            "architecture": self.architecture,
            "config": dict(self.config),
            "devices": {name: dict(options) for name, options in self.devices.items()},
            "profiles": list(self.profiles),
            "description": self.description,
            "ephemeral": self.ephemeral,
        }


def key_of(text: str) -> Key:
    """Read NAME or PROJECT/NAME; the exact name of an instance, never a pattern."""
    project, _, name = text.rpartition("/")
    try:
        return Key(names.project(project or "default"), names.instance(name))
    except CowError as error:
        raise CowError(
            f"{text!r} does not name an instance; write NAME or PROJECT/NAME, no patterns. {error}"
        ) from None


def read(server: Server, key: Key) -> Instance | None:
    """Read one instance with its snapshots and backups, or None when there is none of that name."""
    found = server.find("instances", key.name, project=key.project)
    if found is None:
        return None
    path = ("instances", key.name)
    snapshots = server.get(*path, "snapshots", recursion=1, project=key.project)
    backups = server.get(*path, "backups", recursion=1, project=key.project)
    return _instance({**found.body, "snapshots": snapshots, "backups": backups}, found.etag)


def read_all(server: Server) -> dict[Key, Instance]:
    """Read the instances of all projects, without their snapshots and backups."""
    bodies = server.get("instances", recursion=1, all_projects="true")
    found = (_instance(body, "") for body in bodies)
    return {instance.key: instance for instance in sorted(found, key=lambda instance: instance.key)}


def require(entries: Iterable[str], known: Iterable[Key], option: str) -> frozenset[Key]:
    """Return the instances that these entries name. CowError when one names none, as a typing error must not pass."""
    wanted = frozenset(key_of(entry) for entry in entries)
    missing = sorted(map(str, wanted - set(known)))
    if missing:
        raise CowError(
            f"{names.shortened(missing)} in {option} is no instance of this host. "
            f"Correct the name (NAME or PROJECT/NAME), or take it out of {option}."
        )
    return wanted


def replace(server: Server, found: Instance, **changes: Any) -> None:
    """Change an instance that is still as it was read."""
    body = {**found.body, **changes}
    server.put("instances", found.key.name, body=body, etag=found.etag, project=found.key.project)


def rename(server: Server, key: Key, name: str) -> None:
    """Give a stopped instance another name."""
    server.post("instances", key.name, body={"name": name}, project=key.project)


def start(server: Server, key: Key, timeout: int) -> None:
    """Start an instance."""
    _set_power(server, key, {"action": "start", "timeout": timeout, "force": False})


def stop(server: Server, key: Key, timeout: int, *, force: bool = False) -> None:
    """Have an instance shut itself down, or end it at once by force."""
    _set_power(server, key, {"action": "stop", "timeout": timeout, "force": force})


def delete(server: Server, key: Key) -> None:
    """Remove a stopped instance with its snapshots and backups."""
    server.delete("instances", key.name, project=key.project)


def await_operations(
    server: Server,
    keys: Iterable[Key],
    within: float,
    told: Callable[[], None] = lambda: None,
    *,
    only: frozenset[str] = frozenset(),
) -> None:
    """Wait until the server is at nothing that changes these instances; with `only`, at nothing so described.

    It goes on with what it was asked for when who asked is gone. `told` is called every now and then meanwhile. Raises
    CowError after `within` seconds.
    """
    ours = {(key.project, f"/1.0/instances/{key.name}"): key for key in keys}
    deadline = time.monotonic() + within
    while at_work := [
        (what, ours[where])
        for what, where in _at_work(server, {project for project, _ in ours})
        if where in ours and (not only or what in only)
    ]:
        if time.monotonic() > deadline:
            what, key = at_work[0]
            raise CowError(f"Incus is still at {what!r} with {key} after {within:g} s. See `incus operation list`.")
        told()
        time.sleep(_POLL)


def execute(server: Server, key: Key, command: Sequence[str]) -> None:
    """Run a command in a running instance. CowError with its last words when it does not end with status 0."""
    body = {"command": list(command), "wait-for-websocket": False, "interactive": False, "record-output": True}
    ended = server.post("instances", key.name, "exec", body=body, project=key.project)
    if ended["return"] != 0:
        outputs = (server.download(*parts(url), project=key.project) for _, url in sorted(ended["output"].items()))
        said = b"".join(outputs).decode("utf-8", "backslashreplace").strip()[-_SHOWN_OUTPUT:]
        raise CowError(
            f"`{shlex.join(command)}` ended with status {ended['return']} in the container: {said or 'no output'}"
        )


def addresses(server: Server, found: Instance) -> frozenset[str]:
    """Return the addresses on the NICs of the instance that stay the same when it is started anew.

    Left out are addresses of links that it made itself (docker0, tun0), link-local ones, and those of IPv6 that are
    not made of the MAC address (they end in ff:fe and three bytes), as they may be random.
    """
    nics = {options.get("name", name) for name, options in found.expanded_devices.items() if options["type"] == "nic"}
    state = server.get("instances", found.key.name, "state", project=found.key.project)
    return frozenset(
        str(address["address"])
        for link, interface in (state["network"] or {}).items()
        for address in interface["addresses"]
        if link in nics and address["scope"] == "global" and _lasts(address)
    )


def _at_work(server: Server, projects: Iterable[str]) -> Iterable[tuple[str, tuple[str, str]]]:
    """The descriptions of operations under way, with project and path of what they change. Commands change nothing."""
    for project in projects:
        by_status = server.get("operations", recursion=1, project=project) or {}
        for one in [*(by_status.get("pending") or ()), *(by_status.get("running") or ())]:
            if one["class"] == "task" and one["description"] != _EXEC:
                for url in itertools.chain.from_iterable((one["resources"] or {}).values()):
                    yield one["description"], (project, url.partition("?")[0])


def _set_power(server: Server, key: Key, body: Mapping[str, Any]) -> None:
    server.put("instances", key.name, "state", body=body, etag="", project=key.project)


def _lasts(address: Mapping[str, str]) -> bool:
    return address["family"] == "inet" or "ff:fe" in address["address"]


def _instance(body: Mapping[str, Any], etag: str) -> Instance:
    return Instance(
        key=Key(body["project"], body["name"]),
        kind=body["type"],
        status=body["status"],
        config=body["config"],
        devices=body["devices"],
        expanded_config=body["expanded_config"],
        expanded_devices=body["expanded_devices"],
        profiles=tuple(body["profiles"]),
        architecture=body["architecture"],
        description=body["description"],
        ephemeral=body["ephemeral"],
        stateful=body["stateful"],
        last_used=_date(body["last_used_at"]),
        snapshots=tuple(sorted(map(_snapshot, body.get("snapshots") or ()), key=lambda one: (one.created, one.name))),
        backups=tuple(sorted(backup["name"] for backup in body.get("backups") or ())),
        etag=etag,
    )


def _snapshot(body: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        name=body["name"].rpartition("/")[2],
        created=body["created_at"],
        expires=_date(body["expires_at"]),
        stateful=body["stateful"],
    )


def _date(text: str) -> str:
    return "" if text in _NEVER else text

"""Profiles in all projects: their devices are merged with what is wanted, never dropped by surprise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from .. import names
from ..errors import CowError, Drift
from ..plan import Plan, Step
from .client import Server

Devices = Mapping[str, Mapping[str, str]]
"""Devices by name, each as its options."""


class Key(NamedTuple):
    """Which profile: names repeat across projects."""

    project: str
    name: str

    def __str__(self) -> str:
        """Name it for people; the project only when it is not the default one."""
        return self.name if self.project == "default" else f"{self.project}/{self.name}"


DevicesByProfile = Mapping[Key, Devices]


@dataclass(frozen=True)
class Profile:
    """A profile as the server has it.

    users: names of the instances that use it; inheriting: those among them whose root disk comes from a profile.
    """

    key: Key
    description: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    users: tuple[str, ...] = ()
    inheriting: tuple[str, ...] = ()

    @property
    def root(self) -> str:
        """The name of the device that is the root disk, "" when there is none."""
        return next((name for name, options in self.devices.items() if is_root(options)), "")


@dataclass(frozen=True)
class Wanted:
    """What a profile is to hold; what it holds besides stays.

    devices: merged into those of the same name. fallback_devices: added only where the profile has no device of the
    same type yet (for a disk, of the same path). remove_devices: names of devices to take away.
    """

    key: Key
    description: str | None = None
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    fallback_devices: Devices = field(default_factory=dict)
    remove_devices: tuple[str, ...] = ()
    report_drift: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_profile and check it."""
        return cls(
            key=Key(names.project(params.get("project") or "default"), names.profile(params["name"])),
            description=params.get("description"),
            config=as_text(params.get("config") or {}),
            devices=_checked_devices(params, "devices"),
            fallback_devices=_checked_devices(params, "fallback_devices"),
            remove_devices=tuple(params.get("remove_devices") or ()),
            report_drift=params.get("drift") == "report",
        )


def is_root(options: Mapping[str, str]) -> bool:
    """Say whether a device is an instance's root disk."""
    return options.get("type") == "disk" and options.get("path") == "/" and "pool" in options


def as_text(options: Mapping[str, Any]) -> dict[str, str]:
    """Give options in the form that Incus keeps them: everything text, booleans as true and false."""
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in options.items()}


def read_all(server: Server) -> dict[Key, Profile]:
    """Read the profiles of every project."""
    bodies = server.get("profiles", recursion=1, all_projects="true")
    used = any(body["used_by"] for body in bodies)
    own_root = _instances_with_own_root(server) if used else frozenset()
    return {profile.key: profile for profile in (_profile(body, own_root) for body in bodies)}


def describe(profile: Profile | None) -> dict[str, Any]:
    """Give a profile as return value of a module."""
    if profile is None:
        return {"profile": None}
    return {
        "profile": {
            "name": profile.key.name,
            "project": profile.key.project,
            "description": profile.description,
            "config": dict(profile.config),
            "devices": {name: dict(options) for name, options in profile.devices.items()},
            "used_by": list(profile.users),
        }
    }


def plan(server: Server, found: Profile | None, wanted: Wanted) -> Plan:
    """Plan what makes the profile hold what is wanted."""
    if found is None:
        return Plan.of(_create(server, wanted))
    try:
        _refuse_moving_root(found, wanted)
    except Drift as drift:
        if not wanted.report_drift:
            raise
        return Plan(warnings=(str(drift),), facts={"drift": str(drift)})
    before, after = _state(found), _state(predicted(found, wanted))
    differing = sorted(key for key in {**before, **after} if before.get(key) != after.get(key))
    if not differing:
        return Plan()
    step = Step(
        title=f"set {', '.join(differing)} of profile {wanted.key}",
        run=partial(update, server, wanted.key, partial(predicted, wanted=wanted)),
        before={key: before.get(key) for key in differing},
        after={key: after.get(key) for key in differing},
    )
    return Plan.of(step)


def predicted(found: Profile, wanted: Wanted) -> Profile:
    """Give the profile as it is once the plan has run."""
    devices = {name: kept for name, kept in found.devices.items() if name not in wanted.remove_devices}
    for name, options in wanted.devices.items():
        target = (found.root or name) if is_root(options) else name
        devices[target] = {**devices.get(target, {}), **options}
    taken = {_slot(options) for options in devices.values()}
    devices |= {name: options for name, options in wanted.fallback_devices.items() if _slot(options) not in taken}
    return replace(
        found,
        description=found.description if wanted.description is None else wanted.description,
        config={**found.config, **wanted.config},
        devices=devices,
    )


def plan_absent(server: Server, key: Key, found: Profile | None) -> Plan:
    """Plan the removal of a profile that nothing uses."""
    if found is None:
        return Plan()
    if key.name == "default":
        raise CowError(f"The profile {key} belongs to its project and cannot be removed. Remove its devices instead.")
    if found.users:
        raise CowError(f"Profile {key} is used by {names.shortened(found.users)}. Take it off these instances first.")
    step = Step(
        title=f"delete profile {key}",
        run=lambda: server.delete("profiles", key.name, project=key.project),
        before=_state(found),
    )
    return Plan.of(step)


def devices_on_pool(found: Mapping[Key, Profile], pool: str) -> dict[Key, Devices]:
    """Give the disk devices that name a pool, by profile."""
    on_pool = {
        key: {name: options for name, options in profile.devices.items() if options.get("pool") == pool}
        for key, profile in found.items()
    }
    return {key: devices for key, devices in sorted(on_pool.items()) if devices}


def with_devices(found: Mapping[Key, Profile], devices: DevicesByProfile) -> dict[Key, Profile]:
    """Give the profiles with these devices where they have none of the name; profiles that are gone stay gone."""
    return {key: replace(one, devices={**devices.get(key, {}), **one.devices}) for key, one in found.items()}


def take_off(server: Server, key: Key, gone: frozenset[str]) -> None:
    """Take the devices of these names off a profile."""

    def change(profile: Profile) -> Profile:
        return replace(profile, devices={name: kept for name, kept in profile.devices.items() if name not in gone})

    update(server, key, change)


def put_back(server: Server, key: Key, devices: Devices) -> None:
    """Give a profile these devices where it has none of the name."""
    update(server, key, lambda profile: with_devices({key: profile}, {key: devices})[key])


def update(server: Server, key: Key, change: Callable[[Profile], Profile]) -> None:
    """Change a profile as it is now, on the condition that nobody else changes it meanwhile."""
    found = server.find("profiles", key.name, project=key.project)
    if found is None:
        raise CowError(f"Profile {key} was removed by somebody while it was being changed. Run again.")
    body = _body(change(_profile(found.body, frozenset(), key)))
    server.put("profiles", key.name, body=body, etag=found.etag, project=key.project)


def _checked_devices(params: Mapping[str, Any], option: str) -> dict[str, dict[str, str]]:
    devices = {name: as_text(options) for name, options in (params.get(option) or {}).items()}
    for name, options in devices.items():
        if not options.get("type"):
            raise CowError(f"The device {name} of profile {params['name']} has no type. Give one, such as disk or nic.")
    return devices


def _instances_with_own_root(server: Server) -> frozenset[Key]:
    bodies = server.get("instances", recursion=1, all_projects="true")
    with_root = (body for body in bodies if any(is_root(device) for device in body["devices"].values()))
    return frozenset(Key(body["project"], body["name"]) for body in with_root)


def _profile(body: Mapping[str, Any], own_root: frozenset[Key], key: Key | None = None) -> Profile:
    users = [_instance(url) for url in body["used_by"]]
    return Profile(
        key=key or Key(body["project"], body["name"]),
        description=body["description"],
        config=body["config"],
        devices=body["devices"],
        users=tuple(str(user) for user in users),
        inheriting=tuple(str(user) for user in users if user not in own_root),
    )


def _instance(url: str) -> Key:
    parts = urlsplit(url)
    return Key(parse_qs(parts.query).get("project", ["default"])[0], unquote(parts.path.rsplit("/", 1)[-1]))


def _slot(options: Mapping[str, str]) -> tuple[str | None, str | None]:
    return (options.get("type"), options.get("path") if options.get("type") == "disk" else None)


def _refuse_moving_root(found: Profile, wanted: Wanted) -> None:
    pool = found.devices.get(found.root, {}).get("pool")
    to = next((options["pool"] for options in wanted.devices.values() if is_root(options)), pool)
    if pool and pool != to and found.inheriting:
        raise Drift(
            f"Profile {found.key} has its root disk on pool {pool}, wanted is {to}, but instances inherit it "
            f"({names.shortened(found.inheriting)}) and Incus does not move them. It stays. Meanwhile launch onto the "
            f"new pool with `--storage {to}`; to move them: ansible-playbook playbooks/migrate.yml."
        )


def _body(profile: Profile) -> dict[str, Any]:
    return {
        "description": profile.description,
        "config": dict(profile.config),
        "devices": {name: dict(options) for name, options in profile.devices.items()},
    }


def _state(profile: Profile) -> dict[str, str]:
    devices = {
        f"device {name}": " ".join(f"{option}={value}" for option, value in sorted(options.items()))
        for name, options in profile.devices.items()
    }
    return {"description": profile.description, **profile.config, **devices}


def _create(server: Server, wanted: Wanted) -> Step:
    fresh = predicted(Profile(wanted.key), wanted)
    return Step(
        title=f"create profile {wanted.key}",
        run=lambda: server.post("profiles", body={"name": wanted.key.name, **_body(fresh)}, project=wanted.key.project),
        after={key: value for key, value in _state(fresh).items() if value},
    )

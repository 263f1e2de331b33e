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
from . import settings
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

    users: names of the instances that use it; inheriting: those among them whose root disk is the profile's.
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
        return _root(self.devices)


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
        what = f"profile {params['name']}"
        return cls(
            key=Key(names.project(params.get("project") or "default"), names.profile(params["name"])),
            description=params.get("description"),
            config=settings.as_text(params.get("config") or {}, what),
            devices=checked_devices(params.get("devices") or {}, what),
            fallback_devices=checked_devices(params.get("fallback_devices") or {}, what),
            remove_devices=tuple(params.get("remove_devices") or ()),
            report_drift=params.get("drift") == "report",
        )


def is_root(options: Mapping[str, str]) -> bool:
    """Say whether a device is an instance's root disk."""
    return options.get("type") == "disk" and options.get("path") == "/" and "pool" in options


def checked_devices(given: Mapping[str, Any], of: str) -> dict[str, dict[str, str]]:
    """Give devices in the form that Incus keeps them, checked; `of` is what has them, in words."""
    devices = {name: _checked_device(f"device {name} of {of}", options) for name, options in given.items()}
    roots = [name for name, options in devices.items() if is_root(options)]
    if len(roots) > 1:
        raise CowError(f"The devices {' and '.join(roots)} of {of} are root disks all. There can be one.")
    return devices


def read_all(server: Server) -> dict[Key, Profile]:
    """Read the profiles of every project."""
    profiles = {
        profile.key: profile for profile in map(_profile, server.get("profiles", recursion=1, all_projects="true"))
    }
    if not any(profile.users for profile in profiles.values()):
        return profiles
    instances = {
        str(Key(body["project"], body["name"])): body
        for body in server.get("instances", recursion=1, all_projects="true")
    }
    return {key: replace(one, inheriting=_inheriting(one, profiles, instances)) for key, one in profiles.items()}


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


def plan(server: Server, known: Mapping[Key, Profile], wanted: Wanted) -> Plan:
    """Plan what makes the profile hold what is wanted. known: those of all projects."""
    found = known.get(wanted.key)
    if found is None:
        _refuse_unknown_project(known, wanted.key)
        return Plan.of(_create(server, wanted))
    try:
        after = predicted(found, wanted)
        _refuse_moving_root(found, after)
    except Drift as drift:
        if not wanted.report_drift:
            raise
        return Plan(warnings=(str(drift),), facts={"drift": str(drift)})
    known_state, wanted_state = _state(found), _state(after)
    differing = sorted(key for key in {**known_state, **wanted_state} if known_state.get(key) != wanted_state.get(key))
    if not differing:
        return Plan()
    step = Step(
        title=f"set {', '.join(differing)} of profile {wanted.key}",
        run=partial(update, server, wanted.key, partial(predicted, wanted=wanted)),
        before={key: known_state.get(key) for key in differing},
        after={key: wanted_state.get(key) for key in differing},
    )
    return Plan.of(step)


def predicted(found: Profile, wanted: Wanted) -> Profile:
    """Give the profile as it is once the plan has run. Drift when a name is that of something else."""
    kept = {name: options for name, options in found.devices.items() if name not in wanted.remove_devices}
    root = _root(kept)
    devices = dict(kept)
    for name, options in wanted.devices.items():
        target = root or name if is_root(options) else name
        devices[target] = _with_options(found.key, target, devices.get(target, {}), options)
    taken = {_slot(options) for options in devices.values()}
    spare = {name: options for name, options in wanted.fallback_devices.items() if _slot(options) not in taken}
    return replace(
        found,
        description=found.description if wanted.description is None else wanted.description,
        config=settings.merged(found.config, wanted.config),
        devices={**spare, **devices},
    )


def plan_absent(server: Server, known: Mapping[Key, Profile], key: Key) -> Plan:
    """Plan the removal of a profile that nothing uses."""
    found = known.get(key)
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
    """Give the profiles with these devices where there is room for them; profiles that are gone stay gone."""
    return {key: _with_devices(profile, devices.get(key, {})) for key, profile in found.items()}


def take_off(server: Server, key: Key, gone: frozenset[str]) -> None:
    """Take the devices of these names off a profile."""

    def change(profile: Profile) -> Profile:
        return replace(profile, devices={name: kept for name, kept in profile.devices.items() if name not in gone})

    update(server, key, change)


def put_back(server: Server, key: Key, devices: Devices) -> None:
    """Give a profile these devices where there is room for them; one that is gone stays gone."""
    if server.exists("profiles", key.name, project=key.project):
        update(server, key, partial(_with_devices, devices=devices))


def update(server: Server, key: Key, change: Callable[[Profile], Profile]) -> None:
    """Change a profile as it is now, on the condition that nobody else changes it meanwhile."""
    found = server.find("profiles", key.name, project=key.project)
    if found is None:
        raise CowError(f"Profile {key} was removed by somebody while it was being changed. Run again.")
    body = _body(change(_profile({**found.body, "project": key.project})))
    server.put("profiles", key.name, body=body, etag=found.etag, project=key.project)


def _with_devices(profile: Profile, devices: Devices) -> Profile:
    """Leave out those whose name is taken, and a root disk where the profile has been given another one."""
    fitting = {name: options for name, options in devices.items() if not (profile.root and is_root(options))}
    return replace(profile, devices={**fitting, **profile.devices})


def _with_options(key: Key, name: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> Mapping[str, str]:
    if found and (found.get("type"), is_root(found)) != (wanted["type"], is_root(wanted)):
        raise Drift(
            f"Profile {key} has a device {name} that is something else: {_in_words(found)}; wanted is "
            f"{_in_words(wanted)}. Give the wanted one another name, or list {name} in remove_devices to replace it."
        )
    return settings.merged(found, wanted)


def _checked_device(what: str, given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise CowError(f"The {what} is {given!r}, wanted are its options, such as {{type: disk, path: /, pool: fast}}.")
    options = settings.as_text(given, what)
    if not options.get("type"):
        raise CowError(f"The {what} has no type. Give one, such as disk or nic.")
    return options


def _root(devices: Devices) -> str:
    return next((name for name, options in devices.items() if is_root(options)), "")


def _inheriting(
    profile: Profile, profiles: Mapping[Key, Profile], instances: Mapping[str, Mapping[str, Any]]
) -> tuple[str, ...]:
    """Which of the profile's users have its root disk: by no device of their own, nor by a profile after this one."""

    def inherits(instance: Mapping[str, Any]) -> bool:
        if any(is_root(options) for options in instance["devices"].values()):
            return False
        applied = (Key(profile.key.project, name) for name in reversed(instance["profiles"]))
        return next((key for key in applied if key in profiles and profile.root in profiles[key].devices), None) == (
            profile.key
        )

    return tuple(user for user in profile.users if user in instances and inherits(instances[user]))


def _profile(body: Mapping[str, Any]) -> Profile:
    return Profile(
        key=Key(body["project"], body["name"]),
        description=body["description"],
        config=body["config"],
        devices=body["devices"],
        users=tuple(str(_instance(url)) for url in body["used_by"]),
    )


def _instance(url: str) -> Key:
    parts = urlsplit(url)
    return Key(parse_qs(parts.query).get("project", ["default"])[0], unquote(parts.path.rsplit("/", 1)[-1]))


def _slot(options: Mapping[str, str]) -> tuple[str | None, str | None]:
    return (options.get("type"), options.get("path") if options.get("type") == "disk" else None)


def _refuse_unknown_project(known: Mapping[Key, Profile], key: Key) -> None:
    if key.project not in {other.project for other in known}:
        raise CowError(
            f"There is no project {key.project} with profiles of its own. Create it with "
            f"`incus project create {key.project}`, or name the profile in the project default."
        )


def _refuse_moving_root(found: Profile, after: Profile) -> None:
    pool = found.devices.get(found.root, {}).get("pool")
    to = after.devices.get(after.root, {}).get("pool")
    if pool and pool != to and found.inheriting:
        raise Drift(
            f"Profile {found.key} has its root disk on pool {pool}, wanted is {to or 'none'}, but instances inherit it "
            f"({names.shortened(found.inheriting)}) and Incus does not move them. It stays. Meanwhile launch onto "
            f"another pool with `--storage`; playbooks/migrate.yml moves them."
        )


def _body(profile: Profile) -> dict[str, Any]:
    return {
        "description": profile.description,
        "config": dict(profile.config),
        "devices": {name: dict(options) for name, options in profile.devices.items()},
    }


def _state(profile: Profile) -> dict[str, str]:
    devices = {f"device {name}": _in_words(options) for name, options in profile.devices.items()}
    return {"description": profile.description, **profile.config, **devices}


def _in_words(options: Mapping[str, str]) -> str:
    return " ".join(f"{option}={value}" for option, value in sorted(options.items()))


def _create(server: Server, wanted: Wanted) -> Step:
    fresh = predicted(Profile(wanted.key), wanted)
    return Step(
        title=f"create profile {wanted.key}",
        run=lambda: server.post("profiles", body={"name": wanted.key.name, **_body(fresh)}, project=wanted.key.project),
        after={key: value for key, value in _state(fresh).items() if value},
    )

"""The root disks of profiles, repointed from one pool to another once no instance inherits them any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .. import names
from ..errors import CowError
from ..plan import Plan, Step
from . import instances, profiles
from .client import Server
from .instances import Instance
from .profiles import Key, Profile


@dataclass(frozen=True)
class Wanted:
    """What the operator asks for."""

    from_pool: str
    pool: str
    protected: tuple[str, ...]
    pin_protected: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Take it from the options of incus_profile_pool and check it."""
        wanted = cls(
            from_pool=names.pool(params["from_pool"]),
            pool=names.pool(params["pool"]),
            protected=tuple(params["protected"]),
            pin_protected=params["pin_protected"],
        )
        if wanted.from_pool == wanted.pool:
            raise CowError(f"from_pool and pool are both {wanted.pool}. Give the pool to leave, and the one to go to.")
        return wanted


@dataclass(frozen=True)
class Found:
    """The profiles and instances of all projects. protected: those among the instances."""

    profiles: Mapping[Key, Profile]
    instances: Mapping[Key, Instance]
    protected: frozenset[Key]


def observe(server: Server, wanted: Wanted) -> Found:
    """Read all profiles and instances. CowError for an unknown pool or protected instance."""
    known = sorted(str(body["name"]) for body in server.get("storage-pools", recursion=1))
    for pool in (wanted.from_pool, wanted.pool):
        if pool not in known:
            raise CowError(f"There is no pool {pool}. There are {names.shortened(known)}.")
    every = instances.read_all(server)
    return Found(profiles.read_all(server), every, instances.require(wanted.protected, every, "protected"))


def plan(server: Server, found: Found, wanted: Wanted) -> Plan:
    """Plan which instances get a root disk of their own, and which profiles another pool."""
    steps: list[Step] = []
    warnings: list[str] = []
    pinned: set[Key] = set()
    for profile in _on(found, wanted.from_pool):
        why = _why_it_stays(found, profile, wanted)
        if why:
            warnings.append(why)
            continue
        for key in _inheriting(profile):
            if key not in pinned:
                pinned.add(key)
                steps.append(_pin(server, found.instances[key]))
        steps.append(_repoint(server, profile, wanted))
    return Plan(steps=tuple(steps), warnings=tuple(warnings))


def describe(found: Found, wanted: Wanted) -> dict[str, Any]:
    """Give the return values of the module."""
    either = [*_on(found, wanted.from_pool), *_on(found, wanted.pool)]
    return {
        "profiles": [
            {
                "name": profile.key.name,
                "project": profile.key.project,
                "pool": _pool(profile),
                "inheriting": list(profile.inheriting),
                "why_it_stays": _why_it_stays(found, profile, wanted) if _pool(profile) == wanted.from_pool else "",
            }
            for profile in sorted(either, key=lambda profile: profile.key)
        ]
    }


def _on(found: Found, pool: str) -> list[Profile]:
    return [profile for _, profile in sorted(found.profiles.items()) if _pool(profile) == pool]


def _pool(profile: Profile) -> str:
    return profile.devices.get(profile.root, {}).get("pool", "")


def _inheriting(profile: Profile) -> list[Key]:
    return [instances.key_of(name) for name in profile.inheriting]


def _why_it_stays(found: Found, profile: Profile, wanted: Wanted) -> str:
    """Say why a profile cannot leave its pool; "" when it can."""
    stays = f"Profile {profile.key} stays on pool {wanted.from_pool}: its root disk is inherited by"
    launch = f"Meanwhile launch onto the other one with `incus launch IMAGE NAME --storage {wanted.pool}`."
    keys = _inheriting(profile)
    others = [str(key) for key in keys if key not in found.protected]
    if others:
        return f"{stays} {names.shortened(others)}, which Incus does not move with it. Move these first. {launch}"
    if keys and not wanted.pin_protected:
        listed = names.shortened([str(key) for key in keys])
        return (
            f"{stays} {listed}, which is protected. Set pin_protected to give it an equal root disk of its own, which "
            f"changes its configuration only. {launch}"
        )
    return ""


def _pin(server: Server, found: Instance) -> Step:
    name = found.root_name

    def run() -> None:
        now = instances.read(server, found.key)
        if now is None or now.pool != found.pool:
            raise CowError(f"{found.key} was changed or removed by somebody right now. Run again.")
        instances.replace(server, now, devices={**now.body["devices"], name: dict(now.root)})

    return Step(
        title=f"pin the root disk of {found.key} to pool {found.pool}",
        run=run,
        before={f"device {name} of {found.key}": "that of a profile"},
        after={f"device {name} of {found.key}": f"its own, on pool {found.pool}"},
    )


def _repoint(server: Server, profile: Profile, wanted: Wanted) -> Step:
    def change(now: Profile) -> Profile:
        root = {**now.devices.get(now.root, {}), "pool": wanted.pool}
        return replace(now, devices={**now.devices, now.root: root}) if now.root else now

    return Step(
        title=f"put the root disk of profile {profile.key} on pool {wanted.pool}",
        run=partial(profiles.update, server, profile.key, change),
        before={f"device {profile.root} of profile {profile.key}": f"pool {wanted.from_pool}"},
        after={f"device {profile.root} of profile {profile.key}": f"pool {wanted.pool}"},
    )

"""What a server is to hold: networks, storage pools, profiles and images, converged as one plan.

Each kind of resource plans for itself. What an earlier part of the plan changes, a later part has to know: a pool that
is made again has no image unpacked on it, a profile that gets a NIC may get a root disk too. So the predicted state is
handed on, and check mode announces what one run does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import CowError
from ..plan import Plan
from . import images, networks, pools, profiles
from .client import Server


@dataclass(frozen=True)
class Wanted:
    """What the server is to hold besides what it holds."""

    networks: Sequence[networks.Wanted]
    storage_pools: Sequence[pools.Wanted]
    profiles: Sequence[profiles.Wanted]
    images: Sequence[images.Wanted]

    def __post_init__(self) -> None:
        """Refuse two entries for one thing, but for profiles, whose entries are merged."""
        _refuse_twice("network", (one.name for one in self.networks))
        _refuse_twice("storage pool", (one.wish.name for one in self.storage_pools))
        _refuse_twice("image", (str(one.key) for one in self.images))


@dataclass(frozen=True)
class Found:
    """What planning needs to know of the server."""

    networks: networks.Found
    storage_pools: Mapping[str, pools.Found]
    profiles: Mapping[profiles.Key, profiles.Profile]
    images: images.Found


def observe(server: Server, wanted: Wanted) -> Found:
    """Read all that is wanted in any way, once."""
    known_profiles = profiles.read_all(server)
    return Found(
        networks=networks.observe(server),
        storage_pools={
            pool.wish.name: pools.observe(server, pool.wish, known_profiles) for pool in wanted.storage_pools
        },
        profiles=known_profiles,
        images=images.observe(server, wanted.images),
    )


def plan(server: Server, found: Found, wanted: Wanted) -> Plan:
    """Plan networks, then pools, then the profiles that name both, then the images on the pools."""
    network_plans = [networks.plan(server, found.networks, one) for one in wanted.networks]
    pool_plans = {
        one.wish.name: pools.plan(server, found.storage_pools[one.wish.name], one) for one in wanted.storage_pools
    }
    profile_plans = _profile_plans(server, _attached_again(found), wanted.profiles)
    image_plans = _image_plans(server, found.images, wanted.images, _locations(pool_plans))
    return _joined([*network_plans, *pool_plans.values(), *profile_plans, *image_plans], pool_plans)


def describe(found: Found) -> dict[str, Any]:
    """Give what the preseed is about as return values of the module."""
    return {"storage_pools": [pools.describe(one.pool)["pool"] for one in found.storage_pools.values() if one.pool]}


def _refuse_twice(what: str, named: Iterable[str]) -> None:
    twice = sorted(name for name, times in Counter(named).items() if times > 1)
    if twice:
        raise CowError(f"The {what} {twice[0]} is listed more than once. Write one entry for it.")


def _attached_again(found: Found) -> dict[profiles.Key, profiles.Profile]:
    state = dict(found.profiles)
    for pool in found.storage_pools.values():
        state = profiles.with_devices(state, pool.detached)
    return state


def _profile_plans(
    server: Server, state: dict[profiles.Key, profiles.Profile], wanted: Sequence[profiles.Wanted]
) -> list[Plan]:
    plans = []
    for one in wanted:
        planned = profiles.plan(server, state, one)
        plans.append(planned)
        if planned.steps:
            state[one.key] = profiles.predicted(state.get(one.key) or profiles.Profile(one.key), one)
    return plans


def _image_plans(
    server: Server, found: images.Found, wanted: Sequence[images.Wanted], locations: Mapping[str, Mapping[str, str]]
) -> list[Plan]:
    copying = frozenset(name for name, location in locations.items() if location["kind"] == "directory")
    fresh = frozenset(locations) - copying
    plans = []
    for one in wanted:
        unpacking = replace(one, pools=tuple(name for name in one.pools if name not in copying))
        plans.append(images.plan(server, found, unpacking, fresh))
    return plans


def _locations(pool_plans: Mapping[str, Plan]) -> dict[str, Mapping[str, str]]:
    return {name: planned.facts["location"] for name, planned in pool_plans.items() if "location" in planned.facts}


def _joined(plans: Sequence[Plan], pool_plans: Mapping[str, Plan]) -> Plan:
    return Plan(
        steps=tuple(step for planned in plans for step in planned.steps),
        warnings=tuple(warning for planned in plans for warning in planned.warnings),
        facts={
            "drift": [planned.facts["drift"] for planned in plans if "drift" in planned.facts],
            "locations": _locations(pool_plans),
        },
    )

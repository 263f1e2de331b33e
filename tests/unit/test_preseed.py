"""How the plans of a preseed are joined: what an earlier part changes, a later part knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.incus import image_store, images, networks, pools, preseed, profiles
from ansible.module_utils.cow.incus.client import Server
from ansible.module_utils.cow.incus.image_sources import Look, Remote
from ansible.module_utils.cow.incus.locate import Ground
from ansible.module_utils.cow.incus.pools import Pool
from ansible.module_utils.cow.incus.profiles import Key, Profile
from ansible.module_utils.cow.plan import Plan
from ansible.module_utils.cow.size import GIB, Size

SERVER = Server("/nonexistent/unix.socket")
GROUND = Ground("/var/lib/incus", free=Size(100 * GIB.bytes), drivers=frozenset({"dir", "btrfs"}))
DEFAULT = Key("default", "default")
BASE = images.Key("default", "base")
ROOT = {"type": "disk", "path": "/", "pool": "fast"}
DIR = Pool("fast", "dir", {"source": "/p"}, "Created")
LOOP = Pool("fast", "btrfs", {"source": "/d/fast.img", "size": "20GiB"}, "Created")
HERE = image_store.Image("a" * 64, frozenset({"base"}))
CREATE = "create storage pool fast: btrfs, a loop file of 20GiB in /var/lib/incus/disks"
UNPACK = "unpack image base on storage pool fast"


def wanted(
    pool: dict[str, Any] | None = None, profile: Sequence[dict[str, Any]] = (), image: bool = False
) -> preseed.Wanted:
    source = Remote("https://images.example", "simplestreams", "debian/13")
    return preseed.Wanted(
        networks=[],
        storage_pools=[] if pool is None else [pools.Wanted.of({"name": "fast", "size": "20GiB", **pool})],
        profiles=[profiles.Wanted.of({"name": "default", **one}) for one in profile],
        images=[images.Wanted(BASE, source, ("fast",))] if image else [],
    )


def planned(want: preseed.Wanted, pool: Pool | None = None, devices: Any = None, **more: Any) -> Plan:
    known = {DEFAULT: Profile(DEFAULT, devices=devices or {})}
    unpacked = frozenset({HERE.fingerprint}) if pool is not None and pool.can_clone else frozenset()
    there = {} if pool is None else {"fast": image_store.Pool(pool.can_clone, unpacked)}
    store = image_store.Store(images={"default": (HERE,)}, pools=there)
    return preseed.plan(
        SERVER,
        preseed.Found(
            networks=networks.Found(),
            storage_pools={"fast": pools.Found(pool, GROUND, known, **more)},
            profiles=known,
            images=images.Found(store, {BASE: Look()}),
        ),
        want,
    )


@pytest.mark.parametrize(
    ("pool", "options", "expected"),
    [
        (LOOP, {}, []),
        (None, {}, [CREATE, UNPACK]),
        (
            None,
            {"driver": "dir"},
            ["create storage pool fast: dir, a plain directory as asked for, where every launch is a copy"],
        ),
        (DIR, {"recreate_empty": True}, ["delete the empty storage pool fast (dir)", CREATE, UNPACK]),
        (DIR, {"drift": "report"}, []),
    ],
)
def test_images_are_unpacked_on_pools_that_the_plan_makes(
    pool: Pool | None, options: dict[str, Any], expected: list[str]
) -> None:
    assert planned(wanted(options, image=True), pool).titles == expected


def test_entries_for_one_profile_are_merged_in_their_order() -> None:
    entries = [
        {"devices": {"disk0": ROOT}},
        {"fallback_devices": {"root": ROOT}},
        {"devices": {"root": {**ROOT, "size": "5GiB"}}},
    ]
    assert planned(wanted(profile=entries), LOOP).titles == ["set device disk0 of profile default"] * 2


def test_devices_that_are_about_to_be_attached_again_are_known() -> None:
    want = wanted({}, profile=[{"devices": {"root": ROOT}}])
    steps = planned(want, LOOP, detached={DEFAULT: {"disk0": ROOT}}).titles
    assert steps == ["attach storage pool fast to profile default again"]


def test_facts_and_warnings_of_all_parts() -> None:
    plan = planned(wanted({"drift": "report"}), DIR)
    assert plan.facts == {"drift": list(plan.warnings), "locations": {}}
    assert set(planned(wanted({})).facts["locations"]) == {"fast"}


@pytest.mark.parametrize("kind", ["networks", "storage_pools", "images"])
def test_two_entries_for_one_thing_are_refused(kind: str) -> None:
    entries: dict[str, Any] = {
        "networks": networks.Wanted("br0"),
        "storage_pools": pools.Wanted.of({"name": "fast"}),
        "images": wanted(image=True).images[0],
    }
    given = {name: [entry] * (2 if name == kind else 1) for name, entry in entries.items()}
    with pytest.raises(CowError, match="is listed more than once"):
        preseed.Wanted(profiles=[], **given)

"""What is planned for a storage pool, as tables of found against wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError, Drift
from ansible.module_utils.cow.incus import pools
from ansible.module_utils.cow.incus.client import Server
from ansible.module_utils.cow.incus.locate import Ground
from ansible.module_utils.cow.incus.pools import Found, Pool, User, Wanted
from ansible.module_utils.cow.incus.profiles import Devices, Key, Profile
from ansible.module_utils.cow.size import GIB, Size

SERVER = Server("/var/lib/incus/unix.socket")
GROUND = Ground("/var/lib/incus", free=Size(100 * GIB.bytes), drivers=frozenset({"dir", "btrfs"}))
IMAGE = "/var/lib/incus/disks/fast.img"
FOLDER = "/var/lib/incus/storage-pools/fast"

LOOP = Pool("fast", "btrfs", {"source": IMAGE, "size": "10GiB"}, "Created")
ON_DEVICE = Pool("fast", "btrfs", {"source": "0-0-0-0", "volatile.initial_source": "/dev/sda"}, "Created")
SUBVOLUME = Pool("fast", "btrfs", {"source": "/srv/fast", "volatile.initial_source": "/srv/fast"}, "Created")
DIR = Pool("fast", "dir", {"source": FOLDER}, "Created")
HALF_MADE = Pool("fast", "btrfs", {"size": "10GiB"}, "Unavailable")
LOST = replace(LOOP, status="Unavailable")

INSTANCE, VOLUME, BUCKET, IMAGE_USER, PROFILE_USER = (
    User(kind, "default", "x") for kind in ("instances", "volumes", "buckets", "images", "profiles")
)
DEFAULT, SHOP = Key("default", "default"), Key("shop", "default")
ROOT: Devices = {"root": {"type": "disk", "path": "/", "pool": "fast"}}
BOTH = {DEFAULT: Profile(DEFAULT, devices=ROOT), SHOP: Profile(SHOP, devices=ROOT)}

CREATE = "create storage pool fast: btrfs, a loop file of 20GiB in /var/lib/incus/disks"
DELETE_EMPTY = "delete the empty storage pool fast (dir)"
DELETE_HALF_MADE = "delete the half-made storage pool fast (btrfs)"


def found(pool: Pool | None, profiles: Mapping[Key, Profile] | None = None, **more: Any) -> Found:
    return Found(pool, more.pop("ground", GROUND), profiles or {}, **more)


def wanted(**params: Any) -> Wanted:
    return Wanted.of({"name": "fast", "size": "20GiB", **params})


def titles(state: Found, want: Wanted) -> list[str]:
    return pools.plan(SERVER, state, want).titles


def detach(profiles: str) -> str:
    return f"detach storage pool fast from profile {profiles} for now"


def attach(profiles: str) -> str:
    return f"attach storage pool fast to profile {profiles} again"


@pytest.mark.parametrize(
    ("pool", "params", "expected"),
    [
        (None, {}, [CREATE]),
        (LOOP, {"size": ""}, []),
        (LOOP, {"size": "10240MiB"}, []),
        (LOOP, {"size": "90%"}, []),
        (LOOP, {}, ["grow storage pool fast from 10GiB to 20GiB"]),
        (LOOP, {"driver": "btrfs", "size": ""}, []),
        (ON_DEVICE, {}, []),
        (ON_DEVICE, {"source": "/dev/sda"}, []),
        (ON_DEVICE, {"device": "/dev/sda"}, []),
        (replace(ON_DEVICE, config={"source": "0-0-0-0"}), {"source": "/dev/sda"}, []),
        (SUBVOLUME, {"source": "/srv/fast"}, []),
        (SUBVOLUME, {"path": "/srv"}, []),
        (DIR, {"driver": "dir"}, []),
        (replace(DIR, users=(INSTANCE, VOLUME)), {"driver": "dir"}, []),
        (Pool("fast", "lvm", {"source": "vg"}, "Created"), {}, []),
        (LOOP, {"size": "", "config": {"user.a": 1}}, ["set user.a of storage pool fast"]),
        (LOOP, {"size": "", "config": {"user.a": None}}, []),
        (LOOP, {"size": "", "description": ""}, []),
        (LOOP, {"size": "", "description": "x"}, ["set description of storage pool fast"]),
        (replace(LOOP, description="x"), {"size": ""}, []),
        (replace(LOOP, description="x"), {"size": "", "description": ""}, ["set description of storage pool fast"]),
        (HALF_MADE, {}, [DELETE_HALF_MADE, CREATE]),
        (replace(HALF_MADE, status="Pending"), {}, [DELETE_HALF_MADE, CREATE]),
        (DIR, {"recreate_empty": True}, [DELETE_EMPTY, CREATE]),
        (replace(DIR, users=(IMAGE_USER,)), {"recreate_empty": True}, [DELETE_EMPTY, CREATE]),
    ],
)
def test_steps(pool: Pool | None, params: dict[str, Any], expected: list[str]) -> None:
    assert titles(found(pool), wanted(**params)) == expected


@pytest.mark.parametrize(
    ("pool", "params", "said"),
    [
        (DIR, {}, "It is empty: set recreate_empty"),
        (DIR, {"driver": "btrfs"}, "wanted is btrfs. It is empty"),
        (replace(DIR, users=(INSTANCE,)), {"recreate_empty": True}, "has driver dir and holds instances x;"),
        (replace(DIR, users=(VOLUME,)), {"recreate_empty": True}, "holds volumes x; wanted is one that clones"),
        (replace(DIR, users=(BUCKET,)), {"recreate_empty": True}, "holds buckets x;"),
        (LOOP, {"driver": "dir", "recreate_empty": True}, "has driver btrfs; wanted is dir"),
        (LOOP, {"driver": "zfs", "recreate_empty": True}, "has driver btrfs; wanted is zfs"),
        (LOOP, {"size": "5GiB"}, "is 10GiB, wanted is 5GiB. A loop file is never shrunk"),
        (LOOP, {"source": "/srv/pool"}, f"has source {IMAGE}, wanted is /srv/pool"),
        (ON_DEVICE, {"source": "/dev/sdb"}, "wanted is /dev/sdb"),
    ],
)
def test_drift_is_an_error_or_a_warning(pool: Pool, params: dict[str, Any], said: str) -> None:
    with pytest.raises(Drift) as drift:
        titles(found(pool), wanted(**params))
    assert said in str(drift.value)
    reported = pools.plan(SERVER, found(pool), wanted(drift="report", **params))
    assert reported.steps == ()
    assert reported.warnings == (str(drift.value),)
    assert reported.facts == {"drift": str(drift.value)}


def test_dir_pool_with_unrecorded_files_is_drift() -> None:
    with pytest.raises(Drift, match=r"holds files that Incus has no record of \(/p/containers/c1\)"):
        titles(found(DIR, unrecorded=("/p/containers/c1",)), wanted(recreate_empty=True))


@pytest.mark.parametrize("drift", ["fail", "report"])
@pytest.mark.parametrize(
    ("state", "params", "said"),
    [
        (found(LOST), {}, "is there and holds nothing, but its status is Unavailable"),
        (found(replace(LOST, users=(INSTANCE,))), {}, "is there and holds instances x, but its status is Unavailable"),
        (found(replace(HALF_MADE, users=(INSTANCE,))), {}, "but its status is Unavailable (source none)"),
        (found(LOOP), {"size": "1TiB"}, "is to grow from 10GiB to 1TiB, but /var/lib/incus has only 100.0 GiB free"),
        (found(None), {"size": "1TiB"}, "wants a loop file of 1TiB, but"),
        (found(DIR), {"size": "1TiB", "recreate_empty": True}, "wants a loop file of 1TiB, but"),
        (found(None, ground=replace(GROUND, loop_file=IMAGE)), {}, f"{IMAGE} exists"),
        (found(DIR, ground=replace(GROUND, loop_file=IMAGE)), {"recreate_empty": True}, f"{IMAGE} exists"),
        (found(None, ground=replace(GROUND, mount_point=FOLDER)), {}, f"{FOLDER} exists"),
    ],
)
def test_errors(state: Found, params: dict[str, Any], said: str, drift: str) -> None:
    with pytest.raises(CowError) as refusal:
        titles(state, wanted(drift=drift, **params))
    assert said in str(refusal.value)


def test_a_path_that_is_passed_over_is_a_warning_when_the_pool_is_made() -> None:
    on_ext4 = replace(GROUND, file_system="ext4")
    for pool, warned in ((None, True), (DIR, True), (LOOP, False)):
        plan = pools.plan(SERVER, found(pool, ground=on_ext4), wanted(path="/srv", recreate_empty=True))
        assert bool(plan.warnings) == warned


def test_what_goes_with_the_pool_is_no_leftover() -> None:
    assert titles(found(DIR, ground=replace(GROUND, mount_point=FOLDER)), wanted(recreate_empty=True))
    assert titles(found(HALF_MADE, ground=replace(GROUND, mount_point=FOLDER, loop_file=IMAGE)), wanted())


@pytest.mark.parametrize(("pool", "deletion"), [(DIR, DELETE_EMPTY), (HALF_MADE, DELETE_HALF_MADE)])
@pytest.mark.parametrize(
    ("profiles", "detached", "expected"),
    [
        ({}, {}, ["", "", ""]),
        (BOTH, {}, [detach("default, shop/default"), "", attach("default, shop/default")]),
        ({DEFAULT: BOTH[DEFAULT]}, {SHOP: ROOT}, [detach("default"), "", attach("shop/default, default")]),
        ({DEFAULT: Profile(DEFAULT)}, {DEFAULT: ROOT}, ["", "", attach("default")]),
        ({}, {SHOP: ROOT}, ["", "", attach("shop/default")]),
    ],
    ids=["none", "both", "one detached", "all detached", "gone"],
)
def test_profiles_are_detached_and_attached_again(
    pool: Pool, deletion: str, profiles: dict[Key, Profile], detached: dict[Key, Devices], expected: list[str]
) -> None:
    before, _, after = expected
    state = found(replace(pool, users=(PROFILE_USER,)), profiles, detached=detached)
    assert titles(state, wanted(recreate_empty=True)) == [title for title in (before, deletion, CREATE, after) if title]


@pytest.mark.parametrize("pool", [None, LOOP, replace(DIR, users=(INSTANCE,))])
def test_what_an_interrupted_run_detached_is_attached_again(pool: Pool | None) -> None:
    state = found(pool, {DEFAULT: Profile(DEFAULT)}, detached={DEFAULT: ROOT})
    assert titles(state, wanted(drift="report"))[-1] == attach("default")


@pytest.mark.parametrize("params", [{"config": {"size": "5GiB"}}, {"config": {"source": "/x"}}, {"config": {"a": []}}])
def test_configuration_that_cannot_be_meant(params: dict[str, Any]) -> None:
    with pytest.raises(CowError):
        wanted(**params)


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (None, []),
        (LOOP, ["delete storage pool fast (btrfs)"]),
        (HALF_MADE, ["delete storage pool fast (btrfs)"]),
        (replace(DIR, users=(IMAGE_USER,)), ["delete storage pool fast (dir)"]),
    ],
)
def test_removal(pool: Pool | None, expected: list[str]) -> None:
    assert pools.plan_absent(SERVER, found(pool)).titles == expected


@pytest.mark.parametrize("user", [INSTANCE, VOLUME, BUCKET, PROFILE_USER])
def test_a_pool_in_use_is_not_removed(user: User) -> None:
    with pytest.raises(CowError, match=f"Pool fast is in use by {user.kind} x. It stays"):
        pools.plan_absent(SERVER, found(replace(LOOP, users=(user,))))


def test_a_pool_with_unrecorded_files_is_not_removed() -> None:
    said = r"in use by files that Incus has no record of \(/p/containers/c1\)\. It stays"
    with pytest.raises(CowError, match=said):
        pools.plan_absent(SERVER, found(DIR, unrecorded=("/p/containers/c1",)))


def test_a_pool_without_a_source_has_no_unrecorded_files() -> None:
    assert pools._unrecorded(replace(DIR, config={})) == ()


@pytest.mark.parametrize("pool", [HALF_MADE, ON_DEVICE])
def test_a_foreign_loop_file_is_not_deleted_with_a_pool(pool: Pool) -> None:
    state = found(pool, ground=replace(GROUND, loop_file=IMAGE), foreign="a btrfs with subvolumes")
    said = f"{IMAGE} is there and holds a btrfs with subvolumes, but pool fast is not in it. Incus would delete"
    with pytest.raises(CowError, match=said):
        pools.plan_absent(SERVER, state)
    if pool is HALF_MADE:
        with pytest.raises(CowError, match=said):
            titles(state, wanted(path="/srv"))


def test_a_half_made_dir_pool_leaves_a_loop_file() -> None:
    state = found(replace(HALF_MADE, driver="dir"), ground=replace(GROUND, loop_file=IMAGE))
    with pytest.raises(CowError, match=f"{IMAGE} exists"):
        titles(state, wanted())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/1.0/instances/c1", User("instances", "default", "c1")),
        ("/1.0/instances/c1?project=shop", User("instances", "shop", "c1")),
        ("/1.0/instances/c1/snapshots/s1", User("instances", "default", "c1")),
        ("/1.0/images/abc", User("images", "default", "abc")),
        ("/1.0/profiles/a%20b?project=shop", User("profiles", "shop", "a b")),
        ("/1.0/storage-pools/fast/volumes/custom/data?project=shop", User("volumes", "shop", "data")),
        ("/1.0/storage-pools/fast/volumes/custom/data/snapshots/s1", User("volumes", "default", "data")),
        ("/1.0/storage-pools/fast/buckets/b1", User("buckets", "default", "b1")),
    ],
)
def test_users(url: str, expected: User) -> None:
    assert pools._user(url) == expected

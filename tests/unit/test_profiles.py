"""What is planned for a profile, as tables of found against wanted."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError, Drift
from ansible.module_utils.cow.incus import profiles
from ansible.module_utils.cow.incus.client import Server
from ansible.module_utils.cow.incus.profiles import Devices, Key, Profile, Wanted
from hypothesis import given
from hypothesis import strategies as st

SERVER = Server("/nonexistent/unix.socket")
DEFAULT = Key("default", "default")
SLOW = {"type": "disk", "path": "/", "pool": "slow"}
FAST = {**SLOW, "pool": "fast"}
NIC = {"type": "nic", "network": "br0"}
DATA = {"type": "disk", "path": "/data", "source": "/srv"}


def profile(devices: Devices | None = None, **more: Any) -> Profile:
    return Profile(DEFAULT, devices=devices or {}, **more)


def wanted(**params: Any) -> Wanted:
    return Wanted.of({"name": "default", **params})


def titles(found: Profile, want: Wanted) -> list[str]:
    return profiles.plan(SERVER, {DEFAULT: found}, want).titles


@pytest.mark.parametrize(
    ("found", "params", "devices"),
    [
        ({}, {"root": FAST}, {"root": FAST}),
        ({"root": FAST}, {"root": FAST}, {"root": FAST}),
        ({"root": SLOW, "gpu": {"type": "gpu"}}, {"root": FAST}, {"root": FAST, "gpu": {"type": "gpu"}}),
        ({"disk0": {**SLOW, "size": "5GiB"}}, {"root": FAST}, {"disk0": {**FAST, "size": "5GiB"}}),
        ({"root": {**SLOW, "size": "5GiB"}}, {"root": {**FAST, "size": None}}, {"root": FAST}),
        (
            {"eth0": {**NIC, "mtu": "9000"}},
            {"eth0": {**NIC, "network": "br1"}},
            {"eth0": {**NIC, "network": "br1", "mtu": "9000"}},
        ),
        ({"data": DATA}, {"root": FAST}, {"root": FAST, "data": DATA}),
    ],
)
def test_devices_are_merged(found: Devices, params: Devices, devices: Devices) -> None:
    want = wanted(devices=params)
    after = profiles.predicted(profile(found), want)
    assert after.devices == devices
    assert bool(titles(profile(found), want)) == (found != devices)


@pytest.mark.parametrize(
    ("found", "fallback", "added"),
    [
        ({}, {"eth0": NIC}, {"eth0"}),
        ({"net": NIC}, {"eth0": NIC}, set()),
        ({"eth0": {"type": "none"}}, {"eth0": NIC}, set()),
        ({"disk0": SLOW}, {"root": FAST}, set()),
        ({"data": DATA}, {"root": FAST}, {"root"}),
        ({"root": DATA}, {"root": FAST}, set()),
    ],
)
def test_fallback_devices_fill_gaps(found: Devices, fallback: Devices, added: set[str]) -> None:
    after = profiles.predicted(profile(found), wanted(fallback_devices=fallback))
    assert after.devices == {**found, **{name: fallback[name] for name in added}}


@pytest.mark.parametrize(
    ("found", "params", "expected"),
    [
        (profile({"root": FAST, "tty": NIC}), {"remove_devices": ["tty", "none"]}, {"root": FAST}),
        (profile({"disk0": FAST}), {"remove_devices": ["disk0"], "devices": {"root": FAST}}, {"root": FAST}),
        (profile({"root": DATA}), {"remove_devices": ["root"], "devices": {"root": FAST}}, {"root": FAST}),
    ],
)
def test_removed_devices(found: Profile, params: dict[str, Any], expected: Devices) -> None:
    assert profiles.predicted(found, wanted(**params)).devices == expected


@pytest.mark.parametrize(
    ("found", "params", "expected"),
    [
        (profile(), {}, []),
        (profile(description="ours", config={"a": "1"}), {}, []),
        (profile(config={"a": "1", "b": "2"}), {"config": {"a": 1, "c": None}}, []),
        (profile(config={"a": "1"}), {"config": {"a": True}}, ["set a of profile default"]),
        (profile(config={"a": "1"}), {"config": {"a": None}}, ["set a of profile default"]),
        (
            profile(),
            {"description": "x", "devices": {"root": FAST}},
            ["set description, device root of profile default"],
        ),
    ],
)
def test_steps(found: Profile, params: dict[str, Any], expected: list[str]) -> None:
    assert titles(found, wanted(**params)) == expected


@pytest.mark.parametrize(
    ("found", "params", "said"),
    [
        (
            profile({"root": SLOW}, inheriting=("c1", "shop/c2")),
            {"devices": {"root": FAST}},
            "on pool slow, wanted is fast, but instances inherit it (c1, shop/c2)",
        ),
        (profile({"disk0": SLOW}, inheriting=("c1",)), {"remove_devices": ["disk0"]}, "wanted is none"),
        (profile({"root": DATA}), {"devices": {"root": FAST}}, "a device root that is something else"),
        (profile({"eth0": {"type": "none"}}), {"devices": {"eth0": NIC}}, "a device eth0 that is something else"),
        (profile({"root": FAST, "eth0": SLOW}), {"devices": {"eth0": NIC}}, "a device eth0 that is something else"),
    ],
)
def test_drift_is_an_error_or_a_warning(found: Profile, params: dict[str, Any], said: str) -> None:
    with pytest.raises(Drift) as drift:
        titles(found, wanted(**params))
    assert said in str(drift.value)
    reported = profiles.plan(SERVER, {DEFAULT: found}, wanted(drift="report", **params))
    assert (reported.steps, reported.warnings) == ((), (str(drift.value),))


@pytest.mark.parametrize(
    ("found", "params"),
    [
        (profile({"root": SLOW}), {"root": FAST}),
        (profile({"root": SLOW}, users=("c1",)), {"root": FAST}),
        (profile({"root": SLOW}, inheriting=("c1",)), {"root": {**SLOW, "size": "5GiB"}}),
        (profile({}, inheriting=("c1",)), {"root": FAST}),
    ],
)
def test_root_disks_that_may_change(found: Profile, params: Devices) -> None:
    assert titles(found, wanted(devices=params)) == ["set device root of profile default"]


def instance(*applied: str, **devices: dict[str, str]) -> dict[str, Any]:
    return {"devices": devices, "profiles": list(applied)}


@pytest.mark.parametrize(
    ("body", "inherits"),
    [
        (instance("default"), True),
        (instance("default", "plain"), True),
        (instance("web", "default"), True),
        (instance("default", "web"), False),
        (instance("default", root=FAST), False),
        (instance("default", data=DATA), True),
    ],
)
def test_who_inherits_a_root_disk(body: dict[str, Any], inherits: bool) -> None:
    known = {
        DEFAULT: profile({"root": SLOW}, users=("c1",)),
        Key("default", "web"): Profile(Key("default", "web"), devices={"root": FAST}),
        Key("default", "plain"): Profile(Key("default", "plain")),
    }
    assert profiles._inheriting(known[DEFAULT], known, {"c1": body}) == (("c1",) if inherits else ())


def test_new_profiles_and_projects() -> None:
    known = {DEFAULT: profile()}
    assert profiles.plan(SERVER, known, wanted(name="web")).titles == ["create profile web"]
    with pytest.raises(CowError, match="There is no project shop with profiles of its own"):
        profiles.plan(SERVER, known, wanted(name="web", project="shop"))


def test_removal() -> None:
    web = Key("default", "web")
    known = {DEFAULT: profile(), web: Profile(web)}
    assert profiles.plan_absent(SERVER, known, web).titles == ["delete profile web"]
    assert profiles.plan_absent(SERVER, known, Key("default", "gone")).steps == ()
    with pytest.raises(CowError, match="cannot be removed"):
        profiles.plan_absent(SERVER, known, DEFAULT)
    with pytest.raises(CowError, match="is used by c1"):
        profiles.plan_absent(SERVER, {web: Profile(web, users=("c1",))}, web)


@pytest.mark.parametrize(
    "params",
    [
        {"name": "-x"},
        {"project": "a/b"},
        {"devices": {"root": "fast"}},
        {"devices": {"root": {"path": "/"}}},
        {"devices": {"root": FAST, "disk0": FAST}},
        {"fallback_devices": {"eth0": ["nic"]}},
        {"config": {"a": {}}},
    ],
)
def test_what_cannot_be_meant(params: dict[str, Any]) -> None:
    with pytest.raises(CowError):
        wanted(**params)


@pytest.mark.parametrize(
    ("found", "back", "expected"),
    [
        ({}, {"root": FAST}, {"root": FAST}),
        ({"root": SLOW}, {"root": FAST}, {"root": SLOW}),
        ({"disk0": SLOW}, {"root": FAST}, {"disk0": SLOW}),
        ({"disk0": SLOW}, {"data": DATA}, {"data": DATA, "disk0": SLOW}),
    ],
)
def test_devices_are_put_back_where_there_is_room(found: Devices, back: Devices, expected: Devices) -> None:
    other = Key("shop", "default")
    after = profiles.with_devices({DEFAULT: profile(found)}, {DEFAULT: back, other: back})
    assert {key: one.devices for key, one in after.items()} == {DEFAULT: expected}


names = st.sampled_from(["root", "disk0", "eth0", "data"])
options = st.sampled_from([SLOW, FAST, NIC, DATA, {"type": "none"}, {**SLOW, "size": "5GiB"}])
devices = st.dictionaries(names, options).filter(lambda some: sum(map(profiles.is_root, some.values())) <= 1)


@given(found=devices, want=devices, fallback=devices, gone=st.lists(names))
def test_what_is_predicted_is_stable(found: Devices, want: Devices, fallback: Devices, gone: list[str]) -> None:
    gone = [name for name in gone if name not in fallback]
    asked = wanted(devices=want, fallback_devices=fallback, remove_devices=gone)
    try:
        after = profiles.predicted(profile(found), asked)
        again = profiles.predicted(after, asked)
    except Drift:
        return
    assert again == after
    assert set(found) - set(gone) <= set(after.devices)

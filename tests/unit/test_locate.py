"""Where a new pool is to live, as a table of wishes against what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from ansible.module_utils.cow.blockdev import Device
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.incus import locate
from ansible.module_utils.cow.incus.locate import Ground, Wish
from ansible.module_utils.cow.size import GIB, Size
from ansible.module_utils.cow.zfs import Dataset
from hypothesis import given
from hypothesis import strategies as st

GROUND = Ground("/var/lib/incus", free=Size(100 * GIB.bytes), drivers=frozenset({"dir", "btrfs", "zfs"}))
WISH = Wish("fast")
UNUSED, USED = Device("/dev/sda", GIB, ""), Device("/dev/sda", GIB, "ext4 (filesystem)")
ON_BTRFS = replace(GROUND, file_system="btrfs")
ON_ZFS = replace(GROUND, root_pool="rpool")
EMPTY, FULL = Dataset("tank/incus", ()), Dataset("tank/incus", ("tank/incus/c1",))


@pytest.mark.parametrize(
    ("wish", "ground", "kind", "driver", "config"),
    [
        (WISH, GROUND, "loop", "btrfs", {"size": "50GiB"}),
        (WISH, replace(GROUND, free=Size(6 * GIB.bytes)), "loop", "btrfs", {"size": "5GiB"}),
        (WISH, replace(GROUND, options_of_mkfs=True), "loop", "btrfs", {"size": "50GiB", "btrfs.create_options": "-K"}),
        (replace(WISH, size="7GiB"), GROUND, "loop", "btrfs", {"size": "7GiB"}),
        (replace(WISH, size="10%"), GROUND, "loop", "btrfs", {"size": "10GiB"}),
        (replace(WISH, driver="zfs"), replace(GROUND, options_of_mkfs=True), "loop", "zfs", {"size": "50GiB"}),
        (replace(WISH, driver="dir"), ON_BTRFS, "directory", "dir", {}),
        (replace(WISH, driver="dir", source="/srv"), GROUND, "directory", "dir", {"source": "/srv"}),
        (replace(WISH, device="/dev/sda"), replace(GROUND, device=UNUSED), "device", "btrfs", {"source": "/dev/sda"}),
        (
            replace(WISH, driver="zfs", device="/dev/sda"),
            replace(GROUND, device=UNUSED),
            "device",
            "zfs",
            {"source": "/dev/sda"},
        ),
        (replace(WISH, source="/dev/sda"), replace(GROUND, device=UNUSED), "device", "btrfs", {"source": "/dev/sda"}),
        (replace(WISH, source="/srv/pool"), ON_BTRFS, "subvolume", "btrfs", {"source": "/srv/pool"}),
        (replace(WISH, path="/srv"), ON_BTRFS, "subvolume", "btrfs", {"source": "/srv/fast"}),
        (replace(WISH, path="/srv"), replace(GROUND, file_system="ext4"), "loop", "btrfs", {"size": "50GiB"}),
        (replace(WISH, path="/srv"), replace(ON_ZFS, file_system="zfs"), "dataset", "zfs", {"source": "rpool/fast"}),
        (replace(WISH, path="/srv", driver="zfs"), ON_BTRFS, "loop", "zfs", {"size": "50GiB"}),
        (
            replace(WISH, path="/srv", device="/dev/sda"),
            replace(ON_BTRFS, device=UNUSED),
            "device",
            "btrfs",
            {"source": "/dev/sda"},
        ),
        (replace(WISH, dataset="tank/incus"), GROUND, "dataset", "zfs", {"source": "tank/incus"}),
        (
            replace(WISH, source="tank/incus"),
            replace(GROUND, dataset=EMPTY),
            "dataset",
            "zfs",
            {"source": "tank/incus"},
        ),
        (replace(WISH, dataset="tank/incus", path="/srv"), ON_BTRFS, "subvolume", "btrfs", {"source": "/srv/fast"}),
        (WISH, ON_ZFS, "dataset", "zfs", {"source": "rpool/fast"}),
        (replace(WISH, driver="btrfs"), ON_ZFS, "loop", "btrfs", {"size": "50GiB"}),
        (replace(WISH, path="/srv"), replace(ON_BTRFS, loop_file="/x/fast.img"), "subvolume", "btrfs", None),
    ],
)
def test_place(wish: Wish, ground: Ground, kind: str, driver: str, config: Mapping[str, str] | None) -> None:
    locate.check(wish)
    location = locate.choose(wish, ground)
    assert (location.kind, location.driver) == (kind, driver)
    assert config is None or location.config == config
    assert location.why


@pytest.mark.parametrize(
    ("wish", "ground", "said"),
    [
        (replace(WISH, device="/dev/sda"), GROUND, "There is no block device /dev/sda"),
        (replace(WISH, device="/dev/sda"), replace(GROUND, device=USED), "not empty: ext4"),
        (replace(WISH, source="/dev/sda"), replace(GROUND, device=USED), "not empty: ext4"),
        (replace(WISH, source="/srv/x"), replace(GROUND, file="/srv/x"), "/srv/x is a file"),
        (replace(WISH, path="/srv"), replace(ON_BTRFS, file="/srv"), "/srv is a file"),
        (replace(WISH, source="/srv/x"), replace(GROUND, file_system="ext4"), "its file system is ext4"),
        (replace(WISH, source="/srv/x"), replace(ON_BTRFS, path_exists=True), "/srv/x exists already"),
        (replace(WISH, source="/srv/x", driver="zfs"), ON_BTRFS, "driver zfs wants a dataset"),
        (replace(WISH, source="/var/lib/incus/x"), ON_BTRFS, "begins like the daemon's own folder"),
        (replace(WISH, path="/var/lib/incus-pools"), ON_BTRFS, "begins like the daemon's own folder"),
        (replace(WISH, dataset="tank/incus"), replace(GROUND, dataset=FULL), "tank/incus is not empty"),
        (WISH, replace(GROUND, free=Size(4 * GIB.bytes)), "wants a loop file of 5GiB, but"),
        (replace(WISH, size="200GiB"), GROUND, "has only 100.0 GiB free"),
        (replace(WISH, size="0"), GROUND, "the smallest is 128MiB"),
        (WISH, replace(GROUND, drivers=frozenset({"dir"})), "Install btrfs-progs"),
        (replace(WISH, driver="zfs"), replace(GROUND, drivers=frozenset({"dir"})), "check `modprobe zfs`"),
        (WISH, replace(GROUND, loop_file="/d/fast.img"), "/d/fast.img exists, but no pool uses it"),
        (replace(WISH, path="/srv"), replace(ON_BTRFS, mount_point="/d/fast"), "/d/fast exists, but no pool uses it"),
    ],
)
def test_no_place(wish: Wish, ground: Ground, said: str) -> None:
    with pytest.raises(CowError) as refusal:
        locate.choose(wish, ground)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (replace(WISH, name="-x"), "'-x' cannot be"),
        (replace(WISH, driver="ext4"), "'ext4' is not a driver"),
        (replace(WISH, size="many"), "'many' is not a size"),
        (replace(WISH, size="x%"), "'x%' is not a size"),
        (replace(WISH, size="101%"), "more than the whole"),
        (replace(WISH, path="srv"), "'srv' is not an absolute path"),
        (replace(WISH, device="/dev/../etc"), "is not an absolute path"),
        (replace(WISH, source="/srv/"), "is not an absolute path"),
        (replace(WISH, driver="btrfs", source="tank/x"), "'tank/x' is not an absolute path"),
        (replace(WISH, driver="dir", source="tank/x"), "'tank/x' is not an absolute path"),
        (replace(WISH, source="tank//x"), "is not a dataset"),
        (replace(WISH, dataset="-x"), "is not a dataset"),
    ],
)
def test_what_cannot_be_meant(wish: Wish, said: str) -> None:
    with pytest.raises(CowError) as refusal:
        locate.check(wish)
    assert said in str(refusal.value)


@given(free=st.integers(locate.SMALLEST_LOOP.bytes, 1 << 50), percent=st.integers(3, 100))
def test_a_loop_file_always_fits(free: int, percent: int) -> None:
    ground = replace(GROUND, free=Size(free))
    for wish in (WISH, replace(WISH, size=f"{percent}%")):
        location = locate.choose(wish, ground)
        assert locate.LEAST_LOOP <= Size.parse(location.config["size"]) <= ground.free

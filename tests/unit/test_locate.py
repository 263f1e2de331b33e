"""Where a new pool is to live, as a table of wishes against what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
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
EMPTY = Dataset("tank/incus", "filesystem", Size(98304))


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
        (replace(WISH, dataset="tank/incus", path="/srv"), ON_BTRFS, "dataset", "zfs", {"source": "tank/incus"}),
        (WISH, replace(ON_ZFS, dataset=EMPTY), "dataset", "zfs", {"source": "rpool/fast"}),
        (WISH, replace(ON_ZFS, drivers=frozenset({"dir", "btrfs"})), "loop", "btrfs", {"size": "50GiB"}),
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
        (replace(WISH, dataset="tank"), GROUND, "Name a dataset in it for Incus to take: tank/fast"),
        (replace(WISH, source="tank"), GROUND, "Name a dataset in it for Incus to take: tank/fast"),
        (replace(WISH, dataset="tank/incus", driver="btrfs"), GROUND, "to be in the ZFS dataset tank/incus. Name one"),
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
    ("dataset", "said"),
    [
        (replace(EMPTY, below=("tank/incus/c1",)), "is not empty: it holds tank/incus/c1."),
        (replace(EMPTY, files=("letters",)), "is not empty: it holds letters."),
        (replace(EMPTY, referenced=Size(2 << 20)), "is not empty: it holds 2.0 MiB."),
        (replace(EMPTY, kind="volume"), "is not empty: it is a volume."),
    ],
)
def test_a_dataset_with_something_in_it_is_left_alone(dataset: Dataset, said: str) -> None:
    for wish, ground in [
        (replace(WISH, dataset="tank/incus"), GROUND),
        (replace(WISH, source="tank/incus"), GROUND),
        (WISH, ON_ZFS),
    ]:
        with pytest.raises(CowError) as refusal:
            locate.choose(wish, replace(ground, dataset=dataset))
        assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("wish", "ground", "said"),
    [
        (WISH, GROUND, ""),
        (replace(WISH, path="/srv"), ON_BTRFS, ""),
        (replace(WISH, path="/srv", dataset="tank/incus"), GROUND, ""),
        (replace(WISH, path=locate.DEFAULT_PATH), replace(GROUND, file_system="ext4"), ""),
        (
            replace(WISH, path="/srv"),
            replace(GROUND, file_system="ext4"),
            (
                "Pool fast is not in /srv, as it is on ext4, not on btrfs. "
                "It is elsewhere: a loop file of 50GiB in /var/lib/incus/disks."
            ),
        ),
        (
            replace(WISH, path="/srv"),
            replace(ON_ZFS, file_system="zfs"),
            "Pool fast is not in /srv, as it is on zfs, not on btrfs. It is elsewhere: a new dataset rpool/fast.",
        ),
        (
            replace(WISH, path="/srv", driver="zfs"),
            ON_BTRFS,
            (
                "Pool fast is not in /srv, as driver zfs takes no path. "
                "It is elsewhere: a loop file of 50GiB in /var/lib/incus/disks."
            ),
        ),
    ],
)
def test_a_path_that_is_passed_over_is_named(wish: Wish, ground: Ground, said: str) -> None:
    assert locate.choose(wish, ground).warning == said


def test_the_path_of_the_role_counts_as_its_default() -> None:
    defaults = Path(__file__).parents[2] / "roles/cow_pool/defaults/main.yml"
    assert yaml.safe_load(defaults.read_text())["cow_pool_path"] == locate.DEFAULT_PATH


@pytest.mark.parametrize(
    ("wish", "ground", "expected"),
    [
        (WISH, GROUND, ""),
        (WISH, ON_ZFS, "rpool/fast"),
        (WISH, replace(ON_ZFS, drivers=frozenset({"dir", "btrfs"})), ""),
        (replace(WISH, dataset="tank/x"), ON_ZFS, "tank/x"),
        (replace(WISH, source="tank/x"), ON_ZFS, "tank/x"),
        (replace(WISH, source="/srv/x"), ON_ZFS, ""),
        (replace(WISH, device="/dev/sda"), ON_ZFS, ""),
        (replace(WISH, driver="btrfs"), ON_ZFS, ""),
    ],
)
def test_the_dataset_that_is_looked_at(wish: Wish, ground: Ground, expected: str) -> None:
    assert locate._dataset(wish, ground) == expected


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

"""incus_storage_pool on a private daemon: where pools are made, what becomes of those that are there."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import needs
from tests.support.ansible import Result
from tests.support.incus_runs import die_after, files, four, refused, run, state, unchanged
from tests.support.incusd import Incusd
from tests.support.loops import btrfs
from tests.support.waiting import until

MODULE = "incus_storage_pool"
PARTITION_TABLE = bytes(446) + bytes([0, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 99, 0, 0, 0]) + bytes(48) + b"\x55\xaa"
ROOT_DISK = {"type": "disk", "path": "/", "pool": "fast"}


@contextmanager
def loop_device(image: Path, size: int = 1 << 30) -> Iterator[str]:
    needs.root("a loop device is made")
    with image.open("wb") as file:
        file.truncate(size)
    device = command("losetup", "--find", "--show", image).strip()
    try:
        yield device
    finally:
        command("losetup", "--detach", device)


def command(*argv: Path | str) -> str:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True, text=True).stdout


def pool(daemon: Incusd, name: str = "fast") -> dict[str, Any]:
    found: dict[str, Any] = daemon.api("GET", f"/1.0/storage-pools/{name}")
    return found


def devices(daemon: Incusd, profile: str = "default", project: str = "default") -> dict[str, Any]:
    found: dict[str, Any] = daemon.api("GET", f"/1.0/profiles/{profile}?project={project}")["devices"]
    return found


def journals(daemon: Incusd) -> list[str]:
    return [path for path in files(daemon) if path.startswith("cowherd/")]


def test_loop_file(incusd: Incusd) -> None:
    runs = four(incusd, MODULE, name="fast", size="1GiB", description="quick")
    assert runs.do["steps"] == [f"create storage pool fast: btrfs, a loop file of 1GiB in {incusd.dir}/disks"]
    assert runs.check["location"] == runs.do["location"]
    assert runs.do["location"]["kind"] == "loop"
    assert runs.check["pool"] is None
    found = runs.again["pool"]
    assert (found["driver"], found["source"]) == ("btrfs", f"{incusd.dir}/disks/fast.img")
    assert (found["size_bytes"], found["can_clone"], found["half_made"]) == (1 << 30, True, False)
    assert pool(incusd)["description"] == "quick"
    assert four(incusd, MODULE, name="fast", state="absent").do["steps"] == ["delete storage pool fast (btrfs)"]
    assert not files(incusd)


def test_directory_when_asked_for_in_words(incusd: Incusd) -> None:
    runs = four(incusd, MODULE, name="fast", driver="dir")
    assert runs.do["location"]["kind"] == "directory"
    assert runs.again["pool"]["can_clone"] is False


def test_new_subvolume_on_the_btrfs_of_a_path(incusd: Incusd, btrfs_folder: Path) -> None:
    path = btrfs_folder / "missing" / "folder"
    runs = four(incusd, MODULE, name="fast", path=path, size="1GiB")
    assert runs.do["location"]["kind"] == "subvolume"
    assert pool(incusd)["config"]["source"] == f"{path}/fast"
    command("btrfs", "subvolume", "show", path / "fast")
    unchanged(incusd, MODULE, name="fast", source=path / "fast")
    message = refused(incusd, MODULE, name="fast", source=btrfs_folder / "elsewhere")
    assert f"has source {path}/fast, wanted is {btrfs_folder}/elsewhere" in message
    incusd.clean()


def test_exact_source_on_btrfs(incusd: Incusd, btrfs_folder: Path) -> None:
    runs = four(incusd, MODULE, name="fast", source=btrfs_folder / "new" / "pool")
    assert runs.again["pool"]["source"] == str(btrfs_folder / "new" / "pool")
    (btrfs_folder / "there").mkdir()
    (btrfs_folder / "link").symlink_to("nowhere")
    (btrfs_folder / "file").touch()
    for name in ("there", "link"):
        assert "exists already" in refused(incusd, MODULE, name="other", source=btrfs_folder / name)
    assert "is a file" in refused(incusd, MODULE, name="other", source=btrfs_folder / "file")
    assert "is a file" in refused(incusd, MODULE, name="other", path=btrfs_folder / "file" / "below")
    incusd.clean()


def test_path_that_incus_takes_for_its_own_is_refused(incusd: Incusd, tmp_path: Path) -> None:
    beside = Path(f"{incusd.dir}-pools")
    with btrfs(tmp_path / "image", beside):
        message = refused(incusd, MODULE, name="fast", path=beside)
    beside.rmdir()
    assert f"begins like the daemon's own folder {incusd.dir}" in message


def test_path_not_on_btrfs_gives_a_loop_file_or_is_refused_as_source(incusd: Incusd) -> None:
    assert "neither a block device nor on btrfs" in refused(incusd, MODULE, name="fast", source="/proc/pool")
    assert run(incusd, MODULE, name="fast", path="/proc", size="1GiB", check=True)["location"]["kind"] == "loop"


def test_unused_device(incusd: Incusd, tmp_path: Path) -> None:
    with loop_device(tmp_path / "disk") as device:
        runs = four(incusd, MODULE, name="fast", device=device)
        assert runs.do["location"] == {"kind": "device", "why": f"{device} (1.0 GiB) is unused"}
        assert runs.again["pool"]["initial_source"] == device
        unchanged(incusd, MODULE, name="fast", source=device)
        assert "btrfs (filesystem)" in refused(incusd, MODULE, name="other", device=device)
        incusd.clean()


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda device: command("mkfs.ext4", "-q", device), "ext4 (filesystem)"),
        (lambda device: command("mkswap", device), "swap"),
        (lambda device: Path(device).write_bytes(PARTITION_TABLE), "a dos partition table"),
    ],
    ids=["ext4", "swap", "partition table"],
)
def test_used_device_is_refused(incusd: Incusd, tmp_path: Path, fill: Callable[[str], Any], said: str) -> None:
    image = tmp_path / "disk"
    with loop_device(image, 64 << 20) as device:
        fill(device)
        before = image.read_bytes()
        message = refused(incusd, MODULE, name="fast", device=device)
        assert f"The device {device} is not empty: " in message
        assert said in message
        assert refused(incusd, MODULE, name="fast", source=device) == message
        assert image.read_bytes() == before


def test_mounted_device_is_refused(incusd: Incusd, tmp_path: Path) -> None:
    with loop_device(tmp_path / "disk", 64 << 20) as device:
        command("mkfs.ext4", "-q", device)
        (tmp_path / "mounted").mkdir()
        command("mount", device, tmp_path / "mounted")
        try:
            assert f"mounted on {tmp_path}/mounted" in refused(incusd, MODULE, name="fast", device=device)
        finally:
            command("umount", tmp_path / "mounted")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "50 parsecs"}, "'50 parsecs' is not a size"),
        ({"size": "many%"}, "'many%' is not a size"),
        ({"size": "200%"}, "more than the whole"),
        ({"size": "1EiB"}, "wants a loop file of 1EiB, but"),
        ({"size": "1MiB"}, "wants a loop file of 1MiB, and the smallest is 128MiB"),
        ({"driver": "ext4"}, "'ext4' is not a driver"),
        ({"name": "-x"}, "'-x' cannot be the name of a storage pool"),
        ({"name": "a/b"}, "'a/b' cannot be the name of a storage pool"),
        ({"name": "../x"}, "cannot be the name of a storage pool"),
        ({"source": "/etc/hostname"}, "/etc/hostname is a file"),
        ({"path": "/etc/hostname"}, "/etc/hostname is a file"),
        ({"path": "somewhere/../else"}, "not an absolute path"),
        ({"device": "/dev/none"}, "There is no block device /dev/none"),
        ({"device": "/etc"}, "There is no block device /etc"),
        ({"driver": "btrfs", "source": "tank/pool"}, "'tank/pool' is not an absolute path"),
        ({"driver": "zfs", "source": "tank/pool@x"}, "is not a dataset"),
        ({"config": {"size": "1GiB"}}, "Give it as the option size of its own"),
        ({"config": {"user.list": [1, 2]}}, "The value of user.list of pool fast is [1, 2]"),
        ({"siz": "1GiB"}, "Unsupported parameters"),
    ],
)
def test_bad_input(incusd: Incusd, options: dict[str, Any], said: str) -> None:
    before = state(incusd)
    result = run(incusd, MODULE, **{"name": "fast", **options})
    assert said in result["msg"]
    assert state(incusd) == before


def test_driver_that_the_daemon_does_not_have(incusd: Incusd) -> None:
    if "zfs" in str(incusd.api("GET", "/1.0")["environment"]["storage_supported_drivers"]):
        pytest.skip("needs a daemon without zfs")
    message = refused(incusd, MODULE, name="fast", driver="zfs", size="1GiB")
    assert "wants the driver zfs, but the daemon offers" in message
    assert "modprobe zfs" in message


def test_leftovers_are_not_overwritten(incusd: Incusd, btrfs_folder: Path) -> None:
    image, folder = incusd.dir / "disks/fast.img", incusd.dir / "storage-pools/fast"
    image.write_bytes(b"all that is left of a pool")
    assert f"{image} exists, but no pool uses it" in refused(incusd, MODULE, name="fast", size="1GiB")
    assert image.read_bytes() == b"all that is left of a pool"
    assert run(incusd, MODULE, name="fast", path=btrfs_folder, check=True)["changed"]
    image.unlink()
    (folder / "containers" / "c1").mkdir(parents=True)
    assert f"{folder} exists" in refused(incusd, MODULE, name="fast", driver="dir")
    assert (folder / "containers" / "c1").is_dir()
    subprocess.run(["rm", "-r", folder], check=True)


def test_growth(incusd: Incusd) -> None:
    run(incusd, MODULE, name="fast", size="1GiB")
    runs = four(incusd, MODULE, name="fast", size="1536MiB", config={"user.a": "b"})
    assert runs.do["steps"] == [
        "grow storage pool fast from 1GiB to 1536MiB",
        "set user.a of storage pool fast",
    ]
    assert (incusd.dir / "disks/fast.img").stat().st_size == 1536 << 20
    assert incusd.api("GET", "/1.0/storage-pools/fast/resources")["space"]["total"] == 1536 << 20
    usage = command("btrfs", "filesystem", "usage", "--raw", incusd.dir / "storage-pools/fast")
    assert str(1536 << 20) in usage.splitlines()[1]
    assert runs.again["pool"]["size_bytes"] == 1536 << 20
    unchanged(incusd, MODULE, name="fast", size="50%")
    unchanged(incusd, MODULE, name="fast", size="1.5GiB")
    assert "has only" in refused(incusd, MODULE, name="fast", size="1EiB")


def test_shrinking_is_drift(incusd: Incusd) -> None:
    run(incusd, MODULE, name="fast", size="1GiB")
    message = refused(incusd, MODULE, name="fast", size="512MiB")
    assert message == (
        "Pool fast is 1GiB, wanted is 512MiB. A loop file is never shrunk: set the size to 1GiB or more."
    )
    reported = unchanged(incusd, MODULE, name="fast", size="512MiB", drift="report")
    assert reported["drift"] == message
    assert message in str(reported["warnings"])


def test_configuration(incusd: Incusd) -> None:
    run(incusd, MODULE, name="fast", size="1GiB", config={"user.a": "1", "user.gone": True})
    before = pool(incusd)["config"]
    options = {"config": {"user.a": 2, "rsync.compression": False, "user.gone": None}, "description": "quick"}
    runs = four(incusd, MODULE, name="fast", **options)
    assert runs.do["steps"] == ["set description, rsync.compression, user.a, user.gone of storage pool fast"]
    assert "user.a: 1\n" in runs.check["diff"][0]["before"]
    assert "user.a: 2\n" in runs.check["diff"][0]["after"]
    expected = {**before, "user.a": "2", "rsync.compression": "false"}
    del expected["user.gone"]
    assert pool(incusd)["config"] == expected
    assert expected["size"] == "1GiB"
    four(incusd, MODULE, name="fast", description="")
    assert pool(incusd)["config"] == expected


def two_projects_on_dir_pool(daemon: Incusd) -> None:
    """An empty `dir` pool, with an image unpacked on it, that root disks of two projects are on."""
    daemon.run("storage", "create", "fast", "dir")
    daemon.run("project", "create", "shop", "-c", "features.profiles=true", "-c", "features.images=false")
    daemon.api("PUT", "/1.0/profiles/default", {"devices": {"root": ROOT_DISK, "other": {"type": "none"}}})
    daemon.api("PUT", "/1.0/profiles/default?project=shop", {"devices": {"disk": {**ROOT_DISK, "size": "5GiB"}}})


def test_empty_dir_pool_is_made_again(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    two_projects_on_dir_pool(incusd)
    incusd.run("image", "import", *busybox_image, "--alias", "busybox")
    before = [devices(incusd), devices(incusd, project="shop")]
    runs = four(incusd, MODULE, name="fast", size="1GiB", recreate_empty=True)
    assert [title.split(":")[0] for title in runs.do["steps"]] == [
        "detach storage pool fast from profile default, shop/default for now",
        "delete the empty storage pool fast (dir)",
        "create storage pool fast",
        "attach storage pool fast to profile default, shop/default again",
    ]
    assert pool(incusd)["driver"] == "btrfs"
    assert [devices(incusd), devices(incusd, project="shop")] == before
    assert not journals(incusd)
    incusd.run("create", "busybox", "c1")
    assert runs.again["pool"]["used_by"]["profiles"] == ["default", "shop/default"]


def test_empty_dir_pool_stays_without_permission(incusd: Incusd) -> None:
    two_projects_on_dir_pool(incusd)
    assert "It is empty: set recreate_empty" in refused(incusd, MODULE, name="fast", size="1GiB")
    leftover = incusd.dir / "disks/fast.img"
    leftover.write_text("of something else")
    assert f"{leftover} exists" in refused(incusd, MODULE, name="fast", size="1GiB", recreate_empty=True)
    leftover.unlink()


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (lambda daemon: daemon.run("create", "--empty", "c1", "-s", "fast"), "holds instances c1"),
        (lambda daemon: daemon.run("storage", "volume", "create", "fast", "data"), "holds volumes data"),
        (
            lambda daemon: (daemon.dir / "storage-pools/fast/containers/lost").mkdir(),
            "holds files that Incus has no record of",
        ),
    ],
    ids=["instance", "volume", "unrecorded"],
)
def test_dir_pool_that_holds_something_stays(incusd: Incusd, fill: Callable[[Incusd], Any], said: str) -> None:
    two_projects_on_dir_pool(incusd)
    fill(incusd)
    message = refused(incusd, MODULE, name="fast", size="1GiB", recreate_empty=True)
    assert f"Pool fast has driver dir and {said}" in message
    assert "wanted is one that clones (btrfs or zfs)" in message
    assert "playbooks/migrate.yml" in message
    reported = unchanged(incusd, MODULE, name="fast", size="1GiB", recreate_empty=True, drift="report")
    assert reported["drift"] == message


def test_another_driver_is_drift(incusd: Incusd) -> None:
    run(incusd, MODULE, name="fast", size="1GiB")
    message = refused(incusd, MODULE, name="fast", driver="dir", recreate_empty=True)
    assert message.startswith("Pool fast has driver btrfs; wanted is dir. It is left as it is.")


def test_half_made_pool_is_finished(incusd: Incusd) -> None:
    image = incusd.dir / "disks/fast.img"
    with subprocess.Popen(
        ["incus", "storage", "create", "fast", "btrfs", "size=2TiB"],
        env=incusd.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as client:
        until(image.exists, every=0.005)
        incusd.kill()
        client.wait()
    incusd.start()
    assert pool(incusd)["status"] != "Created"
    info = run(incusd, "incus_storage_pool_info", name="fast")
    assert info["pools"][0]["half_made"] is True
    moved = image.rename(incusd.dir / "moved.img")
    with btrfs(image, incusd.dir / "lost") as lost:
        command("btrfs", "subvolume", "create", lost / "c1")
    for options in ({"size": "1GiB"}, {"state": "absent"}):
        message = refused(incusd, MODULE, name="fast", **options)
        assert f"{image} is there and holds a btrfs with subvolumes, but pool fast is not in it" in message
    image.write_bytes(b"x" * 8192)
    assert "holds 8.0 KiB of data" in refused(incusd, MODULE, name="fast", size="1GiB")
    moved.rename(image)
    runs = four(incusd, MODULE, name="fast", size="1GiB")
    assert [title.split(":")[0] for title in runs.do["steps"]] == [
        "delete the half-made storage pool fast (btrfs)",
        "create storage pool fast",
    ]
    assert (pool(incusd)["status"], image.stat().st_size) == ("Created", 1 << 30)


def test_unavailable_pool_is_explained(incusd: Incusd) -> None:
    run(incusd, MODULE, name="fast", size="1GiB")
    incusd.run("storage", "volume", "create", "fast", "data")
    image = incusd.dir / "disks/fast.img"
    incusd.shut_down()
    moved = image.rename(incusd.dir / "moved.img")
    incusd.start()
    message = refused(incusd, MODULE, name="fast", size="1GiB")
    assert f"Pool fast is there and holds volumes data, but its status is Unavailable (source {image})" in message
    incusd.shut_down()
    moved.rename(image)
    incusd.start()
    unchanged(incusd, MODULE, name="fast", size="1GiB")


@pytest.mark.parametrize("step", ["detach", "delete", "create", "attach"])
def test_interrupted_recreation_is_finished_by_the_next_run(incusd: Incusd, step: str) -> None:
    two_projects_on_dir_pool(incusd)
    before = [devices(incusd), devices(incusd, project="shop")]
    options = {"name": "fast", "size": "1GiB", "recreate_empty": True}
    die_after(incusd, step, MODULE, **options)
    if step != "attach":
        assert devices(incusd, project="shop") == {}
        assert journals(incusd) == ["cowherd/recreate-pool-fast.json"]
        four(incusd, MODULE, **options)
    assert pool(incusd)["driver"] == "btrfs"
    assert [devices(incusd), devices(incusd, project="shop")] == before
    assert not journals(incusd)


def test_interrupted_between_two_profiles(incusd: Incusd) -> None:
    two_projects_on_dir_pool(incusd)
    before = [devices(incusd), devices(incusd, project="shop")]
    options = {"name": "fast", "size": "1GiB", "recreate_empty": True}
    die_after(incusd, "detach", MODULE, **options)
    incusd.api("PUT", "/1.0/profiles/default?project=shop", {"devices": before[1]})
    die_after(incusd, "detach", MODULE, **options)
    four(incusd, MODULE, **options)
    assert [devices(incusd), devices(incusd, project="shop")] == before


def test_what_was_repaired_by_hand_meanwhile_stays(incusd: Incusd) -> None:
    two_projects_on_dir_pool(incusd)
    incusd.run("storage", "create", "other", "dir")
    options = {"name": "fast", "size": "1GiB", "recreate_empty": True}
    die_after(incusd, "create", MODULE, **options)
    by_hand = {"disk0": {**ROOT_DISK, "pool": "other"}}
    incusd.api("PUT", "/1.0/profiles/default", {"devices": by_hand})
    incusd.run("project", "delete", "shop")
    four(incusd, MODULE, **options)
    assert devices(incusd) == by_hand
    assert not journals(incusd)


def test_damaged_journal_is_refused(incusd: Incusd) -> None:
    two_projects_on_dir_pool(incusd)
    options = {"name": "fast", "size": "1GiB", "recreate_empty": True}
    die_after(incusd, "create", MODULE, **options)
    (journal,) = journals(incusd)
    path = incusd.dir / journal
    path.write_text(path.read_text().replace("shop", "shoe"))
    assert f"The journal {path} is damaged" in refused(incusd, MODULE, **options)
    path.unlink()


def test_two_runs_at_once(incusd: Incusd) -> None:
    results: list[Result] = []

    def make() -> None:
        results.append(run(incusd, MODULE, name="fast", size="1GiB"))

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result["changed"] for result in results) == [False, False, True]


def test_absent(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    unchanged(incusd, MODULE, name="fast", state="absent")
    run(incusd, MODULE, name="fast", size="1GiB")
    incusd.run("image", "import", *busybox_image, "--alias", "busybox")
    incusd.run("create", "busybox", "c1", "-s", "fast")
    assert "in use by instances c1. It stays" in refused(incusd, MODULE, name="fast", state="absent")
    incusd.run("delete", "c1")
    incusd.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast")
    assert "in use by profiles default" in refused(incusd, MODULE, name="fast", state="absent")
    incusd.run("profile", "device", "remove", "default", "root")
    four(incusd, MODULE, name="fast", state="absent")
    assert incusd.api("GET", "/1.0/images")


def test_dir_pool_with_unrecorded_files_is_not_removed(incusd: Incusd) -> None:
    run(incusd, MODULE, name="fast", driver="dir")
    (incusd.dir / "storage-pools/fast/containers/lost").mkdir()
    assert "files that Incus has no record of" in refused(incusd, MODULE, name="fast", state="absent")

"""The private daemon: it runs containers, is clean for each test, and goes away with all that it had."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import images, leftovers, needs, rest
from tests.support.incusd import Incusd, running
from tests.support.waiting import until


def import_image(daemon: Incusd, *files: Path) -> None:
    """Import the image as "busybox"."""
    daemon.run("image", "import", *files, "--alias", "busybox")


@pytest.mark.parametrize("driver", ["dir", "btrfs"])
def test_container_has_network_and_a_shell(incusd: Incusd, busybox_image: tuple[Path, Path], driver: str) -> None:
    """A container of the small image boots, gets an address, answers and stops when asked to."""
    import_image(incusd, *busybox_image)
    incusd.run("storage", "create", "fast", driver)
    incusd.run("launch", "busybox", "c1", "--storage", "fast", "--network", incusd.make_bridge())
    assert until(lambda: incusd.address("c1")).startswith(incusd.subnet.rpartition(".")[0])
    assert incusd.run("exec", "c1", "--", "/bin/sh", "-c", "echo $((6 * 7))") == "42\n"
    incusd.run("stop", "--timeout", "10", "c1")


def test_unified_image_is_accepted(incusd: Incusd, tmp_path: Path) -> None:
    """Incus takes the image in one file too."""
    import_image(incusd, images.busybox_unified(tmp_path))
    assert incusd.api("GET", "/1.0/images/aliases/busybox")["type"] == "container"


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: images.busybox_image(folder)[0],
        lambda folder: images.busybox_image(folder)[1],
        images.busybox_unified,
        images.busybox_rootfs_tar,
    ],
    ids=["metadata", "squashfs", "unified", "rootfs.tar"],
)
def test_image_is_the_same_each_time(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """The fingerprint depends on what is in the image alone."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert make(tmp_path / "one").read_bytes() == make(tmp_path / "two").read_bytes()


def test_clean_daemon_has_nothing(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    """All kinds of objects go, a running and protected instance and those of another project too."""
    import_image(incusd, *busybox_image)
    incusd.run("storage", "create", "fast", "btrfs", "size=256MiB")
    incusd.run("storage", "volume", "create", "fast", "data")
    incusd.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast")
    incusd.run("project", "create", "other")
    incusd.run("storage", "volume", "create", "fast", "data", "--project", "other")
    incusd.run("launch", "busybox", "c1", "-c", "security.protection.delete=true", "--network", incusd.make_bridge())
    incusd.clean()
    for kind in ("instances", "images", "storage-pools"):
        assert not incusd.api("GET", f"/1.0/{kind}?all-projects=true")
    assert incusd.api("GET", "/1.0/projects") == ["/1.0/projects/default"]
    assert incusd.api("GET", "/1.0/profiles/default")["devices"] == {}
    assert not Path("/sys/class/net", incusd.bridge).exists()


def test_clean_survives_a_broken_daemon(incusd: Incusd, busybox_image: tuple[Path, Path]) -> None:
    """A daemon that was killed with a container running is cleaned all the same."""
    import_image(incusd, *busybox_image)
    incusd.run("storage", "create", "fast", "btrfs", "size=256MiB")
    incusd.run("launch", "busybox", "c1", "--storage", "fast", "--network", incusd.make_bridge())
    links = incusd.bridge, incusd.api("GET", "/1.0/instances/c1/state")["network"]["eth0"]["host_name"]
    incusd.kill()
    incusd.clean()
    assert not incusd.api("GET", "/1.0/storage-pools")
    assert not [link for link in links if Path("/sys/class/net", link).exists()]


def test_clean_takes_the_links_of_containers_that_ended_without_a_daemon(
    incusd: Incusd, busybox_image: tuple[Path, Path]
) -> None:
    """It needs no new daemon for that."""
    import_image(incusd, *busybox_image)
    incusd.run("storage", "create", "fast", "btrfs", "size=256MiB")
    incusd.run("launch", "busybox", "c1", "--storage", "fast", "--network", incusd.make_bridge())
    state = incusd.api("GET", "/1.0/instances/c1/state")
    link = Path("/sys/class/net", incusd.bridge, "brif", state["network"]["eth0"]["host_name"])
    incusd.kill()
    os.kill(state["pid"], signal.SIGKILL)
    until(lambda: not Path("/proc", str(state["pid"])).exists())
    incusd.start()
    assert link.exists()
    daemon = incusd.api("GET", "/1.0")["environment"]["server_pid"]
    incusd.clean()
    assert incusd.api("GET", "/1.0")["environment"]["server_pid"] == daemon
    assert not link.exists()


def test_clean_survives_a_broken_pool(incusd: Incusd) -> None:
    """A pool whose file system was taken away from under the daemon is gone too."""
    incusd.run("storage", "create", "fast", "btrfs", "size=256MiB")
    subprocess.run(["umount", incusd.dir / "storage-pools/fast"], check=True)
    (incusd.dir / "disks/fast.img").unlink()
    incusd.clean()
    assert not incusd.api("GET", "/1.0/storage-pools")
    incusd.run("storage", "create", "fast", "btrfs", "size=256MiB")


def test_two_daemons_at_once(incusd: Incusd) -> None:
    """Daemons share nothing, and one that stops leaves nothing."""
    with running() as other:
        for daemon in (incusd, other):
            daemon.run("storage", "create", "fast", "btrfs", "size=256MiB")
            daemon.make_bridge()
        assert incusd.bridge != other.bridge
        with pytest.raises(rest.ApiError) as refused:
            incusd.api("GET", "/1.0/storage-pools/slow")
        assert refused.value.code == 404
    assert not [left for left in leftovers.find() if str(other.dir) in left or other.bridge in left]


def test_leftovers_are_found_and_removed() -> None:
    """What a test leaves is named, and is gone after removal."""
    needs.incus()
    with running() as daemon:
        daemon.run("storage", "create", "fast", "btrfs", "size=256MiB")
        left = "; ".join(left for left in leftovers.find() if str(daemon.dir) in left)
        assert "process" in left
        assert f"mount {daemon.dir}/storage-pools/fast" in left
        assert f"folder {daemon.dir}" in left
        leftovers.remove(daemon.dir)
        assert not [left for left in leftovers.find() if str(daemon.dir) in left]

"""cow_facts on this machine, on real file systems and against a real daemon."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow.incus import daemon

from tests.support import needs
from tests.support.ansible import run_module
from tests.support.incusd import Incusd

MODULE = "cow_facts"


def gathered(**options: Any) -> dict[str, Any]:
    result = run_module(MODULE, {"paths": [], **options})
    assert not result.get("failed"), result
    assert result["changed"] is False
    facts = result["ansible_facts"]["cowherd"]
    assert isinstance(facts, dict)
    return facts


def said(*argv: str | Path) -> str:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def mounted(folder: Path, *mkfs: str) -> Iterator[Path]:
    """A new file system of 512 MiB."""
    needs.root("file systems are mounted")
    needs.program(mkfs[0])
    image, point = folder / "image", folder / "mounted"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    point.mkdir()
    said(*mkfs, image)
    said("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        said("umount", point)


def test_this_machine() -> None:
    facts = gathered(paths=["/"])
    release = platform.freedesktop_os_release()
    assert facts["os"]["id"] == release["ID"]
    assert facts["os"]["codename"] == release.get("VERSION_CODENAME")
    assert facts["os"]["kernel"] == platform.release()
    assert facts["os"]["machine"] == platform.machine()
    assert (facts["service_manager"] == "systemd") == Path("/run/systemd/system").is_dir()
    assert set(facts["file_systems"]["known"]) == {
        line.split("\t")[-1] for line in Path("/proc/filesystems").read_text().splitlines()
    }
    assert facts["tools"]["mke2fs"]["installed"] is (shutil.which("mke2fs") is not None)


def test_architecture_and_packages_are_dpkgs() -> None:
    needs.program("dpkg")
    facts = gathered(packages=["dpkg", "no-such-package"])
    assert facts["os"]["architecture"] == said("dpkg", "--print-architecture")
    version = said("dpkg-query", "--show", "--showformat=${Version}", "dpkg")
    assert facts["packages"] == {"dpkg": version, "no-such-package": None}


def test_what_is_offered_is_asked_for_only_when_something_is_missing() -> None:
    needs.program("apt-cache")
    complete = gathered(packages=["dpkg"])["incus"]
    if not complete["suffices"]:
        pytest.skip("needs incus: it is not installed")
    assert (complete["origin"], complete["available"]) == ("installed", {"release": None, "backports": None})
    offered = gathered(packages=["no-such-package"])["incus"]["available"]
    policy = said("apt-cache", "policy", complete["package"])
    assert any(offered.values()) == ("Packages" in policy)
    assert all(version in policy for version in offered.values() if version)


def test_incus_that_is_too_old() -> None:
    facts = gathered(minimum_version="999")["incus"]
    assert facts["suffices"] is False
    assert facts["origin"] in {"backports", "nowhere", None}


def test_path_that_does_not_exist_is_on_its_ancestors_file_system(btrfs_folder: Path) -> None:
    missing = btrfs_folder / "not" / "there"
    facts = gathered(paths=[str(missing)])["paths"][str(missing)]
    assert facts["file_system"] == "btrfs"
    assert facts["mount_point"] == str(btrfs_folder)
    assert facts["source"] == said("findmnt", "--noheadings", "--output", "SOURCE", btrfs_folder)
    status = os.statvfs(btrfs_folder)
    assert facts["size_bytes"] == status.f_blocks * status.f_frsize
    assert 0 < facts["free_bytes"] < facts["size_bytes"]


@pytest.mark.parametrize(
    ("mkfs", "supported"),
    [
        (("mkfs.btrfs", "--quiet"), True),
        (("mkfs.xfs", "-q", "-m", "reflink=1"), True),
        (("mkfs.xfs", "-q", "-m", "reflink=0"), False),
        (("mke2fs", "-q", "-t", "ext4"), False),
    ],
    ids=["btrfs", "xfs", "xfs without", "ext4"],
)
@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_reflink_is_tried_and_leaves_nothing(
    tmp_path: Path, mkfs: tuple[str, ...], supported: bool, check: bool
) -> None:
    with mounted(tmp_path, *mkfs) as folder:
        before = sorted(folder.rglob("*")), folder.stat().st_mtime_ns
        result = run_module(MODULE, {"paths": [], "reflink_paths": [str(folder)]}, check)
        facts = result["ansible_facts"]["cowherd"]["reflink"][str(folder)]
        assert facts["supported"] is supported
        assert (facts["why_not"] is None) is supported
        assert facts["file_system"] == mkfs[0].removeprefix("mkfs.").replace("mke2fs", "ext4")
        assert (sorted(folder.rglob("*")), folder.stat().st_mtime_ns) == before
        # cp is the judge.
        (folder / "original").write_bytes(b"moo" * 10_000)
        copied = subprocess.run(
            ["cp", "--reflink=always", "original", "copy"], cwd=folder, check=False, capture_output=True
        )
        assert (copied.returncode == 0) is supported


def test_reflink_where_it_may_not_be_tried() -> None:
    facts = gathered(reflink_paths=["/proc/self"])["reflink"]["/proc/self"]
    assert facts["supported"] is False
    assert facts["why_not"]


def test_daemon_that_answers(incusd: Incusd) -> None:
    facts = gathered(socket=str(incusd.socket))["incus"]
    environment = incusd.api("GET", "/1.0")["environment"]
    assert facts["socket"] == {"path": str(incusd.socket), "state": "answers", "why": None}
    assert facts["server"]["version"] == environment["server_version"]
    assert facts["server"]["clustered"] is False
    assert {"btrfs", "dir"} <= set(facts["server"]["storage_drivers"])
    assert facts["daemon"].endswith("/incusd")


def test_socket_that_is_missing(tmp_path: Path) -> None:
    facts = gathered(socket=str(tmp_path / "unix.socket"))["incus"]
    assert (facts["socket"]["state"], facts["server"]) == ("missing", None)


def test_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(tmp_path / "unix.socket"))
    facts = gathered(socket=str(tmp_path / "unix.socket"))["incus"]
    assert facts["socket"]["state"] == "refused"
    assert "down" in facts["socket"]["why"]


def test_socket_that_is_not_for_this_user(tmp_path: Path) -> None:
    needs.root("another user is tried")
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "unix.socket"))
        listening.listen()
        os.seteuid(65534)
        try:
            found = daemon.observe(str(tmp_path / "unix.socket"))
        finally:
            os.seteuid(0)
    assert found.state == "denied"
    assert "incus-admin" in str(found.why)


def test_thing_that_is_not_a_socket(tmp_path: Path) -> None:
    (tmp_path / "unix.socket").write_text("")
    assert gathered(socket=str(tmp_path / "unix.socket"))["incus"]["socket"]["state"] == "refused"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"packages": ["-o"]}, "not the name of a package"),
        ({"path": ["/"]}, "Unsupported parameters"),
    ],
)
def test_bad_input(options: dict[str, Any], sentence: str) -> None:
    result = run_module(MODULE, options)
    assert result["failed"]
    assert sentence in result["msg"]

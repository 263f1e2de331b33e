"""Modules with the Python and the tools of other releases of Debian: without backports, and newer ones."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ansible.module_utils.cow import manifest

from tests.support import debian, leftovers, needs, seeds, trees

FORMATS = {"ext4": "mke2fs", "squashfs": "mksquashfs", "erofs": "mkfs.erofs", "btrfs": "mkfs"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the other Debian sees too."""
    needs.root("a chroot, mounts and loop devices")
    needs.program("mmdebstrap")
    folder = leftovers.new_folder()
    yield folder
    leftovers.remove(folder)


def test_media_and_installations_without_backports(folder: Path) -> None:
    """Its mkfs.btrfs makes no subvolumes of folders."""
    with ExitStack() as stack:
        for name in ("install", "live"):
            stack.enter_context(trees.hostile(folder / name))
        _build_and_install(folder)


def _build_and_install(folder: Path) -> None:
    (folder / "live/more").write_bytes(os.urandom(1 << 20))
    wanted = {name: manifest.of(folder / name) for name in ("install", "live")}
    roots = [
        {"name": "install", "src": str(folder / "install")},
        {"name": "live", "src": str(folder / "live"), "from": "install"},
    ]
    seed, records = str(folder / "seed"), str(folder / "records")
    with debian.unpacked("bookworm", folder) as old:
        assert "v6.2" in old.run("mkfs.btrfs", "--version")
        image = old.four_runs("live_image", {"path": seed, "level": 1, "roots": roots}).do["image"]
        assert image["method"] == "loop"
        assert old.module("live_image", {"path": seed, "state": "verified"})["verified"]
        one_root = old.module("live_image", {"path": f"{seed}.one", "level": 1, "roots": roots[:1]})["image"]
        assert (one_root["method"], "mkfs.btrfs 6.2 does not" in one_root["why"]) == ("loop", True)
        for target, options in (("btrfs", {"metadata": "dup", "label": "box"}), ("ext4", {"filesystem": "ext4"})):
            arguments = {"seed": seed, "root": "live", "target": str(folder / target), "size": "600MiB", **options}
            old.four_runs("seed_install", {**arguments, "records": records})
            with seeds.mounted(folder / target, folder / "point") as root:
                assert not manifest.differences(wanted["live"], seeds.without_lost_found(manifest.of(root)))


@pytest.mark.parametrize("kind", FORMATS)
def test_images_with_newer_tools(folder: Path, kind: str) -> None:
    source = _tree(folder / "source")
    _add_what_is_kept(source, kind)
    wanted = manifest.of(source)
    image = folder / "image"
    with debian.unpacked("trixie", folder) as new:
        arguments = {"path": str(image), "src": str(source), "format": kind, "verity": True, "purge": []}
        built = new.four_runs("rootfs_image", arguments).do["image"]
        assert built["method"] == FORMATS[kind]
        assert built["lost"] == []
        verified = {"path": str(image), "state": "verified", "root_hash": built["verity"]["root_hash"]}
        assert not new.module("rootfs_image", verified)["changed"]
        before = image.read_bytes()
        new.module("rootfs_image", {**arguments, "rebuild": True})
        assert (image.read_bytes() == before) == (kind != "btrfs")
        assert kind != "erofs" or built["compressor"] == "zstd"
    with seeds.mounted(image, folder / "point") as root:
        assert not manifest.differences(wanted, seeds.without_lost_found(manifest.of(root)))


def test_the_fault_of_newer_mke2fs_with_large_files_is_gone_around(folder: Path) -> None:
    source = _tree(folder / "source")
    with (source / "large").open("wb") as file:
        file.seek(2 << 30)
        file.write(b"beyond")
    wanted = manifest.of(source)
    with debian.unpacked("trixie", folder) as new:
        arguments = {"path": str(folder / "image"), "src": str(source), "format": "ext4", "purge": []}
        built = new.four_runs("rootfs_image", arguments).do["image"]
        assert built["method"] == "loop"
        assert "2 GiB" in built["why"]
        refused = new.module("rootfs_image", {**arguments, "path": str(folder / "other"), "method": "mke2fs"})
        assert refused["failed"]
        assert "2 GiB" in refused["msg"]
    with seeds.mounted(folder / "image", folder / "point") as root:
        assert not manifest.differences(wanted, seeds.without_lost_found(manifest.of(root)))


def _add_what_is_kept(folder: Path, kind: str) -> None:
    """A name as long as can be, which erofs bears since 1.6, and what not all formats keep."""
    (folder / ("x" * 255)).write_text("long")
    if kind != "squashfs":
        os.setxattr(folder / "d1/file1", "system.posix_acl_access", trees.acl(77))
        os.setxattr(folder / "d2", "system.posix_acl_default", trees.acl(77, default=True))
    if kind != "btrfs":
        os.mknod(folder / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in (folder / ("x" * 255), folder / "null", folder):
        if path.exists():
            os.utime(path, (1_600_000_000, 1_600_000_000))


def _tree(folder: Path) -> Path:
    """A tree of which each format keeps all."""
    for number in range(200):
        path = folder / f"d{number % 7}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(number * 97) + bytes(number * 50))
    (folder / "second").hardlink_to(folder / "d0/file7")
    (folder / "link").symlink_to("d0/file7")
    for number, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number), follow_symlinks=False)
    os.utime(folder, (1_600_000_000, 1_600_000_000))
    return folder

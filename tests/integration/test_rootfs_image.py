"""Images of real trees in every format, mounted and compared with what they were made from."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ansible.module_utils.cow import btrfs, lock, manifest
from ansible.module_utils.cow.errors import Busy
from ansible.module_utils.cow.image import record, resource
from ansible.module_utils.cow.image.purge import Purge
from ansible.module_utils.cow.journal import Journal
from ansible.module_utils.cow.manifest import Manifest
from ansible.module_utils.cow.tree import Entry, Tree

from tests.support import loops, needs, seeds, trees, waiting
from tests.support.ansible import ROOT, Result, disturb_module, four_runs, run_module
from tests.support.incusd import Incusd

MODULE = "rootfs_image"
FORMATS = ("ext4", "squashfs", "erofs", "btrfs")
SAME_BYTES = ("ext4", "squashfs", "erofs")
"""Those of which the same input gives the same bytes; released tools draw other UUIDs for btrfs each time."""
SECOND = 10**9

pytestmark = pytest.mark.usefixtures("tools")


@pytest.fixture(scope="module")
def tools() -> None:
    needs.root("images are mounted")
    for program in ("mke2fs", "mksquashfs", "mkfs.erofs", "mkfs.btrfs", "veritysetup", "openssl"):
        needs.program(program)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree that looks like a system."""
    return plain(tmp_path / "source")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    with seeds.memory(tmp_path) as folder:
        yield folder


def plain(folder: Path) -> Path:
    for name in ("etc/ssh", "var/cache", "var/lib/dbus", "tmp", "usr/bin"):
        (folder / name).mkdir(parents=True)
    (folder / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (folder / "etc/hostname").write_text("host\n")
    (folder / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (folder / "etc/ssh/ssh_host_rsa_key").write_text("secret\n")
    (folder / "etc/ssh/sshd_config").write_text("Port 22\n")
    (folder / "tmp/junk").write_text("junk\n")
    (folder / "usr/bin/program").write_bytes(bytes(range(256)) * 4000)
    (folder / "usr/bin/noise").write_bytes(os.urandom(1 << 20))
    os.link(folder / "usr/bin/program", folder / "usr/bin/again")
    for number, path in enumerate(sorted(folder.rglob("*"), reverse=True)):
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number), follow_symlinks=False)
    return folder


def run(path: Path, *, check: bool = False, **options: Any) -> Result:
    return run_module(MODULE, {"path": str(path), **options}, check)


def built(path: Path, **options: Any) -> Result:
    result = run(path, **options)
    assert not result.get("failed"), result.get("msg")
    assert not Path(path.parent, f".{path.name}.cowherd-build").exists()
    return result


def refused(path: Path, **options: Any) -> str:
    """The message of a run that has to fail and to leave everything as it was."""
    before = listing(path.parent)
    result = run(path, **options)
    assert result.get("failed"), result
    assert listing(path.parent) == before, "a run that failed left something, or took something away"
    return str(result["msg"])


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    status = {str(path): path.lstat() for path in folder.iterdir()}
    return {name: (found.st_ino, found.st_size, found.st_mtime_ns) for name, found in status.items()}


@contextmanager
def opened(image: Path, point: Path, **options: str) -> Iterator[Path]:
    point.mkdir(exist_ok=True)
    extra = "," + ",".join(f"{key}={value}" for key, value in options.items()) if options else ""
    subprocess.run(["mount", "-o", f"loop,ro{extra}", image, point], check=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True)
        waiting.until(lambda: not subprocess.run(["losetup", "-j", image], capture_output=True, check=True).stdout)


def check_file_system(image: Path, kind: str) -> None:
    """The format's own check finds nothing."""
    commands = {
        "ext4": ["e2fsck", "-f", "-n", image],
        "squashfs": ["unsquashfs", "-lln", image],
        "erofs": ["fsck.erofs", image],
        "btrfs": ["btrfs", "check", "--readonly", "--check-data-csum", image],
    }
    finished = subprocess.run(commands[kind], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def as_kept(
    found: Manifest, *, flags: bool, fractions: bool, acls: bool, symlinks: bool = True, devices: bool = True
) -> Manifest:
    """A tree as a format that keeps less holds it."""

    def entry(each: Entry) -> Entry:
        return each._replace(
            flags=each.flags if flags else 0,
            mtime_ns=each.mtime_ns if fractions else each.mtime_ns // SECOND * SECOND,
            rdev=each.rdev if devices else 0,
            xattrs=tuple(pair for pair in each.xattrs if acls or not pair[0].startswith(b"system.")),
        )

    kept = [entry(each) for each in found.tree.entries if not each.path.startswith(b"lost+found")]
    if not symlinks:
        kept = [each._replace(links=1) if stat.S_ISLNK(each.mode) else each for each in kept]
    return Manifest(Tree(found.tree.root, tuple(kept), 0), found.contents)


KEPT = {
    "mke2fs": {"flags": False, "fractions": False, "acls": True, "symlinks": False},
    "loop": {"flags": True, "fractions": True, "acls": True},
    "shrink": {"flags": True, "fractions": True, "acls": True},
    "mksquashfs": {"flags": False, "fractions": False, "acls": False},
    "mkfs.erofs": {"flags": False, "fractions": True, "acls": True},
    "mkfs": {"flags": False, "fractions": False, "acls": True, "devices": False},
}


def same_as_source(image: Path, kind: str, source: Manifest, result: Result, point: Path) -> None:
    check_file_system(image, kind)
    kept = KEPT[result["image"]["method"]]
    with opened(image, point) as root:
        assert manifest.differences(as_kept(source, **kept), as_kept(manifest.of(root), **kept)) == []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manifest]:
    """Everything that an image can lose, also names and paths that are too long for most programs."""
    place = tmp_path_factory.mktemp("hostile")
    trees.make_hostile(place / "tree", seed=5, depth=60)
    # Whole gigabytes of holes take squashfs and erofs minutes.
    os.truncate(place / "tree/sparse", 64 << 20)
    # The kernel hides the attributes that belong to overlays from them.
    os.removexattr(place / "tree/capable", "trusted.overlay.opaque")
    time.sleep(2.1)  # until no later change could leave the same time
    yield manifest.of(place / "tree")
    trees.let_go(place)
    shutil.rmtree(place)


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("ext4", "auto"),
        ("ext4", "loop"),
        ("ext4", "shrink"),
        ("squashfs", "auto"),
        ("erofs", "auto"),
        ("btrfs", "auto"),
        ("btrfs", "mkfs"),
    ],
)
def test_an_image_has_all_that_the_tree_has(hostile: Manifest, tmp_path: Path, kind: str, method: str) -> None:
    image = tmp_path / "image"
    # mkfs.erofs 1.5 cannot store them; that they are left out goes through an overlay.
    left_out = Purge(("odd/" + "?" * 255,)) if kind == "erofs" else Purge(())
    wanted = left_out.applied_to_manifest(hostile)
    result = built(image, src=str(hostile.tree.root), format=kind, method=method, purge=list(left_out.patterns))
    same_as_source(image, kind, wanted, result, tmp_path / "mounted")
    assert result["image"]["tries"] == 1
    assert manifest.differences(hostile, manifest.of(hostile.tree.root)) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_four_runs(source: Path, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    arguments = {"path": str(image), "src": str(source), "format": kind, "verity": True}
    runs = four_runs(MODULE, arguments, state=lambda: (listing(tmp_path), manifest.of(source).digest))
    assert runs.do["image"]["inodes"] == 18 - 3
    assert runs.again["image"] == runs.do["image"]
    assert image.stat().st_mode & 0o777 == 0o600
    first = image.read_bytes()
    result = built(image, src=str(source), format=kind, verity=True, rebuild=True)
    assert result["changed"]
    assert bool(result["image"]["varies"]) == (kind not in SAME_BYTES)
    assert (image.read_bytes() == first) == (kind in SAME_BYTES)
    same = ("bytes", "fingerprint", "uuid", "source_date_epoch")
    assert {key: result["image"][key] for key in same} == {key: runs.do["image"][key] for key in same}
    left = Purge(tuple(result["invocation"]["module_args"]["purge"])).applied_to_manifest(manifest.of(source))
    same_as_source(image, kind, left, result, tmp_path / "mounted")


@pytest.mark.parametrize("kind", SAME_BYTES)
def test_a_copy_of_the_tree_gives_the_same_bytes(source: Path, tmp_path: Path, kind: str) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    copy.parent.mkdir()
    # In another order, so that the folders of the copy list their names otherwise.
    copy.mkdir()
    names = sorted((path.relative_to(source) for path in source.rglob("*")), reverse=True)
    listed = b"\0".join(os.fsencode(f"./{name}") for name in [*names, ""])
    pack = ["tar", "-C", source, "-c", "--no-recursion", "--null", "-T", "-"]
    packed = subprocess.run(pack, input=listed, stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "-C", copy, "-x", "-p", "--delay-directory-restore"], input=packed, check=True)
    shutil.copystat(source, copy)
    for path, name, seed in ((source, "one", 1), (copy, "two", 2)):
        arguments = {"path": str(tmp_path / name), "src": str(path), "format": kind}
        assert run_module(MODULE, arguments, within=("env", f"PYTHONHASHSEED={seed}"))["changed"]
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_purged_is_in_the_source_still(source: Path, tmp_path: Path, kind: str) -> None:
    before = manifest.of(source)
    result = built(tmp_path / "image", src=str(source), format=kind)
    default = Purge(tuple(result["invocation"]["module_args"]["purge"])).applied_to_manifest(before)
    same_as_source(tmp_path / "image", kind, default, result, tmp_path / "mounted")
    with opened(tmp_path / "image", tmp_path / "mounted") as root:
        assert (root / "etc/machine-id").read_bytes() == b""
        assert (root / "etc/ssh/sshd_config").exists()
        for gone in ("etc/ssh/ssh_host_rsa_key", "etc/resolv.conf", "tmp/junk"):
            assert not (root / gone).exists()
    assert manifest.differences(before, manifest.of(source)) == []


@pytest.mark.parametrize("kind", FORMATS)
def test_parts_of_overlays_are_kept_where_something_is_purged(source: Path, tmp_path: Path, kind: str) -> None:
    os.mknod(source / "etc/whiteout", 0o20000, os.makedev(0, 0))
    os.setxattr(source / "etc", "trusted.overlay.opaque", b"y")
    before = manifest.of(source)
    result = built(tmp_path / "image", src=str(source), format=kind)
    shown = Purge(tuple(result["invocation"]["module_args"]["purge"])).applied_to_manifest(before)
    same_as_source(tmp_path / "image", kind, shown, result, tmp_path / "mounted")
    assert manifest.differences(before, manifest.of(source)) == []


@pytest.mark.parametrize("purge", [None, []])
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("ext4", "mke2fs"),
        ("ext4", "loop"),
        ("squashfs", "auto"),
        ("erofs", "auto"),
        ("btrfs", "mkfs"),
        ("btrfs", "loop"),
    ],
)
def test_what_is_mounted_in_the_source_is_left_out(
    source: Path, tmp_path: Path, kind: str, method: str, purge: list[str] | None
) -> None:
    """And what is under the mount too; a file that is mounted over another one is the tree's."""
    options = {"src": str(source), "format": kind, "method": method, **({} if purge is None else {"purge": purge})}
    (source / "proc/under").mkdir(parents=True)
    (tmp_path / "hosts").write_text("192.0.2.7 box\n")
    (source / "etc/hosts").touch()
    with seeds.memory(source / "proc") as mounted, bound(tmp_path / "hosts", source / "etc/hosts"):
        (mounted / "large").write_bytes(os.urandom(8 << 20))
        os.chown(mounted, 12, 34)
        mounted.chmod(0o1750)
        before = manifest.of(source)
        assert before.tree.mounts == (b"etc/hosts", b"proc")
        result = built(tmp_path / "image", **options)
        shown = Purge(tuple(result["invocation"]["module_args"]["purge"])).applied_to_manifest(before)
        same_as_source(tmp_path / "image", kind, shown, result, tmp_path / "mounted")
        assert manifest.differences(before, manifest.of(source)) == []
    with opened(tmp_path / "image", tmp_path / "mounted") as root:
        assert not list((root / "proc").iterdir())
        assert (root / "etc/hosts").read_text() == "192.0.2.7 box\n"


@contextmanager
def bound(what: Path, point: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", what, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.parametrize(
    ("kind", "method"), [("squashfs", "auto"), ("ext4", "loop"), ("erofs", "auto"), ("btrfs", "auto")]
)
def test_what_has_flags_is_purged_too(source: Path, tmp_path: Path, kind: str, method: str) -> None:
    """What is left keeps them, where the image has flags: a folder, and another name of what is purged."""
    os.link(source / "etc/resolv.conf", source / "usr/resolv.conf")
    (source / "tmp/folder").mkdir()
    (source / "tmp/folder/file").touch()
    subprocess.run(["chattr", "+i", source / "etc/resolv.conf", source / "etc/machine-id"], check=True)
    subprocess.run(["chattr", "+a", source / "tmp/folder", source / "etc"], check=True)
    try:
        before = manifest.of(source)
        images = tmp_path / "images"
        images.mkdir()
        result = built(images / "image", src=str(source), format=kind, method=method)
        shown = Purge(tuple(result["invocation"]["module_args"]["purge"])).applied_to_manifest(before)
        assert {b"etc", b"usr/resolv.conf", b"etc/machine-id"} == {
            entry.path for entry in shown.tree.entries if entry.flags
        }
        same_as_source(images / "image", kind, shown, result, tmp_path / "mounted")
        assert manifest.differences(before, manifest.of(source)) == []
    finally:
        trees.let_go(source)


def test_flags_do_not_keep_what_is_left_from_being_removed(source: Path, tmp_path: Path) -> None:
    os.mknod(source / "etc/whiteout", 0o20000, os.makedev(0, 0))
    left = tmp_path / ".image.cowherd-build"
    subprocess.run(["cp", "-a", source, left], check=True)
    subprocess.run(["chattr", "+i", source / "usr/bin/program", left / "etc/hostname", left / "etc"], check=True)
    try:
        assert built(tmp_path / "image", src=str(source), format="squashfs")["steps"][0].startswith("remove")
    finally:
        trees.let_go(tmp_path)


def test_a_change_of_the_content_is_named(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    built(image, src=str(source), format="squashfs")
    (source / "etc/hostname").write_text("another\n")
    result = built(image, src=str(source), format="squashfs", preset="fast")
    after = result["diff"][0]["after"]
    assert "etc/hostname has size 8 instead of 5" in after
    assert "option preset: fast" in after
    (source / "tmp/junk").write_text("what is purged does not matter\n")
    os.utime(source / "tmp", ns=(0, 0))
    built(image, src=str(source), format="squashfs", preset="fast")
    (source / "tmp/junk").write_text("nor does this\n")
    assert not built(image, src=str(source), format="squashfs", preset="fast")["changed"]


def test_a_second_run_reads_no_contents(memory: Path) -> None:
    """Told by the times of access, where the kernel sets them with each read."""
    seeds.run("mount", "-o", "remount,strictatime", memory)
    source, image = plain(memory / "source"), memory / "image"
    files = [path for path in source.rglob("*") if path.is_file()]

    def accessed() -> dict[Path, int]:
        return {path: path.stat().st_atime_ns for path in files}

    time.sleep(2.1)  # until no later change could leave the same time
    for options in ({}, {"rebuild": True}):
        built(image, src=str(source), format="squashfs", **options)
        before = accessed()
        assert not built(image, src=str(source), format="squashfs")["changed"]
        assert accessed() == before
    manifest.of(source)
    assert not set(accessed().items()) & set(before.items()), "a read does not show"


def test_sizes_of_ext4(source: Path, tmp_path: Path) -> None:
    image, point = tmp_path / "image", tmp_path / "mounted"
    options = {"src": str(source), "format": "ext4"}
    minimum = built(image, **options)["image"]["bytes"]
    with opened(image, point) as root:
        assert os.statvfs(root).f_ffree < 16
    built(image, **options, size="+8MiB")
    with opened(image, point) as root:
        free = os.statvfs(root)
        assert 8 << 20 <= free.f_bfree * 4096 <= 9 << 20
        assert free.f_ffree >= 512
    built(image, **options, size="+50%", inodes="+100", reserved_percent=5, journal="4MiB")
    with opened(image, point) as root:
        free = os.statvfs(root)
        assert free.f_bfree * 4096 >= minimum // 2
        assert 100 <= free.f_ffree < 116
        assert free.f_bavail < free.f_bfree
    message = refused(image, **options, size=f"{minimum - 4096}")
    assert f"{minimum} bytes" in message
    assert (
        refused(image, **options, size="1MiB", purge=[])
        == run(image, check=True, **options, size="1MiB", purge=[])["msg"]
    )
    exact = built(image, **options, size=f"{minimum}", packed_meta_blocks=True, label="root")["image"]
    assert (exact["bytes"], image.stat().st_size) == (minimum, minimum)
    check_file_system(image, "ext4")


def test_holes_stay_holes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with (tmp_path / "source/sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.write(b"data")
    result = built(tmp_path / "image", src=str(tmp_path / "source"), format="ext4", size="1GiB")["image"]
    assert result["bytes"] == 1 << 30
    assert result["allocated_bytes"] < 64 << 20
    assert result["minimum_bytes"] < 1 << 20
    with opened(tmp_path / "image", tmp_path / "mounted") as root:
        assert (root / "sparse").stat().st_size == 1 << 30
        assert (root / "sparse").stat().st_blocks == 8


@pytest.mark.parametrize("method", ["mke2fs", "loop", "shrink"])
def test_zeros_that_are_written_take_no_room(tmp_path: Path, method: str) -> None:
    """Such as those of a file for swapping."""
    source, image = tmp_path / "source", tmp_path / "image"
    source.mkdir()
    (source / "swap").write_bytes(bytes(64 << 20))
    with (source / "mixed").open("wb") as file:
        for _ in range(8):
            file.write(bytes(1 << 20) + os.urandom(5000))
    assert (source / "swap").stat().st_blocks * 512 >= 64 << 20
    result = built(image, src=str(source), format="ext4", method=method)
    assert result["image"]["tries"] == 1
    assert result["image"]["bytes"] < 16 << 20
    same_as_source(image, "ext4", manifest.of(source), result, tmp_path / "mounted")


def test_tables_of_free_inodes_are_holes(tmp_path: Path) -> None:
    """And the root has its attributes in an image whose path has a space in it."""
    source, image = tmp_path / "source", tmp_path / "the image"
    source.mkdir()
    (source / "file").write_text("content\n")
    os.setxattr(source, "user.of-the-root", b"value")
    result = built(image, src=str(source), format="ext4", size="20GiB", journal="4MiB")["image"]
    assert result["bytes"] == 20 << 30
    assert result["allocated_bytes"] < 8 << 20
    with opened(image, tmp_path / "mounted") as root:
        assert os.getxattr(root, "user.of-the-root") == b"value"
    check_file_system(image, "ext4")


@pytest.mark.parametrize(
    "name", ["user.x\nea_rm <2> user.kept", "user.x\n!touch {}", "user.with space", 'user."', "user.a\\b", "user.grün"]
)
def test_names_of_attributes_of_the_root_are_no_commands(source: Path, tmp_path: Path, name: str) -> None:
    """They are whatever the tree says, and debugfs would run what is behind the end of a line."""
    proof, image = tmp_path / "proof", tmp_path / "image"
    name = name.format(proof)
    os.setxattr(source, "user.kept", b"kept")
    os.setxattr(source, name, b"value")
    options = {"src": str(source), "format": "ext4", "purge": []}
    message = refused(image, **options, method="mke2fs")
    assert "Choose method loop" in message
    assert repr(name) in message
    assert run(image, check=True, **options, method="mke2fs")["msg"] == message
    result = built(image, **options)
    assert result["image"]["method"] == "loop"
    assert result["image"]["why"] == f"mke2fs cannot write the attribute {name!r} of the root of the tree"
    same_as_source(image, "ext4", manifest.of(source), result, tmp_path / "mounted")
    archive = tmp_path / "root.tar"
    pack = ["tar", "-c", "--format=posix", "--xattrs", "--xattrs-include=*", "-C", source, "-f", archive, "."]
    subprocess.run(pack, check=True)
    assert "Choose method loop" in refused(image, **{**options, "src": str(archive)}, method="mke2fs")
    assert not proof.exists()


def test_the_root_has_its_attributes_where_the_path_of_the_image_is_odd(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted" line of \\'
    folder.mkdir()
    os.setxattr(source, "user.kept", b"kept")
    os.setxattr(source, "user.!#$%&'()*+,-./:;<=>?@[]^_`{|}~", b"also")
    os.setxattr(source, "system.posix_acl_access", trees.acl(77))
    result = built(folder / "image", src=str(source), format="ext4", purge=[])
    assert result["image"]["method"] == "mke2fs"
    same_as_source(folder / "image", "ext4", manifest.of(source), result, tmp_path / "mounted")


def test_ways_of_btrfs(memory: Path) -> None:
    """Without a mount what loses nothing by it; each compressor by both ways, and with a label."""
    source, image, point = plain(memory / "source"), memory / "image", memory / "mounted"
    os.utime(source, (1_700_000_000, 1_700_000_000))
    options = {"src": str(source), "format": "btrfs", "purge": []}
    best = built(image, **options, label="root of all", strict=True)["image"]
    assert (best["method"], best["compressor"], best["level"], best["lost"]) == ("mkfs", "zstd", 3, [])
    assert best["bytes"] == image.stat().st_size == best["minimum_bytes"] < 32 << 20
    probed = subprocess.run(["blkid", "-o", "export", image], capture_output=True, text=True, check=True).stdout
    assert f"LABEL=root\\ of\\ all\nUUID={best['uuid']}\n" in probed
    before = manifest.of(source)
    packed = {}
    for method in ("mkfs", "loop"):
        for compressor in ({}, {"compressor": "none"}, {"compressor": "lzo"}, {"compressor": "zlib", "level": 9}):
            result = built(image, **options, **compressor, method=method)
            same_as_source(image, "btrfs", before, result, point)
            assert result["image"]["compressor"] == compressor.get("compressor", "zstd")
            assert result["image"]["method"] == method
            assert result["image"]["uuid"] == btrfs.superblock(image).uuid
            packed[method, result["image"]["compressor"]] = btrfs.superblock(image).used_bytes
    for method in ("mkfs", "loop"):
        assert all(packed[method, name] < packed[method, "none"] - (900 << 10) for name in ("zstd", "lzo", "zlib"))


def test_what_mkfs_btrfs_lacks_is_said(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    os.utime(source / "etc/hostname", ns=(1, 1))
    os.mknod(source / "etc/null", 0o20666, os.makedev(1, 3))
    with (source / "hole").open("wb") as file:
        file.truncate(2 << 20)
    subprocess.run(["chattr", "+d", source / "etc"], check=True)
    options = {"src": str(source), "format": "btrfs", "purge": []}
    result = built(image, **options, method="mkfs")
    for word in ("fractions of seconds", "flags (chattr)", "device numbers", "holes"):
        assert any(loss.startswith(word) for loss in result["image"]["lost"]), word
    check_file_system(image, "btrfs")
    assert "does not keep fractions of seconds" in refused(image, **options, method="mkfs", strict=True)
    whole = built(image, **options, strict=True)
    assert whole["image"]["why"].startswith("mkfs.btrfs would lose fractions of seconds")
    assert whole["image"]["lost"] == []
    same_as_source(image, "btrfs", manifest.of(source), whole, tmp_path / "mounted")


def test_sizes_of_btrfs(memory: Path) -> None:
    source, image, point = plain(memory / "source"), memory / "image", memory / "mounted"
    (source / "large").write_bytes(os.urandom(100 << 20))
    for path in (source / "large", source):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    options = {"src": str(source), "format": "btrfs", "purge": []}
    minimum = built(image, **options, method="loop")["image"]["minimum_bytes"]
    assert minimum == image.stat().st_size
    content = manifest.of(source)
    for method, size, free in (
        ("auto", "+50%", minimum // 2),
        ("loop", "+64MiB", 64 << 20),
        ("auto", "300MiB", 1 << 27),
    ):
        result = built(image, **options, method=method, size=size)
        assert result["image"]["bytes"] == image.stat().st_size <= 300 << 20
        assert result["image"]["minimum_bytes"] == minimum
        assert result["image"]["uuid"] == btrfs.superblock(image).uuid
        same_as_source(image, "btrfs", content, result, point)
        with seeds.mounted(image, point, "rw"):
            (point / "more").write_bytes(os.urandom(free))
        check_file_system(image, "btrfs")
        image.unlink()
    assert f"its content needs {minimum} bytes" in refused(image, **options, size=f"{minimum - 4096}")
    exact = built(image, **options, size=f"{minimum}")
    assert exact["image"]["bytes"] == minimum
    small = {**options, "compressor": "none", "size": "97MiB"}
    assert "too small" in refused(image, **small)
    assert refused(image, **small) == run(image, check=True, **small)["msg"]


def test_a_btrfs_image_is_built_again_while_the_old_one_is_mounted(memory: Path) -> None:
    """Without a mount it can be; the kernel mounts no two with the same UUID, and btrfstune gives no two the same."""
    source, image, point = plain(memory / "source"), memory / "image", memory / "mounted"
    os.utime(source, (1_700_000_000, 1_700_000_000))
    options = {"src": str(source), "format": "btrfs"}
    first = built(image, **options)["image"]
    with opened(image, point):
        again = built(image, **options, rebuild=True)["image"]
    assert (again["method"], again["uuid"]) == ("mkfs", first["uuid"])
    options["size"] = "128MiB"
    first = built(image, **options)["image"]
    with opened(image, point):
        assert "is mounted or attached" in refused(image, **options, rebuild=True)
    assert built(image, **options, rebuild=True)["image"]["uuid"] == first["uuid"]


def test_slack_of_a_btrfs_image_is_taken_away(memory: Path) -> None:
    """mkfs.btrfs makes room for too much where a lot compresses well."""
    (memory / "source").mkdir()
    for number in range(4):
        (memory / f"source/hex{number}").write_bytes(Random(number).randbytes(20 << 20).hex().encode())
    for path in (*(memory / "source").iterdir(), memory / "source"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    options = {"src": str(memory / "source"), "format": "btrfs", "preset": "fast"}
    plain = built(memory / "plain", **options, method="mkfs")["image"]
    better = built(memory / "better", **options)
    assert "grown anew" in better["image"]["why"]
    assert better["image"]["bytes"] < plain["bytes"] / 1.1
    assert better["image"]["uuid"] == btrfs.superblock(memory / "better").uuid
    same_as_source(memory / "better", "btrfs", manifest.of(memory / "source"), better, memory / "mounted")


def test_an_empty_tree(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    source = manifest.of(tmp_path / "source")
    for kind in FORMATS:
        result = built(tmp_path / kind, src=str(tmp_path / "source"), format=kind)
        same_as_source(tmp_path / kind, kind, source, result, tmp_path / "mounted")


@pytest.fixture(scope="module")
def vast(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Files for which ext4 has more inodes than blocks, and a hole across what 31 bits can count."""
    tree = tmp_path_factory.mktemp("vast") / "tree"
    for folder in range(264):
        (tree / str(folder)).mkdir(parents=True)
        for number in range(250):
            os.mknod(tree / str(folder) / str(number))
    with (tree / "hole").open("wb") as file:
        file.truncate((2 << 30) + 12345)
        for place in (1 << 20, (2 << 30) - 5):
            file.seek(place)
            file.write(b"data on both sides")
    time.sleep(2.1)  # until no later change could leave the same time
    return manifest.of(tree)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_of_a_vast_tree(vast: Manifest, tmp_path: Path, kind: str) -> None:
    image = tmp_path / "image"
    result = built(image, src=str(vast.tree.root), format=kind, preset="fast")
    assert (result["image"]["inodes"], result["image"]["tries"]) == (66_266, 1)
    assert result["image"]["allocated_bytes"] < 128 << 20
    same_as_source(image, kind, vast, result, tmp_path / "mounted")


@pytest.mark.parametrize(("place", "kind"), [("appended", "erofs"), ("beside", "btrfs")])
def test_a_flipped_byte_is_rejected(source: Path, tmp_path: Path, place: str, kind: str) -> None:
    image = tmp_path / "image"
    result = built(image, src=str(source), format=kind, verity=True, verity_tree=place)["image"]
    root_hash = result["verity"]["root_hash"]
    assert not built(image, state="verified", root_hash=root_hash)["changed"]
    assert Path(result["verity"]["tree_path"]) == (image if place == "appended" else tmp_path / "image.verity")
    wrong = ("0" if root_hash[0] != "0" else "1") + root_hash[1:]
    assert "not what the root hash" in refused(image, state="verified", root_hash=wrong)
    with image.open("r+b") as file:
        file.seek(5000)
        byte = file.read(1)[0]
        file.seek(5000)
        file.write(bytes([byte ^ 1]))
    assert "not what the root hash" in refused(image, state="verified", root_hash=root_hash)
    assert "changed since it was built" in refused(image, src=str(source), format=kind, verity=True)
    again = built(image, src=str(source), format=kind, verity=True, verity_tree=place, overwrite=True)
    assert again["changed"]
    assert (again["image"]["verity"]["root_hash"] == root_hash) == (kind in SAME_BYTES)
    built(image, state="verified", root_hash=again["image"]["verity"]["root_hash"])


@pytest.mark.parametrize("place", ["appended", "beside"])
def test_only_what_the_root_hash_vouches_for_is_accepted(source: Path, tmp_path: Path, place: str) -> None:
    """Nobody knows what reads the rest, or takes it for the image."""
    image, tree = tmp_path / "image", tmp_path / ("image" if place == "appended" else "image.verity")
    result = built(image, src=str(source), format="erofs", verity=True, verity_tree=place)["image"]["verity"]
    root_hash, blocks, offset = (result[key] for key in ("root_hash", "data_blocks", "hash_offset"))
    journal, content = Journal(tmp_path / "image.cowherd", record.KIND), image.read_bytes()
    document = journal.read()
    assert document

    def said(**other: Any) -> str:
        journal.write({**document, "verity": {**document["verity"], **other}})
        return refused(image, state="verified", root_hash=root_hash)

    for file in {image, tree}:
        whole = file.read_bytes()
        for more in (b"x", bytes(4096)):
            file.write_bytes(whole + more)
            assert f"{file} has {len(whole) + len(more)} bytes" in said()
        file.write_bytes(whole)
    assert "which is not where it belongs" in said(hash_offset=offset + 4096)
    assert "Do not use it" in said(data_blocks=blocks - 1)
    assert "Do not use it" in said(data_blocks=blocks - 1, hash_offset=offset and offset - 4096)
    assert "not say in numbers" in said(data_blocks=str(blocks))
    # With a block between the data and the hash tree, which the tree does not cover.
    image.write_bytes(content[: blocks * 4096] + os.urandom(4096))
    offset = (blocks + 1) * 4096 if place == "appended" else 0
    made = [f"--salt={result['salt']}", f"--data-blocks={blocks}", f"--hash-offset={offset}"]
    subprocess.run(["veritysetup", "format", *made, image, tree], capture_output=True, check=True)
    verify = ["veritysetup", "verify", f"--hash-offset={offset}", image, tree, root_hash]
    subprocess.run(verify, capture_output=True, check=True)
    assert "Do not use it" in said(hash_offset=offset)
    assert "covers something else" in said(hash_offset=offset, data_blocks=blocks + 1)


def test_a_signature_that_openssl_accepts(source: Path, tmp_path: Path) -> None:
    image, signing = tmp_path / "image", signing_pair(tmp_path, "rsa:2048", "-nodes")
    result = built(image, src=str(source), format="squashfs", verity=True, signing=signing)["image"]
    text = tmp_path / "root-hash"
    text.write_text(result["verity"]["root_hash"])
    verify = ["openssl", "smime", "-verify", "-binary", "-inform", "der", "-noverify", "-content", text]
    signature = ["-in", result["verity"]["signature_path"], "-certfile", signing["certificate"], "-nointern"]
    subprocess.run([*verify, *signature], check=True, capture_output=True)
    text.write_text("0" * 64)
    assert subprocess.run([*verify, *signature], check=False, capture_output=True).returncode != 0
    (tmp_path / "image.roothash.p7s").unlink()
    assert (
        "roothash.p7s is missing"
        in built(image, src=str(source), format="squashfs", verity=True, signing=signing)["steps"][0]
    )


def signing_pair(folder: Path, *request: str) -> dict[str, str]:
    """A key with its certificate, as the module takes them."""
    signing = {"key": str(folder / "key"), "certificate": str(folder / "certificate")}
    files = ["-keyout", signing["key"], "-out", signing["certificate"], "-subj", "/CN=test"]
    subprocess.run(["openssl", "req", "-x509", "-newkey", *request, *files], capture_output=True, check=True)
    return signing


CURVE = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256")


def test_what_cannot_sign_is_found_before_anything_is_read(source: Path, tmp_path: Path) -> None:
    """Check mode says so too."""
    for name in ("one", "another", "locked"):
        (tmp_path / name).mkdir()
    one = signing_pair(tmp_path / "one", *CURVE, "-nodes")
    mixed = {**one, "key": signing_pair(tmp_path / "another", *CURVE, "-nodes")["key"]}
    locked = signing_pair(tmp_path / "locked", *CURVE, "-passout", "pass:secret")
    options = {"src": str(source), "format": "squashfs", "verity": True}
    for signing, why in ((mixed, "private key does not match certificate"), (locked, "without a passphrase")):
        said = refused(tmp_path / "image", **options, signing=signing)
        assert f"cannot be signed with {signing['key']} and {signing['certificate']}: openssl says" in said
        assert why in said
        assert run(tmp_path / "image", check=True, **options, signing=signing)["msg"] == said
    path = {"PATH": str(all_but("openssl", tmp_path / "bin"))}
    arguments = {**options, "path": str(tmp_path / "image"), "signing": one}
    for check in (True, False):
        result = run_module(MODULE, arguments, check, environment=path)
        said = str(result["warnings"] if check else result["msg"])
        assert "openssl is not installed on this host. It is in the package openssl" in said
    assert not list(tmp_path.glob("*image*"))


def all_but(program: str, folder: Path) -> Path:
    """A folder with all programs but one."""
    folder.mkdir()
    for tool in Path("/usr/bin").iterdir():
        if tool.name != program:
            (folder / tool.name).symlink_to(tool)
    return folder


@pytest.mark.parametrize("compression", ["", "--gzip", "--xz", "--zstd"])
def test_an_archive(source: Path, tmp_path: Path, compression: str) -> None:
    archive, image = tmp_path / "root.tar", tmp_path / "image"
    os.setxattr(source / "usr/bin/program", "security.capability", trees.CAPABILITY)
    os.setxattr(source / "etc/hostname", "system.posix_acl_access", trees.acl(77))
    argv = ["tar", "-c", "--format=posix", "--numeric-owner", "--acls", "--xattrs", "--xattrs-include=*", "-C", source]
    subprocess.run([*argv, *filter(None, [compression]), "-f", archive, "."], check=True)
    arguments = {"src": str(archive), "format": "erofs", "purge": []}
    if compression:
        done = built(image, **arguments)
    else:
        done = four_runs(MODULE, {"path": str(image), **arguments}, state=lambda: listing(tmp_path)).do
    same_as_source(image, "erofs", manifest.of(source), done, tmp_path / "mounted")


def test_archives_that_are_none(source: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    image, archive = tmp_path / "images/image", tmp_path / "root.tar"
    image.write_bytes(b"")
    image.unlink()
    subprocess.run(["tar", "-cf", archive, "-C", source, "."], check=True)
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refused(image, src=str(archive), format="squashfs")
    subprocess.run(["tar", "-cPf", archive, "-C", source / "etc", "../etc/hostname"], check=True)
    assert "outside of its root" in refused(image, src=str(archive), format="squashfs")
    outside, packed = tmp_path / "outside", tmp_path / "packed"
    outside.mkdir()
    for target in (str(outside), "../" * 32 + str(outside).lstrip("/"), "../../../outside"):
        packed.mkdir()
        (packed / "way").symlink_to(target)
        subprocess.run(["tar", "-cf", archive, "-C", packed, "way"], check=True)
        (packed / "way").unlink()
        (packed / "way").mkdir()
        (packed / "way/file").write_text("escaped\n")
        subprocess.run(["tar", "-rf", archive, "-C", packed, "way/file"], check=True)
        shutil.rmtree(packed)
        assert "cannot be unpacked" in refused(image, src=str(archive), format="squashfs"), target
        assert not list(outside.iterdir()), target
    archive.write_bytes(os.urandom(100_000))
    assert "neither a tar nor a squashfs" in refused(image, src=str(archive), format="squashfs")
    archive.write_bytes(b"")
    assert "empty file" in refused(image, src=str(archive), format="squashfs")


def test_a_folder_of_an_archive_is_as_its_member_says(source: Path, tmp_path: Path) -> None:
    """Also where something in it comes at the end of the archive, after other folders."""
    archive, image = tmp_path / "root.tar", tmp_path / "image"
    for name, mode, owner in (("home/app", 0o700, 1000), ("var/spool", 0o1777, 7), ("srv/shared", 0o2750, 33)):
        (source / name).mkdir(parents=True)
        (source / name / "late").write_text("appended\n")
        os.chown(source / name, owner, owner + 1)
        (source / name).chmod(mode)
    for path in (*source.rglob("*"), source):
        os.utime(path, (1_600_000_500, 1_600_000_500), follow_symlinks=False)
    pack = ["tar", "--format=posix", "--numeric-owner", "-C", source, "-f", archive]
    subprocess.run([*pack, "-c", "--exclude=late", "."], check=True)
    subprocess.run([*pack, "-r", "./home/app/late", "./var/spool/late", "./srv/shared/late"], check=True)
    result = built(image, src=str(archive), format="erofs", purge=[])
    same_as_source(image, "erofs", manifest.of(source), result, tmp_path / "mounted")


@pytest.mark.parametrize("kind", ["squashfs", "ext4"])
def test_an_archive_without_members_for_its_folders_gives_the_same_bytes(
    source: Path, tmp_path: Path, kind: str
) -> None:
    """The root is such a folder in what `docker export` writes."""
    archive, image = tmp_path / "root.tar", tmp_path / "image"
    subprocess.run(["tar", "-cf", archive, "-C", source, "etc", "usr/bin"], check=True)
    arguments = {"path": str(image), "src": str(archive), "format": kind, "rebuild": True}
    first, second = (
        (run_module(MODULE, arguments, within=("sh", "-c", f'umask {mask}; exec "$@"', "sh")), image.read_bytes())
        for mask in ("022", "077")
    )
    assert first[0]["image"]["source_date_epoch"] == second[0]["image"]["source_date_epoch"] < 1_700_000_000
    assert first[1] == second[1]
    with opened(image, tmp_path / "mounted") as root:
        assert [path.stat().st_mode & 0o7777 for path in (root, root / "usr")] == [0o755, 0o755]
        newest = max(path.stat().st_mtime for path in root.rglob("*"))
        assert root.stat().st_mtime == (root / "usr").stat().st_mtime == newest == second[0]["image"][
            "source_date_epoch"
        ]  # fmt: skip


@pytest.mark.parametrize("program", ["", "gzip", "xz", "zstd", "bzip2"])
def test_an_archive_that_is_cut_short(source: Path, tmp_path: Path, program: str) -> None:
    """Also between two members, in the end mark, and in what the program that compressed it put at the end."""
    archive, image = tmp_path / "root.tar", tmp_path / "images/image"
    image.parent.mkdir()
    subprocess.run(["tar", "-b", "1", "-cf", archive, "-C", source, "."], check=True)
    whole = archive.read_bytes()
    assert whole.endswith(bytes(1024))
    wheres = [len(whole) - 512, len(whole) - 1024, len(whole) // 2]
    if program:
        whole = subprocess.run([program, "-c", archive], capture_output=True, check=True).stdout
        wheres = [len(whole) - 3, len(whole) // 2]
    for where in wheres:
        archive.write_bytes(whole[:where])
        assert "cut short" in refused(image, src=str(archive), format="squashfs"), where
    archive.write_bytes(whole)
    built(image, src=str(archive), format="squashfs")


@pytest.mark.parametrize(("program", "package"), [("zstd", "zstd"), ("xz", "xz-utils")])
def test_the_package_of_a_missing_decompressor_is_named(
    source: Path, tmp_path: Path, program: str, package: str
) -> None:
    archive = tmp_path / "root.tar"
    subprocess.run(["tar", f"--{program}", "-cf", archive, "-C", source, "."], check=True)
    others = all_but(program, tmp_path / "bin")
    arguments = {"path": str(tmp_path / "image"), "src": str(archive), "format": "squashfs"}
    result = run_module(MODULE, arguments, environment={"PATH": str(others)})
    assert f"{program} is not installed on this host. It is in the package {package}" in result["msg"]
    assert not list(tmp_path.glob("*image*"))


def test_a_squashfs_as_source(source: Path, tmp_path: Path) -> None:
    built(tmp_path / "first", src=str(source), format="squashfs")
    result = built(tmp_path / "second", src=str(tmp_path / "first"), format="ext4", purge=["usr"])
    with opened(tmp_path / "second", tmp_path / "mounted") as root:
        assert (root / "etc/hostname").read_text() == "host\n"
        assert not (root / "usr").exists()
    assert result["image"]["inodes"] == 15 - 4


def test_a_squashfs_that_cannot_be_read_gives_no_image(tmp_path: Path) -> None:
    source, first = tmp_path / "source", tmp_path / "first"
    source.mkdir()
    (source / "file").write_text(Random(1).randbytes(1 << 20).hex())
    built(first, src=str(source), format="squashfs", compressor="gzip")
    content = bytearray(first.read_bytes())
    content[300_000:300_100] = bytes(100)
    first.write_bytes(content)
    said = refused(tmp_path / "second", src=str(first), format="squashfs")
    assert "Failed to read file" in said
    assert not (tmp_path / "second").exists()


def test_an_image_an_instance_and_a_snapshot_of_incus(
    incusd: Incusd, busybox_image: tuple[Path, Path], tmp_path: Path
) -> None:
    incusd.run("image", "import", *busybox_image, "--alias", "small")
    incusd.run("storage", "create", "pool", "dir")
    incusd.run("init", "small", "box", "--storage", "pool", "--config", "security.privileged=true")
    incusd.run("snapshot", "create", "box", "first")
    socket = str(incusd.socket)
    point = tmp_path / "mounted"
    for number, what in enumerate(({"image": "small"}, {"instance": "box"}, {"instance": "box", "snapshot": "first"})):
        image = tmp_path / f"image{number}"
        arguments = {"path": str(image), "incus": {"socket": socket, **what}, "format": "squashfs"}
        four_runs(MODULE, arguments, state=lambda: listing(tmp_path))
        with opened(image, point) as root:
            assert (root / "bin/busybox").is_file()
    for what, said in (({"image": "none"}, "no image none"), ({"instance": "none"}, "no instance none")):
        assert said in refused(tmp_path / "other", incus={"socket": socket, **what}, format="squashfs")


def test_a_destination_without_room(source: Path, tmp_path: Path) -> None:
    (source / "large").write_bytes(os.urandom(24 << 20))
    with loops.ext4(tmp_path / "disk", tmp_path / "small", 16 << 20) as small:
        assert "Make room there" in refused(small / "image", src=str(source), format="ext4")
        archive = tmp_path / "source.tar"
        subprocess.run(["tar", "--create", "--file", archive, "--directory", source, "."], check=True)
        said = refused(small / "image", src=str(archive), format="squashfs")
        assert f"What is in {archive} needs {archive.stat().st_size} bytes" in said
        for kind in ("squashfs", "erofs"):
            assert "no room left" in refused(small / "image", src=str(source), format=kind, preset="fast")
        for method in ("mkfs", "loop"):
            message = refused(small / "image", src=str(source), format="btrfs", method=method)
            assert "no room left" in message
            assert "Make room there" in message
        uncompressed = {"src": str(source), "format": "btrfs", "compressor": "none"}
        assert "Make room there" in run(small / "image", check=True, **uncompressed)["msg"]


@pytest.mark.parametrize("method", ["loop", "shrink"])
def test_room_that_runs_out_while_the_kernel_writes(memory: Path, method: str) -> None:
    """What was copied is in its memory by then, and unmounting says nothing of what could not be written."""
    source, image = plain(memory / "source"), memory / "images/image"
    options = {"src": str(source), "format": "ext4", "method": method}
    image.parent.mkdir()
    built(image, **options)
    before = image.read_bytes()
    (source / "large").write_bytes(os.urandom(96 << 20))
    point = image.parent / ".image.cowherd-build/tools/filled"

    def leave_little() -> None:
        waiting.until(point.exists, every=0.001)
        status = os.statvfs(memory)
        taken = (status.f_blocks - status.f_bfree) * status.f_frsize
        seeds.run("mount", "-o", f"remount,size={taken + (24 << 20)}", memory)

    thread = threading.Thread(target=leave_little)
    thread.start()
    message = refused(image, **options)
    thread.join()
    assert "There was no room left while the image was filled" in message
    assert image.read_bytes() == before
    seeds.run("mount", "-o", "remount,size=4g", memory)
    result = built(image, **options)
    left = Purge(tuple(result["invocation"]["module_args"]["purge"])).applied_to_manifest(manifest.of(source))
    same_as_source(image, "ext4", left, result, memory / "mounted")


@pytest.mark.parametrize(
    ("arguments", "tool"),
    [
        ({"format": "ext4", "method": "mke2fs"}, "mke2fs"),
        ({"format": "squashfs", "compressor": "xz"}, "mksquashfs"),
        ({"format": "erofs"}, "mkfs.erofs"),
        ({"format": "btrfs", "method": "mkfs", "preset": "small"}, "mkfs.btrfs"),
        ({"format": "btrfs", "method": "loop", "preset": "small"}, ""),
    ],
)
def test_a_killed_build_leaves_all_as_it_was(tmp_path: Path, arguments: dict[str, Any], tool: str) -> None:
    source, image = tmp_path / "source", tmp_path / "images" / "image"
    source.mkdir()
    image.parent.mkdir()
    (source / "etc").mkdir()
    (source / "etc/machine-id").write_text("0123\n")
    arguments = {"src": str(source), **arguments}
    built(image, **arguments)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in image.parent.iterdir()}
    assert {path.name for path in before} == {"image", "image.cowherd", "image.cowherd.tree"}
    # mkfs.erofs takes long for much less than the others.
    (source / "noise").write_bytes(os.urandom((16 if tool == "mkfs.erofs" else 96) << 20))
    work = image.parent / ".image.cowherd-build"
    filled = work / "tools/filled"

    def is_filled() -> bool:
        return filled.exists() and filled.stat().st_blocks * 512 > 8 << 20

    for number in (signal.SIGTERM, signal.SIGKILL):
        child = start(image, **arguments)
        waiting.until(lambda: any(halted(image, tool)) if tool else is_filled(), every=0.02)
        child.send_signal(number)
        child.wait()
        waiting.until(lambda: not list(tools_in(image, tool)))
        waiting.until(lambda: not subprocess.run(["losetup", "-j", filled], capture_output=True, check=True).stdout)
        assert work.exists() == (number == signal.SIGKILL)
        left = [path for path in image.parent.iterdir() if path != work]
        assert {path: (path.read_bytes(), path.stat().st_ino) for path in left} == before
        assert "cowherd-build" not in Path("/proc/self/mountinfo").read_text()
    # With what needs the least time: what is left is the same whatever was to be built.
    quick = {"squashfs": {"compressor": "lz4"}, "erofs": {"compressor": "lz4"}, "btrfs": {"compressor": "lzo"}}
    runs = four_runs(MODULE, {"path": str(image), **arguments, **quick.get(arguments["format"], {})})
    assert "which a killed build left" in runs.do["steps"][0]
    assert set(image.parent.iterdir()) == set(before)


def test_no_room_for_what_lies_beside(memory: Path) -> None:
    """The image fits, and the list of the source's files does not any more."""
    source, folder = plain(memory / "source"), memory / "images"
    folder.mkdir()
    draw = Random(1)
    for _ in range(4000):
        (source / "var/lib" / draw.randbytes(100).hex()).touch()
    options = {"src": str(source), "format": "squashfs"}
    fits = built(memory / "image", **options)["image"]["bytes"]
    contents = (memory / "image.cowherd.tree").stat().st_size
    assert contents > 256 << 10
    built(folder / "image", **options, purge=["usr/bin/*", "var/lib/*"])
    status = os.statvfs(memory)
    full = (status.f_blocks - status.f_bfree) * status.f_frsize
    seeds.run("mount", "-o", f"remount,size={full + fits + contents // 2}", memory)
    assert "No space left on device" in refused(folder / "image", **options)
    seeds.run("mount", "-o", f"remount,size={full + fits + 2 * contents}", memory)
    built(folder / "image", **options)


def test_too_little_room_for_another_image_like_that_which_is_there_is_said(memory: Path) -> None:
    """Whether the new one needs as much is not known before; here it does not."""
    source, folder = plain(memory / "source"), memory / "images"
    folder.mkdir()
    options = {"src": str(source), "format": "squashfs", "preset": "fast"}
    taken = built(folder / "image", **options)["image"]["allocated_bytes"]
    (source / "usr/bin/noise").write_text("quiet\n")
    status = os.statvfs(memory)
    full = (status.f_blocks - status.f_bfree) * status.f_frsize
    seeds.run("mount", "-o", f"remount,size={full + taken // 2}", memory)
    for other in ({"preset": "small"}, {"purge": []}):
        assert not run(folder / "image", check=True, **{**options, **other}).get("warnings")
    for check in (True, False):
        result = run(folder / "image", check=check, **options)
        assert result["changed"]
        assert "the build fails when the new one needs more" in str(result["warnings"])
    assert not built(folder / "image", **options).get("warnings")


@dataclass(frozen=True)
class Exchange:
    """Two images that take each other's place, the first of them with a signature beside it, both with a hash tree."""

    image: Path
    options: tuple[dict[str, Any], dict[str, Any]]

    def disturbed(self, which: int, change: int, number: signal.Signals) -> tuple[str, str]:
        """Build one with a signal before a change. Return what change that was, and how the run ended."""
        arguments = {"path": str(self.image), **self.options[which]}
        return disturb_module(MODULE, arguments, self.image.parent, change, number)

    def build(self, which: int) -> Result:
        """Build one, or find that it is there, and check it and all that lies beside it."""
        result = built(self.image, **self.options[which])
        beside = ["image.cowherd", "image.cowherd.tree", *([] if which else ["image.roothash.p7s"]), "image.verity"]
        assert sorted(path.name for path in self.image.parent.iterdir()) == ["image", *beside]
        verify = ["veritysetup", "verify", self.image, f"{self.image}.verity", result["image"]["verity"]["root_hash"]]
        subprocess.run(verify, check=True)
        return result


@pytest.fixture
def exchange(source: Path, tmp_path: Path) -> Exchange:
    folder = tmp_path / "images"
    folder.mkdir()
    signing = signing_pair(tmp_path, *CURVE, "-nodes")
    plain = {"src": str(source), "format": "squashfs", "verity": True, "verity_tree": "beside", "preset": "fast"}
    return Exchange(folder / "image", ({**plain, "signing": signing}, plain))


@pytest.mark.parametrize("back", [True, False])
def test_a_kill_between_the_renames_is_made_good_by_the_next_run(exchange: Exchange, back: bool) -> None:
    """Whether that is to build the old image or the new one; nobody has to allow it to replace what is there."""
    there = 0
    exchange.build(there)
    done: list[str] = []
    while True:
        other = 1 - there
        change, ended = exchange.disturbed(other, len(done) + 1, signal.SIGKILL)
        assert ended == ("killed" if change else "done")
        if not change:
            break
        done.append(change)
        there = there if back else other
        exchange.build(there)
    exchange.build(other)
    renames = [change.removeprefix("rename ") for change in done if change.startswith("rename")]
    assert {"image.cowherd", "image.verity"} < set(renames)
    assert renames[-1] == "image"


def test_when_it_is_told_to_end_all_is_changed_or_nothing(exchange: Exchange) -> None:
    there = 0
    exchange.build(there)
    done: list[str] = []
    while "rename image" not in done:
        before = listing(exchange.image.parent)
        change, ended = exchange.disturbed(1 - there, len(done) + 1, signal.SIGTERM)
        done.append(change)
        if change.startswith("mkdir"):
            assert ended == "killed" or ended.endswith("Nothing was changed.")
            assert listing(exchange.image.parent) == before
        else:
            assert ended == "done"
            there = 1 - there
        assert not exchange.build(there)["changed"], change


def start(image: Path, **options: Any) -> subprocess.Popen[bytes]:
    """A run that goes on by itself."""
    child = subprocess.Popen(
        [sys.executable, "-P", ROOT / "tests/support/module_main.py", ROOT / f"library/{MODULE}.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin
    child.stdin.write(json.dumps({"path": str(image), **options}).encode())
    child.stdin.close()
    return child


def tools_in(image: Path, tool: str = "mksquashfs") -> Iterator[int]:
    """Process numbers of the tools that build an image."""
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = process.read_bytes()
            if words.startswith(b"%b\0" % tool.encode()) and os.fsencode(image.parent) in words:
                yield int(process.parent.name)


def halted(image: Path, tool: str) -> Iterator[int]:
    """The same of tools that cannot come to their end any more."""
    for process in tools_in(image, tool):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGSTOP)
            yield process


def test_a_change_during_the_build_fails_it(tmp_path: Path) -> None:
    source, image = tmp_path / "source", tmp_path / "images" / "image"
    source.mkdir()
    image.parent.mkdir()
    (source / "noise").write_bytes(os.urandom(4 << 20))
    (source / "file").write_text("before")

    with during_the_build(image, lambda: (source / "file").write_text("during")):
        message = refused(image, src=str(source), format="squashfs", compressor="xz")
    assert "changed while the image was built: file" in message


@contextmanager
def during_the_build(image: Path, change: Callable[[], Any]) -> Iterator[None]:
    """Have the change made while mksquashfs builds the image in the block."""

    def halt_and_change() -> None:
        tools = waiting.until(lambda: list(halted(image, "mksquashfs")), every=0.02)
        change()
        for tool in tools:
            os.kill(tool, signal.SIGCONT)

    thread = threading.Thread(target=halt_and_change)
    thread.start()
    yield
    thread.join()


@pytest.mark.parametrize("kind", ["tar", "squashfs"])
def test_a_file_that_changes_during_the_build_fails_it(tmp_path: Path, kind: str) -> None:
    source, image, file = tmp_path / "source", tmp_path / "images/image", tmp_path / "file"
    source.mkdir()
    image.parent.mkdir()
    (source / "noise").write_bytes(os.urandom(4 << 20))
    pack = {"tar": ["tar", "-cf", file, "-C", source, "."], "squashfs": ["mksquashfs", source, file, "-quiet"]}
    subprocess.run(pack[kind], stdout=subprocess.DEVNULL, check=True)
    other = Path(shutil.copy(file, tmp_path / "other"))
    options = {"src": str(file), "format": "squashfs", "compressor": "xz"}
    with during_the_build(image, lambda: os.utime(file) if kind == "tar" else other.replace(file)):
        message = refused(image, **options)
    assert message.startswith(f"{file} changed while the image was built")
    built(image, **options)


def test_what_is_put_beside_during_the_build_is_left_alone(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "images/image"
    image.parent.mkdir()
    tree = image.with_name("image.verity")
    (source / "noise").write_bytes(os.urandom(4 << 20))
    options = {"src": str(source), "format": "squashfs", "compressor": "xz", "verity": True, "verity_tree": "beside"}
    for file, allowed in ((tree, False), (image, True)):
        with during_the_build(image, lambda file=file: file.write_text("precious")):
            message = run(image, **options, overwrite=allowed)["msg"]
        assert f"{file} was put there while the image was built" in message
        assert file.read_text() == "precious"
    assert sorted(image.parent.iterdir()) == [image, tree]


@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_another_file_system_at_the_same_place_is_another_source(tmp_path: Path, kind: str) -> None:
    """Although all that is said of its files is the same."""
    source, image, point = tmp_path / "source", tmp_path / "image", tmp_path / "mounted"
    source.mkdir()
    seen = []
    for number, text in enumerate(("first\n", "other\n")):
        (source / "file").write_text(text)
        for path in (source / "file", source):
            os.utime(path, (1_600_000_000, 1_600_000_000))
        built(tmp_path / f"version{number}", src=str(source), format=kind)
    for number in (0, 1):
        with opened(tmp_path / f"version{number}", point):
            status = (point / "file").stat()
            seen.append((status.st_dev, status.st_ino, status.st_ctime_ns, status.st_size))
            result = built(image, src=str(point), format="ext4")
            assert result["changed"]
            assert not built(image, src=str(point), format="ext4")["changed"]
            wanted = manifest.of(point)
        same_as_source(image, "ext4", wanted, result, point)
    assert seen[0] == seen[1]


def test_files_of_others_are_left_alone(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"precious")
    options = {"src": str(source), "format": "squashfs"}
    assert "not built here" in refused(image, **options)
    assert "not built here" in refused(image, state="absent")
    assert image.read_bytes() == b"precious"
    built(image, **options, overwrite=True)
    (tmp_path / "link").symlink_to(image)
    assert "not an ordinary file" in refused(tmp_path / "link", **options)
    assert "not an ordinary file" in refused(source, **options)


def test_other_images_where_files_beside_an_image_belong(source: Path, tmp_path: Path) -> None:
    """They are replaced only where that is allowed, and never deleted."""
    image, other = tmp_path / "root", tmp_path / "root.verity"
    plain = {"src": str(source), "format": "squashfs"}
    built(other, src=str(source), format="erofs")
    for name in ("roothash.p7s", "cowherd.tree.old", "cowherd.json"):
        (tmp_path / f"root.{name}").write_text("precious")
    before = listing(tmp_path)
    assert not built(image, state="absent")["changed"]
    built(image, **plain)
    built(image, **plain, rebuild=True)
    beside = {**plain, "verity": True, "verity_tree": "beside"}
    assert f"would destroy {other}, which is not of the image" in refused(image, **beside)
    signed = {**plain, "verity": True, "signing": signing_pair(tmp_path, *CURVE, "-nodes")}
    assert f"would destroy {image}.roothash.p7s, which is not of the image" in refused(image, **signed)
    for name in ("key", "certificate"):
        (tmp_path / name).unlink()
    built(image, state="absent")
    assert listing(tmp_path) == before
    assert not built(other, src=str(source), format="erofs")["changed"]
    four_runs(MODULE, {"path": str(image), **beside, "overwrite": True})
    built(image, **plain)
    assert not other.exists()


def test_a_file_beside_that_was_changed_is_not_ours_any_more(source: Path, tmp_path: Path) -> None:
    image, tree = tmp_path / "image", tmp_path / "image.verity"
    options = {"src": str(source), "format": "squashfs", "verity": True, "verity_tree": "beside"}
    built(image, **options)
    tree.write_text("precious")
    assert f"would destroy {tree}, which is not of the image" in refused(image, **options)
    built(image, src=str(source), format="squashfs")
    built(image, state="absent")
    assert tree.read_text() == "precious"
    tree.unlink()
    tree.mkdir()
    assert "not an ordinary file" in refused(image, **options, overwrite=True)


def test_mode_and_absence(source: Path, tmp_path: Path) -> None:
    image = tmp_path / "image"
    options = {"path": str(image), "src": str(source), "format": "erofs", "verity": True, "verity_tree": "beside"}
    four_runs(MODULE, options)
    runs = four_runs(MODULE, {**options, "mode": "0644"})
    assert len(runs.do["steps"]) == 1
    assert image.stat().st_mode & 0o777 == 0o644
    four_runs(MODULE, {"path": str(image), "state": "absent"}, state=lambda: listing(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_squashfs_lacks_is_said(source: Path, tmp_path: Path) -> None:
    os.setxattr(source / "etc/hostname", "system.posix_acl_access", trees.acl(77))
    result = built(tmp_path / "image", src=str(source), format="squashfs")
    assert result["image"]["lost"] == ["POSIX ACLs of 1 files, such as etc/hostname, as squashfs has none"]
    assert "POSIX ACLs" in refused(tmp_path / "image", src=str(source), format="squashfs", strict=True)
    built(tmp_path / "other", src=str(source), format="erofs", strict=True)


def test_what_mke2fs_lacks_is_said(source: Path, tmp_path: Path) -> None:
    image, far = tmp_path / "image", 2**31 + 5
    os.utime(source / "etc/hostname", (far, far))
    lost = built(image, src=str(source), format="ext4", method="mke2fs")["image"]["lost"]
    assert lost == ["modification times of 1 files, such as etc/hostname, as mke2fs writes those of 1901 to 2038"]
    with opened(image, tmp_path / "mounted") as root:
        assert (root / "etc/hostname").stat().st_mtime != far
    built(image, src=str(source), format="ext4", method="loop", strict=True)
    with opened(image, tmp_path / "mounted") as root:
        assert (root / "etc/hostname").stat().st_mtime == far


@pytest.mark.parametrize(
    ("kind", "method", "kept"),
    [
        ("squashfs", "auto", False),
        ("ext4", "mke2fs", False),
        ("ext4", "loop", True),
        ("ext4", "shrink", True),
        ("erofs", "auto", True),
        ("btrfs", "auto", True),
    ],
)
def test_fractions_of_seconds_are_no_error_where_nearly_each_tree_would_have_it(
    source: Path, tmp_path: Path, kind: str, method: str, kept: bool
) -> None:
    moment = 1_600_000_000 * SECOND + 123_456_789
    os.utime(source / "etc/hostname", ns=(moment, moment))
    result = built(tmp_path / "image", src=str(source), format=kind, method=method, strict=True)
    assert result["image"]["lost"] == []
    with opened(tmp_path / "image", tmp_path / "mounted") as root:
        found = (root / "etc/hostname").stat().st_mtime_ns
    assert found == (moment if kept else moment // SECOND * SECOND)


def test_what_an_archive_lost_is_known_when_nothing_is_built(source: Path, tmp_path: Path) -> None:
    """Nobody unpacks it a second time to see."""
    os.setxattr(source / "etc/hostname", "system.posix_acl_access", trees.acl(77))
    archive, image = tmp_path / "source.tar", tmp_path / "image"
    pack = ["tar", "--create", "--acls", "--xattrs", "--file", archive, "--directory", source, "."]
    subprocess.run(pack, check=True)
    options = {"src": str(archive), "format": "squashfs"}
    assert built(image, **options)["image"]["lost"]
    assert "The image lacks POSIX ACLs" in str(built(image, **options)["warnings"])
    assert "does not keep POSIX ACLs" in refused(image, **options, strict=True)
    assert "does not keep POSIX ACLs" in refused(image, **options, strict=True, rebuild=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"src": "/nowhere/at/all"}, "cannot be read"),
        ({"src": "relative"}, "not an absolute path"),
        ({"size": "1 parsec"}, "is not a size"),
        ({"size": "+5e3%"}, "is not a size"),
        ({"journal": "5kB"}, "journal"),
        ({"inodes": "many"}, "not a number of inodes"),
        ({"reserved_percent": 51}, "from 0 to 50"),
        ({"label": "longer than sixteen"}, "longer than 16"),
        ({"compressor": "zstd"}, "does not compress"),
        ({"format": "squashfs", "compressor": "brotli"}, "It has: "),
        ({"format": "squashfs", "compressor": "zstd", "level": 99}, "Level 99"),
        ({"format": "squashfs", "label": "x"}, "no label"),
        (
            {"format": "squashfs", "size": "2GiB", "inodes": "+5"},
            "squashfs has no size, inodes. Leave `size`, `inodes`",
        ),
        ({"format": "squashfs", "method": "loop"}, "squashfs has no method"),
        ({"format": "erofs", "journal": "none", "packed_meta_blocks": True}, "erofs has no journal, packed_meta_block"),
        ({"format": "erofs", "reserved_percent": 5}, "erofs has no reserved_percent"),
        ({"format": "erofs", "compressor": "gzip"}, "It has: "),
        ({"method": "mkfs"}, "no method mkfs"),
        ({"format": "btrfs", "method": "shrink"}, "no method shrink"),
        ({"format": "btrfs", "method": "mke2fs"}, "no method mke2fs"),
        ({"format": "btrfs", "label": "a/b"}, "is none for btrfs"),
        ({"format": "btrfs", "label": "x" * 256}, "is none for btrfs"),
        ({"format": "btrfs", "compressor": "xz"}, "It has: zstd, zlib, lzo"),
        ({"format": "btrfs", "compressor": "zstd", "level": 16}, "Levels are 1 to 15"),
        ({"format": "btrfs", "compressor": "lzo", "level": 1}, "no levels"),
        ({"format": "btrfs", "level": 3}, "A level without a compressor"),
        ({"format": "btrfs", "size": "64MiB"}, "needs at least 100663296 bytes"),
        ({"format": "btrfs", "size": "much"}, "is not a size"),
        ({"purge": ["/etc"]}, "not a pattern"),
        ({"purge": ["../etc"]}, "not a pattern"),
        ({"mode": "rw"}, "not a mode"),
        ({"signing": {"key": "/k", "certificate": "/c"}}, "Only a root hash can be signed"),
        ({"verity": True, "signing": {"key": "/k", "certificate": "/c"}}, "/k is not there"),
        ({"source_date_epoch": -1}, "source_date_epoch"),
        ({"path": "{folder}/none/image"}, "does not exist"),
        ({"path": "{folder}/" + "x" * 250}, "too long"),
        ({"path": "{folder}/image.cowherd"}, "where the record of another image belongs"),
        ({"path": "{folder}/image.cowherd.tree.3"}, "where the record of another image belongs"),
        ({"state": "verified", "root_hash": "abc"}, "64 hexadecimal digits"),
        ({"state": "verified", "root_hash": "0" * 64}, "no image"),
    ],
)
def test_bad_input(source: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = Path(options.get("path", "{folder}/image").format(folder=tmp_path))
    rest = {key: value for key, value in options.items() if key != "path"}
    before = listing(tmp_path)
    result = run(path, **{"src": str(source), "format": "ext4", **rest})
    assert result.get("failed")
    assert said in result["msg"]
    assert listing(tmp_path) == before


def test_what_is_written_over_one_image_is_not_laid_over_another(source: Path, tmp_path: Path) -> None:
    """As the script tells images apart that have no root hash; of squashfs, which has no UUID, the page says more."""
    script = (ROOT / "roles/image_boot/files/mountroot").read_text().replace(". /scripts/cowherd-sprout\n", "")
    identify = f'{script}\ncowherd_device=$1 cowherd_root_hash=$2\ncowherd_identify\necho "$cowherd_identity"\n'

    def identity(image: Path, root_hash: str = "") -> str:
        argv = ["sh", "-euc", identify, "sh", image, root_hash]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    for kind in ("ext4", "erofs", "btrfs"):
        found = set()
        for content in ("first\n", "other\n"):
            (source / "etc/hostname").write_text(content)
            built(tmp_path / kind, src=str(source), format=kind)
            found.add(identity(tmp_path / kind))
        assert len(found) == 2, kind
    assert identity(tmp_path / "btrfs", "0123") == "0123"


def test_acls_that_the_folder_hands_down_are_not_in_the_image(memory: Path) -> None:
    """Of an archive without a root, and of a folder in which something is mounted."""
    source, archive = plain(memory / "source"), memory / "plain.tar"
    (source / "etc/deep").mkdir(parents=True)
    (source / "etc/deep/file").touch()
    seeds.run("tar", "--create", "--file", archive, "--directory", source, "etc/deep/file")
    images = []
    seeds.run("mount", "-t", "tmpfs", "-o", "mode=0755", "cowherd-test", source / "var")
    try:
        for name in ("usual", "inheriting"):
            folder = memory / name
            folder.mkdir()
            if name == "inheriting":
                os.setxattr(folder, "system.posix_acl_default", trees.acl(77, default=True))
            for kind, src in (("archive", archive), ("folder", source)):
                built(folder / kind, src=str(src), format="erofs")
            images.append([(folder / kind).read_bytes() for kind in ("archive", "folder")])
    finally:
        seeds.run("umount", source / "var")
    assert images[0] == images[1]


def test_attributes_of_an_archive_that_cannot_be_set_are_no_loss_in_silence(memory: Path) -> None:
    source, archive = plain(memory / "source"), memory / "plain.tar"
    os.setxattr(source / "etc", "user.large", b"x" * 20_000)
    seeds.run("tar", "--create", "--xattrs", "--file", archive, "--directory", source, ".")
    with loops.ext4(memory / "disk", memory / "point", 64 << 20) as point:
        message = refused(point / "image", src=str(archive), format="squashfs")
    assert "Cannot set 'user.large' extended attribute" in message
    assert "unpack it yourself" in message


def test_a_tree_of_many_levels_leaves_nothing(memory: Path) -> None:
    archive, folder = memory / "deep.tar", memory / "images"
    folder.mkdir()
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo("d/" * 1500 + "f"))
    built(folder / "image", src=str(archive), format="squashfs", purge=[])
    assert not built(folder / "image", src=str(archive), format="squashfs", purge=[])["changed"]
    source = plain(memory / "source")
    (source / "tmp").mkdir(exist_ok=True)
    seeds.run("tar", "--extract", "--file", archive, "--directory", source / "tmp")
    built(folder / "purged", src=str(source), format="squashfs")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("mode", ["416", "640", "0899", "u=rw"])
def test_modes_that_are_none(memory: Path, mode: str) -> None:
    """The first is what YAML makes of 0640."""
    message = refused(memory / "image", src=str(plain(memory / "source")), format="squashfs", mode=mode)
    assert "in quotes: '0600'" in message


def test_other_names_of_what_is_emptied_keep_their_content(memory: Path) -> None:
    source, archive = plain(memory / "source"), memory / "plain.tar"
    (source / "etc/machine-id").write_text("0123\n")
    (source / "etc/machine-id").chmod(0o444)
    (source / "etc/other").hardlink_to(source / "etc/machine-id")
    seeds.run("tar", "--create", "--file", archive, "--directory", source, ".")
    for name, src in (("folder", source), ("archive", archive)):
        image = memory / name
        built(image, src=str(src), format="squashfs")
        assert seeds.run("unsquashfs", "-cat", image, "etc/other") == "0123\n"
        assert seeds.run("unsquashfs", "-cat", image, "etc/machine-id") == ""
        assert "-r--r--r--" in seeds.run("unsquashfs", "-ll", image, "etc/machine-id")
        built(memory / f"{name}.ext4", src=str(src), format="ext4")
        with opened(memory / f"{name}.ext4", memory / "point") as point:
            assert (point / "etc/other").read_text() == "0123\n"
            assert (point / "etc/machine-id").stat().st_size == 0


def test_a_time_of_nothing_is_a_time(memory: Path) -> None:
    options = {"src": str(plain(memory / "source")), "format": "ext4", "source_date_epoch": 0}
    built(memory / "image", **options)
    said = seeds.run("env", "TZ=UTC", "dumpe2fs", "-h", memory / "image")
    times = [line for line in said.splitlines() if re.match("(Filesystem created|Last write time|Last checked):", line)]
    assert len(times) == 3
    assert all(line.endswith("1970") for line in times), times


def test_an_archive_on_another_medium_is_read(memory: Path) -> None:
    point = memory / "point"
    for name in ("first", "second"):
        source, medium = plain(memory / name), memory / f"{name}.medium"
        (source / "etc/hostname").write_text(f"{name:10}\n")
        medium.mkdir()
        seeds.run(
            "tar", "--create", "--mtime=@0", "--sort=name", "--file", medium / "root.tar", "--directory", source, "."
        )
        os.utime(medium / "root.tar", (0, 0))
        seeds.run("mksquashfs", medium, memory / f"{name}.squashfs", "-quiet", "-no-progress", "-mkfs-time", "0")
    for name in ("first", "second"):
        with opened(memory / f"{name}.squashfs", point):
            options = {"src": str(point / "root.tar"), "format": "squashfs"}
            assert built(memory / "image", **options)["changed"]
            assert not built(memory / "image", **options)["changed"]
        assert seeds.run("unsquashfs", "-cat", memory / "image", "etc/hostname") == f"{name:10}\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "btrfs", "journal": "none", "inodes": "+5"}, "btrfs has no journal, inodes"),
        ({"format": "btrfs", "reserved_percent": 5}, "btrfs has no reserved_percent"),
        ({"format": "squashfs", "label": "root"}, "squashfs has no label"),
        ({"format": "ext4", "size": "0"}, "No image has a size of 0"),
        ({"format": "erofs", "compressor": "lz4hc", "level": 99}, "Level 99 of compressor lz4hc"),
        ({"format": "erofs", "compressor": "lz4", "level": 5}, "Level 5 of compressor lz4"),
        ({"format": "erofs", "compressor": "none", "level": 5}, "Level 5 of compressor none"),
        ({"format": "squashfs", "compressor": "brotli"}, "has no compressor brotli"),
    ],
)
def test_options_that_would_be_ignored_or_fail_are_refused_at_once(
    memory: Path, options: dict[str, Any], said: str
) -> None:
    """Before an archive is unpacked, too, of which the look is at the file alone."""
    archive = memory / "plain.tar"
    seeds.run("tar", "--create", "--file", archive, "--directory", plain(memory / "source"), ".")
    assert said in refused(memory / "image", src=str(archive), **options)


def test_a_comma_in_the_path_of_an_image(memory: Path) -> None:
    source, folder = plain(memory / "source"), memory / "a,b:c\\d"
    (source / "tmp").mkdir(exist_ok=True)
    (source / "tmp/purged").touch()
    folder.mkdir()
    built(folder / "image", src=str(source), format="squashfs")
    assert "tmp/purged" not in seeds.run("unsquashfs", "-l", folder / "image")


def test_sources_that_are_none(memory: Path) -> None:
    source = plain(memory / "source")
    os.mkfifo(memory / "pipe")
    (memory / "link").symlink_to(source)
    (memory / "images").mkdir()
    for src, said in (("pipe", "neither a folder nor an ordinary file"), ("link", f"it leads to: {source}.")):
        assert said in refused(memory / "images/image", src=str(memory / src), format="squashfs")
    assert "would be in the folder that it is made of" in refused(source / "etc/image", src=str(source), format="ext4")
    seeds.run("mount", "-t", "tmpfs", "cowherd-test", source / "var")
    try:
        (source / "var/images").mkdir()
        built(source / "var/images/image", src=str(source), format="squashfs")
    finally:
        seeds.run("umount", source / "var")


def test_an_image_has_one_lock_whatever_its_folder_is_called(memory: Path) -> None:
    deep = memory / "/".join(["x" * 100] * 4)
    deep.mkdir(parents=True)
    (memory / "link").symlink_to(deep)
    built(deep / "image", src=str(plain(memory / "source")), format="squashfs")
    names = {resource.lock_name(folder / "image") for folder in (deep, memory / "link")}
    (name,) = names
    with lock.held(name), pytest.raises(Busy), lock.held(name, timeout=0):
        pass

"""Images of real trees in every format, mounted and compared with what they were made from."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.image.purge import Purge
from ansible.module_utils.cow.manifest import Manifest
from ansible.module_utils.cow.tree import Entry, Tree

from tests.support import images, loops, needs, trees, waiting
from tests.support.ansible import FourRuns, Result, four_runs, run_module
from tests.support.incusd import Incusd

MODULE = "rootfs_image"
FORMATS = ("ext4", "squashfs", "erofs")
SECOND = 10**9

pytestmark = pytest.mark.usefixtures("tools")


@pytest.fixture(scope="module")
def tools() -> None:
    needs.root("images are mounted")
    for program in ("mke2fs", "mksquashfs", "mkfs.erofs", "veritysetup", "openssl"):
        needs.program(program)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small tree that looks like a system."""
    return plain(tmp_path / "source")


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


def run(path: Path, **options: Any) -> Result:
    return run_module(MODULE, {"path": str(path), **options})


def built(path: Path, **options: Any) -> Result:
    result = run(path, **options)
    assert not result.get("failed"), result.get("msg")
    assert not Path(path.parent, f".{path.name}.cowherd-build").exists()
    return result


def refused(path: Path, **options: Any) -> str:
    """The message of a run that has to fail, in check mode with the same words unless only the run can know."""
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
    }
    finished = subprocess.run(commands[kind], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def as_kept(found: Manifest, *, flags: bool, fractions: bool, acls: bool, symlinks: bool = True) -> Manifest:
    """A tree as a format that keeps less holds it."""

    def entry(each: Entry) -> Entry:
        return each._replace(
            flags=each.flags if flags else 0,
            mtime_ns=each.mtime_ns if fractions else each.mtime_ns // SECOND * SECOND,
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
    [("ext4", "auto"), ("ext4", "loop"), ("ext4", "shrink"), ("squashfs", "auto"), ("erofs", "auto")],
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

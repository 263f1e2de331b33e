"""btrfs seeds for tests, and a look at what was installed from them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

from ansible.module_utils.cow.manifest import Manifest

from . import trees, waiting

SIZE = 160 << 20


def make(image: Path, folder: Path, *mkfs: str, content: int = 20 << 20) -> Path:
    """Make a seed in the file `image`, mounted on `folder` meanwhile.

    Its root `install` has every kind of file and `content` bytes that do not compress. Of its snapshots, `live` has one
    more file, and `fixed` is read-only.
    """
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("mkfs.btrfs", "--quiet", "--csum", "xxhash64", "-m", "single", "-d", "single", "-L", "media", *mkfs, image)
    with mounted(image, folder, "compress=zstd:3"):
        root, live = folder / "install", folder / "live"
        run("btrfs", "--quiet", "subvolume", "create", root)
        trees.make_hostile(root / "tree", depth=40)
        (root / "random").write_bytes(Random(1).randbytes(content))
        (root / "text").write_bytes(b"what compresses well\n" * 500_000)
        run("btrfs", "--quiet", "subvolume", "snapshot", root, live)
        run("btrfs", "--quiet", "subvolume", "snapshot", "-r", root, folder / "fixed")
        (live / "live-only").write_bytes(Random(2).randbytes(1 << 20))
    run("btrfstune", "-f", "-S", "1", image)
    return image


@contextmanager
def mounted(image: Path, folder: Path, options: str = "ro") -> Iterator[Path]:
    """What is in a file, mounted on `folder` during the block."""
    folder.mkdir(exist_ok=True)
    run("mount", "-o", f"loop,noatime,{options}", image, folder)
    try:
        yield folder
    finally:
        run("umount", folder)
        waiting.until(lambda: not run("losetup", "--associated", image))


@contextmanager
def memory(folder: Path) -> Iterator[Path]:
    """Have what is written in a folder during the block in memory: disks in files are synced often."""
    run("mount", "-t", "tmpfs", "-o", "size=4g", "cowherd-test", folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def without_lost_found(found: Manifest) -> Manifest:
    """Leave out of what a file system has the folder that mkfs makes."""
    kept = tuple(entry for entry in found.tree.entries if entry.path != b"lost+found")
    return Manifest(replace(found.tree, entries=kept), found.contents)


def run(*argv: str | Path) -> str:
    """Run a command; AssertionError with what it said when it fails."""
    finished = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, f"{argv}: {finished.stderr}"
    return finished.stdout

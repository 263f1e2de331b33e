"""mounts on real mounts: subvolumes, bind mounts, and mounts that lie over others."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ansible.module_utils.cow import kernel, mounts

from tests.support import needs


@contextmanager
def mounted(*arguments: str | Path, at: Path) -> Iterator[None]:
    subprocess.run(["mount", *arguments, at], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", at], check=True)


def test_a_subvolume_mounted_by_itself(btrfs_folder: Path, tmp_path: Path) -> None:
    subprocess.run(["btrfs", "subvolume", "create", btrfs_folder / "a"], check=True, stdout=subprocess.DEVNULL)
    top, point = mounts.under(btrfs_folder / "a"), tmp_path / "with space"
    assert (top.fstype, top.mount_point, top.root) == ("btrfs", btrfs_folder, Path("/"))
    point.mkdir()
    with mounted("-o", "subvol=a", top.source, at=point):
        own = mounts.under(point / "none")
        assert (own.mount_point, own.root, own.device) == (point, Path("/a"), top.device)
        assert "subvol=/a" in own.options
        assert own.inside(point / "none") == Path("/a/none")
    assert mounts.under(point).device != top.device


def test_a_bind_mount(btrfs_folder: Path, tmp_path: Path) -> None:
    (btrfs_folder / "folder" / "inner").mkdir(parents=True)
    point = tmp_path / "bound"
    point.mkdir()
    with mounted("--bind", btrfs_folder / "folder", at=point):
        found = mounts.under(point / "inner")
        assert (found.fstype, found.mount_point, found.root) == ("btrfs", point, Path("/folder"))
        assert mounts.free(point) == mounts.free(btrfs_folder)


def test_a_mount_over_others(btrfs_folder: Path) -> None:
    inner = btrfs_folder / "inner"
    inner.mkdir()
    with mounted("-t", "tmpfs", "below", at=inner), mounted("-t", "tmpfs", "-o", "size=1m", "over", at=btrfs_folder):
        assert inner in [mount.mount_point for mount in mounts.every()]
        assert mounts.under(inner).source == "over"
        assert mounts.free(inner).bytes == 1 << 20
    assert mounts.under(inner).fstype == "btrfs"


def test_own_mounts_are_left_when_threads_have_just_ended() -> None:
    """A thread that was joined counts for the kernel for a moment more, once in some hundreds of times."""
    needs.root("a mount namespace is made")
    before = Path("/proc/self/ns/mnt").readlink()
    for _ in range(2000):
        thread = threading.Thread(target=lambda: None)
        with kernel.own_mounts():
            thread.start()
            thread.join()
    assert Path("/proc/self/ns/mnt").readlink() == before

"""golden_store on real file systems, and on a ZFS in user space. Pools on devices are made in a virtual machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import golden_trees, loops, needs, zfs_fuse
from tests.support.ansible import four_runs, run_module
from tests.support.zfs_fuse import ZfsFuse

NAME = "golden_store"


@pytest.fixture(scope="module")
def fuse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZfsFuse]:
    with zfs_fuse.running(tmp_path_factory.mktemp("zfs")) as running:
        yield running


def names_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_folder(btrfs_folder: Path) -> None:
    store = btrfs_folder / "srv" / "golden"
    made = four_runs(NAME, {"store": str(store), "expect": "btrfs"}, state=lambda: names_in(btrfs_folder))
    assert made.do["steps"] == [f"create folder {store}"]
    assert (made.check["exists"], made.check["backend"]) == (False, None)
    for result in (made.do, made.again):
        assert (result["exists"], result["backend"], result["store"]) == (True, "btrfs", str(store))
        assert f"{store} is on btrfs" in result["why"]
        assert "d_type" not in result["why"]


def test_a_folder_is_refused(btrfs_folder: Path) -> None:
    (btrfs_folder / "file").touch()
    before = names_in(btrfs_folder)
    for args, said in (
        ({"store": f"{btrfs_folder}/file"}, "exists and is no folder"),
        ({"store": f"{btrfs_folder}/a", "expect": "reflink"}, "The backend reflink was expected"),
        ({"store": f"{btrfs_folder}/a", "backend": "zfs"}, "The backend zfs needs a dataset"),
        ({"store": f"{btrfs_folder}/a", "device": "/dev/null"}, "a device is for a pool of ZFS"),
        ({"store": f"{btrfs_folder}/../a"}, "is not an absolute path"),
    ):
        for check in (True, False):
            assert said in run_module(NAME, args, check)["msg"]
    assert names_in(btrfs_folder) == before


def test_datasets(fuse: ZfsFuse) -> None:
    pool = fuse.pool()
    store = f"{pool}/builds/golden"
    asked = {"store": store, "expect": "zfs", "properties": {"atime": "off", "site:owner": "builds"}}
    made = four_runs(NAME, asked, state=lambda: datasets(fuse, pool), within=fuse.within)
    assert made.do["steps"] == [f"create dataset {pool}/builds", f"create dataset {store}"]
    assert (made.check["exists"], made.again["exists"], made.again["backend"]) == (False, True, "zfs")
    for name in (f"{pool}/builds", store):
        values = fuse.run("zfs", "get", "-H", "-o", "value", "atime,mountpoint,site:owner", name).split()
        assert values == ["off", "none", "builds"]


def test_a_dataset_is_refused(fuse: ZfsFuse) -> None:
    pool = fuse.pool()
    before = datasets(fuse, pool)
    for args, said in (
        ({"store": pool}, "is a whole pool"),
        ({"store": f"{pool}/a", "expect": "btrfs"}, "The backend btrfs was expected"),
        ({"store": f"{pool}/a", "backend": "copy"}, "needs a folder"),
        ({"store": f"{pool}/a@b"}, "is not a dataset"),
        ({"store": f"{pool}/a", "properties": {"a b": "c"}}, "a b"),
    ):
        for check in (True, False):
            assert said in run_module(NAME, args, check, within=fuse.within)["msg"]
    assert datasets(fuse, pool) == before


def datasets(fuse: ZfsFuse, pool: str) -> str:
    return fuse.run("zfs", "list", "-H", "-r", "-o", "name,mountpoint", pool)


@pytest.fixture
def without_kinds(tmp_path: Path) -> Iterator[Path]:
    """An empty ext4 whose folders do not say what kind of file each entry is, as those of old XFS do not."""
    needs.root("a file system is mounted")
    with loops.mounted(tmp_path / "image", tmp_path / "mounted", 64 << 20, "mkfs.ext4", "-q", "-O", "^filetype") as at:
        yield at


def test_a_file_system_that_does_not_tell_kinds_is_reported(without_kinds: Path, tmp_path: Path) -> None:
    store = without_kinds / "golden"
    made = four_runs(NAME, {"store": str(store)}, state=lambda: names_in(without_kinds))
    assert (made.do["backend"], made.again["backend"]) == ("copy", "copy")
    assert made.again["why"].endswith("(d_type), so container engines cannot have overlays on it")
    source = golden_trees.tree(tmp_path / "source")
    asked: dict[str, Any] = {"store": str(store), "project": "p"}
    assert "(d_type)" in run_module("golden_cache", {**asked, "source": str(source)})["why"]
    session = run_module("golden_session", {**asked, "name": "alice"})
    assert (session["d_type"], "(d_type)" in session["why"]) == (False, True)
    assert golden_trees.content(Path(session["path"])) == golden_trees.content(source)
    assert json.loads((store / ".cowherd" / "store.json").read_text()) == {"backend": "copy"}

"""Plans of live media, how they are to be built, and how large."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow.btrfs import Scrubbed
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.image import btrfs_file
from ansible.module_utils.cow.image.btrfs_file import Abilities, Method
from ansible.module_utils.cow.image.record import Record
from ansible.module_utils.cow.image.resource import Standing
from ansible.module_utils.cow.image.sources import Folder, Look
from ansible.module_utils.cow.live import build, media, roots
from ansible.module_utils.cow.live.build import Order
from ansible.module_utils.cow.live.media import Found, Wanted
from ansible.module_utils.cow.live.roots import Root, Seen
from ansible.module_utils.cow.live.verify import Verified
from ansible.module_utils.cow.tree import Entry, Tree
from hypothesis import given
from hypothesis import strategies as st

import live_image

MIB = 1 << 20
ABLE = Abilities("6.14", fills=True)
OLD = Abilities("6.2", fills=False)
ORDER = Order("xxhash64", 15, "media", "auto", seed=True)
INPUTS = {"recipe": 1}
SEEN = (Seen(Root("install", "/srv/tree", {}), Folder(Path("/srv/tree"), "/srv/tree"), Look("digest", {})),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "media.seed"


def params(path: Path, **more: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in live_image.ARGUMENTS.items()}
    root = {"name": "install", "src": "/srv/tree", "incus": None, "from": None}
    return {**defaults, "path": str(path), "roots": [root], **more}


def wanted(path: Path, **more: Any) -> Wanted:
    return Wanted.of(params(path, **more))


def found(path: Path, *, ours: bool = False, inputs: Any = INPUTS, **more: Any) -> Found:
    record = Record(INPUTS, {}, "stamp") if ours else None
    standing = Standing(path, exists=ours, record=record, occupied="", mode=0o600 if ours else 0, leftover=False)
    return Found(standing, seed=ours, seen=SEEN, inputs=inputs, method=Method("loop", "because"), able=ABLE, **more)


def occupied(path: Path) -> Found:
    there = found(path)
    return replace(there, standing=replace(there.standing, exists=True, occupied=f"{path}, which is not ours"))


def test_steps(path: Path) -> None:
    what = f"build {path} (btrfs seed, xxhash64) from /srv/tree (install)"
    there = found(path, ours=True)
    left = replace(there, standing=replace(there.standing, leftover=True))
    table = [
        (found(path), {}, [f"{what}: there is none"]),
        (there, {}, []),
        (found(path, ours=True, inputs={"recipe": 2}), {}, [f"{what}: it was made from something else"]),
        (there, {"rebuild": True}, [f"{what}: as asked for"]),
        (replace(there, standing=replace(there.standing, amiss=(path,))), {}, [f"{what}: {path} is missing"]),
        (there, {"mode": "0644"}, [f"set the mode of {path} to 0644"]),
        (there, {"seed": False}, [f"clear the seed flag of {path}"]),
        (replace(there, seed=False), {}, [f"set the seed flag of {path}"]),
        (left, {}, [f"remove {path.parent}/.media.seed.cowherd-build, which a killed build left"]),
        (there, {"state": "absent"}, [f"delete {path}"]),
        (found(path), {"state": "absent"}, []),
        (occupied(path), {}, [f"{what}: another file is there"]),
    ]
    for observed, options, steps in table:
        assert media.plan(observed, wanted(path, **options)).titles == steps


def test_what_is_destroyed_has_to_be_allowed(path: Path) -> None:
    (built,) = media.plan(occupied(path), wanted(path)).steps
    assert (built.destroys, built.permit) == (f"{path}, which is not ours", "overwrite")
    (cleared,) = media.plan(found(path, ours=True), wanted(path, seed=False)).steps
    assert (cleared.destroys, cleared.permit) == (f"all file systems that were grown from {path}", "force")


@pytest.mark.parametrize("options", [{"state": "absent"}, {"rebuild": True}])
def test_seeds_that_are_needed(path: Path, options: dict[str, Any]) -> None:
    needed = found(path, ours=True, sprouts=("3a14888d",))
    with pytest.raises(CowError, match=r"mounted on this host \(3a14888d\)"):
        media.plan(needed, wanted(path, **options))
    assert media.plan(needed, wanted(path, force=True, **options)).steps
    assert not media.plan(needed, wanted(path)).steps


def test_damage_in_words(path: Path) -> None:
    clean = Scrubbed(1, 1, 0, 0, 0)
    assert Verified("xxhash64", clean).wrong == ""
    hurt = Verified("sha256", replace(clean, data=2, superblocks=1), tuple(f"install:/{n}" for n in range(60)))
    assert hurt.wrong.startswith(
        "blocks of data that cannot be read, or are not what their checksums (sha256) say: 2; damaged copies of the "
        "superblock: 1. Hit: install:/0, install:/1, "
    )
    assert "install:/49" in hurt.wrong
    assert "install:/59" not in hurt.wrong
    verified = found(path, ours=True, verified=hurt)
    with pytest.raises(CowError, match="is damaged"):
        media.plan(verified, wanted(path, state="verified"))


def entry(**more: Any) -> Entry:
    plain = {
        "path": b"file",
        "kind": "file",
        "mode": stat.S_IFREG | 0o644,
        "uid": 0,
        "gid": 0,
        "size": 1,
        "mtime_ns": 5 * 10**9,
        "ctime_ns": 1,
        "inode": 2,
        "nlink": 1,
        "rdev": 0,
        "blocks": 8,
        "target": b"",
        "xattrs": (),
        "flags": 0,
    }
    known = {name: value for name, value in plain.items() if name in Entry._fields}
    rest = {name: 0 for name in Entry._fields if name not in known}
    return Entry(**{**known, **rest, **more})


def tree(**more: Any) -> Tree:
    return Tree(Path("/srv/tree"), (entry(**more),), 0, (), vanished=False)


ROOT = Root("install", "/srv/tree", {})
BASED = Root("live", "/srv/live", {}, "install")


@pytest.mark.parametrize(
    ("ways", "method", "why"),
    [
        ((ORDER, [ROOT], [tree()], ABLE), "mkfs", "nothing is lost by it"),
        ((ORDER, [ROOT], [tree()], OLD), "loop", "mkfs.btrfs 6.2 does not compress"),
        ((ORDER, [ROOT, BASED], [tree()], ABLE), "loop", "root live begins as a snapshot of install"),
        ((ORDER, [ROOT], [tree(mtime_ns=1)], ABLE), "loop", "fractions of seconds"),
        ((ORDER, [ROOT], [tree(flags=16)], ABLE), "loop", "flags"),
        ((ORDER, [ROOT], [tree(rdev=259)], ABLE), "loop", "device numbers"),
        ((ORDER, [ROOT], [tree(size=1 << 34)], ABLE), "loop", "holes"),
        ((replace(ORDER, method="loop"), [ROOT], [tree()], ABLE), "loop", "as asked for"),
        ((replace(ORDER, method="mkfs"), [ROOT], [tree(flags=16)], ABLE), "mkfs", "as asked for"),
    ],
)
def test_methods(ways: tuple[Any, ...], method: str, why: str) -> None:
    chosen = build.choose(*ways)
    assert chosen.name == method
    assert why in chosen.why


@pytest.mark.parametrize(("given_roots", "able"), [([ROOT, BASED], ABLE), ([ROOT], OLD)])
def test_mkfs_where_it_cannot(given_roots: list[Root], able: Abilities) -> None:
    with pytest.raises(CowError, match="cannot be built without a mount"):
        build.choose(replace(ORDER, method="mkfs"), given_roots, [tree()], able)


@given(data=st.integers(0, 40 << 30), metadata=st.integers(0, 2 << 30))
def test_sizes_hold_what_is_in_them_and_grow(data: int, metadata: int) -> None:
    tried = list(btrfs_file.sizes(data, metadata))
    assert len(tried) > 1
    assert tried == sorted(tried)
    assert tried[-1] > tried[0]
    assert tried[0] >= max(btrfs_file.LEAST, data + metadata)
    assert all(size % MIB == 0 for size in tried)
    assert tried[0] <= max(btrfs_file.LEAST, (data + metadata) * 4 // 3 + 400 * MIB)


def test_roots_in_their_order() -> None:
    assert roots.of(
        [
            {"name": "install", "src": "/a", "incus": None, "from": None},
            {"name": "live", "src": None, "incus": {"image": "base"}, "from": "install"},
        ]
    ) == (Root("install", "/a", {}), Root("live", "", {"image": "base"}, "install"))

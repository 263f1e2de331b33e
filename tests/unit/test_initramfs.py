"""What a tree needs so that its initial RAM disks have what they are to have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import initramfs
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.initramfs import File, Found, Wanted

TREE = Path("/srv/tree")
HOOK = File("etc/initramfs-tools/hooks/cowherd", b"#!/bin/sh\n", 0o755)
WANTED = Wanted(TREE, (HOOK,))
WRITE = "write etc/initramfs-tools/hooks/cowherd in /srv/tree"
MAKE = "make boot/initrd.img-6.1 in /srv/tree"


def found(**differences: Any) -> Found:
    """A tree that has all that is wanted, but for the differences."""
    return Found(
        **{
            "tree": TREE,
            "files": {HOOK.path: HOOK},
            "kernels": ("6.1",),
            "made_with": {"6.1": WANTED.fingerprint},
            "has_initrd": frozenset({"6.1"}),
            **differences,
        }
    )


@pytest.mark.parametrize(
    ("there", "steps"),
    [
        (found(), []),
        (found(files={HOOK.path: None}, made_with={}, has_initrd=frozenset()), [WRITE, MAKE]),
        (found(files={HOOK.path: File(HOOK.path, HOOK.content, 0o644)}), [WRITE]),
        (found(files={HOOK.path: File(HOOK.path, b"", 0o755)}), [WRITE]),
        (found(made_with={}), [MAKE]),
        (found(made_with={"6.1": "of other files"}), [MAKE]),
        (found(kernels=("5.9", "6.1")), ["make boot/initrd.img-5.9 in /srv/tree"]),
    ],
    ids=["as wanted", "bare", "another mode", "another content", "made by hand", "made before", "a second kernel"],
)
def test_steps(there: Found, steps: list[str]) -> None:
    assert initramfs.plan(there, WANTED).titles == steps


@pytest.mark.parametrize(
    ("there", "said"),
    [(found(kernels=()), "There is no kernel in /srv/tree/boot"), (found(has_tool=False), "Install initramfs-tools")],
)
def test_a_tree_that_cannot_boot_is_refused(there: Found, said: str) -> None:
    with pytest.raises(CowError, match=said):
        initramfs.plan(there, WANTED)


def test_the_fingerprint_tells_content_mode_and_place() -> None:
    others = [
        (File(HOOK.path, b"", 0o755),),
        (File(HOOK.path, HOOK.content, 0o644),),
        (File("etc/x", HOOK.content, 0o755),),
        (HOOK, File("etc/x", b"", 0o644)),
        (),
    ]
    fingerprints = {Wanted(TREE, files).fingerprint for files in others}
    assert len({WANTED.fingerprint, *fingerprints}) == len(others) + 1


@pytest.mark.parametrize(
    "file",
    [
        {"path": "../x"},
        {"path": "/etc/x"},
        {"path": ""},
        {"path": "etc/x", "mode": "rw"},
        {"path": "x", "mode": "4755"},
    ],
)
def test_files_that_cannot_be_meant(file: dict[str, str]) -> None:
    with pytest.raises(CowError):
        Wanted.of({"tree": "/srv/tree", "files": [{"content": "", "mode": "0644", **file}]})


def tree(root: Path) -> Path:
    """A folder with what initramfs looks for, none of which is run."""
    for folder in ("boot", "usr/sbin", "etc"):
        (root / folder).mkdir(parents=True)
    (root / "boot/vmlinuz-6.1").touch()
    (root / "usr/sbin/update-initramfs").touch()
    return root


def test_a_bare_tree(tmp_path: Path) -> None:
    there = initramfs.observe(Wanted(tree(tmp_path), (HOOK,)))
    assert there.files == {HOOK.path: None}
    assert there.kernels == ("6.1",)
    assert not there.made_with
    assert initramfs.describe(there)["kernels"][0]["initrd"] is None


@pytest.mark.parametrize("record", ["", "{", "[]", '{"6.1": 1}', '{"6.1": {"files": "x"}}'])
def test_a_damaged_record_says_nothing(tmp_path: Path, record: str) -> None:
    root = tree(tmp_path)
    (root / "boot/initrd.img-6.1").touch()
    file = root / initramfs.RECORD
    file.parent.mkdir(parents=True)
    file.write_text(record)
    assert not initramfs.observe(Wanted(root)).made_with


@pytest.mark.parametrize("link", ["etc/initramfs-tools", "etc/initramfs-tools/hooks/cowherd", "var"])
def test_links_are_not_followed_out_of_the_tree(tmp_path: Path, link: str) -> None:
    root = tree(tmp_path / "tree")
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(outside)
    with pytest.raises(CowError, match="not followed"):
        initramfs.observe(Wanted(root, (HOOK,)))
    assert not any(outside.iterdir())


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    root = tree(tmp_path)
    for step in initramfs.plan(initramfs.observe(Wanted(root, (HOOK,))), Wanted(root, (HOOK,))).steps[:1]:
        step.run()
    written = root / HOOK.path
    assert written.read_bytes() == HOOK.content
    assert written.stat().st_mode & 0o777 == HOOK.mode
    assert [path.name for path in written.parent.iterdir()] == ["cowherd"]

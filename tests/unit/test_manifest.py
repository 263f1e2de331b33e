"""Where files have data and where zeros, however they are laid out."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.tree import walk

DATA = b"x" * 5000
_MANY = 1000


@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 8192, manifest.CHUNK, manifest.CHUNK + 1, manifest.CHUNK + 4097])
@pytest.mark.parametrize("before", [b"", DATA[: manifest.BLOCK], DATA])
def test_a_hole_is_the_same_as_zeros(tmp_path: Path, before: bytes, size: int) -> None:
    (tmp_path / "written").write_bytes(before + bytes(size))
    (tmp_path / "hole").write_bytes(before)
    os.truncate(tmp_path / "hole", len(before) + size)
    written, hole = (_looked_at(tmp_path / name) for name in ("written", "hole"))
    assert written == hole
    blocks = -(-len(before) // manifest.BLOCK)
    assert [place for place, _ in written[1]] == [number * manifest.BLOCK for number in range(blocks)]


def test_where_files_have_zeros_is_known_however_they_were_read(tmp_path: Path) -> None:
    root, block = tmp_path / "tree", manifest.BLOCK
    root.mkdir()
    (root / "empty").touch()
    (root / "small").write_bytes(DATA)
    (root / "unaligned").write_bytes(b"x" + bytes(block + 10) + b"x")
    (root / "large").write_bytes(DATA * 1000)
    for name in ("written", "long"):
        (root / name).write_bytes(bytes(block) + DATA + bytes(2 * block) + b"x" * 3 * manifest.CHUNK * (name == "long"))
    with (root / "hole").open("wb") as file:
        file.truncate(1 << 30)
    (root / "another").hardlink_to(root / "written")
    found = manifest.of(root)
    by_name = {path: runs.tolist() for path, runs in found.runs.items()}
    assert by_name.pop(b"long") == [2, 3 * manifest.CHUNK // block + 1]
    assert by_name == {b"written": [2], b"another": [2], b"hole": []}
    once = {path: runs for path, runs in found.runs.items() if path != b"written"}
    assert manifest.runs_of(found.tree) == once
    (tmp_path / "saved").write_bytes(found.encoded())
    assert manifest.Manifest.load(tmp_path / "saved") == found
    assert manifest.of(root, manifest.Manifest.load(tmp_path / "saved")).runs == found.runs


def test_many_files_are_read_by_several_processes_as_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = _many_files(tmp_path / "tree")
    by_several: list[int] = []
    several = manifest.of(root, progress=by_several.append)
    monkeypatch.setattr(manifest, "_BATCH", 10_000)
    by_one: list[int] = []
    assert several == replace(manifest.of(root, progress=by_one.append), tree=several.tree)
    assert len(set(several.contents.values())) == _MANY
    assert b"f12" in several.runs
    assert sum(by_several) == sum(by_one)


def test_files_that_vanish_before_they_are_read_are_left_out(tmp_path: Path) -> None:
    root = _many_files(tmp_path / "tree")
    tree = walk(root)
    (root / "f3").unlink()
    (root / f"f{_MANY - 4}").unlink()
    found = manifest.of_tree(tree)
    assert len(found.contents) == _MANY - 2
    assert found.tree.vanished
    assert len(found.tree.entries) == len(tree.entries) - 2


@pytest.mark.parametrize("count", [_MANY, 1])
def test_a_tree_that_is_gone_is_told_in_a_sentence(tmp_path: Path, count: int) -> None:
    root = _many_files(tmp_path / "tree")
    tree = walk(root)
    shutil.rmtree(root)
    with pytest.raises(CowError, match=r"^The tree .* cannot be read: No such file or directory"):
        manifest.of_tree(replace(tree, entries=tree.entries[: count + 1]))


def _many_files(root: Path) -> Path:
    """Each with another content; one has a hole, and one is larger than what is read at once."""
    root.mkdir()
    for number in range(_MANY):
        (root / f"f{number}").write_bytes(b"%d\n" % number * (number % 50 + 1))
    os.truncate(root / "f12", 1 << 20)
    (root / "f500").write_bytes(DATA * 1000)
    return root


def _looked_at(path: Path) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Its digest, and its blocks of data with where they are."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        pieces = [
            (start + offset, chunk[offset : offset + manifest.BLOCK])
            for start, chunk in manifest.data(descriptor)
            for offset in range(0, len(chunk), manifest.BLOCK)
        ]
        return manifest.content_digest(descriptor), pieces
    finally:
        os.close(descriptor)

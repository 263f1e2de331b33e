"""Where files have data and where zeros, however they are laid out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.cow import manifest

DATA = b"x" * 5000


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
    found.save(tmp_path / "saved")
    assert manifest.Manifest.load(tmp_path / "saved") == found
    assert manifest.of(root, manifest.Manifest.load(tmp_path / "saved")).runs == found.runs


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

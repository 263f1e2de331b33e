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

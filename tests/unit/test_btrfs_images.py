"""btrfs images: what is asked for, what mkfs.btrfs can make of it, and sizes with room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.image import btrfs, btrfs_file
from ansible.module_utils.cow.image.btrfs_file import Abilities, Settings
from ansible.module_utils.cow.image.job import Options, Room
from ansible.module_utils.cow.tree import Tree

import rootfs_image

EMPTY = Tree(Path("/srv/tree"), (), 0)


def options(**more: Any) -> Options:
    defaults = {name: option.get("default") for name, option in rootfs_image.ARGUMENTS.items()}
    return Options.of({**defaults, "format": "btrfs", **more})


@pytest.mark.parametrize(
    ("size", "room", "free"),
    [
        ("minimum", Room(), 0),
        ("+20%", Room(percent=20), 200),
        ("+5kB", Room(bytes=5000), 5000),
        ("1GiB", Room(fixed=1 << 30), 0),
    ],
)
def test_sizes(size: str, room: Room, free: int) -> None:
    assert Room.of(size) == room
    assert room.free(1000) == free


@pytest.mark.parametrize("size", ["+1e3%", "+20.5%", "20%", "much", "+"])
def test_what_is_no_size(size: str) -> None:
    with pytest.raises(CowError, match="size"):
        Room.of(size)


@pytest.mark.parametrize(
    ("able", "compression", "why"),
    [
        (Abilities("6.14", fills=True), "zstd:3", ""),
        (Abilities("6.14", fills=True), "", ""),
        (Abilities("6.2", fills=False), "", "6.2 does not compress what it fills"),
        (Abilities("6.14", fills=True, compressors=("zlib",)), "zstd:3", "6.14 was built without zstd"),
        (Abilities("6.14", fills=True, compressors=("zlib",)), "zlib:9", ""),
    ],
)
def test_what_mkfs_can_make(able: Abilities, compression: str, why: str) -> None:
    found = able.why_not_mkfs(compression)
    assert why in found
    assert bool(why) == bool(found)
    assert btrfs_file.choose("auto", found, [EMPTY]).name == ("loop" if why else "mkfs")


def test_what_is_given_for_the_same_bytes() -> None:
    settings = Settings("crc32c", "root", "zstd:3", uuid="2f8c0c3a-9d3c-4b0f-8c56-0f6a2b6c2d11", epoch=1_700_000_000)
    assert settings.maker[-2:] == ["--uuid", "2f8c0c3a-9d3c-4b0f-8c56-0f6a2b6c2d11"]
    assert settings.environment == {"SOURCE_DATE_EPOCH": "1700000000", "DETERMINISTIC_SEED": "1"}
    assert Settings("crc32c", "root", "zstd:3").environment is None
    assert "--uuid" not in Settings("crc32c", "root", "zstd:3").maker


@pytest.mark.parametrize("label", ["", "x" * 255, "ä b:c"])
def test_labels(label: str) -> None:
    btrfs.Btrfs().check(options(label=label))


@pytest.mark.parametrize(
    "choice",
    [{"compressor": "none", "level": 1}, {"compressor": "zlib", "level": 10}, {"compressor": "zstd", "level": 0}],
)
def test_levels_that_there_are_not(choice: dict[str, Any]) -> None:
    with pytest.raises(CowError, match=r"[Ll]evel"):
        btrfs.Btrfs().check(options(**choice))

"""What seed_install decides to do with what it finds, and what it refuses, without a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ansible.module_utils.cow.btrfs import Space, Superblock
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.live import install
from ansible.module_utils.cow.live.install import Found, Method, Wanted
from ansible.module_utils.cow.live.order import Order
from ansible.module_utils.cow.live.seed import Seed
from ansible.module_utils.cow.live.target import Target

import seed_install

MIB = 1 << 20
SEED = Seed(
    Path("/srv/media.seed"),
    Superblock(str(uuid4()), "media", 11, 80 * MIB, 60 * MIB, 80 * MIB, 1, 1, 16384, "xxhash64", seed=True),
    {},
    Space(50 * MIB, 10 * MIB),
)
ORDER = Order("install", "btrfs", "auto", "install", "", None, None, None)
DEVICE = Target(Path("/dev/vdb"), True, 400 * MIB, "", (), "", unfinished=False)
ABSENT = replace(DEVICE, path=Path("/srv/new.img"), device=False, bytes=None)
EXT4 = replace(DEVICE, content="ext4 1234", names=("1234", "ext4"), uuid="1234")
INPUTS = {"root": "install"}
SPROUT = Method("sprout", "as asked for")
INSTALL = "install root install of /srv/media.seed on /dev/vdb (btrfs, sprout)"


def wanted(**options: Any) -> Wanted:
    base = Wanted(SEED.path, Path("/dev/vdb"), ORDER, None, "", verify=False, records=Path("/var/lib/records"))
    return replace(base, **options)


def found(target: Target = DEVICE, record: dict[str, Any] | None = None, least: int = 150 * MIB) -> Found:
    return Found(SEED, target, SPROUT, INPUTS, record, least)


@pytest.mark.parametrize(
    ("target", "options", "titles", "destroys"),
    [
        (DEVICE, {}, [INSTALL], ""),
        (
            replace(DEVICE, unfinished=True),
            {},
            [
                f"{INSTALL}, where an unfinished installation is",
            ],
            "",
        ),
        (
            EXT4,
            {"replace": "1234"},
            [INSTALL],
            "ext4 1234",
        ),
        (
            EXT4,
            {"replace": "ext4"},
            [INSTALL],
            "ext4 1234",
        ),
        (
            ABSENT,
            {"size": install.Size(200 * MIB)},
            [
                "make the file /srv/new.img of 200MiB",
                "install root install of /srv/media.seed on /srv/new.img (btrfs, sprout)",
            ],
            "",
        ),
    ],
)
def test_what_is_to_be_done(target: Target, options: dict[str, Any], titles: list[str], destroys: str) -> None:
    plan = install.plan(found(target), wanted(**options))
    assert plan.titles == titles
    assert plan.steps[-1].destroys == destroys
    assert plan.steps[-1].permit == "replace"


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (EXT4, {}, "set `replace` to 1234 or ext4"),
        (EXT4, {"replace": "xfs"}, "`replace` names xfs, which is not there"),
        (EXT4, {"replace": "123"}, "which is not there"),
        (ABSENT, {}, "Set `size`"),
        (ABSENT, {"size": install.Size(149 * MIB)}, "needs 157286400 bytes"),
        (replace(DEVICE, bytes=21 * MIB), {}, "is too small"),
        (DEVICE, {"order": replace(ORDER, uuid=SEED.superblock.uuid)}, "is the seed's own"),
    ],
)
def test_what_is_refused(target: Target, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CowError, match=words):
        install.plan(found(target), wanted(**options))


@pytest.mark.parametrize("former", [{}, {"method": "sprout"}])
def test_what_is_installed_stays(former: dict[str, str]) -> None:
    """Former versions took another method for something else."""
    record = {"inputs": {**INPUTS, **former}, "result": {"uuid": "1234"}}
    there = found(EXT4, record, least=0)
    assert install.plan(there, wanted()).steps == ()
    assert install.describe(there) == {"installed": {"uuid": "1234"}}
    with pytest.raises(CowError, match="has this root already"):
        install.plan(there, wanted(order=replace(ORDER, uuid=str(uuid4()))))


def test_what_was_installed_from_something_else_has_to_be_named() -> None:
    record = {"inputs": {"root": "live"}, "result": {}}
    with pytest.raises(CowError, match="has something on it"):
        install.plan(found(EXT4, record), wanted())
    assert install.describe(found(EXT4, record)) == {"installed": None}


AS_IT_IS = "come as they are"
ZONED = replace(SEED, superblock=replace(SEED.superblock, features=0x1341))
SLACK = replace(SEED, superblock=replace(SEED.superblock, device_bytes=300 * MIB))


@pytest.mark.parametrize(
    ("order", "options", "method", "why"),
    [
        (ORDER, {}, "blocks", AS_IT_IS),
        (replace(ORDER, checksum="xxhash64", node_size=16384), {}, "blocks", AS_IT_IS),
        (ORDER, {"verify": False}, "sprout", "not verified beforehand"),
        (ORDER, {"seed": SLACK, "bytes": 160 * MIB}, "sprout", "smaller than 364.0 MiB"),
        (ORDER, {"bytes": 200 * MIB}, "sprout", "smaller than 256.0 MiB"),
        (ORDER, {"seed": SLACK, "bytes": 140 * MIB}, "sprout", "smaller than 364.0 MiB"),
        (ORDER, {"bytes": None}, "blocks", AS_IT_IS),
        (ORDER, {"seed": ZONED}, "sprout", "newer than this method"),
        (replace(ORDER, checksum="sha256"), {}, "copy", "checksums xxhash64 for ever"),
        (replace(ORDER, node_size=4096), {}, "copy", "nodes of 16384 bytes for ever"),
        (replace(ORDER, filesystem="xfs"), {}, "copy", "xfs is wanted"),
        *((replace(ORDER, method=name), {}, name, "as asked for") for name in ("blocks", "sprout", "copy")),
    ],
)
def test_methods(order: Order, options: dict[str, Any], method: str, why: str) -> None:
    wish = wanted(order=order, verify=options.get("verify", True))
    chosen = install.choose(options.get("seed", SEED), wish, options.get("bytes", 400 * MIB))
    assert chosen.name == method
    assert why in chosen.why


def test_blocks_of_a_seed_with_unknown_features_are_never_taken() -> None:
    with pytest.raises(CowError, match="newer than this method"):
        install.choose(ZONED, wanted(order=replace(ORDER, method="blocks")), None)


@pytest.mark.parametrize("method", ["blocks", "sprout"])
def test_what_cannot_be_had_from_the_seed(method: str) -> None:
    with pytest.raises(CowError, match=f"cannot be had by {method}"):
        install.choose(SEED, wanted(order=replace(ORDER, method=method, checksum="sha256")), None)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"label": "with space"}, "without spaces"),
        ({"label": "cowherd-part"}, "not finished"),
        ({"label": "x" * 17, "filesystem": "ext4"}, "1 to 16 bytes"),
        ({"label": "x" * 13, "filesystem": "xfs"}, "1 to 12 bytes"),
        ({"label": "grün/blau"}, "'/' or"),
        ({"filesystem": "xfs", "method": "sprout"}, "not xfs"),
        ({"filesystem": "ext4", "metadata": "dup"}, "Leave them out"),
        ({"uuid": "1234"}, "is not a UUID"),
        ({"size": "large"}, "is not a size"),
        ({"target": "target.img"}, "not an absolute path"),
        ({"root": "../etc"}, "cannot be the name of a subvolume"),
    ],
)
def test_wishes_that_cannot_be_meant(params: dict[str, Any], words: str) -> None:
    usual = {key: option.get("default") for key, option in seed_install.ARGUMENTS.items()}
    given = {**usual, "seed": "/srv/media.seed", "root": "install", "target": "/dev/vdb", **params}
    with pytest.raises(CowError, match=words):
        Wanted.of(given)

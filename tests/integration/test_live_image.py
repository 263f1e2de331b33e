"""live_image on real trees: what is in an image, what is built again, what is refused, what a flipped bit shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.btrfs import Btrfs
from ansible.module_utils.cow.image import btrfs_file, workshop
from ansible.module_utils.cow.manifest import Manifest

from tests.support import images, loops, needs, seeds, trees, waiting
from tests.support.ansible import ROOT, FourRuns, Result, disturb_module, four_runs, run_module
from tests.support.incusd import Incusd
from tests.support.seeds import mounted, run

MODULE = "live_image"
RANDOM = Random(1).randbytes(6 << 20)
"""Data that does not compress, so that it is found in the image as it is."""
ZSTD_FRAME = b"\x28\xb5\x2f\xfd"
"""What a compressed extent begins with."""
NEEDLE = b"a-name-that-is-nowhere-else"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Trees: `install`, hostile; `live`, the same with changes; `plain`, which mkfs.btrfs loses nothing of."""
    needs.root("file systems are mounted")
    for program in ("mkfs.btrfs", "mksquashfs"):
        needs.program(program)
    with seeds.memory(tmp_path_factory.mktemp("sources")) as folder:
        for name in ("install", "live"):
            make_tree(folder / name)
        change(folder / "live")
        make_plain(folder / "plain")
        yield folder
        for name in ("install", "live"):
            trees.let_go(folder / name)


def make_tree(root: Path) -> None:
    trees.make_hostile(root, depth=40)
    (root / "etc").mkdir()
    (root / "etc/machine-id").write_text("of one machine alone\n")
    (root / "random").write_bytes(RANDOM)
    (root / "text").write_bytes(b"what compresses well\n" * 100_000)
    (root / "etc" / os.fsdecode(NEEDLE)).write_bytes(b"small")
    os.utime(root / "etc", ns=(1 << 60, 1 << 60))
    os.utime(root, ns=(1 << 60, 1 << 60))


def change(root: Path) -> None:
    (root / "live-only").write_bytes(Random(2).randbytes(1 << 20))
    (root / "setuid").unlink()
    with (root / "random").open("r+b") as file:
        file.write(b"changed at the beginning")


def make_plain(root: Path) -> None:
    root.mkdir()
    (root / "random").write_bytes(RANDOM)
    (root / "folder").mkdir()
    (root / "folder" / os.fsdecode(NEEDLE)).write_bytes(b"small")
    (root / "link").symlink_to("folder")
    os.link(root / "random", root / "folder/again")
    for path in (*root.rglob("*"), root):
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)


@pytest.fixture
def bench(sources: Path, tmp_path: Path) -> Iterator[Bench]:
    with seeds.memory(tmp_path) as folder:
        yield Bench(sources, folder)


@dataclass(frozen=True)
class Bench:
    sources: Path
    folder: Path

    @property
    def image(self) -> Path:
        return self.folder / "media.seed"

    def args(self, *roots: str, **args: Any) -> dict[str, Any]:
        """Those of the module; a root is written NAME, or NAME<BASE."""
        wanted = [
            {"name": name, "src": str(self.sources / name), **({"from": base} if base else {})}
            for name, _, base in (root.partition("<") for root in roots)
        ]
        return {"path": str(self.image), "level": 1, **({"roots": wanted} if roots else {}), **args}

    def run(self, *roots: str, **args: Any) -> Result:
        result = run_module(MODULE, self.args(*roots, **args))
        assert not result.get("failed"), result["msg"]
        return result

    def four(self, *roots: str, **args: Any) -> FourRuns:
        return four_runs(MODULE, self.args(*roots, **args), state=self.everything)

    def refused(self, *roots: str, **args: Any) -> str:
        """The message of a run that writes nothing, the same in check mode."""
        before = self.everything()
        in_check, in_run = (run_module(MODULE, self.args(*roots, **args), check) for check in (True, False))
        assert in_run.get("failed"), in_run
        # Each run takes a loop device that is free.
        assert len({re.sub(r"/dev/loop\d+", "the device", each["msg"]) for each in (in_check, in_run)}) == 1
        assert self.everything() == before
        return str(in_run["msg"])

    def everything(self) -> list[tuple[str, str]]:
        return [(str(path), digest_of(path)) for path in sorted(self.folder.iterdir()) if path.is_file()]

    @contextmanager
    def shown(self) -> Iterator[Path]:
        with mounted(self.image, self.folder / "shown", "ro,subvolid=5") as point:
            yield point

    def assert_holds(self, *names: str) -> None:
        """The image has these roots with all that the trees have, but for what is purged, and its description."""
        run("btrfs", "check", "--readonly", self.image)
        with self.shown() as point:
            assert {path.name for path in point.iterdir()} == {*names, "cowherd-media.json"}
            for name in names:
                assert manifest.differences(purged(manifest.of(self.sources / name)), manifest.of(point / name)) == []
            described = (point / "cowherd-media.json").read_bytes()
        assert described == self.image.with_name("media.seed.cowherd.json").read_bytes()
        assert [root["name"] for root in json.loads(described)["roots"]] == list(names)


def purged(tree: Manifest) -> Manifest:
    """The tree with an empty machine-id."""
    emptied = b"etc/machine-id"
    if emptied not in tree.contents:
        return tree
    entries = tuple(entry._replace(size=0, blocks=0) if entry.path == emptied else entry for entry in tree.tree.entries)
    nothing = sha256(b"0 0 " + 2 * sha256().digest()).digest()
    return Manifest(type(tree.tree)(**{**vars(tree.tree), "entries": entries}), {**tree.contents, emptied: nothing})


def digest_of(path: Path) -> str:
    digest = sha256(str(path.stat().st_size).encode())
    with path.open("rb") as file:
        for _, piece in manifest.data(file.fileno()):
            digest.update(piece)
    return digest.hexdigest()


def superblock(image: Path) -> str:
    return run("btrfs", "inspect-internal", "dump-super", image)


def test_two_roots_share_what_is_the_same(bench: Bench) -> None:
    runs = bench.four("install", "live<install", label="media")
    image = runs.do["image"]
    assert (image["method"], image["label"], image["checksum"], image["compression"]) == (
        "loop", "media", "xxhash64", "zstd:1",
    )  # fmt: skip
    assert "snapshot of install" in image["why"]
    assert image["seed"] is True
    install, live = image["roots"]
    assert (install["from"], live["from"]) == (None, "install")
    assert install["added_bytes"] > len(RANDOM)
    assert live["added_bytes"] < install["added_bytes"] / 3
    assert image["bytes"] == bench.image.stat().st_size < 120 << 20
    assert image["allocated_bytes"] <= image["bytes"]
    assert runs.check["image"] is None
    assert runs.again["image"] == image
    assert bench.image.stat().st_mode & 0o777 == 0o600
    assert "SEEDING" in superblock(bench.image)
    bench.assert_holds("install", "live")


def test_equal_files_are_there_once(bench: Bench) -> None:
    """In trees that know nothing of each other."""
    install, plain = bench.run("install", "plain", method="loop")["image"]["roots"]
    assert plain["from"] is None
    assert install["added_bytes"] > len(RANDOM) > 20 * plain["added_bytes"]
    bench.assert_holds("install", "plain")


def test_links_that_become_files_are_there_once(bench: Bench) -> None:
    """In a snapshot they are made anew, with the content that is there already."""
    first, second = bench.sources / "linked", bench.sources / "separate"
    for root in (first, second):
        root.mkdir()
        (root / "0").write_bytes(RANDOM[: 2 << 20])
    for number in range(1, 10):
        os.link(first / "0", first / str(number))
        (second / str(number)).write_bytes(RANDOM[: 2 << 20])
    linked, separate = bench.run("linked", "separate<linked")["image"]["roots"]
    assert linked["added_bytes"] > 2 << 20 > 2 * separate["added_bytes"]
    bench.assert_holds("linked", "separate")


def test_without_a_mount_where_nothing_is_lost(bench: Bench) -> None:
    runs = bench.four("plain")
    assert runs.do["image"]["method"] == "mkfs"
    assert runs.do["image"]["lost"] == []
    assert "mkfs: nothing is lost by it" in runs.check["diff"][0]["after"]
    assert "SEEDING" in superblock(bench.image)
    bench.assert_holds("plain")


def test_slack_of_mkfs_is_taken_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes room for too much where a lot compresses well. A size that is too small is followed by the next one."""
    tree = bench.sources / "compressible"
    tree.mkdir()
    for number in range(4):
        (tree / f"hex{number}").write_bytes(Random(number).randbytes(20 << 20).hex().encode())
    for path in (*tree.iterdir(), tree):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    plain = bench.run("compressible", method="mkfs")["image"]
    better = bench.run("compressible")["image"]
    assert (plain["method"], better["method"]) == ("mkfs", "mkfs")
    assert "grown anew" in better["why"]
    assert better["bytes"] < plain["bytes"] / 1.1
    bench.assert_holds("compressible")

    (bench.folder / "work").mkdir()
    filled = bench.image.rename(bench.folder / "filled")
    monkeypatch.setattr(btrfs_file, "sizes", lambda *_: iter((96 << 20, better["bytes"])))
    btrfs_file.compact(filled, bench.image, bench.folder / "work", Btrfs(run=workshop.tool))
    assert bench.image.stat().st_size == better["bytes"]
    bench.assert_holds("compressible")


def test_what_mkfs_loses_is_said(bench: Bench) -> None:
    tree = bench.sources / "lossy"
    make_plain(tree)
    os.utime(tree, ns=(1 << 60, 1 << 60))
    os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    (tree / "hole").touch()
    os.truncate(tree / "hole", 2 << 20)
    (tree / "nodump").touch()
    run("chattr", "+d", tree / "nodump")
    result = bench.run("lossy", method="mkfs")
    for word in ("fractions of seconds", "flags (chattr)", "device numbers", "holes"):
        assert any(loss.startswith(word) for loss in result["image"]["lost"]), word
        assert f"The image will lack {word}" in str(result["warnings"])
    run("btrfs", "check", "--readonly", bench.image)
    assert "without a mount" in bench.refused("install", "live<install", method="mkfs")
    assert bench.run("lossy")["image"]["why"].startswith("mkfs.btrfs would lose fractions of seconds")
    bench.assert_holds("lossy")


@pytest.mark.parametrize("method", ["mkfs", "loop"])
def test_what_is_mounted_in_a_source_is_left_out(bench: Bench, method: str) -> None:
    tree = bench.sources / f"mounted-{method}"
    make_plain(tree)
    (tree / "proc/under").mkdir(parents=True)
    with seeds.memory(tree / "proc") as point:
        (point / "large").write_bytes(os.urandom(8 << 20))
        for path in (point, tree):
            os.utime(path, (1_700_000_000, 1_700_000_000))
        bench.run(tree.name, method=method)
        bench.assert_holds(tree.name)
    with bench.shown() as shown:
        assert not list((shown / tree.name / "proc").iterdir())


def test_what_has_flags_is_purged_too(bench: Bench) -> None:
    tree = bench.sources / "flagged"
    make_plain(tree)
    (tree / "etc").mkdir()
    (tree / "etc/machine-id").write_text("of one machine alone\n")
    run("chattr", "+i", tree / "etc/machine-id", tree / "etc")
    try:
        for method in ("loop", "auto"):
            bench.run("flagged", method=method, rebuild=True)
            bench.assert_holds("flagged")
    finally:
        trees.let_go(tree)


def test_only_what_changed_is_built_again_and_the_diff_names_it(bench: Bench) -> None:
    tree = bench.sources / "changing"
    make_plain(tree)
    bench.run("changing", "plain")
    first = digest_of(bench.image)
    (tree / "added").write_text("new")
    announced = run_module(MODULE, bench.args("changing", "plain"), check=True)
    assert "changing: added is too many" in announced["diff"][0]["after"]
    assert digest_of(bench.image) == first
    done = bench.run("changing", "plain")
    assert done["diff"] == announced["diff"]
    bench.assert_holds("changing", "plain")
    again = bench.run("changing", "plain", checksum="crc32c")
    assert "option checksum: xxhash64" in again["diff"][0]["before"]
    assert "(crc32c)" in superblock(bench.image)


def test_the_same_inputs_give_the_same_but_for_what_is_said(bench: Bench) -> None:
    first = bench.run("plain")["image"]
    inside = bench.image.with_name("media.seed.cowherd.json").read_bytes()
    second = bench.run("plain", rebuild=True)["image"]
    assert first["uuid"] != second["uuid"]
    assert bench.image.with_name("media.seed.cowherd.json").read_bytes() == inside
    same = ("bytes", "used_bytes", "fingerprint", "roots", "varies")
    assert {key: first[key] for key in same} == {key: second[key] for key in same}
    assert first["varies"]


def test_archives_and_squashfs(bench: Bench, tmp_path: Path) -> None:
    tar = images.busybox_rootfs_tar(tmp_path)
    run("mksquashfs", bench.sources / "plain", bench.folder / "plain.squashfs", "-quiet", "-no-progress")
    roots = [
        {"name": "install", "src": str(tar)},
        {"name": "other", "src": str(bench.folder / "plain.squashfs"), "from": "install"},
    ]
    runs = bench.four(roots=roots)
    assert runs.do["image"]["method"] == "loop"
    with bench.shown() as point:
        assert (point / "install/bin/busybox").read_bytes() == images.BUSYBOX.read_bytes()
        wanted = manifest.of(bench.sources / "plain")
        assert manifest.differences(wanted, manifest.of(point / "other")) == []
    runs = bench.four(roots=roots[:1])
    assert runs.do["image"]["method"] in ("mkfs", "loop")
    assert "shows when it is unpacked" in runs.check["diff"][0]["after"]


def test_image_of_incus(incusd: Incusd, busybox_image: tuple[Path, Path], tmp_path: Path) -> None:
    incusd.run("image", "import", *map(str, busybox_image), "--alias", "base")
    source = {"image": "base", "socket": str(incusd.socket)}
    image = tmp_path / "media.seed"
    args = {"path": str(image), "roots": [{"name": "install", "incus": source}], "level": 1}
    runs = four_runs(MODULE, args)
    assert "image base of Incus (install)" in runs.do["steps"][0]
    assert runs.do["image"]["roots"][0]["inodes"] > 10
    with mounted(image, tmp_path / "shown", "ro,subvol=install") as point:
        assert (point / "bin/busybox").read_bytes() == images.BUSYBOX.read_bytes()


CHECKSUMS = ("crc32c", "xxhash64", "sha256", "blake2b")


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_flipped_bits_are_found_and_named(bench: Bench, checksum: str) -> None:
    bench.run("install", "live<install", checksum=checksum)
    assert f"({checksum.replace('64', '').replace('blake2b', 'blake2')}" in superblock(bench.image)
    before = bench.everything()
    verified = bench.run(state="verified")
    assert verified["changed"] is False
    assert verified["verified"]["checksum"] == checksum
    assert verified["verified"]["data_bytes"] > len(RANDOM)
    assert bench.everything() == before
    good = bench.image.read_bytes()

    flip(bench.image, good, RANDOM[3 << 20 : (3 << 20) + 4096])
    message = bench.refused(state="verified")
    assert f"are not what their checksums ({checksum}) say: 1. Hit: install:/random, live:/random." in message

    flip(bench.image, good, Random(2).randbytes(4096))
    message = bench.refused(state="verified")
    assert "Hit: live:/live-only." in message

    flip(bench.image, good, NEEDLE)
    message = bench.refused(state="verified")
    assert "damaged blocks of metadata: " in message
    assert "install:/" in message


def test_every_file_that_a_flipped_bit_hits_is_named(bench: Bench) -> None:
    """Of a compressed extent, and of one that two files share, which are no links of each other."""
    tree = bench.sources / "shared"
    tree.mkdir()
    (tree / "one").write_bytes(RANDOM)
    (tree / "two").write_bytes(RANDOM)
    (tree / "compressed").write_bytes(Random(3).randbytes(2 << 20).hex().encode())
    assert bench.run("shared", method="loop")["image"]["used_bytes"] < len(RANDOM) + (4 << 20)
    good = bench.image.read_bytes()

    flip(bench.image, good, RANDOM[1 << 20 : (1 << 20) + 4096])
    assert "say: 1. Hit: shared:/one, shared:/two." in bench.refused(state="verified")

    frames = [place for place in range(0, len(good), 4096) if good.startswith(ZSTD_FRAME, place)]
    flip(bench.image, good, good[frames[0] : frames[0] + 4096])
    assert "Hit: shared:/compressed." in bench.refused(state="verified")


def flip(image: Path, good: bytes, wanted: bytes) -> None:
    """Flip a bit wherever these bytes are in the image: of metadata, old copies may be in it as well."""
    content = bytearray(good)
    place = good.find(wanted)
    assert place >= 0
    while place >= 0:
        content[place + 7] ^= 1
        place = good.find(wanted, place + 1)
    image.write_bytes(content)


FAILING = """\
#!{python}
import os, pathlib, subprocess, sys
status = subprocess.run(["{btrfstune}", *sys.argv[1:]]).returncode
image = pathlib.Path(sys.argv[-1])
content = image.read_bytes()
place = content.index({wanted!r})
with image.open("r+b") as file:
    os.pwrite(file.fileno(), bytes([content[place] ^ 1]), place)
sys.exit(status)
"""
"""Instead of the last tool that touches an image; when it has ended, the disk has lost one bit of what was written."""


def test_an_image_that_is_damaged_when_it_was_built_does_not_take_the_place_of_the_old_one(bench: Bench) -> None:
    tree = bench.sources / "failing"
    make_plain(tree)
    assert bench.run("failing")["image"]["verified"] is True
    before = bench.everything()
    programs = bench.sources / "programs"
    programs.mkdir()
    tool = programs / "btrfstune"
    wanted = RANDOM[1 << 20 : (1 << 20) + 64]
    tool.write_text(FAILING.format(python=sys.executable, btrfstune=shutil.which("btrfstune"), wanted=wanted))
    tool.chmod(0o755)
    failing = {"PATH": f"{programs}:{os.environ['PATH']}"}
    (tree / "added").write_text("new")
    for path in (tree / "added", tree):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    for _ in range(2):  # nothing is forgotten by the run after that
        refused = run_module(MODULE, bench.args("failing"), environment=failing)
        assert "was left as it was" in refused["msg"]
        assert "Hit: failing:/folder/again, failing:/random." in refused["msg"]
        assert bench.everything() == before
        assert not (bench.folder / ".media.seed.cowherd-build").exists()
    taken = run_module(MODULE, bench.args("failing", verify=False), environment=failing)
    assert taken["image"]["verified"] is False
    assert "Hit: failing:/folder/again, failing:/random." in bench.refused(state="verified")
    assert bench.run("failing", rebuild=True)["image"]["verified"] is True
    bench.assert_holds("failing")


def test_damage_outside_of_files(bench: Bench) -> None:
    bench.run("install")
    good = bench.image.read_bytes()
    mirror = bytearray(good)
    mirror[(64 << 20) + 0x200] ^= 1
    bench.image.write_bytes(mirror)
    assert "damaged copies of the superblock: 1. No file is hit." in bench.refused(state="verified")
    first = bytearray(good)
    first[(64 << 10) + 0x200] ^= 1
    bench.image.write_bytes(first)
    assert "is damaged, or this kernel cannot mount it" in bench.refused(state="verified")
    bench.image.write_bytes(good[:-4096])
    assert "cut short" in bench.refused(state="verified")
    bench.image.write_bytes(b"nothing of the sort")
    assert "is not a btrfs" in bench.refused(state="verified")
    bench.image.unlink()
    assert "cannot be looked at" in bench.refused(state="verified")


def test_verifies_a_device(bench: Bench) -> None:
    bench.run("plain")
    with attached(bench.image) as device:
        assert bench.run(path=device, state="verified")["verified"]["data_bytes"] >= len(RANDOM)


@contextmanager
def attached(path: Path, *options: str) -> Iterator[str]:
    device = run("losetup", "--find", "--show", *options, path).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)
        waiting.until(lambda: not run("losetup", "--associated", path))


@contextmanager
def sprout(bench: Bench) -> Iterator[None]:
    """A file system grown out of the image, mounted meanwhile."""
    disk = bench.folder / "disk"
    with disk.open("wb") as file:
        file.truncate(256 << 20)
    point = bench.folder / "grown"
    point.mkdir()
    with attached(bench.image, "--read-only") as seed, attached(disk) as device:
        run("mount", "-o", "ro", seed, point)
        try:
            run("btrfs", "device", "add", "--nodiscard", device, point)
            yield
        finally:
            run("umount", point)


def test_a_seed_that_is_needed_is_neither_replaced_nor_deleted(bench: Bench) -> None:
    bench.run("plain")
    with sprout(bench):
        for args in ({"state": "absent"}, {"roots": bench.args("plain")["roots"], "level": 2}):
            message = bench.refused(**args)
            assert "is the seed of file systems that are mounted on this host" in message
        bench.refused("plain", seed=False)
        assert not bench.run("plain")["changed"]
        assert bench.run(state="absent", force=True)["changed"]
    assert not list(bench.folder.glob("media.seed*"))


def test_the_seed_flag(bench: Bench) -> None:
    bench.run("plain")
    assert "would destroy all file systems that were grown from" in bench.refused("plain", seed=False)
    runs = bench.four("plain", seed=False, force=True)
    assert runs.do["image"]["seed"] is False
    assert "SEEDING" not in superblock(bench.image)
    assert bench.four("plain").do["steps"] == [f"set the seed flag of {bench.image}"]
    bench.assert_holds("plain")
    assert "image" in bench.run("plain", seed=False, rebuild=True, method="loop", force=True)
    assert "SEEDING" not in superblock(bench.image)


def test_what_is_not_ours_stays(bench: Bench) -> None:
    bench.image.write_text("precious")
    assert "overwrite" in bench.refused("plain")
    assert "overwrite" in bench.refused(state="absent")
    bench.four("plain", overwrite=True)
    assert bench.four("plain", mode="0644").do["steps"] == [f"set the mode of {bench.image} to 0644"]
    with bench.image.open("ab") as file:
        file.write(b"more")
    assert "overwrite" in bench.refused("plain")
    assert "belongs to other work" in run_module(
        "rootfs_image", {"path": str(bench.image), "state": "absent", "overwrite": True}
    )["msg"]  # fmt: skip
    bench.four(state="absent", overwrite=True)
    assert not list(bench.folder.iterdir())


def test_what_is_beside_and_not_ours_stays(bench: Bench) -> None:
    """But for what is replaced where that is allowed."""
    beside = {name: bench.folder / f"media.seed.{name}" for name in ("cowherd.json", "verity", "roothash.p7s")}
    for path in beside.values():
        path.write_text("precious")
    assert f"would destroy {beside['cowherd.json']}, which is not of the image" in bench.refused("plain")
    assert not bench.run(state="absent")["changed"]
    bench.four("plain", overwrite=True)
    bench.assert_holds("plain")
    bench.run("plain", level=2)
    bench.four(state="absent")
    assert {path.name: path.read_text() for path in bench.folder.iterdir() if path.is_file()} == {
        "media.seed.verity": "precious",
        "media.seed.roothash.p7s": "precious",
    }


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"roots": []}, "has nothing in it"),
        ({"roots": [{"name": "a", "src": "/"}, {"name": "a", "src": "/"}]}, "Two roots are called a"),
        ({"roots": [{"name": "a", "src": "/", "from": "b"}]}, "Before it there is: none"),
        ({"roots": [{"name": "../a", "src": "/"}]}, "../a"),
        ({"roots": [{"name": "a"}]}, "one of the following is required: src, incus"),
        ({"roots": [{"name": "a", "src": "/nowhere"}]}, "cannot be read"),
        ({"roots": [{"name": "cowherd-media.json", "src": "/"}]}, "Call the root otherwise"),
        ({"level": 16}, "Levels are 1 to 15"),
        ({"label": "a/b"}, "is none for btrfs"),
        ({"path": "relative"}, "not an absolute path"),
        ({"path": "/nowhere/image"}, "does not exist"),
        ({"purge": ["/etc"]}, "not a pattern"),
        ({"mode": "rw"}, "not a mode"),
    ],
)
def test_bad_input(bench: Bench, args: dict[str, Any], words: str) -> None:
    given = {**bench.args("plain"), **args}
    assert words in bench.refused(**{key: value for key, value in given.items() if key != "state"})


def test_no_room(bench: Bench) -> None:
    with loops.ext4(bench.folder / "small.img", bench.folder / "small", 16 << 20) as small:
        path = small / "media.seed"
        result = run_module(MODULE, bench.args("install", path=str(path)))
        assert "no room left" in result["msg"], result
        assert not [entry for entry in small.iterdir() if entry.name != "lost+found"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle(bench: Bench, number: signal.Signals) -> None:
    bench.run("plain")
    before = bench.everything()
    args = bench.args("install", "live<install")
    work = bench.folder / ".media.seed.cowherd-build"
    program = [sys.executable, "-P", ROOT / "tests/support/module_main.py", ROOT / f"library/{MODULE}.py"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write(json.dumps(args))
        process.stdin.close()
        while process.poll() is None and not (work / "tools/filled").exists():
            pass
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(number)
    waiting.until(lambda: not run("losetup", "--associated", work / "tools/filled"))
    assert bench.everything() == before
    assert work.exists() == (number == signal.SIGKILL)
    steps = bench.run("install", "live<install")["steps"]
    assert steps[0].startswith("remove" if number == signal.SIGKILL else "build")
    bench.assert_holds("install", "live")


def test_a_kill_between_the_renames_is_made_good_by_the_next_run(bench: Bench) -> None:
    """Of a build with fewer roots, and of a change of the flag, after which the image is the same one still."""

    def killed(change: int, *roots: str, **args: Any) -> str:
        name, ended = disturb_module(MODULE, bench.args(*roots, **args), bench.folder, change, signal.SIGKILL)
        assert ended == ("killed" if name else "done")
        return name

    plain = bench.sources / "copy"
    make_plain(plain)
    bench.run("plain", "copy")
    first = ("media.seed.cowherd", "media.seed.cowherd.json", "media.seed.cowherd.tree.0", "media.seed.cowherd.tree.1")
    done = [""]
    while name := killed(len(done), "plain"):
        done.append(name)
        bench.run("plain", "copy")
        bench.assert_holds("plain", "copy")
        assert {path.name for path in bench.folder.iterdir() if path.is_file()} == {"media.seed", *first}
    assert {"rename media.seed.cowherd", "remove media.seed.cowherd.tree.1", "rename media.seed"} < set(done)
    uuid = bench.run("plain")["image"]["uuid"]
    done = [""]
    while name := killed(len(done), "plain", seed=False, force=True):
        done.append(name)
        assert bench.run("plain")["image"]["uuid"] == uuid
        bench.assert_holds("plain")
    assert {"rename media.seed.cowherd", "rename media.seed"} < set(done)

"""seed_install on real seeds and devices: what is on the target afterwards, what is refused, and what a kill leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ansible.module_utils.cow import btrfs, lock, manifest
from ansible.module_utils.cow.errors import Busy, CowError
from ansible.module_utils.cow.image import btrfs_seed
from ansible.module_utils.cow.live import install
from ansible.module_utils.cow.manifest import Manifest

import seed_install
from tests.support import loops, needs, seeds, waiting
from tests.support.ansible import ROOT, FourRuns, Result, four_runs, run_module
from tests.support.seeds import mounted, run

MODULE = "seed_install"
MARK = b"cowherd: this installation is not finished"


@dataclass(frozen=True)
class Media:
    """A seed, the digest of its bytes, and what its root `install` has in it."""

    path: Path
    digest: str
    content: Manifest


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Media]:
    needs.root("file systems are mounted")
    for program in ("mkfs.btrfs", "mkfs.xfs"):
        needs.program(program)
    with seeds.memory(tmp_path_factory.mktemp("media")) as folder:
        path = seeds.make(folder / "media.seed", folder / "point")
        with mounted(path, folder / "point", "ro,subvol=install") as point:
            content = manifest.of(point)
        yield Media(path, digest_of(path), content)


@pytest.fixture
def bench(media: Media, tmp_path: Path) -> Iterator[Bench]:
    with seeds.memory(tmp_path) as folder:
        yield Bench(media, folder)
    assert digest_of(media.path) == media.digest, "the seed was written to"


@dataclass(frozen=True)
class Bench:
    media: Media
    folder: Path

    @property
    def target(self) -> Path:
        return self.folder / "target.img"

    def args(self, **args: Any) -> dict[str, Any]:
        given = {"seed": self.media.path, "root": "install", "target": self.target, "records": self.folder / "records"}
        return {key: str(value) if isinstance(value, Path) else value for key, value in {**given, **args}.items()}

    def run(self, **args: Any) -> Result:
        result = run_module(MODULE, self.args(**args))
        assert not result.get("failed"), result["msg"]
        return result

    def four(self, **args: Any) -> FourRuns:
        return four_runs(MODULE, self.args(**args), state=self.everything)

    def failed(self, **args: Any) -> str:
        result = run_module(MODULE, self.args(**args))
        assert result.get("failed"), result
        return str(result["msg"])

    def refused(self, **args: Any) -> str:
        """The message of a run that writes nothing, the same in check mode."""
        before = self.everything()
        in_check, in_run = (run_module(MODULE, self.args(**args), check) for check in (True, False))
        assert in_run.get("failed"), in_run
        assert in_check["msg"] == in_run["msg"]
        assert self.everything() == before
        return str(in_run["msg"])

    def everything(self) -> list[tuple[str, str]]:
        files = (path for path in (*self.folder.iterdir(), *self.folder.glob("records/*")) if path.is_file())
        return [(str(path), digest_of(path)) for path in sorted(files)]

    def assert_installed(self, target: Path | None = None) -> None:
        """All that the root has is on the target, and nothing else."""
        with mounted(target or self.target, self.folder / "shown") as point:
            found = manifest.of(point)
        assert manifest.differences(seeds.without_lost_found(found), self.media.content) == []

    def make_target(self, size: int = 400 << 20) -> Path:
        with self.target.open("wb") as file:
            file.truncate(size)
        return self.target


def digest_of(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        for _, piece in manifest.data(file.fileno()):
            digest.update(piece)
    return digest.hexdigest()


def identity(path: Path | str) -> dict[str, str]:
    said = run("blkid", "-p", "-o", "export", path)
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


@contextmanager
def loop_device(path: Path, *options: str) -> Iterator[str]:
    device = run("losetup", "--find", "--show", *options, path).strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)
        waiting.until(lambda: not run("losetup", "--associated", path))


of_each_method = pytest.mark.parametrize("method", ["blocks", "sprout"])


@of_each_method
def test_btrfs_into_a_new_file(bench: Bench, method: str) -> None:
    runs = bench.four(size="300MiB", **({"method": method} if method == "sprout" else {}))
    installed = runs.do["installed"]
    assert (installed["method"], installed["filesystem"], installed["label"]) == (method, "btrfs", "install")
    assert installed["bytes"] > 20 << 20
    assert installed["seconds"] > 0
    assert runs.again["installed"] == installed
    assert runs.check["installed"] is None
    there = identity(bench.target)
    assert (there["TYPE"], there["UUID"], there["LABEL"]) == ("btrfs", installed["uuid"], "install")
    assert installed["uuid"] != identity(bench.media.path)["UUID"]
    assert bench.target.stat().st_mode & 0o777 == 0o600
    bench.assert_installed()
    run("btrfs", "check", "--readonly", bench.target)
    with mounted(bench.target, bench.folder / "shown", "ro,subvolid=5") as point:
        assert [path.name for path in point.iterdir()] == ["install"]
        usage = run("btrfs", "filesystem", "usage", "--raw", point)
    assert re.search(rf"Device size:\s+{300 << 20}\n", usage)
    assert re.search(r"Device missing:\s+0\n", usage)
    with bench.target.open("rb") as file:
        assert not any(file.read(4096))


@of_each_method
def test_btrfs_onto_a_device_with_every_wish(bench: Bench, method: str) -> None:
    wished = str(uuid4())
    bench.make_target()
    with loop_device(bench.target, "--sector-size", "4096") as device:
        (bench.folder / "by-id").symlink_to(device)
        args = {"target": bench.folder / "by-id", "uuid": wished, "label": "Box-1", "metadata": "dup", "method": method}
        runs = bench.four(**args)
        assert runs.do["installed"]["target"] == device
        assert "other" in bench.refused(**args, root="other")
        assert "has this root already" in bench.refused(**{**args, "uuid": str(uuid4())})
        assert not bench.run(**{**args, "method": "auto"})["changed"]
    assert identity(bench.target)["UUID"] == wished
    assert identity(bench.target)["LABEL"] == "Box-1"
    with mounted(bench.target, bench.folder / "shown", "ro,subvolid=5") as point:
        profiles = run("btrfs", "filesystem", "df", point)
    assert "Metadata, DUP" in profiles
    assert "System, DUP" in profiles
    assert "Metadata, single" not in profiles
    bench.assert_installed()


@pytest.mark.parametrize("filesystem", ["ext4", "xfs"])
def test_other_file_systems(bench: Bench, filesystem: str) -> None:
    runs = bench.four(filesystem=filesystem, size="500MiB", label="root")
    assert runs.do["installed"]["method"] == "copy"
    assert filesystem in runs.do["installed"]["why"]
    assert runs.do["installed"]["bytes"] > 30 << 20
    there = identity(bench.target)
    assert (there["TYPE"], there["LABEL"], there["UUID"]) == (filesystem, "root", runs.do["installed"]["uuid"])
    bench.assert_installed()


def test_btrfs_by_copy_where_the_seed_has_other_checksums(bench: Bench) -> None:
    wishes = {"checksum": "sha256", "node_size": 32768, "metadata": "single"}
    assert "sha256 is wanted" in bench.refused(**wishes, method="sprout", size="400MiB")
    runs = bench.four(**wishes, size="400MiB")
    assert runs.do["installed"]["method"] == "copy"
    assert "for ever" in runs.do["installed"]["why"]
    dumped = run("btrfs", "inspect-internal", "dump-super", bench.target)
    assert "(sha256)" in dumped
    assert "nodesize\t\t32768" in dumped
    bench.assert_installed()


def test_wishes_that_the_seed_fulfils(bench: Bench) -> None:
    result = bench.run(checksum="xxhash64", node_size=16384, size="300MiB")
    assert result["installed"]["method"] == "blocks"


SEEDS = {
    "crc32c": ("--csum", "crc32c"),
    "sha256": ("--csum", "sha256"),
    "blake2b": ("--csum", "blake2b"),
    "metadata twice": ("-m", "dup"),
    "large nodes": ("--nodesize", "65536"),
    "mixed": ("--mixed", "-m", "single", "-d", "single"),
    "block group tree": ("-O", "block-group-tree"),
}
"""What mkfs.btrfs can be told; the others have checksums xxhash64."""


@of_each_method
@pytest.mark.parametrize("options", SEEDS.values(), ids=SEEDS)
def test_other_seeds(bench: Bench, options: tuple[str, ...], method: str) -> None:
    image, point = bench.folder / "other.seed", bench.folder / "point"
    seeds.make(image, point, *options, content=2 << 20)
    with mounted(image, point, "ro,subvol=install"):
        content = manifest.of(point)
    other = Bench(Media(image, digest_of(image), content), bench.folder)
    assert other.run(size="300MiB", method=method)["installed"]["method"] == method
    before, after = btrfs.superblock(image), btrfs.superblock(bench.target)
    assert before
    assert after
    assert (after.checksum, after.node_bytes, after.devices) == (before.checksum, before.node_bytes, 1)
    assert not after.seed
    other.assert_installed()
    run("btrfs", "check", "--readonly", "--check-data-csum", bench.target)


def test_what_was_installed_can_be_a_seed(bench: Bench) -> None:
    """Its UUID is its own, in all of its blocks, so that nothing ties it to the seed that it came from."""
    bench.run(size="300MiB", method="blocks")
    assert "metadata_uuid\t\t00000000-0000-0000-0000-000000000000" in run(
        "btrfs", "inspect-internal", "dump-super", bench.target
    )
    run("btrfstune", "-S", "1", bench.target)
    next_one = bench.folder / "next.img"
    with mounted(bench.media.path, bench.folder / "at the same time"):
        assert bench.run(seed=bench.target, target=next_one, size="400MiB")["changed"]
    bench.assert_installed(next_one)


@pytest.mark.parametrize("filesystem", ["btrfs", "ext4"])
def test_seed_that_somebody_else_reads(bench: Bench, filesystem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for before the target is touched, and when that takes too long nothing was."""
    run("mkfs.ext4", "-q", bench.make_target(500 << 20))
    usual = {key: option.get("default") for key, option in seed_install.ARGUMENTS.items()}
    wanted = install.Wanted.of({**usual, **bench.args(filesystem=filesystem, replace="ext4", verify=False)})
    found = install.observe(wanted)
    (step,) = install.plan(found, wanted).steps
    before = bench.everything()
    monkeypatch.setattr(btrfs_seed, "_PATIENCE", 0.2)
    with lock.held(f"btrfs seed {found.seed.superblock.uuid}"):
        with pytest.raises(Busy, match=f"process {os.getpid()}.* btrfs seed {found.seed.superblock.uuid}"):
            step.run()
        assert bench.everything() == before
    step.run()
    bench.assert_installed()


def test_read_only_root_becomes_writable(bench: Bench) -> None:
    assert bench.run(root="fixed", size="300MiB")["installed"]["label"] == "fixed"
    bench.assert_installed()
    with mounted(bench.target, bench.folder / "shown", "rw") as point:
        (point / "new").touch()
    with mounted(bench.target, bench.folder / "shown", "ro,subvolid=5") as point:
        assert [path.name for path in point.iterdir()] == ["fixed"]


@of_each_method
def test_two_at_a_time_from_one_seed(bench: Bench, method: str) -> None:
    targets = [bench.folder / f"{number}.img" for number in range(2)]
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda target: bench.run(target=target, size="300MiB", method=method), targets))
    assert [result.get("msg") for result in results] == [None, None]
    assert results[0]["installed"]["uuid"] != results[1]["installed"]["uuid"]
    for target in targets:
        bench.assert_installed(target)


def test_what_was_written_since_stays(bench: Bench) -> None:
    bench.run(size="300MiB")
    with mounted(bench.target, bench.folder / "shown", "rw") as point:
        (point / "precious").write_text("written later")
    assert not bench.run(size="300MiB")["changed"]
    message = bench.refused(label="other")
    assert "labelled 'install'" in message
    with mounted(bench.target, bench.folder / "shown") as point:
        assert (point / "precious").read_text() == "written later"


def test_destroys_only_what_is_named(bench: Bench) -> None:
    run("mkfs.ext4", "-q", "-L", "precious", bench.make_target())
    there = identity(bench.target)["UUID"]
    for replace in (None, str(uuid4()), "precious"):
        message = bench.refused(**({"replace": replace} if replace else {}))
        assert f"ext4 {there} labelled 'precious'" in message
        assert f"set `replace` to {there} or ext4" in message
    runs = bench.four(replace=there)
    assert runs.do["diff"][0]["before"] == f"content: ext4 {there} labelled 'precious'\n"
    bench.assert_installed()
    # What is named next must be what is there now.
    assert "has something on it" in bench.refused(replace=there, label="other")
    bench.run(replace="btrfs", label="other")
    assert identity(bench.target)["LABEL"] == "other"


@of_each_method
def test_the_uuid_that_was_there(bench: Bench, method: str) -> None:
    """New media under a UUID that is written down elsewhere."""
    run("mkfs.ext4", "-q", bench.make_target())
    there = identity(bench.target)["UUID"]
    bench.run(replace=there, uuid=there, method=method)
    assert identity(bench.target) | {"UUID": there, "TYPE": "btrfs"} == identity(bench.target)
    bench.run(replace=there, uuid=there, method=method, label="again")
    bench.assert_installed()


@pytest.mark.parametrize("wishes", [{}, {"method": "sprout"}, {"method": "copy"}, {"filesystem": "ext4"}])
def test_a_uuid_that_another_device_has(bench: Bench, wishes: dict[str, str]) -> None:
    other = bench.folder / "other"
    with other.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.ext4", "-q", other)
    there = identity(other)["UUID"]
    with loop_device(other) as device:
        assert f"{device} has the UUID {there} already" in bench.refused(uuid=there, size="500MiB", **wishes)


def test_a_uuid_that_was_given_to_another_target(bench: Bench) -> None:
    """Neither is what is there destroyed when another installation is cut off, nor taken for what another one has."""
    wished, first, second = str(uuid4()), bench.folder / "first", bench.folder / "second"
    same = {"uuid": wished, "filesystem": "ext4", "size": "500MiB"}
    bench.run(target=first, **same)
    message = bench.refused(target=second, **same, label="another")
    assert f"Another root was installed with the UUID {wished}, on {first}" in message
    (bench.folder / "records" / f"{wished}.json").unlink()
    bench.run(target=second, **same, label="another")
    assert "labelled 'install'" in bench.refused(target=first, **same)
    record = bench.folder / "records" / f"{wished}.json"
    written = json.loads(record.read_text())
    assert "unfinished" not in record.read_text()
    killed_while_copying(bench.args(target=bench.folder / "third", **same, label="another"))
    assert record.read_text() != json.dumps(written)
    assert "labelled 'install'" in bench.refused(target=first, **same)


def test_what_came_onto_a_target_that_is_marked(bench: Bench) -> None:
    """Whoever makes a partition table leaves the mark where it is."""
    entry = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 200_000)
    with bench.make_target().open("r+b") as file:
        file.write(MARK.ljust(446, b"\0") + entry.ljust(64, b"\0") + b"\x55\xaa")
    assert "dos" in bench.refused()
    with bench.make_target().open("r+b") as file:
        file.write(MARK)
    run("mkswap", "--label", "precious", bench.target)
    with bench.target.open("r+b") as file:
        file.write(MARK)
    assert "swap" in bench.refused()


def test_seed_that_is_replaced_meanwhile(bench: Bench) -> None:
    """As live_image publishes a new one: what was looked at is not what is there."""
    run("mkfs.ext4", "-q", bench.make_target(500 << 20))
    path = bench.folder / "published.seed"
    path.write_bytes(bench.media.path.read_bytes())
    usual = {key: option.get("default") for key, option in seed_install.ARGUMENTS.items()}
    wanted = install.Wanted.of({**usual, **bench.args(seed=path, replace="ext4", verify=False, method="blocks")})
    (step,) = install.plan(install.observe(wanted), wanted).steps
    seeds.make(bench.folder / "new.seed", bench.folder / "point", content=2 << 20).replace(path)
    before = bench.everything()
    with pytest.raises(CowError, match="was replaced meanwhile"):
        step.run()
    assert bench.everything() == before


@pytest.mark.parametrize("place", [100, 700_000, 300 << 20])
def test_data_that_nothing_recognises(bench: Bench, place: int) -> None:
    with bench.make_target().open("r+b") as file:
        file.seek(place)
        file.write(b"my keys")
    message = bench.refused()
    assert "data that no tool recognises" in message
    assert "`replace` to data" in message
    assert bench.run(replace="data")["changed"]


def test_disk_whose_beginning_was_overwritten(bench: Bench) -> None:
    """The copy of its partition table is at its end."""
    with bench.make_target().open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"EFI PART\0\0\1\0\x5c\0\0\0")
    with loop_device(bench.target) as device:
        assert "has something on it" in bench.refused(target=device)
        assert bench.run(target=device, replace="data")["changed"]


def test_label_that_somebody_else_gave(bench: Bench) -> None:
    """What is unfinished is known by the record, so that a file system of somebody else is not taken for it."""
    run("mkfs.ext4", "-q", "-L", "cowherd-part", bench.make_target())
    there = identity(bench.target)["UUID"]
    assert f"ext4 {there} labelled 'cowherd-part'" in bench.refused()
    assert "Set `label` to another one" in bench.refused(label="cowherd-part", replace="ext4")
    bench.run(replace="ext4", filesystem="xfs", method="copy")
    run("xfs_admin", "-L", "cowherd-part", bench.target)
    assert not bench.run(filesystem="xfs")["changed"]
    assert "cowherd-part" in bench.refused(filesystem="ext4")


def test_partition_table(bench: Bench) -> None:
    entry = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 200_000)
    with bench.make_target().open("r+b") as file:
        file.write((struct.pack("<440xI2x", 0x1234ABCD) + entry).ljust(510, b"\0") + b"\x55\xaa")
    assert "dos 1234abcd" in bench.refused(replace="gpt")
    bench.run(replace="1234abcd")
    bench.assert_installed()


def test_targets_in_use(bench: Bench) -> None:
    run("mkfs.ext4", "-q", bench.make_target())
    with loop_device(bench.target) as device:
        assert f"in use by {device}" in bench.refused(replace="ext4")
    with mounted(bench.target, bench.folder / "shown", "rw"):
        (device,) = [line.split(":")[0] for line in run("losetup", "--associated", bench.target).splitlines()]
        assert "mounted on" in bench.refused(target=device, replace="ext4")


def test_too_small_in_figures(bench: Bench) -> None:
    bench.make_target(20 << 20)
    message = bench.refused()
    assert f"{20 << 20} bytes" in message
    (least,) = [int(word) for word in message.split() if word.isdigit() and int(word) > 96 << 20]
    assert f"needs {least} bytes" in message
    bench.target.unlink()
    bench.four(size=str(least))
    bench.assert_installed()


def test_a_file_where_there_is_no_room_for_it(bench: Bench) -> None:
    with loops.ext4(bench.folder / "small.img", bench.folder / "small", 16 << 20) as small:
        message = bench.refused(target=str(small / "target"), size="1GiB")
        assert "Root install of the seed needs" in message
        assert not (small / "target").exists()
        there = small / "target"
        with there.open("wb") as file:
            file.truncate(1 << 30)
        assert "Root install of the seed needs" in bench.failed(target=str(there))
        assert not there.stat().st_blocks


def test_a_file_where_there_is_room_for_what_is_written(bench: Bench) -> None:
    """Not for all of the file, which has holes."""
    with loops.ext4(bench.folder / "small.img", bench.folder / "small", 160 << 20) as small:
        assert bench.run(target=str(small / "target"), size="1GiB")["installed"]["method"] == "blocks"
        bench.assert_installed(small / "target")


def test_too_small_to_copy_to(bench: Bench) -> None:
    message = bench.refused(filesystem="ext4", size="30MiB")
    (least,) = [int(word) for word in message.split() if word.isdigit() and int(word) > 31 << 20]
    bench.run(filesystem="ext4", size=str(least))
    bench.assert_installed()


@pytest.fixture(scope="module")
def many(media: Media) -> Iterator[Media]:
    """A seed with many small files, folders and links, which take much more than the bytes in them."""
    image = media.path.with_name("many.seed")
    yield Media(image, *make_many(image, media.path.with_name("point"), "single"))
    image.unlink()


def make_many(image: Path, point: Path, metadata: str) -> tuple[str, Manifest]:
    with image.open("wb") as file:
        file.truncate(400 << 20)
    run("mkfs.btrfs", "--quiet", "-m", metadata, "-d", "single", image)
    with mounted(image, point, "rw"):
        root = point / "install"
        run("btrfs", "--quiet", "subvolume", "create", root)
        for number in range(20_000):
            folder = root / str(number % 400)
            folder.mkdir(exist_ok=True)
            (folder / f"file-{number}").write_bytes(b"x" * 500)
            if number % 4 == 0:
                (folder / f"link-{number}").symlink_to("y" * 20)
        content = manifest.of(root)
    run("btrfstune", "-f", "-S", "1", image)
    return digest_of(image), content


@pytest.mark.parametrize("filesystem", ["ext4", "xfs", "btrfs"])
def test_many_small_files_in_the_least_that_there_must_be(bench: Bench, many: Media, filesystem: str) -> None:
    of_many = Bench(many, bench.folder)
    wishes = {"filesystem": filesystem, "method": "copy", "verify": False}
    message = of_many.refused(**wishes, size="10MiB")
    (least,) = [int(word) for word in message.split() if word.isdigit() and int(word) > 20 << 20]
    of_many.run(**wishes, size=str(least))
    of_many.assert_installed()
    usable = {"ext4": 1.6, "xfs": 4, "btrfs": 4}[filesystem]
    assert least < usable * 20_000 * 4096


@of_each_method
def test_much_metadata_twice(bench: Bench, many: Media, method: str) -> None:
    """In the least that there must be, also of a seed that has it twice itself."""
    image = bench.folder / "dup.seed"
    doubled = Media(image, *make_many(image, bench.folder / "point", "dup"))
    for media, wishes in ((many, {"metadata": "dup"}), (doubled, {}), (doubled, {"metadata": "single"})):
        of_many = Bench(media, bench.folder)
        message = of_many.refused(**wishes, method=method, size="10MiB")
        (least,) = [int(word) for word in message.split() if word.isdigit() and int(word) > 20 << 20]
        of_many.run(**wishes, method=method, size=str(least))
        of_many.assert_installed()
        with mounted(bench.target, bench.folder / "shown") as point:
            assert ("Metadata, DUP" in run("btrfs", "filesystem", "df", point)) == (wishes.get("metadata") != "single")
        bench.target.unlink()


def test_sources_that_are_no_seed(bench: Bench) -> None:
    size = {"size": "300MiB"}
    assert "is not a btrfs" in bench.refused(seed=__file__, **size)
    assert "cannot be looked at" in bench.refused(seed=bench.folder / "nothing", **size)
    plain = bench.folder / "plain"
    with plain.open("wb") as file:
        file.truncate(200 << 20)
    run("mkfs.btrfs", "--quiet", plain)
    assert "not a seed" in bench.refused(seed=plain, **size)
    short = bench.folder / "short"
    short.write_bytes(bench.media.path.read_bytes()[:-4096])
    assert "cut short" in bench.refused(seed=short, **size)
    assert "It has: fixed, install, live" in bench.refused(root="nothing", **size)
    assert "Set `size`" in bench.refused()
    assert "no device" in bench.refused(target="/dev/cowherd-none")


def test_target_that_is_the_seed(bench: Bench) -> None:
    assert "is the seed itself" in bench.refused(target=bench.media.path, replace="btrfs")
    (bench.folder / "copy").write_bytes(bench.media.path.read_bytes())
    assert "a copy of the seed" in bench.refused(target=bench.folder / "copy", replace="btrfs")


def test_seed_that_is_mounted(bench: Bench) -> None:
    with mounted(bench.media.path, bench.folder / "shown"):
        assert "is mounted elsewhere" in bench.refused(size="300MiB")


def damaged(bench: Bench) -> Path:
    """A copy of the seed with one bit of a file flipped."""
    path = bench.folder / "damaged"
    content = bytearray(bench.media.path.read_bytes())
    with mounted(bench.media.path, bench.folder / "shown", "ro,subvol=install") as point:
        wanted = (point / "random").read_bytes()[8 << 20 : (8 << 20) + 4096]
    content[content.index(wanted) + 7] ^= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("filesystem", ["btrfs", "xfs"])
def test_damaged_seed(bench: Bench, filesystem: str) -> None:
    """Found before anything is written; check mode does not look. What is installed already stays as it is."""
    args = {"seed": damaged(bench), "filesystem": filesystem, "replace": "ext4"}
    run("mkfs.ext4", "-q", bench.make_target(500 << 20))
    before = bench.everything()
    assert run_module(MODULE, bench.args(**args), check=True)["changed"]
    assert "are not what their checksums (xxhash64) say: 1. Hit: fixed:/random" in bench.failed(**args)
    assert bench.everything() == before
    bench.target.unlink()
    before = bench.everything()
    bench.failed(**args, size="500MiB")
    assert bench.everything() == before


def test_damaged_seed_that_is_not_verified(bench: Bench) -> None:
    """Found while it moves, by the method that is chosen then. The target says so, and a good seed completes it."""
    result = run_module(MODULE, bench.args(seed=damaged(bench), size="300MiB", verify=False))
    assert "is damaged" in result["msg"]
    assert bench.target.read_bytes()[: len(MARK)] == MARK
    assert "unfinished" in bench.run()["steps"][0]
    bench.assert_installed()


def test_a_device_that_fails_in_the_middle(bench: Bench) -> None:
    """It is told, the target says that it is unfinished, and another run completes it."""
    narrow = bench.folder / "narrow"
    narrow.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=12m", "cowherd-test", narrow)
    try:
        backing = narrow / "target.img"
        with backing.open("wb") as file:
            file.truncate(500 << 20)
        with loop_device(backing) as device:
            message = bench.failed(target=device, method="blocks")
            assert f"{device} not be written: No space left on device. The target is marked as unfinished." in message
            assert marked(Path(device))
            run("mount", "-o", "remount,size=600m", narrow)
            (title,) = bench.run(target=device, method="blocks")["steps"]
            assert title.endswith("where an unfinished installation is")
            bench.assert_installed(Path(device))
    finally:
        run("umount", narrow)


def marked(target: Path) -> bool:
    return target.exists() and target.open("rb").read(len(MARK)) == MARK


def grown(target: Path) -> bool:
    return marked(target) and identity_or_none(target).get("TYPE") == "btrfs"


def being_filled(target: Path) -> bool:
    return identity_or_none(target).get("LABEL") == "cowherd-part"


def identity_or_none(target: Path) -> dict[str, str]:
    command = ["blkid", "-p", "-o", "export", target]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)


@pytest.mark.parametrize(
    ("filesystem", "method", "moment", "number"),
    [
        ("btrfs", "blocks", marked, signal.SIGKILL),
        ("btrfs", "blocks", grown, signal.SIGKILL),
        ("btrfs", "blocks", grown, signal.SIGTERM),
        ("btrfs", "sprout", marked, signal.SIGKILL),
        ("btrfs", "sprout", grown, signal.SIGKILL),
        ("btrfs", "sprout", grown, signal.SIGTERM),
        ("ext4", "auto", being_filled, signal.SIGKILL),
        ("xfs", "auto", being_filled, signal.SIGTERM),
    ],
)
def test_killed_in_the_middle(
    bench: Bench, filesystem: str, method: str, moment: Callable[[Path], bool], number: signal.Signals
) -> None:
    wishes = {"uuid": str(uuid4())} if method == "blocks" else {}
    killed(bench.args(filesystem=filesystem, method=method, size="500MiB", **wishes), moment, number)
    assert moment(bench.target)
    (title,) = bench.run(filesystem=filesystem, method=method, **wishes)["steps"]
    assert title.endswith("where an unfinished installation is")
    bench.assert_installed()


@pytest.mark.parametrize("wishes", [{"filesystem": "ext4"}, {"method": "copy"}], ids=["ext4", "btrfs"])
def test_a_copy_that_was_cut_off_is_known_without_records(bench: Bench, wishes: dict[str, str]) -> None:
    """They are in memory where an installation is made from live media."""
    killed_while_copying(bench.args(size="500MiB", **wishes))
    (title,) = bench.run(records=bench.folder / "others", **wishes)["steps"]
    assert title.endswith("where an unfinished installation is")
    bench.assert_installed()


def killed_while_copying(args: dict[str, Any]) -> None:
    killed(args, lambda target: being_filled(target) and marked(target), signal.SIGKILL)


def killed(args: dict[str, Any], moment: Callable[[Path], bool], number: signal.Signals) -> None:
    target = Path(args["target"])
    program = [sys.executable, "-P", ROOT / "tests/support/module_main.py", ROOT / f"library/{MODULE}.py"]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        process.stdin.write(json.dumps(args))
        process.stdin.close()
        while process.poll() is None and not moment(target):
            pass
        assert process.poll() is None, "it ended before it could be killed"
        os.kill(process.pid, number)
    waiting.until(lambda: not run("losetup", "--associated", target))

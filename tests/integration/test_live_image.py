"""live_image on real trees: what is in an image, what is built again, what is refused, what a flipped bit shows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.manifest import Manifest

from tests.support import needs, seeds, trees
from tests.support.ansible import FourRuns, Result, four_runs, run_module
from tests.support.seeds import mounted, run

MODULE = "live_image"
RANDOM = Random(1).randbytes(6 << 20)
"""Data that does not compress, so that it is found in the image as it is."""
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
        assert in_check["msg"] == in_run["msg"]
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


def test_without_a_mount_where_nothing_is_lost(bench: Bench) -> None:
    runs = bench.four("plain")
    assert runs.do["image"]["method"] == "mkfs"
    assert runs.do["image"]["lost"] == []
    assert "mkfs: nothing of the trees is lost" in runs.check["diff"][0]["after"]
    assert "SEEDING" in superblock(bench.image)
    bench.assert_holds("plain")

"""Images of root file systems: the size of ext4 against the smallest that works, all formats against the bare tools.

Where matplotlib is installed the formats are drawn too, into docs/images.svg. It is in no environment of the project.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from module_utils.cow.image.ext4 import FEATURES
from tests.support import images
from tests.support.ansible import run_module
from tests.support.trees import let_go, make_hostile

from .timing import Timing, interleaved, milliseconds

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SMALL = int(os.environ.get("SMALL", "65000"))
"""How many tiny files that tree has; fewer for a look whether all of this still runs."""
DRAWING = Path(__file__).parents[1] / "docs" / "images.svg"
BLOCK = 4096
PRESETS = ("fast", "balanced", "small")
_OWN_INODES = 10
"""Those that ext4 has for itself."""
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "ext4": {"size": "+64MiB"},
    "squashfs": {},
    "erofs": {},
    "btrfs": {"method": "mkfs"},
}
_DEBIAN, _HOSTILE = "Debian", "deep, long names, ACLs, devices"


@dataclass(frozen=True)
class Variant:
    """One format with one preset. bare: the command that makes the same without the module, for a target."""

    format: str
    preset: str
    compressor: str
    bytes: int
    bare: Callable[[Path], list[Any]]

    @property
    def name(self) -> str:
        """It in words."""
        return f"{self.format} {self.preset}".strip()

    @property
    def options(self) -> dict[str, Any]:
        """What the module is told; of ext4 the size, so that the tool finds as much room."""
        return {"format": self.format, **_OPTIONS[self.format], **({"preset": self.preset} if self.preset else {})}


@dataclass(frozen=True)
class Timed:
    """Milliseconds for a variant, by the module, by the module that only looks, and by the bare tool."""

    variant: Variant
    module: Timing
    look: Timing
    bare: Timing

    @property
    def building(self) -> float:
        """What the module takes longer when it builds than when it only looks whether it has to."""
        return self.module.median - self.look.median


def measure() -> str:
    """Measure with a Debian tree, and trees that are hard to guess."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cowherd-benchmark-") as scratch:
        folder = Path(scratch)
        trees = _trees(folder)
        try:
            sizes = [_sizes(name, tree, folder) for name, tree in trees.items()]
        finally:
            let_go(trees[_HOSTILE])
        debian = trees[_DEBIAN]
        timed = _timed([_variant(kind, preset, debian, folder) for kind, preset in _variants()], debian, folder)
    return "\n\n".join([*_size_text(sizes), *_variant_text(timed)])


def _trees(folder: Path) -> Mapping[str, Path]:
    debian = folder / "debian"
    debian.mkdir()
    rootfs = images.debian_rootfs("trixie", ["systemd-sysv", "dbus", "systemd-resolved"])
    _run("tar", "--extract", "--numeric-owner", "--xattrs", "--file", rootfs, "--directory", debian)
    return {
        _DEBIAN: debian,
        f"{SMALL:,} files of 2 bytes": _tiny(folder / "tiny"),
        "three files of 300 MiB": _huge(folder / "huge"),
        "sparse and linked": _odd(folder / "odd"),
        _HOSTILE: _hostile(folder / "hostile"),
    }


def _tiny(tree: Path) -> Path:
    for number in range(SMALL):
        parent = tree / f"d{number % 100}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"f{number}").write_bytes(b"2\n")
    return tree


def _huge(tree: Path) -> Path:
    tree.mkdir()
    for number in range(3):
        with (tree / f"huge{number}").open("wb") as file:
            for _ in range(300):
                file.write(os.urandom(1 << 20))
    return tree


def _hostile(tree: Path) -> Path:
    make_hostile(tree, depth=40)
    return tree


def _odd(tree: Path) -> Path:
    tree.mkdir()
    with (tree / "sparse").open("wb") as file:
        for number in range(200):
            file.seek(number * (1 << 20))
            file.write(b"x" * 5000)
    (tree / "once").write_bytes(os.urandom(20 << 20))
    for number in range(50):
        (tree / f"link{number}").hardlink_to(tree / "once")
    return tree


@dataclass(frozen=True)
class Sizes:
    """Bytes of ext4 images of one tree. guess: 1.4 times `du -sb`; guess_fits: whether mke2fs can fill that."""

    tree: str
    built: int
    tries: int
    bisected: int
    shrunk: int
    guess: int
    guess_fits: bool


def _sizes(name: str, tree: Path, folder: Path) -> Sizes:
    built = _module(tree, folder, format="ext4", method="mke2fs")
    guess = int(_run("du", "-sb", tree).split()[0]) * 14 // 10
    return Sizes(
        tree=name,
        built=built["bytes"],
        tries=built["tries"],
        bisected=_bisected(tree, folder, built["bytes"], built["inodes"]),
        shrunk=_shrunk(tree, folder, 2 * built["inodes"] + 1000),
        guess=guess,
        guess_fits=_fits(tree, folder, guess // BLOCK, None),
    )


def _shrunk(tree: Path, folder: Path, inodes: int) -> int:
    """What is left of a large image, made as by hand without options, after `resize2fs -M`."""
    blocks = 4 * int(_run("du", "-s", "--block-size", str(BLOCK), tree).split()[0]) + (1 << 17)
    with _target(folder) as target:
        _run("mke2fs", "-q", "-F", "-t", "ext4", "-b", str(BLOCK), "-N", str(inodes), "-d", tree, target, str(blocks))
        subprocess.run(["e2fsck", "-f", "-y", target], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        _run("resize2fs", "-M", target)
        return target.stat().st_size


def _bisected(tree: Path, folder: Path, fits: int, inodes: int) -> int:
    """The smallest image that mke2fs fills, to 16 blocks, with the features and the inodes of the module's."""
    low, high = fits // BLOCK // 2, fits // BLOCK
    inodes += _OWN_INODES
    while high - low > 16:
        middle = (low + high) // 2
        if _fits(tree, folder, middle, inodes):
            high = middle
        else:
            low = middle
    return high * BLOCK


def _fits(tree: Path, folder: Path, blocks: int, inodes: int | None) -> bool:
    with _target(folder) as target:
        argv = list(map(str, _mke2fs(tree, target, blocks, inodes)))
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0


def _mke2fs(tree: Path, target: Path, blocks: int, inodes: int | None) -> list[Any]:
    """The command that fills an image; with a number of inodes it has the features of the module's."""
    given = ["-N", inodes, "-m", "0", "-O", ",".join((*FEATURES, "has_journal"))] if inodes else []
    return ["mke2fs", "-q", "-F", "-t", "ext4", "-b", BLOCK, *given, "-d", tree, target, blocks]


def _variants() -> Iterator[tuple[str, str]]:
    yield "ext4", ""
    for kind in ("squashfs", "erofs", "btrfs"):
        for preset in PRESETS:
            yield kind, preset


def _variant(kind: str, preset: str, tree: Path, folder: Path) -> Variant:
    asked = Variant(kind, preset, "", 0, lambda _: [])
    image = _module(tree, folder, **asked.options)
    level = image["level"]
    compressor = image["compressor"] if level is None else f"{image['compressor']} {level}"
    bare: dict[str, Callable[[Path], list[Any]]] = {
        "ext4": lambda target: _mke2fs(tree, target, image["bytes"] // BLOCK, image["inodes"] + _OWN_INODES),
        "squashfs": lambda target: [
            *("mksquashfs", tree, target, "-quiet", "-no-progress", "-comp", image["compressor"]),
            *(["-Xcompression-level", level] if level else []),
        ],
        "erofs": lambda target: [
            *("mkfs.erofs", "--quiet", f"-z{compressor.replace(' ', ',')}"),
            *(["-C65536"] if preset == "small" else []),
            *(target, tree),
        ],
        "btrfs": lambda target: [
            *("mkfs.btrfs", "-q", "--metadata", "single", "--data", "single"),
            *("--compress", f"{image['compressor']}:{level}", "--rootdir", tree, "--shrink", _holes(target)),
        ],
    }
    return replace(asked, compressor=compressor, bytes=image["bytes"], bare=bare[kind])


def _timed(variants: list[Variant], tree: Path, folder: Path) -> list[Timed]:
    """Time the module, with its start, walk, fingerprint and checks, and the tool alone with the same options."""
    cases: dict[str, Callable[[], float]] = {}
    for each in variants:
        cases[f"{each.name}, module"] = partial(_by_module, each, tree, folder)
        cases[f"{each.name}, look"] = partial(_by_module, each, tree, folder, check=True)
        cases[f"{each.name}, bare"] = partial(_by_tool, each, folder)
    timings = {timing.name: timing for timing in interleaved(cases, ROUNDS)}
    return [Timed(each, *(timings[f"{each.name}, {what}"] for what in ("module", "look", "bare"))) for each in variants]


def _by_module(variant: Variant, tree: Path, folder: Path, *, check: bool = False) -> float:
    with _target(folder) as target:
        return milliseconds(lambda: _run_module(tree, target, check=check, **variant.options))


def _by_tool(variant: Variant, folder: Path) -> float:
    with _target(folder) as target:
        return milliseconds(lambda: _made(variant.bare(target), target))


def _made(argv: list[Any], target: Path) -> None:
    """Until it is on the disk, as an image of the module is."""
    _run(*argv)
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _holes(target: Path) -> Path:
    """A file with more room than any tree here needs; mkfs.btrfs makes none itself."""
    with target.open("xb") as file:
        file.truncate(16 << 30)
    return target


def _module(tree: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Build an image that does not stay, and return what the module says of it."""
    with _target(folder) as target:
        return dict(_run_module(tree, target, **options)["image"])


def _run_module(tree: Path, target: Path, *, check: bool = False, **options: Any) -> Mapping[str, Any]:
    arguments = {"path": str(target), "src": str(tree), "purge": [], **options}
    result = run_module("rootfs_image", arguments, check, diff=False)
    if result.get("failed"):
        raise RuntimeError(result["msg"])
    return result


@contextmanager
def _target(folder: Path) -> Iterator[Path]:
    """Where an image is made that does not stay, with nothing left to write of what was made and removed before."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        os.sync()
        yield Path(inner) / "image"


def _size_text(sizes: list[Sizes]) -> Iterator[str]:
    yield "**Size of ext4**, MiB. The bisected minimum is the smallest of the same features that `mke2fs -d` fills."
    head = "| tree | rootfs_image | mke2fs runs | bisected minimum | x minimum | resize2fs -M | saved | du -sb x 1.4 |"
    rows = [
        f"| {each.tree} | {_mib(each.built)} | {each.tries} | {_mib(each.bisected)} | {each.built / each.bisected:.3f} "
        f"| {_mib(each.shrunk)} | {1 - each.built / each.shrunk:.0%} "
        f"| {_mib(each.guess)}, {'fits' if each.guess_fits else 'too small'} |"
        for each in sizes
    ]
    yield "\n".join([head, "|---|---:|---:|---:|---:|---:|---:|---:|", *rows])


def _variant_text(timed: list[Timed]) -> Iterator[str]:
    yield (
        f"**Formats and presets**, the Debian tree with the tools of this machine; medians of {ROUNDS} interleaved "
        f"rounds, each until the image is on the disk. *Looking*: a run in check mode, which starts a Python of its "
        f"own, walks the tree and hashes all contents, as each run does that has nothing to compare with. *Building*: "
        f"what a run that builds takes longer than that. The bare tool has the same options. ext4 has 64 MiB free."
    )
    rows = [
        f"| {each.variant.format} | {each.variant.preset} | {each.variant.compressor} | {_mib(each.variant.bytes)} "
        f"| {each.module.median / 1000:.2f} | {each.look.median / 1000:.2f} | {each.building / 1000:.2f} "
        f"| {each.bare.median / 1000:.2f} | {each.building / each.bare.median:.2f} "
        f"| {each.module.median / each.bare.median:.2f} |"
        for each in timed
    ]
    head = (
        "| format | preset | compressor | MiB | rootfs_image, s | looking, s | building, s | bare tool, s "
        "| building, x bare tool | all, x bare tool |"
    )
    yield "\n".join([head, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|", *rows])
    if importlib.util.find_spec("matplotlib"):
        _draw(timed)
        yield f"![Size and time of the formats]({DRAWING.name})"


def _draw(timed: list[Timed]) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4))
    for kind in dict.fromkeys(each.variant.format for each in timed):
        of_kind = [each for each in timed if each.variant.format == kind]
        seconds = [each.module.median / 1000 for each in of_kind]
        sizes = [each.variant.bytes / 2**20 for each in of_kind]
        axes.plot(seconds, sizes, marker="o", label=kind)
        for each, x, y in zip(of_kind, seconds, sizes, strict=True):
            offset = (0, 6 if each.variant.preset == PRESETS[0] else -12)
            axes.annotate(each.variant.preset, (x, y), xytext=offset, textcoords="offset points", ha="center", size=8)
    ticks = (1, 2, 5, 10, 20, 50)
    axes.set(xscale="log", xlabel="seconds", ylabel="MiB", ylim=(0, None), xlim=(ticks[0], ticks[-1]))
    axes.set_xticks(ticks, labels=map(str, ticks))
    axes.minorticks_off()
    axes.legend()
    figure.tight_layout()
    figure.savefig(DRAWING)


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"


def _run(*argv: Any) -> str:
    if shutil.which(argv[0]) is None:
        raise RuntimeError(f"{argv[0]} is not installed")
    words = list(map(str, argv))
    finished = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {finished.stderr.strip()}")
    return finished.stdout

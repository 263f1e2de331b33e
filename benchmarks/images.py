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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from module_utils.cow.image.ext4 import FEATURES
from tests.support import images
from tests.support.ansible import run_module

from .timing import Timing, interleaved, milliseconds, table

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SMALL = int(os.environ.get("SMALL", "20000"))
"""How many tiny files that tree has; fewer for a look whether all of this still runs."""
DRAWING = Path(__file__).parents[1] / "docs" / "images.svg"
BLOCK = 4096
PRESETS = ("fast", "balanced", "small")
_OWN_INODES = 10
"""Those that ext4 has for itself."""
_LEVEL = ("-Xcompression-level", "3")
_BTRFS = ("--metadata", "single", "--data", "single", "--compress", "zstd:3")


@dataclass(frozen=True)
class Variant:
    """One format with one preset, and what came of it."""

    format: str
    preset: str
    compressor: str
    bytes: int
    seconds: float


def measure() -> str:
    """Measure with a Debian tree, and trees that are hard to guess."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cowherd-benchmark-") as scratch:
        folder = Path(scratch)
        trees = _trees(folder)
        sizes = [_sizes(name, tree, folder) for name, tree in trees.items()]
        timings = interleaved(_cases(trees["Debian"], folder), ROUNDS)
        variants = [_variant(kind, preset, trees["Debian"], folder) for kind, preset in _variants()]
    return "\n\n".join([*_size_text(sizes), *_time_text(timings), *_variant_text(variants)])


def _trees(folder: Path) -> Mapping[str, Path]:
    debian = folder / "debian"
    debian.mkdir()
    rootfs = images.debian_rootfs("trixie", ["systemd-sysv", "dbus", "systemd-resolved"])
    _run("tar", "--extract", "--numeric-owner", "--xattrs", "--file", rootfs, "--directory", debian)
    return {
        "Debian": debian,
        f"{SMALL} files of 2 bytes": _tiny(folder / "tiny"),
        "sparse and linked": _odd(folder / "odd"),
    }


def _tiny(tree: Path) -> Path:
    for number in range(SMALL):
        parent = tree / f"d{number % 100}"
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"f{number}").write_bytes(b"2\n")
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
    built = _module(tree, folder, format="ext4")
    guess = int(_run("du", "-sb", tree).split()[0]) * 14 // 10
    return Sizes(
        tree=name,
        built=built["bytes"],
        tries=built["tries"],
        bisected=_bisected(tree, folder, built["bytes"], built["inodes"]),
        shrunk=_shrunk(tree, folder),
        guess=guess,
        guess_fits=_fits(tree, folder, guess // BLOCK, None),
    )


def _shrunk(tree: Path, folder: Path) -> int:
    """What is left of a large image, made as by hand without options, after `resize2fs -M`."""
    blocks = 4 * int(_run("du", "-s", "--block-size", str(BLOCK), tree).split()[0]) + (1 << 17)
    inodes = 2 * sum(1 for _ in tree.rglob("*")) + 1000
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


def _cases(tree: Path, folder: Path) -> dict[str, Callable[[], float]]:
    """The module with its walk, fingerprint, checks and fsync, and the tool alone with the same options."""
    ext4 = _module(tree, folder, format="ext4", size="+64MiB")
    erofs = _module(tree, folder, format="erofs", preset="fast")["compressor"]
    cases: dict[str, tuple[dict[str, Any], Callable[[Path], list[Any]]]] = {
        "ext4": (
            {"format": "ext4", "size": "+64MiB"},
            lambda target: _mke2fs(tree, target, ext4["bytes"] // BLOCK, ext4["inodes"] + _OWN_INODES),
        ),
        "squashfs": (
            {"format": "squashfs"},
            lambda target: ["mksquashfs", tree, target, "-quiet", "-no-progress", "-comp", "zstd", *_LEVEL],
        ),
        "erofs": (
            {"format": "erofs", "preset": "fast"},
            lambda target: ["mkfs.erofs", f"-z{erofs}", target, tree],
        ),
        "btrfs": (
            {"format": "btrfs", "method": "mkfs"},
            lambda target: ["mkfs.btrfs", "-q", *_BTRFS, "--rootdir", tree, "--shrink", _holes(target)],
        ),
    }
    timed: dict[str, Callable[[], float]] = {}
    for name, (options, argv) in cases.items():
        timed[f"{name}, rootfs_image"] = lambda options=options: _built_in(tree, folder, options)
        timed[f"{name}, bare tool"] = lambda argv=argv: _tool_in(folder, argv)
    return timed


def _built_in(tree: Path, folder: Path, options: dict[str, Any]) -> float:
    return milliseconds(lambda: _module(tree, folder, **options))


def _tool_in(folder: Path, argv: Callable[[Path], list[Any]]) -> float:
    with _target(folder) as target:
        return milliseconds(lambda: _run(*argv(target)))


def _holes(target: Path) -> Path:
    """A file with more room than any tree here needs; mkfs.btrfs makes none itself."""
    with target.open("xb") as file:
        file.truncate(16 << 30)
    return target


def _variants() -> Iterator[tuple[str, str]]:
    yield "ext4", "balanced"
    for kind in ("squashfs", "erofs", "btrfs"):
        for preset in PRESETS:
            yield kind, preset


def _variant(kind: str, preset: str, tree: Path, folder: Path) -> Variant:
    image = _module(tree, folder, format=kind, preset=preset)
    compressor = image["compressor"] if image["level"] is None else f"{image['compressor']} {image['level']}"
    return Variant(kind, "" if kind == "ext4" else preset, compressor, image["bytes"], image["seconds"])


def _module(tree: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """Build an image that does not stay, and return what the module says of it."""
    with _target(folder) as target:
        result = run_module("rootfs_image", {"path": str(target), "src": str(tree), "purge": [], **options}, diff=False)
        if result.get("failed"):
            raise RuntimeError(result["msg"])
        return dict(result["image"])


@contextmanager
def _target(folder: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=folder) as inner:
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


def _time_text(timings: list[Timing]) -> Iterator[str]:
    yield (
        f"**Time for the Debian tree** against the bare tool; {ROUNDS} interleaved rounds. The module starts a Python "
        f"of its own, and walks and hashes the tree."
    )
    for bare in (timing.name for timing in timings if timing.name.endswith("bare tool")):
        kind = bare.split(",")[0]
        yield table([timing for timing in timings if timing.name.startswith(f"{kind},")], bare)


def _variant_text(variants: list[Variant]) -> Iterator[str]:
    yield "**Formats and presets**, the Debian tree with the tools of this machine."
    rows = [
        f"| {each.format} | {each.preset} | {each.compressor} | {_mib(each.bytes)} | {each.seconds:.1f} |"
        for each in variants
    ]
    yield "\n".join(["| format | preset | compressor | MiB | seconds |", "|---|---|---|---:|---:|", *rows])
    if importlib.util.find_spec("matplotlib"):
        _draw(variants)
        yield f"![Size and time of the formats]({DRAWING.name})"


def _draw(variants: list[Variant]) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(figsize=(7, 4))
    for each in variants:
        axes.scatter(each.seconds, each.bytes / 2**20)
        label = f"{each.format} {each.preset}".strip()
        axes.annotate(label, (each.seconds, each.bytes / 2**20), xytext=(4, 4), textcoords="offset points")
    axes.set(xscale="log", xlabel="seconds", ylabel="MiB", ylim=(0, None))
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

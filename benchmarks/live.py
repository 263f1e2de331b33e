"""Live media: the time to install a root against unpacking and copying, and the size of the images."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.cow import loop, manifest
from ansible.module_utils.cow.image import sizing
from ansible.module_utils.cow.kernel import own_mounts, sync_file_system
from ansible.module_utils.cow.manifest import Manifest
from tests.support import images
from tests.support.ansible import run_module
from tests.support.seeds import run

from .timing import interleaved, milliseconds, table

ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "3"))
PACKAGES = os.environ.get(
    "BENCHMARK_PACKAGES",
    "systemd-sysv,dbus,systemd-resolved,openssh-server,initramfs-tools,linux-image-cloud-amd64,zstd,btrfs-progs,"
    "python3,git,vim,build-essential,linux-image-amd64,perl-doc,cmake",
).split(",")
"""About 1 GB of content."""
MORE_PACKAGES = ["dosfstools", "gdisk", "lvm2", "memtest86+", "parted", "rsync", "smartmontools", "tmux"]
"""Those that the second root has besides."""
LEVEL = 15
SLOW = 20_000_000
"""Bytes a second that a slow stick is read at."""
CARD = 40_000_000
"""Bytes a second that a good SD card is written at."""
_EROFS = ("-zlz4hc,12", "-C65536")
"""The smallest of mkfs.erofs 1.5: it has lz4 and lz4hc alone."""
_TARGET = 4 << 30
_THROTTLE = Path("/sys/fs/cgroup/blkio")
"""The root of the first version of cgroups, in which this process has to be; kernel threads are."""
_SECTOR = 512
_SLACK = 1.05
"""How much faster than its limit a device may be taken for by those who measure, before they doubt the limit."""
_WAYS: dict[str, dict[str, Any]] = {
    "seed_install": {},
    "seed_install, not verified": {"method": "blocks", "verify": False},
    "seed_install, sprout": {"method": "sprout", "verify": False},
}
"""How the module is asked to install."""
_REFERENCES = tuple(_WAYS)[:2]
Unpack = Callable[[str, Path], None]
"""From a stick into a mounted file system."""
FILE_SYSTEMS = {"ext4": ("ext4", ""), "btrfs": ("btrfs", ""), "btrfs, zstd": ("btrfs", "compress=zstd")}
"""What the peers unpack into: how it is made, and how it is mounted."""


@dataclass(frozen=True)
class Direction:
    """Reading from a block device or writing to it.

    limit: the file of cgroups that limits it. figure: which one of a block device's `stat` has its sectors.
    """

    limit: str
    figure: int


READING, WRITING = (
    Direction("blkio.throttle.read_bps_device", 2),
    Direction("blkio.throttle.write_bps_device", 6),
)


@dataclass(frozen=True)
class Made:
    """One image. bytes: its size. allocated: what it takes on the disk.

    used: of a btrfs, what is in use of it. why: what the method was chosen for.
    """

    name: str
    path: Path
    bytes: int
    allocated: int
    used: int = 0
    why: str = ""

    @classmethod
    def of(cls, name: str, path: Path, used: int = 0, why: str = "") -> Made:
        """Look at the image."""
        status = path.stat()
        return cls(name, path, status.st_size, status.st_blocks * _SECTOR, used, why)


@dataclass(frozen=True)
class Bench:
    """Installs one tree, from an image of each kind on a stick, onto new targets in a folder.

    read_rate: of the stick, write_rate: of the target, bytes a second; 0 for no limit.
    differences: between the tree and what came to the target, by case.
    read, written: bytes from the stick and to the target, by case.
    """

    content: Manifest
    seed: Path
    squashfs: Path
    erofs: Path
    folder: Path
    read_rate: int = 0
    write_rate: int = 0
    differences: dict[str, int] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)

    def cases(self, *file_systems: str) -> dict[str, Callable[[], float]]:
        """Give what is timed; the peers onto each of the file systems."""
        ways: dict[str, tuple[Path, Unpack]] = {
            "unsquashfs": (self.squashfs, _unsquash),
            "cp -a from squashfs": (self.squashfs, partial(_copy, "squashfs")),
            "cp -a from erofs": (self.erofs, partial(_copy, "erofs")),
        }
        cases: dict[str, Callable[[], float]] = {
            **{name: partial(self._grown, name, partial(_install, options)) for name, options in _WAYS.items()},
            "bare sprout": partial(self._grown, "bare sprout", _sprout),
        }
        for way, (image, unpack) in ways.items():
            for kind in file_systems:
                name = f"{way}, to {kind}"
                cases[name] = partial(self._unpacked, name, image, kind, unpack)
        return cases

    def _grown(self, name: str, install: Callable[[str, str, Path], None]) -> float:
        with self._room() as room, self._target(room) as target, self._stick(self.seed) as stick:
            with self._measured(name, stick, target):
                taken = milliseconds(lambda: _to_the_end(lambda: install(stick, target, room), target))
            if name not in self.differences:
                with _mounted(target, room / "compared", "ro,subvol=install") as point:
                    self._compare(name, point)
            return taken

    def _unpacked(self, name: str, image: Path, kind: str, unpack: Unpack) -> float:
        made, options = FILE_SYSTEMS[kind]
        with self._room() as room, self._target(room) as target:
            run(f"mkfs.{made}", "-q", target)
            with _mounted(target, room / "mounted", options or "defaults") as point, self._stick(image) as stick:
                if (point / "lost+found").exists():
                    (point / "lost+found").rmdir()
                with self._measured(name, stick, target):
                    taken = milliseconds(lambda: _to_the_end(lambda: _unpack(unpack, stick, point), target))
                if name not in self.differences:
                    self._compare(name, point)
            return taken

    def _compare(self, name: str, point: Path) -> None:
        self.differences[name] = len(manifest.differences(self.content, manifest.of(point)))

    @contextmanager
    def _room(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=self.folder) as inner:
            yield Path(inner)

    @contextmanager
    def _target(self, room: Path) -> Iterator[str]:
        """A new block device that is as slow as it shall be."""
        file = room / "target"
        with file.open("xb") as made:
            made.truncate(_TARGET)
        with loop.attached(file, readonly=False) as device, _limited(device, WRITING, self.write_rate):
            yield device

    @contextmanager
    def _stick(self, image: Path) -> Iterator[str]:
        """A block device that has the image, of which nothing is in memory, and which is as slow as it shall be."""
        with loop.attached(image, readonly=True) as device, _limited(device, READING, self.read_rate):
            run("sync")
            Path("/proc/sys/vm/drop_caches").write_text("3")
            yield device

    @contextmanager
    def _measured(self, name: str, stick: str, target: str) -> Iterator[None]:
        """Note what is read and written during the block, and doubt a limit that is not kept."""
        read, written, began = _moved(stick, READING), _moved(target, WRITING), time.monotonic()
        yield
        seconds = time.monotonic() - began
        self.read[name] = _moved(stick, READING) - read
        self.written[name] = _moved(target, WRITING) - written
        for size, rate in ((self.read[name], self.read_rate), (self.written[name], self.write_rate)):
            if rate and size > _SLACK * rate * seconds:
                raise RuntimeError(f"{name} moved {size} bytes in {seconds:.1f} s, although its limit is {rate}/s")


def measure() -> str:
    """Measure with two Debian trees, the second one with some packages more; no other process holds what is mounted."""
    with own_mounts(), tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cowherd-benchmark-") as scratch:
        folder = Path(scratch)
        tree = _extracted(folder / "install", PACKAGES)
        live = _extracted(folder / "live", PACKAGES + MORE_PACKAGES)
        content = manifest.of(tree)
        made = [*_peers(tree, folder), *_by_live_image(tree, folder)]
        squashfs, erofs, seed = (each.path for each in made[:3])
        bench = Bench(content, seed, squashfs, erofs, folder)
        slow = replace(bench, read_rate=SLOW, read={}, written={})
        card = replace(bench, write_rate=CARD, read={}, written={})
        return "\n\n".join(
            [
                _what(content, made[2]),
                *_install_text(bench),
                *_memory_text(bench),
                *_slow_text(slow),
                *_card_text(card),
                _differences_text(bench),
                *_size_text(made),
                _second_text(_second(content, live, made[2], folder)),
            ]
        )


def _extracted(tree: Path, packages: list[str]) -> Path:
    tree.mkdir()
    rootfs = images.debian_rootfs("trixie", packages)
    run("tar", "--extract", "--numeric-owner", "--xattrs", "--file", rootfs, "--directory", tree)
    return tree


def _peers(tree: Path, folder: Path) -> Iterator[Made]:
    yield Made.of(f"squashfs, zstd {LEVEL}", _squashfs(tree, folder / "squashfs"))
    erofs = folder / "erofs"
    run("mkfs.erofs", "--quiet", *_EROFS, erofs, tree)
    yield Made.of(f"erofs, {' '.join(_EROFS)}", erofs)


def _squashfs(tree: Path, target: Path) -> Path:
    zstd = ("-comp", "zstd", "-Xcompression-level", str(LEVEL))
    run("mksquashfs", tree, target, "-quiet", "-no-progress", *zstd)
    return target


def _by_live_image(tree: Path, folder: Path) -> Iterator[Made]:
    """As `auto` chooses, which comes first, and by `loop` where it chooses otherwise."""
    roots = [{"name": "install", "src": str(tree)}]
    for method in ("auto", "loop"):
        path = folder / f"seed-{method}"
        image = _live_image(path, roots, method)
        yield Made.of(f"live_image, {method} ({image['method']})", path, image["used_bytes"], image["why"])
        if image["method"] == "loop":
            return


def _live_image(path: Path, roots: list[dict[str, str]], method: str = "loop") -> dict[str, Any]:
    given = {"path": str(path), "roots": roots, "level": LEVEL, "method": method, "purge": []}
    return dict(_module("live_image", **given)["image"])


def _module(name: str, **options: Any) -> dict[str, Any]:
    result = run_module(name, options, diff=False)
    if result.get("failed"):
        raise RuntimeError(result["msg"])
    return result


def _install(options: dict[str, Any], stick: str, target: str, room: Path) -> None:
    _module("seed_install", seed=stick, root="install", target=target, records=str(room), **options)


def _sprout(stick: str, target: str, room: Path) -> None:
    """Only what the kernel is asked for, by the command line."""
    with _mounted(stick, room / "point", "ro,noatime") as point:
        run("btrfs", "--quiet", "device", "add", "--nodiscard", target, point)
        run("mount", "-o", "remount,rw", stick, point)
        run("btrfs", "device", "remove", stick, point)
        sync_file_system(point)


def _unpack(unpack: Unpack, stick: str, point: Path) -> None:
    unpack(stick, point)
    sync_file_system(point)


def _to_the_end(work: Callable[[], None], target: str) -> None:
    """Until all is on the disk below the device."""
    work()
    device = os.open(target, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(device)
    finally:
        os.close(device)


@contextmanager
def _mounted(device: str, point: Path, options: str) -> Iterator[Path]:
    point.mkdir()
    run("mount", "-o", options, device, point)
    try:
        yield point
    finally:
        run("umount", point)


def _unsquash(stick: str, mounted: Path) -> None:
    run("unsquashfs", "-quiet", "-no-progress", "-force", "-dest", mounted, stick)


def _copy(kind: str, stick: str, mounted: Path) -> None:
    with tempfile.TemporaryDirectory() as point:
        run("mount", "-t", kind, "-o", "ro", stick, point)
        try:
            run("cp", "--archive", f"{point}/.", mounted)
        finally:
            run("umount", point)


@contextmanager
def _limited(device: str, direction: Direction, rate: int) -> Iterator[None]:
    """Have at most `rate` bytes a second go in that direction in all; 0 for no limit."""
    if not rate:
        yield
        return
    limit = _THROTTLE / direction.limit
    number = (_of(device) / "dev").read_text().strip()
    limit.write_text(f"{number} {rate}")
    try:
        yield
    finally:
        limit.write_text(f"{number} 0")


def _moved(device: str, direction: Direction) -> int:
    return int((_of(device) / "stat").read_text().split()[direction.figure]) * _SECTOR


def _of(device: str) -> Path:
    return Path("/sys/class/block", Path(device).name)


@dataclass(frozen=True)
class Second:
    """Used bytes: of an image of the first root, of one of what the second has otherwise, of one of both.

    image: bytes of that of both.  squashfs: of one squashfs of each root, together.
    """

    first: int
    difference: int
    both: int
    image: int
    squashfs: int


def _second(content: Manifest, live: Path, one: Made, folder: Path) -> Second:
    differing = _differing(content, manifest.of(live), folder / "differing")
    difference = _live_image(folder / "difference", [{"name": "live", "src": str(differing)}])
    first = {"name": "install", "src": str(content.tree.root)}
    both = _live_image(folder / "both", [first, {"name": "live", "src": str(live), "from": "install"}])
    squashfs = (folder / "squashfs", _squashfs(live, folder / "squashfs-live"))
    return Second(
        first=one.used,
        difference=difference["used_bytes"],
        both=both["used_bytes"],
        image=both["bytes"],
        squashfs=sum(path.stat().st_size for path in squashfs),
    )


def _differing(first: Manifest, second: Manifest, target: Path) -> Path:
    """Make a tree of those files of the second whose contents the first does not have at the same path."""
    for path, digest in second.contents.items():
        if first.contents.get(path) != digest:
            place = target / os.fsdecode(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.hardlink_to(second.tree.root / os.fsdecode(path))
    return target


def _what(content: Manifest, seed: Made) -> str:
    return (
        f"Debian 13 with {', '.join(PACKAGES)}: {len(content.tree.entries)} entries, "
        f"{_mib(sizing.payload(content.tree))} MiB of content. The images are read from a loop device, the *stick*, of "
        f"which nothing is in memory (caches are dropped before each). The target is a new device of "
        f"{_TARGET >> 30} GiB, and each time ends when all is on the disk (fsync). The seed is of {seed.name}: "
        f"{seed.why}. *seed_install*: as it is by default, all of the seed is verified, then its blocks are written; "
        f"*not verified*: the latter alone; *sprout*: by the other method, not verified "
        f"beforehand. *bare sprout*: mount, device add, remount, device remove, by the command line. *to ext4* and *to "
        f"btrfs*: onto what `mkfs` makes without options, mounted without options; making and mounting it is not "
        f"counted."
    )


def _install_text(bench: Bench) -> Iterator[str]:
    timings = interleaved(bench.cases("ext4", "btrfs"), ROUNDS)
    yield f"**Time to install the root**; {ROUNDS} interleaved rounds."
    yield table(timings, *_REFERENCES)
    yield f"Written to the target, MB: {_megabytes(bench.written)}."


def _memory_text(bench: Bench) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        folder = Path(scratch)
        seed, squashfs, erofs = (_copied(path, folder) for path in (bench.seed, bench.squashfs, bench.erofs))
        there = replace(bench, seed=seed, squashfs=squashfs, erofs=erofs, folder=folder, read={}, written={})
        timings = interleaved(there.cases("ext4", "btrfs"), ROUNDS)
    yield f"**The same in memory**, stick and target, as with disks that nobody waits for; {ROUNDS} interleaved rounds."
    yield table(timings, *_REFERENCES)


def _copied(path: Path, folder: Path) -> Path:
    run("cp", "--sparse=always", path, folder)
    return folder / path.name


def _slow_text(bench: Bench) -> Iterator[str]:
    if not _THROTTLE.exists():
        yield f"**From a slow stick, and onto a slow card**: not measured, as this machine has no {_THROTTLE}."
        return
    timings = interleaved(bench.cases("ext4"), ROUNDS)
    yield (
        f"**The same from a stick of {SLOW // 10**6} MB/s**, by the throttle that the kernel has for block devices "
        f"(blkio of cgroups); {ROUNDS} interleaved rounds."
    )
    yield table(timings, *_REFERENCES)
    yield (
        f"Read from the stick, MB: {_megabytes(bench.read)}. So slow a stick makes the size of the image most of the "
        f"time."
    )


def _card_text(bench: Bench) -> Iterator[str]:
    if not _THROTTLE.exists():
        return
    timings = interleaved(bench.cases("ext4", "btrfs, zstd"), ROUNDS)
    yield (
        f"**The same onto a card that is written at {CARD // 10**6} MB/s**, and from a fast stick. *btrfs, zstd* is "
        f"mounted with `compress=zstd`; {ROUNDS} interleaved rounds."
    )
    yield table(timings, *_REFERENCES)
    yield f"Written to the card, MB: {_megabytes(bench.written)}."


def _differences_text(bench: Bench) -> str:
    wrong = sorted({f"{name}: {number}" for name, number in bench.differences.items() if number})
    return f"Differences of the targets from the tree, by manifest: {'; '.join(wrong) or 'none by any method'}."


def _megabytes(sizes: dict[str, int]) -> str:
    return "; ".join(f"{name} {size / 10**6:.0f}" for name, size in sizes.items())


def _size_text(made: list[Made]) -> Iterator[str]:
    yield f"**Size of the images**, compressed as by zstd {LEVEL}, but erofs, whose `mkfs.erofs` 1.5 has lz4 alone."
    least = made[0]
    rows = [
        f"| {each.name} | {_mib(each.bytes)} | {_mib(each.allocated)} | {_mib(each.used) if each.used else ''} "
        f"| {each.bytes / least.bytes:.2f} | {each.allocated / least.allocated:.2f} |"
        for each in made
    ]
    head = "| image | MiB | on the disk, MiB | in use, MiB | x squashfs | on the disk, x squashfs |"
    yield "\n".join([head, "|---|---:|---:|---:|---:|---:|", *rows])


def _second_text(found: Second) -> str:
    sum_of_both = found.first + found.difference
    head = "| one root | the difference | both roots | x one and the difference | image of both | two squashfs |"
    row = (
        f"| {_mib(found.first)} | {_mib(found.difference)} | {_mib(found.both)} | {found.both / sum_of_both:.3f} "
        f"| {_mib(found.image)} | {_mib(found.squashfs)} |"
    )
    return (
        f"**Two roots in one image**, MiB in use. The second, built for itself, has {', '.join(MORE_PACKAGES)} "
        f"besides. *The difference*: its files that the first has not, or not with that content, in an image of their "
        f"own.\n\n{head}\n|---:|---:|---:|---:|---:|---:|\n{row}"
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f}"

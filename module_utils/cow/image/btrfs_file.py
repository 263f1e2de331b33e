"""File systems with btrfs in files, as small as what is in them allows.

By `mkfs.btrfs` it takes no mount; the tool drops some of what a tree can have, and knows no snapshots. Otherwise the
kernel fills a large file system, each file compressed as it is written, out of which a new one is grown that is just
large enough, as a seed is installed: file systems that were filled large cannot be made small in place, because their
chunks are as large as befits their size, and the kernel refuses to make any smaller than 256 MiB.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .. import btrfs, kernel, loop, mounts, tools
from ..btrfs import Btrfs, Space, Superblock
from ..errors import CowError
from ..size import Size, whole_mib
from ..tree import Tree
from . import btrfs_seed, losses, sizing, workshop

VARIES = ("UUIDs of its device, its subvolumes and its tree of chunks", "times of creation and change (otime, ctime)")
"""What is otherwise in two images of the same inputs, whatever the method."""
BY_KERNEL = ("the order in which the kernel writes blocks, and with it the size, by a chunk",)
"""What is otherwise besides when the kernel wrote it."""
LEAST = 96 << 20
"""Bytes of what is grown: Linux 6.18 hangs for good when a device of 21 MiB is added to a seed."""
LEVELS = {"zstd": 15, "zlib": 9}
"""The highest level of the compressors that have levels; the lowest is 1."""
COMPRESSORS = (*LEVELS, "lzo")
_BUILT_IN = {"zstd": "+ZSTD", "lzo": "+LZO"}
"""What mkfs.btrfs says of itself when it has the compressors that it can be built without."""
_LONGEST_LABEL = 255
_MIB = 1 << 20
_CHUNK = 16 * _MIB
"""The kernel makes chunks of a tenth of the file system, in multiples of this."""
_METADATA_CHUNK, _SYSTEM_CHUNK = 256 * _MIB, 32 * _MIB
_SPARE = 4 * _MIB
"""Of metadata and of data: relocation needs some."""
_TRIES = 6
"""Sizes that are tried, each larger than the one before."""
_WORTH_IT = 1.1
"""How much too large an image of mkfs.btrfs is when it is worth while to grow another."""
_USUAL_METADATA = 10
"""What part of an image metadata is, roughly."""
_ROOM = 2048 * _MIB
"""What a file of holes has besides what is sure to go into it."""
_NO_ROOM = "There was no room left for the image: it is written twice while it is built, compressed. Make room there."


class TooSmall(CowError):
    """What was filled does not fit into the sizes that it may have."""


@dataclass(frozen=True)
class Settings:
    """What a file system is made with.

    compression: as the tools and the kernel write it, such as zstd:3; "" for none.  uuid: "" for a random one.
    epoch: what mkfs.btrfs is to take for the time, in seconds since 1970; None for the time that it is.
    """

    checksum: str
    label: str
    compression: str
    uuid: str = ""
    epoch: int | None = None

    @property
    def maker(self) -> list[str]:
        """The command that makes the file system, without what it is made in."""
        argv = ["mkfs.btrfs", "--quiet", "--checksum", self.checksum, "--metadata", "single", "--data", "single"]
        argv += ["--nodiscard", "--label", self.label]
        return [*argv, "--uuid", self.uuid] if self.uuid else argv

    @property
    def environment(self) -> Mapping[str, str] | None:
        """What would have its output be the same each time, in versions that heed it; 6.14 does not."""
        return None if self.epoch is None else {"SOURCE_DATE_EPOCH": str(self.epoch), "DETERMINISTIC_SEED": "1"}


@dataclass(frozen=True)
class Method:
    """How an image is built, and why so."""

    name: str
    why: str


@dataclass(frozen=True)
class Abilities:
    """version: of btrfs-progs.  fills: its mkfs.btrfs fills what it makes, compressed, and shrinks it.

    compressors: those that it was built with.
    """

    version: str
    fills: bool
    compressors: tuple[str, ...] = COMPRESSORS

    def why_not_mkfs(self, compression: str) -> str:
        """Say why it cannot make a file system with so compressed content; "" when it can."""
        if not self.fills:
            return f"mkfs.btrfs {self.version} does not compress what it fills a file system with"
        compressor = compression.partition(":")[0]
        if compressor and compressor not in self.compressors:
            return f"mkfs.btrfs {self.version} was built without {compressor}"
        return ""


def abilities() -> Abilities:
    """Look at the installed tools."""
    for program in ("btrfs", "btrfstune", "mkfs.btrfs"):
        tools.require(program)
    version, usage = (tools.said("mkfs.btrfs", option) for option in ("--version", "--help"))
    matched = re.search(r"v(\d\S*)", version)
    fills = all(option in usage for option in ("--rootdir", "--subvol ", "--compress ", "--shrink"))
    compressors = tuple(name for name in COMPRESSORS if _BUILT_IN.get(name, "") in version)
    return Abilities(matched[1] if matched else "unknown", fills, compressors)


def check_label(label: str) -> None:
    """Refuse a label that btrfs cannot have."""
    if len(label.encode()) > _LONGEST_LABEL or set(label) & set("/\\\n"):
        raise CowError(
            f"The label {label!r} is none for btrfs: wanted are at most {_LONGEST_LABEL} bytes without "
            f"'/', '\\' and line ends."
        )


def check_level(compressor: str, level: int) -> None:
    """Refuse a level that the compressor does not have in btrfs."""
    highest = LEVELS.get(compressor)
    if highest is None:
        raise CowError(f"The compressor {compressor} has no levels in btrfs. Leave `level` out.")
    if not 1 <= level <= highest:
        raise CowError(f"Level {level} is none of {compressor} in btrfs. Levels are 1 to {highest}.")


def choose(method: str, cannot: str, trees: Iterable[Tree]) -> Method:
    """Decide on the method: without a mount wherever nothing is lost by that.

    cannot: why it cannot be without; "" when it can.  trees: those that are known yet.
    """
    if method == "mkfs" and cannot:
        raise CowError(f"The image cannot be built without a mount: {cannot}. Leave `method` out.")
    if method != "auto":
        return Method(method, "as asked for")
    lost = [loss for tree in trees for loss in lost_by_mkfs(tree)]
    if cannot:
        return Method("loop", cannot)
    if lost:
        return Method("loop", f"mkfs.btrfs would lose {lost[0]}")
    return Method("mkfs", "nothing is lost by it, and it takes no mount")


def lost_by_mkfs(tree: Tree) -> list[str]:
    """Say what mkfs.btrfs does not take over from a tree."""
    return [
        *losses.fractions(tree, "mkfs.btrfs cuts them off"),
        *losses.flags(tree),
        *losses.device_numbers(tree, "mkfs.btrfs leaves them out"),
        *losses.holes(tree, "mkfs.btrfs fills them"),
    ]


def room_explained(work: Path) -> AbstractContextManager[None]:
    """Say it in words when what is built in a folder fails for want of room there."""
    return workshop.room_explained(work, _NO_ROOM, besides=(TooSmall,))


def by_mkfs(settings: Settings, folder: Path, subvolumes: Sequence[str], room: int, target: Path) -> None:
    """Make a file system of a folder in the file `target`, some folders in it as subvolumes, and shrink it."""
    argv = [*settings.maker, "--rootdir", str(folder), "--compress", settings.compression or "no", "--shrink"]
    for subvolume in subvolumes:
        argv += ["--subvol", f"rw:{subvolume}"]
    _make_file(target, room)
    workshop.tool([*argv, target], environment=settings.environment)


def slack_of(image: Path) -> str:
    """Say how much of what mkfs.btrfs made is unused, where a tenth or more could be saved; "" where not.

    Of what compresses well the tool makes room for too much.
    """
    made = superblock(image)
    if made.device_bytes <= _WORTH_IT * next(sizes(made.used_bytes, made.used_bytes // _USUAL_METADATA)):
        return ""
    return f"{Size(made.device_bytes - made.used_bytes).rounded()} of {Size(made.device_bytes).rounded()} unused"


def regrown(slack: str) -> Method:
    """Say what came of an image of mkfs.btrfs with slack."""
    return Method("mkfs", f"nothing is lost by it; as it left {slack}, it was grown anew by loop")


@contextmanager
def filling(settings: Settings, room: int, filled: Path, point: Path) -> Iterator[Path]:
    """Make a large file system in the file `filled`, and mount it to be filled."""
    _make_file(filled, room)
    workshop.tool([*settings.maker, filled], environment=settings.environment)
    compression = f",compress-force={settings.compression}" if settings.compression else ""
    with _mounted(filled, point, f"noatime,nodiscard{compression}"):
        yield point
        workshop.written(point)


def compact(filled: Path, target: Path, work: Path, tool: Btrfs) -> None:
    """Grow a file system in `target` out of the one that was filled, which goes, as small as it fits into.

    work: an empty folder to mount in.
    """
    used = as_seed(filled, work, tool)
    grow(filled, target, work, tool, sizes(used.data, used.metadata))


def as_seed(filled: Path, work: Path, tool: Btrfs) -> Space:
    """Make a seed of a file system, and return what is used of it."""
    tool.set_seed(str(filled), seed=True)
    with btrfs_seed.mounted(filled, superblock(filled), work) as (_, point):
        return btrfs.space(point)


def grow(seed: Path, target: Path, work: Path, tool: Btrfs, tried: Iterable[int]) -> None:
    """Grow a file system out of a seed, which goes, with the first of these sizes that it fits into.

    Raises TooSmall when that is none of them, and NoRoom where there is none for what is in the seed: Linux 6.18 has a
    fault (BUG) when the disk below a device that is added to a seed is full.
    """
    if mounts.free(work).bytes < superblock(seed).used_bytes:
        raise workshop.NoRoom(_NO_ROOM)
    size = 0
    for size in tried:
        target.unlink(missing_ok=True)
        _make_file(target, size)
        if _moved(seed, target, work, tool):
            break
    else:
        raise TooSmall(f"The image did not fit into {size} bytes, although it should. Look at the kernel log.")
    os.truncate(target, superblock(target).device_bytes)
    seed.unlink()
    _give_back(target, work)


def _give_back(image: Path, work: Path) -> None:
    """Have holes in the file for what is written and not used any more; it shows only when it is mounted anew."""
    with _mounted(image, work / "point", "noatime"):
        kernel.trim(work / "point")


@contextmanager
def _mounted(image: Path, point: Path, options: str) -> Iterator[None]:
    with (
        loop.attached(image, readonly=False) as device,
        workshop.mounted(device, point, "-t", "btrfs", "-o", options),
    ):
        yield


def superblock(image: Path) -> Superblock:
    """Return that of a file system that was made here."""
    found = btrfs.superblock(image)
    if found is None or found.devices != 1:
        raise CowError(f"What was built in {image} is not a btrfs of one device. Look at the kernel log.")
    return found


def sizes(data: int, metadata: int) -> Iterator[int]:
    """Yield sizes that a file system with so much in it may fit into, the smallest first."""
    size = LEAST
    for _ in range(_TRIES):
        while (needed := _needed(size, data, metadata)) > size:
            size = whole_mib(needed)
        yield size
        size += _CHUNK


def room_for(trees: Iterable[Tree]) -> int:
    """Return the bytes of a file of holes in which the trees have room however badly they compress."""
    return _ROOM + 4 * sum(sizing.payload(tree) + sizing.inodes_of(tree) * 4096 for tree in trees)


@dataclass(frozen=True)
class Chunks:
    """Bytes of the chunks of metadata and system data in a file system, and of the first one of each."""

    all: int
    one: int


def chunks(size: int, metadata: int) -> Chunks:
    """Return those of a file system of `size` bytes with so much metadata, which is in it once."""
    chunk = -(-(size // 10) // _CHUNK) * _CHUNK
    system, for_metadata = (min(chunk, most) for most in (_SYSTEM_CHUNK, _METADATA_CHUNK))
    room = metadata + metadata // 4 + _SPARE
    return Chunks(system + -(-room // for_metadata) * for_metadata, system + for_metadata)


def _needed(size: int, data: int, metadata: int) -> int:
    """The chunks of metadata come first and are whole ones; the last one of data is as large as what is left."""
    return _MIB + chunks(size, metadata).all + data + data // 64 + _SPARE


def _moved(seed: Path, target: Path, work: Path, tool: Btrfs) -> bool:
    try:
        with (
            loop.attached(target, readonly=False) as device,
            btrfs_seed.sprouted(seed, superblock(seed), device, work) as (source, point),
        ):
            tool.remove_device(point, source)
    except workshop.NoRoom:
        return False
    return True


def _make_file(path: Path, size: int) -> None:
    with path.open("xb") as file:
        path.chmod(0o600)
        file.truncate(size)

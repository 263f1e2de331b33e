"""Builds a btrfs image of several roots, as small as they allow.

By `mkfs.btrfs` it takes no mount; the tool drops some of what a tree can have, and knows no snapshots. Otherwise the
kernel fills a large file system, each file compressed as it is written, out of which a new one is grown that is just
large enough, as a seed is installed: file systems that were filled large cannot be made small in place, because their
chunks are as large as befits their size, and the kernel refuses to make any smaller than 256 MiB.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import btrfs, loop, manifest, mounts, process, tools, treecopy
from ..btrfs import Btrfs, Superblock
from ..errors import CowError
from ..image import losses, sizing, workshop
from ..image import purge as purges
from ..image.purge import Purge
from ..size import Size
from ..tree import Tree
from . import seed as seeds
from . import sprout
from .roots import Root, Shown
from .target import rounded

VARIES = ("UUIDs of the file system, its device and its subvolumes", "times of creation and change (otime, ctime)")
"""What is otherwise in two images of the same inputs, whatever the method."""
_VARIES_BY_KERNEL = (*VARIES, "the order in which the kernel writes blocks, and with it the size, by a chunk")
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
_LITTLE = 32 * _MIB
"""When so little is free, a failure is taken to be for want of room."""


@dataclass(frozen=True)
class Order:
    """What an image is to be; the meaning is that of the module's options."""

    checksum: str
    level: int
    label: str
    method: str
    seed: bool

    @property
    def maker(self) -> list[str]:
        """The command that makes the file system, without what it is made in."""
        argv = ["mkfs.btrfs", "--quiet", "--checksum", self.checksum, "--metadata", "single", "--data", "single"]
        return [*argv, "--nodiscard", "--label", self.label]


@dataclass(frozen=True)
class Method:
    """How an image is built, and why so."""

    name: str
    why: str


@dataclass(frozen=True)
class Abilities:
    """version: of btrfs-progs.  roots: its mkfs.btrfs makes compressed subvolumes of folders."""

    version: str
    roots: bool


@dataclass(frozen=True)
class Job:
    """roots: what to make an image of.  description: what is written into it.  work: an empty folder to work in."""

    order: Order
    method: Method
    roots: Sequence[Shown]
    purge: Purge
    description: bytes
    work: Path

    @property
    def target(self) -> Path:
        """The file that is made."""
        return self.work / "image"


@dataclass(frozen=True)
class Built:
    """used_bytes: of the image.  added_bytes: by name of the root, what it added to the image; none where not known.

    varies: what is otherwise in an image that is built again from the same inputs.
    """

    method: Method
    varies: tuple[str, ...]
    used_bytes: int = 0
    added_bytes: Mapping[str, int] = field(default_factory=dict)


def abilities() -> Abilities:
    """Look at the installed tools."""
    for program in ("btrfs", "btrfstune", "mkfs.btrfs"):
        tools.require(program)
    matched = re.search(r"v(\d\S*)", process.run([tools.require("mkfs.btrfs"), "--version"]).stdout)
    said = process.run([tools.require("mkfs.btrfs"), "--help"], accept=range(256))
    usage = said.stdout + said.stderr
    able = all(option in usage for option in ("--rootdir", "--subvol ", "--compress ", "--shrink"))
    return Abilities(matched[1] if matched else "unknown", able)


def choose(order: Order, roots: Sequence[Root], trees: Sequence[Tree], able: Abilities) -> Method:
    """Decide on the method: without a mount wherever nothing is lost by that. `trees` are those that are known yet."""
    cannot = _why_not_mkfs(roots, able)
    if order.method == "mkfs" and cannot:
        raise CowError(f"The image cannot be built without a mount: {cannot}. Leave `method` out.")
    if order.method != "auto":
        return Method(order.method, "as asked for")
    lost = [loss for tree in trees for loss in lost_by_mkfs(tree)]
    if cannot:
        return Method("loop", cannot)
    if lost:
        return Method("loop", f"mkfs.btrfs would lose {lost[0]}")
    return Method("mkfs", "nothing of the trees is lost by it, and it takes no mount")


def lost_by_mkfs(tree: Tree) -> list[str]:
    """Say what mkfs.btrfs does not take over from a tree."""
    return [
        *losses.fractions(tree, "mkfs.btrfs cuts them off"),
        *losses.flags(tree),
        *losses.device_numbers(tree, "mkfs.btrfs leaves them out"),
        *losses.holes(tree, "mkfs.btrfs fills them"),
    ]


def build(job: Job) -> Built:
    """Make the image in the file `job.target`."""
    try:
        built = _by_mkfs(job) if job.method.name == "mkfs" else _by_loop(job)
    except CowError as error:
        if mounts.free(job.work).bytes < _LITTLE:
            raise CowError(
                f"There was no room left in {job.work.parent} while the image was built: it is written twice, "
                f"compressed. Make room there."
            ) from error
        raise
    if job.order.seed:
        Btrfs(run=workshop.tool).set_seed(str(job.target), seed=True)
    found = btrfs.superblock(job.target)
    if found is None or found.seed != job.order.seed or found.devices != 1:
        raise CowError(f"What was built in {job.work} is not a btrfs of one device. Look at the kernel log.")
    return replace(built, used_bytes=found.used_bytes)


def compact(filled: Path, target: Path, work: Path, tool: Btrfs) -> None:
    """Grow a file system in `target` out of the one that was filled, which goes, as small as it fits into.

    work: an empty folder to mount in.
    """
    tool.set_seed(str(filled), seed=True)
    there = seeds.check(filled)
    with seeds.mounted(filled, there, work) as (_, point):
        used = btrfs.space(point)
    for size in sizes(used.data, used.metadata):
        target.unlink(missing_ok=True)
        _make_file(target, size)
        if _moved(filled, target, work, tool):
            break
    else:
        raise CowError(f"The image did not fit into {size} bytes, although it should. Look at the kernel log.")
    found = btrfs.superblock(target)
    if found is None:
        raise CowError(f"There is no btrfs in {target} after all. Look at the kernel log.")
    os.truncate(target, found.device_bytes)
    filled.unlink()


def _why_not_mkfs(roots: Sequence[Root], able: Abilities) -> str:
    based = next((root for root in roots if root.base), None)
    if based:
        return f"root {based.name} begins as a snapshot of {based.base}, which only the kernel can take"
    if not able.roots:
        return f"mkfs.btrfs {able.version} does not make compressed subvolumes of folders"
    return ""


def _by_mkfs(job: Job) -> Built:
    """Write it, and where a choice was left and it has become much too large, grow another one out of that."""
    stage = job.work / "stage"
    stage.mkdir()
    (stage / seeds.DESCRIPTION).write_bytes(job.description)
    argv = [*job.order.maker, "--rootdir", str(stage), "--compress", f"zstd:{job.order.level}", "--shrink"]
    with ExitStack() as stack:
        for number, each in enumerate(job.roots):
            folder = job.work / f"view{number}"
            folder.mkdir()
            view = stack.enter_context(purges.view(job.purge, each.whole.tree, folder))
            stack.enter_context(workshop.mounted(view, stage / each.root.name, "--bind"))
            argv += ["--subvol", f"rw:{each.root.name}"]
        _make_file(job.target, _room(job.roots))
        workshop.tool([*argv, job.target])
    made = btrfs.superblock(job.target)
    if made is None or job.order.method != "auto" or not _is_slack(made):
        return Built(job.method, VARIES)
    filled = job.target.rename(job.work / "filled")
    compact(filled, job.target, job.work, Btrfs(run=workshop.tool))
    why = f"nothing of the trees is lost by it; as it left {_slack(made)}, it was grown anew by loop"
    return Built(Method("mkfs", why), _VARIES_BY_KERNEL)


def _is_slack(made: Superblock) -> bool:
    """Say whether a tenth or more could be saved. Of what compresses well the tool makes room for too much."""
    return made.device_bytes > _WORTH_IT * next(sizes(made.used_bytes, made.used_bytes // _USUAL_METADATA))


def _slack(made: Superblock) -> str:
    return f"{Size(made.device_bytes - made.used_bytes).rounded()} of {Size(made.device_bytes).rounded()} unused"


def _by_loop(job: Job) -> Built:
    """What is purged goes from the copy."""
    filled = job.work / "filled"
    _make_file(filled, _room(job.roots))
    tool = Btrfs(run=workshop.tool)
    workshop.tool([*job.order.maker, filled])
    options = f"noatime,nodiscard,compress-force=zstd:{job.order.level}"
    added: dict[str, int] = {}
    with (
        loop.attached(filled, readonly=False) as device,
        workshop.mounted(device, job.work / "point", "-t", "btrfs", "-o", options) as point,
    ):
        (point / seeds.DESCRIPTION).write_bytes(job.description)
        before = _used(point)
        for each in job.roots:
            _fill(each, job.purge, point / each.root.name, tool)
            after = _used(point)
            added[each.root.name] = after - before
            before = after
    compact(filled, job.target, job.work, tool)
    return Built(job.method, _VARIES_BY_KERNEL, added_bytes=added)


def _fill(each: Shown, purge: Purge, place: Path, tool: Btrfs) -> None:
    """Make a root, read it back, and compare it with its source."""
    if each.root.base:
        tool.snapshot(place.parent / each.root.base, place, readonly=False)
        treecopy.update(each.whole, manifest.of(place))
    else:
        tool.create(place)
        treecopy.copy(each.whole.tree.root, place)
    purge.carry_out(place, each.whole.tree)
    copied = manifest.of(place)
    if wrong := manifest.differences(each.content, copied, limit=3):
        raise CowError(
            f"Root {each.root.name} is not what {each.words} is after it was copied: {'; '.join(wrong)}. The image was "
            f"left as it was."
        )


def _moved(filled: Path, target: Path, work: Path, tool: Btrfs) -> bool:
    try:
        with (
            loop.attached(target, readonly=False) as device,
            seeds.sprouted(filled, seeds.check(filled), device, work) as (source, point),
        ):
            tool.remove_device(point, source)
    except workshop.NoRoom:
        return False
    return True


def sizes(data: int, metadata: int) -> Iterator[int]:
    """Yield sizes that a file system with so much in it may fit into, the smallest first."""
    size = sprout.LEAST
    for _ in range(_TRIES):
        while (needed := _needed(size, data, metadata)) > size:
            size = rounded(needed)
        yield size
        size += _CHUNK


def _needed(size: int, data: int, metadata: int) -> int:
    """The chunks of metadata come first and are whole ones; the last one of data is as large as what is left."""
    chunk = -(-(size // 10) // _CHUNK) * _CHUNK
    system, for_metadata = (min(chunk, most) for most in (_SYSTEM_CHUNK, _METADATA_CHUNK))
    room_for_metadata = metadata + metadata // 4 + _SPARE
    room_for_data = data + data // 64 + _SPARE
    return _MIB + system + -(-room_for_metadata // for_metadata) * for_metadata + room_for_data


def _used(point: Path) -> int:
    workshop.tool(["sync", "--file-system", point])
    used = btrfs.space(point)
    return used.data + used.metadata


def _room(roots: Sequence[Shown]) -> int:
    """Bytes of a file of holes, in which the roots have room however badly they compress."""
    content = sum(sizing.payload(each.whole.tree) + sizing.inodes_of(each.whole.tree) * 4096 for each in roots)
    return _ROOM + 4 * content


def _make_file(path: Path, size: int) -> None:
    with path.open("xb") as file:
        path.chmod(0o600)
        file.truncate(size)


def described(facts: Mapping[str, Any]) -> bytes:
    """Return the description of an image, which is in it and beside it."""
    return json.dumps(facts, sort_keys=True, indent=1).encode() + b"\n"

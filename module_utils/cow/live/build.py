"""Builds a btrfs image of several roots, as small as they allow: without a mount, or filled by the kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import btrfs, manifest, treecopy
from ..btrfs import Btrfs
from ..errors import CowError
from ..image import btrfs_file, workshop
from ..image import purge as purges
from ..image.btrfs_file import Abilities, Method, Settings
from ..image.purge import Purge
from ..manifest import Manifest
from ..sharing import Sharing
from ..tree import Tree
from . import seed as seeds
from .roots import Root, Shown

COMPRESSOR = "zstd"
_VARIES = ("UUID of the file system", *btrfs_file.VARIES)


@dataclass(frozen=True)
class Order:
    """What an image is to be; the meaning is that of the module's options."""

    checksum: str
    level: int
    label: str
    method: str
    seed: bool

    @property
    def settings(self) -> Settings:
        """What the file system is made with."""
        return Settings(self.checksum, self.label, f"{COMPRESSOR}:{self.level}")


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


def choose(order: Order, roots: Sequence[Root], trees: Sequence[Tree], able: Abilities) -> Method:
    """Decide on the method: without a mount wherever nothing is lost by that. `trees` are those that are known yet."""
    return btrfs_file.choose(order.method, _why_not_mkfs(order, roots, able), trees)


def build(job: Job) -> Built:
    """Make the image in the file `job.target`."""
    with btrfs_file.room_explained(job.work):
        built = _by_mkfs(job) if job.method.name == "mkfs" else _by_loop(job)
    if job.order.seed:
        Btrfs(run=workshop.tool).set_seed(str(job.target), seed=True)
    found = btrfs_file.superblock(job.target)
    if found.seed != job.order.seed:
        raise CowError(f"The seed flag of what was built in {job.work} is not as it was set. Look at the kernel log.")
    return replace(built, used_bytes=found.used_bytes)


def _why_not_mkfs(order: Order, roots: Sequence[Root], able: Abilities) -> str:
    based = next((root for root in roots if root.base), None)
    if based:
        return f"root {based.name} begins as a snapshot of {based.base}, which only the kernel can take"
    return able.why_not_mkfs(order.settings.compression)


def _by_mkfs(job: Job) -> Built:
    """Write it, and where a choice was left and it has become much too large, grow another one out of that."""
    stage = job.work / "stage"
    stage.mkdir()
    (stage / seeds.DESCRIPTION).write_bytes(job.description)
    with ExitStack() as stack:
        for number, each in enumerate(job.roots):
            folder = job.work / f"view{number}"
            folder.mkdir()
            stack.enter_context(purges.view(job.purge, each.whole.tree, stage / each.root.name, folder))
        names = [each.root.name for each in job.roots]
        btrfs_file.by_mkfs(job.order.settings, stage, names, _room(job.roots), job.target)
    slack = btrfs_file.slack_of(job.target) if job.order.method == "auto" else ""
    if not slack:
        return Built(job.method, _VARIES)
    filled = job.target.rename(job.work / "filled")
    btrfs_file.compact(filled, job.target, job.work, Btrfs(run=workshop.tool))
    return Built(btrfs_file.regrown(slack), (*_VARIES, *btrfs_file.BY_KERNEL))


def _by_loop(job: Job) -> Built:
    """What is purged goes from the copy."""
    filled = job.work / "filled"
    tool = Btrfs(run=workshop.tool)
    added: dict[str, int] = {}
    copies: dict[str, Manifest] = {}
    sharing = Sharing()
    with btrfs_file.filling(job.order.settings, _room(job.roots), filled, job.work / "point") as point:
        (point / seeds.DESCRIPTION).write_bytes(job.description)
        before = _used(point)
        for each in job.roots:
            name = each.root.name
            copies[name] = _fill(each, job.purge, point / name, tool)
            sharing.add(copies[name], copies.get(each.root.base))
            after = _used(point)
            added[name] = after - before
            before = after
    btrfs_file.compact(filled, job.target, job.work, tool)
    return Built(job.method, (*_VARIES, *btrfs_file.BY_KERNEL), added_bytes=added)


def _fill(each: Shown, purge: Purge, place: Path, tool: Btrfs) -> Manifest:
    """Make a root, and return what it is by reading it back, after a comparison with its source."""
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
    return copied


def _used(point: Path) -> int:
    workshop.tool(["sync", "--file-system", point])
    used = btrfs.space(point)
    return used.data + used.metadata


def _room(roots: Sequence[Shown]) -> int:
    return btrfs_file.room_for(each.whole.tree for each in roots)


def described(facts: Mapping[str, Any]) -> bytes:
    """Return the description of an image, which is in it and beside it."""
    return json.dumps(facts, sort_keys=True, indent=1).encode() + b"\n"

"""Installs a root into a new file system by copying it, with all attributes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .. import tools, treecopy
from ..btrfs import Btrfs
from ..image import btrfs_seed, sizing, workshop
from ..image.sizing import Need
from ..tree import walk
from . import capacity
from . import seed as seeds
from . import target as targets
from .order import Order
from .seed import Seed


def least_bytes(seed: Seed, order: Order, room: Path) -> int:
    """Return the size from which on the root is sure to fit, were it not compressed at all."""
    return capacity.LEAST[order.filesystem](_need(seed, order, room))


def _need(seed: Seed, order: Order, room: Path) -> Need:
    with btrfs_seed.mounted(seed.path, seed.superblock, room) as (_, point):
        return capacity.need_of(walk(point / order.root))


def install(seed: Seed, order: Order, device: str, room: Path, begin: Callable[[], None]) -> int:
    """Make the file system, copy the root into it, and return the bytes that were written.

    begin: called when the seed is mounted, before the device is touched. Until all is there, the label is the one that
    stands for unfinished.
    """
    with btrfs_seed.mounted(seed.path, seed.superblock, room) as (_, source):
        need = capacity.need_of(walk(source / order.root))
        begin()
        workshop.tool([*_maker(order, need, seeds.bytes_of(Path(device))), device])
        if order.filesystem in targets.BEHIND_THE_MARK:
            targets.mark(device)
        written = _filled(order, source / order.root, device, room)
    _set_label(order, device, room)
    workshop.synced(Path(device))
    return written


def _filled(order: Order, root: Path, device: str, room: Path) -> int:
    options = "noatime,compress=zstd" if order.filesystem == "btrfs" else "noatime"
    with workshop.mounted(device, room / "target", "-t", order.filesystem, "-o", options) as point:
        copied = treecopy.copy(root, _prepared(order, point))
        if order.filesystem == "ext4":
            _make_lost_and_found(point)
        workshop.tool(["sync", "--file-system", point])
    return copied.bytes


def _make_lost_and_found(point: Path) -> None:
    """Make the folder that e2fsck puts what it finds in, and leave the time of the root as it was copied."""
    if (point / "lost+found").exists():
        return
    status = point.stat()
    (point / "lost+found").mkdir(mode=0o700)
    os.utime(point, ns=(status.st_atime_ns, status.st_mtime_ns))


def _set_label(order: Order, device: str, room: Path) -> None:
    if order.filesystem == "btrfs":
        with workshop.mounted(device, room / "target", "-t", "btrfs", "-o", "noatime,subvolid=5") as point:
            Btrfs(run=workshop.tool).set_label(point, order.label)
    elif order.filesystem == "ext4":
        workshop.tool(["e2label", device, order.label])
    else:
        workshop.tool(["xfs_admin", "-L", order.label, device])


def require_tools(order: Order) -> None:
    """Raise NotYetKnown when one that is needed is not installed."""
    for program in {
        "btrfs": ("mkfs.btrfs", "btrfs"),
        "ext4": ("mke2fs", "e2label"),
        "xfs": ("mkfs.xfs", "xfs_admin"),
    }[order.filesystem]:
        tools.require(program)


def _maker(order: Order, need: Need, size: int) -> list[str]:
    label, identity = targets.UNFINISHED_LABEL, order.uuid
    if order.filesystem == "ext4":
        shape = ["-b", str(sizing.BLOCK), "-I", str(sizing.INODE), "-N", str(capacity.ext4_inodes(need, size))]
        return ["mke2fs", "-q", "-F", "-t", "ext4", *shape, "-L", label, "-U", identity]
    if order.filesystem == "xfs":
        return ["mkfs.xfs", "-q", "-f", "-L", label, "-m", f"uuid={identity}"]
    argv = ["mkfs.btrfs", "--quiet", "--force", "--label", label, "--uuid", identity]
    argv += ["--checksum", order.checksum] if order.checksum else []
    argv += ["--nodesize", str(order.node_size)] if order.node_size else []
    return argv + (["--metadata", order.metadata] if order.metadata else [])


def _prepared(order: Order, point: Path) -> Path:
    """Return the empty folder in the new file system that the root is copied to."""
    if order.filesystem == "ext4":
        (point / "lost+found").rmdir()
    if order.filesystem != "btrfs":
        return point
    tool = Btrfs(run=workshop.tool)
    tool.create(point / order.root)
    tool.set_default(point / order.root)
    return point / order.root

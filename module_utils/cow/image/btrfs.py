"""Images with btrfs: written by mkfs.btrfs, or filled by the kernel and grown anew, just large enough."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from .. import btrfs
from ..btrfs import Space
from ..errors import CowError
from ..process import CommandFailed
from ..size import Size
from ..tree import Tree
from . import btrfs_file, sizing, workshop
from .btrfs_file import Method, Settings, TooSmall
from .job import Built, Job, Options, Room, refuse_ignored
from .sizing import Content

PRESETS = {"fast": ("zstd", 1), "balanced": ("zstd", 3), "small": ("zstd", 15)}
"""Compressors and levels."""
_CHECKSUM = "crc32c"
"""What each kernel with btrfs has, also one in an initial RAM disk that was not made for the image."""
_SECTOR = Size(4096)
_LINGERS = 5.0
"""Seconds for which a loop device may be there still that was let go of."""


class Btrfs:
    """What mkfs.btrfs and the kernel make. The tree is the top-level subvolume: it is mounted without `subvol=`."""

    heeds = ("label", "size", "method", "preset", "compressor", "level")

    def check(self, options: Options) -> None:
        """Refuse what btrfs does not have."""
        refuse_ignored(options, self.heeds)
        btrfs_file.check_label(options.label)
        if options.method not in ("auto", "mkfs", "loop"):
            raise CowError(f"btrfs has no method {options.method}. Its methods are auto, mkfs and loop.")
        if options.compressor not in ("", *btrfs_file.COMPRESSORS, "none"):
            raise CowError(
                f"btrfs has no compressor {options.compressor}. It has: {', '.join(btrfs_file.COMPRESSORS)}."
            )
        if options.level is not None and not options.compressor:
            raise CowError("A level without a compressor says nothing. Give `compressor` too, or leave `level` out.")
        if options.level is not None:
            btrfs_file.check_level(options.compressor, options.level)
        if 0 < Room.of(options.size).fixed < btrfs_file.LEAST:
            raise CowError(
                f"A btrfs image of {options.size} is too small: one of a size that is given needs at least "
                f"{btrfs_file.LEAST} bytes ({Size(btrfs_file.LEAST).rounded()}). Give that, or `size: minimum`."
            )

    def tools(self, _options: Options) -> Mapping[str, str]:
        """Return the version of btrfs-progs."""
        return {"btrfs-progs": btrfs_file.abilities().version}

    def lost(self, tree: Tree, options: Options) -> list[str]:
        """What mkfs.btrfs leaves out; nothing by the kernel."""
        return btrfs_file.lost_by_mkfs(tree) if _method(tree, options).name == "mkfs" else []

    def foresee(self, content: Content, options: Options) -> int:
        """Return what the content takes where it is not compressed; what else it comes to shows when it is."""
        _method(content.tree, options)
        if options.compressor != "none":
            return 0
        least, fixed = sizing.payload(content.tree), Room.of(options.size).fixed
        if 0 < fixed < least:
            raise _too_small(options.size, least)
        return least

    def build(self, job: Job) -> Built:
        """Fill it, and give it its UUID last: the kernel mounts no two with the same one."""
        method = _method(job.tree, job.options)
        with btrfs_file.room_explained(job.work):
            built = _by_mkfs(job, method) if method.name == "mkfs" else _by_loop(job, method)
        if btrfs_file.superblock(job.target).uuid != str(job.identity):
            _identify(job)
        return built


def _method(tree: Tree, options: Options) -> Method:
    cannot = btrfs_file.abilities().why_not_mkfs(_compression(options))
    return btrfs_file.choose(options.method, cannot, [tree])


def _compressor(options: Options) -> tuple[str, int | None]:
    return (options.compressor, options.level) if options.compressor else PRESETS[options.preset]


def _compression(options: Options) -> str:
    compressor, level = _compressor(options)
    if compressor == "none":
        return ""
    return compressor if level is None else f"{compressor}:{level}"


def _settings(job: Job) -> Settings:
    return Settings(_CHECKSUM, job.options.label, _compression(job.options), epoch=job.epoch)


def _by_mkfs(job: Job, method: Method) -> Built:
    """Write it. What has become much too large, or is to have room, is grown from that."""
    smallest = Room.of(job.options.size) == Room()
    settings = replace(_settings(job), uuid=str(job.identity) if smallest else "")
    btrfs_file.by_mkfs(settings, job.root, (), btrfs_file.room_for([job.tree]), job.target)
    slack = btrfs_file.slack_of(job.target) if job.options.method == "auto" else ""
    if smallest and not slack:
        least = btrfs_file.superblock(job.target).device_bytes
        return _built(job, method, least, btrfs_file.VARIES)
    filled = job.target.rename(job.work / "filled")
    if smallest:
        btrfs.Btrfs(run=workshop.tool).set_uuid(str(filled), str(uuid.uuid4()))
    return _grown(job, btrfs_file.regrown(slack) if slack else method)


def _identify(job: Job) -> None:
    """Give the image its UUID. The old image is seen for a moment after it was unmounted."""
    deadline = time.monotonic() + _LINGERS
    while True:
        try:
            btrfs.Btrfs(run=workshop.tool).set_uuid(str(job.target), str(job.identity))
        except CommandFailed as error:
            if "not unique" not in error.finished.stderr:
                raise
            if time.monotonic() > deadline:
                raise CowError(
                    f"The UUID that the image is to have, {job.identity}, is that of a device of this host: the old "
                    f"image or a copy of it is mounted or attached (`blkid --uuid {job.identity}`). Detach it, and "
                    f"start again."
                ) from error
            time.sleep(0.5)
        else:
            return


def _by_loop(job: Job, method: Method) -> Built:
    from .. import treecopy  # noqa: PLC0415

    room = btrfs_file.room_for([job.tree])
    with btrfs_file.filling(_settings(job), room, job.work / "filled", job.work / "point") as point:
        treecopy.copy(job.root, point)
    return _grown(job, method)


def _grown(job: Job, method: Method) -> Built:
    """Grow the image out of what was filled, as large as it is to be."""
    tool = btrfs.Btrfs(run=workshop.tool)
    filled, room = job.work / "filled", Room.of(job.options.size)
    used = btrfs_file.as_seed(filled, job.work, tool)
    least = next(btrfs_file.sizes(used.data, used.metadata))
    if room.fixed:
        _grow_fixed(job, used, room.fixed, tool)
    else:
        tried = btrfs_file.sizes(used.data + room.free(least), used.metadata)
        btrfs_file.grow(filled, job.target, job.work, tool, tried)
    return _built(job, method, least, (*btrfs_file.VARIES, *btrfs_file.BY_KERNEL))


def _grow_fixed(job: Job, used: Space, size: int, tool: btrfs.Btrfs) -> None:
    sizes = list(btrfs_file.sizes(used.data, used.metadata))
    if size < sizes[0]:
        raise _too_small(job.options.size, sizes[0])
    try:
        btrfs_file.grow(job.work / "filled", job.target, job.work, tool, [Size(size).floor(_SECTOR).bytes])
    except TooSmall as error:
        if larger := [each for each in sizes if each > size]:
            raise _too_small(job.options.size, larger[0]) from error
        raise


def _too_small(size: str, least: int) -> TooSmall:
    return TooSmall(
        f"An image of {size} is too small: its content needs {least} bytes ({Size(least).rounded()}) with these "
        f"options. Give at least that, or `size: minimum`."
    )


def _built(job: Job, method: Method, least: int, varies: tuple[str, ...]) -> Built:
    compressor, level = _compressor(job.options)
    return Built(method.name, method.why, compressor, level, minimum_bytes=least, varies=varies)

"""Images with squashfs, by mksquashfs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .. import tools
from ..errors import CowError
from ..tree import Tree
from . import losses, workshop
from .job import Built, Job, Options, refuse_ignored, refuse_level
from .sizing import Content

PRESETS = {
    "fast": (("zstd", 1), ("lz4", None), ("gzip", 1)),
    "balanced": (("zstd", 3), ("gzip", 6)),
    "small": (("zstd", 15), ("xz", None), ("gzip", 9)),
}
"""Compressors and levels, the best first. For a Debian tree zstd 3 gave 1.14 times the size of 15 in 1/20 the time."""
_LEVELS = {"zstd": range(1, 23), "gzip": range(1, 10), "lzo": range(1, 10)}
_NEWEST_TIME = 2**32 - 1


class Squashfs:
    """What mksquashfs makes."""

    heeds = ("preset", "compressor", "level")

    def check(self, options: Options) -> None:
        """Refuse what squashfs does not have."""
        refuse_ignored(options, self.heeds)
        refuse_level(options, "mksquashfs", _LEVELS)

    def tools(self, options: Options) -> Mapping[str, str]:
        """Return the version of mksquashfs, which has to have the compressor."""
        _choose(options)
        matched = re.search(r"version (\S+)", tools.said("mksquashfs", "-version"))
        return {"mksquashfs": matched[1] if matched else "unknown"}

    def lost(self, tree: Tree, _options: Options) -> list[str]:
        """ACLs, flags, and times that do not fit into 32 bits."""
        return [
            *losses.acls(tree, "squashfs has none"),
            *losses.flags(tree),
            *losses.times(tree, 0, _NEWEST_TIME, "squashfs has those of 1970 to 2106"),
        ]

    def foresee(self, _content: Content, _options: Options) -> int:
        """Foresee nothing: what the tree comes to shows when it is compressed."""
        return 0

    def build(self, job: Job) -> Built:
        """Compress it."""
        compressor, level = _choose(job.options)
        options = ["-noI", "-noD", "-noF", "-noX"] if compressor == "none" else ["-comp", compressor]
        if level is not None:
            options += ["-Xcompression-level", str(level)]
        # Without the last one, a file that cannot be read is an empty one in the image.
        fixed = ["-noappend", "-no-progress", "-quiet", "-no-recovery", "-mkfs-time", str(job.epoch), "-exit-on-error"]
        workshop.tool(["mksquashfs", job.root, job.target, *fixed, *options])
        return Built("mksquashfs", "mksquashfs is the only way to make one", compressor, level)


def _choose(options: Options) -> tuple[str, int | None]:
    available = tools.compressors(tools.said("mksquashfs", "-help"))
    if options.compressor == "none":
        return "none", None
    if options.compressor:
        if options.compressor not in available:
            raise CowError(
                f"mksquashfs (package squashfs-tools) has no compressor {options.compressor}. It has: "
                f"{', '.join(available)}."
            )
        return options.compressor, options.level
    return next((choice for choice in PRESETS[options.preset] if choice[0] in available), ("gzip", 6))

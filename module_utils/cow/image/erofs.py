"""Images with erofs, by mkfs.erofs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from .. import tools
from ..errors import CowError
from ..tree import Tree
from . import losses, workshop
from .job import Built, Job, Options, refuse_ignored, refuse_level
from .sizing import Content

PRESETS = {
    "fast": (("lz4", None), ("none", None)),
    "balanced": (("zstd", 3), ("lz4hc", 9), ("lz4", None), ("none", None)),
    "small": (("zstd", 15), ("lzma", 9), ("lz4hc", 12), ("lz4", None), ("none", None)),
}
"""Compressors and levels, the best first; mkfs.erofs 1.5 of Debian 12 has lz4 and lz4hc alone."""
_LEVELS = {
    "lz4hc": range(13),
    "lzma": range(110),
    "deflate": range(10),
    "libdeflate": range(13),
    "zstd": range(23),
}
"""Those that mkfs.erofs takes; lz4 has none."""
_LARGE_CLUSTER = 65536
_LONGEST_LABEL = 16
_LONGEST_NAME = 255


class Erofs:
    """What mkfs.erofs makes."""

    heeds = ("label", "preset", "compressor", "level")

    def check(self, options: Options) -> None:
        """Refuse what erofs does not have."""
        refuse_ignored(options, self.heeds)
        if len(options.label.encode()) > _LONGEST_LABEL:
            raise CowError(f"The label {options.label!r} is longer than {_LONGEST_LABEL} bytes.")
        if options.level is not None and not options.compressor:
            raise CowError("A level without a compressor says nothing. Give `compressor` too, or leave `level` out.")
        refuse_level(options, "mkfs.erofs", _LEVELS)

    def tools(self, options: Options) -> Mapping[str, str]:
        """Return the version of mkfs.erofs, which has to have the compressor."""
        usage = _usage()
        _choose(options, usage)
        if options.label and not re.search(r"^ *-L", usage, re.MULTILINE):
            raise CowError(f"mkfs.erofs {_version()} (package erofs-utils) cannot set a label. Leave `label` out.")
        return {"mkfs.erofs": _version()}

    def lost(self, tree: Tree, _options: Options) -> list[str]:
        """Flags."""
        return losses.flags(tree)

    def foresee(self, content: Content, _options: Options) -> int:
        """Refuse names that do not work; what the tree comes to shows when it is compressed."""
        _refuse_long_names(content.tree)
        return 0

    def build(self, job: Job) -> Built:
        """Compress it."""
        compressor, level = _choose(job.options, _usage())
        options = ["-U", str(job.identity)]
        if compressor != "none":
            options.append(f"-z{compressor}" + ("" if level is None else f",{level}"))
        if job.options.preset == "small" and not job.options.compressor and compressor != "none":
            options.append(f"-C{_LARGE_CLUSTER}")
        if job.options.label:
            options += ["-L", job.options.label]
        # The option -T would be the time of all files.
        environment = {"TMPDIR": str(job.work), "SOURCE_DATE_EPOCH": str(job.epoch)}
        workshop.tool(["mkfs.erofs", "--quiet", *options, job.target, job.root], environment=environment)
        return Built("mkfs.erofs", "mkfs.erofs is the only way to make one", compressor, level)


def _refuse_long_names(tree: Tree) -> None:
    """Up to version 1.5, mkfs.erofs cuts the last byte off names that are as long as can be."""
    longest = next((entry for entry in tree.entries if len(entry.name) >= _LONGEST_NAME), None)
    if longest is not None and re.match(r"(0|1\.[0-5])\b", _version()):
        raise CowError(
            f"mkfs.erofs {_version()} fails with names of {_LONGEST_NAME} bytes, such as {os.fsdecode(longest.path)}. "
            f"Leave it out (`purge`), choose another format, or install erofs-utils 1.6 or newer."
        )


def compressors(usage: str) -> tuple[str, ...]:
    """Read the names of the compressors from the help of mkfs.erofs, a line up to 1.6 and a list of options since."""
    line = re.search(r"^Available compressors are: (.*)$", usage, re.MULTILINE)
    if line:
        return tuple(name.strip() for name in line[1].split(","))
    return tuple(re.findall(r"^\s{10,}(lz4|lz4hc|lzma|deflate|libdeflate|zstd)\b", usage, re.MULTILINE))


def _usage() -> str:
    return tools.said("mkfs.erofs", "--help")


def _version() -> str:
    matched = re.search(r"mkfs\.erofs (?:\(erofs-utils\) )?(\d\S*)", _usage())
    if matched:
        return matched[1]
    from .. import apt  # noqa: PLC0415  # newer ones say their version

    return apt.installed(["erofs-utils"]).versions.get("erofs-utils", "unknown")


def _choose(options: Options, usage: str) -> tuple[str, int | None]:
    available = compressors(usage)
    if options.compressor and options.compressor not in (*available, "none"):
        raise CowError(
            f"mkfs.erofs {_version()} (package erofs-utils) has no compressor {options.compressor}. It has: "
            f"{', '.join(available) or 'none'}."
        )
    if options.compressor:
        return options.compressor, options.level
    return next(choice for choice in PRESETS[options.preset] if choice[0] in (*available, "none"))

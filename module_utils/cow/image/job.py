"""What a builder is given and what it returns: the interface that each format implements."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import CowError
from ..size import Size
from ..tree import Tree
from .sizing import Content

_DEFAULTS: Mapping[str, Any] = {
    "label": "",
    "size": "minimum",
    "method": "auto",
    "reserved_percent": 0,
    "journal": "auto",
    "packed_meta_blocks": False,
    "inodes": "auto",
    "compressor": "",
    "level": None,
}
"""Of the options; the preset is one that formats without compression have no use for, and that lists give to all."""


@dataclass(frozen=True)
class Options:
    """What an operator wishes of an image, as the module's options of the same names say."""

    format: str
    label: str
    size: str
    method: str
    reserved_percent: int
    journal: str
    packed_meta_blocks: bool
    inodes: str
    preset: str
    compressor: str
    level: int | None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Options:
        """Take them from the parameters of the module."""
        return cls(
            format=params["format"] or "",
            label=params["label"] or "",
            size=params["size"],
            method=params["method"],
            reserved_percent=params["reserved_percent"],
            journal=params["journal"],
            packed_meta_blocks=params["packed_meta_blocks"],
            inodes=params["inodes"],
            preset=params["preset"],
            compressor=params["compressor"] or "",
            level=params["level"],
        )


def refuse_ignored(options: Options, heeds: Collection[str]) -> None:
    """Refuse what is given and means nothing for the format, which heeds other options."""
    given = asdict(options)
    if names := [name for name, default in _DEFAULTS.items() if name not in heeds and given[name] != default]:
        raise CowError(
            f"{options.format} has no {', '.join(names)}. Leave {', '.join(f'`{name}`' for name in names)} out, or "
            f"choose another format."
        )


def refuse_level(options: Options, tool: str, levels: Mapping[str, range]) -> None:
    """Refuse a level that is given and that the compressor does not have in this tool."""
    if options.level is not None and options.level not in levels.get(options.compressor, ()):
        known = ", ".join(f"{name} {each[0]} to {each[-1]}" for name, each in levels.items())
        raise CowError(
            f"Level {options.level} of compressor {options.compressor or '(not given)'} is not one of {tool}. "
            f"Levels: {known}."
        )


@dataclass(frozen=True)
class Room:
    """What a size asks for: all of it, or what is to be free, as a part of the minimum or in bytes."""

    fixed: int = 0
    percent: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, size: str) -> Room:
        """Read the option of that name."""
        if size == "minimum":
            return cls()
        if not size.startswith("+"):
            if fixed := Size.parse(size).bytes:
                return cls(fixed=fixed)
            raise CowError(f"No image has a size of {size}. Write minimum, +20%, +512MiB or 2GiB.")
        if size.endswith("%"):
            if not re.fullmatch(r"\+\d{1,4}%", size):
                raise CowError(f"{size!r} is not a size. Write minimum, +20%, +512MiB or 2GiB.")
            return cls(percent=int(size[1:-1]))
        return cls(bytes=Size.parse(size[1:]).bytes)

    def free(self, minimum: int) -> int:
        """Return the bytes that are to be free besides the minimum."""
        return self.bytes + minimum * self.percent // 100


@dataclass(frozen=True)
class Job:
    """root: the folder to make an image of.  content: what is in it; its own root may be another place with the same.

    target: the file to write, which is not there yet.  work: a folder for all else that has to be written.
    identity: for the UUID and what else would be random.  epoch: the time of the build, in seconds since 1970.
    """

    root: Path
    content: Content
    target: Path
    work: Path
    options: Options
    identity: uuid.UUID
    epoch: int

    @property
    def tree(self) -> Tree:
        """What is in the folder, without where its files have zeros."""
        return self.content.tree


@dataclass(frozen=True)
class Built:
    """How an image came about; the meaning is that of the module's return values of the same names.

    varies: what is otherwise in an image that is built again from the same inputs.
    """

    method: str
    why: str
    compressor: str = "none"
    level: int | None = None
    minimum_bytes: int | None = None
    tries: int = 1
    varies: tuple[str, ...] = ()


class Builder(Protocol):
    """A file system that images are made with."""

    @property
    def heeds(self) -> tuple[str, ...]:
        """The names of the options that it heeds."""

    def check(self, options: Options) -> None:
        """Refuse options that cannot be meant, before the host is looked at."""

    def tools(self, options: Options) -> Mapping[str, str]:
        """Return name and version of the tools that make it.

        Raises NotYetKnown for one that is not installed, CowError for options that those which are do not know.
        """

    def lost(self, tree: Tree, options: Options) -> list[str]:
        """Say what of the tree the format does not keep."""

    def foresee(self, content: Content, options: Options) -> int:
        """Return the bytes that it takes on the disk at least, 0 when that cannot be told.

        Raises CowError for a size that is too small for the tree.
        """

    def build(self, job: Job) -> Built:
        """Write the image."""

"""ZFS, through its command line (zfs(8), with -Hp output)."""

from __future__ import annotations

from dataclasses import dataclass

from . import mounts, names, process
from .size import Size

_FILE_SYSTEM = "filesystem"
_NOTHING = Size(1 << 20)
"""The most that a file system without files refers to: 24 KiB to some hundreds, by block size and redundancy."""
_NO_FILE = ".zfs"
"""The folder by which ZFS shows snapshots, where it is told to."""


@dataclass(frozen=True)
class Dataset:
    """A dataset, and what is in it.

    kind: as ZFS calls it, filesystem or volume. referenced: what it holds itself. below: names of the datasets and
    snapshots below it. files: names of its first level, as far as it is mounted.
    """

    name: str
    kind: str
    referenced: Size
    below: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def content(self) -> str:
        """What would be lost with it, in a few words; "" when it is an empty file system, which a pool may take."""
        if self.kind != _FILE_SYSTEM:
            return f"it is a {self.kind}"
        if self.below or self.files:
            return f"it holds {names.shortened((*self.below, *self.files))}"
        return f"it holds {self.referenced.rounded()}" if self.referenced > _NOTHING else ""


def find(name: str) -> Dataset | None:
    """Read a dataset; None when ZFS says that there is none, or is not installed."""
    names.dataset(name)
    try:
        # Not by `zfs list`, which gives exact figures only on OpenZFS.
        found = process.run(["zfs", "get", "-Hp", "-o", "property,value", "type,referenced", name])
        listed = process.run(["zfs", "list", "-H", "-r", "-t", "all", "-o", "name", name])
    except process.CommandMissing:
        return None
    except process.CommandFailed as failure:
        if failure.finished.stderr.strip().endswith("dataset does not exist"):
            return None
        raise
    values = dict(line.split("\t") for line in found.stdout.splitlines())
    return Dataset(
        name=name,
        kind=values["type"],
        referenced=Size(int(values["referenced"])),
        below=tuple(below for below in listed.stdout.splitlines() if below != name),
        files=_files(name),
    )


def _files(name: str) -> tuple[str, ...]:
    folders = {mount.mount_point for mount in mounts.every() if mount.source == name}
    return tuple(sorted({file.name for folder in folders for file in folder.iterdir()} - {_NO_FILE}))

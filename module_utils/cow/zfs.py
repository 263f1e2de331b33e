"""ZFS, through its command line (zfs(8), with -Hp output)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import mounts, names, process
from .errors import CowError
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
        if says_missing(failure):
            return None
        raise
    values = dict(line.split("\t") for line in _lines(found.stdout))
    return Dataset(
        name=name,
        kind=values["type"],
        referenced=Size(int(values["referenced"])),
        below=tuple(below for below in _lines(listed.stdout) if below != name),
        files=_files(name),
    )


def says_missing(failure: process.CommandFailed) -> bool:
    """Say whether a command failed for the one reason that what it was asked about does not exist."""
    lines = failure.finished.stderr.strip().splitlines()
    return bool(lines) and all(line.endswith("dataset does not exist") for line in lines)


@dataclass(frozen=True)
class Property:
    """value: "-" for none. own: whether it was set on this very dataset, and not inherited or left at its default."""

    value: str
    own: bool = False


Properties = Mapping[str, Property]


@dataclass(frozen=True)
class Zfs:
    """The `zfs` program. Each call but the reading ones is one change, and raises CowError when it could not be made.

    Nothing is ever destroyed recursively, deferred or by force. Options are those that zfs-fuse has as well.
    """

    run: process.Runner = process.run

    def read(self, of: Sequence[str], wanted: Sequence[str], *, below: bool = False) -> dict[str, Properties]:
        """Return properties of datasets and snapshots by name; those that do not exist are left out.

        below: also of all datasets and snapshots below them.
        """
        argv = ["zfs", "get", "-Hp", *(["-r"] if below else []), "-o", "name,property,value,source"]
        finished = self.run([*argv, ",".join(wanted), *of], accept=(0, 1))
        failure = process.CommandFailed(finished)
        if finished.status and not says_missing(failure):
            raise failure
        found: dict[str, dict[str, Property]] = {}
        for line in _lines(finished.stdout):
            name, key, *value, source = _fields(line)
            found.setdefault(name, {})[key] = Property("\t".join(value), source == "local")
        return dict(found)

    def create(self, name: str, properties: Mapping[str, str], *, volume: Size | None = None) -> None:
        """Make an empty file system, or a sparse volume of this size."""
        sparse = ["-s", "-V", str(volume.bytes)] if volume else []
        self.run(["zfs", "create", *sparse, *_options(properties), name])

    def clone(self, snapshot: str, name: str, properties: Mapping[str, str]) -> None:
        """Make a writable clone of a snapshot."""
        self.run(["zfs", "clone", *_options(properties), snapshot, name])

    def take(self, snapshot: str, properties: Mapping[str, str]) -> None:
        """Take a snapshot, with user properties."""
        self.run(["zfs", "snapshot", *_options(properties), snapshot])

    def promote(self, name: str) -> None:
        """Promote a clone until it depends on no other dataset; one that does not depend on any is left as it is."""
        while self.origin(name) is not None:
            self.run(["zfs", "promote", name])

    def origin(self, name: str) -> str | None:
        """Return the snapshot that an existing dataset is a clone of."""
        origin = self.read([name], ["origin"])[name]["origin"].value
        return None if origin in ("-", "") else origin

    def clones(self, snapshot: str) -> tuple[str, ...]:
        """Return the datasets that are clones of a snapshot, wherever in the pool."""
        try:
            listed = self.read([snapshot], ["clones"]).get(snapshot, {"clones": Property("-")})["clones"].value
        except process.CommandFailed as failure:
            if "invalid property 'clones'" not in failure.finished.stderr:
                raise
            # zfs-fuse does not have it; every clone names its origin.
            everywhere = self.read([snapshot.partition("/")[0].partition("@")[0]], ["origin"], below=True)
            return tuple(name for name, found in everywhere.items() if found["origin"].value == snapshot)
        return tuple(name for name in listed.split(",") if name not in ("-", ""))

    def written(self, name: str) -> dict[str, int]:
        """Return for each snapshot of a dataset the bytes that it has and the one before it has not."""
        try:
            found = self.read([name], ["written"], below=True)
        except process.CommandFailed as failure:
            if "invalid property 'written'" not in failure.finished.stderr:
                raise
            return self._written(name)
        return {each: int(has["written"].value) for each, has in found.items() if each.startswith(f"{name}@")}

    def _written(self, name: str) -> dict[str, int]:
        """Of zfs-fuse, which does not have it: exact for the first two snapshots, and not too much for others."""
        found = self.read([name], ["referenced", "used"], below=True)
        written, kept = dict[str, int](), 0
        for each in (each for each in found if each.startswith(f"{name}@")):
            referenced, used = (int(found[each][key].value) for key in ("referenced", "used"))
            written[each] = max(referenced - kept, 0)
            kept = referenced - used
        return written

    def holds(self, snapshot: str) -> tuple[str, ...]:
        """Return the tags that hold a snapshot."""
        if self.read([snapshot], ["userrefs"])[snapshot]["userrefs"].value == "0":
            return ()
        listed = self.run(["zfs", "holds", "-H", snapshot])
        return tuple(line.split("\t")[1] for line in _lines(listed.stdout))

    def hold(self, tag: str, snapshot: str) -> None:
        """Keep a snapshot from being destroyed; fine when this tag holds it already."""
        self._unless_said("tag already exists", ["zfs", "hold", tag, snapshot])

    def release(self, tag: str, snapshot: str) -> None:
        """Take a hold away; fine when there is none with this tag."""
        self._unless_said("no such tag", ["zfs", "release", tag, snapshot])

    def destroy(self, name: str) -> None:
        """Destroy one dataset or snapshot that nothing depends on."""
        self.run(["zfs", "destroy", name])

    def set(self, name: str, key: str, value: str) -> None:
        """Set a property."""
        self.run(["zfs", "set", f"{key}={value}", name])

    def mount(self, name: str) -> None:
        """Mount a file system at its mountpoint."""
        self.run(["zfs", "mount", name])

    def unmount(self, name: str) -> None:
        """Unmount a file system that is not in use."""
        self.run(["zfs", "unmount", name])

    def _unless_said(self, words: str, argv: Sequence[str]) -> None:
        finished = self.run(argv, accept=(0, 1))
        if finished.status and words not in finished.stderr:
            raise process.CommandFailed(finished)


def _lines(printed: str) -> list[str]:
    """Split what was printed at line feeds alone: other characters that break lines are part of a value."""
    return [line for line in printed.split("\n") if line]


def _fields(line: str) -> list[str]:
    fields = line.split("\t")
    if len(fields) < 4:
        raise CowError(
            f"`zfs get` printed {line!r}, which is a part of a property: its value has a line break in it. "
            f"Find it with `zfs get -r -s local all`, and set it anew or take it away with `zfs inherit`."
        )
    return fields


def _options(properties: Mapping[str, str]) -> list[str]:
    return [word for key, value in properties.items() for word in ("-o", f"{key}={value}")]


def _files(name: str) -> tuple[str, ...]:
    folders = {mount.mount_point for mount in mounts.every() if mount.source == name}
    return tuple(sorted({file.name for folder in folders for file in folder.iterdir()} - {_NO_FILE}))

"""Golden trees as XFS on volumes of ZFS, for container engines that want XFS under overlay2.

As `datasets.py`, with these differences: what is cloned is a disk. Its file system is frozen while the snapshot is
taken, else each clone would replay the log; its device comes some time after the clone, and may for a moment be that
of another volume; and it is mounted with nouuid always, for all clones have the UUID of the first one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .. import mounts, process
from ..errors import CowError
from ..kernel import thaw
from ..size import Size
from .datasets import Datasets
from .model import BUILDING, Session
from .refusals import InUse

_OPTIONS = {"volblocksize": "8K", "compression": "lz4", "dedup": "off"}
_FROZEN_SNAPSHOT = """\
trap '' HUP INT TERM
xfs_freeze -f "$1" || exit
trap 'trap "" HUP INT TERM; xfs_freeze -u "$1"; echo "It was ended from outside, or took too long." >&2; exit 1' \
    HUP INT TERM
zfs snapshot -o cowherd:kind=golden "$2" &
wait $!
status=$?
trap '' HUP INT TERM
xfs_freeze -u "$1" && exit "$status"
"""
"""For a shell, which thaws what it froze also when it and all it started are told to end.

xfs_freeze is a shell script itself, and has to come to its end. A signal interrupts `wait`, and no other command.
"""
_FROZEN_AT_MOST = 60.0
"""Seconds; less than after which the command is killed."""
_MOUNT_OPTIONS = "nouuid,discard"
_DEVICE_WITHIN = 30.0
"""Seconds; udev makes the links of all volumes in turn."""


@dataclass(frozen=True)
class Volumes(Datasets):
    """The backend zvol. volume_size: of the first generation of a project."""

    name: str = "zvol"
    volume_size: str = "100GiB"
    devices: Path = Path("/dev")

    def trimmable(self) -> tuple[Path, ...]:
        """Sessions that are mounted: `discard` gives large extents back at once, and small ones never."""
        projects = (self.read(name) for name in self.projects())
        return tuple(Path(each.path) for project in projects if project for each in project.sessions if each.mounted)

    def _at_rest(self) -> dict[str, str]:
        return {"readonly": "on"}

    def _in_use_at(self, path: str) -> dict[str, str]:  # noqa: ARG002
        return {"readonly": "off"}

    def _create(self, name: str, folder: Path, project: str) -> None:  # noqa: ARG002
        marks = {
            "cowherd:kind": "generation",
            "cowherd:state": BUILDING,
            "cowherd:generation": name.rpartition("/")[2],
        }
        self.tool.create(name, {**_OPTIONS, **marks}, volume=self._size(project))
        self.tool.run(["mkfs.xfs", "-q", "-K", "--", str(self._device(name))])

    def _size(self, project: str) -> Size:
        """Return the size of the newest volume of the project, or what was asked for."""
        inventory = self._require(project)
        for _, name in sorted(inventory.generations.items(), reverse=True):
            return Size(int(self.tool.read([name], ["volsize"])[name]["volsize"].value))
        return Size.parse(self.volume_size)

    def _snapshot(self, snapshot: str, session: Session) -> None:
        """Freeze the file system around it, in a process that thaws it also when this one is killed meanwhile."""
        self._thaw(snapshot.partition("@")[0], Path(session.path))
        self.tool.run(_frozen_snapshot(session.path, snapshot))

    def _mount(self, name: str, folder: Path) -> None:
        device = self._device(name)
        if not self._is_mounted(name, folder, mounts.every()):
            folder.mkdir(parents=True, exist_ok=True)
            self.tool.run(["mount", "-t", "xfs", "-o", _MOUNT_OPTIONS, "--", str(device), str(folder)])

    def _unmount(self, name: str, folder: Path) -> None:
        self._thaw(name, folder)  # else its device would be in use for ever
        try:
            self.tool.run(["umount", "--", str(folder)])
        except process.CommandFailed as failure:
            said = " ".join(failure.finished.stderr.split())
            if "busy" not in said:
                raise
            raise InUse(f"{name} is in use at {folder}: {said} End what uses it.") from failure

    def _thaw(self, name: str, folder: Path) -> None:
        """Undo what a promotion left that was killed together with the process that thaws."""
        if self._is_mounted(name, folder, mounts.every()):
            thaw(folder)

    def _sources(self, name: str) -> tuple[str, ...]:
        """The device by each of its names, for mountinfo has the one that mount(8) was given or resolved."""
        link = self.devices / "zvol" / name
        return (str(link), os.path.realpath(link))

    def _device(self, name: str) -> Path:
        """Wait for the device of a volume, and see that it is that of this one."""
        deadline = self.clock() + _DEVICE_WITHIN
        link = self.devices / "zvol" / name
        while not (device := self._verified(link, name)):
            if self.clock() >= deadline:
                raise CowError(
                    f"The device {link} did not come within {_DEVICE_WITHIN:g} s. See that udev runs, and that "
                    f"`zfs get volmode {name}` says full or default."
                )
            self.sleep(0.02)
        return device

    def _verified(self, link: Path, name: str) -> Path | None:
        device = Path(os.path.realpath(link))
        if not device.is_block_device():
            return None
        # zvol_id says which volume a node is of; a link may be one that an earlier volume of this name left.
        said = self.tool.run([_zvol_id(), str(device)], accept=(0, 1)).stdout.strip()
        return device if said == name else None


def _frozen_snapshot(path: str, snapshot: str, within: float = _FROZEN_AT_MOST) -> list[str]:
    """Return the command; what kills it kills `timeout`, and the shell goes on until it has thawed."""
    return ["timeout", f"{within:g}", "sh", "-c", _FROZEN_SNAPSHOT, "sh", path, snapshot]


def _zvol_id() -> str:
    """Return the program that udev asks, which no PATH has."""
    places = ("/usr/lib/udev/zvol_id", "/lib/udev/zvol_id")
    return next((place for place in places if Path(place).exists()), places[0])

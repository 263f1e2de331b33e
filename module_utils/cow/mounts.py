"""Which file system a path is on, and how much room it has."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import CowError
from .size import Size

_NO_CHANGE_TIMES = frozenset({"squashfs", "erofs", "iso9660", "overlay"})
"""File systems that show the times of modification as those of change, or what is below another one's."""


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    fstype: as the kernel names it: btrfs, ext4, xfs, zfs, tmpfs, fuse.sshfs.
    source: the device, the ZFS dataset, or what else the file system says it comes from.
    mount_point: where it is seen.
    options: those of the mount and of the file system under it, each once.
    root: the folder of the file system that is seen at mount_point; "/" but for bind mounts and btrfs subvolumes.
    device: the file system's major:minor; two mounts with the same one show the same file system.
    parent: the id of the mount that it is on.
    peers, master: numbers of groups of mounts, 0 for none: what is mounted or unmounted in one of its peers is so in
        it, and so is what is in those of its master.
    """

    fstype: str
    source: str
    mount_point: Path
    options: tuple[str, ...]
    root: Path
    device: str
    parent: int = 0
    peers: int = 0
    master: int = 0

    def inside(self, path: Path) -> Path:
        """Where a path under `mount_point` is in the file system, seen from its top."""
        return self.root / path.relative_to(self.mount_point)


def under(path: Path) -> Mount:
    """Return the mount that `path` is on, or would be on: that of its nearest existing ancestor, symlinks followed.

    Raises CowError when it cannot be told.
    """
    ancestor = existing(path)
    try:
        mount_id = _mount_id(ancestor)
        return _read_table()[mount_id]
    except OSError as error:
        raise CowError(f"The file system under {path} cannot be found out: {error}.") from error
    except KeyError as error:
        raise CowError(
            f"The file system under {path} is not in /proc/self/mountinfo, as happens in a chroot whose root is not "
            f"a mount point. Run this on the host itself."
        ) from error


def every() -> tuple[Mount, ...]:
    """All mounts that this process sees, in the order in which they were made."""
    return tuple(_read_table().values())


def showing(path: Path) -> tuple[Mount, ...]:
    """Return the mounts that show the folder `path` or something in it, and those in it that show something else."""
    real = path.resolve()
    device, inside = place(real)
    return tuple(
        mount
        for mount in every()
        if mount.mount_point.is_relative_to(real) or (mount.device == device and mount.root.is_relative_to(inside))
    )


def tells_changes(path: Path) -> bool:
    """Say whether what was changed in the folder shows in its times of change, also after it was mounted anew.

    A read-only file system may be another one each time with the same inodes, and times that were set when it was made.
    """
    mount = under(path)
    return mount.fstype not in _NO_CHANGE_TIMES and "ro" not in mount.options


def place(folder: Path) -> tuple[str, Path]:
    """Return the device of the file system that a folder is in, and where in it, seen from its top.

    That is how each mount namespace names the folder, wherever it has it.
    """
    real = folder.resolve()
    own = under(real)
    return own.device, own.inside(real)


def point(path: Path) -> Path:
    """Where the table has what is mounted at `path`, which need not exist: without symlinks in what leads to it."""
    return Path(os.path.realpath(path.parent), path.name)


def tells_kinds(folder: Path) -> bool | None:
    """Say whether the file system tells the kind of each entry as it lists a folder (d_type of readdir(3)).

    Overlays need that. Where nothing is in the folder, those above it are asked as far as they are of the same file
    system. None where it cannot be told: there is no such folder, or nothing in any of them.
    """
    try:
        real = folder.resolve(strict=True)
        device = real.stat().st_dev
        for each in (real, *real.parents):
            if each.stat().st_dev != device:
                return None
            if (told := _tells_kinds_in(each)) is not None:
                return told
    except OSError:
        pass
    return None


def _tells_kinds_in(folder: Path) -> bool | None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            entry = next(entries, None)
    finally:
        os.close(descriptor)
    try:
        # Python asks for the kind itself where it was not told, which the closed descriptor keeps it from.
        return None if entry is None else isinstance(entry.is_symlink(), bool)
    except OSError:
        return False


def free(path: Path) -> Size:
    """Return what an ordinary user may still write to the file system under `path`, which need not exist."""
    ancestor = existing(path)
    try:
        status = os.statvfs(ancestor)
    except OSError as error:
        raise CowError(f"The free space under {path} cannot be found out: {error}.") from error
    return Size(status.f_bavail * status.f_frsize)


def existing(path: Path) -> Path:
    """Return `path` or its nearest ancestor that exists."""
    try:
        return next(candidate for candidate in (path, *path.parents) if candidate.exists())
    except (OSError, StopIteration) as error:
        raise CowError(f"{path} cannot be looked at. Give an absolute path that this user may search.") from error


def parse(table: bytes) -> dict[int, Mount]:
    """Read the text of a mountinfo file, as mount id to mount."""
    return dict(_parse_line(line) for line in table.split(b"\n") if line)


def _mount_id(path: Path) -> int:
    # The kernel's own answer: prefixes of mount points would be misled by mounts that lie over others.
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        fields = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii").split()
    finally:
        os.close(descriptor)
    return int(fields[fields.index("mnt_id:") + 1])


def _read_table() -> dict[int, Mount]:
    return parse(Path("/proc/self/mountinfo").read_bytes())


def _parse_line(line: bytes) -> tuple[int, Mount]:
    of_mount, of_file_system = line.split(b" - ", 1)
    mount_id, parent, device, root, mount_point, options, *of_groups = of_mount.split(b" ")
    groups = dict(each.split(b":", 1) for each in of_groups if b":" in each)
    fstype, source, super_options = of_file_system.split(b" ", 2)
    both = dict.fromkeys((_unescaped(options) + "," + _unescaped(super_options)).split(","))
    return int(mount_id), Mount(
        fstype=_unescaped(fstype),
        source=_unescaped(source),
        mount_point=Path(_unescaped(mount_point)),
        options=tuple(both),
        root=Path(_unescaped(root)),
        device=_unescaped(device),
        parent=int(parent),
        peers=int(groups.get(b"shared", 0)),
        master=int(groups.get(b"master", 0)),
    )


def _unescaped(field: bytes) -> str:
    """Undo the octal escapes (space is 040) that keep one field one word."""
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 0xFF]), field))

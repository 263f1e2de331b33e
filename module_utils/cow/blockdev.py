"""Block devices: what is on one, before anything is written to it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from . import process
from .size import Size

_NOTHING_FOUND = 2
"""Exit status of blkid(8) when it recognises nothing on a device."""
_AMBIGUOUS = 8
"""When it recognises several things on the last one."""
_TABLE = "partition table"


@dataclass(frozen=True)
class Device:
    """A block device.

    content: what is on it in a few words ("ext4 (filesystem)", "3 partitions", "mounted on /srv"), "" when nothing is.
    """

    path: str
    size: Size
    content: str


def inspect(path: str) -> Device | None:
    """Look at a device without writing; None when there is no block device at the path."""
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    kernel = Path("/sys/dev/block") / f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    size = Size(int((kernel / "size").read_text()) * 512)
    return Device(path, size, _in_use(kernel, status.st_rdev) or signature(path))


def _in_use(kernel: Path, number: int) -> str:
    partitions = [entry for entry in kernel.iterdir() if (entry / "partition").exists()]
    if partitions:
        return f"{len(partitions)} partition{'s' if len(partitions) > 1 else ''}"
    holders = sorted(entry.name for entry in (kernel / "holders").iterdir()) if (kernel / "holders").is_dir() else []
    if holders:
        return f"in use by {', '.join(holders)}"
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return f"mounted on {fields[4]}"
    return ""


@dataclass(frozen=True)
class Identity:
    """What blkid(8) recognises at the beginning of a device or file.

    type: ext4, btrfs, crypto_LUKS, or for a partition table gpt, dos.  usage: filesystem, raid, crypto, other, or
    partition table.
    uuid, label: of the file system, or the uuid of the partition table; "" when it has none.
    """

    type: str
    usage: str
    uuid: str
    label: str


def identify(path: str) -> Identity | None:
    """Say what a device or file begins with; None when nothing is recognised."""
    found = process.run(["blkid", "-p", "-o", "export", "--", path], accept=(0, _NOTHING_FOUND))
    known = _exported(found.stdout)
    if "TYPE" in known:
        return Identity(known["TYPE"], known.get("USAGE", "data"), known.get("UUID", ""), known.get("LABEL", ""))
    if "PTTYPE" in known:
        return Identity(known["PTTYPE"], _TABLE, known.get("PTUUID", ""), "")
    return None


def with_uuid(uuid: str) -> str:
    """Return the block device with the file system of that UUID, "" when there is none.

    All are looked at: `blkid --uuid` leaves some out, and believes what it remembers of others.
    """
    entries = filter(_has_medium, Path("/sys/class/block").iterdir())
    devices = ["/dev/" + entry.name.replace("!", "/") for entry in entries]
    found = process.run(["blkid", "-p", "-o", "export", "--", *devices], accept=(0, _NOTHING_FOUND, _AMBIGUOUS))
    each = map(_exported, found.stdout.split("\n\n"))
    return next((known["DEVNAME"] for known in each if known.get("UUID") == uuid), "")


def _exported(said: str) -> dict[str, str]:
    """Read what blkid(8) says of one device with `-o export`."""
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", said, re.MULTILINE))


def _has_medium(entry: Path) -> bool:
    with contextlib.suppress(OSError):  # it may be let go of just now
        return int((entry / "size").read_text()) > 0
    return False


def signature(path: str) -> str:
    """Say what a device or file begins with, as in "ext4 (filesystem)"; "" when blkid(8) recognises nothing."""
    found = identify(path)
    if found is None:
        return ""
    return f"a {found.type} {_TABLE}" if found.usage == _TABLE else f"{found.type} ({found.usage})"

"""btrfs: what a file system and its subvolumes are, and the commands that change them.

What there is is read with the kernel's own calls (linux/btrfs.h, since Linux 4.18), not from the output of `btrfs`:
that has JSON for subvolumes only in newer releases than Debian 12 has, and its text cannot tell odd file names apart.
The layouts are those of x86-64, ARM and RISC-V. Subvolumes are made, cloned and deleted with such calls as well, which
costs no process; the rest is done with the `btrfs` program, and only here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import mounts, process
from .errors import CowError

TOP_LEVEL = 5
"""The id of the subvolume that every btrfs file system begins with."""
BY_MOUNT_OPTION = "default"
"""The compression of a subvolume that leaves it to the mount option."""

_ROOT_OF_SUBVOLUME = 256
"""The inode number of a subvolume's own folder, and of no other folder."""
_COMPRESSION = "btrfs.compression"
_READ_ONLY_FLAG = 1


@dataclass(frozen=True)
class Subvolume:
    """A subvolume as it is.

    id: its number, which is never used again in this file system.
    uuid, parent_uuid, received_uuid: parent_uuid is that of what it is a snapshot of; received_uuid is set on what
        `btrfs receive` made. The top level of an old file system has no uuid.
    created: when, in UTC (ISO 8601).
    compression: of files written from now on: zstd, lzo, zlib, none, or "default" for what the mount option says.
    """

    path: Path
    id: int
    uuid: str | None
    parent_uuid: str | None
    received_uuid: str | None
    readonly: bool
    generation: int
    created: str
    compression: str


def at(path: Path) -> Subvolume | None:
    """Return the subvolume at `path`, or None when there is nothing.

    Raises CowError when something else is there.
    """
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise CowError(f"{path} cannot be looked at: {error.strerror}.") from error
    if not stat.S_ISDIR(status.st_mode):
        raise CowError(f"{path} is {_kind(status.st_mode)}, not a subvolume. Choose another path or move it away.")
    require_file_system(path)
    if status.st_ino != _ROOT_OF_SUBVOLUME:
        raise CowError(f"{path} is an ordinary folder, not a subvolume. Choose another path or move it away.")
    return _read(path)


def require_file_system(path: Path) -> None:
    """Raise CowError unless `path`, or its nearest existing ancestor, is on btrfs."""
    mount = mounts.under(path)
    if mount.fstype != "btrfs":
        raise CowError(
            f"{path} is on {mount.fstype} ({mount.source} mounted at {mount.mount_point}), and subvolumes need btrfs. "
            f"Choose a path on a btrfs file system."
        )


def nested(outer: Path) -> tuple[Subvolume, ...]:
    """Return all subvolumes inside the one at `outer`, each after those inside it: the order to delete them in."""
    found: list[Subvolume] = []
    for path in _children(outer):
        found += [*nested(path), _read(path)]
    return tuple(found)


def default_id(path: Path) -> int:
    """Return the id of the subvolume that is mounted when none is named, in the file system of the subvolume `path`."""
    # The root tree's own folder (object 6) names it in an item (type 84) called "default": a header of 30 bytes, whose
    # first field is the id, then the name.
    for _, item in items(path, tree=1, kinds=(84,), objects=(6, 6)):
        if item[30:37] == b"default":
            return int(struct.unpack_from("=Q", item)[0])
    return TOP_LEVEL


@dataclass(frozen=True)
class Key:
    """What an item of a tree is found by."""

    object: int
    kind: int
    offset: int


def items(
    mounted: Path, tree: int, kinds: Collection[int], objects: tuple[int, int] = (0, 2**64 - 1)
) -> Iterator[tuple[Key, bytes]]:
    """Yield the items of these kinds, of objects from the first one to the last, of a tree of the mounted file system.

    They come in the order of their keys.
    """
    first, last = objects
    at, end = Key(first, min(kinds), 0), Key(last, max(kinds), _ANY)
    with _reading(mounted), _folder(mounted) as descriptor:
        while found := _search(descriptor, tree, at, end):
            yield from ((key, content) for key, content in found if key.kind in kinds)
            key = found[-1][0]
            after = (key.kind, key.offset + 1) if key.offset < _ANY else (key.kind + 1, 0)
            at = Key(key.object, *after)


def _search(descriptor: int, tree: int, at: Key, end: Key) -> list[tuple[Key, bytes]]:
    """Return the first items from one key to another, as many as one answer holds."""
    offsets, kinds = (at.offset, end.offset), (at.kind, end.kind)
    question = _SEARCH.pack(tree, at.object, end.object, *offsets, 0, _ANY, *kinds, _ANY_NUMBER, _ANSWER)
    answer = bytearray(question.ljust(_SEARCH.size + _ANSWER, b"\0"))
    fcntl.ioctl(descriptor, _TREE_SEARCH, answer)
    (count,) = struct.unpack_from("=I", answer, _COUNT)
    found, place = [], _SEARCH.size
    for _ in range(count):
        number, offset, kind, length = _FOUND.unpack_from(answer, place)
        place += _FOUND.size
        found.append((Key(number, kind, offset), bytes(answer[place : place + length])))
        place += length
    return found


def has_subvolumes(image: str) -> bool:
    """Say whether the file system in a file, which need not be mounted, has a subvolume besides its top level."""
    dumped = process.run(["btrfs", "inspect-internal", "dump-tree", "-t", "root", image]).stdout
    return re.search(r"^\s*item \d+ key \(\d+ ROOT_ITEM ", dumped, re.MULTILINE) is not None


CHECKSUMS = ("crc32c", "xxhash64", "sha256", "blake2b")
"""By their number on the disk."""
SUPERBLOCKS = (64 << 10, 64 << 20, 256 << 30)
"""Where on a device that is so large the superblock and its copies are."""
SUPERBLOCK_BYTES = 4096
_SUPERBLOCK_MAGIC = b"_BHRfS_M"
_SEEDING = 1 << 32
_HEAD = struct.Struct("<32s16sQQ8sQ32xQQ8xQII20x")
"""Checksum, fsid, place, flags, magic, generation, total and used bytes, devices, sizes of sectors and nodes."""
_FEATURES_AND_CHECKSUM = 188, struct.Struct("<QH")
_DEVICE, _LABEL = struct.Struct("<QQ"), slice(299, 555)
_DEVICE_ITEM = 201


@dataclass(frozen=True)
class Superblock:
    """What a btrfs says of itself; sizes are in bytes.

    device_bytes, device_number: of the device or file that it was read from, as the file system knows it.
    features: bits of those that a kernel has to know to mount it (incompat_flags).
    seed: it is for reading alone, and what is written goes to devices that are added.
    """

    uuid: str
    label: str
    generation: int
    total_bytes: int
    used_bytes: int
    device_bytes: int
    device_number: int
    devices: int
    node_bytes: int
    checksum: str
    seed: bool
    features: int = 0


def superblock(path: Path) -> Superblock | None:
    """Read that of a device or file, which need not be mounted; None when there is none."""
    with _reading(path), path.open("rb") as file:
        file.seek(SUPERBLOCKS[0])
        raw = file.read(SUPERBLOCK_BYTES)
    if len(raw) < SUPERBLOCK_BYTES:
        return None
    _, fsid, place, flags, magic, generation, total, used, devices, _, node = _HEAD.unpack_from(raw)
    if magic != _SUPERBLOCK_MAGIC or place != SUPERBLOCKS[0]:
        return None
    at, those = _FEATURES_AND_CHECKSUM
    features, checksum = those.unpack_from(raw, at)
    number, of_device = _DEVICE.unpack_from(raw, _DEVICE_ITEM)
    return Superblock(
        uuid=_uuid(fsid) or "",
        label=raw[_LABEL].split(b"\0")[0].decode("utf-8", "backslashreplace"),
        generation=generation,
        total_bytes=total,
        used_bytes=used,
        device_bytes=of_device,
        device_number=number,
        devices=devices,
        node_bytes=node,
        checksum=CHECKSUMS[checksum] if checksum < len(CHECKSUMS) else f"type {checksum}",
        seed=bool(flags & _SEEDING),
        features=features,
    )


@dataclass(frozen=True)
class Space:
    """Bytes that are used of a file system: of data, and of metadata, as which what is there twice is counted once.

    doubled: metadata is there twice, or some of it is (dup).
    """

    data: int
    metadata: int
    doubled: bool = False


def space(mounted: Path) -> Space:
    """Return what is used of the file system at `mounted`. What was written just now is in it after a sync."""
    slots = 32
    question = bytearray(struct.pack("=2Q", slots, 0).ljust(16 + slots * _SPACE.size, b"\0"))
    with _reading(mounted), _folder(mounted) as descriptor:
        fcntl.ioctl(descriptor, _SPACE_INFO, question)
    (count,) = struct.unpack_from("=Q", question, 8)
    found = [_SPACE.unpack_from(question, 16 + number * _SPACE.size) for number in range(min(count, slots))]
    return Space(
        data=sum(used for flags, _, used in found if flags & _DATA),
        metadata=sum(used for flags, _, used in found if flags & _METADATA and not flags & _RESERVE),
        doubled=any(flags & _METADATA and flags & _DOUBLED for flags, _, _ in found),
    )


@dataclass(frozen=True)
class Scrubbed:
    """What a scrub read, in bytes, and how many blocks it could not read, or that are not what their checksums say.

    data: blocks of files.  metadata: all others.  superblocks: copies of the superblock.
    """

    data_bytes: int
    metadata_bytes: int
    data: int
    metadata: int
    superblocks: int

    @property
    def clean(self) -> bool:
        """Nothing is damaged."""
        return not (self.data or self.metadata or self.superblocks)


def scrub(mounted: Path, device: int = 1) -> Scrubbed:
    """Read all that is in use on a device of the file system at `mounted`, compare checksums, and write nothing.

    Unlike `btrfs scrub` it leaves no record of itself on the host.
    """
    question = bytearray(_SCRUB.pack(device, 0, _ANY, _SCRUB_READ_ONLY, *[0] * 15))
    with _changing(f"verify what is mounted at {mounted}"), _folder(mounted) as descriptor:
        fcntl.ioctl(descriptor, _START_SCRUB, question)
    _, _, _, _, _, _, data_bytes, tree_bytes, reads, sums, verified, _, _, supers, *_ = _SCRUB.unpack(question)
    return Scrubbed(data_bytes, tree_bytes, data=reads + sums, metadata=verified, superblocks=supers)


def sprouts(uuid: str) -> tuple[str, ...]:
    """Return the UUIDs of the file systems that are mounted on this host and have the seed with that UUID in them."""
    found = set()
    for member in Path("/sys/fs/btrfs").glob("*-*/devinfo/*/fsid"):
        with contextlib.suppress(OSError):  # it may be unmounted just now
            if member.read_text().strip() == uuid and member.parts[4] != uuid:
                found.add(member.parts[4])
    return tuple(sorted(found))


def add_device(mounted: Path, device: str) -> None:
    """Add a device to the file system at `mounted`, by the kernel's own call.

    Unlike `btrfs device add` it clears nothing on the device: what is in its first 64 KiB stays.
    """
    question = bytearray(struct.pack("=q4088s", 0, os.fsencode(device)))
    with _reading(mounted):
        descriptor = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, _ADD_DEVICE, question)
        except OSError as error:
            raise CowError(f"btrfs did not take the device {device}: {error.strerror}.") from error
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Btrfs:
    """The `btrfs` program. Each call is one change and raises CowError when it could not be made."""

    run: process.Runner = process.run

    def create(self, path: Path) -> None:
        """Make an empty subvolume; the folder that it is to be in exists."""
        _change(path.parent, _SUBVOLUME_CREATE, _VOLUME_ARGUMENTS.pack(0, 0, os.fsencode(path.name)), f"create {path}")

    def snapshot(self, source: Path, path: Path, *, readonly: bool) -> None:
        """Make a snapshot of the subvolume `source` at `path`, where there is nothing yet."""
        what = f"take a snapshot of {source} at {path}"
        with _changing(what), _folder(source) as descriptor:
            flags = _READ_ONLY if readonly else 0
            arguments = _VOLUME_ARGUMENTS.pack(descriptor, flags, os.fsencode(path.name))
            _change(path.parent, _SNAPSHOT_CREATE, arguments, what)

    def delete(self, path: Path) -> None:
        """Delete the subvolume at `path`, in which no other one is. Its space is given back by and by."""
        _change(path.parent, _SUBVOLUME_DELETE, _OLD_ARGUMENTS.pack(0, os.fsencode(path.name)), f"delete {path}")

    def set_readonly(self, path: Path, readonly: bool) -> None:
        """Set or clear the read-only flag; never for a received one, whose later increments rely on it."""
        what = f"make {path} {'read-only' if readonly else 'writable'}"
        (flags,) = struct.unpack("=Q", _ask(path, _GET_FLAGS))
        flags = flags | _READ_ONLY if readonly else flags & ~_READ_ONLY
        _change(path, _SET_FLAGS, struct.pack("=Q", flags), what)

    def set_compression(self, path: Path, compression: str) -> None:
        """Set how files that are new in the subvolume at `path` are compressed; those that exist stay as they are."""
        value = "" if compression == BY_MOUNT_OPTION else compression
        self.run(["btrfs", "property", "set", "-t", "inode", "--", str(path), "compression", value])

    def set_default(self, path: Path) -> None:
        """Make the subvolume at `path` the one that is mounted when none is named."""
        self.run(["btrfs", "subvolume", "set-default", "--", str(path)])

    def await_deletions(self, mounted: Path) -> None:
        """Wait until the space of all deleted subvolumes is given back."""
        # The cleaner wakes up with a commit, which else comes every 30 seconds.
        self.run(["btrfs", "filesystem", "sync", "--", str(mounted)])
        self.run(["btrfs", "subvolume", "sync", "--", str(mounted)])

    def remove_device(self, mounted: Path, device: str) -> None:
        """Move what is on a device to the others, and let go of it."""
        self.run(["btrfs", "device", "remove", "--", device, str(mounted)])

    def convert_metadata(self, mounted: Path, profile: str) -> None:
        """Have metadata stored as `profile` says: single or dup."""
        to = [f"-mconvert={profile},soft", f"-sconvert={profile},soft", "--force"]
        self.run(["btrfs", "balance", "start", *to, "--", str(mounted)])

    def grow(self, mounted: Path, device_number: int) -> None:
        """Have a file system take all of one of its devices."""
        self.run(["btrfs", "filesystem", "resize", f"{device_number}:max", str(mounted)])

    def set_label(self, path: Path, label: str) -> None:
        """Set the label of a file system: a mounted one, or one in a file."""
        self.run(["btrfs", "filesystem", "label", "--", str(path), label])

    def set_seed(self, device: str, *, seed: bool) -> None:
        """Set or clear the flag that makes a file system that is not mounted a seed."""
        self.run(["btrfstune", "-f", "-S", "1" if seed else "0", device])

    def set_uuid(self, device: str, identity: str) -> None:
        """Write another UUID into each block of metadata of a file system that is not mounted."""
        self.run(["btrfstune", "-f", "-U", identity, device])


_ANY = 2**64 - 1
_READ_ONLY = 2
"""Of the flags that a subvolume is made with or given; reading tells it by _READ_ONLY_FLAG."""
_VOLUME_ARGUMENTS = struct.Struct("=q8xQ32x4040s")
_OLD_ARGUMENTS = struct.Struct("=q4088s")
_ID_AND_FOLDER = struct.Struct("=QQ")
_INFO = struct.Struct("=Q256s4Q16s16s16s4QQI4xQI4xQI4xQI4x8Q")
_CREATED = 6
"""Where in the times of _INFO (four transactions, then four pairs of seconds and nanoseconds) that of creation is."""
_SPACE = struct.Struct("=3Q")
_DATA, _METADATA, _DOUBLED, _RESERVE = 1, 4, 1 << 5, 1 << 49
_SCRUB = struct.Struct("=4Q15Q872x")
_SCRUB_READ_ONLY = 1
_CHILDREN_AT_ONCE = 255
_CHILDREN = struct.Struct("=Q4080sB7x")
_NAME = struct.Struct("=QQ256s3824s")
_SEARCH = struct.Struct("=7Q3I36xQ")
"""Tree, least and greatest object, offset and transaction, the same of kinds, how many, bytes for the answer."""
_FOUND = struct.Struct("=8xQQII")
_COUNT, _ANY_NUMBER, _ANSWER = 64, 2**32 - 1, 256 << 10
"""Where the answer has the number of items; an item is smaller than 64 KiB."""


def _request(number: int, size: int, *, writes: bool, reads: bool = True) -> int:
    return (2 * reads + writes) << 30 | size << 16 | 0x94 << 8 | number


_ADD_DEVICE = _request(10, _OLD_ARGUMENTS.size, writes=True, reads=False)
_SUBVOLUME_DELETE = _request(15, _OLD_ARGUMENTS.size, writes=True, reads=False)
_SNAPSHOT_CREATE = _request(23, _VOLUME_ARGUMENTS.size, writes=True, reads=False)
_SPACE_INFO = _request(20, 16, writes=True)
_SUBVOLUME_CREATE = _request(24, _VOLUME_ARGUMENTS.size, writes=True, reads=False)
_GET_FLAGS = _request(25, 8, writes=False)
_SET_FLAGS = _request(26, 8, writes=True, reads=False)
_TREE_SEARCH = _request(17, _SEARCH.size, writes=True)
_START_SCRUB = _request(27, _SCRUB.size, writes=True)
_GET_INFO = _request(60, _INFO.size, writes=False)
_GET_CHILDREN = _request(61, _CHILDREN.size, writes=True)
_GET_NAME = _request(62, _NAME.size, writes=True)


def _ask(path: Path, request: int, question: bytes = b"") -> bytearray:
    """Return the kernel's answer to a btrfs request about the folder `path`."""
    buffer = bytearray(question.ljust((request >> 16) & 0x3FFF, b"\0"))
    with _reading(path), _folder(path) as descriptor:
        try:
            fcntl.ioctl(descriptor, request, buffer)
        except OSError as error:
            # More to tell than one answer holds, which is what the caller goes by.
            if error.errno != errno.EOVERFLOW:
                raise
    return buffer


def _change(folder: Path, request: int, arguments: bytes, what: str) -> None:
    """Have the kernel do something in `folder`; `what` in words, for when it does not."""
    with _changing(what), _folder(folder) as descriptor:
        fcntl.ioctl(descriptor, request, bytearray(arguments))  # of bytes, Python takes 1024 at most


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _changing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = " Run this as root." if isinstance(error, PermissionError) else ""
        raise CowError(f"btrfs did not {what}: {error.strerror}.{hint}") from error


def _read(path: Path) -> Subvolume:
    answer = _INFO.unpack(_ask(path, _GET_INFO))
    number, _name, _outer, _folder, generation, flags, own, parent, received, *times = answer
    return Subvolume(
        path=path,
        id=number,
        uuid=_uuid(own),
        parent_uuid=_uuid(parent),
        received_uuid=_uuid(received),
        readonly=bool(flags & _READ_ONLY_FLAG),
        generation=generation,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(times[_CREATED])),
        compression=_compression(path),
    )


def _children(outer: Path) -> Iterator[Path]:
    """Yield the subvolumes directly in the one at `outer`."""
    first, complete = 0, False
    while not complete:
        _, entries, count = _CHILDREN.unpack(_ask(outer, _GET_CHILDREN, struct.pack("=Q", first)))
        complete = count < _CHILDREN_AT_ONCE
        for number, folder in list(_ID_AND_FOLDER.iter_unpack(entries))[:count]:
            yield outer / _place(outer, number, folder)
            first = number + 1


def _place(outer: Path, number: int, folder: int) -> str:
    """Where in the subvolume at `outer` the one with this number is, given the inode of the folder it is in."""
    _, _, name, before = _NAME.unpack(_ask(outer, _GET_NAME, _ID_AND_FOLDER.pack(folder, number)))
    # What follows the first zero byte is left over from the kernel's own work.
    return os.fsdecode(before.split(b"\0")[0] + name.split(b"\0")[0])


def _compression(path: Path) -> str:
    with _reading(path):
        try:
            return os.getxattr(path, _COMPRESSION).decode("ascii", "replace")
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise
            return BY_MOUNT_OPTION


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = " Run this as root." if isinstance(error, PermissionError) else ""
        raise CowError(f"The subvolume {path} cannot be read: {error.strerror}.{hint}") from error


def _uuid(raw: bytes) -> str | None:
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])) if any(raw) else None


def _kind(mode: int) -> str:
    return "a symbolic link" if stat.S_ISLNK(mode) else "a file"

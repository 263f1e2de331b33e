"""Where a new storage pool is to live.

The order: what the inventory names; else an unused block device named there; else an empty ZFS dataset named there;
else the btrfs file system of a path; else a dataset in the ZFS pool of the root file system; else a btrfs loop file. A
plain directory only when it is asked for in words.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .. import blockdev, host, mounts, names, tools, zfs
from ..errors import CowError
from ..size import GIB, Size
from .client import Server

AUTO = "auto"
DRIVERS = (AUTO, "btrfs", "zfs", "dir")
CLONING_DRIVERS = frozenset({"btrfs", "zfs", "lvm", "ceph", "linstor", "truenas"})
"""Drivers of Incus with which a new instance is a clone of its image ("Storage drivers", feature table)."""
DEFAULT_PATH = "/var/lib/cowherd/pools"
"""What the role cow_pool gives as path where the operator names none."""
SMALLEST_LOOP = Size(5 * GIB.bytes)
"""The smallest loop file that is made without being asked for in words; also the least that Incus itself chooses."""
LEAST_LOOP = Size(128 << 20)
"""The smallest loop file that is made at all: mkfs.btrfs wants 109 MiB."""


@dataclass(frozen=True)
class Wish:
    """What the operator says about where the pool lives; "" where nothing is said.

    source: exactly this device, path or dataset. device, dataset, path: where to be instead, in this order; the path
    only if it is on btrfs.
    size: of a loop file; "" for half of what is free.
    """

    name: str
    driver: str = AUTO
    source: str = ""
    device: str = ""
    path: str = ""
    dataset: str = ""
    size: str = ""


@dataclass(frozen=True)
class Ground:
    """What there is at the places that a wish names.

    free: of the file system under the daemon's folder, where a loop file would be. options_of_mkfs: whether the daemon
    passes them on. file_system: of the wish's path. file: one that stands where the wish's path is or has a folder.
    dataset: the one that the pool would be in. root_pool: the ZFS pool that the host's root file system is on.
    loop_file, mount_point: where the daemon would put those of the new pool, when there is something already; "" when
    there is nothing.
    """

    daemon_folder: str
    free: Size
    drivers: frozenset[str]
    options_of_mkfs: bool = False
    file_system: str = ""
    path_exists: bool = False
    file: str = ""
    device: blockdev.Device | None = None
    dataset: zfs.Dataset | None = None
    root_pool: str = ""
    loop_file: str = ""
    mount_point: str = ""

    def without_pool(self) -> Ground:
        """What there is once the daemon has deleted a `dir` pool of the wanted name."""
        return replace(self, mount_point="")

    def without_half_made(self) -> Ground:
        """What there is once the daemon has deleted a pool of the wanted name that was never finished."""
        return replace(self, mount_point="", loop_file="")


@dataclass(frozen=True)
class Location:
    """The decision: driver and configuration for Incus, what kind of place it is, and why this one.

    warning: what the operator named and does not get.
    """

    driver: str
    config: Mapping[str, str]
    kind: str
    why: str
    warning: str = ""


def observe(wish: Wish, server: Server) -> Ground:
    """Look at the places that the wish names; writes nothing."""
    path = _subvolume_path(wish)
    root = mounts.under(Path("/"))
    daemon_folder = Path(server.folder)
    ground = Ground(
        daemon_folder=server.folder,
        free=mounts.free(daemon_folder),
        drivers=_drivers(wish, server),
        options_of_mkfs="storage_create_options" in server.extensions(),
        file_system=mounts.under(Path(path)).fstype if path else "",
        path_exists=bool(path) and os.path.lexists(path),
        file=_file(Path(path)) if path else "",
        device=blockdev.inspect(_device_path(wish)) if _device_path(wish) else None,
        root_pool=root.source.split("/")[0] if root.fstype == "zfs" else "",
        loop_file=_existing(daemon_folder / "disks" / f"{wish.name}.img"),
        mount_point=_existing(daemon_folder / "storage-pools" / wish.name),
    )
    dataset = _dataset(wish, ground)
    return replace(ground, dataset=zfs.find(dataset) if dataset else None)


def check(wish: Wish) -> None:
    """Refuse a wish that cannot be meant, before the host is looked at."""
    names.pool(wish.name)
    if wish.driver not in DRIVERS:
        raise CowError(f"{wish.driver!r} is not a driver that pools are made with. Choose one of {', '.join(DRIVERS)}.")
    if wish.size:
        Size.parse(wish.size, whole=GIB)
    takes_no_dataset = wish.driver in ("btrfs", "dir") or wish.source.startswith("/")
    for path in (wish.path, wish.device, wish.source if takes_no_dataset else ""):
        if path:
            names.absolute_path(path)
    for dataset in (_source_dataset(wish), wish.dataset):
        if dataset:
            names.dataset(dataset)


def choose(wish: Wish, ground: Ground) -> Location:
    """Decide, from what the operator wishes and what there is. Raises CowError when no place will do."""
    location = _choice(wish, ground)
    if location.driver not in ground.drivers:
        raise CowError(
            f"Pool {wish.name} wants the driver {location.driver}, but the daemon offers "
            f"{', '.join(sorted(ground.drivers))}. {_MISSING.get(location.driver, '')}"
        )
    leftover = ground.mount_point or (ground.loop_file if location.kind == "loop" else "")
    if leftover:
        raise CowError(
            f"{leftover} exists, but no pool uses it; making pool {wish.name} would overwrite it. "
            f"`incus admin recover` can bring a lost pool back; else move it away."
        )
    return location


_MISSING = {
    "btrfs": "Install btrfs-progs and restart the daemon; the kernel needs btrfs too.",
    "zfs": "Install ZFS (zfsutils-linux and its kernel module), check `modprobe zfs`, and restart the daemon.",
}


def _choice(wish: Wish, ground: Ground) -> Location:
    if wish.driver == "dir":
        config = {"source": wish.source} if wish.source else {}
        return Location("dir", config, "directory", "a plain directory as asked for, where every launch is a copy")
    if wish.source:
        return _as_named(wish, ground)
    if wish.device:
        return _on_device(wish, wish.device, ground)
    if wish.dataset:
        return _in_dataset(wish, wish.dataset, ground)
    if wish.path and wish.driver != "zfs":
        _refuse_file(ground)
        if ground.file_system == "btrfs":
            return _in_subvolume(wish, f"{wish.path}/{wish.name}", ground)
    dataset = _dataset(wish, ground)
    location = _in_dataset(wish, dataset, ground) if dataset else _in_loop_file(wish, ground)
    return replace(location, warning=_passed_over(wish, ground, location))


def _passed_over(wish: Wish, ground: Ground, location: Location) -> str:
    if wish.path in ("", DEFAULT_PATH):
        return ""
    hindrance = "driver zfs takes no path" if wish.driver == "zfs" else f"it is on {ground.file_system}, not on btrfs"
    return f"Pool {wish.name} is not in {wish.path}, as {hindrance}. It is elsewhere: {location.why}."


def _as_named(wish: Wish, ground: Ground) -> Location:
    if _source_dataset(wish):
        return _in_dataset(wish, wish.source, ground)
    if ground.device is not None:
        return _on_device(wish, wish.source, ground)
    _refuse_file(ground)
    if ground.file_system != "btrfs":
        raise CowError(
            f"{wish.source} is neither a block device nor on btrfs (its file system is {ground.file_system}). "
            f"Name one of these, or leave the source out to get a loop file."
        )
    return _in_subvolume(wish, wish.source, ground)


def _on_device(wish: Wish, path: str, ground: Ground) -> Location:
    if ground.device is None:
        raise CowError(f"There is no block device {path}. `lsblk` shows those that there are.")
    if ground.device.content:
        raise CowError(
            f"The device {path} is not empty: {ground.device.content}. It is left alone. "
            f"Name another, or empty it yourself with `wipefs --all {path}` if nothing on it is needed."
        )
    driver = "zfs" if wish.driver == "zfs" else "btrfs"
    return Location(driver, {"source": path}, "device", f"{path} ({ground.device.size.rounded()}) is unused")


def _in_subvolume(wish: Wish, path: str, ground: Ground) -> Location:
    if wish.driver == "zfs":
        raise CowError(f"{path} is a path, and driver zfs wants a dataset (POOL/NAME) or a device.")
    if path.startswith(ground.daemon_folder):  # compared as text by Incus too
        raise CowError(
            f"{path} begins like the daemon's own folder {ground.daemon_folder}, which Incus refuses. Choose another."
        )
    if ground.path_exists:
        raise CowError(f"{path} exists already. A pool on btrfs makes its own subvolume: name a path that is free.")
    return Location("btrfs", {"source": path}, "subvolume", f"a subvolume at {path}, which is on btrfs")


def _in_dataset(wish: Wish, name: str, ground: Ground) -> Location:
    if wish.driver == "btrfs":
        raise CowError(f"Pool {wish.name} is to have the driver btrfs, and to be in the ZFS dataset {name}. Name one.")
    if "/" not in name:
        raise CowError(f"{name} is a whole ZFS pool. Name a dataset in it for Incus to take: {name}/{wish.name}.")
    if ground.dataset is not None and ground.dataset.content:
        raise CowError(
            f"The dataset {name} is not empty: {ground.dataset.content}. It is left alone, as Incus would delete all "
            f"that is in it with the pool. Name an empty one, or one that does not exist yet."
        )
    why = f"a new dataset {name}" if ground.dataset is None else f"the dataset {name}, which is empty"
    return Location("zfs", {"source": name}, "dataset", why)


def _in_loop_file(wish: Wish, ground: Ground) -> Location:
    driver = "zfs" if wish.driver == "zfs" else "btrfs"
    size = _loop_size(wish, ground)
    config = {"size": str(size)}
    if driver == "btrfs" and ground.options_of_mkfs:
        config["btrfs.create_options"] = "-K"  # to discard the blocks of a big new file takes minutes, and frees none
    return Location(driver, config, "loop", f"a loop file of {size} in {ground.daemon_folder}/disks")


def _loop_size(wish: Wish, ground: Ground) -> Size:
    if not wish.size:
        size = max(Size(ground.free.bytes // 2).floor(GIB), SMALLEST_LOOP)
    else:
        size = Size.parse(wish.size, whole=ground.free)
    if size < LEAST_LOOP:
        raise CowError(f"Pool {wish.name} wants a loop file of {size}, and the smallest is {LEAST_LOOP}. Give more.")
    if size > ground.free:
        raise CowError(
            f"Pool {wish.name} wants a loop file of {size}, but {ground.daemon_folder} has only "
            f"{ground.free.rounded()} free. Set a smaller size, or name a device."
        )
    return size


def _dataset(wish: Wish, ground: Ground) -> str:
    """The dataset that the pool would be in, "" when it would not be in one."""
    if wish.source:
        return _source_dataset(wish)
    if wish.device or wish.driver in ("btrfs", "dir"):
        return ""
    in_root_pool = f"{ground.root_pool}/{wish.name}" if ground.root_pool and "zfs" in ground.drivers else ""
    return wish.dataset or in_root_pool


def _source_dataset(wish: Wish) -> str:
    return "" if wish.source.startswith("/") or wish.driver == "dir" else wish.source


def _device_path(wish: Wish) -> str:
    return wish.source if wish.source.startswith("/") else wish.device


def _drivers(wish: Wish, server: Server) -> frozenset[str]:
    """What the daemon offers, and btrfs where the host has it by now: the daemon looks for tools when it starts."""
    kernel = host.file_systems()
    has_btrfs = tools.find("mkfs.btrfs") and "btrfs" in (*kernel.known, *kernel.loadable)
    will_have_zfs = server.is_to_come and (_asks_for_zfs(wish) or Path("/dev/zfs").exists())
    return server.drivers() | ({"btrfs"} if has_btrfs else frozenset()) | ({"zfs"} if will_have_zfs else frozenset())


def _asks_for_zfs(wish: Wish) -> bool:
    return wish.driver == "zfs" or bool(_source_dataset(wish) or wish.dataset)


def _subvolume_path(wish: Wish) -> str:
    if wish.source:
        return wish.source if wish.source.startswith("/") else ""
    return f"{wish.path}/{wish.name}" if wish.path else ""


def _refuse_file(ground: Ground) -> None:
    if ground.file:
        raise CowError(
            f"{ground.file} is a file. A pool is on a block device, in a new folder on btrfs, or in a ZFS dataset; "
            f"for a loop file give a size and neither source nor path."
        )


def _file(path: Path) -> str:
    found = mounts.existing(path)
    return str(found) if found.is_file() else ""


def _existing(path: Path) -> str:
    occupied = any(path.iterdir()) if path.is_dir() else os.path.lexists(path)
    return str(path) if occupied else ""

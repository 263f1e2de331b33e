"""The place of a store: a folder, or a dataset, and where a device is named the pool of ZFS that it is in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import blockdev, mounts, names, process
from ..errors import CowError, Drift, NotYetKnown
from ..plan import Plan, Step
from ..zfs import Zfs
from ..zpool import Zpool
from . import stores


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for. expect: the backend that it has to come to. Properties: of what is made."""

    store: str
    backend: str = "auto"
    expect: str | None = None
    device: str | None = None
    pool_properties: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        store, device = params["store"], params["device"] or None
        if store.startswith("/"):
            names.absolute_path(store)
            if device:
                raise CowError(
                    f"The store {store} is a folder, and a device is for a pool of ZFS. "
                    f"Name a dataset as POOL/NAME, or leave device out and mount a file system there yourself."
                )
        elif "/" not in names.dataset(store):
            raise CowError(f"The store {store} is a whole pool. Name a dataset in it, such as {store}/golden.")
        return cls(
            store=store,
            backend=params["backend"],
            expect=params["expect"],
            device=names.absolute_path(device) if device else None,
            pool_properties=names.zfs_properties(params["pool_properties"]),
            properties=names.zfs_properties(params["properties"]),
        )

    @property
    def is_folder(self) -> bool:
        """Whether the store is a folder."""
        return self.store.startswith("/")

    @property
    def pool(self) -> str:
        """The pool of a dataset."""
        return self.store.partition("/")[0]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets in the pool down to the store, the outermost first."""
        parts = self.store.split("/")
        return tuple("/".join(parts[:count]) for count in range(2, len(parts) + 1))


@dataclass(frozen=True)
class Found:
    """What of the place is there.

    missing: the folder, or the datasets, the outermost first. pool: whether the pool is imported; devices: those it is
    on. device: the one that was named, as far as there is one. importable: pools that could be imported from it, or
    that have the name of the one that is wanted. backend, why: the backend in effect, None before it can be told.
    """

    backend: str | None = None
    why: str | None = None
    missing: tuple[str, ...] = ()
    pool: bool = True
    devices: tuple[str, ...] = ()
    device: blockdev.Device | None = None
    importable: tuple[str, ...] = ()


def observe(wanted: Wanted, zpool: Zpool, zfs: Zfs) -> Found:
    """Look, without writing."""
    if wanted.is_folder:
        folder = Path(wanted.store)
        if folder.exists() and not folder.is_dir():
            raise CowError(f"{folder} exists and is no folder. Name another store, or move it away.")
        return _observe_folder(folder, wanted)
    try:
        is_there = zpool.exists(wanted.pool)
    except process.CommandMissing as missing:
        raise NotYetKnown(
            f"ZFS is not installed, so what has to be done for {wanted.store} cannot be told. "
            f"Install zfsutils-linux and a kernel module, as the role golden_cache does, or name a folder as store."
        ) from missing
    device = blockdev.inspect(wanted.device) if wanted.device else None
    if is_there:
        there = zfs.read(wanted.datasets, ["type"])
        choice = _chosen(wanted.store, wanted)
        return Found(
            backend=choice.backend,
            why=choice.why,
            missing=tuple(name for name in wanted.datasets if name not in there),
            devices=zpool.devices(wanted.pool) if wanted.device else (),
            device=device,
        )
    named_alike = tuple(name for name in zpool.importable() if name == wanted.pool)
    on_it = zpool.importable(device.path) if device and not device.content else ()
    return Found(missing=wanted.datasets, pool=False, device=device, importable=(*named_alike, *on_it))


def plan(found: Found, wanted: Wanted, zpool: Zpool, zfs: Zfs) -> Plan:
    """Decide what is to be done. A device is written to only when nothing at all is on it."""
    if wanted.is_folder:
        return Plan(steps=tuple(_folder(path) for path in found.missing))
    steps = []
    if not found.pool:
        device = _require_empty(found, wanted)
        steps.append(_pool(device, wanted, zpool))
    elif wanted.device and not any(is_on(each, wanted.device) for each in found.devices):
        raise Drift(
            f"The pool {wanted.pool} is there and is on {names.shortened(found.devices) or 'no device'}, not on "
            f"{wanted.device}. Leave the device out to use it as it is, or name a store in another pool."
        )
    return Plan(steps=(*steps, *(_dataset(name, wanted, zfs) for name in found.missing)))


def describe(found: Found, wanted: Wanted) -> dict[str, Any]:
    """Give the return values of the module."""
    return {"store": wanted.store, "exists": not found.missing, "backend": found.backend, "why": found.why}


def is_on(used: str, device: str) -> bool:
    """Say whether what a pool uses is the device, or a partition of it."""
    used, device = os.path.realpath(used), os.path.realpath(device)
    block = Path("/sys/class/block")
    partition = block / Path(device).name / Path(used).name / "partition"
    return used == device or partition.exists()


def _observe_folder(folder: Path, wanted: Wanted) -> Found:
    """Look at a folder, or at the one that it is to be in, which tells the backend as well."""
    if folder.is_dir():
        choice = _chosen(wanted.store, wanted)
        return Found(choice.backend, choice.why)
    if not mounts.under(folder).fstype.endswith("zfs"):
        _chosen(str(mounts.existing(folder)), wanted)
    return Found(missing=(wanted.store,))


def _chosen(place: str, wanted: Wanted) -> stores.Choice:
    """Decide on the backend as for a store at this place, and refuse one that is not expected."""
    choice = stores.choose(place, wanted.backend)
    stores.require(choice, wanted.expect)
    return choice


def _require_empty(found: Found, wanted: Wanted) -> blockdev.Device:
    if wanted.pool in found.importable:
        raise CowError(
            f"A pool {wanted.pool} is on disks of this host and is not imported. "
            f"Run `zpool import {wanted.pool}` to use it, or name a store in another pool."
        )
    if wanted.device is None:
        raise NotYetKnown(
            f"There is no pool {wanted.pool}. Create it, or name an empty device that it is to be made on."
        )
    if found.device is None:
        raise CowError(
            f"{wanted.device} is not a block device. Name one that lsblk lists, or create the pool yourself."
        )
    if found.device.content:
        raise CowError(
            f"{wanted.device} is not empty: {found.device.content}. Name another device; or if nobody needs what is on "
            f"it, run `wipefs --all {wanted.device}` first."
        )
    if found.importable:
        raise CowError(
            f"{wanted.device} is of the pool {names.shortened(found.importable)}, which could be imported from it. "
            f"Name another device; or if nobody needs that pool, run `zpool labelclear {wanted.device}` first."
        )
    return found.device


def _folder(path: str) -> Step:
    return Step(
        title=f"create folder {path}",
        run=lambda: Path(path).mkdir(mode=0o755, parents=True),
        after={"path": path, "mode": "0755"},
    )


def _pool(device: blockdev.Device, wanted: Wanted, zpool: Zpool) -> Step:
    of_root = {**wanted.properties, "mountpoint": "none"}
    return Step(
        title=f"create pool {wanted.pool} on {device.path} ({device.size.rounded()})",
        run=lambda: zpool.create(wanted.pool, device.path, wanted.pool_properties, of_root),
        after={"pool": wanted.pool, "device": device.path, **wanted.pool_properties},
    )


def _dataset(name: str, wanted: Wanted, zfs: Zfs) -> Step:
    return Step(
        title=f"create dataset {name}",
        run=lambda: zfs.create(name, {**wanted.properties, "mountpoint": "none"}),
        after={"dataset": name, **wanted.properties},
    )

"""What it takes to have a subvolume, or not to have it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import btrfs, mounts, names
from .btrfs import Btrfs, Subvolume
from .errors import CowError, Drift
from .plan import Plan, Step


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for; None leaves a property as it is found."""

    path: Path
    present: bool = True
    source: Path | None = None
    readonly: bool | None = None
    compression: str | None = None
    default: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        path = Path(names.absolute_path(params["path"]))
        names.subvolume(path.name)
        return cls(
            path=path,
            present=params["state"] == "present",
            source=Path(names.absolute_path(params["source"])) if params["source"] else None,
            readonly=params["readonly"],
            compression=params["compression"],
            default=params["default"],
        )


@dataclass(frozen=True)
class Found:
    """The subvolume at the wanted path and what decides about it.

    nested: the subvolumes inside it when it is to go, inside the source when a snapshot is to be made.
    unwritable: folders that would have to lose or gain an entry, and are read-only.
    used_at: mount points that show it, or hide a part of it; looked for when it is to go.
    """

    subvolume: Subvolume | None = None
    source: Subvolume | None = None
    nested: tuple[Subvolume, ...] = ()
    unwritable: tuple[Path, ...] = ()
    used_at: tuple[Path, ...] = ()
    default_id: int | None = None


def observe(wanted: Wanted) -> Found:
    """Look at the wanted path, and at the source of the snapshot when there is to be one."""
    return _observe_present(wanted) if wanted.present else _observe_absent(wanted.path)


def plan(found: Found, wanted: Wanted, tool: Btrfs) -> Plan:
    """Decide what is to be done."""
    if not wanted.present:
        return _deletion(found, tool)
    _require_source(found, wanted)
    if found.subvolume is None:
        return _creation(found, wanted, tool)
    return Plan.of(
        *_properties(found.subvolume, wanted, tool),
        *_default(found.default_id == found.subvolume.id, wanted, tool),
    )


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module; none when there is no subvolume."""
    here = found.subvolume
    if here is None:
        return {}
    return {
        "id": here.id,
        "uuid": here.uuid,
        "parent_uuid": here.parent_uuid,
        "received_uuid": here.received_uuid,
        "readonly": here.readonly,
        "compression": here.compression,
        "default": here.id == found.default_id,
        "generation": here.generation,
        "created": here.created,
    }


def _observe_present(wanted: Wanted) -> Found:
    btrfs.require_file_system(wanted.path)
    here = btrfs.at(wanted.path)
    source = btrfs.at(wanted.source) if wanted.source else None
    if source and mounts.under(source.path).device != mounts.under(wanted.path).device:
        raise CowError(
            f"{source.path} and {wanted.path} are on different file systems, and a snapshot stays on its own. "
            f"Choose a path on that of {source.path}, or copy with btrfs send and receive."
        )
    if here:
        return Found(subvolume=here, source=source, default_id=btrfs.default_id(here.path))
    if not wanted.path.parent.is_dir():
        raise CowError(f"The folder {wanted.path.parent} does not exist. Create it, or choose another path.")
    return Found(
        source=source,
        nested=btrfs.nested(source.path) if source else (),
        unwritable=_unwritable([wanted.path]),
    )


def _observe_absent(path: Path) -> Found:
    here = btrfs.at(path)
    if here is None:
        return Found()
    used_at = tuple(mount.mount_point for mount in mounts.showing(path))
    # Behind a mount point nothing can be looked at; it stands in the way of the deletion by itself.
    nested = () if used_at else btrfs.nested(path)
    return Found(
        subvolume=here,
        nested=nested,
        unwritable=_unwritable([path, *(inner.path for inner in nested)]),
        used_at=used_at,
        default_id=btrfs.default_id(path),
    )


def _unwritable(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(path.parent for path in paths if not os.access(path.parent, os.W_OK)))


def _require_source(found: Found, wanted: Wanted) -> None:
    if wanted.source is None:
        return
    if found.source is None:
        raise CowError(f"The source {wanted.source} does not exist. Create it first, or name another one.")
    here = found.subvolume
    if here and here.parent_uuid != found.source.uuid:
        raise Drift(
            f"The subvolume {here.path} exists, but is not a snapshot of {wanted.source}: its parent_uuid is "
            f"{here.parent_uuid or 'not set'}, and the source's uuid is {found.source.uuid}. "
            f"Choose another path, or delete it with state: absent."
        )


def _creation(found: Found, wanted: Wanted, tool: Btrfs) -> Plan:
    _require_writable(found)
    given = {"readonly": wanted.readonly, "compression": wanted.compression}
    details = {key: value for key, value in given.items() if value is not None}
    title = f"create subvolume {wanted.path}"
    if wanted.source:
        title = f"create {'read-only' if wanted.readonly else 'writable'} snapshot {wanted.path} of {wanted.source}"
        details["source"] = str(wanted.source)
    create = Step(
        title=title,
        run=lambda: _create(wanted, tool),
        after={"path": str(wanted.path), **details},
    )
    left_out = f"The snapshot has empty folders for the subvolumes inside {wanted.source}: {_listed(found.nested)}."
    return Plan(
        steps=(create, *_default(False, wanted, tool)),
        warnings=(left_out,) if found.nested else (),
    )


def _create(wanted: Wanted, tool: Btrfs) -> None:
    """Create it writable where something is yet to be set, for a read-only one takes no properties."""
    born_readonly = bool(wanted.source and wanted.readonly and not wanted.compression)
    if wanted.source:
        tool.snapshot(wanted.source, wanted.path, readonly=born_readonly)
    else:
        tool.create(wanted.path)
    if wanted.compression:
        tool.set_compression(wanted.path, wanted.compression)
    if wanted.readonly and not born_readonly:
        tool.set_readonly(wanted.path, True)


def _properties(here: Subvolume, wanted: Wanted, tool: Btrfs) -> tuple[Step, ...]:
    flag = _readonly(here, wanted.readonly, tool)
    compression = _compression(here, wanted.compression, tool)
    if not here.readonly:
        return (*compression, *flag)
    if compression and not flag:
        raise CowError(
            f"The compression of {here.path} is {here.compression}, wanted is {wanted.compression}, "
            f"and it is read-only. Set readonly: false, or leave compression out."
        )
    return (*flag, *compression)


def _readonly(here: Subvolume, readonly: bool | None, tool: Btrfs) -> tuple[Step, ...]:
    if readonly in (None, here.readonly):
        return ()
    if here.received_uuid:
        raise Drift(
            f"The subvolume {here.path} was received (received_uuid {here.received_uuid}); later increments rely on "
            f"its read-only flag. Take a snapshot of it instead: set source to {here.path} and path to a new one."
        )
    return (
        Step(
            title=f"make subvolume {here.path} {'read-only' if readonly else 'writable'}",
            run=lambda: tool.set_readonly(here.path, bool(readonly)),
            before={"readonly": here.readonly},
            after={"readonly": readonly},
        ),
    )


def _compression(here: Subvolume, compression: str | None, tool: Btrfs) -> tuple[Step, ...]:
    if compression in (None, here.compression):
        return ()
    return (
        Step(
            title=f"set compression of subvolume {here.path} to {compression}",
            run=lambda: tool.set_compression(here.path, str(compression)),
            before={"compression": here.compression},
            after={"compression": compression},
        ),
    )


def _default(is_default: bool, wanted: Wanted, tool: Btrfs) -> tuple[Step, ...]:
    if is_default or not wanted.default:
        return ()
    return (
        Step(
            title=f"make {wanted.path} the default subvolume",
            run=lambda: tool.set_default(wanted.path),
            before={"default": False},
            after={"default": True},
        ),
    )


def _deletion(found: Found, tool: Btrfs) -> Plan:
    here = found.subvolume
    if here is None:
        return Plan()
    _require_deletable(here, found)
    inner = f"what is in the subvolumes inside {here.path} ({_listed(found.nested)})"
    return Plan.of(
        *(_delete(nested, tool, destroys=inner, permit="recursive") for nested in found.nested),
        _delete(here, tool, destroys=f"what is in {here.path}", permit="state"),
    )


def _delete(subvolume: Subvolume, tool: Btrfs, *, destroys: str, permit: str) -> Step:
    return Step(
        title=f"delete subvolume {_shown(subvolume)}",
        run=lambda: tool.delete(subvolume.path),
        before={"path": _shown(subvolume), "uuid": subvolume.uuid},
        destroys=destroys,
        permit=permit,
    )


def _require_deletable(here: Subvolume, found: Found) -> None:
    if here.id == btrfs.TOP_LEVEL:
        raise CowError(f"{here.path} is the top level of its file system and cannot be deleted. Choose another path.")
    for subvolume in (*found.nested, here):
        if subvolume.id == found.default_id:
            raise CowError(
                f"{_shown(subvolume)} is the default subvolume of its file system. "
                f"Make another one the default first, with default: true."
            )
    if found.used_at:
        points = ", ".join(str(point) for point in found.used_at)
        raise CowError(f"{here.path} is in use by what is mounted at {points}. Unmount that first.")
    _require_writable(found)


def _require_writable(found: Found) -> None:
    if found.unwritable:
        folders = ", ".join(str(folder) for folder in found.unwritable)
        raise CowError(
            f"{folders} cannot be written to: the subvolume or the mount is read-only, or this does not run as root. "
            f"Make it writable, or choose another path."
        )


def _listed(subvolumes: Sequence[Subvolume], limit: int = 5) -> str:
    shown = ", ".join(_shown(subvolume) for subvolume in subvolumes[:limit])
    return f"{shown} and {len(subvolumes) - limit} more" if len(subvolumes) > limit else shown


def _shown(subvolume: Subvolume) -> str:
    """The path as text that can be printed: a file name need not be UTF-8."""
    return os.fsencode(subvolume.path).decode("utf-8", "backslashreplace")

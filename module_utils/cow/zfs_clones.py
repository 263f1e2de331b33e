"""What it takes to have a clone of a ZFS snapshot, or not to have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import names
from .errors import CowError, Drift
from .plan import Plan, Step
from .zfs import Zfs


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for. properties: as `zfs set` takes them."""

    name: str
    origin: str | None = None
    present: bool = True
    promote: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        name = names.dataset(params["name"])
        if "/" not in name:
            raise CowError(f"{name} is a pool, and a clone is a dataset in one. Write POOL/NAME.")
        return cls(
            name=name,
            origin=names.snapshot(params["origin"]) if params["origin"] else None,
            present=params["state"] == "present",
            promote=params["promote"],
            properties=names.zfs_properties(params["properties"]),
        )

    @property
    def own_snapshot(self) -> str:
        """What the origin is called once the clone was promoted and owns it."""
        return f"{self.name}@{(self.origin or '').partition('@')[2]}"


@dataclass(frozen=True)
class Found:
    """The dataset of the wanted name and what decides about it.

    origin: the snapshot that it is a clone of; None when it is not one (any more). properties: those asked for.
    below: snapshots and datasets below it, in words; looked for when it is to go.
    has_origin: whether the wanted origin exists. owns_origin: whether it is a snapshot of this dataset now.
    """

    exists: bool = False
    name: str = ""
    origin: str | None = None
    properties: Mapping[str, str] = field(default_factory=dict)
    below: tuple[str, ...] = ()
    has_origin: bool = False
    owns_origin: bool = False
    has_parent: bool = True


def observe(wanted: Wanted, tool: Zfs) -> Found:
    """Read the dataset, and the snapshot that it is to be a clone of."""
    keys = ["origin", *wanted.properties]
    parent = wanted.name.rpartition("/")[0]
    asked = [wanted.name, *([wanted.origin, wanted.own_snapshot] if wanted.origin else []), parent]
    found = tool.read(asked, keys)
    here = found.get(wanted.name)
    facts = Found(
        has_origin=wanted.origin in found, owns_origin=wanted.own_snapshot in found, has_parent=parent in found
    )
    if here is None:
        return facts
    origin = here["origin"].value
    return Found(
        exists=True,
        name=wanted.name,
        origin=None if origin == "-" else origin,
        properties={key: here[key].value for key in wanted.properties},
        below=() if wanted.present else _below(wanted.name, tool),
        has_origin=facts.has_origin,
        owns_origin=facts.owns_origin,
    )


def plan(found: Found, wanted: Wanted, tool: Zfs) -> Plan:
    """Decide what is to be done."""
    if not wanted.present:
        return _destruction(found, wanted, tool)
    if not found.exists:
        return _creation(found, wanted, tool)
    _require_origin(found, wanted)
    return Plan.of(
        *([_promotion(wanted, found.origin, tool)] if wanted.promote and found.origin else []),
        *(
            _setting(wanted.name, key, found.properties[key], value, tool)
            for key, value in wanted.properties.items()
            if found.properties[key] != value
        ),
    )


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module; none when there is no dataset."""
    if not found.exists:
        return {}
    return {"name": found.name, "origin": found.origin, "properties": dict(found.properties)}


def _below(name: str, tool: Zfs) -> tuple[str, ...]:
    others = [each for each in tool.read([name], ["type"], below=True) if each != name]
    return tuple(
        f"{each} (with the clones {', '.join(clones)})" if (clones := _clones(each, tool)) else each for each in others
    )


def _clones(name: str, tool: Zfs) -> tuple[str, ...]:
    return tool.clones(name) if "@" in name else ()


def _creation(found: Found, wanted: Wanted, tool: Zfs) -> Plan:
    origin = wanted.origin or ""
    if not found.has_origin:
        raise CowError(f"The snapshot {origin} does not exist. Take it first, or name another one.")
    if not found.has_parent:
        raise CowError(f"The dataset {wanted.name.rpartition('/')[0]} does not exist. Create it first.")
    clone = Step(
        title=f"clone {origin} as {wanted.name}",
        run=lambda: tool.clone(origin, wanted.name, wanted.properties),
        after={"name": wanted.name, "origin": origin, **wanted.properties},
    )
    return Plan.of(clone, *([_promotion(wanted, origin, tool)] if wanted.promote else []))


def _promotion(wanted: Wanted, origin: str, tool: Zfs) -> Step:
    return Step(
        title=f"promote {wanted.name}",
        run=lambda: tool.promote(wanted.name),
        before={"origin": origin},
        after={"origin": None},
    )


def _setting(name: str, key: str, before: str, after: str, tool: Zfs) -> Step:
    return Step(
        title=f"set {key} of {name} to {after}",
        run=lambda: tool.set(name, key, after),
        before={key: before},
        after={key: after},
    )


def _require_origin(found: Found, wanted: Wanted) -> None:
    if found.origin == wanted.origin:
        return
    # A promotion through several datasets may have been interrupted: the origin has moved, and an older one is left.
    if wanted.promote and found.owns_origin and (found.origin is None or not found.has_origin):
        return
    is_what = f"is a clone of {found.origin}" if found.origin else "is not a clone"
    promoted = " It was promoted, it seems: set promote: true." if found.owns_origin and not wanted.promote else ""
    raise Drift(
        f"The dataset {wanted.name} exists, but {is_what}, and {wanted.origin} is asked for.{promoted} "
        f"Choose another name, or destroy it first."
    )


def _destruction(found: Found, wanted: Wanted, tool: Zfs) -> Plan:
    if not found.exists:
        return Plan()
    if found.origin is None:
        raise Drift(f"{wanted.name} is not a clone, so it may be the only copy of what it holds. It is not destroyed.")
    if wanted.origin and found.origin != wanted.origin:
        raise Drift(
            f"{wanted.name} is a clone of {found.origin}, not of {wanted.origin}, so it is not destroyed. "
            f"Name that origin, or leave it out."
        )
    if found.below:
        raise CowError(f"{wanted.name} cannot be destroyed: it has {names.shortened(found.below)}. Destroy that first.")
    return Plan.of(
        Step(
            title=f"destroy {wanted.name}",
            run=lambda: tool.destroy(wanted.name),
            before={"name": wanted.name, "origin": found.origin},
            destroys=f"what was written in {wanted.name}",
            permit="state",
        )
    )

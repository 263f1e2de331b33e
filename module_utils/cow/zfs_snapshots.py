"""What it takes to have a ZFS snapshot, or not to have it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from . import names
from .errors import CowError
from .plan import Plan, Step
from .zfs import Zfs

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,255}", re.ASCII)


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for. release: whether holds may be released when it is to go."""

    name: str
    present: bool = True
    holds: tuple[str, ...] = ()
    release: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        properties = names.zfs_properties(params["properties"])
        for key in properties:
            if ":" not in key:
                raise CowError(f"{key} cannot be set on a snapshot. Give user properties, whose names have a colon.")
        for tag in params["holds"]:
            if not _TAG.fullmatch(tag):
                raise CowError(f"{tag!r} cannot be the tag of a hold. Write letters, digits, '.', '_', ':' and '-'.")
        return cls(
            name=names.snapshot(params["name"]),
            present=params["state"] == "present",
            holds=tuple(params["holds"]),
            release=params["release"],
            properties=properties,
        )

    @property
    def of_dataset(self) -> str:
        """What it is a snapshot of."""
        return self.name.partition("@")[0]


@dataclass(frozen=True)
class Found:
    """The snapshot and what decides about it. created: seconds since 1970."""

    exists: bool = False
    has_dataset: bool = False
    name: str = ""
    created: int = 0
    holds: tuple[str, ...] = ()
    clones: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)


def observe(wanted: Wanted, tool: Zfs) -> Found:
    """Read the snapshot, its holds and its clones."""
    found = tool.read([wanted.of_dataset, wanted.name], ["creation", *wanted.properties])
    here = found.get(wanted.name)
    if here is None:
        return Found(has_dataset=wanted.of_dataset in found)
    return Found(
        exists=True,
        has_dataset=True,
        name=wanted.name,
        created=int(here["creation"].value),
        holds=tool.holds(wanted.name),
        clones=tool.clones(wanted.name),
        properties={key: here[key].value for key in wanted.properties},
    )


def plan(found: Found, wanted: Wanted, tool: Zfs) -> Plan:
    """Decide what is to be done."""
    if not wanted.present:
        return _destruction(found, wanted, tool)
    if not found.has_dataset:
        raise CowError(f"The dataset {wanted.of_dataset} does not exist. Create it first, or name another one.")
    take = Step(
        title=f"take snapshot {wanted.name}",
        run=lambda: tool.take(wanted.name, wanted.properties),
        after={"name": wanted.name, **wanted.properties},
    )
    differing = {key: value for key, value in wanted.properties.items() if found.properties.get(key) != value}
    return Plan.of(
        *([] if found.exists else [take]),
        *(_setting(found, wanted.name, key, value, tool) for key, value in differing.items() if found.exists),
        *(_hold(wanted.name, tag, tool) for tag in wanted.holds if tag not in found.holds),
    )


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module; none when there is no snapshot."""
    if not found.exists:
        return {}
    return {
        "name": found.name,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(found.created)),
        "holds": list(found.holds),
        "clones": list(found.clones),
        "properties": dict(found.properties),
    }


def _setting(found: Found, name: str, key: str, value: str, tool: Zfs) -> Step:
    return Step(
        title=f"set {key} of {name} to {value}",
        run=lambda: tool.set(name, key, value),
        before={key: found.properties[key]},
        after={key: value},
    )


def _hold(name: str, tag: str, tool: Zfs) -> Step:
    return Step(title=f"hold {name} with the tag {tag}", run=lambda: tool.hold(tag, name), after={"hold": tag})


def _release(name: str, tag: str, tool: Zfs) -> Step:
    return Step(title=f"release {name} from the tag {tag}", run=lambda: tool.release(tag, name), before={"hold": tag})


def _destruction(found: Found, wanted: Wanted, tool: Zfs) -> Plan:
    if not found.exists:
        return Plan()
    if found.clones:
        raise CowError(
            f"{wanted.name} cannot be destroyed: it has the clones {names.shortened(found.clones)}. "
            f"Destroy or promote them first."
        )
    if found.holds and not wanted.release:
        raise CowError(
            f"{wanted.name} cannot be destroyed: it is held with the tags {', '.join(found.holds)}. "
            f"Set release: true to release them."
        )
    return Plan.of(
        *(_release(wanted.name, tag, tool) for tag in found.holds),
        Step(
            title=f"destroy {wanted.name}",
            run=lambda: tool.destroy(wanted.name),
            before={"name": wanted.name},
            destroys=f"the snapshot {wanted.name}",
            permit="state",
        ),
    )

"""What is planned for a subvolume, as a table of found against wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import subvolumes
from ansible.module_utils.cow.btrfs import TOP_LEVEL, Btrfs, Subvolume
from ansible.module_utils.cow.errors import CowError, Drift
from ansible.module_utils.cow.subvolumes import Found, Wanted

PATH, SOURCE = Path("/pool/a"), Path("/pool/source")

THERE = Subvolume(
    path=PATH,
    id=256,
    uuid="own",
    parent_uuid=None,
    received_uuid=None,
    readonly=False,
    generation=7,
    created="2025-11-20T10:55:24Z",
    compression="default",
)
ORIGIN = replace(THERE, path=SOURCE, id=257, uuid="origin")
INNER = replace(THERE, path=PATH / "b", id=258)
SNAPSHOT = replace(THERE, parent_uuid="origin")
RECEIVED = replace(THERE, received_uuid="sent", readonly=True)

WANTED = Wanted(PATH)
CLONE = Wanted(PATH, source=SOURCE)
GONE = Wanted(PATH, present=False)


def titles(found: Found, wanted: Wanted) -> list[str]:
    return subvolumes.plan(found, wanted, Btrfs()).titles


@pytest.mark.parametrize(
    ("found", "wanted", "steps"),
    [
        (Found(), WANTED, ["create subvolume /pool/a"]),
        (
            Found(),
            replace(WANTED, default=True),
            ["create subvolume /pool/a", "make /pool/a the default subvolume"],
        ),
        (Found(source=ORIGIN), CLONE, ["create writable snapshot /pool/a of /pool/source"]),
        (Found(source=ORIGIN), replace(CLONE, readonly=True), ["create read-only snapshot /pool/a of /pool/source"]),
        (Found(THERE), WANTED, []),
        (Found(SNAPSHOT), WANTED, []),
        (Found(SNAPSHOT, source=ORIGIN), CLONE, []),
        (Found(RECEIVED), replace(WANTED, readonly=True), []),
        (Found(THERE, default_id=256), replace(WANTED, default=True), []),
        (Found(THERE, default_id=5), replace(WANTED, default=True), ["make /pool/a the default subvolume"]),
        (Found(THERE, default_id=256), WANTED, []),
        (Found(THERE), replace(WANTED, readonly=True), ["make subvolume /pool/a read-only"]),
        (
            Found(replace(THERE, readonly=True)),
            replace(WANTED, readonly=False, compression="zstd"),
            ["make subvolume /pool/a writable", "set compression of subvolume /pool/a to zstd"],
        ),
        (
            Found(THERE),
            replace(WANTED, readonly=True, compression="zstd"),
            ["set compression of subvolume /pool/a to zstd", "make subvolume /pool/a read-only"],
        ),
        (Found(), GONE, []),
        (Found(THERE), GONE, ["delete subvolume /pool/a"]),
        (Found(RECEIVED), GONE, ["delete subvolume /pool/a"]),
        (Found(THERE, nested=(INNER,)), GONE, ["delete subvolume /pool/a/b", "delete subvolume /pool/a"]),
    ],
)
def test_steps(found: Found, wanted: Wanted, steps: list[str]) -> None:
    assert titles(found, wanted) == steps


@pytest.mark.parametrize(
    ("found", "wanted", "error", "said"),
    [
        (Found(THERE, source=ORIGIN), CLONE, Drift, "is not a snapshot of /pool/source"),
        (Found(), CLONE, CowError, "/pool/source does not exist"),
        (Found(SNAPSHOT), CLONE, CowError, "/pool/source does not exist"),
        (Found(RECEIVED), replace(WANTED, readonly=False), Drift, "was received"),
        (Found(replace(RECEIVED, readonly=False)), replace(WANTED, readonly=True), Drift, "was received"),
        (Found(replace(THERE, readonly=True)), replace(WANTED, compression="zstd"), CowError, "Set readonly: false"),
        (Found(unwritable=(PATH.parent,)), WANTED, CowError, "/pool cannot be written to"),
        (Found(replace(THERE, id=TOP_LEVEL), default_id=TOP_LEVEL), GONE, CowError, "top level"),
        (Found(THERE, default_id=256), GONE, CowError, "/pool/a is the default subvolume"),
        (Found(THERE, nested=(INNER,), default_id=258), GONE, CowError, "/pool/a/b is the default subvolume"),
        (Found(THERE, used_at=(Path("/mnt/x"),)), GONE, CowError, "mounted at /mnt/x"),
        (Found(THERE, unwritable=(PATH.parent,)), GONE, CowError, "/pool cannot be written to"),
    ],
)
def test_refusals(found: Found, wanted: Wanted, error: type[CowError], said: str) -> None:
    with pytest.raises(CowError, match=said) as refusal:
        titles(found, wanted)
    assert type(refusal.value) is error


def test_nested_ones_are_deleted_by_permission_only() -> None:
    planned = subvolumes.plan(Found(THERE, nested=(INNER,)), GONE, Btrfs())
    assert [step.permit for step in planned.steps] == ["recursive", "state"]
    assert all(step.destroys for step in planned.steps)


def test_many_nested_ones_are_told_in_short() -> None:
    inner = tuple(replace(INNER, path=PATH / str(number)) for number in range(9))
    (warning,) = subvolumes.plan(Found(source=ORIGIN, nested=inner), CLONE, Btrfs()).warnings
    assert warning.endswith("/pool/a/4 and 4 more.")


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"path": "a"}, "absolute path"), ({"path": "/a/-b"}, "subvolume"), ({"source": "a/../b"}, "absolute path")],
)
def test_names_are_refused_before_anything_is_looked_at(changed: dict[str, Any], said: str) -> None:
    params = {"path": "/a", "state": "present", "source": None, "readonly": None, "compression": None, "default": False}
    assert Wanted.of(params) == Wanted(Path("/a"))
    with pytest.raises(CowError, match=said):
        Wanted.of({**params, **changed})

"""What all images at a path have in common: a record beside them, a mode, and what a killed build leaves."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import durable
from ..errors import CowError
from ..plan import Step
from . import purge, record, workshop
from .record import Inputs, Record

_LONGEST_NAME = 255 - len("..cowherd.tree.99.draft")
OVERWRITE = "overwrite"
"""The option that allows to replace a file that is not ours."""
ARGUMENTS: Mapping[str, Any] = {
    "purge": {"type": "list", "elements": "str", "default": list(purge.USUAL)},
    "mode": {"type": "str", "default": "0600"},
    "rebuild": {"type": "bool", "default": False},
    OVERWRITE: {"type": "bool", "default": False},
}
"""Of the modules for images (described in doc_fragments/image.py)."""


@dataclass(frozen=True)
class Standing:
    """What there is at the path.

    record: of the image that is there; None when there is none that was built here and is still the same.
    occupied: why a file at the path is not ours to replace; "" when it is, or there is none.
    leftover: a killed build left its folder.
    amiss: files beside an image that is ours, which is useless without them, that are missing or others.
    ours: files beside the path that builds of the image made, its record last.
    others: what there is besides at places that belong to files beside an image: other images, for example.
    """

    path: Path
    exists: bool
    record: Record | None
    occupied: str
    mode: int
    leftover: bool
    amiss: tuple[Path, ...] = ()
    ours: tuple[Path, ...] = ()
    others: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Beside:
    """What is made to lie beside an image, by the place that it belongs to.

    files: that the image is useless without.  contents: of the sources, as they are saved.
    """

    files: Mapping[Path, Path] = field(default_factory=dict)
    contents: Mapping[Path, bytes] = field(default_factory=dict)


def check_path(path: Path) -> None:
    """Refuse a path that an image cannot be at."""
    if not path.parent.is_dir():
        raise CowError(f"The folder {path.parent} does not exist. Make it, or choose another path.")
    _refuse_no_file(path)
    if record.is_reserved(path.name):
        raise CowError(f"{path} is where the record of another image belongs. Choose another name.")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise CowError(f"The name of {path} is too long for the files that go beside it.")


def _refuse_no_file(path: Path) -> None:
    if os.path.lexists(path) and not record.is_ordinary(path):
        raise CowError(f"{path} is there and is not an ordinary file. It is left alone: choose another path.")


def mode(text: str) -> int:
    """Read the permissions that are wanted."""
    if not re.fullmatch(r"0[0-7]{3}", text):
        # YAML makes another number of one that is not quoted.
        raise CowError(f"{text!r} is not a mode. Write it in octal, with a zero before it and in quotes: '0600'.")
    return int(text, 8)


def lock_name(path: Path) -> str:
    """Return the lock of an image, whatever it is made with and however its folder is called."""
    return f"image:{path.parent.resolve() / path.name}"


def observe(path: Path, kind: str) -> Standing:
    """Look at the path; `kind` is that of the record of an image that is ours."""
    exists = path.exists()
    before = record.load(path, kind)
    occupied = ""
    if exists and before is None:
        occupied = f"{path}, which was not built here"
    elif exists and before and record.stamp(path) != before.stamp:
        occupied = f"{path}, which was changed since it was built"
    built = before if exists and not occupied else None
    ours = record.ours(path, kind)
    return Standing(
        path=path,
        exists=exists,
        record=built,
        occupied=occupied,
        mode=path.stat().st_mode & 0o777 if exists else 0,
        leftover=workshop.folder_of(path).exists(),
        amiss=built.amiss(path) if built else (),
        ours=ours,
        others=tuple(file for file in record.beside(path) if file not in ours),
    )


def reason(found: Standing, inputs: Inputs | None, *, rebuild: bool = False) -> str:
    """Say why the image has to be built; "" when it has not."""
    if not found.exists:
        return "there is none"
    if found.occupied:
        return "another file is there"
    if found.record is None or found.record.inputs != inputs:
        return "it was made from something else"
    if found.amiss:
        first = found.amiss[0]
        return f"{first} is {'not the one that was made with it' if first.exists() else 'missing'}"
    return "as asked for" if rebuild else ""


def differing(before: Inputs, after: Inputs) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return of both what is not the same in the other."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return {key: before[key] for key in keys if key in before}, {key: after[key] for key in keys if key in after}


def remove_leftover(found: Standing) -> list[Step]:
    """What a killed build left goes first."""
    if not found.leftover:
        return []
    folder = workshop.folder_of(found.path)
    return [
        Step(
            f"remove {folder}, which a killed build left",
            run=lambda: workshop.clear(found.path),
            before={"path": folder},
        )
    ]


def replaced(found: Standing, places: Iterable[Path]) -> str:
    """Say what a build that puts files at these places beside the image would replace and is not ours; "" if nothing.

    Raises CowError for what cannot be replaced by a file.
    """
    others = [file for file in places if file in found.others]
    for file in others:
        _refuse_no_file(file)
    strange = [f"{file}, which is not of the image that was built here" for file in others]
    return " and ".join([*filter(None, [found.occupied]), *strange])


def delete(found: Standing) -> list[Step]:
    """Delete the image, and what its builds put beside it."""
    path, beside = found.path, found.ours
    if not found.exists and not beside:
        return []

    def run() -> None:
        # The record goes last: until then it says that the image was ours.
        for file in (path, *beside):
            file.unlink(missing_ok=True)
        workshop.synced(path.parent)

    return [
        Step(
            f"delete {path}",
            run=run,
            before={"path": path, "beside": [str(file) for file in beside]},
            destroys=found.occupied,
            permit=OVERWRITE,
        )
    ]


def chmod(found: Standing, wanted: int) -> list[Step]:
    """Give the image, and the files that it is useless without, the permissions that are wanted."""
    if found.mode == wanted:
        return []
    files = [found.path.with_name(name) for name in found.record.beside] if found.record else []

    def run() -> None:
        for file in (*files, found.path):
            file.chmod(wanted)

    return [
        Step(
            f"set the mode of {found.path} to {wanted:04o}",
            run=run,
            before={"mode": f"{found.mode:04o}"},
            after={"mode": f"{wanted:04o}"},
        )
    ]


def measured(target: Path, payload: int, seconds: float) -> Mapping[str, Any]:
    """Return what is returned of each image that was built."""
    status = target.stat()
    return {
        "bytes": status.st_size,
        "allocated_bytes": status.st_blocks * 512,
        "payload_ratio": round(payload / status.st_size, 4),
        "seconds": round(seconds, 3),
    }


def publish(
    work: Path, target: Path, found: Standing, permissions: int, new: Record, *, beside: Beside | None = None
) -> None:
    """Have a new image, its record and what is beside it take the places of the old ones, durably.

    found: what there was when it was decided what may be replaced.  new: the record, for which stamps are taken here.
    beside: None when what is there belongs to the new image too.

    What takes long or can fail is done in the folder `work`. Then there are only renames, the record's first and the
    image's last. Whoever looks after a kill between them finds the old image as ours by the record of it that is in the
    new one, by the stamps in that which files beside it are not its own any more, and by those in the new one which
    were made here.
    """
    path = found.path
    files = beside.files if beside else {}
    for file in (*files.values(), target):
        file.chmod(permissions)
    now = observe(path, new.kind)
    moves = {**_drafts(work, target, now, new, beside), **files}
    for file in (*files.values(), target):
        workshop.synced(file)
    last = observe(path, new.kind)
    stale = [file for file in last.ours if file not in moves] if beside else []
    _refuse_what_appeared(found, last, moves)
    workshop.past_return()
    for place, file in moves.items():
        file.replace(place)
    for file in stale:
        file.unlink(missing_ok=True)
    workshop.synced(path.parent)
    target.replace(path)
    workshop.synced(path.parent)


def _refuse_what_appeared(found: Standing, now: Standing, places: Iterable[Path]) -> None:
    """Refuse to replace what came there since it was decided what may be replaced."""
    appeared = [file for file in places if file in now.others and file not in found.others]
    if now.occupied and not found.occupied:
        appeared.append(now.path)
    if appeared:
        raise CowError(
            f"{appeared[0]} was put there while the image was built, and not by this build. Nothing was changed. Move "
            f"it away, or run this again with `{OVERWRITE}: true` to replace it."
        )


def _drafts(work: Path, target: Path, now: Standing, new: Record, beside: Beside | None) -> dict[Path, Path]:
    """Write the record and the contents of the sources, and return them by the places where they belong."""
    path, former = now.path, now.record
    whole = replace(
        new,
        stamp=record.stamp(target),
        former=replace(former, former=None, replaces={}) if former else None,
        replaces={file.name: record.stamp(file) for file in now.ours if file != record.record_path(path)},
    )
    if beside:
        whole = replace(whole, beside={place.name: record.stamp(file) for place, file in beside.files.items()})
    contents = beside.contents if beside else {}
    drafts = {place: work / place.name for place in (record.record_path(path), *contents)}
    for place, content in contents.items():
        durable.write(drafts[place], content)
    whole.save(drafts[record.record_path(path)])
    return drafts

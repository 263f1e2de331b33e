"""What all images at a path have in common: a record beside them, a mode, and what a killed build leaves."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """

    path: Path
    exists: bool
    record: Record | None
    occupied: str
    mode: int
    leftover: bool


def check_path(path: Path) -> None:
    """Refuse a path that an image cannot be at."""
    if not path.parent.is_dir():
        raise CowError(f"The folder {path.parent} does not exist. Make it, or choose another path.")
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise CowError(f"{path} is there and is not an ordinary file. It is left alone: choose another path.")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise CowError(f"The name of {path} is too long for the files that go beside it.")


def mode(text: str) -> int:
    """Read the permissions that are wanted."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise CowError(f"{text!r} is not a mode. Write it in octal, such as 0600.")
    return int(text, 8)


def observe(path: Path, kind: str) -> Standing:
    """Look at the path; `kind` is that of the record of an image that is ours."""
    exists = path.exists()
    before = record.load(path, kind)
    occupied = ""
    if exists and before is None:
        occupied = f"{path}, which was not built here"
    elif exists and before and record.stamp(path) != before.stamp:
        occupied = f"{path}, which was changed since it was built"
    return Standing(
        path=path,
        exists=exists,
        record=before if exists and not occupied else None,
        occupied=occupied,
        mode=path.stat().st_mode & 0o777 if exists else 0,
        leftover=workshop.folder_of(path).exists(),
    )


def reason(found: Standing, inputs: Inputs | None, *, missing: Sequence[Path] = (), rebuild: bool = False) -> str:
    """Say why the image has to be built; "" when it has not."""
    if not found.exists:
        return "there is none"
    if found.occupied:
        return "another file is there"
    if found.record is None or found.record.inputs != inputs:
        return "it was made from something else"
    if missing:
        return f"{missing[0]} is missing"
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


def delete(found: Standing) -> list[Step]:
    """Delete the image, and what is beside it."""
    path = found.path
    beside = tuple(file for file in record.beside(path) if file.exists())
    if not found.exists and not beside:
        return []

    def run() -> None:
        # The record goes last: until then it says that the image was ours.
        for file in (path, *record.beside(path)):
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


def chmod(found: Standing, wanted: int, files: Sequence[Path] = ()) -> list[Step]:
    """Give the image, and files beside it, the permissions that are wanted."""
    if found.mode == wanted:
        return []

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


def publish(moves: Mapping[Path, Path], target: Path, path: Path, permissions: int) -> None:
    """Have the new image and the files beside it take the places of the old ones, durably; the image last.

    moves: what was made beside the image, if it was made, and where it belongs.
    Only a crash between the renames could leave an image with the wrong files beside it, and no record then.
    """
    made = [file for file in (*moves, target) if file.exists()]
    for file in made:
        file.chmod(permissions)
        workshop.synced(file)
    for file, place in moves.items():
        if file.exists():
            file.replace(place)
        else:
            place.unlink(missing_ok=True)
    target.replace(path)

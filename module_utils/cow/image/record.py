"""What lies beside an image: what it was made from, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CowError
from ..journal import Journal
from ..manifest import Manifest
from . import verity
from .sources import Known

Inputs = Mapping[str, Any]
"""Name to value of all that an image is made from."""

KIND = "root file system image"
"""What a record says that it is of; another module's images have another kind."""


@dataclass(frozen=True)
class Record:
    """inputs: of the image.  result: the return values that outlast the build.  stamp: of the file as it was built.

    files: digests of the source's files, by what they were when they were read.
    beside: stamps of the files beside the image that it is useless without, by name.
    former: of the image that this one replaces. A record is there before its image, and till then the former one holds.
    """

    inputs: Inputs
    result: Mapping[str, Any]
    stamp: str = ""
    verity: verity.Tree | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    kind: str = KIND
    beside: Mapping[str, str] = field(default_factory=dict)
    former: Record | None = None

    def save(self, file: Path) -> None:
        """Write it to a file, durably."""
        Journal(file, self.kind).write(_document(self))

    def amiss(self, image: Path) -> tuple[Path, ...]:
        """Return the files beside the image that are missing, or are not those that were made with it."""
        files = {image.with_name(name): mark for name, mark in self.beside.items()}
        return tuple(file for file, mark in files.items() if not file.exists() or stamp(file) != mark)


def load(image: Path, kind: str = KIND) -> Record | None:
    """Read what is beside an image; None when there is nothing. Raises CowError when it is damaged or of other work."""
    document = Journal(record_path(image), kind).read()
    if document is None:
        return None
    try:
        found = _of(document, kind)
    except (KeyError, TypeError) as error:
        raise CowError(f"The record {record_path(image)} has not what it should have. Move it aside.") from error
    former = found.former
    return former if former and image.exists() and stamp(image) == former.stamp else found


def _document(record: Record) -> dict[str, Any]:
    return {
        "inputs": dict(record.inputs),
        "result": dict(record.result),
        "stamp": record.stamp,
        "verity": record.verity.record() if record.verity else None,
        "files": dict(record.files),
        "beside": dict(record.beside),
        "former": _document(record.former) if record.former else None,
    }


def _of(document: Mapping[str, Any], kind: str) -> Record:
    tree, former = document["verity"], document.get("former")  # which the first records had not, nor what is beside
    return Record(
        document["inputs"],
        document["result"],
        document["stamp"],
        verity.Tree(**tree) if tree else None,
        document["files"],
        kind,
        document.get("beside", {}),
        _of(former, kind) if former else None,
    )


def known(image: Path, record: Record | None, number: int | None = None) -> Known:
    """Return what need not be read again of the source, of the one with this number when there are several."""
    tree = None
    with suppress(CowError):
        tree = Manifest.load(contents_path(image, number))
    return Known(record.files if record else {}, tree)


def fingerprint(inputs: Inputs) -> str:
    """Return the SHA-256 of all inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def stamp(image: Path) -> str:
    """Return what changes when somebody writes to the image or puts another in its place, and not when it is moved."""
    status = image.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def record_path(image: Path) -> Path:
    """Where the record is."""
    return image.with_name(f"{image.name}.cowherd")


def contents_path(image: Path, number: int | None = None) -> Path:
    """Where the manifest of the source's contents is."""
    return image.with_name(f"{image.name}.cowherd.tree" + ("" if number is None else f".{number}"))


def description_path(image: Path) -> Path:
    """Where it says what is in an image of several roots."""
    return image.with_name(f"{image.name}.cowherd.json")


def tree_path(image: Path) -> Path:
    """Where a hash tree is that is not in the image."""
    return image.with_name(f"{image.name}.verity")


def signature_path(image: Path) -> Path:
    """Where the signature of the root hash is."""
    return image.with_name(f"{image.name}.roothash.p7s")


def beside(image: Path) -> tuple[Path, ...]:
    """Return all files that may be beside an image, the record last."""
    first = contents_path(image)
    numbered = sorted(path for path in first.parent.iterdir() if path.name.startswith(f"{first.name}."))
    return (tree_path(image), signature_path(image), description_path(image), first, *numbered, record_path(image))

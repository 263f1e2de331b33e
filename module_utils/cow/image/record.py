"""What lies beside an image: what it was made from, and what came of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
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
_OWN = r"\.cowherd(\.json|\.tree(\.\d+)?)?"
"""What is added to the name of an image for its record and for what belongs to that."""


@dataclass(frozen=True)
class Record:
    """inputs: of the image.  result: the return values that outlast the build.  stamp: of the file as it was built.

    files: digests of the source's files, by what they were when they were read.
    beside: stamps of the files beside the image that it is useless without, by name.
    replaces: stamps of what earlier builds of it made beside the image, which is there until the new files are.
    former: of the image that this one replaces. A record is there before its image, and till then the former one holds.
    """

    inputs: Inputs
    result: Mapping[str, Any]
    stamp: str = ""
    verity: verity.Tree | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    kind: str = KIND
    beside: Mapping[str, str] = field(default_factory=dict)
    replaces: Mapping[str, str] = field(default_factory=dict)
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
    found = _read(image, kind)
    former = found.former if found else None
    return former if former and image.exists() and stamp(image) == former.stamp else found


def _read(image: Path, kind: str) -> Record | None:
    document = Journal(record_path(image), kind).read()
    if document is None:
        return None
    try:
        return _of(document, kind)
    except (KeyError, TypeError) as error:
        raise CowError(f"The record {record_path(image)} has not what it should have. Move it aside.") from error


def _document(record: Record) -> dict[str, Any]:
    return {
        "inputs": dict(record.inputs),
        "result": dict(record.result),
        "stamp": record.stamp,
        "verity": record.verity.record() if record.verity else None,
        "files": dict(record.files),
        "beside": dict(record.beside),
        "replaces": dict(record.replaces),
        "former": _document(record.former) if record.former else None,
    }


def _of(document: Mapping[str, Any], kind: str) -> Record:
    # What is asked for with `get` the first records had not.
    tree, former = document["verity"], document.get("former")
    return Record(
        document["inputs"],
        document["result"],
        document["stamp"],
        verity.Tree(**tree) if tree else None,
        document["files"],
        kind,
        document.get("beside", {}),
        document.get("replaces", {}),
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


def is_reserved(name: str) -> bool:
    """Whether a name is that of the record of an image with another name, or of what belongs to that."""
    return re.search(f".{_OWN}$", name) is not None


def beside(image: Path) -> tuple[Path, ...]:
    """Return what there is beside an image where its builds put something, the record last."""
    record, first = record_path(image), contents_path(image)
    numbered = re.compile(re.escape(first.name) + r"\.\d+")
    contents = sorted(path for path in first.parent.iterdir() if numbered.fullmatch(path.name))
    places = (tree_path(image), signature_path(image), description_path(image), first, *contents, record)
    return tuple(place for place in places if os.path.lexists(place))


def ours(image: Path, kind: str = KIND) -> tuple[Path, ...]:
    """Return the files beside an image that its builds made and nobody changed since, the record last.

    Raises CowError when the record is damaged or of other work.
    """
    found = _read(image, kind)
    if found is None:
        return ()
    made = {*found.beside.items(), *found.replaces.items()}
    contested = (tree_path(image), signature_path(image), description_path(image))
    return tuple(
        file
        for file in beside(image)
        if is_ordinary(file) and (file not in contested or (file.name, stamp(file)) in made)
    )


def is_ordinary(file: Path) -> bool:
    """Whether there is a file, and no link to one."""
    return file.is_file() and not file.is_symlink()

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


@dataclass(frozen=True)
class Record:
    """inputs: of the image.  result: the return values that outlast the build.  stamp: of the file as it was built.

    files: digests of the source's files, by what they were when they were read.
    """

    inputs: Inputs
    result: Mapping[str, Any]
    stamp: str
    verity: verity.Tree | None = None
    signed: bool = False
    files: Mapping[str, str] = field(default_factory=dict)

    def save(self, image: Path) -> None:
        """Write it beside the image, durably."""
        _journal(image).write(
            {
                "inputs": dict(self.inputs),
                "result": dict(self.result),
                "stamp": self.stamp,
                "verity": self.verity.record() if self.verity else None,
                "signed": self.signed,
                "files": dict(self.files),
            }
        )


def load(image: Path) -> Record | None:
    """Read what is beside an image; None when there is nothing. Raises CowError when it is damaged."""
    document = _journal(image).read()
    if document is None:
        return None
    try:
        tree = document["verity"]
        return Record(
            document["inputs"],
            document["result"],
            document["stamp"],
            verity.Tree(**tree) if tree else None,
            document["signed"],
            document["files"],
        )
    except (KeyError, TypeError) as error:
        raise CowError(f"The record {record_path(image)} has not what it should have. Move it aside.") from error


def known(image: Path, record: Record | None) -> Known:
    """Return what need not be read again of the source."""
    tree = None
    with suppress(CowError):
        tree = Manifest.load(contents_path(image))
    return Known(record.files if record else {}, tree)


def fingerprint(inputs: Inputs) -> str:
    """Return the SHA-256 of all inputs."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def stamp(image: Path) -> str:
    """Return what changes when somebody writes to the image or puts another in its place."""
    status = image.stat()
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def record_path(image: Path) -> Path:
    """Where the record is."""
    return image.with_name(f"{image.name}.cowherd")


def contents_path(image: Path) -> Path:
    """Where the manifest of the source's contents is."""
    return image.with_name(f"{image.name}.cowherd.tree")


def tree_path(image: Path) -> Path:
    """Where a hash tree is that is not in the image."""
    return image.with_name(f"{image.name}.verity")


def signature_path(image: Path) -> Path:
    """Where the signature of the root hash is."""
    return image.with_name(f"{image.name}.roothash.p7s")


def beside(image: Path) -> tuple[Path, ...]:
    """Return all files that may be beside an image."""
    return (tree_path(image), signature_path(image), contents_path(image), record_path(image))


def _journal(image: Path) -> Journal:
    return Journal(record_path(image), "root file system image")

"""A write-ahead journal: what is about to be done is on the disk before it is done.

A journal is one JSON document in one file. Each write replaces the file as a whole (write, fsync, rename, fsync of the
folder), so that after a crash or a power cut it holds one of the states that were written, never a mixture. A checksum
over the document makes a file that was damaged later, or edited by hand, recognisable.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import durable
from .errors import CowError

FORMAT = 1


@dataclass(frozen=True)
class Journal:
    """The journal file at `path`; `kind` tells journals of different work apart."""

    path: Path
    kind: str

    def read(self) -> dict[str, Any] | None:
        """Return the last document written, or None when there is no journal.

        Raises CowError when the file is damaged, of another kind, or of a newer format; it is left as it is.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CowError(f"The journal {self.path} cannot be read: {error.strerror}.") from error
        try:
            envelope = json.loads(raw)
            kind, version, digest, document = (envelope[key] for key in ("kind", "format", "sha256", "document"))
        except (ValueError, KeyError, TypeError) as error:
            raise CowError(self._unusable("is damaged")) from error
        if kind != self.kind:
            raise CowError(self._unusable(f"belongs to other work ({kind}, not {self.kind})"))
        if version != FORMAT:
            raise CowError(self._unusable(f"has format {version}; this version reads {FORMAT}"))
        if digest != _digest(document) or not isinstance(document, dict):
            raise CowError(self._unusable("is damaged (its checksum does not match)"))
        return document

    def write(self, document: dict[str, Any]) -> None:
        """Make `document` the journal's content, durably, before returning. There is one writer at a time."""
        envelope = {"kind": self.kind, "format": FORMAT, "sha256": _digest(document), "document": document}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            durable.write(self.path, json.dumps(envelope, sort_keys=True, indent=1).encode() + b"\n")
        except OSError as error:
            raise CowError(f"The journal {self.path} cannot be written: {error.strerror}.") from error

    def remove(self) -> None:
        """Forget the work, durably; fine when there is no journal."""
        if self.path.parent.is_dir():
            durable.remove(self.path)

    def _unusable(self, what: str) -> str:
        return (
            f"The journal {self.path} {what}. Nothing was changed. Find out what it was written for; "
            f"move it aside only when that work is known to be finished."
        )


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

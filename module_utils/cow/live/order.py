"""What an installation is to come to."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import names
from ..errors import CowError
from .target import UNFINISHED_LABEL

_LONGEST_LABEL = {"btrfs": 255, "ext4": 16, "xfs": 12}


@dataclass(frozen=True)
class Order:
    """root: of the seed, which is installed.  uuid: "" for a random one.  the others: as the module's options say."""

    root: str
    filesystem: str
    method: str
    label: str
    uuid: str
    metadata: str | None
    checksum: str | None
    node_size: int | None

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Order:
        """Take it from the parameters of the module, and refuse what cannot be meant."""
        order = cls(
            root=names.subvolume(params["root"]),
            filesystem=params["filesystem"],
            method=params["method"],
            label=params["label"] or params["root"],
            uuid=_uuid(params["uuid"]),
            metadata=params["metadata"],
            checksum=params["checksum"],
            node_size=params["node_size"],
        )
        order.check()
        return order

    def check(self) -> None:
        """Refuse what cannot be meant together."""
        longest = _LONGEST_LABEL[self.filesystem]
        if not re.fullmatch(r"[^\s/\\]+", self.label) or len(self.label.encode()) > longest:
            raise CowError(
                f"The label {self.label!r} is none for {self.filesystem}: wanted are 1 to {longest} bytes without "
                f"spaces, '/' or '\\'. Set `label`."
            )
        if self.label == UNFINISHED_LABEL:
            raise CowError(
                f"The label {self.label} stands for an installation that is not finished. Set `label` to another one."
            )
        if self.filesystem == "btrfs":
            return
        if self.method in ("blocks", "sprout"):
            raise CowError(f"A seed becomes only a btrfs, not {self.filesystem}. Leave `method` out.")
        if self.metadata or self.checksum or self.node_size:
            raise CowError(
                f"{self.filesystem} has none of `metadata`, `checksum` and `node_size`, which are of btrfs. Leave them "
                f"out."
            )


def _uuid(text: str | None) -> str:
    if not text:
        return ""
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise CowError(f"{text!r} is not a UUID. Leave `uuid` out for a random one.") from error

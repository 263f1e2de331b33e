"""Pools of ZFS, through `zpool`: what there is, what could be imported, and a new one on an empty device."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import process

_LEAF = re.compile(r"^\t +(/\S+)\s", re.MULTILINE)
"""A device in the table of `zpool status -P`, whose groups (mirror-0) are no paths."""
_IMPORTABLE = re.compile(r"^ +pool: (.+)$", re.MULTILINE)
_NONE_IMPORTABLE = "no pools available to import"
_LONG = 600.0
"""Seconds; all disks of a large host are looked at."""


@dataclass(frozen=True)
class Zpool:
    """The `zpool` program. Nothing is ever done by force."""

    run: process.Runner = process.run

    def exists(self, name: str) -> bool:
        """Say whether a pool is imported; "no" only when ZFS says exactly that."""
        finished = self.run(["zpool", "list", "-H", "-o", "name", name], accept=(0, 1))
        if finished.status and not finished.stderr.strip().endswith("no such pool"):
            raise process.CommandFailed(finished)
        return finished.status == 0

    def devices(self, name: str) -> tuple[str, ...]:
        """Return the devices of an imported pool, which may be partitions of those it was made on."""
        return tuple(_LEAF.findall(self.run(["zpool", "status", "-L", "-P", name]).stdout))

    def importable(self, device: str | None = None) -> tuple[str, ...]:
        """Return the pools that could be imported from a device, also destroyed ones; or from anywhere, those alone."""
        if device is None:
            return self._importable([])
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "device").symlink_to(Path(device).resolve())
            where = ["-d", folder]
            return tuple(dict.fromkeys((*self._importable(where), *self._importable([*where, "-D"]))))

    def create(self, name: str, device: str, of_pool: Mapping[str, str], of_root: Mapping[str, str]) -> None:
        """Make a pool on one device. ZFS refuses one that is in use by itself too."""
        options = [word for key, value in of_pool.items() for word in ("-o", f"{key}={value}")]
        options += [word for key, value in of_root.items() for word in ("-O", f"{key}={value}")]
        self.run(["zpool", "create", *options, name, device], timeout=_LONG)

    def _importable(self, options: list[str]) -> tuple[str, ...]:
        finished = self.run(["zpool", "import", *options], accept=(0, 1), timeout=_LONG)
        if finished.status and _NONE_IMPORTABLE not in finished.stderr + finished.stdout:
            raise process.CommandFailed(finished)
        return tuple(_IMPORTABLE.findall(finished.stdout))

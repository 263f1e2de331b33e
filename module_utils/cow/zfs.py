"""ZFS, through its command line (zfs(8), with -Hp output)."""

from __future__ import annotations

from dataclasses import dataclass

from . import names, process


@dataclass(frozen=True)
class Dataset:
    """A dataset, and the names of the datasets and snapshots below it."""

    name: str
    below: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether there is nothing below it; Incus takes only such a dataset for a pool."""
        return not self.below


def find(name: str) -> Dataset | None:
    """Read a dataset; None when ZFS says that there is none, or is not installed."""
    argv = ["zfs", "list", "-H", "-r", "-t", "all", "-o", "name", names.dataset(name)]
    try:
        listed = process.run(argv).stdout.splitlines()
    except process.CommandMissing:
        return None
    except process.CommandFailed as failure:
        if failure.finished.stderr.strip().endswith("dataset does not exist"):
            return None
        raise
    return Dataset(name, tuple(found for found in listed if found != name))

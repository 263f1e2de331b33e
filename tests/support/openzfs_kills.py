"""Kills the operations of `golden_kills` on OpenZFS: `python3 -m support.openzfs_kills BACKEND [OPERATION ...]`.

It prints an outcome on each line, as JSON. For a virtual machine that has OpenZFS and cow-session, and of tests no more
than `PARTS` in a folder `support`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NoReturn

from . import killed
from .golden_kills import OPERATIONS, outcome
from .golden_trees import Store

PARTS = ("__init__.py", "golden_kills.py", "golden_trees.py", "killed.py", "openzfs_kills.py")
"""The files of this folder that it needs."""

PROGRAM = Path("/usr/local/bin/cow-session")
_POOL = "kills"


class _Quick(Store):
    """A store that forks cow-session from this process, which has loaded it: to start Python takes seconds there."""

    def execute(self, *argv: str | Path | int, killed_before: int = 0) -> subprocess.CompletedProcess[str]:
        """Run cow-session in a process of its own, and kill it before a change when one is given."""
        command = self.command(*argv)
        with tempfile.TemporaryFile() as printed, tempfile.TemporaryFile() as said:
            process = os.fork()
            if not process:
                _be(command, killed_before, printed, said)
            status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            printed.seek(0)
            said.seek(0)
            return subprocess.CompletedProcess(command, status, printed.read().decode(), said.read().decode())


def _be(command: list[str], killed_before: int, printed: BinaryIO, said: BinaryIO) -> NoReturn:
    status = 70
    try:
        os.dup2(printed.fileno(), 1)
        os.dup2(said.fileno(), 2)
        status = killed.run(command, killed_before)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(status)  # whatever came, for all else is the parent's to do


@contextmanager
def _new_store(backend: str) -> Iterator[Store]:
    """A store in a pool of its own, in memory, during the block."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as disks, tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        disk = Path(disks, "disk")
        with disk.open("wb") as file:
            file.truncate(1 << 30)
        _run("zpool", "create", "-m", "none", _POOL, disk)
        try:
            _run("zfs", "create", f"{_POOL}/golden")
            store = _Quick(backend, f"{_POOL}/golden", PROGRAM, Path(folder))
            try:
                yield store
            finally:
                store.unmount_all()
        finally:
            _run("zpool", "destroy", _POOL)


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)


def main(backend: str, *operations: str) -> None:
    """Kill operations, or all of them."""
    killed.load(PROGRAM)
    for operation in operations or OPERATIONS:
        with _new_store(backend) as store:
            found = outcome(store, operation)
        sys.stdout.write(f"{json.dumps(asdict(found))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

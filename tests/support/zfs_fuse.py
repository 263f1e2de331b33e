"""A ZFS in user space of a test's own.

It runs where it sees no socket, lock or cache of another: it would import the pools in the cache, though they are in
use there. Its mounts are seen nowhere else, and all of it ends with the block.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from . import needs, waiting

_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_DAEMON = """\
set -e
for folder in /run /var/lib /etc/zfs; do mount -t tmpfs tmpfs "$folder"; done
mkdir /run/lock /run/zfs /var/lib/zfs /run/in-turn
printf '%s' "$1" >/run/in-turn/zfs
chmod 755 /run/in-turn/zfs
exec zfs-fuse --no-daemon --no-kstat-mount
"""
_IN_TURN = """\
#!/bin/sh
case $1 in
get | list) exec {zfs} "$@" ;;
*) exec flock /run/in-turn {zfs} "$@" ;;
esac
"""
"""The daemon tells its own listener of a new mount in two writes, and hangs where those of two mounts mingle."""


@dataclass(frozen=True)
class ZfsFuse:
    """process: of the daemon, as this process sees it."""

    process: int
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def within(self) -> tuple[str, ...]:
        """The command by which others run where its mounts are seen."""
        path = f"PATH=/run/in-turn:{os.environ['PATH']}"
        return ("nsenter", "--target", str(self.process), "--mount", "--pid", "--", "env", path)

    def seen(self, path: Path | str) -> Path:
        """Where a path there is found from here."""
        return Path(f"/proc/{self.process}/root{path}")

    def run(self, *argv: str | Path, accept: tuple[int, ...] = (0,)) -> str:
        """Run a command there, and return its output."""
        finished = subprocess.run(
            [*self.within, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
        assert finished.returncode in accept, f"{argv}: {finished.stderr}"
        return finished.stdout

    def pool(self, size: int = 256 << 20) -> str:
        """Make a pool in a file. Its name is used once: a pool of a name that just was may be busy."""
        name = f"cw{os.getpid()}n{next(self.numbers)}"
        disk = f"/run/{name}.disk"  # in memory
        with self.seen(disk).open("wb") as file:
            file.truncate(size)
        self.run("zpool", "create", "-m", "none", name, disk)
        return name


@contextmanager
def running(folder: Path) -> Iterator[ZfsFuse]:
    """A daemon during the block, with its log in `folder`; skips unless one can run here."""
    needs.root("a ZFS in user space mounts file systems")
    for name in ("zfs-fuse", "unshare", "nsenter"):
        needs.program(name)
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse: the kernel has no FUSE, or this container may not use it")
    folder.mkdir(exist_ok=True)
    in_turn = _IN_TURN.format(zfs=shutil.which("zfs"))
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(
            [*_ALONE, "sh", "-c", _DAEMON, "sh", in_turn], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as alone,
    ):
        try:
            yield ZfsFuse(waiting.until(lambda: _daemon(alone), within=120))
        finally:
            alone.kill()


def _daemon(alone: subprocess.Popen[bytes]) -> int:
    """The first process in there, once it answers."""
    assert alone.poll() is None, "zfs-fuse ended"
    children = Path(f"/proc/{alone.pid}/task/{alone.pid}/children").read_text().split()
    if not children:
        return 0
    listed = subprocess.run(
        ["nsenter", "--target", children[0], "--mount", "--pid", "--", "zpool", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return int(children[0]) if listed.returncode == 0 else 0

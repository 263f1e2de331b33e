"""The launch of a container: on `dir`, on btrfs, and what btrfs and the start alone would take."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from functools import partial
from pathlib import Path

from tests.support import images, incusd

from .timing import Timing, interleaved, milliseconds, table

ROUNDS = 9
POOL_SIZE = "8GiB"
_numbers = itertools.count()


def measure() -> str:
    """Measure with a Debian image on a private daemon."""
    with incusd.running() as daemon, tempfile.TemporaryDirectory() as folder:
        rootfs = _prepare(daemon, Path(folder))
        create = interleaved(
            {
                "create on dir": partial(_create, daemon, "plain"),
                "create on btrfs": partial(_create, daemon, "fast"),
                "bare btrfs snapshot": partial(_snapshot, daemon),
            },
            ROUNDS,
        )
        launch = interleaved(
            {
                "launch on dir": partial(_launch, daemon, "plain"),
                "launch on btrfs": partial(_launch, daemon, "fast"),
                "bare btrfs snapshot and start": partial(_snapshot_and_start, daemon),
            },
            ROUNDS,
        )
    return _text(rootfs, create, launch)


def _prepare(daemon: incusd.Incusd, folder: Path) -> Path:
    rootfs = images.debian_rootfs("trixie", ["systemd-sysv", "dbus", "systemd-resolved"])
    daemon.run("storage", "create", "plain", "dir")
    daemon.run("storage", "create", "fast", "btrfs", f"size={POOL_SIZE}")
    daemon.run("image", "import", images.metadata_tar(folder, "debian"), rootfs, "--alias", "debian")
    daemon.run("init", "debian", "ready", "--storage", "fast")
    return rootfs


def _new_name() -> str:
    return f"c{next(_numbers)}"


def _create(daemon: incusd.Incusd, pool: str) -> float:
    name = _new_name()
    taken = milliseconds(lambda: daemon.run("init", "debian", name, "--storage", pool))
    daemon.run("delete", "--force", name)
    return taken


def _launch(daemon: incusd.Incusd, pool: str) -> float:
    name = _new_name()
    taken = milliseconds(lambda: daemon.run("launch", "debian", name, "--storage", pool))
    daemon.run("delete", "--force", name)
    return taken


def _snapshot(daemon: incusd.Incusd) -> float:
    mounted = daemon.dir / "storage-pools" / "fast"
    image = next((mounted / "images").iterdir())
    copy = mounted / "containers" / _new_name()
    taken = milliseconds(lambda: _btrfs("snapshot", image, copy))
    _btrfs("delete", copy)
    return taken


def _snapshot_and_start(daemon: incusd.Incusd) -> float:
    taken = _snapshot(daemon) + milliseconds(lambda: daemon.run("start", "ready"))
    daemon.run("stop", "--force", "ready")
    return taken


def _btrfs(*arguments: str | Path) -> None:
    subprocess.run(["btrfs", "subvolume", *arguments], check=True, stdout=subprocess.DEVNULL)


def _text(rootfs: Path, create: list[Timing], launch: list[Timing]) -> str:
    size = rootfs.stat().st_size / 2**20
    what = (
        f"A Debian container from an image whose root file system is a tar of {size:.0f} MiB; {ROUNDS} interleaved "
        f"rounds with the command-line client."
    )
    return "\n\n".join([what, table(create, "create on btrfs"), table(launch, "launch on btrfs")])

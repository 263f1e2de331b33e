"""How long a container is down while it moves from `dir` to btrfs: here, and with `incus move`."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.support import images, incusd, migration
from tests.support.incus_runs import run

from .timing import milliseconds

SIZES = (100, 400, 1600)
"""Megabytes of files."""
DIRTY = (0, 1, 10)
"""Percent of them that are written again while the container is copied."""
FILE = 1 << 16
PAYLOAD = "payload"


def measure() -> str:
    """Measure each size and share once with both, in turns, on a private daemon."""
    rows = ["| MB | dirty | down, ms | `incus move`, ms | x | compared, ms | total, s | `incus move`, s |"]
    rows.append("|---:|---:|---:|---:|---:|---:|---:|---:|")
    with incusd.running() as daemon, tempfile.TemporaryDirectory() as folder:
        migration.prepare(daemon, images.busybox_image(Path(folder)), size="6GiB")
        cases = [(size, dirty) for size in SIZES for dirty in DIRTY]
        rows += [_row(size, dirty, _ours(daemon, size, dirty), _theirs(daemon, size)) for size, dirty in cases]
    text = (
        "A busybox container with files of 64 KiB, running; `incus move` is stop, move and start, as it does not move "
        "one that runs. The time that the container takes to stop is in both."
    )
    return f"{text}\n\n" + "\n".join(rows)


def _row(size: int, dirty: int, ours: dict[str, Any], theirs: tuple[float, float]) -> str:
    down = ours["downtime_seconds"] * 1000
    compared, total = ours["verify_seconds"] * 1000, ours["total_seconds"]
    return (
        f"| {size} | {dirty} % | {down:.0f} | {theirs[0]:.0f} | {down / theirs[0]:.2f} | {compared:.0f} "
        f"| {total:.1f} | {theirs[1]:.1f} |"
    )


def _ours(daemon: incusd.Incusd, size: int, dirty: int) -> dict[str, Any]:
    _launch(daemon, size)
    progress = daemon.dir / "progress"
    ended = threading.Event()
    writer = threading.Thread(target=_write_again, args=(daemon, progress, dirty, ended))
    writer.start()
    result = run(daemon, migration.MODULE, name="c1", pool="fast", progress_file=progress)
    ended.set()
    writer.join()
    if result.get("failed"):
        raise RuntimeError(result["msg"])
    _remove(daemon)
    return dict(result["move"])


def _theirs(daemon: incusd.Incusd, size: int) -> tuple[float, float]:
    _launch(daemon, size)

    def move() -> None:
        daemon.run("stop", "c1")
        daemon.run("move", "c1", "--storage", "fast")
        daemon.run("start", "c1")

    down = milliseconds(move)
    _remove(daemon)
    return down, down / 1000


def _launch(daemon: incusd.Incusd, size: int) -> None:
    migration.launch(daemon, "c1")
    folder = migration.rootfs(daemon, "c1") / PAYLOAD
    folder.mkdir()
    for number in range(size * 10**6 // FILE):
        parent = folder / str(number % 100)
        parent.mkdir(exist_ok=True)
        (parent / str(number)).write_bytes(os.urandom(FILE))


def _write_again(daemon: incusd.Incusd, progress: Path, dirty: int, ended: threading.Event) -> None:
    """Write a share of the files anew once the copy is made and is being compared."""
    while not ended.is_set() and _phase(progress) != "comparing while it runs":
        time.sleep(0.05)
    files = sorted(path for path in (migration.rootfs(daemon, "c1") / PAYLOAD).rglob("*") if path.is_file())
    for path in files[: len(files) * dirty // 100]:
        if ended.is_set():
            return
        path.write_bytes(os.urandom(FILE))


def _phase(progress: Path) -> str:
    try:
        return str(json.loads(progress.read_text())["phase"])
    except (OSError, ValueError):
        return ""


def _remove(daemon: incusd.Incusd) -> None:
    for name in migration.names(daemon):
        daemon.run("delete", "--force", name)
    for path in (daemon.dir / "cowherd" / "moves").glob("*.json"):
        path.unlink()

"""A container that moves to another pool: how long it is down and how long it takes, against `incus move`."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import images, incusd
from tests.support.ansible import ROOT

from .timing import milliseconds

SIZES = (100, 400, 1600)
"""MB of files in the container."""
DIRTY = (0, 1, 10)
"""Percent of the files that are rewritten between the copy and the stop."""
ROUNDS = 3
_FILE = 250_000
"""Bytes of one file: about that of a large package's."""
_FILES_IN_FOLDER = 200
_POOL_SIZE = "12GiB"
_NAME = "moving"

_WITH_WRITES = """\
import importlib, json, subprocess, sys
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.cow import plan

def apply(planned, done):
    for step in planned.steps:
        step.run()
        if step.title.startswith("make "):
            subprocess.run(json.loads(sys.argv[1]), check=True)

plan._apply = apply
with patch_module_args(json.load(sys.stdin)):
    importlib.import_module("incus_instance_pool").main()
"""
"""Runs the module, and a command when the copy is equal to the source, which still runs."""

_REWRITE = """\
import os, pathlib, sys
folder, percent = pathlib.Path(sys.argv[1]), int(sys.argv[2])
files = sorted(path for path in folder.rglob("*") if path.is_file())
for path in files[: len(files) * percent // 100]:
    path.write_bytes(os.urandom(path.stat().st_size))
"""


@dataclass(frozen=True)
class Run:
    """One move, in milliseconds. comparing: the share of the downtime that comparing took; 0 for `incus move`."""

    down: float
    total: float
    comparing: float = 0.0


def measure(sizes: Sequence[int] = SIZES, dirty: Sequence[int] = DIRTY, rounds: int = ROUNDS) -> str:
    """Measure on a private daemon, from a dir pool to a btrfs one."""
    rows = []
    with incusd.running() as daemon, tempfile.TemporaryDirectory() as folder:
        _prepare(daemon, Path(folder))
        for size, percent in itertools.product(sizes, dirty):
            ours, theirs = _compared(daemon, size, percent, rounds)
            rows.append(_row(size, percent, ours, theirs))
    return "\n\n".join([_what(rounds), "\n".join([*_HEAD, *rows])])


def _compared(daemon: incusd.Incusd, size: int, percent: int, rounds: int) -> tuple[list[Run], list[Run]]:
    """Take turns, so that a slow minute falls on both."""
    _template(daemon, size)
    taken: dict[str, list[Run]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, move in (("ours", partial(_ours, daemon, percent)), ("theirs", partial(_theirs, daemon))):
            daemon.run("copy", "template", _NAME, "--storage", "slow")
            daemon.run("start", _NAME)
            os.sync()
            taken[name].append(move())
            _remove_all(daemon)
    daemon.run("delete", "template")
    return taken["ours"], taken["theirs"]


def _prepare(daemon: incusd.Incusd, folder: Path) -> None:
    metadata, rootfs = images.busybox_image(folder)
    daemon.run("image", "import", metadata, rootfs, "--alias", "small")
    daemon.run("storage", "create", "slow", "dir")
    daemon.run("storage", "create", "fast", "btrfs", f"size={_POOL_SIZE}")


def _template(daemon: incusd.Incusd, size: int) -> None:
    daemon.run("init", "small", "template", "--storage", "slow")
    data = _data(daemon, "template")
    for number in range(size * 1_000_000 // _FILE):
        folder = data / f"{number // _FILES_IN_FOLDER}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}").write_bytes(os.urandom(_FILE))


def _data(daemon: incusd.Incusd, name: str) -> Path:
    return daemon.dir / "storage-pools" / "slow" / "containers" / name / "rootfs" / "root" / "data"


def _ours(daemon: incusd.Incusd, percent: int) -> Run:
    rewrite = [sys.executable, "-c", _REWRITE, str(_data(daemon, _NAME)), str(percent)]
    arguments = {"name": _NAME, "pool": "fast", "socket": str(daemon.socket)}
    result: dict[str, Any] = {}

    def move() -> None:
        finished = subprocess.run(
            [sys.executable, "-P", "-c", _WITH_WRITES, json.dumps(rewrite)],
            input=json.dumps(arguments),
            env={**os.environ, "PYTHONPATH": f"{ROOT}/tests/support/importable:{ROOT}/library"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        result.update(json.loads(finished.stdout)["move"])

    total = milliseconds(move)
    return Run(1000 * result["downtime_seconds"], total, result["verify_seconds"] / result["downtime_seconds"])


def _theirs(daemon: incusd.Incusd) -> Run:
    """`incus move` wants it stopped for all of the copy, so that nothing is written meanwhile."""

    def move() -> None:
        daemon.run("stop", _NAME)
        daemon.run("move", _NAME, "--storage", "fast")
        daemon.run("start", _NAME)

    taken = milliseconds(move)
    return Run(taken, taken)


def _remove_all(daemon: incusd.Incusd) -> None:
    for name in daemon.run("list", "--format=csv", "--columns=n").split():
        if name != "template":
            daemon.run("delete", "--force", name)


_HEAD = (
    "| files | rewritten | down, ms | by `incus move` | ratio | comparing | in all, ms | by `incus move` | ratio |",
    "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
)


def _row(size: int, percent: int, ours: Sequence[Run], theirs: Sequence[Run]) -> str:
    down, down_theirs = (statistics.median(run.down for run in runs) for runs in (ours, theirs))
    total, total_theirs = (statistics.median(run.total for run in runs) for runs in (ours, theirs))
    comparing = statistics.median(run.comparing for run in ours)
    return (
        f"| {size} MB | {percent} % | {down:.0f} | {down_theirs:.0f} | {down / down_theirs:.2f} | {comparing:.0%} "
        f"| {total:.0f} | {total_theirs:.0f} | {total / total_theirs:.2f} |"
    )


def _what(rounds: int) -> str:
    return (
        f"A running container with files of {_FILE // 1000} kB from a `dir` pool to a btrfs one; medians of {rounds} "
        f"rounds that take turns. *Rewritten*: the share of the files that is written between copy and stop. "
        f"*Comparing*: the share of the downtime in which both are compared. `incus move` compares nothing and has the "
        f"container down for all of it."
    )

"""What is left of a container when a move to another pool is cut off: with `incus move`, and with the module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.manifest import Manifest
from tests.support import images, incusd, migration, waiting
from tests.support.ansible import ROOT
from tests.support.incusd import Incusd

from .timing import milliseconds

MOMENTS = 10
"""Into as many equal parts the time of a whole move is cut."""
_FILES = 4000
_SNAPSHOT = "s1"
_NAME = "c1"
COMMAND, SERVER = "the command", "`incusd`"


@dataclass(frozen=True)
class Way:
    """How a container is moved. given: what the command reads. stopped: it has to be, before it is moved."""

    name: str
    command: tuple[str | Path, ...]
    given: Callable[[Incusd], str]
    stopped: bool

    def begin(self, daemon: Incusd) -> subprocess.Popen[bytes]:
        """Start the command."""
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            self.command, env=daemon.environment, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
        )
        if process.stdin:
            process.stdin.write(self.given(daemon).encode())
            process.stdin.close()
        return process

    def again(self, daemon: Incusd) -> bool:
        """Whether the command that was cut off succeeds when it is given again, where anything is left to do."""
        if self.stopped:
            return (_is_there(daemon, "fast") or self.begin(daemon).wait() == 0) and _started(daemon)
        return self.begin(daemon).wait() == 0


INCUS = Way("`incus move`", ("incus", "-q", "move", _NAME, "--storage", "fast"), lambda _: "", stopped=True)
OURS = Way(
    f"`{migration.MODULE}`",
    (sys.executable, "-P", ROOT / "tests/support/module_main.py", ROOT / f"library/{migration.MODULE}.py"),
    lambda daemon: json.dumps({"name": _NAME, "pool": "fast", "socket": str(daemon.socket)}),
    stopped=False,
)


@dataclass(frozen=True)
class Outcome:
    """After a kill, and the server's restart if it was that: what holds at once, and what after a second run.

    safe: under its own name there is a container whose files, and those of its snapshot, are all there.
    finished: the second run succeeds and the container runs on the other pool.
    equal: nothing tells it and its snapshot from what they were before, hard links, attributes and flags included.
    """

    safe: bool
    finished: bool
    equal: bool


def measure(moments: int = MOMENTS) -> str:
    """Cut moves off on a private daemon, from a dir pool to a btrfs one."""
    with incusd.running() as daemon, tempfile.TemporaryDirectory() as folder:
        image = images.busybox_image(Path(folder))
        rows = [
            _row(way, victim, list(_outcomes(daemon, image, way, victim, moments)))
            for way in (INCUS, OURS)
            for victim in (COMMAND, SERVER)
        ]
    return "\n\n".join([_what(moments), "\n".join([*_HEAD, *rows])])


def _outcomes(daemon: Incusd, image: tuple[Path, Path], way: Way, victim: str, moments: int) -> Iterator[Outcome]:
    _begin(daemon, image, way)
    whole = milliseconds(lambda: way.begin(daemon).wait()) / 1000
    for number in range(moments):
        before = _begin(daemon, image, way)
        process = way.begin(daemon)
        time.sleep(whole * (number + 0.5) / moments)
        if victim == COMMAND:
            process.kill()
        else:
            daemon.kill()
        process.wait()
        if victim == SERVER:
            daemon.start()
        yield _outcome(daemon, way, before)


def _begin(daemon: Incusd, image: tuple[Path, Path], way: Way) -> list[Manifest]:
    """Have a container with small files, a hard link, a flag and a snapshot; return what it and that have."""
    daemon.clean()
    migration.prepare(daemon, image)
    migration.launch(daemon, _NAME)
    folder = _files(daemon, "slow")
    for number in range(_FILES):
        (folder / f"{number}").write_bytes(os.urandom(3000))
    (folder / "linked").hardlink_to(folder / "0")
    subprocess.run(["chattr", "+d", folder / "1"], check=True)
    daemon.run("snapshot", "create", _NAME, _SNAPSHOT)
    if way.stopped:
        daemon.run("stop", "--force", _NAME)
    return _contents(daemon, "slow")


def _files(daemon: Incusd, pool: str, snapshot: str = "") -> Path:
    return migration.rootfs(daemon, _NAME, pool, snapshot) / "root"


def _contents(daemon: Incusd, pool: str) -> list[Manifest]:
    return [manifest.of(_files(daemon, pool, snapshot)) for snapshot in ("", _SNAPSHOT)]


def _outcome(daemon: Incusd, way: Way, before: list[Manifest]) -> Outcome:
    waiting.until(lambda: not (daemon.api("GET", "/1.0/operations") or {}).get("running"), within=120)
    safe = _is_there(daemon) and [one.contents for one in _found(daemon)] == [one.contents for one in before]
    finished = way.again(daemon) and _is_there(daemon, "fast") and _runs(daemon)
    equal = finished and not any(map(manifest.differences, before, _found(daemon)))
    return Outcome(safe, finished, equal)


def _found(daemon: Incusd) -> list[Manifest]:
    try:
        return _contents(daemon, _pool(daemon))
    except CowError:  # one of them is not there
        return []


def _is_there(daemon: Incusd, pool: str | None = None) -> bool:
    return _NAME in migration.names(daemon) and pool in (None, _pool(daemon))


def _pool(daemon: Incusd) -> str:
    return str(migration.record(daemon, _NAME)["expanded_devices"]["root"]["pool"])


def _runs(daemon: Incusd) -> bool:
    return bool(migration.record(daemon, _NAME)["status"] == "Running")


def _started(daemon: Incusd) -> bool:
    try:
        daemon.run("start", _NAME)
    except RuntimeError:
        return False
    return True


_HEAD = (
    "| moved with | killed | whole under its name | a second run finishes it | and it is equal to before |",
    "|---|---|---:|---:|---:|",
)


def _row(way: Way, victim: str, outcomes: Sequence[Outcome]) -> str:
    counts = [
        f"{sum(holds)} of {len(outcomes)}"
        for holds in zip(*((one.safe, one.finished, one.equal) for one in outcomes), strict=True)
    ]
    return f"| {way.name} | {victim} | {' | '.join(counts)} |"


def _what(moments: int) -> str:
    return (
        f"A container with {_FILES} files and a snapshot, from a `dir` pool to a btrfs one. Each move is cut off once, "
        f"with SIGKILL, in the middle of one of {moments} equal parts of the time that a whole move takes; a server "
        f"that was killed is started again. *Whole under its name*: all contents, the snapshot's too, are in an "
        f"instance called as before. *A second run finishes it*: the same command, given again, succeeds, and the "
        f"container runs on the other pool. *Equal*: by manifest, with hard links, attributes and flags, the snapshot "
        f"too. `incus move` moves a stopped container, the module a running one."
    )

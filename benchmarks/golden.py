"""Sessions of golden trees: clone and destroy through cow-session against the bare command line, and what ten take."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.cow.golden import program
from ansible.module_utils.cow.kernel import sync_file_system
from tests.support import loops

from .timing import interleaved, milliseconds, table

ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "9"))
FILES = (1_000, 100_000)
SESSIONS = 10
CHANGED = 20
"""One in so many files is changed in each session: 5 %."""
_SIZE = int(os.environ.get("BENCHMARK_BYTES", str(1 << 30)))
"""Of the golden tree whose sessions change."""
_PIECE = 1 << 20
_numbers = itertools.count()
_CLONED, _DELETED = "bare snapshot and start of Python", "bare delete and start of Python"


def measure() -> str:
    """Measure on btrfs in a file."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        folder = Path(scratch)
        command = folder / "cow-session"
        command.write_bytes(program.build())
        command.chmod(0o755)
        with loops.btrfs(folder / "image", folder / "mounted", size=_SIZE * 4 + (4 << 30)) as mounted:
            sections = [_of_count(mounted, command, count) for count in FILES]
            sections.append(_space(mounted, command))
    return "\n\n".join(sections)


def _of_count(mounted: Path, command: Path, count: int) -> str:
    store, project = mounted / "store", f"of{count}"
    source = mounted / f"source{count}"
    _small_files(source, count)
    _run(command, store, "promote", project, "--source", str(source))
    golden = store / project / "generations" / "1"
    timings = interleaved(
        {
            "cow-session clone": partial(_clone, command, store, project),
            _CLONED: lambda: _bare_clone(golden, mounted) + _python(),
            "bare snapshot": partial(_bare_clone, golden, mounted),
            "cow-session destroy": partial(_destroy, command, store, project),
            _DELETED: lambda: _bare_delete(golden, mounted) + _python(),
            "bare delete": partial(_bare_delete, golden, mounted),
        },
        ROUNDS,
    )
    text = f"A golden tree of {count:,} files on btrfs; {ROUNDS} interleaved rounds."
    return "\n\n".join([text, table(timings[:3], _CLONED), table(timings[3:], _DELETED)])


def _clone(command: Path, store: Path, project: str) -> float:
    name = f"s{next(_numbers)}"
    taken = milliseconds(lambda: _run(command, store, "clone", project, name))
    _run(command, store, "destroy", project, name)
    return taken


def _destroy(command: Path, store: Path, project: str) -> float:
    name = f"s{next(_numbers)}"
    _run(command, store, "clone", project, name)
    return milliseconds(lambda: _run(command, store, "destroy", project, name))


def _bare_clone(golden: Path, mounted: Path) -> float:
    copy = mounted / f"bare{next(_numbers)}"
    taken = milliseconds(lambda: _btrfs("snapshot", golden, copy))
    _btrfs("delete", copy)
    return taken


def _bare_delete(golden: Path, mounted: Path) -> float:
    copy = mounted / f"bare{next(_numbers)}"
    _btrfs("snapshot", golden, copy)
    return milliseconds(lambda: _btrfs("delete", copy))


def _python() -> float:
    return milliseconds(lambda: subprocess.run([sys.executable, "-IS", "-c", ""], check=True))


def _space(mounted: Path, command: Path) -> str:
    """Change one file in twenty of each of ten sessions, and look at what the file system has less."""
    store, source = mounted / "store", mounted / "large"
    source.mkdir()
    for number in range(_SIZE // _PIECE):
        (source / f"{number}").write_bytes(os.urandom(_PIECE))
    _run(command, store, "promote", "large", "--source", str(source))
    sync_file_system(mounted)
    before = _used(mounted)
    for number in range(SESSIONS):
        session = Path(_run(command, store, "clone", "large", f"s{number}")["path"])
        for name in range(number, _SIZE // _PIECE, CHANGED):
            (session / f"{name}").write_bytes(os.urandom(_PIECE))
    sync_file_system(mounted)
    more = _used(mounted) - before
    mib, share, written = 1 << 20, more / _SIZE, SESSIONS / CHANGED
    return (
        f"{SESSIONS} sessions of a golden tree of {_SIZE // mib} MiB that each change 1 file in {CHANGED} take "
        f"{more / mib:.0f} MiB more, {share:.2f} of the tree. "
        f"{SESSIONS} copies would take {SESSIONS * _SIZE // mib} MiB. "
        f"What they write is {written:.2f} of the tree, of random bytes, which is the least that they can take: "
        f"for a tree of 4 GiB that comes to {share * 4:.2f} GiB, of which {written * 4:.2f} GiB are written."
    )


def _used(mounted: Path) -> int:
    status = os.statvfs(mounted)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _small_files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // 1000}" / f"{number}"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"content of a small file\n" * (number % 40))


def _run(command: Path, store: Path, *argv: str) -> dict[str, Any]:
    store.mkdir(exist_ok=True)
    where = [f"--store={store}", "--config=/nonexistent", "--backend=btrfs"]
    finished = subprocess.run([command, *where, *argv], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{argv}: {finished.stdout.decode()}{finished.stderr.decode()}")
    answer: dict[str, Any] = json.loads(finished.stdout)
    return answer


def _btrfs(*arguments: str | Path) -> None:
    subprocess.run(["btrfs", "subvolume", *arguments], check=True, stdout=subprocess.DEVNULL)

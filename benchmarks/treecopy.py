"""A copy of a file tree in parallel, with every attribute, against `cp -a` with and without shared data."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from ansible.module_utils.cow import manifest, treecopy
from ansible.module_utils.cow.kernel import sync_file_system
from tests.support import loops

from .timing import interleaved, milliseconds, table

ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "5"))
FILES = int(os.environ.get("BENCHMARK_FILES", "20000"))
_LARGE = 8
_LARGE_BYTES = 16 << 20
_numbers = itertools.count()


def measure() -> str:
    """Measure on XFS and btrfs in files."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        sections = [_on(name, make, Path(scratch)) for name, make in {"XFS": loops.xfs, "btrfs": loops.btrfs}.items()]
    return "\n\n".join(sections)


def _on(name: str, make: Callable[..., AbstractContextManager[Path]], scratch: Path) -> str:
    with make(scratch / f"{name}.img", scratch / name, size=8 << 30) as mounted:
        source = mounted / "source"
        _tree(source)
        lost = _differences(source, mounted / "compared")
        timings = interleaved(
            {
                "parallel copy": partial(_copied, source, mounted, treecopy.copy),
                "cp -a --reflink=auto": partial(_copied, source, mounted, partial(_cp, "auto")),
                "cp -a --reflink=never": partial(_copied, source, mounted, partial(_cp, "never")),
            },
            ROUNDS,
        )
    return (
        f"On {name}: {FILES} small files, and {_LARGE} of {_LARGE_BYTES >> 20} MiB; {ROUNDS} interleaved rounds. "
        f"Differences between the source and the parallel copy, by manifest: {lost}.\n\n"
        f"{table(timings, 'cp -a --reflink=auto')}"
    )


def _tree(folder: Path) -> None:
    for number in range(FILES):
        path = folder / f"{number // 500}" / f"{number}"
        if number % 500 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(number % 4096))
        if number % 50 == 0:
            path.with_suffix(".link").hardlink_to(path)
    for number in range(_LARGE):
        (folder / f"large{number}").write_bytes(os.urandom(_LARGE_BYTES))


def _differences(source: Path, target: Path) -> int:
    treecopy.copy(source, target)
    found = manifest.differences(manifest.of(source), manifest.of(target))
    shutil.rmtree(target)
    return len(found)


def _copied(source: Path, mounted: Path, copy: Callable[[Path, Path], object]) -> float:
    target = mounted / f"copy{next(_numbers)}"
    taken = milliseconds(lambda: copy(source, target))
    shutil.rmtree(target)
    sync_file_system(mounted)
    return taken


def _cp(reflink: str, source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", f"--reflink={reflink}", "--", source, target], check=True)

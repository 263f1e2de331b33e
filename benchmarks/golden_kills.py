"""What golden trees are after cow-session was killed before each change that it makes, on each technology."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ansible.module_utils.cow import kernel
from tests.support import golden, golden_kills
from tests.support.golden_kills import Kill

_HEAD = """\
| backend | operation | kills | before | done all the same | all whole after |
|---|---|---:|---|---:|---:|
"""


def measure() -> str:
    """Kill it, and return the table."""
    rows = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, kernel.own_mounts():
        for backend in golden.BACKENDS:
            folder = Path(scratch, backend)
            folder.mkdir()
            with golden.place(backend, folder) as place:
                for operation, run in golden_kills.OPERATIONS.items():
                    with golden.store(place) as store:
                        rows.append(_row(backend, operation, run(store)))
    return _HEAD + "\n".join(rows)


def _row(backend: str, operation: str, run: Iterator[Kill]) -> str:
    """Count the kills; the first one after which something is not as it has to be is the last."""
    kills: list[Kill] = []
    total = 0
    try:
        kills.extend(run)
        total = len(kills)
    except AssertionError as error:
        sys.stderr.write(f"{backend}, {operation}, kill {len(kills) + 1}: {error}\n")
        total = len(kills) + 1
    before = ", ".join(f"{count} {change}" for change, count in Counter(kill.before for kill in kills).items())
    done = sum(kill.done for kill in kills)
    whole = f"{len(kills)} of {total} ({100 * len(kills) // total} %)"
    return f"| `{backend}` | {operation} | {total} | {before} | {done} | {whole} |"

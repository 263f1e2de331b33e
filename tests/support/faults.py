"""Runs of a module that are cut off at one of the places where it changes something.

See cut_module.py for what the places are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import programs
from .ansible import ROOT, TIMEOUT

BEFORE, AFTER = "before", "after"


@dataclass(frozen=True)
class Cut:
    """Where: the number of the place, and whether before it is passed or right after. kill: what is killed there."""

    place: int
    when: str
    kill: int = 0

    @property
    def argument(self) -> str:
        return f"{self.place}:{self.when}:{self.kill}"


@dataclass(frozen=True)
class Ended:
    """A run that ended. status: negative when it was killed. places: what it passed, in order."""

    status: int
    result: dict[str, Any]
    places: tuple[str, ...]


def run(module: str, options: Mapping[str, Any], cut: Cut | None = None) -> Ended:
    """Run a module; without a cut to its end. A cut kills the run itself, or the process whose number it has."""
    program = (ROOT / "tests/support/cut_module.py", cut.argument if cut else "-1:never:0")
    finished = programs.run((*program, ROOT / f"library/{module}.py"), json.dumps(dict(options)), TIMEOUT)
    result = json.loads(finished.stdout) if finished.stdout.strip() else {}
    places = tuple(line.removeprefix("place ") for line in finished.stderr.splitlines() if line.startswith("place "))
    assert places or result, finished.stderr
    return Ended(finished.returncode, result, places)

"""How far a long run is, in a file that somebody else reads meanwhile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_EVERY = 0.5
"""Seconds between two writings of one phase."""


@dataclass
class Progress:
    """Says in the file `path` how far the work on `instance` is; nothing is said without a path.

    The file holds one JSON object and is replaced as a whole, so that a reader never sees half of it. It is not worth
    failing for: where it cannot be written, the work goes on unseen.
    """

    path: Path | None
    instance: str
    clock: Callable[[], float] = time.time
    _phase: str = field(default="", init=False)
    _began: float = field(default=0.0, init=False)
    _written: float = field(default=0.0, init=False)

    def say(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Note the phase, in a word or two, and the bytes that are done of all."""
        now = self.clock()
        if phase != self._phase:
            self._phase, self._began, self._written = phase, now, 0.0
        if self.path is None or now - self._written < _EVERY:
            return
        self._written = now
        document = {
            "phase": phase,
            "instance": self.instance,
            "bytes_done": done,
            "bytes_total": total,
            "bytes_per_second": int(done / (now - self._began)) if now > self._began else 0,
            "updated": now,
        }
        draft = self.path.with_name(f".{self.path.name}.draft")
        try:
            draft.write_text(json.dumps(document), encoding="ascii")
            draft.replace(self.path)
        except OSError:
            self.path = None

    def end(self) -> None:
        """Take the file away: there is nothing more to say."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

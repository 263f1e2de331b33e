"""Runs one module as module_main.py does, and is killed, or kills, at one of the places where it changes something.

A program of its own: `python -P cut_module.py PLACE:WHEN:VICTIM FILE`. The place is a number, WHEN is `before` or
`after`, and VICTIM the process that is killed there, 0 for its own. It names each place on standard error as it comes
to it. The places are the lowest there are: each request that is not a reading one, each writing of a journal, each
command that changes a subvolume, each update of a tree. Nothing in the project knows of them.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils

ansible.module_utils.__path__.append(str(Path(__file__).parents[2] / "module_utils"))

from ansible.module_utils.cow import treecopy  # noqa: E402
from ansible.module_utils.cow.btrfs import Btrfs  # noqa: E402
from ansible.module_utils.cow.incus import move_trees  # noqa: E402
from ansible.module_utils.cow.incus.client import Server  # noqa: E402
from ansible.module_utils.cow.journal import Journal  # noqa: E402


class Cutter:
    """Counts the places, and cuts at one of them."""

    def __init__(self, cut: str) -> None:
        place, self.when, victim = cut.split(":")
        self.place, self.victim = int(place), int(victim)
        self.passed = 0

    def watched(self, what: Callable[..., str], call: Callable[..., Any]) -> Callable[..., Any]:
        """Return the call with a place before and after it, which is called what the arguments make of it."""

        def watching(*arguments: Any, **options: Any) -> Any:
            number = self.passed
            self.passed += 1
            sys.stderr.write(f"place {what(*arguments)}\n")
            self._cut(number, "before")
            result = call(*arguments, **options)
            self._cut(number, "after")
            return result

        return watching

    def _cut(self, number: int, when: str) -> None:
        if (number, when) == (self.place, self.when):
            os.kill(self.victim or os.getpid(), signal.SIGKILL)


def watch(cutter: Cutter) -> None:
    """Put a place at all that changes something."""
    exchange = Server._exchange
    changing = cutter.watched(lambda _server, method, target, *_: f"{method} {target}", exchange)

    def watched_exchange(server: Server, method: str, *rest: Any) -> Any:
        return (exchange if method == "GET" else changing)(server, method, *rest)

    replaced: tuple[tuple[Any, str, Any], ...] = (
        (Server, "_exchange", watched_exchange),
        (Journal, "write", cutter.watched(lambda _, document: f"journal {document['phase']}", Journal.write)),
        (Journal, "remove", cutter.watched(lambda _: "journal removed", Journal.remove)),
        (Btrfs, "snapshot", cutter.watched(lambda *_, **__: "btrfs snapshot", Btrfs.snapshot)),
        (Btrfs, "delete", cutter.watched(lambda *_, **__: "btrfs delete", Btrfs.delete)),
        (treecopy, "update", cutter.watched(lambda *_: "update", treecopy.update)),
        (move_trees, "_SETTLES_WITHIN", 0),
    )
    for where, name, value in replaced:
        setattr(where, name, value)


if __name__ == "__main__":
    watch(Cutter(sys.argv[1]))
    del sys.argv[1]
    runpy.run_path(str(Path(__file__).with_name("module_main.py")), run_name="__main__")

"""Runs of a module that are cut off at one of the places where it changes something.

The places are the lowest there are: each request that is not a reading one, each writing of a journal, each command
that changes a subvolume, each update of a tree. Nothing in the project knows of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .ansible import ROOT

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
    finished = subprocess.run(
        [sys.executable, "-P", "-c", _RUN, module, cut.argument if cut else "-1:never:0"],
        input=json.dumps(dict(options)),
        env={**os.environ, "PYTHONPATH": f"{ROOT}/tests/support/importable:{ROOT}/library"},
        capture_output=True,
        text=True,
        check=False,
    )
    result = json.loads(finished.stdout) if finished.stdout.strip() else {}
    places = tuple(line.removeprefix("place ") for line in finished.stderr.splitlines() if line.startswith("place "))
    assert places or result, finished.stderr
    return Ended(finished.returncode, result, places)


_RUN = """\
import functools, importlib, json, os, signal, sys
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.cow import treecopy
from ansible.module_utils.cow.btrfs import Btrfs
from ansible.module_utils.cow.incus import move_trees
from ansible.module_utils.cow.incus.client import Server
from ansible.module_utils.cow.journal import Journal

place, when, victim = sys.argv[2].split(":")
passed = 0

def cut_off():
    if int(victim):
        os.kill(int(victim), signal.SIGKILL)
    else:
        os.kill(os.getpid(), signal.SIGKILL)

def watched(what, call):
    def watching(*arguments, **options):
        global passed
        number = passed
        passed += 1
        print("place", what(*arguments), file=sys.stderr, flush=True)
        if (number, when) == (int(place), "before"):
            cut_off()
        result = call(*arguments, **options)
        if (number, when) == (int(place), "after"):
            cut_off()
        return result
    return watching

exchange = Server._exchange
changing = watched(lambda _self, method, target, *_: f"{method} {target}", exchange)
Server._exchange = lambda self, method, *rest: (exchange if method == "GET" else changing)(self, method, *rest)
Journal.write = watched(lambda _self, document: f"journal {document['phase']}", Journal.write)
Journal.remove = watched(lambda _self: "journal removed", Journal.remove)
for name in ("snapshot", "delete"):
    setattr(Btrfs, name, watched(lambda *_, name=name: f"btrfs {name}", getattr(Btrfs, name)))
treecopy.update = watched(lambda *_: "update", treecopy.update)
move_trees._SETTLES_WITHIN = 0

with patch_module_args(json.load(sys.stdin)):
    importlib.import_module(sys.argv[1]).main()
"""

"""Modules of the project run against a private daemon, with all that they could change compared around it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from .ansible import ROOT, FourRuns, Result, four_runs, run_module
from .incusd import Incusd

_FROM_PLAN = ("changed", "steps", "diff", "warnings", "drift", "location", "locations")
_KINDS = ("instances", "images", "profiles", "projects", "storage-pools", "networks")


def run(daemon: Incusd, module: str, *, check: bool = False, **options: Any) -> Result:
    """Run a module once. It is told of the daemon's socket."""
    return run_module(module, _arguments(daemon, options), check)


def four(daemon: Incusd, module: str, **options: Any) -> FourRuns:
    """Run a module that has something to do four times."""
    return four_runs(module, _arguments(daemon, options), state=lambda: state(daemon))


def unchanged(daemon: Incusd, module: str, **options: Any) -> Result:
    """The result of a run that has nothing to do, the same in check mode."""
    before = state(daemon)
    in_check, in_run = (run(daemon, module, check=check, **options) for check in (True, False))
    assert not in_run.get("failed"), in_run["msg"]
    assert (in_run["changed"], in_run["steps"]) == (False, [])
    assert [in_check.get(key) for key in _FROM_PLAN] == [in_run.get(key) for key in _FROM_PLAN]
    assert state(daemon) == before
    return in_run


def refused(daemon: Incusd, module: str, **options: Any) -> str:
    """The message of a run that fails and changes nothing, the same in check mode."""
    before = state(daemon)
    in_check, in_run = (run(daemon, module, check=check, **options) for check in (True, False))
    assert in_run.get("failed"), in_run
    assert _without_free_space(in_check["msg"]) == _without_free_space(in_run["msg"])
    assert state(daemon) == before
    return str(in_run["msg"])


def _without_free_space(message: str) -> str:
    """The message without the figure that other programs change between two runs."""
    return re.sub(r"[0-9.]+ [A-Z]iB free", "free", message)


def state(daemon: Incusd) -> dict[str, Any]:
    """All that the daemon has, and the files in which it and the modules keep what is not in its database."""
    objects = {kind: daemon.api("GET", f"/1.0/{kind}?recursion=1&all-projects=true") or [] for kind in _KINDS}
    for body in (body for bodies in objects.values() for body in bodies if "used_by" in body):
        body["used_by"] = sorted(body["used_by"] or [])  # the daemon gives them in any order
    objects["networks"] = [network for network in objects["networks"] if network["managed"]]
    volumes = {
        pool["name"]: daemon.api("GET", f"/1.0/storage-pools/{pool['name']}/volumes?recursion=1&all-projects=true")
        for pool in objects["storage-pools"]
        if pool["status"] == "Created"
    }
    return {**objects, "volumes": volumes, "files": files(daemon)}


def files(daemon: Incusd) -> dict[str, int]:
    """The sizes of the loop files and journals, by path from the daemon's folder."""
    paths = [path for folder in ("disks", "cowherd") for path in (daemon.dir / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(daemon.dir)): path.stat().st_size for path in paths}


def die_after(daemon: Incusd, step: str, module: str, **options: Any) -> None:
    """Run a module, and kill it when the step that begins with this word is done."""
    finished = subprocess.run(
        [sys.executable, "-P", "-c", _DYING, module, step],
        input=json.dumps(_arguments(daemon, options)),
        env={**os.environ, "PYTHONPATH": f"{ROOT}/tests/support/importable:{ROOT}/library"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == -signal.SIGKILL, finished


_DYING = """\
import importlib, json, os, signal, sys
from ansible.module_utils.testing import patch_module_args
from ansible.module_utils.cow import plan

def apply(planned, done):
    for step in planned.steps:
        step.run()
        if step.title.startswith(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

plan._apply = apply
with patch_module_args(json.load(sys.stdin)):
    importlib.import_module(sys.argv[1]).main()
"""


def _arguments(daemon: Incusd, options: dict[str, Any]) -> dict[str, Any]:
    spelled = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    return {"socket": str(daemon.socket), **spelled}

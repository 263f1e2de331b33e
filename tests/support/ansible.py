"""Runs of modules and playbooks as an operator's Ansible runs them: in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import programs

ROOT = Path(__file__).parents[2]
"""The checkout."""

TIMEOUT = 1800.0
"""Seconds that a module or a playbook may take."""

Result = dict[str, Any]


def run_module(
    name: str,
    args: Mapping[str, Any],
    check: bool = False,
    diff: bool = True,
    *,
    environment: Mapping[str, str] | None = None,
    library: Path = ROOT / "library",
    within: Sequence[str] = (),
    python: Path = Path(sys.executable),
) -> Result:
    """Run a module of the project on this machine and return what it returned; a failure has `failed` and `msg`.

    environment: added to this process's own. within: a command to run it by, such as nsenter(1). python: its own.
    AssertionError when the module ended in any other way than by a result.
    """
    arguments = json.dumps({**args, "_ansible_check_mode": check, "_ansible_diff": diff})
    program = (ROOT / "tests/support/module_main.py", library / f"{name}.py")
    if within or str(python) != sys.executable:
        finished = subprocess.run(
            [*within, python, "-P", *program],
            input=arguments,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    else:
        finished = programs.run(program, arguments, TIMEOUT, environment)
    try:
        result: Result = json.loads(finished.stdout)
    except ValueError:
        raise AssertionError(f"{name} gave no result (status {finished.returncode}):\n{finished.stderr}") from None
    assert (finished.returncode != 0) == bool(result.get("failed")), f"{name}: status {finished.returncode}: {result}"
    return result


def disturb_module(name: str, args: Mapping[str, Any], folder: Path, change: int, number: int) -> tuple[str, str]:
    """Run a module that gets a signal before its change of that number in a folder (see killed_module.py).

    Return what change it was, "" when there are fewer; and the module's message, "done" without one, or "killed".
    """
    program = (ROOT / "tests/support/killed_module.py", str(change), str(int(number)), folder)
    finished = programs.run((*program, ROOT / f"library/{name}.py"), json.dumps(dict(args)), TIMEOUT)
    assert finished.returncode in (0, 1, -number), finished.stderr
    return finished.stderr, json.loads(finished.stdout).get("msg", "done") if finished.stdout else "killed"


@dataclass(frozen=True)
class FourRuns:
    """What a module returned in check mode, in the run, in a second run, and in check mode after that."""

    check: Result
    do: Result
    again: Result
    again_check: Result


def four_runs(
    name: str,
    args: Mapping[str, Any],
    *,
    state: Callable[[], Any] | None = None,
    environment: Mapping[str, str] | None = None,
    library: Path = ROOT / "library",
    within: Sequence[str] = (),
) -> FourRuns:
    """Run a module of the project that has something to do on this machine four times, as `four_runs_by` does."""
    return four_runs_by(
        lambda check: run_module(name, args, check, environment=environment, library=library, within=within),
        state=state,
    )


def four_runs_by(run_once: Callable[[bool], Result], *, state: Callable[[], Any] | None = None) -> FourRuns:
    """Run a module that has something to do four times, and assert what holds of every module.

    Only the first two runs say changed; check mode names the steps and the diff of the run, and writes nothing.

    run_once: runs it, in check mode or not. state: reads all that the module could change, by other means than the
    module's own; compared around check mode.
    """

    def run(*, check: bool, changed: bool) -> Result:
        before = state() if state and check else None
        result = run_once(check)
        assert not result.get("failed"), f"it failed: {result['msg']}"
        assert result["changed"] is changed, f"changed {result['changed']}, wanted {changed}: {result['steps']}"
        if state and check:
            assert state() == before, "it wrote in check mode"
        return result

    announced = run(check=True, changed=True)
    done = run(check=False, changed=True)
    assert announced["steps"] == done["steps"], "check mode announced other steps than the run took"
    assert announced["diff"] == done["diff"], "check mode showed another diff than the run"
    return FourRuns(announced, done, again=run(check=False, changed=False), again_check=run(check=True, changed=False))


@dataclass(frozen=True)
class TaskResult:
    """One task on one host. status: ok, failed, ignored, skipped or unreachable; result: what the task returned."""

    host: str
    task: str
    action: str
    status: str
    result: Result


@dataclass(frozen=True)
class PlaybookRun:
    """A playbook run that ended.

    status: of ansible-playbook; 0 when all went well. output: what an operator would have seen, both streams.
    stats: for each host its ok, changed, failures, unreachable, skipped, rescued and ignored.
    """

    status: int
    output: str
    tasks: tuple[TaskResult, ...]
    stats: Mapping[str, Mapping[str, int]]

    def succeeded(self) -> PlaybookRun:
        """This run; AssertionError with its output when it did not succeed."""
        assert self.status == 0, self.output
        return self

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, for each host."""
        return {host: numbers["changed"] for host, numbers in self.stats.items()}


def run_playbook(
    playbook: Path | str,
    inventory: Path | str,
    *options: str,
    variables: Mapping[str, Any] | None = None,
    check: bool = False,
    environment: Mapping[str, str] | None = None,
) -> PlaybookRun:
    """Run a playbook with the project's ansible.cfg and the ansible-playbook beside this Python.

    playbook: a path, absolute or from the checkout's root. inventory: a path, or hosts as in "localhost,".
    options: more of ansible-playbook's, such as "--tags", "pool". With check, the diff is shown as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder, "record")
        record.touch()
        finished = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                *("--inventory", inventory),
                *("--extra-vars", json.dumps(dict(variables or {}))),
                *(("--check", "--diff") if check else ()),
                *options,
                playbook,
            ],
            cwd=ROOT,
            env={**os.environ, **_playbook_environment(record), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        lines = [json.loads(line) for line in record.read_text().splitlines()]
    return PlaybookRun(
        status=finished.returncode,
        output=finished.stdout,
        tasks=tuple(TaskResult(**line) for line in lines if "task" in line),
        stats=next((line["stats"] for line in lines if "stats" in line), {}),
    )


def _playbook_environment(record: Path) -> dict[str, str]:
    return {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callbacks"),
        "ANSIBLE_CALLBACKS_ENABLED": "record",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
        "RECORD_FILE": str(record),
    }

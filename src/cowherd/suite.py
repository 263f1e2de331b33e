"""`./cowherd test`: tiers of checks in order, and a table of what they came to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from cowherd import environment, machine
from cowherd.environment import ROOT, say
from cowherd.results import Result, of_pytest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

_LINTERS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("yamllint", "--strict", "."),
    ("ansible-lint",),
    (
        "shellcheck",
        "cowherd",
        ".ci/run",
        *(f"roles/image_boot/files/{name}" for name in ("hook", "mountroot", "sprout")),
    ),
    ("antsibull-changelog", "lint"),
)

_EXPECTED_SKIPS = ROOT / "tests" / "expected-skips.txt"
_LINES_OF_FAILURE = 200
_LONGEST_SCENARIO = "zfs"


@dataclass(frozen=True)
class Request:
    """What was asked for: arguments for pytest, and whether this is CI, where a skip is expected or a failure.

    label: what each line of output begins with, when that of other tiers comes between; empty when none does.
    """

    pytest: tuple[str, ...]
    in_ci: bool
    label: str = ""


@dataclass(frozen=True)
class Tier:
    """Checks that are run, timed and counted together.

    selective: made of pytest's tests only, so that -k applies to it.
    lane: tiers of one lane run one after the other, beside those of other lanes: each waits for something now and then.
    """

    name: str
    check: Callable[[Request], Result]
    selective: bool = True
    lane: str = "this machine"


@dataclass(frozen=True)
class Outcome:
    """What a tier came to, and the seconds it took."""

    tier: str
    result: Result
    seconds: float


def run(options: argparse.Namespace) -> int:
    """Run the tiers that were asked for, print what they came to, and return 0 when nothing failed."""
    wanted = (
        options.tier.split(",") if options.tier else [tier.name for tier in TIERS if tier.selective or not options.k]
    )
    if unknown := set(wanted) - {tier.name for tier in TIERS}:
        say(f"no such tier: {', '.join(unknown)}. The tiers are {', '.join(tier.name for tier in TIERS)}.")
        return 2
    selection = ("-k", options.k) if options.k else ()
    request = Request(pytest=(*selection, *options.passed_on), in_ci=os.environ.get("CI") == "true")
    machine.install_packages()
    outcomes = _in_lanes([tier for tier in TIERS if tier.name in wanted], request)
    if request.in_ci:
        expected = _EXPECTED_SKIPS.read_text().splitlines()
        outcomes = [Outcome(each.tier, each.result.strict(expected), each.seconds) for each in outcomes]
    _show(outcomes)
    return int(any(outcome.result.failures for outcome in outcomes))


def _in_lanes(tiers: Sequence[Tier], request: Request) -> list[Outcome]:
    """Run the tiers in their order within each lane, and the lanes at a time."""
    lanes: dict[str, list[Tier]] = {}
    for tier in tiers:
        lanes.setdefault(tier.lane, []).append(tier)
    with ThreadPoolExecutor(max_workers=len(lanes)) as pool:
        done = pool.map(lambda lane: [_timed(tier, request, len(lanes) > 1) for tier in lane], lanes.values())
        return [outcome for lane in done for outcome in lane]


def _timed(tier: Tier, request: Request, labelled: bool) -> Outcome:
    say(f"tier {tier.name}")
    began = time.monotonic()
    result = tier.check(replace(request, label=tier.name if labelled else ""))
    return Outcome(tier.name, result, time.monotonic() - began)


def _lint(_: Request) -> Result:
    """Each linter counts as one test."""
    environment_of_linters = _environment(PYTHONPATH=str(ROOT / "tests" / "support" / "importable"))
    return sum((_linted(argv, environment_of_linters) for argv in _LINTERS), Result())


def _linted(argv: Sequence[str], variables: Mapping[str, str]) -> Result:
    try:
        status = _captured(argv, variables)
    except FileNotFoundError:
        return Result(skips=(f"needs {argv[0]}: it is not installed",))
    return Result(failures=(" ".join(argv),)) if status else Result(passed=1)


def _pytest(folder: str) -> Callable[[Request], Result]:
    return lambda request: _tests_of(folder, request, Path(sys.executable))


def _unit_on_newer_python(request: Request) -> Result:
    found = machine.newer_python()
    if found is None:
        return Result(skips=("needs a Python newer than the distribution's: none was found",))
    base, version = found
    say(f"unit tests on Python {version}, with the ansible-core that it gets")
    return _tests_of("tests/unit", request, environment.ensure(base, version, environment.TEST))


def _tests_of(folder: str, request: Request, python: Path) -> Result:
    if not any((ROOT / folder).glob("test_*.py")):
        return Result()
    with TemporaryDirectory(prefix="cowherd-") as scratch:
        report = Path(scratch, "report.xml")
        slowest = ["--durations=15"] if request.in_ci else []
        pytest = [str(python), "-m", "pytest", "--quiet", f"--junitxml={report}", *slowest, folder, *request.pytest]
        return of_pytest(report, _followed(pytest, _environment(), request.label))


def _molecule(request: Request) -> Result:
    """Two scenarios at a time: a machine that boots or downloads leaves a core to another. The longest comes first."""
    scenarios = {file.parent.name for file in ROOT.glob("molecule/*/molecule.yml")}
    in_order = sorted(scenarios, key=lambda name: (name != _LONGEST_SCENARIO, name))
    with ThreadPoolExecutor(max_workers=2) as pool:
        return sum(
            pool.map(lambda name: _scenario(name, replace(request, label=f"molecule {name}")), in_order), Result()
        )


def _scenario(name: str, request: Request) -> Result:
    """The scenario counts as one test, and each of its verifier's as one."""
    with TemporaryDirectory(prefix="cowherd-") as scratch:
        report = Path(scratch, "report.xml")
        variables = _environment(PYTEST_ADDOPTS=f"--junitxml={report}")
        molecule = ["molecule", "test", "--scenario-name", name]
        status = _captured(molecule, variables) if request.in_ci else _followed(molecule, variables, request.label)
        return of_pytest(report, 0) + (Result(failures=(f"molecule {name}",)) if status else Result(passed=1))


def _followed(argv: Sequence[str], variables: Mapping[str, str], label: str) -> int:
    """Run a command whose output is shown as it comes, each line behind the label when there is one."""
    if not label:
        return subprocess.run(argv, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, check=False).returncode
    return _piped(argv, variables, lambda line: print(f"{label}: {line}", end="", flush=True))


def _captured(argv: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run a command whose output is of interest only when it fails."""
    lines: deque[str] = deque(maxlen=_LINES_OF_FAILURE)
    status = _piped(argv, variables, lines.append)
    if status:
        print(*lines, sep="", end="", flush=True)
    return status


def _piped(argv: Sequence[str], variables: Mapping[str, str], told: Callable[[str], None]) -> int:
    """Run a command and tell each line of its output."""
    with subprocess.Popen(
        argv,
        cwd=ROOT,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            told(line)
    return process.returncode


def _environment(**more: str) -> dict[str, str]:
    """Return the variables of a tool that belongs to this Python environment."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**own, "PATH": path, **more}


def _show(outcomes: Sequence[Outcome]) -> None:
    table = Table("Tier")
    for column in ("passed", "failed", "skipped", "seconds"):
        table.add_column(column, justify="right")
    for each in outcomes:
        numbers = (each.result.passed, len(each.result.failures), len(each.result.skips), round(each.seconds))
        table.add_row(each.tier, *map(str, numbers), style="red" if each.result.failures else "")
    Console().print(table)
    for each in outcomes:
        for failure in each.result.failures:
            print(f"failed: {each.tier}: {failure}")
        for reason, times in Counter(each.result.skips).items():
            print(f"skipped: {each.tier}: {reason} ({times})")
    print(sum((each.result for each in outcomes), Result()))


TIERS = (
    Tier("lint", _lint, selective=False),
    Tier("unit", _pytest("tests/unit")),
    Tier("unit-newer-python", _unit_on_newer_python),
    Tier("integration", _pytest("tests/integration")),
    Tier("faults", _pytest("tests/faults"), lane="faults"),
    Tier("machines", _pytest("tests/machines"), lane="machines"),
    Tier("molecule", _molecule, selective=False, lane="machines"),
)
"""In the order in which they run: what is quick and finds most comes first."""

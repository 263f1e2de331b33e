"""Adding up what tests came to. The reports are those of real pytest runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cowherd import cli, environment, machine, suite
from cowherd.results import Result, of_pytest

TESTS = """
import pytest

@pytest.fixture
def broken():
    raise OSError

def test_passes(): pass
def test_fails(): assert False
def test_errs(broken): pass
def test_skips(): pytest.skip("needs a moon")
@pytest.mark.parametrize("n", range(2))
def test_twice(n): pass
"""


def pytest_result(folder: Path, tests: str, *arguments: str) -> Result:
    (folder / "test_it.py").write_text(tests)
    report = folder / "report.xml"
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, f"--junitxml={report}"]
    finished = subprocess.run([*argv, folder, *arguments], capture_output=True, check=False)
    return of_pytest(report, finished.returncode)


def test_results_of_pytest_are_counted(tmp_path: Path) -> None:
    result = pytest_result(tmp_path, TESTS)
    assert result == Result(3, ("test_it::test_fails", "test_it::test_errs"), ("needs a moon",))
    assert str(result) == "3 passed, 2 failed, 1 skipped"


@pytest.mark.parametrize("broken", ["import nothing_of_this_name", "def test_it(: pass", "import os; os._exit(3)"])
def test_tests_that_cannot_be_read_are_a_failure(tmp_path: Path, broken: str) -> None:
    assert len(pytest_result(tmp_path, broken).failures) == 1


def test_an_option_that_pytest_does_not_know_is_a_failure(tmp_path: Path) -> None:
    assert pytest_result(tmp_path, TESTS, "--bogus").failures == ("pytest ended with status 4",)


def test_no_test_selected_is_none(tmp_path: Path) -> None:
    assert pytest_result(tmp_path, TESTS, "-k", "nothing") == Result()


def test_a_skip_that_is_not_expected_is_a_failure() -> None:
    result = Result(1, (), ("needs a moon", "needs a sun")).strict({"needs a sun"})
    assert result == Result(1, ("skipped unexpectedly: needs a moon",), ("needs a sun",))


@pytest.fixture
def newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which Python 3.30 is the only one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    python = tmp_path / "python3.30"
    python.symlink_to(sys.executable)
    return python


def test_the_newest_python_is_found(newest: Path) -> None:
    assert machine.newer_python() == (newest, "3.30")


def test_a_python_that_does_not_work_is_passed_over(newest: Path) -> None:
    newest.unlink()
    newest.symlink_to("/bin/false")
    assert machine.newer_python() is None


def test_a_tier_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.run(cli.parse(["test", "--tier", "unit,moon"])) == 2
    assert "no such tier: moon" in capsys.readouterr().err


@pytest.mark.parametrize(("tiers", "label"), [("unit,integration", ""), ("unit,machines", "unit: ")])
def test_a_run_ends_with_the_sum_of_its_tiers(tiers: str, label: str) -> None:
    """Run by the suite in a process of its own: a test of this module. Tiers that run together are told by labels."""
    finished = subprocess.run(
        [sys.executable, "-m", "cowherd", "test", "--tier", tiers, "-k", "test_no_test_selected_is_none"],
        env={**os.environ, "PYTHONPATH": str(environment.ROOT / "src"), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == "1 passed, 0 failed, 0 skipped"
    assert re.search(rf"^{label}1 passed, \d+ deselected", finished.stdout, re.MULTILINE)

"""What tests came to, added up over tiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


@dataclass(frozen=True)
class Result:
    """Tests that passed, the names of those that failed, and the reason of each that was skipped."""

    passed: int = 0
    failures: tuple[str, ...] = ()
    skips: tuple[str, ...] = ()

    def __add__(self, other: Result) -> Result:
        """Both."""
        return Result(self.passed + other.passed, self.failures + other.failures, self.skips + other.skips)

    def __str__(self) -> str:
        """Give the line that a run ends with."""
        return f"{self.passed} passed, {len(self.failures)} failed, {len(self.skips)} skipped"

    def strict(self, expected: Collection[str]) -> Result:
        """Take each skip whose reason is not expected for a failure."""
        unexpected = tuple(f"skipped unexpectedly: {reason}" for reason in self.skips if reason not in expected)
        skips = tuple(reason for reason in self.skips if reason in expected)
        return Result(self.passed, self.failures + unexpected, skips)


def of_pytest(report: Path, status: int) -> Result:
    """Return what pytest wrote to its JUnit report; a run that broke off has at least one failure.

    status: the exit status, where 5 means that no test was selected.
    """
    counted = sum(map(_of_case, ET.parse(report).iter("testcase")), Result()) if report.exists() else Result()
    if status not in (0, 5) and not counted.failures:
        return counted + Result(failures=(f"pytest ended with status {status}",))
    return counted


def _of_case(case: ET.Element) -> Result:
    skipped = case.find("skipped")
    if skipped is not None:
        return Result(skips=(skipped.get("message", ""),))
    if case.find("failure") is not None or case.find("error") is not None:
        return Result(failures=(f"{case.get('classname')}::{case.get('name')}",))
    return Result(passed=1)

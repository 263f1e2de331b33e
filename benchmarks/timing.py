"""Interleaved timing: the cases take turns, so that a slow minute of the machine falls on all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """What one case took. samples: milliseconds, one for each round."""

    name: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the samples, in milliseconds."""
        return statistics.median(self.samples)


def interleaved(cases: Mapping[str, Callable[[], float]], rounds: int) -> list[Timing]:
    """Run every case once in each round, after one round that does not count; a case returns its own milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, case in cases.items():
            milliseconds = case()
            if number:
                taken[name].append(milliseconds)
    return [Timing(name, tuple(samples)) for name, samples in taken.items()]


def milliseconds(work: Callable[[], object]) -> float:
    """Run something and return how long it took."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def table(timings: Iterable[Timing], *references: str) -> str:
    """Give timings as a Markdown table, each median also as a multiple of that of each reference."""
    known = {timing.name: timing for timing in timings}
    columns = [known[reference].median for reference in references]
    rows = [
        f"| {timing.name} | {timing.median:.1f} | {min(timing.samples):.1f} to {max(timing.samples):.1f} | "
        + " | ".join(f"{timing.median / column:.2f}" for column in columns)
        + " |"
        for timing in known.values()
    ]
    names = " | ".join(f"x {reference}" for reference in references)
    return "\n".join(
        [f"| case | median, ms | range, ms | {names} |", "|---|---:|---:|" + "---:|" * len(columns), *rows]
    )

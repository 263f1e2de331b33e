"""Measure, and put each result into the page of docs/ that has its place: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

from . import golden, golden_kills, images, kills, launch, live, migrate, site, treecopy

PAGES = Path(__file__).parents[1] / "docs"
BENCHMARKS: dict[str, Callable[[], str]] = {
    "launch": launch.measure,
    "site": site.measure,
    "golden": golden.measure,
    "golden-kills": golden_kills.measure,
    "golden-kills-openzfs": golden_kills.measure_openzfs,
    "treecopy": treecopy.measure,
    "migrate": migrate.measure,
    "kills": kills.measure,
    "images": images.measure,
    "live": live.measure,
}
"""By name: what measures and returns the text of its section."""


def main(names: list[str]) -> int:
    """Run the named benchmarks, or all."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.stderr.write(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}.\n")
        return 2
    for name in names or BENCHMARKS:
        text = f"{BENCHMARKS[name]()}\n\nOn {_machine()}. Again: `python -m benchmarks {name}`.\n"
        sys.stdout.write(text)
        for page in PAGES.glob("*.md"):
            page.write_text(_with_section(page.read_text(), name, text))
    return 0


def _with_section(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    return re.sub(f"{begin}.*?{end}", lambda _: f"{begin}{text}{end}", page, flags=re.DOTALL)


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The end of a run: one table, and in sentences what was changed, what failed and what to look after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import RenderableType

    from cowherd.progress import Host, Phase, Run, Storage
    from cowherd.progress import Table as Handed

STYLES = {"ok": "green", "changed": "yellow", "failed": "red", "unreachable": "bold red"}
"""The colour of an outcome."""

_COUNTS = ("changed", "ok", "failed", "unreachable")


def of(run: Run, status: int) -> Iterator[RenderableType]:
    """Yield what to print after a run that ended with an exit status."""
    if run.hosts:
        yield _table(run)
    results = {name: host.tables["result"] for name, host in sorted(run.hosts.items()) if "result" in host.tables}
    if results:
        yield table(results)
    yield from _said("Would change" if run.check else "Changed", run, "changes", "yellow")
    yield from _said("Failed", run, "errors", "red")
    yield from _said("Warnings", run, "warnings", "magenta")
    if status and not any(host.errors for host in run.hosts.values()):
        yield Text(f"ansible-playbook ended with status {status}; its own words are above.", "red")


def table(by_host: Mapping[str, Handed]) -> Table:
    """Return the tables that hosts handed over, all with the same columns, as one."""
    first = next(iter(by_host.values()))
    several = len(by_host) > 1
    title = first.title if not several else ""
    shown = Table("Host", *first.columns, title=title, title_justify="left", show_lines=several)
    for column in shown.columns:
        column.overflow = "fold"
    for name, handed in by_host.items():
        for row in handed.rows:
            shown.add_row(name, *map(Text, row))
    return shown


def _table(run: Run) -> Table:
    table = Table("Host", "Tasks", "Pool", "Launch", show_lines=len(run.hosts) > 1)
    for column in table.columns:
        column.overflow = "fold"
    for name, host in sorted(run.hosts.items()):
        table.add_row(Text(name, STYLES[host.outcome]), _counts(host), *_storage(host.storage))
    return table


def _counts(host: Host) -> Text:
    counted = [(name, host.counts[name]) for name in _COUNTS if host.counts.get(name)]
    return Text("\n").join(Text(f"{count} {name}", STYLES[name]) for name, count in counted)


def _storage(storage: Storage | None) -> Sequence[RenderableType]:
    if storage is None:
        return ()
    clones = Text(f"{storage.driver}, clones", "green")
    pool = clones if storage.can_clone else Text(f"{storage.driver}, copies", "yellow")
    pool.append(f"\n{storage.source}", "default")
    if storage.size_bytes is not None:
        pool.append(f"\n{_size(storage.used_bytes)} of {_size(storage.size_bytes)} used", "default")
    return pool, _phases(storage.phases)


def _phases(phases: Sequence[Phase]) -> Table:
    rows = Table.grid(padding=(0, 1))
    rows.add_column(no_wrap=True)
    rows.add_column(no_wrap=True, justify="right")
    rows.add_column(no_wrap=True)
    for phase in phases:
        slow = phase.target_ms is not None and phase.ms > phase.target_ms
        target = "" if phase.target_ms is None else f"of {phase.target_ms:.0f}"
        rows.add_row(phase.name, Text(f"{phase.ms:.0f} ms", "red" if slow else "green"), target)
    return rows


def _size(size: int | None) -> str:
    if size is None:
        return ""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.3g} {unit}"


def _said(heading: str, run: Run, what: str, style: str) -> Iterator[Text]:
    """Yield a heading and each distinct sentence with the hosts that it is about."""
    by_text: dict[str, list[str]] = {}
    for name, host in sorted(run.hosts.items()):
        for text in getattr(host, what):
            by_text.setdefault(text, []).append(name)
    if by_text:
        yield Text(f"\n{heading}", f"bold {style}")
    for text, names in by_text.items():
        yield Text.assemble("  ", (", ".join(names), "bold"), f": {text}")

"""What a person or a program sees of a run."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live as LiveDisplay
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cowherd import summary
from cowherd.progress import SPOKEN, Host, Run, progress_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import RenderableType

    from cowherd.progress import Event, Share

_WIDTH_OF_LOGS = 140
_WIDTH_OF_BAR = 24


class View:
    """Is entered before the run, shown each event, left, and at the end told the exit status."""

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back."""

    def show(self, run: Run, event: Event) -> None:
        """Show what an event did to the run."""

    def end(self, run: Run, status: int) -> None:
        """Show what it came to."""


class Plain(View):
    """Ansible's own output, then the table."""

    def show(self, run: Run, event: Event) -> None:  # noqa: ARG002
        """Print what Ansible printed."""
        if event.get("stdout"):
            print(event["stdout"].replace("\r\n", "\n"), flush=True)

    def end(self, run: Run, status: int) -> None:
        """Print the table."""
        _console().print("", *summary.of(run, status), sep="\n")


class Live(View):
    """Hosts as rows while it runs, then the table."""

    def __init__(self) -> None:
        self._console = _console()
        self._run = Run()
        self._begin = time.time()
        self._live = LiveDisplay(console=self._console, get_renderable=self._rows, transient=True)

    def __enter__(self) -> None:
        """Take the lower part of the terminal."""
        self._live.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self._live.stop()

    def show(self, run: Run, event: Event) -> None:
        """Print what Ansible says to the person above the rows, and plans as soon as they are made."""
        for name, host in run.hosts.items():
            before = self._run.hosts.get(name, Host()).tables
            if "plan" in host.tables and "plan" not in before:
                self._console.print(summary.table({name: host.tables["plan"]}))
        self._run = run
        if event["event"] in SPOKEN and event.get("stdout") and not progress_line(event):
            self._console.print(Text.from_ansi(event["stdout"]))

    def end(self, run: Run, status: int) -> None:
        """Print the table."""
        self._console.print(*summary.of(run, status), sep="\n")

    def _rows(self) -> RenderableType:
        """Return the hosts at work first, as many as fit."""
        now = time.time()
        title = Text.assemble((self._run.play or "Starting", "bold"), f"  {now - self._begin:.0f} s")
        rows = Table.grid(padding=(0, 2), expand=False)
        hosts = sorted(self._run.hosts.items(), key=lambda item: (item[1].since is None, item[0]))
        room = max(self._console.height - 4, 1)
        for name, host in hosts[:room]:
            step = "unreachable" if host.outcome == "unreachable" else host.step
            taken = f"{now - host.since:.0f} s" if host.since else ""
            rows.add_row(Text(name, summary.STYLES[host.outcome]), Text(step), Text(taken, "dim"), *_share(host.share))
        more = [Text(f"and {len(hosts) - room} more hosts", "dim")] if len(hosts) > room else []
        return Group(title, rows, *more)


class Document(View):
    """One JSON document at the end; what Ansible says to the person goes to standard error."""

    def show(self, run: Run, event: Event) -> None:  # noqa: ARG002
        """Keep standard output for the document."""
        if event["event"] in SPOKEN and event.get("stdout"):
            print(event["stdout"].rstrip(), file=sys.stderr)

    def end(self, run: Run, status: int) -> None:
        """Print the document."""
        hosts = {name: asdict(host) for name, host in run.hosts.items()}
        print(json.dumps({"status": status, "check": run.check, "hosts": hosts}, indent=2))


def _share(share: Share | None) -> Sequence[RenderableType]:
    """Return a bar, where it is known how far a step is, and what it says."""
    if share is None:
        return ()
    bar = Text() if share.percent is None else ProgressBar(total=100, completed=share.percent, width=_WIDTH_OF_BAR)
    return bar, Text(share.text)


def choose(*, plain: bool, document: bool) -> View:
    """Return the view that was asked for; without a terminal the plain one."""
    if document:
        return Document()
    return Plain() if plain or not sys.stdout.isatty() else Live()


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_LOGS)

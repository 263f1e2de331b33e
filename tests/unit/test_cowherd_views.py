"""What a person or a program gets to see of a run."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from rich.console import Console

from cowherd import summary, views
from cowherd.environment import ROOT
from cowherd.progress import Host, Phase, Question, Run, Storage, Table

FOUND = Storage(
    driver="btrfs",
    source="/var/lib/incus/disks/fast.img",
    size_bytes=5 * 1024**3,
    used_bytes=700 * 1024**2,
    can_clone=True,
    phases=(Phase("create", 65.2, 1000), Phase("start", 2100, 2000), Phase("delete", 80, None)),
)

RUN = Run(
    hosts={
        "pi-01": Host(
            counts={"ok": 4, "changed": 1}, changes=("create pool fast",), warnings=("Mind it.",), storage=FOUND
        ),
        "pi-02": Host(counts={"ok": 4, "changed": 1}, changes=("create pool fast",)),
        "pi-03": Host(counts={"unreachable": 1}, errors=("Reach: Connection refused",)),
    }
)


def text_of(run: Run, status: int = 0) -> str:
    console = Console(width=140)
    with console.capture() as captured:
        console.print(*summary.of(run, status), sep="\n")
    return captured.get()


def row_of(text: str, host: str) -> list[list[str]]:
    """The cells of a host's row, each as its lines."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"│ {host}"))
    last = next(number for number in range(first, len(lines)) if lines[number].startswith(("├", "└")))
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines[first:last]]
    return [[line for line in column if line] for column in zip(*cells, strict=True)]


def test_the_table_has_a_row_for_each_host() -> None:
    text = text_of(RUN)
    pool = ["btrfs, clones", "/var/lib/incus/disks/fast.img", "700 MiB of 5 GiB used"]
    assert row_of(text, "pi-01")[:3] == [["pi-01"], ["1 changed", "4 ok"], pool]
    assert row_of(text, "pi-02")[:3] == [["pi-02"], ["1 changed", "4 ok"], []]
    assert row_of(text, "pi-03")[:3] == [["pi-03"], ["1 unreachable"], []]


def test_phases_stand_against_their_targets() -> None:
    text = text_of(RUN)
    assert "65 ms of 1000" in text
    assert "2100 ms of 2000" in text
    assert "80 ms " in text


def test_a_driver_that_cannot_clone_is_called_so() -> None:
    copying = Storage("dir", "/srv", None, None, can_clone=False, phases=())
    assert row_of(text_of(Run(hosts={"pi": Host(storage=copying)})), "pi")[2] == ["dir, copies", "/srv"]


def test_the_same_sentence_is_said_once_for_all_hosts() -> None:
    text = text_of(RUN)
    assert "Changed\n  pi-01, pi-02: create pool fast" in text
    assert "Failed\n  pi-03: Reach: Connection refused" in text
    assert "Warnings\n  pi-01: Mind it." in text


def test_check_mode_says_what_would_be() -> None:
    text = text_of(Run(check=True, hosts=RUN.hosts))
    assert "Would change\n  pi-01, pi-02: create pool fast" in text
    assert "\nChanged" not in text


def test_a_failure_that_no_host_has_points_to_ansibles_words() -> None:
    assert "status 4" in text_of(Run(), status=4)


def test_the_document_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    views.Document().end(RUN, 4)
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert document["status"] == 4
    assert document["hosts"]["pi-01"]["storage"]["phases"][0] == {"name": "create", "ms": 65.2, "target_ms": 1000}
    assert document["hosts"]["pi-03"]["errors"] == ["Reach: Connection refused"]


def test_without_a_terminal_the_view_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    view = views.choose(plain=False, document=False)
    view.show(RUN, {"event": "verbose", "stdout": "PLAY [all] ***\r\n"})
    view.end(RUN, 0)
    out = capsys.readouterr().out
    assert out.startswith("PLAY [all] ***\n")
    assert "pi-01" in out


PLAN = Table("1 of 2 instances would move", ("Instance", "What happens"), (("c1", "moves"), ("mary", "stays")))
CAME = Table("What came of it", ("Instance", "Down"), (("c1", "1.4 s"),), ({"instance": "c1"},))


def test_results_that_hosts_hand_over_are_one_table() -> None:
    text = text_of(Run(hosts={name: Host(tables={"plan": PLAN, "result": CAME}) for name in ("pi-01", "pi-02")}))
    assert "What happens" not in text, "the plan was shown before"
    assert [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "1.4 s" in line] == [
        ["pi-01", "c1", "1.4 s"],
        ["pi-02", "c1", "1.4 s"],
    ]


def test_the_document_has_the_tables_as_values(capsys: pytest.CaptureFixture[str]) -> None:
    asked = Question("pool_migration_confirm", "Type the name")
    views.Document().end(Run(hosts={"pi-01": Host(tables={"result": CAME}, questions=(asked,))}), 0)
    host = json.loads(capsys.readouterr().out)["hosts"]["pi-01"]
    assert host["tables"]["result"]["records"] == [{"instance": "c1"}]
    assert host["questions"] == [{"variable": "pool_migration_confirm", "question": "Type the name", "word": ""}]


MOVING = """
import time
from cowherd.progress import Host, Run, Share, Table
from cowherd.views import Live

plan = Table("1 of 2 instances would move", ("Instance", "What happens"), (("c1", "moves"),))
line = {"event": "verbose", "stdout": "progress pi-01: c1: copying 34 % (8 s left)"}
view = Live()
with view:
    for percent in (34, 35):
        share = Share("c1: copying, 8 s left", percent)
        host = Host(step="Move each instance", since=time.time(), share=share, tables={"plan": plan})
        view.show(Run(play="Migrate", hosts={"pi-01": host}), line)
    time.sleep(0.6)
"""


def test_on_a_terminal_the_plan_is_there_before_the_end_and_progress_is_a_bar() -> None:
    shown = on_terminal(MOVING, columns=120, lines=24)
    assert shown.count("1 of 2 instances would move") == 1
    assert "━━━━" in shown
    assert "c1: copying, 8 s left" in shown
    assert "progress pi-01" not in shown


ROWS = """
import time
from cowherd.progress import Host, Run
from cowherd.views import Live

hosts = {f"pi-{n:02}": Host(step="Make the pool", since=time.time() if n % 2 else None) for n in range(40)}
view = Live()
with view:
    view.show(Run(play="Prepare hosts", hosts=hosts), {"event": "runner_on_file_diff", "stdout": "+++ after"})
    time.sleep(0.6)
view.end(Run(hosts=hosts), 0)
"""


def test_on_a_terminal_hosts_at_work_come_first_and_the_rest_is_counted() -> None:
    live, _, _ = on_terminal(ROWS, columns=100, lines=24).partition("┏")
    assert "+++ after" in live
    assert "pi-01" in live
    assert "and 20 more hosts" in live
    assert "pi-38" not in live


def on_terminal(program: str, *, columns: int, lines: int) -> str:
    """Run a Python program on a terminal of this size and return what it wrote there."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", program], stdin=its_end, stdout=its_end, env=environment) as running:
        os.close(its_end)
        written = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end was closed
            while read := os.read(terminal, 65536):
                written += read
    os.close(terminal)
    assert running.returncode == 0
    return written.decode()

"""incus_daemon starts a real daemon where no service manager does it; under systemd it is tested with the role."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import leftovers, needs, rest
from tests.support.ansible import four_runs, run_module

MODULE = "incus_daemon"


@pytest.fixture
def folder() -> Iterator[Path]:
    needs.incus()
    made = leftovers.new_folder()
    yield made
    leftovers.remove(made)


def running(folder: Path) -> int:
    """The process id that the daemon was started with."""
    return int((folder / "incusd.pid").read_text())


def test_daemon_is_started_once(folder: Path) -> None:
    socket = folder / "unix.socket"
    runs = four_runs(MODULE, {"socket": str(socket)}, state=lambda: sorted(folder.iterdir()))
    assert runs.do["steps"] == [f"start {runs.do['program']} for {socket}"]
    assert (runs.check["state"], runs.check["server_version"]) == ("missing", None)
    server = rest.request(socket, "GET", "/1.0")
    assert runs.do["server_version"] == server["environment"]["server_version"]
    assert os.getsid(running(folder)) != os.getsid(0)


def test_daemon_that_died_is_started_again(folder: Path) -> None:
    arguments = {"socket": str(folder / "unix.socket")}
    run_module(MODULE, arguments)
    died = running(folder)
    os.kill(died, signal.SIGKILL)
    again = run_module(MODULE, arguments)
    assert (again["changed"], again["state"]) == (True, "answers")
    assert running(folder) != died


def test_daemon_that_cannot_start_is_explained_by_its_log(folder: Path) -> None:
    (folder / "database").write_text("in the way")
    result = run_module(MODULE, {"socket": str(folder / "unix.socket")})
    assert result["failed"]
    assert "ended at once" in result["msg"]
    assert "database" in result["msg"]


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
def test_socket_of_another_name(folder: Path, check: bool) -> None:
    result: dict[str, Any] = run_module(MODULE, {"socket": str(folder / "incus.socket")}, check)
    assert result["failed"]
    assert f"Give {folder}/unix.socket" in result["msg"]
    assert list(folder.iterdir()) == []

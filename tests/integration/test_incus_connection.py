"""What modules say when there is no daemon to speak with, or none yet."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import needs
from tests.support.ansible import ROOT, run_module
from tests.support.incus_runs import refused, run
from tests.support.incusd import Incusd, running

MODULES: dict[str, dict[str, Any]] = {
    "incus_storage_pool": {"name": "fast", "size": "1GiB", "path": "/proc"},
    "incus_network": {"name": "cowbr0"},
    "incus_profile": {"name": "web"},
    "incus_preseed": {"storage_pools": [{"name": "fast", "size": "1GiB"}], "profiles": [{"name": "default"}]},
}
every_module = pytest.mark.parametrize("module", [*MODULES, "incus_storage_pool_info"])


def says(module: str, path: Path, **options: Any) -> str:
    result = run_module(module, {**MODULES.get(module, {}), "socket": str(path), **options})
    assert result["failed"]
    return str(result["msg"])


@every_module
def test_no_socket(tmp_path: Path, module: str) -> None:
    needs.root("modules take a lock")
    assert f"There is no Incus socket at {tmp_path}/unix.socket" in says(module, tmp_path / "unix.socket")


def test_daemon_is_down(tmp_path: Path) -> None:
    needs.root("modules take a lock")
    path = tmp_path / "unix.socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert "the daemon is down" in says("incus_profile", path)


def test_a_file_is_no_socket(tmp_path: Path) -> None:
    needs.root("modules take a lock")
    path = tmp_path / "unix.socket"
    path.touch()
    assert f"Incus socket {path}" in says("incus_profile", path)


@every_module
def test_no_permission(incusd: Incusd, module: str) -> None:
    """The socket is somebody else's, and root without the capability to override that is a user like any other."""
    needs.program("setpriv")
    os.chown(incusd.socket, 65534, 65534)
    try:
        finished = subprocess.run(
            [
                *("setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, "-P"),
                *(ROOT / "tests/support/module_main.py", ROOT / "library" / f"{module}.py"),
            ],
            input=json.dumps({**MODULES.get(module, {}), "socket": str(incusd.socket)}),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        os.chown(incusd.socket, 0, 0)
    assert f"The Incus socket at {incusd.socket} is not open to this user" in json.loads(finished.stdout)["msg"]


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A server that gives this answer to whoever comes, and hangs up."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)

        def serve() -> None:
            while True:
                connection, _ = server.accept()
                with connection:
                    if not connection.recv(65536):
                        return
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "broke during GET /1.0. Run again"),
        (b"nonsense\r\n\r\n", "broke during GET /1.0. Run again"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "broke during GET /1.0. Run again"),
        (b'HTTP/1.1 404 Not Found\r\nContent-Length: 22\r\n\r\n{"message":"not found"}', "not answered by an Incus"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not answered by an Incus server"),
    ],
)
def test_something_else_answers(tmp_path: Path, answer: bytes, said: str) -> None:
    needs.root("modules take a lock")
    path = tmp_path / "unix.socket"
    with answering(path, answer):
        assert said in says("incus_profile", path)


@pytest.mark.parametrize("module", list(MODULES))
def test_pending_plans_for_a_daemon_that_is_to_come(tmp_path: Path, incusd: Incusd, module: str) -> None:
    options = {**MODULES[module], "socket": str(tmp_path / "unix.socket"), "pending": True}
    planned = run_module(module, options, check=True)
    assert planned["changed"]
    assert not list(tmp_path.iterdir())
    on_empty_one = run(incusd, module, check=True, **MODULES[module])
    steps = [title.replace(str(incusd.dir), str(tmp_path)) for title in on_empty_one["steps"]]
    assert planned["steps"] == steps
    assert "There is no Incus socket" in run_module(module, options)["msg"]


def test_pending_plans_removal_of_nothing(tmp_path: Path) -> None:
    needs.root("modules take a lock")
    for module, options in MODULES.items():
        if module != "incus_preseed":
            arguments = {**options, "socket": str(tmp_path / "unix.socket"), "pending": True, "state": "absent"}
            assert run_module(module, arguments)["changed"] is False


def test_pending_does_not_hide_a_daemon_that_is_there(incusd: Incusd) -> None:
    incusd.run("storage", "create", "fast", "dir")
    message = refused(incusd, "incus_storage_pool", name="fast", size="1GiB", pending=True)
    assert "Pool fast has driver dir" in message


@pytest.mark.parametrize("module", list(MODULES))
def test_what_a_stopped_daemon_holds_is_not_guessed(tmp_path: Path, module: str) -> None:
    needs.root("modules take a lock")
    (tmp_path / "database").mkdir()
    options = {**MODULES[module], "socket": str(tmp_path / "unix.socket"), "pending": True}
    said = f"The Incus daemon in {tmp_path} is down; what is to be done on the server can only be told once it runs."
    planned = run_module(module, options, check=True)
    assert (planned["changed"], planned["steps"]) == (False, [])
    assert said in str(planned["warnings"])
    assert run_module(module, options)["msg"] == said


def test_a_cluster_is_left_as_it_is() -> None:
    needs.incus()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with running() as daemon:
        daemon.api("PATCH", "/1.0", {"config": {"core.https_address": address}})
        daemon.run("cluster", "enable", "one")
        for module, options in MODULES.items():
            assert "is a member of a cluster" in refused(daemon, module, **options)
        assert run(daemon, "incus_storage_pool_info")["pools"] == []

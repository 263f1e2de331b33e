"""Runs of Python programs in processes of their own, in a session of tests without the time that a start takes.

A module imports Ansible for longer than it then works, and tests run thousands of them. `quick()` starts a process that
has everything loaded, and forks for each run (see program_server.py).
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from threading import Lock

Finished = subprocess.CompletedProcess[str]


def run(
    argv: Sequence[str | Path], given: str, timeout: float, environment: Mapping[str, str] | None = None
) -> Finished:
    """Run a program of this Python, argv[0] being its file, as `python -P` does; a negative status is a signal."""
    command = [str(each) for each in argv]
    whole = {**os.environ, **(environment or {})}
    server = _servers[-1] if _servers else None
    if server and server.namespace == _namespace():
        return server.run(command, given, timeout, whole)
    return subprocess.run(
        [sys.executable, "-P", *command],
        input=given,
        env=whole,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@contextmanager
def quick() -> Iterator[None]:
    """Have programs run quickly during the block, in the namespace of mounts that it begins in."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = Path(__file__).with_name("program_server.py")
    with (
        ours,
        subprocess.Popen(
            [sys.executable, "-P", program, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        ),
    ):
        theirs.close()
        _servers.append(_Server(ours, _namespace()))
        try:
            yield
        finally:
            _servers.pop()
            ours.close()


@dataclass(frozen=True)
class _Server:
    orders: socket.socket
    namespace: int
    turn: Lock = field(default_factory=Lock)

    def run(self, argv: list[str], given: str, timeout: float, environment: Mapping[str, str]) -> Finished:
        order = json.dumps({"argv": argv, "environment": dict(environment), "folder": str(Path.cwd())}).encode()
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            stdin.write(given.encode())
            stdin.seek(0)
            with os.fdopen(self._ordered(order, [each.fileno() for each in (stdin, stdout, stderr)])) as told:
                process = int(told.readline())
                if not select([told], [], [], timeout)[0]:
                    os.kill(process, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(argv, timeout)
                status = os.waitstatus_to_exitcode(int(told.readline()))
            return Finished(argv, status, *(_content(each.fileno()) for each in (stdout, stderr)))

    def _ordered(self, order: bytes, streams: list[int]) -> int:
        told, tells = os.pipe()
        with self.turn:
            socket.send_fds(self.orders, [order], [*streams, tells])
        os.close(tells)
        return told


def _content(descriptor: int) -> str:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0).decode()


def _namespace() -> int:
    return Path("/proc/self/ns/mnt").stat().st_ino


_servers: list[_Server] = []

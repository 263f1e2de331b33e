"""The fork server of `cow-session`, started as systemd starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.cow.golden.start import SOCKET

_FIRST = 3
_LISTENING = f"""
import os, sys
if (passed := int(sys.argv[1])) != {_FIRST}:
    os.dup2(passed, {_FIRST})
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class ForkServer:
    """The process, and the socket that it was given."""

    process: subprocess.Popen[bytes]
    listening: socket.socket

    def ended(self) -> dict[str, Any]:
        """Wait for its end, of which there has to be a reason, and return what it prints."""
        output, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        printed: dict[str, Any] = json.loads(output)
        return printed

    def children(self) -> list[int]:
        """Return the processes that it forked and that run."""
        tasks = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(word) for word in tasks.read_text().split()]


@contextmanager
def running(program: Path, *, within: tuple[str, ...] = (), root: Path | None = None) -> Iterator[ForkServer]:
    """Have one wait during the block, where this process alone looks for it.

    within: the command by which a program is run in other namespaces, whose files are found in `root`; there the folder
    of the socket is of those alone already.
    """
    path = Path(SOCKET) if root is None else root / SOCKET.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    if root is None:
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", path.parent], check=True)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen(128)
            server = ForkServer(_started(program, within, listening), listening)
            try:
                yield server
            finally:
                for process in server.children() if within else ():  # of nsenter, which forks to be in there
                    os.kill(process, signal.SIGKILL)
                server.process.kill()
                server.process.communicate()
    finally:
        path.unlink()
        if root is None:
            subprocess.run(["umount", path.parent], check=True)


def _started(program: Path, within: tuple[str, ...], listening: socket.socket) -> subprocess.Popen[bytes]:
    number = listening.fileno()
    argv = [*within, sys.executable, "-c", _LISTENING, str(number), program, "serve"]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, pass_fds=[number])

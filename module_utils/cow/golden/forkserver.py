"""The fork server of `cow-session`: a process that has all of the program loaded, and forks for each command.

systemd has the socket, starts this when somebody comes, and again after it ended, which it does when nobody came for
a while or the program was replaced. A command runs as it would by itself: with the arguments, folder, environment and
output of who asks, for those alone who could do all of it themselves, and until they end.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ForkingMixIn, UnixStreamServer

from ..errors import CowError
from .start import GO, READY, end, identity

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Run = Callable[[Sequence[str]], int]

_IDLE = 60.0
"""Seconds after which it ends when nobody comes."""
_FIRST = 3
"""The descriptor that systemd passes first (sd_listen_fds(3))."""
_LARGEST = 1 << 20
"""Bytes of a request; the kernel takes less (net.core.wmem_max)."""
_PEER = struct.Struct("3i")
"""struct ucred of unix(7): process, user, group."""
_PASSED = 3
"""Descriptors that come with a request: the folder, standard output, and standard error."""
_F_SETSIG = 10
_VIEW = ("root", *(f"ns/{kind}" for kind in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")))


def serve(run: Run, idle: float = _IDLE) -> int:
    """Serve until nobody came for `idle` seconds, or the program was replaced; return how many commands were asked for.

    run: runs the command of such arguments in this process, and returns its exit status.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise CowError("There is no socket to serve; systemd passes it. Start cow-session.socket instead.")
    os.set_inheritable(_FIRST, False)
    gc.freeze()  # else looking for garbage makes a copy of each page that is shared with those that were forked
    with _Server(run, idle) as server:
        while server.wanted:
            server.handle_request()
        return server.asked


class _Server(ForkingMixIn, UnixStreamServer):
    socket_type = socket.SOCK_SEQPACKET
    max_children = 1000
    block_on_close = False  # they go on by themselves, and the next one serves

    def __init__(self, run: Run, idle: float) -> None:
        super().__init__("", BaseRequestHandler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=_FIRST)
        self.timeout = idle
        self.run, self.program, self.own = run, identity(), _Process.of(os.getpid())
        self.asked, self.wanted = 0, True

    def handle_timeout(self) -> None:
        self.wanted = False

    def process_request(self, request: Any, client_address: Any) -> None:
        """Fork, or leave who asks to themselves, when what is loaded is not what they run."""
        self.collect_children()
        self.wanted = _is_there(self.program)
        if self.wanted:
            self.asked += 1
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def finish_request(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Run one command, in the process that was forked for it."""
        message, descriptors, flags, _ = socket.recv_fds(request, _LARGEST, _PASSED)
        peer, *owners = _PEER.unpack(request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        program, *words = message.split(b"\0")
        if owners != [0, 0] or len(descriptors) != _PASSED or flags & socket.MSG_TRUNC or program != self.program:
            return
        asking = _Process.of(peer)
        if not asking.may_all_that(self.own):
            return
        os.umask(asking.umask)
        arguments = _take_on(words, *descriptors)
        request.send(READY)
        if request.recv(len(GO)) == GO:
            _end_with(request)
            request.send(b"%d" % _status(self.run, arguments))
            end(0)


@dataclass(frozen=True)
class _Process:
    """A process as far as it decides what a command of its would do.

    view: which files are its root folder and its namespaces. confinement: how a security module confines it.
    capabilities: the effective ones, as bits. filtered: whether system calls are kept from it. umask: its mask.
    """

    view: tuple[tuple[int, int], ...]
    confinement: bytes
    capabilities: int
    filtered: bool
    umask: int

    @classmethod
    def of(cls, process: int) -> _Process:
        """Read /proc (proc_pid_status(5)). Raises OSError where that cannot be."""
        base = Path("/proc", str(process))
        seen = [(base / what).stat() for what in _VIEW]
        status = dict(line.split(":\t", 1) for line in (base / "status").read_text(errors="replace").splitlines())
        return cls(
            view=tuple((each.st_dev, each.st_ino) for each in seen),
            confinement=_confinement(base),
            capabilities=int(status["CapEff"], 16),
            filtered=status.get("Seccomp", "0") != "0",
            umask=int(status["Umask"], 8),
        )

    def may_all_that(self, other: _Process) -> bool:
        """Say whether it sees the same host as another process, and may do whatever that one may."""
        same = self.view == other.view and self.confinement == other.confinement
        return same and not self.filtered and not other.capabilities & ~self.capabilities


def _is_there(program: bytes) -> bool:
    """Say whether the program is the one still that is loaded here."""
    try:
        return identity() == program
    except OSError:
        return False


def _confinement(base: Path) -> bytes:
    try:
        return (base / "attr/current").read_bytes()
    except OSError:  # no module has a say in it
        return b""


def _end_with(request: socket.socket) -> None:
    """Have the kernel end this process when who asks ends, as they would have ended the command by ending."""
    fcntl.fcntl(request, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(request, _F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(request, fcntl.F_SETFL, fcntl.fcntl(request, fcntl.F_GETFL) | os.O_ASYNC)
    with contextlib.suppress(BlockingIOError):
        request.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)  # nothing more is ever sent: they ended before
        os._exit(0)


def _take_on(words: Sequence[bytes], folder: int, *output: int) -> list[str]:
    """Take on the folder, environment and output of who asks, and return the arguments that they were given."""
    arguments, environment = words[1 : int(words[0]) + 1], words[int(words[0]) + 1 :]
    os.environb.clear()
    os.environb.update(dict(each.split(b"=", 1) for each in environment))
    os.fchdir(folder)
    os.close(folder)
    for descriptor, passed in enumerate(output, start=1):
        os.dup2(passed, descriptor)
        os.close(passed)
    return [os.fsdecode(each) for each in arguments]


def _status(run: Run, arguments: Sequence[str]) -> int:
    """Run the command to its end, in any way in which Python ends, and return its exit status."""
    try:
        return run(arguments)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()

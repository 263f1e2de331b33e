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
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import CowError
from . import start
from .start import GO, PATIENCE, READY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

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
_VIEW = ("root", *(f"ns/{kind}" for kind in ("mnt", "pid", "user")))


def serve(run: Run, idle: float = _IDLE) -> int:
    """Serve until nobody came for `idle` seconds, or the program was replaced; return how often somebody came.

    run: runs the command of such arguments in this process, and returns its exit status.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        raise CowError("There is no socket to serve; systemd passes it. Start cow-session.socket instead.")
    own, came = _Process.of(os.getpid()), 0
    gc.freeze()  # else looking for garbage makes a copy of each page that is shared with those that were forked
    with socket.socket(fileno=_FIRST) as listening:
        listening.settimeout(idle)
        with contextlib.suppress(TimeoutError):
            while _is_current():
                request, _ = listening.accept()
                came += 1
                with request:
                    if not os.fork():
                        listening.close()  # else it would be open, and nobody accept, when this one has ended
                        _answer(request, own, run)
                _reap()
    return came


def _answer(request: socket.socket, own: _Process, run: Run) -> NoReturn:
    """Run one command, in the process that was forked for it; or nothing, and who asks runs it by themselves."""
    try:
        request.settimeout(PATIENCE)
        message, passed, flags, _ = socket.recv_fds(request, _LARGEST, _PASSED)
        program, *words = message.split(b"\0")
        peer, *owners = _PEER.unpack(request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        fits = len(passed) == _PASSED and not flags & socket.MSG_TRUNC and program == start.loaded
        if fits and owners == [0, 0] and (asking := _Process.of(peer)).may_all_that(own):
            request.send(READY + b"%d" % os.getpid())
            if _is_told_to_go(request):
                request.settimeout(None)
                _end_with(request)
                os.umask(asking.umask)
                request.send(b"%d" % _status(run, _take_on(words, *passed)))
    except (OSError, ValueError):
        pass  # they ended, or ask for what cannot be
    finally:
        os._exit(0)


def _is_told_to_go(request: socket.socket) -> bool:
    """Say whether who asks goes on, and has shown that they may write to the memory of this process."""
    told, passed, _, _ = socket.recv_fds(request, len(GO), 1)
    if told != GO or len(passed) != 1:
        return False
    shown = os.fstat(passed[0])
    own = Path("/proc/self/mem").stat()
    writes = fcntl.fcntl(passed[0], fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    os.close(passed[0])
    return writes and os.path.samestat(shown, own)


@dataclass(frozen=True)
class _Process:
    """A process as far as it decides what a command of its would do.

    view: which files are its root folder and those of its namespaces in which commands do something.
    capabilities: the effective ones, as bits. filtered: whether system calls are kept from it. umask: its mask.
    """

    view: tuple[tuple[int, int], ...]
    capabilities: int
    filtered: bool
    umask: int

    @classmethod
    def of(cls, process: int) -> _Process:
        """Read /proc (proc_pid_status(5)). Raises OSError where that cannot be."""
        base = f"/proc/{process}/"
        seen = [os.stat(base + what) for what in _VIEW]  # noqa: PTH116  # a clone does not pay for paths
        with open(base + "status", "rb", buffering=0) as file:  # noqa: PTH123
            status = dict(line.split(":\t", 1) for line in file.read().decode(errors="replace").splitlines())
        return cls(
            view=tuple((each.st_dev, each.st_ino) for each in seen),
            capabilities=int(status["CapEff"], 16),
            filtered=status.get("Seccomp", "0") != "0",
            umask=int(status["Umask"], 8),
        )

    def may_all_that(self, other: _Process) -> bool:
        """Say whether it sees the same host as another process, and has all rights of that one."""
        free = not self.filtered and not other.filtered and not other.capabilities & ~self.capabilities
        return free and self.view == other.view


def _is_current() -> bool:
    """Say whether the program is the one still that is loaded here."""
    try:
        return start.identity() == start.loaded
    except OSError:
        return False


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


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
        status = run(arguments)
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        status = 1
    return start.flushed(status)

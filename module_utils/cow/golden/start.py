"""How `cow-session` starts: by its fork server where one waits, which has all of the program loaded, else by itself.

Python and what is here have to be loaded by each run, so this needs next to nothing.
"""

from __future__ import annotations

import _socket
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

SOCKET = "/run/cowherd/session.socket"
"""Where the fork server waits."""
SERVED = ("clone", "destroy")
"""Commands that it is asked to run: services run them often, and they take less time than loading does."""
READY, GO = b"ready ", b"go"
"""What the fork server answers, with the process that would run the command, and what it is told then.

With that comes the memory of that process, opened. So the kernel has said that who asks may do with it what they like,
whatever confines them, before anything is done.
"""
PATIENCE = 10.0
"""Seconds that each waits for the other before that; a server that is being started takes less."""
_LOST = """\
{"error": "refused", "msg": "The process that ran this for us was ended. Look at what is there with cow-session list."}
"""
loaded = b""
"""What `identity` said before anything else was loaded."""


def main(load: Callable[[], Callable[[Sequence[str]], int]]) -> NoReturn:
    """Run the command line of this process, and end with its exit status.

    load: loads all else of the program, and returns what runs a command here.
    """
    global loaded  # noqa: PLW0603
    loaded = identity()
    arguments = sys.argv[1:]
    status = _served(arguments) if first_word(arguments) in SERVED else None
    end(load()(arguments) if status is None else status)


def first_word(arguments: Sequence[str]) -> str | None:
    """Return the first of them that is neither an option nor the value of one, as the name of a command is."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-"):
            return word
        if "=" not in word:
            next(words, None)
    return None


def end(status: int) -> NoReturn:
    """End this process as it is: taking apart what it loaded takes longer than a clone."""
    os._exit(flushed(status))


def flushed(status: int) -> int:
    """Have all output written, and return the exit status, which is no longer 0 when that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:  # None when it was closed from the beginning
                stream.flush()
        except OSError:
            status = status or 1
    return status


def identity() -> bytes:
    """Tell this program and the Python that runs it, as they are now, from others and from those in their place."""
    files = [os.stat(path) for path in (sys.path[0], sys.executable)]  # noqa: PTH116
    return b" ".join(b"%d %d %d %d" % (each.st_dev, each.st_ino, each.st_size, each.st_mtime_ns) for each in files)


def _served(arguments: list[str]) -> int | None:
    """Return the exit status of the command, which the fork server ran; None where none did, and nothing was done."""
    if not (sys.stdout and sys.stderr):
        return None
    begun = False
    try:
        server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        server.settimeout(PATIENCE)
        server.connect(SOCKET)
        _send(server, _request(arguments), os.open(".", os.O_PATH | os.O_CLOEXEC), 1, 2)
        answer = server.recv(64)
        if not answer.startswith(READY):
            return None
        memory = b"/proc/%b/mem" % answer.removeprefix(READY)
        _send(server, GO, os.open(memory, os.O_RDWR | os.O_CLOEXEC))
        begun = True
        server.settimeout(None)
        return int(server.recv(4) or _lost())
    except OSError:
        return _lost() if begun else None


def _request(arguments: list[str]) -> bytes:
    """Give what the fork server is told, NUL in between: the program, how many arguments, they, the environment."""
    environment = [b"%b=%b" % pair for pair in os.environb.items()]
    return b"\0".join([loaded, b"%d" % len(arguments), *map(os.fsencode, arguments), *environment])


def _send(server: _socket.socket, message: bytes, *descriptors: int) -> None:
    numbers = b"".join(each.to_bytes(4, sys.byteorder) for each in descriptors)
    server.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, numbers)])


def _lost() -> int:
    sys.stdout.write(_LOST)
    return 1

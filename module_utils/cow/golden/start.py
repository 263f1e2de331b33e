"""How `cow-session` starts: by its fork server where one waits, which has all of the program loaded, else by itself.

Python and what is here have to be loaded by each run, so this needs next to nothing.
"""

from __future__ import annotations

import _socket
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

SOCKET = "/run/cowherd/session.socket"
"""Where the fork server waits."""
SERVED = ("clone", "destroy")
"""Commands that it is asked to run: services run them often, and they take less time than loading does."""
READY, GO = b"ready", b"go"
"""What the fork server answers when it could run the command, and what it is told before it does anything."""
_PATIENCE = 10.0
"""Seconds to wait for that answer; a server that is being started takes less."""
_LOST = """\
{"error": "refused", "msg": "The process that ran this for us was ended. Look at what is there with cow-session list."}
"""


def main() -> NoReturn:
    """Run the command line of this process, and end with its exit status."""
    arguments = sys.argv[1:]
    status = _served(arguments) if any(word in SERVED for word in arguments) else None
    if status is None:
        from .cli import main as run  # noqa: PLC0415

        status = run(arguments)
    end(status)


def end(status: int) -> NoReturn:
    """End this process as it is: taking apart what it loaded takes longer than a clone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def identity() -> bytes:
    """Tell the file that this program was started from, as it is now, from others and from one in its place."""
    status = os.stat(sys.path[0])  # noqa: PTH116
    return b"%d %d %d %d" % (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _request(arguments: list[str]) -> bytes:
    """Give what the fork server is told, NUL in between: the program, how many arguments, they, the environment."""
    environment = [b"%b=%b" % pair for pair in os.environb.items()]
    return b"\0".join([identity(), b"%d" % len(arguments), *map(os.fsencode, arguments), *environment])


def _served(arguments: list[str]) -> int | None:
    """Return the exit status of the command, which the fork server ran; None where none did, and nothing was done."""
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    begun = False
    try:
        server.settimeout(_PATIENCE)
        server.connect(SOCKET)
        folder = os.open(".", os.O_PATH | os.O_CLOEXEC)
        descriptors = b"".join(each.to_bytes(4, sys.byteorder) for each in (folder, 1, 2))
        server.sendmsg([_request(arguments)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
        if server.recv(len(READY)) == READY:
            server.settimeout(None)
            begun = server.send(GO) > 0
            return int(server.recv(4) or _lost())
    except OSError:
        return _lost() if begun else None
    finally:
        server.close()
    return None


def _lost() -> int:
    sys.stdout.write(_LOST)
    return 1

"""A socket before a daemon's, which passes everything on but the answer to one request that changes something."""

from __future__ import annotations

import itertools
import re
import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CHANGING = re.compile(rb"(POST|PUT|PATCH|DELETE) ")


@contextmanager
def losing(folder: Path, daemon: Path, number: int) -> Iterator[Path]:
    """A socket in the folder; of the changing requests through it the answer to this one, counted from 0, is lost.

    Its request was carried out, or begun where the daemon answers at once and works in the background. The connection
    breaks instead of the answer.
    """
    path = folder / "lossy"
    path.unlink(missing_ok=True)
    counter = itertools.count()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        threading.Thread(target=_accept, args=(listening, daemon, counter, number), daemon=True).start()
        yield path
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


def _accept(listening: socket.socket, daemon: Path, counter: Iterator[int], number: int) -> None:
    while True:
        try:
            client, _ = listening.accept()
        except OSError:  # it is over
            return
        threading.Thread(target=_pass_on, args=(client, daemon, counter, number), daemon=True).start()


def _pass_on(client: socket.socket, daemon: Path, counter: Iterator[int], number: int) -> None:
    with client, socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as ready, suppress(OSError):
        server.connect(str(daemon))
        for end, other in ((client, server), (server, client)):
            ready.register(end, selectors.EVENT_READ, other)
        lost = False
        while True:
            for key, _ in ready.select():
                end: socket.socket = key.fileobj  # type: ignore[assignment]
                data = end.recv(1 << 16)
                if not data or (lost and end is server):
                    return
                if end is client and _CHANGING.match(data):
                    lost = next(counter) == number
                key.data.sendall(data)

"""How modules reach the server: one writer at a time, and a host that has no Incus yet."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from .. import lock
from ..errors import CowError, NotYetKnown
from ..plan import Module, explained
from .client import DEFAULT_SOCKET, Found, Server, ServerUnreachable, connect

ARGUMENTS: dict[str, Any] = {
    "socket": {"type": "path", "default": DEFAULT_SOCKET},
    "pending": {"type": "bool", "default": False},
}
"""Options of every module that changes what Incus holds."""

READING_ARGUMENTS: dict[str, Any] = {"socket": ARGUMENTS["socket"]}
"""Options of every module that only reads it."""


_FIRST_PROFILE = {
    "name": "default",
    "project": "default",
    "description": "Default Incus profile",
    "config": {},
    "devices": {},
    "used_by": [],
}


@contextlib.contextmanager
def session(module: Module) -> Iterator[Server]:
    """Connect for changing something, as the only one to do so; what goes wrong ends the module in words."""
    socket = module.params["socket"]
    with (
        explained(module),
        _server(socket, pending=module.params.get("pending", False)) as server,
        lock.held(f"incus:{socket}"),
    ):
        yield server


@contextlib.contextmanager
def reading(module: Module) -> Iterator[Server]:
    """Connect for reading; what goes wrong ends the module in words."""
    with explained(module), connect(module.params["socket"]) as server:
        yield server


class FutureServer(Server):
    """A daemon that is about to be installed, as its first start leaves it.

    It lets check mode plan for a host without Incus. It can be read; changes fail, as there is nothing to change.
    """

    def get(self, *path: str, **_query: str | int) -> Any:
        """Answer as an empty server, which has one profile."""
        return [_FIRST_PROFILE] if path == ("profiles",) else []

    def find(self, *_path: str, **_query: str | int) -> Found | None:
        """Answer as an empty server."""
        return None

    is_to_come = True

    def drivers(self) -> frozenset[str]:
        """Assume what the role incus_host installs tools for."""
        return frozenset({"dir", "btrfs"})

    def extensions(self) -> frozenset[str]:
        """Assume none."""
        return frozenset()


class StoppedServer(Server):
    """A daemon that is down and has a past: asking it fails, as what it has is known only once it runs again."""

    def get(self, *_path: str, **_query: str | int) -> NoReturn:
        """Refuse to guess."""
        raise NotYetKnown(
            f"The Incus daemon in {self.folder} is down; "
            f"what is to be done on the server can only be told once it runs."
        )

    def find(self, *path: str, **query: str | int) -> NoReturn:
        """Refuse to guess."""
        self.get(*path, **query)


def _server(socket: str, *, pending: bool) -> Server:
    try:
        server = connect(socket)
    except ServerUnreachable:
        if not pending:
            raise
        return _absent_server(socket)
    if server.clustered():
        raise CowError(
            f"The Incus daemon at {socket} is a member of a cluster, whose pools and networks are made "
            f"on every member together. It is left as it is: use `incus` for it, or take it out of the cluster."
        )
    return server


def _absent_server(socket: str) -> Server:
    stopped = StoppedServer(socket)
    return stopped if (Path(stopped.folder) / "database").exists() else FutureServer(socket)

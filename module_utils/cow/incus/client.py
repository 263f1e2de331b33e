"""The Incus REST client: one connection to the host's own server, over its unix socket.

The API is described in the Incus documentation, "Main API documentation" and "API specification". Responses come in an
envelope of type sync, async or error; an async one names an operation, which is waited for here with a bound.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlencode

from ..errors import CowError

DEFAULT_SOCKET = "/var/lib/incus/unix.socket"
READ_TIMEOUT = 60.0
"""Seconds a question may take to be answered."""
CHANGE_TIMEOUT = 900.0
"""Seconds a change may take, whether it is answered at the end, as the making of a pool, or by an operation."""
_WAIT_SLICE = 30
"""Seconds of one long-poll; below READ_TIMEOUT, so that a silent server is noticed."""
_TOLD_EVERY = 1
"""Seconds of one, where somebody wants to be told how it goes."""


class ServerUnreachable(CowError):
    """There is no answer from the daemon: not installed, not running, or not for this user."""


class ApiError(CowError):
    """The server answered with an error; `code` is the HTTP status it gave."""

    def __init__(self, code: int, message: str, what: str) -> None:
        """Keep the status for callers that act on it."""
        self.code = code
        self.message = message
        super().__init__(f"Incus refused to {what}: {message} (status {code}).")


class Cancelled(CowError):
    """An operation was cancelled by somebody; what it was to do is not done."""


@dataclass(frozen=True)
class _Answer:
    status: int
    etag: str
    payload: bytes


@dataclass(frozen=True)
class Found:
    """A resource as the server has it, with the ETag that a change of it is to be conditional on."""

    body: dict[str, Any]
    etag: str


class Server:
    """A connection to one Incus server, scoped to a project where a call names one.

    A POST is sent once: when the connection breaks before the answer came, whether it took effect is unknown, and that
    is what the error says. Reads are repeated once on a fresh connection, which a daemon's restart makes necessary.
    """

    is_to_come = False
    """Whether the daemon is only assumed, as it is still to be installed."""

    def __init__(self, path: str) -> None:
        """`path`: of the socket. Nothing is opened before the first request."""
        self._path = path
        self._connection: http.client.HTTPConnection | None = None
        self.name = f"the Incus daemon at {path}"

    @property
    def folder(self) -> str:
        """The daemon's own folder (INCUS_DIR), which its socket is in."""
        return str(PurePosixPath(self._path).parent)

    def drivers(self) -> frozenset[str]:
        """Return the storage drivers that the daemon can use on this host."""
        offered = self.get()["environment"]["storage_supported_drivers"]
        return frozenset(driver["Name"] for driver in offered)

    def clustered(self) -> bool:
        """Say whether the daemon is a member of a cluster."""
        return bool(self.get()["environment"]["server_clustered"])

    def extensions(self) -> frozenset[str]:
        """Return the names of the API extensions that the daemon has."""
        return frozenset(self.get()["api_extensions"])

    def __enter__(self) -> Self:
        """Use as a context manager to close the connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, *path: str, **query: str | int) -> Any:
        """Return the metadata of a resource or collection. Raises ApiError(404) when it is not there."""
        metadata = self._envelope("GET", path, query)[0]["metadata"]
        return [] if metadata is None else metadata  # some collections are null when they are empty

    def find(self, *path: str, **query: str | int) -> Found | None:
        """Return a resource with its ETag, or None: only when the server says that it does not exist."""
        try:
            envelope, etag = self._envelope("GET", path, query)
        except ApiError as error:
            if error.code == http.client.NOT_FOUND:
                return None
            raise
        return Found(envelope["metadata"], etag)

    def exists(self, *path: str, **query: str | int) -> bool:
        """Say whether a resource is there."""
        return self.find(*path, **query) is not None

    def post(self, *path: str, body: Mapping[str, Any], **query: str | int) -> Any:
        """Create or act, waiting for the operation if there is one; returns its metadata."""
        return self._change("POST", path, query, body)

    def work(
        self, *path: str, body: Mapping[str, Any], within: float, told: Callable[[], None], **query: str | int
    ) -> Any:
        """Have something done that takes long, as `post` does; `told` is called every few seconds meanwhile."""
        envelope, _ = self._envelope("POST", path, query, body)
        return self._wait(envelope["operation"], within, told)

    def put(self, *path: str, body: Mapping[str, Any], etag: str, **query: str | int) -> Any:
        """Replace a resource that is still as it was read (`etag`)."""
        return self._change("PUT", path, query, body, {"If-Match": etag})

    def patch(self, *path: str, body: Mapping[str, Any], etag: str = "", **query: str | int) -> Any:
        """Change the named keys of a resource, only if it is still as it was read when an ETag is given."""
        return self._change("PATCH", path, query, body, {"If-Match": etag} if etag else {})

    def delete(self, *path: str, **query: str | int) -> Any:
        """Remove a resource."""
        return self._change("DELETE", path, query, None)

    def upload(
        self, *path: str, chunks: Iterable[bytes], length: int, headers: Mapping[str, str], **query: str | int
    ) -> Any:
        """POST `length` bytes from `chunks` as they come, so that an image is never in memory as a whole."""
        target = _target(path, query)
        self.close()  # a connection that has idled may be dead, and this cannot be sent twice
        answer = self._exchange("POST", target, chunks, {**headers, "Content-Length": str(length)})
        return self._settle(*_opened(answer, "POST", target))

    def download(self, *path: str, **query: str | int) -> bytes:
        """Return the bytes of a file that the API serves."""
        target = _target(path, query)
        answer = self._exchange("GET", target, None, {})
        if answer.status >= http.client.BAD_REQUEST:
            raise ApiError(answer.status, _error_text(answer.payload), f"GET {target}")
        return answer.payload

    def change_database(self, statement: str) -> int:
        """Run a statement on the server's own database, as `incus admin sql global` does; return the rows changed."""
        envelope, _ = self._ask("POST", "/internal/sql", {"database": "global", "query": statement})
        return int(envelope["metadata"]["Results"][0]["rows_affected"])

    def _change(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, str | int],
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return self._settle(*self._envelope(method, path, query, body, headers))

    def _settle(self, envelope: dict[str, Any], _etag: str) -> Any:
        if envelope["type"] != "async":
            return envelope["metadata"]
        return self._wait(envelope["operation"], CHANGE_TIMEOUT)

    def _wait(self, operation: str, timeout: float, told: Callable[[], None] | None = None) -> Any:
        deadline = time.monotonic() + timeout
        path = tuple(operation.removeprefix("/1.0/").split("?")[0].split("/"))
        while True:
            state = self._progress(path, _TOLD_EVERY if told else _WAIT_SLICE)
            what = state["description"] or "operation"
            if state["status"] == "Success":
                return state["metadata"]
            if state["status"] == "Cancelled":
                raise Cancelled(f"{what}: cancelled on the server {self.name}. Run again to do it.")
            if state["status"] == "Failure":
                raise ApiError(state["status_code"], state["err"], f"finish {what!r}")
            if told:
                told()
            if time.monotonic() > deadline:
                raise CowError(f"{what}: {self.name} is still at it after {timeout:g} s. See `incus operation list`.")

    def _progress(self, operation: tuple[str, ...], within: int) -> Any:
        try:
            return self.get(*operation, "wait", timeout=within)
        except ApiError:
            # Waiting answers with an error when the time is up, and when the operation failed; its state tells which.
            return self.get(*operation)

    def _envelope(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, str | int],
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], str]:
        return self._ask(method, _target(path, query), body, headers)

    def _ask(
        self,
        method: str,
        target: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], str]:
        payload = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        return _opened(self._exchange(method, target, payload, sent), method, target)

    def _exchange(
        self, method: str, target: str, payload: bytes | Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> _Answer:
        is_read = method == "GET"
        timeout = READ_TIMEOUT if is_read else CHANGE_TIMEOUT
        broken: Exception | None = None
        for _ in range(2 if is_read else 1):
            try:
                return self._send(method, target, payload, headers, timeout)
            except TimeoutError as error:
                self.close()
                raise CowError(f"{self.name} did not answer {method} {target} within {timeout:g} s.") from error
            except (http.client.HTTPException, OSError) as error:
                self.close()
                broken = error
        effect = "" if is_read else " Whether it took effect is not known."
        raise CowError(
            f"The connection to {self.name} broke during {method} {target}.{effect} Run again, which looks first."
        ) from broken

    def _send(
        self,
        method: str,
        target: str,
        payload: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        timeout: float,
    ) -> _Answer:
        if self._connection is None or self._connection.sock is None:
            self._connection = _opened_connection(self._path)
        self._connection.sock.settimeout(timeout)
        self._connection.request(method, target, body=payload, headers=dict(headers))
        response = self._connection.getresponse()
        return _Answer(response.status, response.headers.get("ETag", ""), response.read())


def connect(path: str = DEFAULT_SOCKET) -> Server:
    """Connect to the daemon that listens on a unix socket. Raises ServerUnreachable with what is wrong with it."""
    server = Server(path)
    server.get()
    return server


def parts(url: str) -> list[str]:
    """Return the parts of the path that the server gave something, as the methods of Server take them."""
    return [unquote(part) for part in url.partition("?")[0].removeprefix("/1.0/").split("/")]


def _opened_connection(path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("incus")
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _explained(path):
        connection.sock.connect(path)
    return connection


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ServerUnreachable(
            f"There is no Incus socket at {path}. Start Incus, with the role incus_host if need be, or correct it."
        ) from error
    except PermissionError as error:
        raise ServerUnreachable(
            f"The Incus socket at {path} is not open to this user. Become root, or join the group incus-admin."
        ) from error
    except ConnectionRefusedError as error:
        raise ServerUnreachable(
            f"Nothing answers on the Incus socket {path}: the daemon is down. Start it: systemctl start incus."
        ) from error
    except OSError as error:
        raise ServerUnreachable(f"The Incus socket {path} cannot be used: {error.strerror or error}.") from error


def _target(path: tuple[str, ...], query: Mapping[str, str | int]) -> str:
    joined = "/".join(["", "1.0", *(quote(part, safe="") for part in path)])
    spelled = {key.replace("_", "-"): value for key, value in query.items()}
    return f"{joined}?{urlencode(spelled)}" if query else joined


def _opened(answer: _Answer, method: str, target: str) -> tuple[dict[str, Any], str]:
    try:
        envelope = json.loads(answer.payload)
        kind = envelope["type"]
    except (ValueError, KeyError, TypeError) as error:
        raise CowError(f"{method} {target} was not answered by an Incus server (status {answer.status}).") from error
    if kind == "error":
        raise ApiError(envelope["error_code"], envelope["error"], f"{method} {target}")
    return envelope, answer.etag


def _error_text(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["error"])
    except (ValueError, KeyError, TypeError):
        return payload[:200].decode("utf-8", "backslashreplace")

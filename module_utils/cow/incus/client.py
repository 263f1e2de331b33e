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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from ..errors import CowError

DEFAULT_SOCKET = "/var/lib/incus/unix.socket"
REQUEST_TIMEOUT = 60.0
"""Seconds a request may take to be answered (not the operation that it may start)."""
OPERATION_TIMEOUT = 900.0
"""Seconds an operation such as an image import may take."""
_WAIT_SLICE = 30
"""Seconds of one long-poll; below REQUEST_TIMEOUT, so that a silent server is noticed."""


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
class Found:
    """A resource as the server has it, with the ETag that a change of it is to be conditional on."""

    body: dict[str, Any]
    etag: str


class Server:
    """A connection to one Incus server, scoped to a project where a call names one.

    A POST is sent once: when the connection breaks before the answer came, whether it took effect is unknown, and that
    is what the error says. Reads are repeated once on a fresh connection, which a daemon's restart makes necessary.
    """

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
        return self._envelope("GET", path, query)[0]["metadata"]

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
        response = self._send("POST", target, chunks, {**headers, "Content-Length": str(length)}, fresh=True)
        return self._settle(*_opened(response, "POST", target))

    def download(self, *path: str, **query: str | int) -> bytes:
        """Return the bytes of a file that the API serves."""
        target = _target(path, query)
        response = self._send("GET", target, None, {})
        payload = response.read()
        if response.status >= http.client.BAD_REQUEST:
            raise ApiError(response.status, _error_text(payload), f"GET {target}")
        return payload

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
        return self._wait(envelope["operation"], OPERATION_TIMEOUT)

    def _wait(self, operation: str, timeout: float) -> Any:
        deadline = time.monotonic() + timeout
        path = tuple(operation.removeprefix("/1.0/").split("?")[0].split("/"))
        while True:
            state = self.get(*path, "wait", timeout=_WAIT_SLICE)
            what = state["description"] or "operation"
            if state["status"] == "Success":
                return state["metadata"]
            if state["status"] == "Cancelled":
                raise Cancelled(f"{what}: cancelled on the server {self.name}. Run again to do it.")
            if state["status"] == "Failure":
                raise ApiError(state["status_code"], state["err"], what[:1].lower() + what[1:])
            if time.monotonic() > deadline:
                raise CowError(f"{what}: {self.name} is still at it after {timeout:g} s. See `incus operation list`.")

    def _envelope(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, str | int],
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], str]:
        target = _target(path, query)
        payload = None if body is None else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            response = self._send(method, target, payload, sent)
        except (http.client.HTTPException, ConnectionError, BrokenPipeError) as error:
            if method != "GET":
                raise CowError(
                    f"The connection to {self.name} broke during {method} {target}. Whether it took effect is not "
                    f"known; run again, which looks first."
                ) from error
            response = self._send(method, target, payload, sent, fresh=True)
        return _opened(response, method, target)

    def _send(
        self,
        method: str,
        target: str,
        payload: bytes | Iterable[bytes] | None,
        headers: Mapping[str, str],
        *,
        fresh: bool = False,
    ) -> http.client.HTTPResponse:
        if fresh:
            self.close()
        if self._connection is None:
            self._connection = _SocketConnection(self._path)
        try:
            self._connection.request(method, target, body=payload, headers=dict(headers))
            return self._connection.getresponse()
        except TimeoutError as error:
            self.close()
            raise CowError(f"{self.name} did not answer {method} {target} within {REQUEST_TIMEOUT:g} s.") from error
        except (http.client.HTTPException, OSError):
            self.close()
            raise


def connect(path: str = DEFAULT_SOCKET) -> Server:
    """Connect to the daemon that listens on a unix socket. Raises ServerUnreachable with what is wrong with it."""
    server = Server(path)
    with _explained(path):
        server.get()
    return server


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("incus", timeout=REQUEST_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ServerUnreachable(
            f"There is no Incus socket at {path}. Install and start Incus with the role incus_host, or correct the path."
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


def _opened(response: http.client.HTTPResponse, method: str, target: str) -> tuple[dict[str, Any], str]:
    payload = response.read()
    try:
        envelope = json.loads(payload)
    except ValueError as error:
        raise CowError(f"{method} {target} was not answered by an Incus server (status {response.status}).") from error
    if envelope["type"] == "error":
        raise ApiError(envelope["error_code"], envelope["error"], f"{method} {target}")
    return envelope, response.headers.get("ETag", "")


def _error_text(payload: bytes) -> str:
    try:
        return str(json.loads(payload)["error"])
    except (ValueError, KeyError, TypeError):
        return payload[:200].decode("utf-8", "backslashreplace")

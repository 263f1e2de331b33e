"""A minimal client of Incus's REST API, independent of the project's own, so that tests have a second opinion."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

TIMEOUT = 120.0
"""Seconds for one answer, and for an operation to end."""


class ApiError(Exception):
    """The daemon refused, or an operation failed; `code` is the HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        """Keep the status for callers that tell absent from refused."""
        super().__init__(f"{message} ({code})")
        self.code = code


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("incus", timeout=TIMEOUT)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def request(socket_path: Path, method: str, path: str, body: Any = None) -> Any:
    """Send one request and return its metadata; a background operation is waited for, and its metadata returned."""
    answer = _send(socket_path, method, path, body)
    if answer["type"] == "async":
        operation = _send(socket_path, "GET", f"{answer['operation']}/wait?timeout={TIMEOUT:.0f}", None)["metadata"]
        if operation["status_code"] != http.client.OK:
            raise ApiError(operation["status_code"], operation["err"] or operation["status"])
        return operation["metadata"]
    return answer["metadata"]


def _send(socket_path: Path, method: str, path: str, body: Any) -> dict[str, Any]:
    connection = _UnixConnection(socket_path)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if answer["type"] == "error":
        raise ApiError(answer["error_code"], answer["error"])
    return answer

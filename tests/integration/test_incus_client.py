"""The client waits for operations to their end, whatever that is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.cow.incus import client
from ansible.module_utils.cow.incus.client import ApiError, Server, connect

from tests.support.incusd import Incusd


@pytest.fixture
def server(incusd: Incusd) -> Iterator[Server]:
    with connect(str(incusd.socket)) as server:
        yield server


def test_operation_that_outlasts_one_wait_is_waited_for(
    server: Server, incusd: Incusd, busybox_image: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    incusd.run("image", "import", *busybox_image, "--alias", "busybox")
    incusd.run("storage", "create", "slow", "dir")
    incusd.run("launch", "busybox", "c1", "--storage", "slow")
    monkeypatch.setattr(client, "_WAIT_SLICE", 1)
    body = {"command": ["sleep", "3"], "wait-for-websocket": False, "interactive": False, "record-output": True}
    assert server.post("instances", "c1", "exec", body=body)["return"] == 0


def test_failed_operation_says_what_failed_and_why(server: Server) -> None:
    remote = {"type": "image", "mode": "pull", "server": "https://127.0.0.1:1", "protocol": "incus", "alias": "x"}
    with pytest.raises(ApiError, match=r"Incus refused to finish 'Downloading image': .*refused"):
        server.post("images", body={"source": remote})

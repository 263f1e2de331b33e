"""incus_launch_probe against a private daemon: it times what it is asked to, and leaves nothing in any case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.ansible import ROOT, Result, run_module
from tests.support.incusd import Incusd
from tests.support.waiting import until

MODULE = "incus_launch_probe"
SERVER = ["sh", "-c", "echo ready > /root/index.html && httpd -p 8080 -h /root"]


@pytest.fixture
def host(incusd: Incusd, busybox_image: tuple[Path, Path]) -> Iterator[Incusd]:
    """A daemon with an image, a pool that clones, and a default profile with a root disk and a NIC."""
    incusd.run("image", "import", *busybox_image, "--alias", "busybox")
    incusd.run("storage", "create", "fast", "btrfs", "size=512MiB")
    incusd.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=fast")
    incusd.run("profile", "device", "add", "default", "eth0", "nic", f"network={incusd.make_bridge()}")
    yield incusd
    assert instances(incusd) == []


def instances(daemon: Incusd) -> list[str]:
    return [str(url).rsplit("/", 1)[-1] for url in daemon.api("GET", "/1.0/instances")]


def run(daemon: Incusd, check: bool = False, **options: Any) -> Result:
    return run_module(MODULE, {"socket": str(daemon.socket), "image": "busybox", **options}, check)


def refused(daemon: Incusd, **options: Any) -> str:
    result = run(daemon, **options)
    assert result["failed"]
    return str(result["msg"])


def test_phases_are_timed(host: Incusd) -> None:
    files = [{"path": "/root/conf", "content": "größe = 1\n", "mode": "0600"}]
    command = ["sh", "-c", "grep -q größe /root/conf && " + SERVER[-1]]
    http = {"url": "http://{address}:8080/"}
    targets = {"launch": 3_600_000, "network": 0.001}
    result = run(host, files=files, command=command, http=http, targets=targets, runs=3)
    assert not result.get("failed"), result
    assert not result["changed"]
    phases = {row["name"]: row for row in result["phases"]}
    assert list(phases) == ["create", "start", "network", "push", "reload", "http", "delete", "launch", "total"]
    assert all(row["ms"] > 0 for row in phases.values())
    assert phases["launch"]["ms"] == pytest.approx(phases["create"]["ms"] + phases["start"]["ms"], abs=0.2)
    assert [row["name"] for row in result["phases"] if not row["ok"]] == ["network"]
    assert not result["ok"]
    assert result["address"].startswith(host.subnet.rpartition(".")[0])
    assert (result["storage_pool"]["name"], result["storage_pool"]["driver"], result["runs"]) == ("fast", "btrfs", 3)


def test_a_network_of_ipv6_alone_gives_an_ipv6_address(host: Incusd) -> None:
    config = {"ipv4.address": "none", "ipv6.address": "fd42:c0:ed::1/64", "ipv6.nat": "false"}
    host.run("network", "set", host.bridge, *(f"{key}={value}" for key, value in config.items()))
    result = run(host)
    assert not result.get("failed"), result
    assert result["address"].startswith("fd42:c0:ed:")


def test_container_without_network_on_another_pool(host: Incusd) -> None:
    host.run("storage", "create", "slow", "dir")
    host.run("profile", "create", "bare")
    result = run(host, profiles=["bare"], pool="slow", targets={"network": 1000}, config={"limits.processes": 100})
    phases = {row["name"]: row for row in result["phases"]}
    assert (phases["network"]["ms"], phases["network"]["reason"]) == (None, "the container has no NIC")
    assert not phases["network"]["ok"]
    assert phases["push"]["ms"] is None
    assert phases["push"]["ok"]
    assert result["address"] is None
    assert (result["storage_pool"]["name"], result["storage_pool"]["driver"]) == ("slow", "dir")
    assert run(host, pool="slow")["storage_pool"]["driver"] == "dir"


def test_check_mode_launches_nothing(host: Incusd) -> None:
    result = run(host, check=True)
    assert result["skipped"]
    assert "launched" in result["msg"]


def test_failures_leave_nothing(host: Incusd) -> None:
    said = refused(host, command=["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert "status 3" in said
    assert "out\nerr" in said
    assert "within 0.5 s" in refused(host, http={"url": "http://{address}:1/", "timeout": 0.5})
    assert "answer 201" in refused(
        host, command=SERVER, http={"url": "http://{address}:8080/", "status": 201, "timeout": 0.5}
    )
    assert "no address within" in refused(host, network_timeout=0)


def test_bad_input_is_refused(host: Incusd) -> None:
    assert "no image none" in refused(host, image="none")
    assert "no phase boot" in refused(host, targets={"boot": 1})
    assert "number of milliseconds" in refused(host, targets={"start": "fast"})
    assert "cannot be the name" in refused(host, name_prefix="-x")
    assert "cannot be the name" in refused(host, pool="-x")
    assert "at least one" in refused(host, runs=0)
    assert "not an absolute path" in refused(host, files=[{"path": "etc/x", "content": ""}])
    assert "has no NIC" in refused(host, profiles=[], pool="fast", http={"url": "http://{address}/"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_ended_by_a_signal(host: Incusd, number: signal.Signals) -> None:
    probe = _start(host, command=["sleep", "60"])
    until(lambda: instances(host))
    probe.send_signal(number)
    stdout, stderr = probe.communicate(timeout=60)
    assert number.name in json.loads(stdout)["msg"], stderr


def test_what_a_killed_probe_left_is_removed(host: Incusd) -> None:
    probe = _start(host, command=["sleep", "60"])
    (left,) = until(lambda: instances(host))
    probe.kill()
    probe.communicate()
    host.run("init", "busybox", "cowherd-probe-mine")
    assert run(host)["phases"]
    assert instances(host) == ["cowherd-probe-mine"], left
    host.run("delete", "cowherd-probe-mine")


def _start(daemon: Incusd, **options: Any) -> subprocess.Popen[bytes]:
    """Start the module and return while it runs."""
    arguments = {"socket": str(daemon.socket), "image": "busybox", **options}
    process = subprocess.Popen(
        [sys.executable, "-P", ROOT / "tests/support/module_main.py", ROOT / "library" / f"{MODULE}.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(arguments).encode())
    process.stdin.close()
    process.stdin = None
    return process

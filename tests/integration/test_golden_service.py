"""golden_service on a host whose systemd it tells what to run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import fleet, needs
from tests.support.ansible import FourRuns, Result, four_runs_by, run_playbook

CONFIGURATION = "/etc/cowherd/builds.json"
MOUNT, TIMER = "cow-session-builds-mount.service", "cow-session-builds-gc.timer"


@pytest.fixture(scope="module")
def hosts() -> Iterator[fleet.Fleet]:
    needs.incus()
    needs.program("mmdebstrap")
    with fleet.running(["service-01"], group="golden_hosts") as running:
        running.hosts[0].run("mkdir", "/srv/golden")
        yield running


@pytest.fixture
def host(hosts: fleet.Fleet) -> Iterator[fleet.Host]:
    """The host, which is as it was after the test."""
    yield hosts.hosts[0]
    hosts.hosts[0].run("sh", "-c", "systemctl --quiet disable --now 'cow-session-*'; rm -f /etc/systemd/system/cow-*")
    hosts.hosts[0].run("sh", "-c", "rm -rf /etc/cowherd; systemctl daemon-reload")


def run(hosts: fleet.Fleet, folder: Path, check: bool, *asked: dict[str, Any]) -> list[Result]:
    """What the module returns on the host for each of these arguments."""
    tasks = [{"golden_service": {"name": "builds", **args}, "diff": True, "ignore_errors": True} for args in asked]
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([{"name": "Play", "hosts": "all", "gather_facts": False, "tasks": tasks}]))
    return [task.result for task in run_playbook(playbook, hosts.inventory, check=check).succeeded().tasks]


def state(host: fleet.Host) -> str:
    """The files, and what systemd says of the units."""
    files = "find /etc/cowherd /etc/systemd/system -printf '%p %y %m %T@\\n' 2>/dev/null | sort"
    units = f"systemctl is-enabled {MOUNT} {TIMER} 2>&1; systemctl is-active {MOUNT} {TIMER}"
    return host.run("sh", "-c", f"{files}; {units}; true")


def four(hosts: fleet.Fleet, folder: Path, **args: Any) -> FourRuns:
    asked = {"store": "/srv/golden", "command": "/bin/true", **args}
    return four_runs_by(lambda check: run(hosts, folder, check, asked)[0], state=lambda: state(hosts.hosts[0]))


def test_units_come_change_and_go(hosts: fleet.Fleet, host: fleet.Host, tmp_path: Path) -> None:
    made = four(hosts, tmp_path, backend="copy", keep=5)
    assert made.do["steps"][-2:] == ["have systemd read its units again", f"start and enable {MOUNT} and {TIMER}"]
    assert (made.check["configuration"], made.check["units"]) == (None, [])
    assert (made.again["configuration"], len(made.again["units"])) == (CONFIGURATION, 3)
    assert host.run("systemctl", "is-active", MOUNT, TIMER) == "active\nactive\n"
    configured = json.loads(host.run("cat", CONFIGURATION))
    assert (configured["store"], configured["backend"], configured["keep"]) == ("/srv/golden", "copy", 5)

    host.run("systemctl", "--quiet", "disable", "--now", MOUNT)
    other = four(hosts, tmp_path, backend="copy", keep=5, collect="hourly", trim="weekly")
    assert MOUNT in other.do["steps"][-1]
    assert f"write /etc/systemd/system/{TIMER}" in other.do["steps"]
    assert "daily" in other.do["diff"][0]["before"]
    assert "OnCalendar=hourly" in host.run("systemctl", "cat", TIMER)
    host.run("systemd-analyze", "verify", *(f"/etc/systemd/system/{unit}" for unit in other.again["units"]))

    gone = four(hosts, tmp_path, state="absent")
    assert f"remove {CONFIGURATION}" in gone.do["steps"]
    assert (gone.again["configuration"], gone.again["units"]) == (None, [])
    assert "cow-session" not in host.run("systemctl", "list-units", "--all", "cow-session-builds-*")


def test_what_cannot_be_is_refused(hosts: fleet.Fleet, host: fleet.Host, tmp_path: Path) -> None:
    host.run("sh", "-c", f"echo '[Unit]' >/etc/systemd/system/{MOUNT}")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"store": "/srv/golden"}, "is not Cowherd's"),
        ({"store": "/srv/golden", "name": "other", "collect": "at noon"}, "does not read as a time"),
        ({"store": "/srv/golden", "name": "../other"}, "cannot be the name of a service"),
        ({"name": "other"}, "state is present but all of the following are missing: store"),
    ]
    before = state(host)
    for check in (True, False):
        results = run(hosts, tmp_path, check, *(args for args, _ in cases))
        for result, (_, said) in zip(results, cases, strict=True):
            assert said in result["msg"]
    assert state(host) == before

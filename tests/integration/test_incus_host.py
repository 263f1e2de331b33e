"""The role incus_host on a bare Debian with systemd: check mode announces what the run does, and one run is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import fleet, needs, waiting
from tests.support.ansible import PlaybookRun, run_playbook

PLAY = """\
- hosts: incus_hosts
  gather_facts: false
  roles:
    - incus_host
  post_tasks:
    - name: Show what others are told
      ansible.builtin.debug:
        var: incus_host_pending
"""

INSTALLED = ("btrfs-progs", "dnsmasq-base", "incus-base", "incus-client")


@pytest.fixture(scope="module")
def bare() -> Iterator[fleet.Fleet]:
    needs.incus()
    needs.program("mmdebstrap")
    with fleet.running(["bare"]) as running:
        yield running


@pytest.fixture
def play(tmp_path: Path) -> Path:
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAY)
    return playbook


def run(play: Path, hosts: fleet.Fleet, *, check: bool = False, **variables: Any) -> PlaybookRun:
    return run_playbook(play, hosts.inventory, check=check, variables={"incus_host_converge": False, **variables})


def result(run: PlaybookRun, task: str) -> dict[str, Any]:
    (found,) = (done.result for done in run.tasks if done.task.endswith(task) and done.status != "skipped")
    return found


def packages(host: fleet.Host) -> set[str]:
    """Those that are installed; asked for again when nothing is told, for `incus exec` lost its output once."""
    return waiting.until(lambda: set(host.run("dpkg-query", "--show", "--showformat=${Package}\\n").split()))


def remote_executions(run: PlaybookRun) -> list[str]:
    on_the_controller = {"assert", "debug", "include_tasks", "set_fact", "validate_argument_spec"}
    actions = [task.action.removeprefix("ansible.builtin.") for task in run.tasks if task.status != "skipped"]
    return [action for action in actions if action not in on_the_controller]


def test_bare_host_gets_incus(play: Path, bare: fleet.Fleet) -> None:
    (host,) = bare.hosts
    before = packages(host)

    announced = run(play, bare, check=True).succeeded()
    assert announced.changed == {"bare": 1}
    said = result(announced, "Say what would be installed")["msg"]
    assert all(package in said for package in INSTALLED)
    assert result(announced, "Show what others are told")["incus_host_pending"] is True
    assert packages(host) == before

    done = run(play, bare).succeeded()
    assert done.changed["bare"] > 0
    assert set(INSTALLED) <= packages(host)
    assert host.run("systemctl", "is-enabled", "incus.socket").strip() == "enabled"
    assert "server_version" in host.run("incus", "query", "/1.0")
    assert result(done, "Show what others are told")["incus_host_pending"] is False

    for check in (False, True):
        again = run(play, bare, check=check).succeeded()
        assert again.changed == {"bare": 0}
        assert remote_executions(again) == ["cow_facts"]


def test_daemon_that_was_stopped_and_disabled_runs_again(play: Path, bare: fleet.Fleet) -> None:
    (host,) = bare.hosts
    run(play, bare).succeeded()
    host.run("systemctl", "disable", "--now", "incus.socket", "incus.service")
    title = "start and enable incus.socket and incus.service"
    assert result(run(play, bare, check=True).succeeded(), "Have the daemon run")["steps"] == [title]
    assert result(run(play, bare).succeeded(), "Have the daemon run")["steps"] == [title]
    assert host.run("systemctl", "is-enabled", "incus.socket").strip() == "enabled"
    assert run(play, bare).succeeded().changed == {"bare": 0}


@pytest.mark.parametrize("check", [False, True], ids=["run", "check mode"])
@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"incus_host_minimum_versio": "6.0"}, "no variable incus_host_minimum_versio."),
        ({"incus_host_minimum_version": "six"}, "which is not a version"),
        ({"incus_host_socket": "/run/incus.socket"}, "always called unix.socket"),
        ({"incus_host_minimum_version": "999", "incus_host_add_backports": False}, "they are not to be added"),
    ],
)
def test_bad_input(play: Path, bare: fleet.Fleet, variables: dict[str, str], sentence: str, check: bool) -> None:
    (host,) = bare.hosts
    before = packages(host)
    refused = run(play, bare, check=check, **variables)
    assert refused.status != 0
    assert sentence in refused.output
    assert "Traceback" not in refused.output
    assert packages(host) == before

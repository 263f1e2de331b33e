"""playbooks/golden.yml on a bare host with systemd whose disk is a btrfs."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import fleet, needs
from tests.support.ansible import PlaybookRun, run_playbook
from tests.support.waiting import until

PLAYBOOK = "playbooks/golden.yml"
NAME = "golden-01"
STORE = "/srv/golden"
ALICE = "/srv/alice"
VARIABLES: dict[str, Any] = {
    "golden_cache_store": STORE,
    "golden_cache_expect": "btrfs",
    "golden_cache_reserve": "64MiB",
    "golden_cache_projects": [{"name": "monorepo", "source": "/srv/build"}],
    "golden_cache_sessions": [
        {"project": "monorepo", "name": "alice", "path": ALICE},
        {"project": "monorepo", "name": "bob"},
    ],
}
TIMER = "cow-session-golden-gc.timer"
MOUNT = "cow-session-golden-mount.service"
SOCKET, SERVER = "cow-session.socket", "cow-session.service"


@pytest.fixture(scope="module")
def hosts() -> Iterator[fleet.Fleet]:
    needs.incus()
    needs.program("mmdebstrap")
    with fleet.running([NAME], group="golden_hosts") as running:
        running.hosts[0].run("sh", "-c", "mkdir -p /srv/build/folder && echo built >/srv/build/folder/file")
        yield running


@pytest.fixture(scope="module")
def host(hosts: fleet.Fleet) -> fleet.Host:
    return hosts.hosts[0]


def play(hosts: fleet.Fleet, *, check: bool = False, **variables: Any) -> PlaybookRun:
    return run_playbook(PLAYBOOK, hosts.inventory, check=check, variables={**VARIABLES, **variables})


def files(host: fleet.Host) -> str:
    """All that the playbook could write, other than packages."""
    places = "/srv /etc/cowherd /etc/systemd/system /usr/local/bin /var/lib/cowherd"
    return host.run("sh", "-c", f"find {places} -printf '%p %y %m %T@\\n' 2>/dev/null | sort; true")


def command(host: fleet.Host, *argv: str) -> dict[str, Any]:
    """What cow-session prints."""
    printed: dict[str, Any] = json.loads(host.run("cow-session", *argv))
    return printed


def steps(run: PlaybookRun) -> list[str]:
    return [step for task in run.tasks for step in task.result.get("steps", [])]


def session(host: fleet.Host, name: str) -> dict[str, Any]:
    (project,) = command(host, "list", "monorepo", "--no-sizes")["projects"]
    (found,) = (each for each in project["sessions"] if each["name"] == name)
    return dict(found)


@pytest.fixture(scope="module")
def runs(hosts: fleet.Fleet, host: fleet.Host) -> dict[str, PlaybookRun]:
    """In check mode on the bare host, for real, and both once more."""
    run = functools.partial(play, hosts)
    before = files(host)
    check = run(check=True).succeeded()
    assert files(host) == before
    return {"check": check, "do": run().succeeded(), "again": run().succeeded(), "again in check": run(check=True)}


def test_check_mode_announces_what_the_run_does(runs: dict[str, PlaybookRun]) -> None:
    assert "Would install btrfs-progs" in runs["check"].output
    announced = steps(runs["check"])
    assert announced
    assert announced == steps(runs["do"])[: len(announced)]


def test_a_second_run_changes_nothing(runs: dict[str, PlaybookRun]) -> None:
    for name in ("again", "again in check"):
        assert runs[name].succeeded().changed == {NAME: 0}, runs[name].output


@pytest.mark.usefixtures("runs")
def test_sessions_are_clones_that_can_be_written(host: fleet.Host) -> None:
    assert host.run("cat", f"{ALICE}/folder/file") == "built\n"
    host.run("sh", "-c", f"echo mine >{ALICE}/folder/file")
    path = session(host, "bob")["path"]
    assert host.run("cat", f"{path}/folder/file") == "built\n"


@pytest.mark.usefixtures("runs")
def test_systemd_has_the_units_that_were_asked_for(host: fleet.Host) -> None:
    assert host.run("systemctl", "is-active", TIMER) == "active\n"
    assert host.run("systemctl", "is-enabled", TIMER, MOUNT) == "enabled\nenabled\n"
    assert "trim" not in host.run("ls", "/etc/systemd/system")
    host.run("systemctl", "start", TIMER.replace(".timer", ".service"))
    host.run("systemd-analyze", "verify", *(f"/etc/systemd/system/{unit}" for unit in (TIMER, MOUNT)))


@pytest.mark.usefixtures("runs")
def test_the_fork_server_is_started_when_somebody_comes(host: fleet.Host) -> None:
    host.run("systemctl", "stop", SERVER)
    command(host, "clone", "monorepo", "served", "--at", "/srv/served")
    assert host.run("systemctl", "is-active", SOCKET, SERVER) == "active\nactive\n"
    assert host.run("cat", "/srv/served/folder/file") == "built\n"
    command(host, "destroy", "monorepo", "served")
    assert host.run("stat", "--format=%a %U", "/run/cowherd/session.socket") == "600 root\n"
    host.run("systemd-analyze", "verify", *(f"/etc/systemd/system/{unit}" for unit in (SOCKET, SERVER)))


@pytest.mark.usefixtures("runs")
def test_a_program_that_was_replaced_is_what_is_served_next(host: fleet.Host) -> None:
    command(host, "clone", "monorepo", "served")
    before = host.run("systemctl", "show", "--property=MainPID", SERVER)
    host.run("sh", "-c", "cd /usr/local/bin && cp -a cow-session next && mv next cow-session")
    command(host, "destroy", "monorepo", "served")  # by itself; the server sees that it is of the past, and ends
    until(lambda: host.run("systemctl", "show", "--property=MainPID", SERVER) != before)
    command(host, "clone", "monorepo", "served")
    command(host, "destroy", "monorepo", "served")
    assert host.run("systemctl", "is-active", SOCKET, SERVER) == "active\nactive\n"
    assert host.run("systemctl", "show", "--property=MainPID", SERVER) not in (before, "MainPID=0\n")


def test_sessions_are_mounted_again_after_a_reboot(
    hosts: fleet.Fleet, host: fleet.Host, runs: dict[str, PlaybookRun]
) -> None:
    assert runs
    host.run("sh", "-c", f"echo before >{ALICE}/note")
    host.restart()
    until(lambda: host.run("systemctl", "is-active", MOUNT) == "active\n", within=60)
    assert session(host, "alice")["mounted"]
    assert host.run("cat", f"{ALICE}/note") == "before\n"
    again = play(hosts).succeeded()
    assert again.changed == {NAME: 0}, again.output


@pytest.mark.usefixtures("runs")
def test_a_source_that_changed_is_the_next_generation(hosts: fleet.Fleet, host: fleet.Host) -> None:
    host.run("sh", "-c", "echo built again >/srv/build/folder/file")
    run = play(hosts).succeeded()
    assert run.changed == {NAME: 1}, run.output
    assert session(host, "alice")["generation"] == 1
    cloned = command(host, "clone", "monorepo", "carol")
    assert host.run("cat", f"{cloned['path']}/folder/file") == "built again\n"


@pytest.mark.usefixtures("runs")
def test_units_that_are_no_longer_asked_for_go(hosts: fleet.Fleet, host: fleet.Host) -> None:
    run = play(hosts, golden_cache_collect="", golden_cache_mount=False, golden_cache_fork_server=False).succeeded()
    assert f"stop and disable {MOUNT} and {TIMER}" in steps(run)
    assert "cow-session" not in host.run("ls", "/etc/systemd/system")
    assert session(host, "alice")["mounted"]
    assert play(hosts).succeeded().changed == {NAME: 2}
    assert host.run("systemctl", "is-enabled", TIMER, SOCKET) == "enabled\nenabled\n"


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"golden_cache_stoer": STORE}, "no variable golden_cache_stoer."),
        ({"golden_cache_device": "/dev/vdb"}, "which is for a pool of ZFS"),
        ({"golden_cache_backend": "zfs"}, "needs a dataset, as POOL/NAME"),
        ({"golden_cache_expect": "reflink"}, "The backend reflink was expected"),
        ({"golden_cache_collect": "at times"}, "which systemd does not read as a time"),
        ({"golden_cache_reserve": "much"}, "'much' is not a size"),
        ({"golden_cache_keep": 0}, "Give 1 or more"),
        ({"golden_cache_projects": [{"name": "../up"}]}, "cannot be the name of a golden project"),
        ({"golden_cache_projects": [{"name": "p", "source": "/srv/missing"}]}, "does not exist"),
        ({"golden_cache_sessions": [{"project": "p", "name": "a"}]}, "There is no project p"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_bad_input(hosts: fleet.Fleet, host: fleet.Host, variables: dict[str, Any], sentence: str) -> None:
    before = files(host)
    refused = play(hosts, **variables)
    assert refused.status != 0
    assert sentence in " ".join(refused.output.split())
    assert "Traceback" not in refused.output
    assert files(host) == before

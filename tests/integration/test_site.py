"""site.yml over a fleet of bare hosts with systemd: they get Incus and a pool that clones, and one of them is away."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.support import fleet, images, needs
from tests.support.ansible import PlaybookRun, run_playbook

REACHED = ("pi-01", "pi-02")
AWAY = "pi-03"
MOST_REMOTE_EXECUTIONS = 3


@pytest.fixture(scope="module")
def hosts() -> Iterator[fleet.Fleet]:
    needs.incus()
    needs.program("mmdebstrap")
    with fleet.running([*REACHED, AWAY]) as running:
        running.hosts[-1].switch_off()
        yield running


@pytest.fixture(scope="module")
def variables(hosts: fleet.Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The small image comes from a web server on the bridge of the hosts."""
    folder = tmp_path_factory.mktemp("images")
    image = images.busybox_unified(folder)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    address = hosts.daemon.subnet.split("/")[0]
    with ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        checksum = f"sha256:{hashlib.sha256(image.read_bytes()).hexdigest()}"
        url = f"http://{address}:{server.server_address[1]}/{image.name}"
        yield {
            "cow_pool_size": "6GiB",
            "base_image_images": [{"alias": "base", "url": {"url": url, "checksum": checksum}}],
        }
        server.shutdown()


@pytest.fixture(scope="module")
def runs(hosts: fleet.Fleet, variables: dict[str, Any]) -> dict[str, PlaybookRun]:
    """In check mode on bare hosts, for real, and once more."""
    site = functools.partial(
        run_playbook, "site.yml", hosts.inventory, variables=variables, environment={"ANSIBLE_TIMEOUT": "5"}
    )
    return {"check": site(check=True), "do": site(), "again": site()}


def _steps(run: PlaybookRun, host: str) -> list[str]:
    return [step for task in run.tasks if task.host == host for step in task.result.get("steps", [])]


def _remote(run: PlaybookRun, host: str) -> list[str]:
    """The tasks that ran a module on the host: those whose result says with which arguments."""
    return [task.task for task in run.tasks if task.host == host and "invocation" in task.result]


def test_the_others_converge_while_one_is_away(hosts: fleet.Fleet, runs: dict[str, PlaybookRun]) -> None:
    run = runs["do"]
    assert run.stats[AWAY]["unreachable"] == 1, run.output
    for host in hosts.hosts[:-1]:
        assert run.stats[host.name]["failures"] == 0, run.output
        assert "driver: btrfs" in host.run("incus", "storage", "show", "default")
        assert host.run("incus", "profile", "device", "get", "default", "root", "pool") == "default\n"
        host.run("incus", "launch", "base", "c1")
        assert "c1" in host.run("incus", "list", "--format=csv")
        host.run("incus", "delete", "--force", "c1")


def test_a_second_run_changes_nothing(runs: dict[str, PlaybookRun]) -> None:
    assert {host: runs["again"].changed[host] for host in REACHED} == dict.fromkeys(REACHED, 0), runs["again"].output


def test_a_second_run_costs_three_remote_executions_at_most(runs: dict[str, PlaybookRun]) -> None:
    for host in REACHED:
        assert 0 < len(_remote(runs["again"], host)) <= MOST_REMOTE_EXECUTIONS, _remote(runs["again"], host)


def test_check_mode_on_a_bare_host_lists_what_the_run_does(runs: dict[str, PlaybookRun]) -> None:
    for host in REACHED:
        assert runs["check"].stats[host]["failures"] == 0, runs["check"].output
        announced = _steps(runs["check"], host)
        assert announced, runs["check"].output
        assert announced == [step for step in _steps(runs["do"], host) if not step.startswith("start ")]
    assert "Would install incus-base" in runs["check"].output


def test_a_misspelt_variable_ends_before_anything_is_written(hosts: fleet.Fleet, variables: dict[str, Any]) -> None:
    run = run_playbook(
        "site.yml", hosts.inventory, "--limit", REACHED[0], variables={**variables, "cow_pool_sise": "9GiB"}
    )
    assert run.status != 0
    assert "no variable cow_pool_sise" in run.output
    assert not _steps(run, REACHED[0])

"""Hosts made of containers do what hosts do: Ansible reaches them, and each runs containers on its own btrfs pool."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import fleet, needs
from tests.support.ansible import run_playbook
from tests.support.waiting import until

PING = """\
- hosts: all
  gather_facts: false
  tasks:
    - name: Ping
      ansible.builtin.ping:
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[fleet.Fleet]:
    needs.incus()
    needs.program("mmdebstrap")
    with fleet.running(["host-1", "host-2"], fleet.INCUS_PACKAGES) as running:
        yield running


def test_host_runs_containers_on_its_own_btrfs_pool(hosts: fleet.Fleet, busybox_image: tuple[Path, Path]) -> None:
    host = hosts.hosts[0]
    for file in busybox_image:
        hosts.daemon.run("file", "push", file, f"{host.name}/root/{file.name}")
    host.run("incus", "image", "import", *(f"/root/{file.name}" for file in busybox_image), "--alias", "busybox")
    host.run("incus", "storage", "create", "fast", "btrfs", "size=1GiB")
    host.run("incus", "network", "create", "inner", "ipv4.address=10.99.0.1/24", "ipv6.address=none")
    host.run("incus", "launch", "busybox", "c1", "--storage", "fast", "--network", "inner")
    until(lambda: "(eth0)" in host.run("incus", "list", "--format=csv", "--columns=4", "c1"))
    assert host.run("incus", "exec", "c1", "--", "hostname") == "c1\n"
    assert host.run("findmnt", "--noheadings", "--output=FSTYPE", "/var/lib/incus/storage-pools/fast") == "btrfs\n"


def test_ansible_reaches_the_hosts_and_misses_one(hosts: fleet.Fleet, tmp_path: Path) -> None:
    playbook = tmp_path / "ping.yml"
    playbook.write_text(PING)
    assert run_playbook(playbook, hosts.inventory).succeeded().stats.keys() == {"host-1", "host-2"}
    hosts.hosts[1].switch_off()
    run = run_playbook(playbook, hosts.inventory, environment={"ANSIBLE_TIMEOUT": "3"})
    assert {task.host: task.status for task in run.tasks} == {"host-1": "ok", "host-2": "unreachable"}


def test_template_is_made_once() -> None:
    needs.incus()
    needs.program("mmdebstrap")
    first = fleet.template(fleet.INCUS_PACKAGES)
    made = first.stat().st_mtime_ns
    assert fleet.template(fleet.INCUS_PACKAGES).stat().st_mtime_ns == made
    assert not first.is_relative_to(Path(__file__).parents[2])

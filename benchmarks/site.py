"""A run of site.yml that changes nothing: how long it takes, and how many modules run on the host."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from tests.support import images, incusd
from tests.support.ansible import PlaybookRun, run_playbook

from .timing import interleaved, milliseconds, table

ROUNDS = 5
PING = """\
- name: Ping
  hosts: incus_hosts
  gather_facts: false
  tasks:
    - name: Ping
      ansible.builtin.ping:
"""


def measure() -> str:
    """Measure against a playbook with one task, which is what Ansible itself costs."""
    with incusd.running() as daemon, tempfile.TemporaryDirectory() as folder:
        site = partial(run_playbook, "site.yml", "inventories/local", variables=_variables(daemon, Path(folder)))
        ping = Path(folder) / "ping.yml"
        ping.write_text(PING)
        site().succeeded()
        remote = _remote_executions(site().succeeded())
        timings = interleaved(
            {
                "site.yml, nothing to change": lambda: milliseconds(site),
                "one ping": lambda: milliseconds(lambda: run_playbook(ping, "inventories/local")),
            },
            ROUNDS,
        )
    what = (
        f"On this machine by local connection, launch probe included; {ROUNDS} interleaved rounds. "
        f"Modules that ran on the host: {len(remote)} ({', '.join(remote)})."
    )
    return f"{what}\n\n{table(timings, 'one ping')}"


def _variables(daemon: incusd.Incusd, folder: Path) -> dict[str, object]:
    metadata, rootfs = images.busybox_image(folder)
    return {
        "incus_host_socket": str(daemon.socket),
        "incus_host_networks": [{"name": daemon.bridge, "config": {"ipv4.address": daemon.subnet}}],
        "incus_host_profiles": [
            {"name": "default", "fallback_devices": {"eth0": {"type": "nic", "network": daemon.bridge}}}
        ],
        "cow_pool_size": "2GiB",
        "base_image_images": [{"alias": "base", "files": {"metadata": str(metadata), "rootfs": str(rootfs)}}],
    }


def _remote_executions(run: PlaybookRun) -> list[str]:
    return [task.action for task in run.tasks if "invocation" in task.result]

"""Hosts made of containers: each runs systemd, answers to ssh, and can have an Incus of its own with btrfs pools."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import images, incusd, leftovers
from .waiting import until

SUITE = "trixie"

PACKAGES = ("ca-certificates", "dbus", "iproute2", "openssh-server", "python3", "systemd-resolved", "systemd-sysv")
"""What a bare host has."""

INCUS_PACKAGES = ("btrfs-progs", "dnsmasq-base", "incus-base", "incus-client")
"""What a host has besides on which Incus is installed; its daemon starts with the first request."""

GROUP = "incus_hosts"
"""The group of the inventory that playbooks for Incus are for."""

_LOOP_DEVICES = 128

_DEVICE_NODES = [
    "c /dev/loop-control 0600 root root - 10:237",
    "c /dev/btrfs-control 0600 root root - 10:234",
    *(f"b /dev/loop{number} 0600 root root - 7:{number}" for number in range(_LOOP_DEVICES)),
]

_NETWORK = """\
[Match]
Name=eth0
[Network]
DHCP=ipv4
[DHCPv4]
ClientIdentifier=mac
"""

_RAW_LXC = """\
lxc.mount.entry = none sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0
lxc.mount.entry = none proc/sys/fs/binfmt_misc tmpfs ro,size=4k 0 0
lxc.cgroup.devices.allow = b 7:* rwm
lxc.cgroup.devices.allow = c 10:237 rwm
lxc.cgroup.devices.allow = c 10:234 rwm
"""
"""A cgroup tree for their systemd; binfmt_misc covered, which it would clear for all; loop devices and btrfs."""


@dataclass(frozen=True)
class Host:
    """One host: its name, its IPv4 address on the bridge, and the daemon in which it is a container."""

    name: str
    address: str
    daemon: incusd.Incusd

    def run(self, *argv: str) -> str:
        """Run a command on the host as root and return its output; a failure raises RuntimeError."""
        return self.daemon.run("exec", self.name, "--", *argv)

    def switch_off(self) -> None:
        """Make the host unreachable."""
        self.daemon.run("stop", "--force", self.name)

    def restart(self) -> None:
        """Reboot the host, and return when it is up."""
        self.daemon.run("restart", self.name)
        until(lambda: _is_up(self), within=120)
        until(lambda: self.daemon.address(self.name) == self.address)


@dataclass(frozen=True)
class Fleet:
    """Hosts that are up. inventory: for Ansible, by ssh, as one group. daemon: in which they are containers."""

    hosts: tuple[Host, ...]
    inventory: Path
    daemon: incusd.Incusd


@contextmanager
def running(names: Sequence[str], packages: Sequence[str] = (), group: str = GROUP) -> Iterator[Fleet]:
    """Hosts of these names for the length of the block, with `packages` installed besides PACKAGES, in a group."""
    with ExitStack() as cleanup:
        folder = leftovers.new_folder()
        cleanup.callback(leftovers.remove, folder)
        daemon = cleanup.enter_context(incusd.running())
        _prepare(daemon, folder, packages)
        public_key = (folder / "key.pub").read_text().strip()
        with ThreadPoolExecutor(4) as pool:
            hosts = tuple(pool.map(lambda name: _launch(daemon, name, public_key), names))
        yield Fleet(hosts, _write_inventory(folder, hosts, group), daemon)


def template(packages: Sequence[str] = ()) -> Path:
    """The root file system of a host as a tar, kept in the cache."""
    hooks = [
        _writes("etc/tmpfiles.d/devices.conf", "\n".join(_DEVICE_NODES) + "\n"),
        _writes("etc/systemd/network/eth0.network", _NETWORK),
        _writes("etc/machine-id", ""),
        'systemctl --root="$1" enable systemd-networkd',
    ]
    options = [f"--customize-hook={hook}" for hook in hooks]
    return images.debian_rootfs(SUITE, [*PACKAGES, *packages], options=options)


def _writes(path: str, text: str) -> str:
    return f'cat >"$1/{path}" <<"END"\n{text}END\n'


def _prepare(daemon: incusd.Incusd, folder: Path, packages: Sequence[str]) -> None:
    """Import the template, make the pool and the bridge, and a key by which to reach the hosts."""
    metadata = images.metadata_tar(folder, f"Debian {SUITE}")
    daemon.run("image", "import", metadata, template(packages), "--alias", "host")
    daemon.run("storage", "create", "hosts", "btrfs", "size=60GiB")
    daemon.make_bridge()
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key")


def _launch(daemon: incusd.Incusd, name: str, public_key: str) -> Host:
    daemon.api(
        "POST",
        "/1.0/instances",
        {
            "name": name,
            "source": {"type": "image", "alias": "host"},
            "config": {"security.nesting": "true", "security.privileged": "true", "raw.lxc": _RAW_LXC},
            "devices": {
                "root": {"type": "disk", "path": "/", "pool": "hosts"},
                "eth0": {"type": "nic", "network": daemon.bridge},
            },
        },
    )
    daemon.run("start", name)
    host = Host(name, until(lambda: daemon.address(name)), daemon)
    until(lambda: _is_up(host), within=120)
    host.run("install", "-d", "-m", "700", "/root/.ssh")
    host.run("sh", "-c", 'echo "$1" >/root/.ssh/authorized_keys', "sh", public_key)
    return host


def _is_up(host: Host) -> bool:
    """Whether systemd has started all; asked only once its bus answers, for before that it says so of nothing."""
    script = "test -S /run/dbus/system_bus_socket && systemctl is-system-running --wait"
    try:
        return host.run("sh", "-c", f"{script} || systemctl is-system-running | grep -q degraded") != ""
    except RuntimeError:
        return False


def _write_inventory(folder: Path, hosts: Sequence[Host], group: str) -> Path:
    """JSON is YAML. The connections that ssh keeps open have their sockets in the folder, so that they go with it."""
    variables = {
        "ansible_user": "root",
        "ansible_python_interpreter": "/usr/bin/python3",
        "ansible_ssh_private_key_file": str(folder / "key"),
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        "ansible_control_path_dir": str(folder),
    }
    inventory = folder / "inventory.yml"
    addresses = {host.name: {"ansible_host": host.address} for host in hosts}
    inventory.write_text(json.dumps({group: {"hosts": addresses, "vars": variables}}, indent=2))
    return inventory


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, stdin=subprocess.DEVNULL, check=True)

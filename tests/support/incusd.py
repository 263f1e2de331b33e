"""A private Incus daemon, which knows nothing of the machine's own and leaves nothing behind."""

from __future__ import annotations

import grp
import http.client
import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import leftovers, rest, waiting

PROGRAM = Path("/usr/libexec/incus/incusd")
ADMINISTRATORS = "incus-admin"
READY_WITHIN = 60.0
STOPPED_WITHIN = 60.0

_NO_ANSWER = (rest.ApiError, OSError, http.client.HTTPException)

_WITH_RAISED_LIMITS = (
    "sh",
    "-c",
    'ulimit -n 1048576 || ulimit -n "$(ulimit -H -n)"; ulimit -l unlimited; exec "$0" "$@"',
)
"""As the package's unit has them, or as far as this machine allows."""

_numbers = itertools.count()


@contextmanager
def running() -> Iterator[Incusd]:
    """A daemon for the length of the block; several may run at once."""
    daemon = Incusd(leftovers.new_folder())
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.stop()


class Incusd:
    """One daemon.

    dir: its INCUS_DIR. socket: where its API listens. log: what it said.
    bridge, subnet: a link name and an IPv4 address with prefix length (such as 10.140.3.1/24) that nobody else uses.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare a daemon in an empty folder; `start` runs it."""
        self.dir = folder
        self.socket = folder / "unix.socket"
        self.log = folder / "incusd.log"
        self.bridge = leftovers.bridge_name(next(_numbers))
        self.subnet = free_subnet()
        self.environment = {**os.environ, "INCUS_DIR": str(folder), "INCUS_CONF": str(folder / "client"), "LC_ALL": "C"}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the daemon and wait until it is ready."""
        make_room_for_containers()
        self.dir.mkdir(mode=0o711, exist_ok=True)
        self.dir.chmod(0o711)
        self._process = subprocess.Popen(
            [*_WITH_RAISED_LIMITS, PROGRAM, *_group(), "--logfile", self.log],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + READY_WITHIN
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The daemon did not become ready; its log:\n{self._log_text()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End the daemon at once, as a crash would; instances go on running."""
        self._signal(signal.SIGKILL)

    def shut_down(self) -> None:
        """Stop the instances and end the daemon, as a host does that is switched off; `start` runs it again."""
        self._signal(signal.SIGPWR)

    def stop(self) -> None:
        """Remove everything: what the daemon has, the daemon, and its folder."""
        try:
            with suppress(*_NO_ANSWER):
                self._empty()
            self.shut_down()
        finally:
            leftovers.remove(self.dir)

    def clean(self) -> None:
        """Take the daemon back to how it started: by its API, or where that fails by a new one in the same folder.

        It fails too when a link stays in the bridge that a container has of which the daemon knows nothing, as one may
        that it was starting when it was killed.
        """
        try:
            self._empty()
            shutil.rmtree(self.dir / "cowherd", ignore_errors=True)
        except (*_NO_ANSWER, AssertionError):
            self.kill()
            leftovers.remove(self.dir)
            self.start()

    def run(self, *arguments: str | Path) -> str:
        """Run the command-line client with these arguments and return its output; a failure raises RuntimeError."""
        finished = subprocess.run(
            ["incus", "-q", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=rest.TIMEOUT,
            check=False,
        )
        if finished.returncode != 0:
            raise RuntimeError(f"incus {' '.join(map(str, arguments))}: {finished.stderr.strip()}")
        return finished.stdout

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request, such as `api("GET", "/1.0/storage-pools")`, and return the metadata of its answer.

        A background operation is waited for. A refusal raises `rest.ApiError`.
        """
        return rest.request(self.socket, method, path, body)

    def make_bridge(self) -> str:
        """Create the managed bridge `bridge`, with DHCP and NAT in `subnet`, and return its name."""
        config = {"ipv4.address": self.subnet, "ipv4.nat": "true", "ipv6.address": "none"}
        self.api("POST", "/1.0/networks", {"name": self.bridge, "type": "bridge", "config": config})
        return self.bridge

    def address(self, instance: str) -> str:
        """The instance's IPv4 address on eth0; "" while there is none."""
        interfaces: dict[str, Any] = self.api("GET", f"/1.0/instances/{instance}/state")["network"] or {}
        addresses = interfaces.get("eth0", {}).get("addresses", [])
        return next((entry["address"] for entry in addresses if entry["family"] == "inet"), "")

    def _is_ready(self) -> bool:
        try:
            self.api("GET", "/internal/ready")
        except _NO_ANSWER:
            return False
        return True

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else "(none)"

    def _signal(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _empty(self) -> None:
        """Delete all objects, those that others use last."""
        self.api("PUT", "/1.0", {"config": {}})
        self._delete_instances()
        for image in self._all("images"):
            self.api("DELETE", _in_project(f"/1.0/images/{image['fingerprint']}", image))
        for pool in self._all("storage-pools"):
            self._delete_volumes(f"storage-pools/{quote(pool['name'])}")
        for profile in self._all("profiles"):
            self._delete_profile(profile)
        for network in self._all("networks"):
            if network["managed"]:
                self._await_no_ports(network["name"])
                self.api("DELETE", _in_project(f"/1.0/networks/{quote(network['name'])}", network))
        for pool in self._all("storage-pools"):
            self.api("DELETE", f"/1.0/storage-pools/{quote(pool['name'])}")
        for project in self._all("projects"):
            if project["name"] != "default":
                self.api("DELETE", f"/1.0/projects/{quote(project['name'])}")
        for certificate in self._all("certificates"):
            self.api("DELETE", f"/1.0/certificates/{certificate['fingerprint']}")

    def _await_no_ports(self, bridge: str) -> None:
        """The kernel takes the links of containers away some time after these ended, and Incus trips over that."""

        def is_free() -> bool:
            leftovers.remove_links_of_nobody(bridge, self.dir)
            return not any(Path("/sys/class/net", bridge, "brif").glob("*"))

        waiting.until(is_free)

    def _all(self, kind: str) -> list[dict[str, Any]]:
        """The objects of one kind. The daemon says null where there are none."""
        found: list[dict[str, Any]] | None = self.api("GET", f"/1.0/{kind}?recursion=1&all-projects=true")
        return found or []

    def _delete_instances(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._delete_instance, self._all("instances")))

    def _delete_instance(self, instance: dict[str, Any]) -> None:
        path = f"/1.0/instances/{quote(instance['name'])}"
        if instance["status"] != "Stopped":
            self.api("PUT", _in_project(f"{path}/state", instance), {"action": "stop", "force": True, "timeout": -1})
        if "security.protection.delete" in instance["expanded_config"]:
            self.api("PATCH", _in_project(path, instance), {"config": {"security.protection.delete": "false"}})
        self.api("DELETE", _in_project(path, instance))

    def _delete_volumes(self, pool: str) -> None:
        for kind in ("volumes/custom", "buckets"):
            for volume in self._all(f"{pool}/{kind}"):
                self.api("DELETE", _in_project(f"/1.0/{pool}/{kind}/{quote(volume['name'])}", volume))

    def _delete_profile(self, profile: dict[str, Any]) -> None:
        path = _in_project(f"/1.0/profiles/{quote(profile['name'])}", profile)
        if profile["name"] == "default":
            self.api("PUT", path, {"config": {}, "devices": {}, "description": profile["description"]})
        else:
            self.api("DELETE", path)


def free_subnet() -> str:
    """The first address of an IPv4 /24 to which this machine has no route of its own.

    The daemon's own choice (`ipv4.address=auto`) asks the network whether an address answers, and fails where a gateway
    answers for every address.
    """
    taken = subprocess.run(["ip", "-4", "route"], capture_output=True, text=True, check=True).stdout
    while True:
        subnet = f"10.{random.randint(128, 254)}.{random.randint(0, 254)}"
        if f"{subnet}." not in taken:
            return f"{subnet}.1/24"


def make_room_for_containers() -> None:
    """Raise the kernel's inotify limit, which every systemd takes from, and see to it that loop devices can be made."""
    instances = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(instances.read_text()) < 8192:
        instances.write_text("8192")
    control = Path("/dev/loop-control")
    if not control.exists():
        os.mknod(control, 0o600 | 0o020000, os.makedev(10, 237))


def _group() -> list[str]:
    try:
        grp.getgrnam(ADMINISTRATORS)
    except KeyError:
        return []
    return ["--group", ADMINISTRATORS]


def _in_project(path: str, thing: dict[str, Any]) -> str:
    return f"{path}?project={quote(thing.get('project') or 'default')}"

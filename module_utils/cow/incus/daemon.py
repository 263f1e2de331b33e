"""The Incus daemon of this host: whether it answers, and how it is started."""

from __future__ import annotations

import contextlib
import grp
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import host, process, tools
from ..errors import CowError
from ..plan import Plan, Step
from . import client

FOLDER = Path(client.DEFAULT_SOCKET).parent
"""Where the packages keep the daemon's state; a daemon elsewhere is told so by INCUS_DIR."""

ANSWERS = "answers"
_UNITS = ("incus.socket", "incus.service")
_ADMINISTRATORS = "incus-admin"
_PROGRAMS = ("/usr/libexec/incus/incusd", "/usr/lib/incus/incusd", "/opt/incus/bin/incusd")
_PATH = "/usr/libexec/incus:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LIMITS = {resource.RLIMIT_NOFILE: 1 << 20, resource.RLIMIT_NPROC: -1, resource.RLIMIT_MEMLOCK: -1}
"""What the packages' unit gives the daemon; -1 is no limit."""
_STATES = {FileNotFoundError: "missing", PermissionError: "denied", ConnectionRefusedError: "refused"}


@dataclass(frozen=True)
class Server:
    """What the server says of itself. storage_drivers: those that it can make pools with."""

    version: str
    name: str
    clustered: bool
    storage_drivers: tuple[str, ...]


@dataclass(frozen=True)
class Daemon:
    """A daemon, looked at through its socket.

    program: the daemon's executable, None when there is none. state: answers, missing, denied, refused or unusable.
    why: what is wrong, in a sentence, None when it answers. server: None unless it answers.
    """

    socket: str
    program: str | None
    systemd: bool
    state: str
    why: str | None = None
    server: Server | None = None


def observe(socket: str) -> Daemon:
    """Look at the daemon behind a socket. With systemd's socket activation the look itself may start it."""
    program = next((path for path in _PROGRAMS if os.access(path, os.X_OK)), None) or tools.find("incusd")
    systemd = host.runs_systemd()
    try:
        with client.connect(socket) as connection:
            server = _server(connection.get())
    except client.ServerUnreachable as error:
        state = next((state for kind, state in _STATES.items() if isinstance(error.__cause__, kind)), "unusable")
        return Daemon(socket, program, systemd, state, str(error))
    except CowError as error:
        return Daemon(socket, program, systemd, "unusable", str(error))
    return Daemon(socket, program, systemd, ANSWERS, server=server)


def plan(found: Daemon, timeout: float, run: process.Runner = process.run) -> Plan:
    """Have the daemon run: by systemd where that runs and the folder is the packages' own, else started directly."""
    if found.state == ANSWERS:
        return Plan()
    if found.state in ("denied", "unusable"):
        raise CowError(str(found.why))
    if found.program is None:
        raise CowError(
            f"Nothing answers at {found.socket}, and no Incus daemon is installed. Install incus-base first."
        )
    if found.systemd and found.socket == client.DEFAULT_SOCKET:
        return Plan.of(_start_by_systemd(timeout, run))
    return Plan.of(_start_directly(found.program, Path(found.socket), timeout, run))


def describe(found: Daemon) -> dict[str, Any]:
    """Return what the module returns."""
    version = found.server.version if found.server else None
    return {"program": found.program, "state": found.state, "server_version": version}


def _server(body: Mapping[str, Any]) -> Server:
    environment = body["environment"]
    return Server(
        version=environment["server_version"],
        name=environment["server_name"],
        clustered=environment["server_clustered"],
        storage_drivers=tuple(sorted(driver["Name"] for driver in environment["storage_supported_drivers"])),
    )


def _start_by_systemd(timeout: float, run: process.Runner) -> Step:
    def enable() -> None:
        run(["systemctl", "enable", "--now", *_UNITS], timeout=timeout)

    return Step(
        title=f"start and enable {' and '.join(_UNITS)}",
        run=enable,
        before={"daemon": "does not answer"},
        after={"daemon": "started by systemd, now and at boot"},
    )


def _start_directly(program: str, socket: Path, timeout: float, run: process.Runner) -> Step:
    if socket.name != Path(client.DEFAULT_SOCKET).name:
        raise CowError(
            f"The daemon's socket is always called unix.socket, not {socket.name}. Give {socket.parent}/unix.socket."
        )
    launch = _Launch.of(program, socket)
    return Step(
        title=f"start {program} for {socket}",
        run=lambda: launch.go(timeout, run),
        before={"daemon": "does not answer"},
        after={"daemon": "started directly; not at boot", "log": str(launch.log)},
    )


@dataclass(frozen=True)
class _Launch:
    """How the daemon is started where no service manager does it: as the packages' init script does it."""

    program: str
    socket: Path
    pid_file: Path
    log: Path
    environment: Mapping[str, str]

    @classmethod
    def of(cls, program: str, socket: Path) -> _Launch:
        if str(socket) == client.DEFAULT_SOCKET:
            return cls(program, socket, Path("/run/incus.pid"), Path("/var/log/incus/incus.log"), {"PATH": _PATH})
        folder = socket.parent
        return cls(
            program, socket, folder / "incusd.pid", folder / "incusd.log", {"PATH": _PATH, "INCUS_DIR": str(folder)}
        )

    def go(self, timeout: float, run: process.Runner) -> None:
        """Start it in a session of its own and return when it is ready."""
        _raise_limits()
        for folder in (self.socket.parent, self.log.parent):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        run(
            [
                *("start-stop-daemon", "--start", "--background", "--make-pidfile", "--pidfile", str(self.pid_file)),
                *("--exec", self.program, "--", *_group_option(), "--logfile", str(self.log)),
            ],
            environment=self.environment,
        )
        self._await_answer(time.monotonic() + timeout)
        ready = [self.program, "waitready", f"--timeout={timeout:.0f}"]
        run(ready, environment=self.environment, timeout=timeout)

    def _await_answer(self, deadline: float) -> None:
        while observe(str(self.socket)).state != ANSWERS:
            if not self._is_running():
                raise CowError(f"The daemon for {self.socket} ended at once. {self.log} says: {self._last_words()}")
            if time.monotonic() > deadline:
                raise CowError(f"The daemon for {self.socket} was started but does not answer. See {self.log}.")
            time.sleep(0.1)

    def _is_running(self) -> bool:
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
            return bool(Path(f"/proc/{pid}/exe").readlink())
        except (OSError, ValueError):
            return False

    def _last_words(self) -> str:
        try:
            return self.log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        except OSError:
            return "nothing"


def _raise_limits() -> None:
    """Raise this process's limits, which the daemon inherits, as far as the system allows."""
    for limit, value in _LIMITS.items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))


def _group_option() -> list[str]:
    try:
        grp.getgrnam(_ADMINISTRATORS)
    except KeyError:
        return []
    return ["--group", _ADMINISTRATORS]

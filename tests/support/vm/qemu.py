"""One QEMU process, all of whose files are in one folder, which is its working folder too."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .image import Image
from .process import MachineError, run

PROGRAM = "qemu-system-x86_64"
SAVED = "ready"
PROCESS_ID = "qemu.pid"
STARTED_WITHIN = 30.0
SPEAKS_WITHIN = 10.0
STOPPED_WITHIN = 30.0

ACCELERATORS = {"kvm": "kvm", "tcg": "tcg,thread=multi"}
PROCESSORS = {"kvm": 2, "tcg": 1}
"""Two that are emulated wait for each other, and take a third more time in all."""

QUIET = (
    "panic=0 quiet systemd.show_status=false mitigations=off no5lvl apparmor=0 selinux=0 "
    "systemd.default_timeout_start_sec=900 systemd.default_device_timeout_sec=900"
)
"""Without what emulation is slow at and does not need, and patient: the host may have other work."""


@dataclass(frozen=True)
class Hardware:
    """What the machine has.

    memory: MiB. boot: what the kernel is told.
    disks: those beside the root disk, from /dev/vdb on: sizes, as qemu-img takes them, of empty ones, or absolute paths
    of raw files, which are not written to.
    """

    memory: int = 2048
    disks: tuple[str, ...] = ()
    boot: str = f"root=/dev/vda rw {QUIET}"

    @property
    def disk_files(self) -> list[str]:
        """The overlay of the root disk, then the other disks."""
        return ["root.qcow2", *(f"disk{number}.qcow2" for number in range(1, len(self.disks) + 1))]


@functools.cache
def accelerator(kernel: Path) -> str:
    """Name the fastest that runs this kernel. A /dev/kvm that can be opened may yet not run ordinary ones."""
    return "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _speaks(kernel, "kvm") else "tcg"


def _speaks(kernel: Path, accelerator: str) -> bool:
    """Whether the kernel says its version on its console, which takes it less than a second where it runs.

    What unpacks it may speak before that, and then meet what the accelerator cannot do.
    """
    with tempfile.TemporaryDirectory() as folder:
        console = Path(folder, "console.log")
        machine = [PROGRAM, "-accel", ACCELERATORS[accelerator], "-cpu", "max", "-nodefaults", "-display", "none"]
        boot = ["-kernel", str(kernel), "-append", "earlyprintk=ttyS0", "-serial", f"file:{console}"]
        with subprocess.Popen([*machine, *boot], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + SPEAKS_WITHIN
            while process.poll() is None and time.monotonic() < deadline and not _has_version(console):
                time.sleep(0.1)
            process.kill()
        return _has_version(console)


def _has_version(console: Path) -> bool:
    return console.exists() and b"Linux version" in console.read_bytes()


def version() -> str:
    """Which QEMU: only the same one resumes a saved machine."""
    return run(PROGRAM, "--version")


def command_line(image: Image, hardware: Hardware, accelerator: str) -> list[str]:
    """The machine's definition. A saved machine is resumed with the same one."""
    drives = [
        argument
        for file in hardware.disk_files
        # The disks live as long as the machine: nothing needs to be flushed.
        for argument in ("-drive", f"file={file},format=qcow2,if=virtio,cache=unsafe,discard=unmap")
    ]
    return [
        *(PROGRAM, "-accel", ACCELERATORS[accelerator], "-cpu", "max"),
        *("-smp", str(PROCESSORS[accelerator]), "-m", str(hardware.memory)),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", f"console=ttyS0 {hardware.boot}"),
        *drives,
        # Port 0: the kernel chooses a free one; `ssh_port` asks which.
        *("-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-serial", "file:console.log", "-qmp", "unix:monitor,server=on,wait=off"),
    ]


def create_disks(folder: Path, image: Image, hardware: Hardware) -> None:
    """A new overlay of the image, and new disks: empty ones, or overlays of the files that are given."""
    root, *others = (folder / file for file in hardware.disk_files)
    _qemu_img("-b", str(image.disk), "-F", "raw", str(root))
    for path, disk in zip(others, hardware.disks, strict=True):
        _qemu_img(*(("-b", disk, "-F", "raw", str(path)) if disk.startswith("/") else (str(path), disk)))


def claim(folder: Path) -> None:
    """Mark the folder, which is empty or not there yet, as a machine's."""
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise MachineError(f"{folder} is not empty and not a machine's; name another folder.")
    (folder / PROCESS_ID).touch()


def is_claimed(folder: Path) -> bool:
    """Whether what the folder holds is a machine's."""
    return (folder / PROCESS_ID).exists()


def launch(folder: Path, command: list[str]) -> None:
    """Start a machine on the disks in the folder; it outlives this process."""
    (folder / "monitor").unlink(missing_ok=True)
    with (folder / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-name", str(folder)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (folder / PROCESS_ID).write_text(str(process.pid))
    deadline = time.monotonic() + STARTED_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            monitor(folder, "info status")
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise MachineError(f"QEMU did not start: {log_text(folder)}")


def process_id(folder: Path) -> int | None:
    """The process of the machine in the folder, if it runs: the recorded one, when it still works in that folder."""
    try:
        number = int((folder / PROCESS_ID).read_text())
        working_folder = Path(f"/proc/{number}/cwd").readlink()
    except (OSError, ValueError):
        return None
    return number if working_folder == folder.resolve() else None


def stop(folder: Path) -> None:
    """End the machine in the folder, if it runs, as if the power failed. What it wrote is in its disk files."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOPPED_WITHIN
        process = process_id(folder)
        if process is None:
            return
        os.kill(process, number)
        while process_id(folder) is not None and time.monotonic() < deadline:
            time.sleep(0.05)


def monitor(folder: Path, command: str) -> str:
    """Give QEMU's monitor a command and return what it prints; OSError when nobody listens."""
    with _opened(folder) as number, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(120)
        # Not by the folder's own path, which may have more bytes than the 108 of a socket's.
        connection.connect(f"/proc/self/fd/{number}/monitor")
        with connection.makefile("rw") as stream:
            stream.readline()
            _ask(stream, "qmp_capabilities")
            return str(_ask(stream, "human-monitor-command", **{"command-line": command})["return"])


def ssh_port(folder: Path) -> int:
    """Where on 127.0.0.1 the machine's SSH server is reached."""
    forwarded = re.search(r"HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)", monitor(folder, "info usernet"))
    if forwarded is None:
        raise MachineError("QEMU does not forward a port to the machine.")
    return int(forwarded[1])


def log_text(folder: Path) -> str:
    """What QEMU said, and the end of what the machine's console shows."""
    names = [name for name in ("qemu.log", "console.log") if (folder / name).exists()]
    return "\n".join((folder / name).read_text(errors="replace")[-1000:].strip() for name in names)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield number
    finally:
        os.close(number)


def _ask(stream: Any, command: str, **arguments: str) -> dict[str, Any]:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    for line in stream:
        answer: dict[str, Any] = json.loads(line)
        if "event" not in answer:
            return answer
    raise ConnectionResetError("QEMU ended")


def _qemu_img(*arguments: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", *arguments)

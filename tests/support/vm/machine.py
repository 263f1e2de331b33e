"""Machines that are up: resumed from a saved state where there is one, settled, and reachable."""

from __future__ import annotations

import base64
import io
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import cached

from . import apt, qemu
from .image import Image
from .process import MachineError, run
from .qemu import Hardware

BOOTED_WITHIN = {"kvm": 60.0, "tcg": 900.0}
RESUMED_WITHIN = 60.0
SETTLED_WITHIN = 300.0
SWITCHED_OFF_WITHIN = 180.0
SSH_OPTIONS = "-o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"


@dataclass(frozen=True)
class Machine:
    """A machine on 127.0.0.1, and all that it writes in one folder."""

    folder: Path
    image: Image
    port: int

    @property
    def host_variables(self) -> dict[str, str | int]:
        """How Ansible reaches it."""
        return {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.image.key),
            # For testinfra, which without it makes a connection for each command.
            "ansible_ssh_common_args": f"{SSH_OPTIONS} -o ControlPath={self.folder.resolve()}/ssh",
        }

    def run(self, command: str, timeout: float = 60.0, stdin: str = "") -> str:
        """Run a shell command in it and return its output; MachineError when it fails."""
        try:
            return self._ssh(command, timeout, stdin)
        except subprocess.CalledProcessError as error:
            raise MachineError(f"`{command}` failed in the machine: {error.stderr.strip()}") from error
        except subprocess.TimeoutExpired as error:
            raise MachineError(f"`{command}` did not end within {timeout:g} s in the machine.") from error

    def bring(self, folder: Path, path: Path) -> None:
        """Copy what is in a folder to a new one in the machine, owned by root, all in one go."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.add(folder, ".", filter=lambda entry: None if entry.name.endswith("__pycache__") else entry)
        packed = base64.b64encode(buffer.getvalue()).decode()
        target = shlex.quote(str(path))
        unpack = f"base64 --decode | tar --extract --no-same-owner --directory {target}"
        self.run(f"mkdir -p {target} && {unpack}", stdin=packed)

    def answers(self) -> bool:
        """Whether a command can be run in it."""
        try:
            self._ssh("true", timeout=20)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            return False
        return True

    def wait(self, within: float, until: Callable[[Machine], bool] = answers) -> None:
        """Return when it answers, or what else is waited for."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if qemu.process_id(self.folder) is None:
                raise MachineError(f"QEMU ended: {qemu.log_text(self.folder)}")
            if until(self):
                return
            time.sleep(0.3)
        raise MachineError(f"the machine did not come up within {within:g} s: {qemu.log_text(self.folder)}")

    def _ssh(self, command: str, timeout: float, stdin: str = "") -> str:
        argv = [
            "ssh",
            *SSH_OPTIONS.split(),
            "-q",
            "-i",
            str(self.image.key),
            "-p",
            str(self.port),
            "root@127.0.0.1",
            command,
        ]
        return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout, check=True).stdout


@contextmanager
def running(folder: Path, image: Image, hardware: Hardware) -> Iterator[Machine]:
    """A machine for the length of the block."""
    try:
        yield up(folder, image, hardware)
    finally:
        down(folder)


@contextmanager
def booted(
    folder: Path, image: Image, hardware: Hardware, until: Callable[[Machine], bool] = Machine.answers
) -> Iterator[Machine]:
    """A machine that is booted, not resumed, for the length of the block; its folder is for the caller to look at."""
    try:
        yield boot(folder, image, hardware, until)
    finally:
        qemu.stop(folder)


def up(folder: Path, image: Image, hardware: Hardware) -> Machine:
    """Start a new machine in the folder, in the place of the one that an earlier run left there."""
    down(folder)
    qemu.claim(folder)
    try:
        machine = _resume_or_boot(folder, image, hardware)
        _settle(machine)
    except BaseException:
        qemu.stop(folder)
        raise
    return machine


def boot(folder: Path, image: Image, hardware: Hardware, until: Callable[[Machine], bool] = Machine.answers) -> Machine:
    """Boot a new machine in the folder, in the place of the one that an earlier run left there."""
    down(folder)
    qemu.claim(folder)
    return _boot(folder, image, hardware, until)


def boot_again(folder: Path, image: Image, hardware: Hardware) -> Machine:
    """Boot the machine in the folder on the disks that it has, after it has switched itself off."""
    deadline = time.monotonic() + SWITCHED_OFF_WITHIN
    while qemu.process_id(folder) is not None:
        if time.monotonic() > deadline:
            raise MachineError(f"the machine did not switch itself off within {SWITCHED_OFF_WITHIN:g} s.")
        time.sleep(0.3)
    return _launch(folder, image, hardware, Machine.answers)


def down(folder: Path) -> None:
    """End the machine in the folder, if it runs, and delete what it wrote."""
    qemu.stop(folder)
    if qemu.is_claimed(folder):
        shutil.rmtree(folder)


def _resume_or_boot(folder: Path, image: Image, hardware: Hardware) -> Machine:
    try:
        return _resume(folder, image, hardware)
    except MachineError as reason:
        sys.stderr.write(f"No saved machine could be resumed, booting one: {reason}\n")
        qemu.stop(folder)
        return _boot(folder, image, hardware)


def _resume(folder: Path, image: Image, hardware: Hardware) -> Machine:
    definition = qemu.command_line(image, hardware, qemu.accelerator(image.kernel))
    inputs = [qemu.version(), definition, hardware.disks]
    saved = cached("vm-saved", "", inputs, lambda draft: _save(draft, image, hardware))
    for file in hardware.disk_files:
        run("cp", "--reflink=auto", str(saved / file), str(folder / file))
    accelerator = (saved / "accelerator").read_text()
    qemu.launch(folder, [*qemu.command_line(image, hardware, accelerator), "-loadvm", qemu.SAVED])
    machine = Machine(folder, image, qemu.ssh_port(folder))
    try:
        machine.wait(RESUMED_WITHIN)
    except MachineError as error:
        raise MachineError(f"{error}\nWhen that happens again, delete {saved}; it is made anew.") from error
    return machine


def _save(draft: Path, image: Image, hardware: Hardware) -> None:
    """Leave the disks of a machine that has booted in the folder, with its memory in the first of them."""
    sys.stderr.write("Booting a machine, to be resumed from then on.\n")
    down(draft)  # of a builder that was killed
    qemu.claim(draft)
    try:
        machine = _boot(draft, image, hardware)
        machine.run("systemctl is-system-running --wait", timeout=SETTLED_WITHIN)
        if refusal := qemu.monitor(draft, f"savevm {qemu.SAVED}"):
            raise MachineError(f"the machine cannot be saved: {refusal.strip()}")
    finally:
        qemu.stop(draft)
    os.sync()


def _boot(
    folder: Path, image: Image, hardware: Hardware, until: Callable[[Machine], bool] = Machine.answers
) -> Machine:
    """Boot on new disks, and note the accelerator in a file of that name."""
    qemu.create_disks(folder, image, hardware)
    return _launch(folder, image, hardware, until)


def _launch(folder: Path, image: Image, hardware: Hardware, until: Callable[[Machine], bool]) -> Machine:
    accelerator = qemu.accelerator(image.kernel)
    qemu.launch(folder, qemu.command_line(image, hardware, accelerator))
    machine = Machine(folder, image, qemu.ssh_port(folder))
    machine.wait(BOOTED_WITHIN[accelerator], until)
    (folder / "accelerator").write_text(accelerator)
    return machine


def _settle(machine: Machine) -> None:
    """Set what differs between runs: the clock, which stood still while it was saved, and where packages come from."""
    files = apt.of_this_machine().guest_files(machine.image.release)
    writes = [f"cat >{path} <<'END'\n{content}END\n" for path, content in files.items()]
    machine.run("sh -e", stdin=f"date --set=@{int(time.time())}\n{''.join(writes)}")

"""The machines in which molecule's scenarios run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import leftovers, needs
from tests.support.vm import machine, qemu
from tests.support.vm.image import Image, image
from tests.support.vm.process import MachineError
from tests.support.vm.qemu import Hardware

ONE_DISK = Hardware(memory=1024, disks=("1G",))


@pytest.fixture(scope="module")
def debian() -> Image:
    needs.root("mmdebstrap keeps the owners of files")
    for program in ("mmdebstrap", "mke2fs", "qemu-img", qemu.PROGRAM, "ssh"):
        needs.program(program)
    return image()


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = leftovers.new_folder()
    yield folder
    machine.down(folder)
    leftovers.remove(folder)


def test_a_machine_is_bare_on_time_and_reaches_its_packages(debian: Image, folder: Path) -> None:
    vm = machine.up(folder, debian, ONE_DISK)
    assert vm.run("lsblk --noheadings --output NAME,SIZE /dev/vdb").split() == ["vdb", "1G"]
    assert not vm.run("ls /usr/bin | grep --fixed-strings incus || true")
    assert abs(int(vm.run("date +%s")) - time.time()) < 60
    vm.run("apt-get --quiet update", timeout=300)
    assert "Candidate: (none)" not in vm.run("apt-cache policy incus-base")


def test_nothing_of_a_machine_stays(debian: Image, folder: Path) -> None:
    with machine.running(folder, debian, ONE_DISK) as vm:
        vm.run("touch /root/of-the-first")
        process = qemu.process_id(folder)
    assert process
    assert not folder.exists()
    assert qemu.process_id(folder) is None
    with machine.running(folder, debian, ONE_DISK) as vm:
        assert not vm.run("ls /root")


def test_a_saved_machine_that_cannot_be_resumed_is_booted(
    debian: Image, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(qemu, "SAVED", "of-nobody")
    monkeypatch.setattr(machine, "_save", lambda *_: pytest.fail("the other tests' machine was saved"))
    machine.up(folder, debian, ONE_DISK).run("true")
    assert "booting one" in capfd.readouterr().err


def test_a_folder_of_something_else_is_refused_and_left_alone(debian: Image, folder: Path) -> None:
    (folder / "letter").write_text("dear")
    with pytest.raises(MachineError, match="not empty"):
        machine.up(folder, debian, ONE_DISK)
    machine.down(folder)
    assert (folder / "letter").read_text() == "dear"

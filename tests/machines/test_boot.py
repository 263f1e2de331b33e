"""Virtual machines boot from images that playbooks/images.yml built: ext4, btrfs, squashfs, erofs, also with verity."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import leftovers, needs
from tests.support.ansible import run_playbook
from tests.support.vm import attempts, bootable, machine
from tests.support.vm.image import Image
from tests.support.vm.machine import Machine
from tests.support.vm.process import run
from tests.support.vm.qemu import QUIET, Hardware

LOOK = """\
#!/bin/sh
exec </dev/null >/dev/console 2>&1
findmnt --noheadings --output FSTYPE,SOURCE /run/cowherd/image
echo "machine $(cat /etc/machine-id)"
echo "new $(cat /srv/new)"
echo "other $(cat /srv/other)"
cat /srv/victim >/dev/null
echo looked
while :; do sleep 60; done
"""
"""In the place of init where what the root has is all that matters; systemd takes an emulated machine a minute."""
VICTIM = random.Random(5).randbytes(3 * 4096)
"""No compressor makes it smaller, so that its bytes are found in the image."""


@dataclass(frozen=True)
class Built:
    """Where the images are, and what starts them.

    verity: the parameters of the hash tree that is in root.verity. beside: the root hash of root.erofs, whose tree is
    beside it.
    """

    folder: Path
    images: Path
    verity: dict[str, Any]
    beside: str

    def image(self, folder: Path, disk: Path) -> Image:
        """This disk with the kernel of the tree, in a folder for the two."""
        return bootable.image(folder, self.folder, disk)

    @property
    def verified(self) -> str:
        """What the kernel is told, to boot root.verity from a disk."""
        hash_tree = f"cowherd.root_hash={self.verity['root_hash']} cowherd.hash_offset={self.verity['hash_offset']}"
        return f"root=/dev/vda boot=cowherd {hash_tree} {QUIET}"


@pytest.fixture(scope="module")
def built(bootable_tree: Path) -> Iterator[Built]:
    """A small Debian, prepared and made into images by the playbook."""
    for program in ("mke2fs", "mkfs.btrfs", "mksquashfs", "mkfs.erofs", "veritysetup"):
        needs.program(program)
    _add_witnesses(bootable_tree)
    folder = leftovers.new_folder()
    try:
        list_of_images = [
            {"name": "root.ext4", "format": "ext4", "size": "+64MiB"},
            {"name": "root.btrfs", "format": "btrfs", "preset": "fast", "size": "+64MiB"},
            {"name": "root.squashfs", "format": "squashfs"},
            {"name": "root.erofs", "format": "erofs", "preset": "fast", "verity": True, "verity_tree": "beside"},
            {"name": "root.verity", "format": "erofs", "preset": "fast", "verity": True},
        ]
        played = run_playbook(
            "playbooks/images.yml",
            "inventories/local",
            variables={
                "image_boot_tree": str(bootable_tree),
                "rootfs_image_folder": str(folder / "images"),
                "rootfs_image_images": list_of_images,
            },
        ).succeeded()
        results = [result for task in played.tasks for result in task.result.get("results", [])]
        beside, verity = (result["image"]["verity"] for result in results if result["image"]["verity"])
        bootable.keep_kernel(bootable_tree, folder)
        (folder / "id").symlink_to(bootable_tree.parent / "id")
        yield Built(folder, folder / "images", verity, beside["root_hash"])
    finally:
        leftovers.remove(folder)


def _add_witnesses(tree: Path) -> None:
    (tree / "srv/victim").write_bytes(VICTIM)
    (tree / "srv/other").write_text("fine\n")
    (tree / "srv/look").write_text(LOOK)
    (tree / "srv/look").chmod(0o755)


@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_what_can_be_written_to_boots_as_a_disk(built: Built, folder: Path, kind: str) -> None:
    image = built.image(folder / "image", built.images / f"root.{kind}")
    with machine.booted(folder / "vm", image, _hardware(f"root=/dev/vda rw {QUIET}")) as vm:
        assert _state(vm) == "running"
        assert vm.run("findmnt --noheadings --output FSTYPE /").strip() == kind
        vm.run("dd if=/dev/urandom of=/root/new bs=1M count=32")
        _has_an_identity_of_its_own(vm)


def test_a_squashfs_boots_as_a_file_on_a_medium(built: Built, folder: Path) -> None:
    """Under an overlay in RAM: what is written is gone with the machine, and the image is not touched."""
    image = _medium(built, folder, "root.squashfs")
    boot = f"root=/dev/vda cowherd.image=/root.squashfs cowherd.overlay_size=100M boot=cowherd {QUIET}"
    with machine.booted(folder / "vm", image, _hardware(boot)) as vm:
        assert _state(vm) == "running"
        assert vm.run("findmnt --noheadings --output FSTYPE /").strip() == "overlay"
        assert vm.run("findmnt --noheadings --output FSTYPE,SOURCE /run/cowherd/image").split() == [
            "squashfs",
            "/dev/loop0",
        ]
        assert vm.run("cat /sys/block/loop0/ro").strip() == "1"
        assert vm.run("df --output=size --block-size=1M /").split()[-1] == "100"
        vm.run("echo new >/srv/other && rm /srv/victim")
        assert vm.run("cat /run/cowherd/image/srv/other") == "fine\n"
        _has_an_identity_of_its_own(vm)


def test_an_erofs_with_verity_boots_and_keeps_what_is_written_on_a_disk(built: Built, folder: Path) -> None:
    """Then with one byte of the image flipped: that file cannot be read, the rest can."""
    overlay = folder / "overlay.raw"
    run("mke2fs", "-q", "-t", "ext4", str(overlay), "256M")
    hardware = _hardware(f"{built.verified} cowherd.overlay=/dev/vdb", str(overlay))
    image = built.image(folder / "image", built.images / "root.verity")
    with machine.booted(folder / "vm", image, hardware) as vm:
        assert _state(vm) == "running"
        assert "status: verified" in " ".join(vm.run("veritysetup status cowherd-root").split())
        assert vm.run("findmnt --noheadings --output FSTYPE,SOURCE /run/cowherd/image").split() == [
            "erofs",
            "/dev/mapper/cowherd-root",
        ]
        assert vm.run("sha256sum /srv/victim").split()[0] == hashlib.sha256(VICTIM).hexdigest()
        identity = _has_an_identity_of_its_own(vm)
        vm.run("echo kept >/srv/new && sync")
    run("qemu-img", "commit", "-q", str(folder / "vm/disk1.qcow2"))
    machine.down(folder / "vm")

    _flip_a_byte(built.images / "root.verity", folder / "flipped.raw")
    flipped = built.image(folder / "flipped", folder / "flipped.raw")
    hardware = replace(hardware, boot=f"{hardware.boot} init=/srv/look")
    with machine.booted(folder / "vm", flipped, hardware, lambda vm: "looked" in bootable.console(vm)) as vm:
        said = bootable.console(vm)
    assert f"machine {identity}" in said
    assert "new kept" in said
    assert "other fine" in said
    assert "/srv/victim: Input/output error" in said


def test_an_erofs_boots_as_a_file_on_a_medium(built: Built, folder: Path) -> None:
    image = _medium(built, folder, "root.erofs")
    boot = f"root=/dev/vda cowherd.image=/root.erofs boot=cowherd init=/srv/look {QUIET}"
    with machine.booted(folder / "vm", image, _hardware(boot), lambda vm: "looked" in bootable.console(vm)) as vm:
        said = bootable.console(vm)
    assert re.search(r"^erofs +/dev/loop0", said, re.MULTILINE)
    assert "other fine" in said


def test_a_flipped_byte_stops_the_machine_where_that_is_asked_for(built: Built, folder: Path) -> None:
    """It has booted before that: with the hash tree on a disk of its own."""
    _flip_a_byte(built.images / "root.erofs", folder / "flipped.raw")
    image = built.image(folder / "image", folder / "flipped.raw")
    hash_tree = f"cowherd.root_hash={built.beside} cowherd.hash_tree=/dev/vdb"
    boot = f"root=/dev/vda boot=cowherd {hash_tree} cowherd.on_corruption=panic init=/srv/look {QUIET}"
    hardware = _hardware(boot, str(built.images / "root.erofs.verity"))
    with machine.booted(folder / "vm", image, hardware, _has_stopped) as vm:
        said = bootable.console(vm)
    assert re.search(r"^erofs +/dev/mapper/cowherd-root", said, re.MULTILINE)
    assert "other fine" in said
    assert "Kernel panic - not syncing: dm-verity device corrupted" in said
    assert "looked" not in said


def test_an_image_that_is_not_the_one_of_the_root_hash_does_not_boot(built: Built, folder: Path) -> None:
    """One machine is asked for it with no root hash, and with another one."""
    asked = {
        "cowherd.root_hash=": "the option cowherd.root_hash= has no value",
        f"cowherd.root_hash={'0' * 64} cowherd.hash_tree=/root.erofs.verity": (
            "the image is not the one of cowherd.root_hash"
        ),
    }
    image = _medium(built, folder, "root.erofs", "root.erofs.verity")
    image.initrd.unlink()
    options = [f"root=/dev/vda cowherd.image=/root.erofs boot=cowherd {each}" for each in asked]
    attempts.initrd(built.folder / "initrd", image.initrd, options)
    hardware = _hardware(f"root=/dev/vda {attempts.BOOT} {QUIET}")
    with machine.booted(folder / "vm", image, hardware, bootable.has_ended) as vm:
        console = bootable.console(vm)
    assert attempts.refusals(console) == [f"cowherd: {reason}. Not booting." for reason in asked.values()]


def _has_stopped(vm: Machine) -> bool:
    return any(words in bootable.console(vm) for words in ("end Kernel panic", "looked"))


def _medium(built: Built, folder: Path, *names: str) -> Image:
    """Make a disk whose file system has these files of the images."""
    (folder / "medium").mkdir()
    for name in names:
        (folder / "medium" / name).hardlink_to(built.images / name)
    run("mke2fs", "-q", "-t", "ext4", "-d", str(folder / "medium"), str(folder / "medium.raw"), "512M")
    return built.image(folder / "image", folder / "medium.raw")


def _hardware(boot: str, *disks: str) -> Hardware:
    return Hardware(memory=1024, disks=disks, boot=boot)


def _flip_a_byte(image: Path, copy: Path) -> None:
    """Make a copy of the image that differs in the middle of the victim's second block."""
    content = bytearray(image.read_bytes())
    content[content.index(VICTIM[4096:8192]) + 100] ^= 1
    copy.write_bytes(content)


def _state(vm: Machine) -> str:
    state = vm.run("systemctl is-system-running --wait || true", timeout=machine.SETTLED_WITHIN).strip()
    return state if state == "running" else f"{state}: {vm.run('systemctl --failed --no-legend')}"


def _has_an_identity_of_its_own(vm: Machine) -> str:
    """Return its machine-id, after a look at that and at the host keys, which the image has not."""
    identity = vm.run("cat /etc/machine-id").strip()
    assert len(identity) == 32
    assert vm.run("ls /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_ed25519_key.pub").split()
    return identity

"""Virtual machines boot a root of a btrfs seed, with what is written on a disk; and what they do not boot from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from ansible.module_utils.cow import loop

from tests.support import leftovers, needs
from tests.support.ansible import run_module, run_playbook
from tests.support.vm import attempts, bootable, machine
from tests.support.vm.image import Image
from tests.support.vm.process import run
from tests.support.vm.qemu import QUIET, Hardware

LOOK = """\
#!/bin/sh
exec </dev/null >/dev/console 2>&1
echo "new $(cat /srv/new)"
echo "label $(btrfs filesystem label /)"
btrfs filesystem show --raw /
readlink /run/cowherd/seed
echo kept >/srv/new
sync
echo looked
while :; do sleep 60; done
"""
"""In the place of init: systemd takes an emulated machine a minute."""
BOOT = f"root=/dev/vda boot=cowherd cowherd.subvol=live init=/srv/look {QUIET}"
SPROUT = "256M"
FORMATTED = {
    "ext4": ("mke2fs", "-q", "-t", "ext4", "-d"),
    "btrfs": ("mkfs.btrfs", "--quiet", "--subvol", "live", "--rootdir"),
}


@dataclass(frozen=True)
class Built:
    """Where the seeds are, and kernel and key for them."""

    folder: Path

    def image(self, folder: Path, disk: str = "live.seed") -> Image:
        """Return one of the seeds as the first disk of a machine."""
        return bootable.image(folder, self.folder, self.folder / disk)


@pytest.fixture(scope="module")
def built(bootable_tree: Path) -> Iterator[Built]:
    """Two seeds of the same small Debian, the first by the playbook, the second with the checksum that is rarest."""
    needs.program("mkfs.btrfs")
    needs.program("veritysetup")
    needs.program("mformat")
    (bootable_tree / "srv/look").write_text(LOOK)
    (bootable_tree / "srv/look").chmod(0o755)
    folder = leftovers.new_folder()
    try:
        roots = [{"name": "live", "src": str(bootable_tree)}]
        run_playbook(
            "playbooks/live_build.yml",
            "inventories/local",
            variables={
                "live_image_folder": str(folder),
                "live_image_boot_trees": [str(bootable_tree)],
                "live_image_images": [{"name": "live.seed", "label": "media", "level": 1, "roots": roots}],
            },
        ).succeeded()
        run_module(
            "live_image", {"path": str(folder / "other.seed"), "checksum": "blake2b", "level": 1, "roots": roots}
        )
        bootable.keep_kernel(bootable_tree, folder)
        (folder / "id").symlink_to(bootable_tree.parent / "id")
        yield Built(folder)
    finally:
        leftovers.remove(folder)


def test_what_is_written_on_a_disk_is_there_at_the_next_boot(built: Built, folder: Path) -> None:
    """The disk was wiped as a refusal says. The seed is a disk, then a file on a stick; another one does not boot."""
    first = _looked(folder, built.image(folder / "first"), _hardware(str(_wiped(_formatted(folder, "ext4")))))
    assert "new \n" in first
    assert "label cowherd-sprout" in first
    assert "/dev/vda" in first
    assert "/dev/vdb" in first
    disk = _kept(folder)
    stick = bootable.image(folder / "second", built.folder, _stick(folder, built.folder / "live.seed"))
    second = _looked(folder, stick, _hardware(str(disk), "cowherd.image=/live.seed"))
    assert "new kept" in second
    assert "/dev/loop0" in second
    assert "the btrfs on /dev/vdb has not grown out of this seed" in _refused(
        folder, built.image(folder / "other", "other.seed"), _hardware(str(disk))
    )
    _was_not_written_to(folder, "disk1", disk)


def test_a_seed_is_read_through_verity(built: Built, folder: Path) -> None:
    """The disk under it has the same file system; it is not the one that is mounted."""
    disk = folder / "verified.raw"
    shutil.copy(built.folder / "other.seed", disk)
    size = disk.stat().st_size
    said = run("veritysetup", "format", f"--hash-offset={size}", str(disk), str(disk))
    root_hash = next(line.split()[-1] for line in said.splitlines() if line.startswith("Root hash:"))
    boot = f"{BOOT} cowherd.root_hash={root_hash} cowherd.hash_offset={size}"
    said = _looked(folder, bootable.image(folder / "image", built.folder, disk), Hardware(1024, (), boot))
    assert "/dev/mapper/cowherd-root" in said
    assert "/dev/zram0" in said
    assert "/dev/vda" not in said


def test_what_cannot_be_meant_does_not_boot(built: Built, folder: Path) -> None:
    """One machine is asked for all of it, with the disks /dev/vdb to /dev/vdg."""
    formatted = [str(_formatted(folder, kind)) for kind in ("ext4", "btrfs")]
    disks = (SPROUT, *formatted, "64M", str(_with_bytes(folder)), str(_partitioned(folder)))
    asked = {
        "cowherd.sprout=/dev/vdb cowherd.subvol=gone": "the root gone of the seed cannot be mounted",
        "cowherd.sprout_size=90%": "cowherd.sprout_size=90% is more than half of the RAM",
        "cowherd.sprout=/dev/vdc": "/dev/vdc has something on it (ext4)",
        "cowherd.sprout=/dev/vdd": "the btrfs on /dev/vdd has not grown out of this seed. Not",
        "cowherd.sprout=/dev/vde": "/dev/vde is smaller than 96 MiB",
        "cowherd.sprout=/dev/vdf": "/dev/vdf has data in its first MiB",
        "cowherd.sprout=/dev/vdg": "/dev/vdg has data in its first MiB",
    }
    image = built.image(folder / "image")
    image.initrd.unlink()
    attempts.initrd(built.folder / "initrd", image.initrd, [f"{BOOT} {options}" for options in asked])
    said = _refused(folder, image, Hardware(1024, disks, f"root=/dev/vda {attempts.BOOT} {QUIET}"))
    refusals = attempts.refusals(said)
    assert len(refusals) == len(asked), said
    for refusal, reason in zip(refusals, asked.values(), strict=True):
        assert refusal.startswith(f"cowherd: {reason}")
    for number, disk in enumerate(disks, start=1):
        if Path(disk).is_absolute():
            _was_not_written_to(folder, f"disk{number}", Path(disk))


def _formatted(folder: Path, kind: str) -> Path:
    """Make a disk with a file system, which has a folder or subvolume of the name of the root that is booted."""
    (folder / "tree/live").mkdir(parents=True, exist_ok=True)
    disk = folder / f"{kind}.raw"
    run("truncate", f"--size={SPROUT}", str(disk))
    run(*FORMATTED[kind], str(folder / "tree"), str(disk))
    return disk


def _wiped(disk: Path) -> Path:
    """Wipe a disk as it is said where one is refused."""
    with loop.attached(disk, readonly=False) as device:
        run("wipefs", "--quiet", "-a", device)
        run("blkdiscard", "-z", "-l", "1MiB", device)
    return disk


def _with_bytes(folder: Path) -> Path:
    """Make a disk with nothing but a few bytes that no tool knows, at the end of the first MiB."""
    disk = folder / "bytes.raw"
    with disk.open("wb") as file:
        file.seek((1 << 20) - 512)
        file.write(Random(1).randbytes(512))
    run("truncate", f"--size={SPROUT}", str(disk))
    return disk


def _partitioned(folder: Path) -> Path:
    """Make a disk with nothing but a partition table (MBR) with one partition from the first MiB on."""
    disk = folder / "partitioned.raw"
    first, size = (number.to_bytes(4, "little") for number in (2048, 204800))
    disk.write_bytes(bytes(450) + b"\x83" + bytes(3) + first + size + bytes(48) + b"\x55\xaa")
    run("truncate", f"--size={SPROUT}", str(disk))
    return disk


def _stick(folder: Path, seed: Path) -> Path:
    """Make a disk with a file system as sticks have it, with the seed as a file."""
    disk = folder / "stick.raw"
    run("mformat", "-C", "-F", "-T", str(1 << 20), "-i", str(disk), "::")
    run("mcopy", "-i", str(disk), str(seed), "::/")
    return disk


def _hardware(disk: str, more: str = "") -> Hardware:
    return Hardware(1024, (disk,), f"{BOOT} cowherd.sprout=/dev/vdb {more}")


def _looked(folder: Path, image: Image, hardware: Hardware) -> str:
    with machine.booted(folder / "vm", image, hardware, lambda vm: "looked" in bootable.console(vm)) as vm:
        said = bootable.console(vm)
    _was_not_written_to(folder, "root", image.disk)
    return said


def _refused(folder: Path, image: Image, hardware: Hardware) -> str:
    with machine.booted(folder / "vm", image, hardware, bootable.has_ended) as vm:
        said = bootable.console(vm)
    assert "System halted" in said
    _was_not_written_to(folder, "root", image.disk)
    return said


def _was_not_written_to(folder: Path, disk: str, original: Path) -> None:
    """Compare what the machine that ran there has on a disk with what it was given."""
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(folder / f"vm/{disk}.qcow2"), str(original))


def _kept(folder: Path) -> Path:
    """Return the second disk of the machine that ran there, as it was left."""
    disk = folder / "kept.raw"
    run("qemu-img", "convert", "-O", "raw", str(folder / "vm/disk1.qcow2"), str(disk))
    return disk

"""The disk of a bare Debian: a fresh installation, with SSH for root. This text is part of its key in the cache."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import cached

from . import apt
from .process import run

RELEASE = "trixie"

PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "openssh-server",
    "procps",
    "python3",
    "systemd-sysv",
    "udev",
    "zstd",
)

DISK_SIZE = 16 * 2**30

FILES = {
    "etc/hostname": "cowherd-vm\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 cowherd-vm\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    # The name server of QEMU's user network.
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    # By the driver's name: bridges and veths that tests make are not the network's to configure.
    "etc/systemd/network/80-uplink.network": "[Match]\nDriver=virtio_net\n\n[Network]\nDHCP=ipv4\n",
    # Translated descriptions double what an update downloads.
    "etc/apt/apt.conf.d/80languages": 'Acquire::Languages "none";\n',
}

MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer")
"""They would start when the clock jumps on resuming, and hold apt's lock."""


@dataclass(frozen=True)
class Image:
    """A built disk, never written to: machines run on overlays of it."""

    folder: Path
    release: str

    @property
    def disk(self) -> Path:
        """A raw file with an ext4 file system and no partitions."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """The kernel that QEMU starts."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its initial RAM disk."""
        return self.folder / "initrd"

    @property
    def key(self) -> Path:
        """The private SSH key of root."""
        return self.folder / "id"


def image(packages: Sequence[str] = (), release: str = RELEASE) -> Image:
    """The bare Debian with these packages besides, built unless it is cached."""
    wanted = sorted({*PACKAGES, *packages})
    inputs = [Path(__file__).read_text(), release, wanted]
    return Image(cached(f"vm-{release}", "", inputs, lambda draft: _build(draft, wanted, release)), release)


def _build(draft: Path, packages: Sequence[str], release: str) -> None:
    sys.stderr.write(f"Building the disk of a bare Debian {release}; this takes about a minute.\n")
    shutil.rmtree(draft, ignore_errors=True)  # of a builder that was killed
    draft.mkdir()
    tree = draft / "tree"
    _install(tree, packages, release)
    made = Image(draft, release)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cowherd-vm", "-f", str(made.key))
    _configure(tree, made.key.with_suffix(".pub").read_text())
    shutil.copy(next(tree.glob("boot/vmlinuz-*")), made.kernel)
    shutil.copy(next(tree.glob("boot/initrd.img-*")), made.initrd)
    with made.disk.open("wb") as disk:
        disk.truncate(DISK_SIZE)
    # Inode tables written now, not by a kernel thread of each machine.
    run("mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0", "-d", str(tree), str(made.disk))
    shutil.rmtree(tree)
    os.sync()


def _install(tree: Path, packages: Sequence[str], release: str) -> None:
    settings = apt.of_this_machine()
    run(
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=directory",
        f"--include={','.join(packages)}",
        *(f"--aptopt={option}" for option in settings.options),
        release,
        str(tree),
        *settings.sources(release),
    )
    (tree / "etc/apt/apt.conf.d/99mmdebstrap").unlink(missing_ok=True)


def _configure(tree: Path, public_key: str) -> None:
    for path, content in FILES.items():
        (tree / path).unlink(missing_ok=True)
        (tree / path).write_text(content)
    access = tree / "root/.ssh"
    access.mkdir(mode=0o700, exist_ok=True)
    (access / "authorized_keys").write_text(public_key)
    units = tree / "etc/systemd/system"
    for unit in MASKED_UNITS:
        (units / unit).symlink_to("/dev/null")
    wanted = units / "multi-user.target.wants"
    (wanted / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")

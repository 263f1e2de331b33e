"""The tree of a small Debian whose images boot."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support import images

from .image import RELEASE, Image
from .machine import Machine
from .process import run

_NETWORK = "[Match]\nDriver=virtio_net\n\n[Network]\nDHCP=ipv4\n"


def unpack(folder: Path) -> Path:
    """Make `tree` in the folder, and `id`, the key by which root of that tree is reached; returns the tree."""
    tree = folder / "tree"
    tree.mkdir(parents=True)
    rootfs = images.bootable_debian()
    run("tar", "--extract", "--numeric-owner", "--xattrs", "--file", str(rootfs), "--directory", str(tree))
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "cowherd-boot", "-f", str(folder / "id"))
    (tree / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(folder / "id.pub", tree / "root/.ssh/authorized_keys")
    units = tree / "etc/systemd"
    (units / "network/80-uplink.network").write_text(_NETWORK)
    wanted = units / "system/multi-user.target.wants"
    (wanted / "systemd-networkd.service").symlink_to("/usr/lib/systemd/system/systemd-networkd.service")
    return tree


def keep_kernel(tree: Path, folder: Path) -> None:
    """Copy the kernel of a tree and its initial RAM disk into the folder."""
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next(tree.glob(f"boot/{name}-*")), folder / name.removesuffix(".img"))


def image(folder: Path, kept: Path, disk: Path) -> Image:
    """Return this disk with kernel and key of the folder `kept`, in a new folder for them."""
    folder.mkdir()
    for name in ("vmlinuz", "initrd", "id"):
        (folder / name).symlink_to(kept / name)
    (folder / "disk.raw").symlink_to(disk)
    return Image(folder, RELEASE)


def console(vm: Machine) -> str:
    """Return what the machine has said on its console."""
    return (vm.folder / "console.log").read_text(errors="replace")


def has_ended(vm: Machine) -> bool:
    """Tell whether it has halted, or has booted after all."""
    return any(words in console(vm) for words in ("System halted", "login:"))

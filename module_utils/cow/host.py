"""What machine and operating system this is. Reads files only; `root` is where they are looked for."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")

USEFUL_FILE_SYSTEMS = frozenset({"btrfs", "erofs", "ext4", "overlay", "squashfs", "xfs", "zfs"})
"""Those that Cowherd has a use for; a kernel has dozens of modules for others."""

_DEBIAN_OF_MACHINE = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "armv6l": "armhf",
    "i686": "i386",
    "ppc64le": "ppc64el",
}
_INCUS_OF_DEBIAN = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "i386": "i686", "ppc64el": "ppc64le"}


@dataclass(frozen=True)
class OperatingSystem:
    """os-release(5) and the machine under it.

    codename: of the release, such as trixie; None where there is none, as in a rolling one.
    architecture, machine: of the programs (not of the kernel), as Debian and as Incus call it: arm64, aarch64.
    model: what the device tree says the board is; None on machines without one.
    """

    id: str
    like: tuple[str, ...]
    name: str
    version_id: str | None
    codename: str | None
    architecture: str
    machine: str
    kernel: str
    model: str | None
    raspberry_pi: bool


@dataclass(frozen=True)
class Virtualization:
    """What the system runs in, as far as can be seen from inside.

    kind: container, vm or none. technology: such as lxc or QEMU; None where it does not say.
    """

    kind: str
    technology: str | None = None


@dataclass(frozen=True)
class FileSystems:
    """known: by the running kernel, by now. loadable: useful ones that it has a module for."""

    known: tuple[str, ...]
    loadable: tuple[str, ...]


def operating_system(dpkg_architecture: str | None, root: Path = ROOT) -> OperatingSystem:
    """Describe the system; `dpkg_architecture` is what dpkg says, which knows of 32-bit programs on a 64-bit kernel."""
    release = _os_release(root)
    kernel = os.uname()
    architecture = dpkg_architecture or _DEBIAN_OF_MACHINE.get(kernel.machine, kernel.machine)
    model = _text(root / "proc/device-tree/model").rstrip("\0") or None
    return OperatingSystem(
        id=release.get("ID", "linux"),
        like=tuple(release.get("ID_LIKE", "").split()),
        name=release.get("PRETTY_NAME", "Linux"),
        version_id=release.get("VERSION_ID"),
        codename=release.get("VERSION_CODENAME"),
        architecture=architecture,
        machine=_INCUS_OF_DEBIAN.get(architecture, architecture),
        kernel=kernel.release,
        model=model,
        raspberry_pi="Raspberry Pi" in (model or ""),
    )


def runs_systemd(root: Path = ROOT) -> bool:
    """Say whether systemd is the init that runs (sd_booted(3)), not merely installed."""
    return (root / "run/systemd/system").is_dir()


def available_memory(root: Path = ROOT) -> int:
    """Return the bytes of memory that are free, or could be at once (MemAvailable in /proc/meminfo); 0 if not told."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def virtualization(root: Path = ROOT) -> Virtualization:
    """Tell a container from a virtual machine from bare metal by what each leaves to be seen."""
    if container := _container(root):
        return Virtualization("container", container)
    if hypervisor := _hypervisor(root):
        return Virtualization("vm", hypervisor)
    flags = re.search(r"^flags\s*:.*\bhypervisor\b", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return Virtualization("vm" if flags else "none")


def file_systems(root: Path = ROOT) -> FileSystems:
    """List the kernel's file systems."""
    known = {line.split("\t")[-1] for line in _text(root / "proc/filesystems").splitlines() if line}
    return FileSystems(
        known=tuple(sorted(known)),
        loadable=tuple(sorted(USEFUL_FILE_SYSTEMS.intersection(_modules(root)) - known)),
    )


def _os_release(root: Path) -> dict[str, str]:
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release")
    assignments = (line.partition("=") for line in text.splitlines() if re.match(r"[A-Z0-9_]+=", line))
    return {key: "".join(shlex.split(value)) for key, _, value in assignments}


def _container(root: Path) -> str:
    named = _text(root / "run/systemd/container") or _text(root / "run/host/container-manager")
    environment = re.search(r"(?:^|\0)container=([^\0]*)", _text(root / "proc/1/environ"))
    if named or environment:
        return named.strip() or (environment[1] if environment else "")
    return "docker" if (root / ".dockerenv").exists() else ""


def _hypervisor(root: Path) -> str:
    vendor = _text(root / "sys/class/dmi/id/sys_vendor").strip()
    known = ("QEMU", "VMware, Inc.", "innotek GmbH", "Xen", "Parallels", "Amazon EC2", "Google")
    device_tree = _text(root / "proc/device-tree/hypervisor/compatible").rstrip("\0")
    return (vendor if vendor in known else "") or device_tree or _text(root / "sys/hypervisor/type").strip()


def _modules(root: Path) -> Iterator[str]:
    folder = root / "lib/modules" / os.uname().release
    for index in ("modules.builtin", "modules.dep"):
        for line in _text(folder / index).splitlines():
            yield line.partition(":")[0].rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _text(file: Path) -> str:
    """The content of a small file; "" when it is missing or not for this user."""
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""

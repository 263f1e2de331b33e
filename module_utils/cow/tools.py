"""The programs that work on file systems and images, and what the installed ones can do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from . import process
from .errors import NotYetKnown

_QEMU_PACKAGES = {"x86_64": "qemu-system-x86", "i686": "qemu-system-x86", "aarch64": "qemu-system-arm"}
_PACKAGES = {
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.xfs": "xfsprogs",
    "mke2fs": "e2fsprogs",
    "mksquashfs": "squashfs-tools",
    "mkfs.erofs": "erofs-utils",
    "veritysetup": "cryptsetup-bin",
    "mmdebstrap": "mmdebstrap",
    "rsync": "rsync",
}
_OTHERS = {
    "btrfstune": "btrfs-progs",
    "compress": "ncompress",
    "debugfs": "e2fsprogs",
    "dumpe2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "e2label": "e2fsprogs",
    "lzma": "xz-utils",
    "resize2fs": "e2fsprogs",
    "openssl": "openssl",
    "tar": "tar",
    "xfs_admin": "xfsprogs",
    "xz": "xz-utils",
}
"""Of programs that are not in it, such as gzip, the package has the same name."""
PACKAGES = frozenset({*_PACKAGES.values(), *_QEMU_PACKAGES.values(), "qemu-system-misc"})
"""The packages that bring them."""


@dataclass(frozen=True)
class Tool:
    """version: upstream's, of the package that brings the program; None for one that did not come in a package.

    features: what the program itself says that it can do.
    """

    installed: bool
    version: str | None = None
    features: Mapping[str, bool | tuple[str, ...]] = field(default_factory=dict)


def observe(packages: Mapping[str, str], machine: str, run: process.Runner = process.run) -> dict[str, Tool]:
    """Look for each program; `packages` has the installed versions of PACKAGES.

    Returns them by name, with '_' for '.' and '-', and without the machine in that of QEMU.
    """
    programs = {**_PACKAGES, f"qemu-system-{machine}": _QEMU_PACKAGES.get(machine, "qemu-system-misc")}
    found = {program: _tool(program, packages.get(package), run) for program, package in programs.items()}
    return {_key(program, machine): tool for program, tool in found.items()}


def find(program: str) -> str | None:
    """Return the path of a program, also one that only root's PATH has."""
    return shutil.which(program, path=process.search_path())


def require(program: str) -> str:
    """Return the path of a program, or raise NotYetKnown with the package that brings it: it may be about to come."""
    path = find(program)
    if path is None:
        raise NotYetKnown(missing(program))
    return path


@cache
def said(program: str, *arguments: str) -> str:
    """Return what a program says of itself, whatever its exit status; it is asked once. Raises as `require` does."""
    finished = process.run([require(program), *arguments], accept=range(256))
    return finished.stdout + finished.stderr


def missing(program: str) -> str:
    """Say that a program is not installed, and what brings it."""
    package = {**_PACKAGES, **_OTHERS}.get(program, program)
    return f"{program} is not installed on this host. It is in the package {package}: install that."


def _tool(program: str, version: str | None, run: process.Runner) -> Tool:
    path = find(program)
    if path is None:
        return Tool(installed=False)
    features: Mapping[str, bool | tuple[str, ...]] = {}
    if program == "btrfs":
        features = {"subvolume_json": _lists_subvolumes_as_json(path, run)}
    elif program == "mkfs.xfs":
        features = {"reflink": "reflink=" in _help(path, "-?", run)}
    elif program == "mksquashfs":
        features = {"compressors": compressors(_help(path, "-help", run))}
    from . import apt  # noqa: PLC0415  # most modules only look for a program

    return Tool(installed=True, version=apt.upstream_version(version) if version else None, features=features)


def compressors(usage: str) -> tuple[str, ...]:
    """Read the names of the compressors from the help of mksquashfs."""
    listed = usage.partition("Compressors available")[2].partition("\n")[2]
    return tuple(re.findall(r"^\t(\w+)(?: \(default\))?$", listed, re.MULTILINE))


def _lists_subvolumes_as_json(btrfs: str, run: process.Runner) -> bool:
    # The format is refused before the path is looked at, so that this needs no btrfs.
    refused = run([btrfs, "--format", "json", "subvolume", "list", "/proc"], accept=(0, 1))
    return "json is unsupported" not in refused.stderr


def _help(path: str, option: str, run: process.Runner) -> str:
    said = run([path, option], accept=range(256))
    return said.stdout + said.stderr


def _key(program: str, machine: str) -> str:
    return program.removesuffix(f"-{machine}").replace(".", "_").replace("-", "_")

"""Files in the tree of a Debian, and its initial RAM disks made with them by the tree's own initramfs-tools."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import names, process
from .errors import CowError
from .plan import Plan, Step
from .tree import ROOT, Descent, names_in

RECORD = "var/lib/cowherd/initramfs.json"
"""In the tree: for each kernel the fingerprint of the files that its RAM disk was made with, and its own SHA-256."""

MADE_WITHIN = 1800.0
"""Seconds; ten are usual, and a small board with a large kernel takes minutes."""

_TOOL = "usr/sbin/update-initramfs"
_MAKE = """\
mount --rbind /dev "$1/dev" && mount -t proc proc "$1/proc" && exec chroot "$1" /usr/sbin/update-initramfs "$2" -k "$3"
"""
"""Run by a shell with mounts of its own, which end with it: a run that is killed leaves none in the tree."""


@dataclass(frozen=True)
class File:
    """A file of root's. path: from the root of the tree. mode: its permissions."""

    path: str
    content: bytes
    mode: int

    @property
    def state(self) -> dict[str, str]:
        """What a diff shows of it."""
        return {"sha256": hashlib.sha256(self.content).hexdigest(), "mode": f"{self.mode:04o}"}

    @property
    def folder(self) -> bytes:
        """Where it is."""
        return os.fsencode(self.path).rpartition(b"/")[0] or ROOT

    @property
    def name(self) -> bytes:
        """Its name there."""
        return os.fsencode(self.path).rpartition(b"/")[2]


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for."""

    tree: Path
    files: tuple[File, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        return cls(
            tree=Path(names.absolute_path(params["tree"])),
            files=tuple(
                File(
                    path=names.absolute_path(f"/{file['path']}")[1:],
                    content=file["content"].encode(),
                    mode=_mode(file["mode"]),
                )
                for file in params["files"]
            ),
        )

    @property
    def fingerprint(self) -> str:
        """Of all that the RAM disks are to be made with."""
        parts = [[file.path, file.state] for file in self.files]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Found:
    """files: those at the wanted paths, None for what is not there.

    kernels: versions. made_with: the fingerprint for each whose RAM disk is as it was made here.
    """

    tree: Path
    files: Mapping[str, File | None]
    kernels: tuple[str, ...]
    made_with: Mapping[str, str]
    has_initrd: frozenset[str] = frozenset()
    has_tool: bool = True


def observe(wanted: Wanted) -> Found:
    """Look into the tree; nothing in it is run."""
    if not wanted.tree.is_dir():
        raise CowError(f"There is no folder {wanted.tree}. Give the root of the tree of a Debian.")
    with Descent(wanted.tree) as tree:
        boot = _names(tree, b"boot")
        kernels = tuple(sorted(name.removeprefix("vmlinuz-") for name in boot if name.startswith("vmlinuz-")))
        initrds = {kernel: _read(tree, f"boot/initrd.img-{kernel}") for kernel in kernels}
        recorded = _recorded(_read(tree, RECORD))
        return Found(
            tree=wanted.tree,
            files={file.path: _read(tree, file.path) for file in wanted.files},
            kernels=kernels,
            made_with={
                kernel: recorded[kernel]["files"]
                for kernel, initrd in initrds.items()
                if initrd and recorded.get(kernel, {}).get("initrd") == initrd.state["sha256"]
            },
            has_initrd=frozenset(kernel for kernel, initrd in initrds.items() if initrd),
            has_tool=_read(tree, _TOOL) is not None,
        )


def plan(found: Found, wanted: Wanted) -> Plan:
    """Write the files that are missing or different, then make each RAM disk that was not made with them."""
    if not found.kernels:
        raise CowError(
            f"There is no kernel in {found.tree}/boot. Install one in the tree, linux-image-amd64 for example."
        )
    if not found.has_tool:
        raise CowError(f"{found.tree} has no {_TOOL}. Install initramfs-tools in the tree.")
    return Plan.of(
        *(_write_step(found, file) for file in wanted.files if found.files[file.path] != file),
        *(
            _make_step(found, kernel, wanted)
            for kernel in found.kernels
            if found.made_with.get(kernel) != wanted.fingerprint
        ),
    )


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module."""
    return {
        "kernels": [
            {
                "version": kernel,
                "kernel": f"{found.tree}/boot/vmlinuz-{kernel}",
                "initrd": f"{found.tree}/boot/initrd.img-{kernel}" if kernel in found.has_initrd else None,
            }
            for kernel in found.kernels
        ]
    }


def _write_step(found: Found, file: File) -> Step:
    there = found.files[file.path]
    return Step(
        title=f"write {file.path} in {found.tree}",
        run=lambda: _write(found.tree, file),
        before=there.state if there else None,
        after=file.state,
    )


def _make_step(found: Found, kernel: str, wanted: Wanted) -> Step:
    made_with = found.made_with.get(kernel, "something else")
    return Step(
        title=f"make boot/initrd.img-{kernel} in {found.tree}",
        run=lambda: _make(wanted, kernel, kernel in found.has_initrd),
        before={"files": made_with} if kernel in found.has_initrd else None,
        after={"files": wanted.fingerprint},
    )


def _make(wanted: Wanted, kernel: str, exists: bool) -> None:
    process.run(
        [
            *("unshare", "--mount", "--propagation", "private", "--"),
            *("sh", "-c", _MAKE, "sh", str(wanted.tree), "-u" if exists else "-c", kernel),
        ],
        timeout=MADE_WITHIN,
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    with Descent(wanted.tree) as tree:
        initrd = _read(tree, f"boot/initrd.img-{kernel}")
        recorded = _recorded(_read(tree, RECORD))
    if initrd is None:
        raise CowError(f"update-initramfs succeeded, and there is no {wanted.tree}/boot/initrd.img-{kernel}.")
    recorded[kernel] = {"files": wanted.fingerprint, "initrd": initrd.state["sha256"]}
    _write(wanted.tree, File(RECORD, json.dumps(recorded, sort_keys=True, indent=1).encode() + b"\n", 0o644))


def _recorded(file: File | None) -> dict[str, dict[str, str]]:
    """Read the record; one that cannot be read says nothing, and the RAM disks are made again."""
    try:
        document = json.loads(file.content) if file else {}
    except ValueError:
        return {}
    whole = isinstance(document, dict) and all(
        isinstance(entry, dict) and entry.keys() >= {"files", "initrd"} for entry in document.values()
    )
    return document if whole else {}


def _names(tree: Descent, folder: bytes) -> list[str]:
    try:
        return [os.fsdecode(name) for name in names_in(tree.at(folder))]
    except FileNotFoundError:
        return []


def _read(tree: Descent, path: str) -> File | None:
    """Read a file; None when it is not there."""
    wanted = File(path, b"", 0)
    try:
        descriptor = os.open(
            wanted.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=tree.at(wanted.folder)
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CowError(
            f"{path} in {tree.root} is a symbolic link, or is in a folder that is one; those are not followed. "
            f"Have it be a file."
        ) from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CowError(f"{path} in {tree.root} is not a file.")
        return File(path, file.read(), stat.S_IMODE(status.st_mode))


def _write(root: Path, file: File) -> None:
    """Put the file in its place in one step, with the folders that it needs."""
    with Descent(root) as tree:
        _make_folders(tree, file.folder)
        folder = tree.at(file.folder)
        draft = b".%s.cowherd" % file.name
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(draft, flags, 0o600, dir_fd=folder), "wb") as target:
            target.write(file.content)
            os.fchmod(target.fileno(), file.mode)
            target.flush()
            os.fsync(target.fileno())
        os.rename(draft, file.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _make_folders(tree: Descent, path: bytes) -> None:
    parts = [] if path == ROOT else path.split(b"/")
    for number, name in enumerate(parts):
        parent = tree.at(b"/".join(parts[:number]) or ROOT)
        if name not in names_in(parent):
            os.mkdir(name, 0o755, dir_fd=parent)


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise CowError(f"{text!r} is not a mode. Write it in octal and in quotes, as in '0644'.")
    return mode

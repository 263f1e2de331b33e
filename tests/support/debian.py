"""Another Debian in a folder, for modules to run in: its Python and its tools on the kernel of this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ansible

from . import images, leftovers
from .ansible import ROOT, FourRuns, Result, four_runs_by, run_module

TOOLS = {
    "bookworm": ("btrfs-progs", "e2fsprogs", "python3"),
    "trixie": ("btrfs-progs", "cryptsetup-bin", "e2fsprogs", "erofs-utils", "python3", "squashfs-tools"),
}
"""The releases, and the packages that modules find in them, none of which are of backports."""
_PYTHON = Path("/usr/bin/python3")


@dataclass(frozen=True)
class Debian:
    """root: of its tree, in which paths of this machine lead to the same as here."""

    root: Path

    def run(self, *argv: str) -> str:
        """Run a command in it, and return what it printed; RuntimeError when it fails."""
        finished = subprocess.run(
            ["chroot", self.root, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if finished.returncode:
            raise RuntimeError(f"{argv}: {finished.stderr.strip()}")
        return finished.stdout + finished.stderr

    def module(self, name: str, args: dict[str, Any], check: bool = False) -> Result:
        """Run a module in it."""
        environment = {"PYTHONPATH": str(Path(ansible.__file__).parents[1])}
        return run_module(name, args, check, within=("chroot", str(self.root)), python=_PYTHON, environment=environment)

    def four_runs(self, name: str, args: dict[str, Any]) -> FourRuns:
        """Run a module in it four times."""
        return four_runs_by(lambda check: self.module(name, args, check))


@contextmanager
def unpacked(release: str, *shared: Path) -> Iterator[Debian]:
    """Unpack one, with these folders of this machine in it for the length of the block."""
    folder = leftovers.new_folder()
    root = folder / "root"
    root.mkdir()
    try:
        packed = images.debian_rootfs(release, TOOLS[release], variant="minbase")
        tar = ["tar", "--extract", "--numeric-owner", "--file", packed, "--directory", root]
        subprocess.run(tar, check=True)
        with ExitStack() as stack:
            # Modules take their mounts out of those of others, which takes a root that is one.
            stack.enter_context(_shown(root, root))
            packages = Path(ansible.__file__).parents[1]
            for path in (ROOT, packages, Path("/dev"), Path("/proc"), Path("/sys"), Path("/run"), *shared):
                stack.enter_context(_shown(path, root))
            yield Debian(root)
    finally:
        leftovers.remove(folder)


@contextmanager
def _shown(path: Path, root: Path) -> Iterator[None]:
    point = root if path == root else root / path.relative_to("/")
    point.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", path, point], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)

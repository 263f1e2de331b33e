"""Stores of golden trees for tests, one for each technology, and `cow-session` in them."""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.cow.golden import program

from . import golden_trees, loops, needs, waiting, zfs_fuse
from .ansible import FourRuns, Result, four_runs, run_module

BACKENDS = ("btrfs", "reflink", "copy", "zfs")
"""Those that work on the kernel of a development machine; zvol needs OpenZFS in a virtual machine."""


@dataclass(frozen=True)
class Place:
    """A technology where stores can be.

    top: where folders can be made. program: cow-session. fuse: the ZFS, for that backend.
    """

    backend: str
    top: Path
    program: Path
    fuse: zfs_fuse.ZfsFuse | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def store(self) -> Store:
        """A new, empty store."""
        number = next(self.numbers)
        folder = self.top / f"work{number}"
        folder.mkdir()
        if self.fuse is None:
            location = self.top / f"store{number}"
            location.mkdir()
            return Store(self.backend, str(location), self.program, folder, place=self)
        dataset = f"{self.fuse.pool()}/golden"
        self.fuse.run("zfs", "create", dataset)
        seen = (self.fuse.within, self.fuse.seen("/"))
        return Store(self.backend, dataset, self.program, folder, *seen, whole_seconds=True, place=self)


@dataclass(frozen=True)
class Store(golden_trees.Store):
    """A store, by the modules too."""

    place: Place = field(kw_only=True)

    def module(self, name: str, check: bool = False, /, **args: Any) -> Result:
        """Run a module on this store."""
        return run_module(name, self._args(args), check, within=self.within)

    def four(self, name: str, /, **args: Any) -> FourRuns:
        """Run a module on this store four times."""
        return four_runs(name, self._args(args), state=self.state, within=self.within)

    def state(self) -> Any:
        """All that is there but locks, and what is mounted; by other means than those of the code under test."""
        return self.mount_points(), self._stored()

    def _stored(self) -> Any:
        if self.place.fuse:
            pool = self.location.partition("/")[0]
            listed = self.place.fuse.run("zfs", "list", "-H", "-r", "-t", "all", "-o", "name,origin,mountpoint", pool)
            own = self.place.fuse.run("zfs", "get", "-H", "-r", "-s", "local", "-o", "name,property,value", "all", pool)
            return listed, own
        top = Path(self.location)
        return sorted(
            (str(path), path.lstat().st_mode, path.lstat().st_ino, path.lstat().st_ctime_ns)
            for path in top.rglob("*")
            if "locks" not in path.parts
        )

    def _args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        texts = {key: str(value) if isinstance(value, Path) else value for key, value in args.items()}
        return {"store": self.location, "backend": self.backend, **texts}


def installed(path: Path) -> Path:
    """Make cow-session at a path, and return that."""
    path.write_bytes(program.build())
    path.chmod(0o755)
    return path


@contextmanager
def place(backend: str, folder: Path) -> Iterator[Place]:
    """A technology during the block; `folder` exists and is empty."""
    needs.root("sessions are mounted")
    command = installed(folder / "cow-session")
    if backend == "zfs":
        with zfs_fuse.running(folder / "zfs") as fuse:
            yield Place(backend, folder, command, fuse)
    else:
        make = {"btrfs": loops.btrfs, "reflink": loops.xfs, "copy": loops.ext4}[backend]
        with _memory(folder / "memory") as memory, make(memory / "image", folder / "mounted") as mounted:
            yield Place(backend, mounted, command)


@contextmanager
def _memory(folder: Path) -> Iterator[Path]:
    """A folder in memory, for disks that are synced at each step."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def store(of: Place) -> Iterator[Store]:
    """A new store during the block; what is mounted of it is unmounted after."""
    made = of.store()
    try:
        yield made
    finally:
        waiting.until(lambda: made.unmount_all() is None)


def together(commands: Sequence[Sequence[str]]) -> list[tuple[int, dict[str, Any]]]:
    """Run commands at one time; returns exit status and JSON of each."""
    processes = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for argv in commands]
    return [(each.wait(), json.loads(printed)) for each in processes if (printed := each.communicate()[0]) is not None]


def forget(of: Store, kind: str, name: str, project: str = "p") -> None:
    """Take away the marker of a session or generation, as no run of ours would."""
    if of.place.fuse:
        of.place.fuse.run("zfs", "inherit", "cowherd:state", f"{of.location}/{project}/{kind}s/{name}")
    else:
        Path(of.location, project, "markers", f"{kind}-{name}.json").unlink()


@contextmanager
def needed(of: Store, number: int, project: str = "p") -> Iterator[str]:
    """Have something of others that needs a generation during the block; returns what a refusal calls it."""
    if of.place.fuse:
        theirs = f"{of.location}/{project}/generations/{number}@theirs"
        of.place.fuse.run("zfs", "snapshot", theirs)
        yield theirs
        of.place.fuse.run("zfs", "destroy", theirs)
    else:
        theirs = f"{of.folder}/theirs"
        Path(theirs).mkdir()
        subprocess.run(["mount", "--bind", f"{of.location}/{project}/generations/{number}", theirs], check=True)
        yield theirs
        subprocess.run(["umount", theirs], check=True)


@contextmanager
def filled(of: Store) -> Iterator[None]:
    """Leave no space in the store during the block."""
    if of.place.fuse:
        dataset = f"{of.location}/fill"
        of.place.fuse.run("zfs", "create", "-o", f"mountpoint={of.folder}/fill", dataset)
        filler = of.seen(of.folder) / "fill" / "file"
    else:
        filler = Path(of.location).parent / "fill"
    try:
        fill(filler)
        yield
    finally:
        filler.unlink()
        subprocess.run(["sync"], check=True)
        if of.backend == "btrfs":  # gives chunks back by and by, and by this at once
            subprocess.run(
                ["btrfs", "balance", "start", "-dusage=0", filler.parent], stdout=subprocess.DEVNULL, check=True
            )
        if of.place.fuse:
            # It lets go of a file system some time after that was unmounted.
            waiting.until(lambda: not of.place.fuse or _destroyed(of.place.fuse, dataset))


def _destroyed(fuse: zfs_fuse.ZfsFuse, dataset: str) -> bool:
    fuse.run("zfs", "destroy", dataset, accept=(0, 1))
    return not fuse.run("zfs", "list", "-H", "-o", "name", dataset, accept=(0, 1))


def fill(path: Path) -> None:
    """Write until nothing more can be written."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\1" * size)

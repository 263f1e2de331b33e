"""Stores of golden trees for tests, one for each technology, and `cow-session` in them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible.module_utils.cow.golden import program

from . import loops, needs, waiting, zfs_fuse
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

    def store(self, **options: str) -> Store:
        """A new, empty store."""
        number = next(self.numbers)
        folder = self.top / f"work{number}"
        folder.mkdir()
        if self.fuse:
            location = f"{self.fuse.pool()}/golden"
            self.fuse.run("zfs", "create", location)
        else:
            location = str(self.top / f"store{number}")
            Path(location).mkdir()
        return Store(self, location, folder, options)


@dataclass(frozen=True)
class Store:
    """A store. folder: for all else that a test needs. options: more than store and backend."""

    place: Place
    location: str
    folder: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def within(self) -> tuple[str, ...]:
        """The command by which others run where its mounts are seen."""
        return self.place.fuse.within if self.place.fuse else ()

    def seen(self, path: Path | str) -> Path:
        """Where a path of the store's mounts is found from here."""
        return self.place.fuse.seen(path) if self.place.fuse else Path(path)

    def command(self, *argv: str | Path | int) -> list[str]:
        """The command line of cow-session for this store."""
        options = [f"--{key.replace('_', '-')}={value}" for key, value in self.options.items()]
        where = [f"--store={self.location}", f"--backend={self.place.backend}", "--config=/nonexistent"]
        return [*self.within, str(self.place.program), *where, *options, *map(str, argv)]

    def run(self, *argv: str | Path | int, status: int = 0) -> dict[str, Any]:
        """Run cow-session, and return what it printed; AssertionError when its exit status is another one."""
        finished = subprocess.run(
            self.command(*argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
        said = f"{argv} ended with {finished.returncode}:\n{finished.stdout}{finished.stderr}"
        assert finished.returncode == status, said
        assert not finished.stderr, said
        printed: dict[str, Any] = json.loads(finished.stdout)
        return printed

    def module(self, name: str, check: bool = False, /, **args: Any) -> Result:
        """Run a module on this store."""
        return run_module(name, self._args(args), check, within=self.within)

    def four(self, name: str, /, **args: Any) -> FourRuns:
        """Run a module on this store four times."""
        return four_runs(name, self._args(args), state=self.state, within=self.within)

    def begin(self, project: str = "p") -> Path:
        """Make generation 1 of a project; returns the folder that it was made from."""
        source = tree(self.folder / f"source-{project}", whole_seconds=bool(self.place.fuse))
        self.run("promote", project, "--source", source)
        return source

    def path(self, session: str) -> Path:
        """A path for a session."""
        return self.folder / "at" / session

    def clone(self, session: str, project: str = "p") -> Path:
        """Make a session, and return where it is found from here."""
        self.run("clone", project, session, "--at", self.path(session))
        return self.seen(self.path(session))

    def project(self, name: str = "p") -> dict[str, Any]:
        """What `list` says of a project."""
        (found,) = self.run("list", name, "--no-sizes")["projects"]
        return dict(found)

    def current(self, project: str = "p") -> int | None:
        """The number of the current generation."""
        number: int | None = self.project(project)["current"]
        return number

    def state(self) -> Any:
        """All that is there but locks, by other means than those of the code under test."""
        if self.place.fuse:
            return [
                self.place.fuse.run("zfs", "list", "-H", "-r", "-t", "all", "-o", "name,origin,mountpoint", pool)
                for pool in [self.location.partition("/")[0]]
            ]
        top = Path(self.location)
        return sorted(
            (str(path), path.lstat().st_mode, path.lstat().st_ino, path.lstat().st_ctime_ns)
            for path in top.rglob("*")
            if "locks" not in path.parts
        )

    def mount_points(self) -> list[str]:
        """What is mounted in `folder`, as seen there."""
        table = subprocess.run(
            [*self.within, "cat", "/proc/self/mountinfo"], stdout=subprocess.PIPE, text=True, check=True
        )
        points = [line.split()[4] for line in table.stdout.splitlines()]
        return [point for point in points if point.startswith(f"{self.folder}/")]

    def unmount_all(self) -> None:
        """As a reboot does."""
        for point in reversed(self.mount_points()):
            subprocess.run([*self.within, "umount", point], stdin=subprocess.DEVNULL, check=True)

    def _args(self, args: Mapping[str, Any]) -> dict[str, Any]:
        texts = {key: str(value) if isinstance(value, Path) else value for key, value in args.items()}
        return {"store": self.location, "backend": self.place.backend, **texts}


@contextmanager
def place(backend: str, folder: Path) -> Iterator[Place]:
    """A technology during the block; `folder` exists and is empty."""
    needs.root("sessions are mounted")
    command = folder / "cow-session"
    command.write_bytes(program.build())
    command.chmod(0o755)
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
def store(of: Place, **options: str) -> Iterator[Store]:
    """A new store during the block; what is mounted of it is unmounted after."""
    made = of.store(**options)
    try:
        yield made
    finally:
        waiting.until(lambda: made.unmount_all() is None)


def tree(folder: Path, *, whole_seconds: bool = False) -> Path:
    """A small tree with one of everything that has to be kept; zfs-fuse keeps no more than whole seconds."""
    folder.mkdir()
    (folder / "folder" / "deep").mkdir(parents=True)
    (folder / "folder").chmod(0o2751)
    (folder / "text").write_text("as it was\n")
    (folder / "folder" / "deep" / "data").write_bytes(os.urandom(300_000))
    (folder / "folder" / "deep" / "script").write_text("#!/bin/sh\n")
    (folder / "folder" / "deep" / "script").chmod(0o4755)
    os.chown(folder / "text", 1234, 4321)
    (folder / "link").symlink_to("folder/deep/data")
    (folder / "other name").hardlink_to(folder / "text")
    for number, path in enumerate([*folder.rglob("*"), folder]):
        time = (1_234_567_890 + number) * 10**9 + (0 if whole_seconds else 123_456_789)
        os.utime(path, ns=(time, time), follow_symlinks=False)
    return folder


def content(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What of a tree has to be the same in a clone: kinds, modes, owners, times, sizes and content."""
    return {str(path.relative_to(folder)): _entry(path) for path in sorted(folder.rglob("*"))}


def _entry(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    if path.is_symlink():
        held: Any = path.readlink()
    elif path.is_file():
        held = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        held = None
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, held


def together(commands: Sequence[Sequence[str]]) -> list[tuple[int, dict[str, Any]]]:
    """Run commands at one time; returns exit status and JSON of each."""
    processes = [subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) for argv in commands]
    return [(each.wait(), json.loads(printed)) for each in processes if (printed := each.communicate()[0]) is not None]


def keep_whole_seconds(folder: Path) -> None:
    """Have no more of each time than zfs-fuse keeps."""
    for path in (*folder.rglob("*"), folder):
        seconds = path.lstat().st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(seconds, seconds), follow_symlinks=False)


def forget(of: Store, kind: str, name: str, project: str = "p") -> None:
    """Take away the marker of a session or generation, as no run of ours would."""
    if of.place.fuse:
        of.place.fuse.run("zfs", "inherit", "cowherd:state", f"{of.location}/{project}/{kind}s/{name}")
    else:
        Path(of.location, project, "markers", f"{kind}-{name}.json").unlink()


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
        if of.place.backend == "btrfs":  # gives chunks back by and by, and by this at once
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

"""Stores of golden trees, `cow-session` in them, and small trees.

It needs nothing but the standard library, for it is used also in a virtual machine that has no more than that.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from . import killed


@dataclass(frozen=True)
class Store:
    """A store.

    location: as cow-session is told it. program: cow-session. folder: for all else that a test needs. within: the
    command by which others run where its mounts are seen. root: where they are found from here. whole_seconds: it keeps
    no more of a time, and no extended attributes, as zfs-fuse does.
    """

    backend: str
    location: str
    program: Path
    folder: Path
    within: tuple[str, ...] = ()
    root: Path = Path("/")
    whole_seconds: bool = False

    def seen(self, path: Path | str) -> Path:
        """Where a path of the store's mounts is found from here."""
        return self.root / str(path).lstrip("/")

    def command(self, *argv: str | Path | int) -> list[str]:
        """The command line of cow-session for this store."""
        where = [f"--store={self.location}", f"--backend={self.backend}", "--config=/nonexistent"]
        return [*self.within, str(self.program), *where, *map(str, argv)]

    def run(self, *argv: str | Path | int, status: int = 0) -> dict[str, Any]:
        """Run cow-session, and return what it printed; AssertionError when its exit status is another one."""
        finished = self.execute(*argv)
        said = f"{argv} ended with {finished.returncode}:\n{finished.stdout}{finished.stderr}"
        assert finished.returncode == status, said
        assert not finished.stderr, said
        printed: dict[str, Any] = json.loads(finished.stdout)
        return printed

    def execute(self, *argv: str | Path | int, killed_before: int = 0) -> subprocess.CompletedProcess[str]:
        """Run cow-session, and kill it before a change when one is given, counted from 1; see `killed`."""
        return subprocess.run(
            self._killed(str(killed_before), *argv) if killed_before else self.command(*argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @contextmanager
    def stopped(self, *argv: str | Path | int, before: int) -> Iterator[dict[str, Any]]:
        """Run cow-session, stopped before a change during the block; it continues then, and comes to its end.

        What it prints is in the dictionary after that.
        """
        printed: dict[str, Any] = {}
        with self._begun(f"{before}:SIGSTOP", *argv) as run:
            assert run.stderr
            try:
                assert run.stderr.read(1), "it made fewer changes"
                yield printed
            finally:
                os.killpg(run.pid, signal.SIGCONT)
            text, said = run.communicate(timeout=120)
            assert run.returncode == 0, (text, said)
            printed.update(json.loads(text))

    @contextmanager
    def copying(self, *argv: str | Path | int, until: int) -> Iterator[subprocess.Popen[bytes]]:
        """Run cow-session, whose workers are stopped before a change in the middle of a copy; killed at the end."""
        with self._begun(f"{until}:SIGSTOP:workers", *argv) as run:
            assert run.stderr
            try:
                assert run.stderr.read(1), "it copied less"
                yield run
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)

    def _begun(self, before: str, *argv: str | Path | int) -> subprocess.Popen[bytes]:
        """Start cow-session in a group of processes of its own, to be signalled before a change."""
        return subprocess.Popen(
            self._killed(before, *argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def _killed(self, before: str, *argv: str | Path | int) -> list[str]:
        own, command = len(self.within), self.command(*argv)
        return [*command[:own], sys.executable, "-P", killed.__file__, before, *command[own:]]

    def inner(self, name: str) -> Self:
        """A new, empty store in this one, which is not begun itself."""
        location = f"{self.location}/{name}"
        make = ["mkdir"] if location.startswith("/") else ["zfs", "create"]
        subprocess.run([*self.within, *make, location], stdin=subprocess.DEVNULL, check=True)
        return replace(self, location=location)

    def source(self, project: str = "p") -> Path:
        """A folder to make generations of a project from."""
        return tree(self.folder / f"source-{project}", whole_seconds=self.whole_seconds)

    def begin(self, project: str = "p") -> Path:
        """Make generation 1 of a project; returns the folder that it was made from."""
        source = self.source(project)
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


def tree(folder: Path, *, whole_seconds: bool = False) -> Path:
    """A small tree with one of everything to be kept; zfs-fuse keeps whole seconds only, and no attributes."""
    folder.mkdir()
    (folder / "folder" / "deep").mkdir(parents=True)
    (folder / "folder").chmod(0o2751)
    (folder / "text").write_text("as it was\n")
    (folder / "folder" / "deep" / "data").write_bytes(os.urandom(300_000))
    (folder / "folder" / "deep" / "script").write_text("#!/bin/sh\n")
    (folder / "folder" / "deep" / "script").chmod(0o4755)
    os.chown(folder / "text", 1234, 4321)
    for path in () if whole_seconds else (folder, folder / "text", folder / "folder"):
        os.setxattr(path, "user.note", b"of " + os.fsencode(path.name))
    (folder / "link").symlink_to("folder/deep/data")
    (folder / "other name").hardlink_to(folder / "text")
    for number, path in enumerate([*folder.rglob("*"), folder]):
        time = (1_234_567_890 + number) * 10**9 + (0 if whole_seconds else 123_456_789)
        os.utime(path, ns=(time, time), follow_symlinks=False)
    return folder


def content(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What of a tree has to be the same in a clone: kinds, modes, owners, times, hard links, attributes and content."""
    return {str(path.relative_to(folder)): _entry(path) for path in (folder, *sorted(folder.rglob("*")))}


def _entry(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    if path.is_symlink():
        held: Any = path.readlink()
    elif path.is_file():
        held = hashlib.sha256(path.read_bytes()).hexdigest()
    else:
        held = None
    links = None if path.is_dir() and not path.is_symlink() else status.st_nlink
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, links, _attributes(path), held


def _attributes(path: Path) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:  # zfs-fuse
            raise
        return {}
    own = sorted(name for name in names if name.startswith("user."))
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in own}


def keep_whole_seconds(folder: Path) -> None:
    """Have no more of each time than zfs-fuse keeps."""
    for path in (*folder.rglob("*"), folder):
        seconds = path.lstat().st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(seconds, seconds), follow_symlinks=False)

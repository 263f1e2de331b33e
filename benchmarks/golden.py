"""Sessions of golden trees: clone and destroy through cow-session against the bare command line, and what ten take."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible.module_utils.cow.kernel import own_mounts, sync_file_system
from tests.support import fork_server, loops, zfs_fuse
from tests.support.golden import installed

from .timing import interleaved, milliseconds, table

ROUNDS = int(os.environ.get("BENCHMARK_ROUNDS", "9"))
FILES = (1_000, 100_000)
SESSIONS = 10
CHANGED = 20
"""One in so many files is changed in each session: 5 %."""
_SIZE = int(os.environ.get("BENCHMARK_BYTES", str(1 << 30)))
"""Of the golden tree whose sessions change."""
_PIECE = 1 << 20
_TRIES = 100
_numbers = itertools.count()


@dataclass(frozen=True)
class Place:
    """A store, and how what cow-session does is done there by hand.

    command: cow-session, whose fork server waits; alone: the same in a file that has none.
    clone, destroy: command lines, given the name of the clone. within: the command by which all of them run.
    """

    command: Path
    alone: Path
    backend: str
    store: str
    clone: Callable[[str], list[str]]
    destroy: Callable[[str], list[str]]
    within: tuple[str, ...] = ()

    def run(self, *argv: str) -> dict[str, Any]:
        """Run cow-session, and return what it prints."""
        where = [f"--store={self.store}", "--config=/nonexistent", f"--backend={self.backend}"]
        finished = subprocess.run(
            [*self.within, self.command, *where, *argv], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if finished.returncode:
            raise RuntimeError(f"{argv}: {finished.stdout.decode()}{finished.stderr.decode()}")
        answer: dict[str, Any] = json.loads(finished.stdout)
        return answer

    def bare(self, argv: list[str]) -> None:
        """Run one of the others; again where it says busy, as cow-session does: zfs-fuse does after an unmount."""
        for _ in range(_TRIES):
            finished = subprocess.run(
                [*self.within, *argv], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
            )
            if "busy" not in finished.stderr:
                break
            time.sleep(0.05)
        finished.check_returncode()


def measure() -> str:
    """Measure on btrfs in a file, and on a ZFS in user space."""
    with own_mounts(), tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        folder = Path(scratch)
        programs = installed(folder / "cow-session"), installed(folder / "alone")
        size = _SIZE * 4 + (4 << 30)
        with fork_server.running(programs[0]), loops.btrfs(folder / "image", folder / "mounted", size=size) as mounted:
            sections = [_of_count(_on_btrfs(*programs, mounted, count), mounted, count) for count in FILES]
            sections.append(_space(_on_btrfs(*programs, mounted, 0), mounted))
        with (
            zfs_fuse.running(folder / "zfs") as fuse,
            fork_server.running(programs[0], within=fuse.within, root=fuse.seen("/")),
        ):
            sections.insert(len(FILES), _of_count(_on_zfs(*programs, fuse, folder), folder, FILES[0]))
    return "\n\n".join(sections)


def _on_btrfs(command: Path, alone: Path, mounted: Path, count: int) -> Place:
    store = mounted / f"store{count}"
    store.mkdir()
    return Place(
        command,
        alone,
        "btrfs",
        str(store),
        clone=lambda name: ["btrfs", "subvolume", "snapshot", f"{store}/p/generations/1", f"{mounted}/{name}"],
        destroy=lambda name: ["btrfs", "subvolume", "delete", f"{mounted}/{name}"],
    )


def _on_zfs(command: Path, alone: Path, fuse: zfs_fuse.ZfsFuse, folder: Path) -> Place:
    pool = fuse.pool(1 << 30)
    fuse.run("zfs", "create", f"{pool}/golden")
    golden = f"{pool}/golden/p/generations/1@golden-1"
    return Place(
        command,
        alone,
        "zfs",
        f"{pool}/golden",
        clone=lambda name: ["zfs", "clone", "-o", f"mountpoint={folder}/{name}", golden, f"{pool}/{name}"],
        destroy=lambda name: ["zfs", "destroy", f"{pool}/{name}"],
        within=fuse.within,
    )


def _of_count(place: Place, scratch: Path, count: int) -> str:
    source = scratch / f"source{count}"
    _small_files(source, count)
    place.run("promote", "p", "--source", str(source))
    cloned, deleted = (f"bare {_words(command)}" for command in (place.clone("-"), place.destroy("-")))
    cloned_too, deleted_too = (f"{bare} and start of Python" for bare in (cloned, deleted))
    alone = replace(place, command=place.alone)
    timings = interleaved(
        {
            "cow-session clone": partial(_clone, place),
            "cow-session clone, without fork server": partial(_clone, alone),
            cloned_too: lambda: _bare_clone(place) + _python(),
            cloned: partial(_bare_clone, place),
            "cow-session destroy": partial(_destroy, place),
            "cow-session destroy, without fork server": partial(_destroy, alone),
            deleted_too: lambda: _bare_destroy(place) + _python(),
            deleted: partial(_bare_destroy, place),
        },
        ROUNDS,
    )
    on = {"btrfs": "btrfs", "zfs": "a ZFS in user space (zfs-fuse)"}[place.backend]
    text = f"A golden tree of {count:,} files on {on}; {ROUNDS} interleaved rounds."
    return "\n\n".join([text, table(timings[:4], cloned_too), table(timings[4:], deleted_too)])


def _words(argv: list[str]) -> str:
    """A command without what it is done to: btrfs subvolume snapshot, zfs clone."""
    return " ".join(argv[: 3 if argv[0] == "btrfs" else 2])


def _clone(place: Place) -> float:
    name = f"s{next(_numbers)}"
    taken = milliseconds(lambda: place.run("clone", "p", name))
    place.run("destroy", "p", name)
    return taken


def _destroy(place: Place) -> float:
    name = f"s{next(_numbers)}"
    place.run("clone", "p", name)
    return milliseconds(lambda: place.run("destroy", "p", name))


def _bare_clone(place: Place) -> float:
    name = f"bare{next(_numbers)}"
    taken = milliseconds(lambda: place.bare(place.clone(name)))
    place.bare(place.destroy(name))
    return taken


def _bare_destroy(place: Place) -> float:
    name = f"bare{next(_numbers)}"
    place.bare(place.clone(name))
    return milliseconds(lambda: place.bare(place.destroy(name)))


def _python() -> float:
    return milliseconds(lambda: subprocess.run([sys.executable, "-IS", "-c", ""], check=True))


def _space(place: Place, mounted: Path) -> str:
    """Change one file in twenty of each of ten sessions, and look at what the file system has less."""
    source = mounted / "large"
    source.mkdir()
    for number in range(_SIZE // _PIECE):
        (source / f"{number}").write_bytes(os.urandom(_PIECE))
    place.run("promote", "p", "--source", str(source))
    sync_file_system(mounted)
    before = _used(mounted)
    for number in range(SESSIONS):
        session = Path(place.run("clone", "p", f"s{number}")["path"])
        for name in range(number, _SIZE // _PIECE, CHANGED):
            (session / f"{name}").write_bytes(os.urandom(_PIECE))
    sync_file_system(mounted)
    more = _used(mounted) - before
    mib, share, written = 1 << 20, more / _SIZE, SESSIONS / CHANGED
    return (
        f"{SESSIONS} sessions of a golden tree of {_SIZE // mib} MiB that each change 1 file in {CHANGED} take "
        f"{more / mib:.0f} MiB more, {share:.2f} of the tree. "
        f"{SESSIONS} copies would take {SESSIONS * _SIZE // mib} MiB. "
        f"What they write is {written:.2f} of the tree, of random bytes, which is the least that they can take: "
        f"for a tree of 4 GiB that comes to {share * 4:.2f} GiB, of which {written * 4:.2f} GiB are written."
    )


def _used(mounted: Path) -> int:
    status = os.statvfs(mounted)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _small_files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // 1000}" / f"{number}"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(b"content of a small file\n" * (number % 40))

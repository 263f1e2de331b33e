"""Runs cow-session and kills it, without a chance to clean up, right before a change that it is about to make.

A program of its own that needs nothing but the file cow-session: `python -P killed.py N FILE ARGUMENTS...` is killed
before its Nth change, which it names on standard error, or ends as cow-session does when it makes fewer. Changes are
told by the audit events of Python (PEP 578). With N:SIGSTOP it is stopped there, and can be continued. With
N:SIGSTOP:workers that is done to each process that it forks, which are those that copy, and not to itself.
"""

from __future__ import annotations

import os
import signal
import sys
import zipfile
from importlib import import_module
from pathlib import Path, PurePath
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.chmod", "os.chown"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def is_change(event: str, args: tuple[Any, ...]) -> bool:
    """Whether it changes what is there; locks and questions do not.

    A mkdir counts, whether the folder is there or not: what one kill leaves must not move the others.
    """
    if event == "open":
        return bool(args[2] & WRITING) and not str(args[0]).endswith((".lock", "/null"))
    if event == "fcntl.ioctl":
        return bool(args[1] >> 30 == 1)
    if event == "os.mkdir":
        return not str(args[0]).startswith("/run/cowherd/")
    if event == "subprocess.Popen":
        return not _asks(list(args[1]))
    return event in CHANGES


def _asks(argv: list[str]) -> bool:
    return argv[:2] == ["zfs", "get"] or argv[0].endswith("/zvol_id")


def in_words(event: str, args: tuple[Any, ...]) -> str:
    """What the change is, in few words: rename, or zfs promote."""
    if event == "subprocess.Popen":
        argv = list(args[1])
        if argv[0] == "timeout":
            return "xfs_freeze"  # the script that it runs begins with it
        return " ".join(argv[: 2 if argv[0] == "zfs" else 1])
    return {"open": "write", "fcntl.ioctl": "ioctl"}.get(event, event.removeprefix("os."))


def kill_before(number: int, by: signal.Signals = signal.SIGKILL, *, workers: bool = False) -> None:
    """Arm it for this process and not for those that it forks, or for each of those."""
    left = [number]
    process = os.getpid()

    def look(event: str, args: tuple[Any, ...]) -> None:
        if (os.getpid() != process) == workers and is_change(event, args):
            left[0] -= 1
            if not left[0]:
                os.write(2, in_words(event, args).encode())
                os.kill(os.getpid(), by)

    sys.addaudithook(look)


def load(program: str | Path) -> None:
    """Load the code that is in a file cow-session, all of it, for many runs."""
    sys.path.insert(0, str(program))
    with zipfile.ZipFile(program) as archive:
        files = [PurePath(name) for name in archive.namelist()]
    for file in files:
        if file.suffix == ".py" and file.stem not in ("__main__", "__init__"):
            import_module(".".join(file.with_suffix("").parts))


def run(command: list[str], change: int, by: signal.Signals = signal.SIGKILL, *, workers: bool = False) -> int:
    """Do what a command line of cow-session says, in this process, which is killed before a change unless that is 0."""
    main = import_module("cow.golden.cli").main
    if change:
        kill_before(change, by, workers=workers)
    status: int = main(command[1:])
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    before, by, whom = (*sys.argv[1].split(":"), "", "")[:3]
    sys.exit(run(sys.argv[2:], int(before), signal.Signals[by or "SIGKILL"], workers=whom == "workers"))

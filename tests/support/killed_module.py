"""Runs one module as module_main.py does, and sends it a signal right before a change that it is about to make.

A program of its own: `python -P killed_module.py N SIGNAL FOLDER FILE` gets the signal before its Nth change of what is
in FOLDER itself, which it names on standard error, or ends as the module does when it makes fewer. Changes are told by
the audit events of Python (PEP 578).
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

NAMED = {"os.rename": 1, "os.remove": 0, "os.rmdir": 0, "os.mkdir": 0, "open": 0}
"""Which argument of an event is the path that changes."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def changed(event: str, args: tuple[Any, ...]) -> Path | None:
    """The path that is about to change, if any is."""
    if event not in NAMED or (event == "open" and not args[2] & WRITING):
        return None
    named = args[NAMED[event]]
    return Path(os.fsdecode(named)) if isinstance(named, (str, bytes, os.PathLike)) else None


def signal_before(number: int, signal: int, folder: Path) -> None:
    """Arm it for this process, and not for those that it forks."""
    left = [number]
    process = os.getpid()

    def look(event: str, args: tuple[Any, ...]) -> None:
        path = changed(event, args) if os.getpid() == process else None
        if path and path.parent == folder:
            left[0] -= 1
            if not left[0]:
                os.write(2, f"{event.removeprefix('os.')} {path.name}".encode())
                os.kill(process, signal)

    sys.addaudithook(look)


if __name__ == "__main__":
    signal_before(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
    del sys.argv[1:4]
    runpy.run_path(str(Path(__file__).with_name("module_main.py")), run_name="__main__")

"""Programs of this machine that building and running a machine needs."""

from __future__ import annotations

import subprocess


class MachineError(Exception):
    """A machine cannot be built, started or reached; the text says why, for a person."""


def run(*argv: str) -> str:
    """Run a program and return its output; MachineError when it is missing or fails."""
    try:
        finished = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MachineError(
            f"The program {argv[0]} is not installed; tests/packages.txt lists what is needed."
        ) from error
    if finished.returncode != 0:
        raise MachineError(f"{argv[0]} ended with status {finished.returncode}:\n{finished.stderr[-2000:]}")
    return finished.stdout

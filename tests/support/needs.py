"""What a test needs of the machine; where it is missing, the test is skipped with a reason that says what."""

from __future__ import annotations

import os
import shutil

import pytest

from .incusd import PROGRAM


def root(why: str) -> None:
    """Skip unless the tests run as root."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root: {why}")


def incus() -> None:
    """Skip unless a private Incus daemon can run here."""
    root("a private Incus daemon mounts file systems and makes bridges")
    if not PROGRAM.exists():
        pytest.skip(f"needs incus: {PROGRAM} is not installed")


def program(name: str) -> None:
    """Skip unless the program is installed."""
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}: it is not installed")

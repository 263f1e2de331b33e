"""The Python environments that Cowherd makes for itself, outside the checkout. Standard library only.

An environment is named by what is in it: the contents of its requirement files and the Python version. So it is made
once, made anew when the requirements change, and shared by checkouts.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
"""The checkout."""

RUN = (ROOT / "requirements.txt",)
"""What the playbooks need on the controller."""

TEST = (*RUN, ROOT / "requirements-test.txt")
"""What the tests need."""


class EnvironmentFailed(Exception):
    """An environment could not be made; the text says what to do."""


def enter(requirements: Sequence[Path]) -> None:
    """Go on in the environment with these requirements: returns in it, or replaces the process by one in it."""
    python = ensure(Path(sys.executable), f"{sys.version_info.major}.{sys.version_info.minor}", requirements)
    if Path(sys.prefix).resolve() != python.parents[1].resolve():
        os.execv(python, [str(python), "-m", "cowherd", *sys.argv[1:]])


def ensure(base: Path, version: str, requirements: Sequence[Path]) -> Path:
    """Return the Python of the environment with these requirements, which is made first if need be.

    base: the Python to make it with.
    version: that Python's, as 3.11.
    """
    home = folder(version, requirements)
    complete = home / "complete"
    if not complete.exists():
        with _lock(home.with_name(f"{home.name}.lock")):
            if not complete.exists():
                _make(base, home, requirements)
                complete.touch()
    return home / "bin" / "python3"


def folder(version: str, requirements: Sequence[Path]) -> Path:
    """Return where the environment with these requirements is, or will be."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in requirements)).hexdigest()[:12]
    return cache / "cowherd" / f"venv-{digest}-{version}"


def say(text: str) -> None:
    """Tell the person what is being done; standard output is for results."""
    print(f"cowherd: {text}", file=sys.stderr, flush=True)


def _make(base: Path, home: Path, requirements: Sequence[Path]) -> None:
    say(f"preparing a Python environment in {home}; this happens once and takes a minute or two.")
    shutil.rmtree(home, ignore_errors=True)
    _run([base, "-m", "venv", home], "Run as root: apt-get install --yes python3-venv")
    files = [argument for file in requirements for argument in ("--requirement", file)]
    pip = [home / "bin" / "python3", "-m", "pip", "--quiet", "--quiet", "--no-input", "install", *files]
    _run(pip, "Is the package index reachable? pip's configuration decides which one it is.")


def _run(argv: Sequence[str | Path], way_out: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=environment, check=False)
    if finished.returncode:
        command = " ".join(map(str, argv))
        raise EnvironmentFailed(f"`{command}` ended with status {finished.returncode}. {way_out}")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

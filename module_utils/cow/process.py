"""Commands of the host: argument lists, C locale, no stdin, bounded in time, one error type."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .errors import CowError

DEFAULT_TIMEOUT = 120.0
"""Seconds that a command may take where the caller names no other bound."""


@dataclass(frozen=True)
class Finished:
    """A command that ended: its argument list, exit status and output as text (undecodable bytes are escaped)."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


class CommandFailed(CowError):
    """A command ended with a status that was not expected; `finished` has the details."""

    def __init__(self, finished: Finished) -> None:
        """Keep the details for callers that look at the exit status."""
        self.finished = finished
        said = finished.stderr.strip() or finished.stdout.strip() or "nothing on its output"
        super().__init__(f"{_quoted(finished.argv)} ended with status {finished.status}: {said}")


class CommandMissing(CowError):
    """The program is not installed."""


Runner = Callable[..., Finished]
"""Anything with the signature of `run`."""


def search_path() -> str:
    """Return where programs are looked for: in PATH, and where only root's PATH leads, which `su` does not give."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def run(
    argv: Sequence[str],
    *,
    accept: Sequence[int] = (0,),
    timeout: float = DEFAULT_TIMEOUT,
    environment: Mapping[str, str] | None = None,
) -> Finished:
    """Run a command and return its output.

    accept: exit statuses that are not a failure.
    timeout: seconds, after which the command is killed.
    environment: added to the host's own.

    Raises CommandMissing when the program is not there, CommandFailed when it ends with another status, and CowError
    when it cannot be started or takes too long.
    """
    # It takes long to load, and not all who come by here run a command.
    import subprocess  # noqa: PLC0415

    own = {"PATH": search_path(), "LC_ALL": "C", "LANGUAGE": ""}
    full_environment = {**os.environ, **own, **(environment or {})}
    try:
        completed = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=full_environment,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandMissing(f"The program {argv[0]} is not installed on this host.") from error
    except OSError as error:
        raise CowError(f"{_quoted(argv)} could not be started: {error.strerror}.") from error
    except subprocess.TimeoutExpired as error:
        raise CowError(f"{_quoted(argv)} did not end within {timeout:g} s and was stopped.") from error
    finished = Finished(tuple(argv), completed.returncode, _text(completed.stdout), _text(completed.stderr))
    if finished.status not in accept:
        raise CommandFailed(finished)
    return finished


def _quoted(argv: Sequence[str]) -> str:
    from shlex import join  # noqa: PLC0415

    return f"`{join(argv)}`"


def _text(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace")

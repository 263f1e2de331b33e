"""Units of systemd that are Cowherd's: which files they are, and which of them run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import durable, host, process
from .errors import CowError
from .plan import Step

FOLDER = Path("/etc/systemd/system")
MARK = "# Written by Cowherd"
_RESTARTED = (".timer", ".socket")
"""Kinds that go on as they were told first, until they are started again."""


@dataclass(frozen=True)
class Found:
    """What is there.

    files: content by path, of those that are there. enabled: units that start at boot; active: those that run now.
    systemd: whether it is what runs the host.
    """

    files: Mapping[Path, str] = field(default_factory=dict)
    enabled: frozenset[str] = frozenset()
    active: frozenset[str] = frozenset()
    systemd: bool = True


def observe(paths: Iterable[Path], started: Iterable[str], run: process.Runner = process.run) -> Found:
    """Read the files, and ask systemd about the units that are started at boot.

    Raises CowError where a unit is no regular file, or not Cowherd's.
    """
    files = {path: _read(path) for path in paths if path.exists() or path.is_symlink()}
    foreign = [path for path, text in files.items() if is_unit(path) and not text.startswith(MARK)]
    if foreign:
        raise CowError(f"{foreign[0]} exists and is not Cowherd's. Choose another name, or move it away.")
    if not host.runs_systemd():
        return Found(files, systemd=False)
    names = tuple(started)
    return Found(
        files,
        enabled=frozenset(unit for unit in names if _says(run, "is-enabled", unit)),
        active=frozenset(unit for unit in names if _says(run, "is-active", unit)),
    )


def steps(
    found: Found, wanted: Mapping[Path, str], started: Iterable[str], run: process.Runner = process.run
) -> list[Step]:
    """Have these files and no others of those found, and of the units that are started at boot those that are wanted.

    wanted: content by path, of units and what else belongs to them. Stops before files go, and starts when all are
    there.
    """
    here = {path.name for path in wanted if is_unit(path)}
    obsolete = [path for path in found.files if path not in wanted]
    changed = [path for path, text in wanted.items() if found.files.get(path) != text]
    gone = {path.name for path in obsolete}
    to_stop = [unit for unit in started if unit in gone]
    planned = [_stop(to_stop, run)] if to_stop else []
    planned += [_remove(path, found.files[path]) for path in obsolete]
    planned += [_write(path, found.files.get(path), wanted[path]) for path in changed]
    if any(is_unit(path) for path in (*obsolete, *changed)):
        planned.append(Step(title="have systemd read its units again", run=lambda: _run(run, "daemon-reload")))
    anew = {path.name for path in changed if path.suffix in _RESTARTED}
    to_start = [unit for unit in started if unit in here and (unit in anew or unit not in found.enabled & found.active)]
    if to_start:
        planned.append(_start(to_start, anew & found.active, found, run))
    return planned


def is_unit(path: Path) -> bool:
    """Say whether a file is a unit, and not something that one reads."""
    return path.suffix in (".service", ".socket", ".timer")


def quoted(text: str) -> str:
    """Write one word of a unit: quoted, and without specifiers (systemd.syntax(7))."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return text if re.fullmatch(r"[A-Za-z0-9/._:+@-]+", text) else f'"{escaped}"'


def command(*words: str) -> str:
    """Write a command, in which a dollar would stand for a variable."""
    return " ".join(quoted(word).replace("$", "$$") for word in words)


def _read(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        raise CowError(
            f"{path} is no regular file; a unit that is masked is one such. Remove it, or choose another name."
        )
    return path.read_text(encoding="utf-8", errors="replace")


def _says(run: process.Runner, question: str, unit: str) -> bool:
    return run(["systemctl", question, "--quiet", unit], accept=range(256)).status == 0


def _write(path: Path, before: str | None, text: str) -> Step:
    def write() -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        durable.write(path, text.encode(), 0o644)

    return Step(
        title=f"write {path}",
        run=write,
        before=None if before is None else {"content": before},
        after={"content": text},
    )


def _remove(path: Path, before: str) -> Step:
    return Step(title=f"remove {path}", run=lambda: durable.remove(path), before={"content": before})


def _stop(units: list[str], run: process.Runner) -> Step:
    return Step(
        title=f"stop and disable {' and '.join(units)}",
        run=lambda: _run(run, "disable", "--now", "--quiet", *units),
        before=dict.fromkeys(units, "enabled"),
    )


def _start(units: list[str], again: Collection[str], found: Found, run: process.Runner) -> Step:
    def start() -> None:
        _run(run, "enable", "--now", "--quiet", *units)
        if again:
            _run(run, "restart", *sorted(again))

    states = {unit: "started" if unit in found.active else "stopped" for unit in units}
    return Step(
        title=f"start and enable {' and '.join(units)}",
        run=start,
        before=states,
        after=dict.fromkeys(units, "started, now and at boot"),
    )


def _run(run: process.Runner, *words: str) -> None:
    run(["systemctl", *words])

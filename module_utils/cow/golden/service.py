"""What has `cow-session` run by itself: its configuration for a store, and units of systemd.

Each store has units of its own, named after its configuration: cow-session-NAME-mount.service mounts the sessions again
after a reboot, cow-session-NAME-gc.timer collects garbage, cow-session-NAME-trim.timer gives back what was freed inside
of volumes, or in the file system of a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import durable, host, names, process
from ..errors import CowError
from ..plan import Plan, Step
from ..size import Size

UNITS = Path("/etc/systemd/system")
CONFIGURATIONS = Path("/etc/cowherd")
OUR_MARK = "# Written by Cowherd"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_AFTER_STORES = "local-fs.target zfs-mount.service zfs-import.target zfs-volumes.target"
"""Units that are not there are passed over by systemd."""


@dataclass(frozen=True)
class Wanted:
    """What an operator asks for.

    settings: the configuration, None for none. collect, trim: when, in systemd's calendar form, "" for never.
    """

    name: str
    command: str
    store: str = ""
    settings: Mapping[str, Any] | None = None
    mount: bool = True
    collect: str = ""
    trim: str = ""
    configurations: Path = CONFIGURATIONS

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        name = params["name"]
        if not _NAME.fullmatch(name):
            raise CowError(f"{name!r} cannot be the name of a service. Wanted: letters, digits, '.', '_' and '-'.")
        command = names.absolute_path(params["command"])
        if params["state"] == "absent":
            return cls(name, command, mount=False)
        store = params["store"]
        if store.startswith("/"):
            names.absolute_path(store)
        else:
            names.dataset(store)
        return cls(
            name=name,
            command=command,
            store=store,
            settings=_settings(params),
            mount=params["mount"],
            collect=params["collect"],
            trim=params["trim"],
        )

    @property
    def configuration(self) -> Path:
        """The file that `cow-session --config` reads."""
        return self.configurations / f"{self.name}.json"

    @property
    def calendars(self) -> dict[str, str]:
        """What is said of times, by option."""
        return {key: value for key, value in {"collect": self.collect, "trim": self.trim}.items() if value}


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


def observe(wanted: Wanted, units: Path = UNITS, run: process.Runner = process.run) -> Found:
    """Read the files, and ask systemd about the units."""
    paths = [wanted.configuration, *(units / unit for unit in _every(wanted.name))]
    files = {path: _read(path) for path in paths if path.exists() or path.is_symlink()}
    foreign = [path for path, text in files.items() if path.suffix != ".json" and not text.startswith(OUR_MARK)]
    if foreign:
        raise CowError(f"{foreign[0]} exists and is not Cowherd's. Choose another name, or move it away.")
    systemd = host.runs_systemd()
    if not systemd:
        return Found(files, systemd=False)
    for option, calendar in wanted.calendars.items():
        checked = run(["systemd-analyze", "calendar", "--", calendar], accept=(0, 1))
        if checked.status:
            raise CowError(
                f"{option} is {calendar!r}, which systemd does not read as a time. Write daily, or *-*-* 03:00."
            )
    started = _started(wanted.name)
    return Found(
        files,
        enabled=frozenset(unit for unit in started if _says(run, "is-enabled", unit)),
        active=frozenset(unit for unit in started if _says(run, "is-active", unit)),
    )


def plan(found: Found, wanted: Wanted, units: Path = UNITS, run: process.Runner = process.run) -> Plan:
    """Decide what is to be done: files, then what systemd is to know of them."""
    wanted_units = _units(wanted)
    if wanted_units and not found.systemd:
        raise CowError(
            "systemd does not run here, so nothing can be mounted at boot or collected by a timer. "
            'Set mount to false and collect and trim to "", and have `cow-session mount` and `gc` run by other means.'
        )
    files = {units / unit: text for unit, text in wanted_units.items()}
    if wanted.settings is not None:
        files[wanted.configuration] = json.dumps(wanted.settings, indent=2, sort_keys=True) + "\n"
    writes = [
        _write(path, found.files.get(path), text) for path, text in files.items() if found.files.get(path) != text
    ]
    obsolete = [path for path in found.files if path not in files]
    to_stop = [unit for unit in _started(wanted.name) if units / unit in obsolete]
    to_start = [unit for unit in _started(wanted.name) if unit in wanted_units]
    steps = [_stop(to_stop, run)] if to_stop else []
    steps += [_remove(path, found.files[path]) for path in obsolete]
    steps += writes
    if any(path.parent == units for path in (*obsolete, *files) if found.files.get(path) != files.get(path)):
        steps.append(
            Step(title="have systemd read its units again", run=lambda: _ignore(run(["systemctl", "daemon-reload"])))
        )
    asleep = [unit for unit in to_start if unit not in found.enabled or unit not in found.active]
    changed = [
        unit for unit in to_start if unit.endswith(".timer") and found.files.get(units / unit) != files[units / unit]
    ]
    if to_wake := [unit for unit in to_start if unit in asleep or unit in changed]:
        steps.append(_start(to_wake, [unit for unit in changed if unit in found.active], found, run))
    return Plan(steps=tuple(steps))


def describe(found: Found, wanted: Wanted) -> dict[str, Any]:
    """Give the return values of the module."""
    return {
        "configuration": str(wanted.configuration) if wanted.configuration in found.files else None,
        "units": sorted(path.name for path in found.files if path != wanted.configuration),
    }


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    Size.parse(params["reserve"], whole=Size(0))
    Size.parse(params["volume_size"])
    for key in ("keep", "grace"):
        if params[key] < (least := 1 if key == "keep" else 0):
            raise CowError(f"{key} is {params[key]}. Give {least} or more.")
    keys = ("store", "backend", "expect", "reserve", "keep", "grace", "volume_size")
    return {key: params[key] for key in keys if params[key] is not None}


def _every(name: str) -> tuple[str, ...]:
    kinds = ("mount.service", "gc.service", "gc.timer", "trim.service", "trim.timer")
    return tuple(f"cow-session-{name}-{kind}" for kind in kinds)


def _started(name: str) -> tuple[str, ...]:
    """Return the units that are enabled; the others are started by timers."""
    return tuple(unit for unit in _every(name) if unit.endswith((".timer", "-mount.service")))


def _units(wanted: Wanted) -> dict[str, str]:
    """Return the text of each wanted unit by its name."""
    mount, gc, gc_timer, trim, trim_timer = _every(wanted.name)
    command = " ".join(_argument(word) for word in (wanted.command, "--config", str(wanted.configuration)))
    needs = f"RequiresMountsFor={_quoted(wanted.store)}\n" if wanted.store.startswith("/") else ""
    at_boot = f"RemainAfterExit=yes\nExecStart={command} mount\n\n[Install]\nWantedBy=multi-user.target\n"
    quietly = "Nice=19\nIOSchedulingClass=idle\n"
    texts = {}
    if wanted.mount:
        head = _head(f"Mount the sessions of golden trees ({wanted.name})", needs)
        texts[mount] = f"{head}Type=oneshot\n{at_boot}"
    if wanted.collect:
        head = _head(f"Collect garbage of golden trees ({wanted.name})", needs)
        texts[gc] = f"{head}Type=oneshot\n{quietly}ExecStart={command} gc\n"
        texts[gc_timer] = _timer(f"Collect garbage of golden trees ({wanted.name})", wanted.collect)
    if wanted.trim:
        head = _head(f"Give back what was freed in golden trees ({wanted.name})", needs)
        texts[trim] = f"{head}Type=oneshot\n{quietly}ExecStart={command} trim\n"
        texts[trim_timer] = _timer(f"Give back what was freed in golden trees ({wanted.name})", wanted.trim)
    return texts


def _head(description: str, needs: str) -> str:
    return f"{OUR_MARK}.\n[Unit]\nDescription={description}\nAfter={_AFTER_STORES}\n{needs}\n[Service]\n"


def _timer(description: str, calendar: str) -> str:
    return (
        f"{OUR_MARK}.\n[Unit]\nDescription={description}\n\n"
        f"[Timer]\nOnCalendar={calendar}\nRandomizedDelaySec=10min\nPersistent=true\n\n"
        f"[Install]\nWantedBy=timers.target\n"
    )


def _quoted(text: str) -> str:
    """Write one word of a unit: quoted, and without specifiers (systemd.syntax(7))."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return text if re.fullmatch(r"[A-Za-z0-9/._:+@-]+", text) else f'"{escaped}"'


def _argument(text: str) -> str:
    """Write one word of a command, in which a dollar would stand for a variable."""
    return _quoted(text).replace("$", "$$")


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
    """Stop them. Sessions stay mounted: the unit that mounted them has nothing that undoes it."""
    return Step(
        title=f"stop and disable {' and '.join(units)}",
        run=lambda: _ignore(run(["systemctl", "disable", "--now", "--quiet", *units])),
        before=dict.fromkeys(units, "enabled"),
    )


def _start(units: list[str], again: list[str], found: Found, run: process.Runner) -> Step:
    def start() -> None:
        run(["systemctl", "enable", "--now", "--quiet", *units])
        if again:
            run(["systemctl", "restart", *again])

    states = {unit: "started" if unit in found.active else "stopped" for unit in units}
    return Step(
        title=f"start and enable {' and '.join(units)}",
        run=start,
        before=states,
        after=dict.fromkeys(units, "started, now and at boot"),
    )


def _ignore(_: object) -> None:
    """Steps return nothing."""

"""What has `cow-session` run by itself: its configuration for a store, and units of systemd.

Each store has units of its own, named after its configuration: cow-session-NAME-mount.service mounts the sessions again
after a reboot, cow-session-NAME-gc.timer collects garbage, cow-session-NAME-trim.timer gives back what was freed inside
of volumes, or in the file system of a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import names, process, units
from ..errors import CowError
from ..plan import Plan
from ..size import Size
from ..units import Found

CONFIGURATIONS = Path("/etc/cowherd")
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


def observe(wanted: Wanted, folder: Path = units.FOLDER, run: process.Runner = process.run) -> Found:
    """Read the files, and ask systemd about the units."""
    paths = [wanted.configuration, *(folder / unit for unit in _every(wanted.name))]
    found = units.observe(paths, _started(wanted.name), run)
    for option, calendar in wanted.calendars.items() if found.systemd else ():
        checked = run(["systemd-analyze", "calendar", "--", calendar], accept=(0, 1))
        if checked.status:
            raise CowError(
                f"{option} is {calendar!r}, which systemd does not read as a time. Write daily, or *-*-* 03:00."
            )
    return found


def plan(found: Found, wanted: Wanted, folder: Path = units.FOLDER, run: process.Runner = process.run) -> Plan:
    """Decide what is to be done: files, then what systemd is to know of them."""
    files = {folder / unit: text for unit, text in _units(wanted).items()}
    if files and not found.systemd:
        raise CowError(
            "systemd does not run here, so nothing can be mounted at boot or collected by a timer. "
            'Set mount to false and collect and trim to "", and have `cow-session mount` and `gc` run by other means.'
        )
    if wanted.settings is not None:
        files[wanted.configuration] = json.dumps(wanted.settings, indent=2, sort_keys=True) + "\n"
    return Plan(steps=tuple(units.steps(found, files, _started(wanted.name), run)))


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
    command = units.command(wanted.command, "--config", str(wanted.configuration))
    needs = f"RequiresMountsFor={units.quoted(wanted.store)}\n" if wanted.store.startswith("/") else ""
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
    return f"{units.MARK}.\n[Unit]\nDescription={description}\nAfter={_AFTER_STORES}\n{needs}\n[Service]\n"


def _timer(description: str, calendar: str) -> str:
    return (
        f"{units.MARK}.\n[Unit]\nDescription={description}\n\n"
        f"[Timer]\nOnCalendar={calendar}\nRandomizedDelaySec=10min\nPersistent=true\n\n"
        f"[Install]\nWantedBy=timers.target\n"
    )

"""Runs the module incus_instance_pool, and meanwhile says how far it is."""

from __future__ import annotations

import json
import secrets
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

_FOLDER = "/run"
"""Where on the host the module writes how far it is. Only root can put files there, so that no link is followed."""
_EVERY = 1.0
"""Seconds between two readings."""
_SAME_PHASE_EVERY = 6.0
"""Seconds between two lines about one phase, to keep logs readable."""
_UNITS = ("KiB", "MiB", "GiB", "TiB")


class ActionModule(ActionBase):  # type: ignore[misc]
    """The module as it is, with a second connection to the host that reads its progress."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module and return its result."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if self._task.check_mode:
            return self._module(arguments, task_vars)
        path = arguments.setdefault("progress_file", f"{_FOLDER}/cowherd-{secrets.token_hex(8)}.json")
        host = str((task_vars or {}).get("inventory_hostname", ""))
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(str(path), Told(host), ended), daemon=True)
        watcher.start()
        try:
            return self._module(arguments, task_vars)
        finally:
            ended.set()
            watcher.join(_EVERY)

    def _module(self, arguments: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_args=dict(arguments), task_vars=task_vars)
        return result

    def _watch(self, path: str, told: Told, ended: threading.Event) -> None:
        """Read the file until the end. Whatever is in the way costs the lines about progress, and nothing else."""
        with suppress(AnsibleError, OSError):
            connection = self._second_connection()
            try:
                while not ended.wait(_EVERY):
                    status, out, _ = connection.exec_command(f"cat {shlex.quote(path)}", sudoable=False)
                    if status == 0:
                        told(out)
            finally:
                connection.close()

    def _second_connection(self) -> Any:
        """A connection to the same host with the same options; the first one is busy with the module."""
        loader = self._shared_loader_obj.connection_loader
        connection = loader.get(self._connection._load_name, self._play_context)  # noqa: SLF001
        connection.set_options(direct=self._connection.get_options())
        return connection


class Told:
    """Says on the controller what was read on the host: at once in a new phase, later now and then."""

    def __init__(
        self,
        host: str,
        say: Callable[[str], None] = display.display,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.host = host
        self.say = say
        self.clock = clock
        self.phase = ""
        self.said = 0.0

    def __call__(self, read: bytes) -> None:
        """Say what is in the file."""
        try:
            progress = json.loads(read)
            text = line(self.host, progress)
        except (ValueError, KeyError, TypeError):
            return
        now = self.clock()
        if progress["phase"] == self.phase and now - self.said < _SAME_PHASE_EVERY:
            return
        self.phase, self.said = progress["phase"], now
        self.say(text)


def line(host: str, progress: Mapping[str, Any]) -> str:
    """Give progress as a line, such as `progress pi-01: c1: copying 34 % (136 of 400 MiB, 35 MiB/s, 8 s left)`."""
    done, total, rate = (int(progress[key]) for key in ("bytes_done", "bytes_total", "bytes_per_second"))
    text = f"progress {host}: {progress['instance']}: {progress['phase']}"
    if total <= 0:
        return text
    parts = [f"{size(done)} of {size(total)}"]
    if rate > 0:
        parts += [f"{size(rate)}/s", f"{max(total - done, 0) / rate:.0f} s left"]
    return f"{text} {100 * done // total} % ({', '.join(parts)})"


def size(amount: float) -> str:
    """Give bytes with a unit."""
    unit = "B"
    for larger in _UNITS:
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.3g} {unit}"

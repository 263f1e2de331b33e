"""Writes what happened in a playbook run, one JSON object per line, to the file named by RECORD_FILE."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: Record each task's result and the totals as JSON lines
description: Used by the tests of this project.
"""


class CallbackModule(CallbackBase):
    """One line per task and host, and one with the totals."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_ok(self, result: Any) -> None:
        self._task(result, "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._task(result, "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._task(result, "skipped")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._task(result, "unreachable")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._write({"stats": {host: stats.summarize(host) for host in stats.processed}})

    def _task(self, result: Any, status: str) -> None:
        self._write(
            {
                "host": result.host.get_name(),
                "task": result.task.get_name(),
                "action": result.task.action,
                "status": status,
                "result": result.result,
            }
        )

    def _write(self, line: dict[str, Any]) -> None:
        with Path(os.environ["RECORD_FILE"]).open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")

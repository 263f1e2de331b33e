"""What a run has come to, derived from ansible-runner's events by pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

Event = Mapping[str, Any]
"""An event as ansible-runner hands it to its event handler."""

SPOKEN = frozenset(
    {
        "deprecated",
        "error",
        "playbook_on_no_hosts_matched",
        "playbook_on_no_hosts_remaining",
        "runner_on_file_diff",
        "system_warning",
        "verbose",
        "warning",
    }
)
"""Events whose text concerns a person even where the progress of hosts is shown in another way."""

_COUNTS = {"ok": "ok", "changed": "changed", "failures": "failed", "dark": "unreachable", "skipped": "skipped"}
"""Ansible's names in the recap, and ours."""

_ENDINGS = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_skipped": "skipped",
}

_PROGRESS = re.compile(r"progress (?P<host>\S+): (?P<text>.+?)(?: (?P<percent>\d+) % \((?P<detail>.*)\))?\s*$")
"""How the action plugins say how far a module is, such as `progress pi-01: c1: copying 34 % (8 s left)`."""

_MARKS_OF_FAILURE = ("failed", "unreachable", "exception")
"""Of these the result of a failed item has one; which it is depends on Ansible's version."""


@dataclass(frozen=True)
class Phase:
    """A phase of a launch and how long it may take; None where nothing is asked for."""

    name: str
    ms: float
    target_ms: float | None


@dataclass(frozen=True)
class Storage:
    """The pool that a host converged onto, and how long a launch on it took; no phases where none was taken."""

    driver: str
    source: str
    size_bytes: int | None
    used_bytes: int | None
    can_clone: bool
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Table:
    """A table that a role hands over. records: its rows as values, for programs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Question:
    """What a run asks for before it changes anything: the answer is the value of a variable of the next run.

    word: where it is given, this answer means yes and every other one no.
    """

    variable: str
    question: str
    word: str = ""


@dataclass(frozen=True)
class Share:
    """How far a long step is, in words, and in percent where that is known."""

    text: str
    percent: int | None = None


@dataclass(frozen=True)
class Host:
    """One host of a run.

    step: the task it is at, or was at last.
    since: when that task began, in seconds since the epoch; None when the host waits.
    counts: tasks by how they ended: ok, changed, failed, unreachable, skipped.
    changes: what was changed, or in check mode would be, in words.
    share: how far the task is, where it says so.
    tables: by name: plan, result. questions: what has to be answered before a run changes anything.
    """

    step: str = ""
    since: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    storage: Storage | None = None
    share: Share | None = None
    tables: Mapping[str, Table] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()

    @property
    def outcome(self) -> str:
        """The worst that happened: unreachable, failed, changed or ok."""
        return next((name for name in ("unreachable", "failed", "changed") if self.counts.get(name)), "ok")


@dataclass(frozen=True)
class Run:
    """A run of a playbook so far: the play and task that it is at, and the hosts by name.

    check: nothing is changed; `changes` are what would be.
    """

    check: bool = False
    play: str = ""
    task: str = ""
    hosts: Mapping[str, Host] = field(default_factory=dict)


def advance(run: Run, event: Event) -> Run:
    """Return the run after an event."""
    kind, data = event["event"], event.get("event_data", {})
    if kind == "playbook_on_play_start":
        return replace(run, play=data["name"], task="")
    if kind in ("playbook_on_task_start", "playbook_on_handler_task_start"):
        return replace(run, task=data["name"])
    if kind == "runner_on_start":
        return _task_began(run, data, datetime.fromisoformat(event["created"]).timestamp())
    if kind in _ENDINGS:
        return _task_ended(run, data, _ENDINGS[kind])
    if kind == "playbook_on_stats":
        return _ended(run, data)
    told = progress_line(event)
    return _with_host(run, told["host"], share=_share(told)) if told else run


def progress_line(event: Event) -> re.Match[str] | None:
    """Return what a line about the progress of a host says; None for all other events."""
    return _PROGRESS.match(event.get("stdout") or "") if event["event"] == "verbose" else None


def sentence(result: Mapping[str, Any]) -> str:
    """Say why a task failed, from its result: its message, or those of the items or the command that failed."""
    failed_items = [item for item in _results(result) if any(map(item.get, _MARKS_OF_FAILURE))]
    if failed_items:
        return " ".join(dict.fromkeys(sentence(item) for item in failed_items))
    message = str(result.get("msg") or result.get("censored") or "It failed without a message.").strip()
    for prefix in ("Task failed: ", "Module failed: "):
        message = message.removeprefix(prefix)
    said = str(result.get("stderr") or result.get("module_stderr") or "").strip()
    return f"{message.rstrip('.')}: {said.splitlines()[-1]}" if said else message


def _task_began(run: Run, data: Mapping[str, Any], when: float) -> Run:
    """A host that goes on after a failure was rescued."""
    counts = {**run.hosts.get(data["host"], Host()).counts, "failed": 0}
    return _with_host(run, data["host"], step=data["task"], since=when, counts=counts, share=None)


def _task_ended(run: Run, data: Mapping[str, Any], ending: str) -> Run:
    host = run.hosts.get(data["host"], Host())
    result = data.get("res") or {}
    results = _results(result) or [result]
    counts = Counter(host.counts)
    ignored = ending == "failed" and data.get("ignore_errors")
    counts["ok" if ignored else ending] += 1
    errors: tuple[str, ...] = ()
    if ending in ("failed", "unreachable") and not ignored:
        errors = (f"{data['task']}: {sentence(result)}",)
    changes: tuple[str, ...] = ()
    if ending == "ok" and result.get("changed"):
        counts["changed"] += 1
        changes = tuple(step for each in results for step in each.get("steps") or ()) or (data["task"],)
    warnings = (warning for each in [result, *results] for warning in each.get("warnings") or ())
    pools = result.get("storage_pools") or ()
    facts = result.get("ansible_facts") or {}
    return _with_host(
        run,
        data["host"],
        since=None,
        share=None,
        tables={**host.tables, **_tables(facts)},
        questions=_questions(facts, host.questions),
        storage=_storage(pools[0], ()) if pools else host.storage,
        counts=counts,
        changes=host.changes + changes,
        errors=host.errors + errors,
        warnings=_distinct(*host.warnings, *warnings),
    )


def _ended(run: Run, stats: Mapping[str, Any]) -> Run:
    """Take the counts from the recap, which alone tells failures from those that were rescued: they came before."""
    found = stats.get("artifact_data", {}).get("cowherd", {})
    for name in stats["processed"]:
        host = run.hosts.get(name, Host())
        counts = {ours: stats[theirs].get(name, 0) for theirs, ours in _COUNTS.items()}
        rescued = len(host.errors) - counts["failed"] - counts["unreachable"]
        run = _with_host(run, name, since=None, counts=counts, errors=host.errors[max(rescued, 0) :])
        if name in found:
            warnings = _distinct(*host.warnings, *found[name]["warnings"])
            storage = _storage(found[name], found[name]["phases"])
            run = _with_host(run, name, storage=storage, warnings=warnings)
    return run


def _storage(found: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> Storage:
    return Storage(
        driver=found["driver"],
        source=found["source"],
        size_bytes=found["size_bytes"],
        used_bytes=found["used_bytes"],
        can_clone=found["can_clone"],
        phases=tuple(Phase(each["name"], each["ms"], each.get("target_ms")) for each in phases),
    )


def _tables(facts: Mapping[str, Any]) -> dict[str, Table]:
    """Take the tables that a role hands over as a fact, by their names."""
    return {
        name: Table(
            title=given["title"],
            columns=tuple(given["columns"]),
            rows=tuple(map(tuple, given["rows"])),
            records=tuple(given["records"]),
        )
        for fact, tables in facts.items()
        if fact.endswith("_cowherd_tables")
        for name, given in tables.items()
    }


def _questions(facts: Mapping[str, Any], before: tuple[Question, ...]) -> tuple[Question, ...]:
    given = next((asked for fact, asked in facts.items() if fact.endswith("_cowherd_asks")), None)
    return before if given is None else tuple(Question(**each) for each in given)


def _share(told: re.Match[str]) -> Share:
    if told["percent"] is None:
        return Share(told["text"])
    return Share(f"{told['text']}, {told['detail']}", int(told["percent"]))


def _with_host(run: Run, name: str, **changes: Any) -> Run:
    host = replace(run.hosts.get(name, Host()), **changes)
    return replace(run, hosts={**run.hosts, name: host})


def _results(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [item for item in result.get("results") or () if isinstance(item, Mapping)]


def _distinct(*texts: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))

"""Ansible's events become the state of a run. The events are those of a real run."""

from __future__ import annotations

from functools import reduce

import pytest
from tests.unit.recorded_run import Recording, record

from cowherd.progress import Host, Phase, Question, Run, Share, Storage, Table, advance


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def run(recording: Recording) -> Run:
    return reduce(advance, recording.events, Run())


def test_the_exit_status_is_ansibles(recording: Recording) -> None:
    assert recording.status == 4, "of failed and unreachable hosts, Ansible reports unreachable"


def test_counts_are_those_of_the_recap(run: Run) -> None:
    assert run.hosts["good"].counts == {"ok": 5, "changed": 2, "failed": 0, "unreachable": 0, "skipped": 5}
    outcomes = {name: host.outcome for name, host in run.hosts.items()}
    assert outcomes == {
        "good": "changed",
        "plain": "changed",
        **dict.fromkeys(("refusing", "crashing", "looping", "looking", "hiding"), "failed"),
        "away": "unreachable",
    }


def test_changes_are_the_steps_of_modules_or_else_the_task(run: Run) -> None:
    assert run.hosts["good"].changes == ("create pool fast", "set size of fast", "Be silent")


def test_what_was_rescued_or_ignored_is_no_error(run: Run) -> None:
    assert run.hosts["good"].errors == ()


@pytest.mark.parametrize(
    ("host", "error"),
    [
        ("refusing", "Refuse: The device /dev/sdx has ext4 on it. Name an empty one."),
        ("crashing", "Crash: not foreseen"),
        ("looping", "Loop: one is bad. two is bad."),
    ],
)
def test_errors_are_sentences(run: Run, host: str, error: str) -> None:
    assert run.hosts[host].errors == (error,)


def test_a_command_that_fails_is_quoted(run: Run) -> None:
    (error,) = run.hosts["looking"].errors
    assert error.startswith("Look: ")
    assert error.endswith("non-zero return code: ls: cannot access '/nonexistent': No such file or directory")


def test_what_is_not_to_be_logged_stays_hidden(run: Run) -> None:
    (error,) = run.hosts["hiding"].errors
    assert "no_log" in error
    assert "/dev/sdx" not in error


def test_an_unreachable_host_says_why(run: Run) -> None:
    (error,) = run.hosts["away"].errors
    assert error.startswith("Make the pool: ")
    assert error.endswith("Connection refused")


def test_warnings_come_from_modules_and_from_what_was_found(run: Run) -> None:
    assert run.hosts["good"].warnings == (
        "The pool is on dir. Make a second one.",
        "Quotas can be escaped.",
    )


def test_storage_is_what_was_handed_over(run: Run) -> None:
    phases = (Phase("create", 65.2, 1000), Phase("delete", 80, None))
    found = Storage("btrfs", "/var/lib/incus/disks/fast.img", 5 * 1024**3, None, can_clone=True, phases=phases)
    assert run.hosts["good"].storage == found
    assert run.hosts["plain"].storage is None


def test_while_it_runs_a_host_is_at_a_step(recording: Recording) -> None:
    started = next(n for n, event in enumerate(recording.events) if event["event"] == "runner_on_start")
    run = reduce(advance, recording.events[: started + 1], Run())
    host = run.hosts[recording.events[started]["event_data"]["host"]]
    assert run.play == "Prepare hosts"
    assert run.task == host.step == "Make the pool"
    assert host.since is not None


def test_while_it_runs_a_host_that_goes_on_after_a_failure_was_rescued(recording: Recording) -> None:
    rescued = next(
        n
        for n, event in enumerate(recording.events)
        if event["event"] == "runner_on_ok" and event["event_data"]["task"] == "Try in another way"
    )
    run = reduce(advance, recording.events[: rescued + 1], Run())
    assert run.hosts[recording.events[rescued]["event_data"]["host"]].outcome == "changed"


def test_check_mode_has_the_same_changes(tmp_path_factory: pytest.TempPathFactory, run: Run) -> None:
    recording = record(tmp_path_factory.mktemp("check"), "--check", "--limit", "plain")
    checked = reduce(advance, recording.events, Run(check=True))
    assert checked.hosts["plain"].changes == run.hosts["plain"].changes[:2]


def test_no_host_matched(tmp_path_factory: pytest.TempPathFactory) -> None:
    recording = record(tmp_path_factory.mktemp("nobody"), "--limit", "nobody")
    assert recording.status != 0
    assert reduce(advance, recording.events, Run()).hosts == {}


def test_a_pool_is_known_from_where_it_was_made_when_nothing_was_timed() -> None:
    pool = {"driver": "dir", "source": "/srv", "size_bytes": None, "used_bytes": None, "can_clone": False}
    event = {
        "event": "runner_on_ok",
        "event_data": {"host": "pi", "task": "Have the pool", "res": {"changed": False, "storage_pools": [pool]}},
    }
    assert advance(Run(), event).hosts["pi"].storage == Storage("dir", "/srv", None, None, can_clone=False, phases=())


TASK = {"host": "pi", "task": "Move each instance"}


def ended(facts: dict[str, object]) -> dict[str, object]:
    return {"event": "runner_on_ok", "event_data": {**TASK, "res": {"changed": False, "ansible_facts": facts}}}


def test_tables_that_a_role_hands_over_are_kept_by_name() -> None:
    given = {"title": "A plan", "columns": ["Instance"], "rows": [["c1"]], "records": [{"instance": "c1"}], "work": []}
    run = advance(Run(), ended({"__pool_migration_cowherd_tables": {"plan": given}}))
    run = advance(run, ended({"__pool_migration_cowherd_tables": {"result": {**given, "title": "A result"}}}))
    assert run.hosts["pi"].tables == {
        "plan": Table("A plan", ("Instance",), (("c1",),), ({"instance": "c1"},)),
        "result": Table("A result", ("Instance",), (("c1",),), ({"instance": "c1"},)),
    }


def test_the_last_questions_count() -> None:
    asked = {"variable": "pool_migration_confirm", "question": "Type the name"}
    run = advance(Run(), ended({"__pool_migration_cowherd_asks": [asked]}))
    assert run.hosts["pi"].questions == (Question("pool_migration_confirm", "Type the name"),)
    assert advance(run, ended({})).hosts["pi"].questions == run.hosts["pi"].questions
    assert advance(run, ended({"__pool_migration_cowherd_asks": []})).hosts["pi"].questions == ()


@pytest.mark.parametrize(
    "event",
    [
        ended({}),
        {"event": "runner_on_start", "created": "2026-01-10T09:00:00+00:00", "event_data": TASK},
    ],
)
def test_progress_ends_with_its_task(event: dict[str, object]) -> None:
    run = Run(hosts={"pi": Host(share=Share("c1: copying", 34))})
    assert advance(run, event).hosts["pi"].share is None

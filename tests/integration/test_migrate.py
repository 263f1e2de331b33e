"""The playbooks of a migration on a host with a dir pool, three protected containers and one to be moved."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from ansible.module_utils.cow.manifest import Manifest

from tests.support import images, incus_runs, migration, needs
from tests.support.ansible import ROOT, PlaybookRun, run_playbook
from tests.support.incusd import Incusd, running
from tests.support.waiting import until

HOST = "localhost"
PROTECTED = ("mary", "naira", "stanley")
INVENTORY = "inventories/local"
ANSWERED_WITHIN = 600.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incusd]:
    """A daemon whose containers inherit their root disk from the default profile: c1, and the protected ones."""
    needs.incus()
    needs.program("mkfs.btrfs")
    with running() as own:
        migration.prepare(own, images.busybox_image(tmp_path_factory.mktemp("busybox")))
        own.run("profile", "device", "add", "default", "root", "disk", "path=/", "pool=slow")
        own.run("profile", "device", "add", "default", "eth0", "nic", f"network={own.bridge}")
        for name in ("c1", *PROTECTED):
            own.run("launch", "bb", name)
        own.run("stop", "stanley")
        filled = migration.rootfs(own, "c1") / "root"
        (filled / "data").write_bytes(os.urandom(32 << 20))
        (filled / "link").hardlink_to(filled / "data")
        own.run("snapshot", "create", "c1", "before")
        yield own


@pytest.fixture(scope="module")
def variables(daemon: Incusd) -> dict[str, Any]:
    """What an inventory would say."""
    return {
        "pool_migration_from_pool": "slow",
        "pool_migration_pool": "fast",
        "pool_migration_protected": list(PROTECTED),
        "pool_migration_headroom": "64MiB",
        "pool_migration_socket": str(daemon.socket),
    }


@pytest.fixture
def at_first(daemon: Incusd, variables: dict[str, Any]) -> Iterator[None]:
    """The test begins, and leaves everything, as it was prepared."""
    yield
    if any(name not in ("c1", *PROTECTED) for name in migration.names(daemon)):
        play("rollback", variables, pool_migration_confirm=HOST)
        remove = {"pool_migration_remove_source": True, "pool_migration_retention": 0}
        play("migrate_cleanup", variables, pool_migration_confirm=HOST, **remove)
    assert migration.names(daemon) == ["c1", *PROTECTED]


def play(name: str, variables: dict[str, Any], *, check: bool = False, **more: Any) -> PlaybookRun:
    return run_playbook(f"playbooks/{name}.yml", INVENTORY, variables={**variables, **more}, check=check)


def pool_of(daemon: Incusd, name: str) -> str:
    return str(migration.record(daemon, name)["expanded_devices"]["root"]["pool"])


def pids(daemon: Incusd) -> list[int]:
    return [migration.pid(daemon, name) for name in PROTECTED]


def untouched(daemon: Incusd) -> list[Any]:
    """What tells that nobody has touched the protected ones, read by other means than the role's."""
    return [migration.with_ctimes(daemon, name) for name in PROTECTED]


def contents(daemon: Incusd, pool: str) -> dict[str, Manifest]:
    """All files of c1 and its snapshot."""
    return {name: migration.contents(migration.rootfs(daemon, "c1", pool, name)) for name in ("", "before")}


def outputs(run: PlaybookRun, task: str) -> list[str]:
    return [line for one in run.tasks if one.task.endswith(task) for line in one.result.get("msg") or ()]


@pytest.mark.usefixtures("at_first")
def test_without_confirmation_it_ends_with_the_plan(daemon: Incusd, variables: dict[str, Any]) -> None:
    before = incus_runs.state(daemon)
    run = play("migrate", variables).succeeded()
    lines = outputs(run, "Show the plan")
    assert lines[0] == "1 of 4 instances would move from pool slow to fast."
    assert "moves" in next(line for line in lines if line.startswith("c1 "))
    for name in PROTECTED:
        assert "stays, as it is protected" in next(line for line in lines if line.startswith(f"{name} "))
    assert f"--extra-vars pool_migration_confirm={HOST}" in run.output
    assert run.changed == {HOST: 0}
    assert incus_runs.state(daemon) == before


@pytest.mark.usefixtures("at_first")
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"pool_migration_confirm": "pi-01"}, "pool_migration_confirm is pi-01, which is not localhost."),
        ({"pool_migration_confirm": HOST, "pool_migration_protected": ["marry"]}, "marry"),
        ({"pool_migration_confirm": HOST, "pool_migration_protected": ["m*"]}, "m*"),
        ({"pool_migration_confirm": HOST, "pool_migration_pool": "nowhere"}, "nowhere"),
        ({"pool_migration_confirm": HOST, "pool_migration_names": ["mary"]}, "mary stays, as it is protected"),
        ({"pool_migration_confirm": HOST, "pool_migration_headroom": "1TiB"}, "1TiB"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_changed(
    daemon: Incusd, variables: dict[str, Any], wrong: dict[str, Any], said: str
) -> None:
    before = incus_runs.state(daemon)
    run = play("migrate", variables, **wrong)
    assert run.status != 0
    assert said in run.output, run.output
    assert not [task for task in run.tasks if task.action == "incus_instance_pool"]
    assert incus_runs.state(daemon) == before


@pytest.mark.usefixtures("at_first")
def test_check_mode_says_what_would_be_done_and_does_nothing(daemon: Incusd, variables: dict[str, Any]) -> None:
    before, running_as_before = incus_runs.state(daemon), untouched(daemon)
    run = play("migrate", variables, check=True).succeeded()
    assert run.changed == {HOST: 1}
    assert "copy c1 with 1 snapshot from pool slow to fast" in run.output
    assert incus_runs.state(daemon) == before
    assert untouched(daemon) == running_as_before


@pytest.mark.usefixtures("at_first")
def test_moved_verified_put_back_moved_again_and_cleaned_up(daemon: Incusd, variables: dict[str, Any]) -> None:
    files, identity = contents(daemon, "slow"), migration.identity(migration.record(daemon, "c1"))
    protected = untouched(daemon)
    confirmed = {**variables, "pool_migration_confirm": HOST}

    moved = play("migrate", confirmed).succeeded()
    assert pool_of(daemon, "c1") == "fast"
    assert "progress localhost: c1: " in moved.output
    (row,) = outputs(moved, "Show what came of it")[2:]
    assert "moved; the source is kept as kept-of-c1-" in row
    assert outputs(moved, "protected were not touched")[0] == "Not touched: mary, naira, stanley."
    assert migration.identity(migration.record(daemon, "c1")) == identity
    assert contents(daemon, "fast")["before"].digest == files["before"].digest
    assert "Profile default stays on pool slow" in moved.output
    assert untouched(daemon) == protected

    again = play("migrate", confirmed).succeeded()
    assert again.changed == {HOST: 0}

    back = play("rollback", confirmed).succeeded()
    assert pool_of(daemon, "c1") == "slow"
    assert "what ran meanwhile is kept as undone-of-c1-" in back.output
    assert migration.identity(migration.record(daemon, "c1")) == identity
    assert contents(daemon, "slow")["before"].digest == files["before"].digest
    assert play("rollback", confirmed).succeeded().changed == {HOST: 0}

    play("migrate", confirmed).succeeded()
    aside = sorted(set(migration.names(daemon)) - {"c1", *PROTECTED})
    assert [name.split("-of-")[0] for name in aside] == ["kept", "undone"]
    waiting = play("migrate_cleanup", confirmed, pool_migration_remove_source=True).succeeded()
    assert "stays for 16" in waiting.output
    assert "hours more" in waiting.output
    refused = play("migrate_cleanup", confirmed, pool_migration_retention=0)
    assert refused.status != 0
    assert "takes a second confirmation. Nothing was changed." in refused.output
    assert sorted(set(migration.names(daemon)) - {"c1", *PROTECTED}) == aside
    over = {"pool_migration_remove_source": True, "pool_migration_retention": 0}
    play("migrate_cleanup", confirmed, **over).succeeded()
    assert migration.names(daemon) == ["c1", *PROTECTED]
    assert play("migrate_cleanup", confirmed, **over).succeeded().changed == {HOST: 0}
    assert pool_of(daemon, "c1") == "fast"
    assert untouched(daemon) == protected

    home = {**confirmed, "pool_migration_from_pool": "fast", "pool_migration_pool": "slow"}
    play("migrate", home).succeeded()
    play("migrate_cleanup", home, **over).succeeded()


@pytest.mark.usefixtures("at_first")
def test_profiles_go_with_it_and_back_where_the_protected_are_pinned(daemon: Incusd, variables: dict[str, Any]) -> None:
    confirmed = {**variables, "pool_migration_confirm": HOST}
    started, devices = pids(daemon), migration.record(daemon, "c1")["devices"]
    run = play("migrate", confirmed, pool_migration_pin_protected=True).succeeded()
    assert daemon.api("GET", "/1.0/profiles/default")["devices"]["root"]["pool"] == "fast"
    for name in PROTECTED:
        assert migration.record(daemon, name)["devices"]["root"]["pool"] == "slow"
        assert f"{name} has a root disk of its own now, as was asked for" in run.output
    assert pids(daemon) == started
    play("rollback", confirmed).succeeded()
    assert daemon.api("GET", "/1.0/profiles/default")["devices"]["root"]["pool"] == "slow"
    assert (pool_of(daemon, "c1"), migration.record(daemon, "c1")["devices"]) == ("slow", devices)


@pytest.mark.usefixtures("at_first")
def test_a_failure_is_in_the_table_and_the_container_is_back(daemon: Incusd, variables: dict[str, Any]) -> None:
    failing = {"pool_migration_health_command": ["false"], "pool_migration_health_timeout": 2}
    run = play("migrate", variables, pool_migration_confirm=HOST, **failing)
    assert run.status != 0
    (row,) = outputs(run, "Show what came of it")[2:]
    assert "failed: c1 is not well 2 s after its start" in row
    assert (pool_of(daemon, "c1"), migration.record(daemon, "c1")["status"]) == ("slow", "Running")
    assert outputs(run, "protected were not touched")


TWO_HOSTS = """
incus_hosts:
  vars:
    ansible_connection: local
  hosts:
    one:
      pool_migration_names: [c1]
      pool_migration_health_command: ["false"]
    two:
      pool_migration_names: [c2]
"""


@pytest.mark.usefixtures("at_first")
def test_a_failure_on_the_first_host_stops_the_others(
    daemon: Incusd, variables: dict[str, Any], tmp_path: Path
) -> None:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text(TWO_HOSTS)
    daemon.run("launch", "bb", "c2")
    try:
        confirmed = {**variables, "pool_migration_confirm": "one,two", "pool_migration_health_timeout": 2}
        run = run_playbook("playbooks/migrate.yml", inventory, variables=confirmed)
        moving = {task.host for task in run.tasks if task.task.endswith("Move each instance")}
        planned = {task.host for task in run.tasks if task.task.endswith("Show the plan")}
        assert (run.status != 0, moving, planned) == (True, {"one"}, {"one", "two"}), run.output
        assert {name: pool_of(daemon, name) for name in ("c1", "c2")} == {"c1": "slow", "c2": "slow"}
    finally:
        daemon.run("delete", "--force", "c2")


@pytest.mark.usefixtures("at_first")
def test_the_front_end_shows_the_plan_asks_and_shows_the_result(
    daemon: Incusd, variables: dict[str, Any], tmp_path: Path
) -> None:
    """Of a migration, of putting back, and of cleaning up."""
    given = tmp_path / "variables.json"
    over = {"pool_migration_remove_source": True, "pool_migration_retention": 0}
    given.write_text(json.dumps({**variables, **over}))

    def asked(playbook: str) -> tuple[str, str]:
        cowherd = [sys.executable, "-m", "cowherd", playbook, "-i", INVENTORY, "--", "--extra-vars", f"@{given}"]
        status, shown = on_terminal(cowherd, "press enter: ", HOST)
        assert status == 0, shown
        plan, _, result = shown.partition("press enter: ")
        assert "What came of it" in result, result
        return plan, result

    plan, result = asked("migrate")
    assert "1 of 4 instances would move from pool slow to fast" in plan
    assert "kept-of-c1-" in result
    assert pool_of(daemon, "c1") == "fast"
    plan, result = asked("rollback")
    assert "c1" in plan
    assert "undone-of-c1-" in result
    assert pool_of(daemon, "c1") == "slow"
    plan, result = asked("migrate_cleanup")
    assert "undone-of-c1-" in plan
    assert migration.names(daemon) == ["c1", *PROTECTED]


@pytest.mark.usefixtures("at_first")
def test_plain_ansible_asks_at_a_terminal_and_takes_enter_for_no(
    daemon: Incusd, variables: dict[str, Any], tmp_path: Path
) -> None:
    given = tmp_path / "variables.json"
    given.write_text(json.dumps(variables))
    before = incus_runs.state(daemon)
    playbook = Path(sys.executable).with_name("ansible-playbook")
    argv = [str(playbook), "-i", INVENTORY, "--extra-vars", f"@{given}", "playbooks/migrate.yml"]
    status, shown = on_terminal(argv, "press enter", "")
    assert status == 0, shown
    assert "Nothing was changed. To carry this out" in shown
    assert incus_runs.state(daemon) == before


def on_terminal(argv: list[str], question: str, answer: str) -> tuple[int | None, str]:
    """Run a program on a terminal, answer its question, and return its status and output.

    The answer is typed again until the program ends: it may discard what was typed before it reads.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TERM": "xterm"}
    shown = io.StringIO()
    program = pexpect.spawn(
        argv[0], argv[1:], cwd=ROOT, env=environment, dimensions=(50, 200), echo=False, encoding="utf-8"
    )
    program.logfile_read = shown
    program.expect_exact(question, timeout=ANSWERED_WITHIN)
    until(lambda: _ends_after(program, answer), within=ANSWERED_WITHIN)
    program.close()
    return program.exitstatus, shown.getvalue()


def _ends_after(program: pexpect.spawn, answer: str) -> bool:
    program.sendline(answer)
    return program.expect([pexpect.TIMEOUT, pexpect.EOF], timeout=5) == 1

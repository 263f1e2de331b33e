"""The command line, and the environments that it makes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from cowherd import cli, environment, playbooks
from cowherd.progress import Event, Host, Question, Run

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def test_what_stands_after_two_dashes_is_for_ansible() -> None:
    options = cli.parse(["site", "-i", "inventories/fleet", "--", "--limit", "pi-01", "--check", "--", "x"])
    assert options.command.name == "site"
    assert options.inventory == ["inventories/fleet"]
    assert options.passed_on == ["--limit", "pi-01", "--check", "--", "x"]


@pytest.mark.parametrize(
    "argv", [[], ["sight"], ["site", "--bogus"], ["site", "--plain", "--json"], ["test", "-i", "x"]]
)
def test_what_is_not_known_is_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parse(argv)
    assert ended.value.code == 2


@pytest.mark.parametrize("command", cli.COMMANDS, ids=lambda command: command.name)
def test_each_command_explains_itself(command: cli.Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parse([command.name, "--help"])
    assert command.help.split()[0] in capsys.readouterr().out


def test_help_needs_no_environment_and_no_other_folder() -> None:
    shown = subprocess.run(
        [environment.ROOT / "cowherd", "--help"], cwd="/", capture_output=True, text=True, check=True, env={}
    )
    assert "site" in shown.stdout


PLAYBOOK = """
- hosts: localhost
  tasks:
    - ansible.builtin.debug:
        msg: "{{ keys }}"
      vars:
        keys: "{{ lookup('ansible.builtin.config', 'HOST_KEY_CHECKING') }}"
"""


def test_ansible_keeps_its_default_of_checking_host_keys(tmp_path: Path) -> None:
    book = tmp_path / "book.yml"
    book.write_text(PLAYBOOK)
    said: list[object] = []
    playbooks.play(book, [], lambda event: said.append(event.get("event_data", {}).get("res", {}).get("msg")))
    assert True in said


@pytest.mark.parametrize("options", playbooks._ASKING, ids=lambda options: options[0])
def test_what_ansible_asks_for_is_answered(options: tuple[str, ...], tmp_path: Path) -> None:
    _, prompt = playbooks._ASKING[options]
    book = tmp_path / "book.yml"
    book.write_text(PLAYBOOK)
    assert playbooks.play(book, [options[0]], lambda _: None, {prompt: "secret"}) == 0


LONG_TASK = """
- hosts: localhost
  tasks:
    - ansible.builtin.command: sleep {seconds}
"""


def test_an_interrupt_ends_the_modules_too(tmp_path: Path) -> None:
    book = tmp_path / "book.yml"
    seconds = f"3600.{os.getpid()}"
    book.write_text(LONG_TASK.format(seconds=seconds))

    def interrupt_at_task(event: Event) -> None:
        if event["event"] == "runner_on_start":
            threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()

    assert playbooks.play(book, [], interrupt_at_task) == 99
    assert not any(_words(command)[:2] == ["sleep", seconds] for command in Path("/proc").glob("[0-9]*/cmdline"))


def _words(command: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return command.read_text().split("\0")
    return []


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path]:
    """Requirements of nothing, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "requirements.txt"
    file.touch()
    return (file,)


def test_two_at_once_make_one_environment_once(requirements: tuple[Path], capfd: pytest.CaptureFixture[str]) -> None:
    made: list[Path] = []
    make = partial(environment.ensure, Path(sys.executable), VERSION, requirements)
    both = [threading.Thread(target=lambda: made.append(make())) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert made == [make()] * 2
    assert capfd.readouterr().err.count("preparing") == 1
    assert subprocess.run([made[0], "-m", "pip", "--version"], capture_output=True, check=True).stdout


def test_an_interrupted_environment_is_made_anew(requirements: tuple[Path]) -> None:
    with pytest.raises(environment.EnvironmentFailed):
        environment.ensure(Path("/bin/false"), VERSION, requirements)
    folder = environment.folder(VERSION, requirements)
    folder.mkdir()
    (folder / "left-over").touch()
    assert environment.ensure(Path(sys.executable), VERSION, requirements).is_file()
    assert not (folder / "left-over").exists()


def test_other_requirements_are_another_environment(requirements: tuple[Path]) -> None:
    before = environment.folder(VERSION, requirements)
    requirements[0].write_text("# changed\n")
    assert environment.folder(VERSION, requirements) != before


def test_requirements_that_cannot_be_had_end_in_a_sentence(requirements: tuple[Path]) -> None:
    requirements[0].write_text("./nowhere\n")
    with pytest.raises(environment.EnvironmentFailed, match="ended with status 1"):
        environment.ensure(Path(sys.executable), VERSION, requirements)


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--check"], True),
        (["-C"], True),
        (["-CD"], True),
        (["-vvC"], True),
        (["-e", "name=-C"], False),
        (["-eC=1"], False),
        (["--limit", "C"], False),
    ],
)
def test_check_mode_is_recognised_among_other_letters(arguments: list[str], *, given: bool) -> None:
    assert playbooks._among(arguments, ("-C", "--check")) is given


NAME = Question("pool_migration_confirm", "Type the names")
WORD = Question("pool_migration_remove_source", "Type the word remove", "remove")


@pytest.mark.parametrize(
    ("questions", "typed", "arguments"),
    [
        ((), [], []),
        ((NAME,), ["pi-01,pi-02 "], ["--extra-vars", '{"pool_migration_confirm": "pi-01,pi-02"}']),
        ((NAME,), [""], []),
        ((NAME, WORD), ["pi-01", "yes"], []),
        (
            (NAME, WORD),
            ["pi-01", "remove"],
            [
                *("--extra-vars", '{"pool_migration_confirm": "pi-01"}'),
                *("--extra-vars", '{"pool_migration_remove_source": true}'),
            ],
        ),
    ],
)
def test_answers_become_variables_and_one_no_is_no(
    monkeypatch: pytest.MonkeyPatch, questions: tuple[Question, ...], typed: list[str], arguments: list[str]
) -> None:
    waiting = iter(typed)
    monkeypatch.setattr("builtins.input", lambda _: next(waiting))
    run = Run(hosts={"pi-01": Host(questions=questions), "pi-02": Host(questions=questions)})
    assert playbooks._answers(run) == arguments
    assert list(waiting) == []

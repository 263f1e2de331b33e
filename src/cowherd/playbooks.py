"""Runs a playbook through ansible-runner, with a view of what happens."""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import ansible_runner

from cowherd import views
from cowherd.environment import ROOT
from cowherd.progress import Run, advance

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cowherd.progress import Event

_ASKING = {
    ("-K", "--ask-become-pass"): ("Password for sudo on the hosts: ", r"^BECOME password.*:\s*?$"),
    ("-k", "--ask-pass"): ("Password for SSH: ", r"^SSH password:\s*?$"),
    ("-J", "--ask-vault-pass", "--ask-vault-password"): ("Password for the vault: ", r"^Vault password.*:\s*?$"),
}
"""Options of ansible-playbook that make it ask: our question, and the prompt of Ansible that the answer is for."""

_LETTERS = re.compile("-[CDJKbhkv]+")
"""Short options of ansible-playbook that take no value, and so may stand together."""

_CANCEL_WITHIN = 1
"""Seconds until an interrupt ends an ansible-playbook that has not begun."""


def run(options: argparse.Namespace) -> int:
    """Run the playbook of the command, show it, and return its exit status.

    One that wants its plan confirmed is run once more with the answers of the person at the terminal.
    """
    arguments = _arguments(options)
    passwords = _passwords(arguments)
    if not options.command.asks:
        return _shown(options, arguments, passwords)[0]
    # The question is ours: the plan is on the terminal then, and nothing else.
    arguments += ["--extra-vars", "pool_migration_ask=false"]
    status, state = _shown(options, arguments, passwords)
    if status or not _can_ask(options):
        return status
    answers = _answers(state)
    return _shown(options, [*arguments, *answers], passwords)[0] if answers else status


def _shown(options: argparse.Namespace, arguments: Sequence[str], passwords: Mapping[str, str]) -> tuple[int, Run]:
    """Run the playbook in the view that was asked for; return its exit status and what it came to."""
    state = Run(check=_among(arguments, ("-C", "--check")))
    view = views.choose(plain=options.plain, document=options.json)

    def follow(event: Event) -> None:
        nonlocal state
        state = advance(state, event)
        view.show(state, event)

    with view:
        status = play(ROOT / "playbooks" / f"{options.command.name}.yml", arguments, follow, passwords)
    view.end(state, status)
    return status, state


def _can_ask(options: argparse.Namespace) -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and not options.json


def _answers(state: Run) -> list[str]:
    """Ask what the hosts want to know, and return the answers as arguments; none when one of them is no."""
    questions = dict.fromkeys(question for _, host in sorted(state.hosts.items()) for question in host.questions)
    arguments: list[str] = []
    for question in questions:
        answer = input(f"{question.question}: ").strip()
        if not answer or (question.word and answer != question.word):
            return []
        value = {question.variable: True if question.word else answer}
        arguments += ["--extra-vars", json.dumps(value)]
    return arguments


def play(
    playbook: Path,
    arguments: Sequence[str],
    follow: Callable[[Event], None],
    passwords: Mapping[str, str] | None = None,
) -> int:
    """Run ansible-playbook and return its exit status.

    follow: is given each event.
    passwords: answers, by the pattern of the prompt.
    """
    process = _Process()

    def handle(event: Event) -> bool:
        process.learn(event.get("pid"))
        follow(event)
        return False  # nothing reads the event again: it need not be written to a file

    with TemporaryDirectory(prefix="cowherd-") as private, process.taking_interrupts():
        settings = Path(private, "env", "settings")
        settings.parent.mkdir()
        settings.write_text(json.dumps({"pexpect_timeout": _CANCEL_WITHIN}))
        finished = ansible_runner.run(
            private_data_dir=private,
            project_dir=str(Path.cwd()),
            playbook=str(playbook),
            cmdline=shlex.join(arguments) or None,
            envvars=_environment(),
            passwords=dict(passwords or {}),
            suppress_env_files=True,  # passwords stay out of files
            fact_cache_type="memory",
            event_handler=handle,
            cancel_callback=process.is_to_be_killed,
            quiet=True,
        )
    return int(finished.rc)


@dataclass
class _Process:
    """The process of ansible-playbook. Its pid is in its events.

    An interrupt is handed on to it, and it ends its modules. ansible-runner would kill it, and they would go on.
    """

    pid: int | None = None
    interrupted: bool = False

    @contextmanager
    def taking_interrupts(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def learn(self, pid: int | None) -> None:
        if self.pid is None and pid is not None:
            self.pid = pid
            if self.interrupted:
                os.kill(pid, signal.SIGINT)

    def is_to_be_killed(self) -> bool:
        """Say whether it was interrupted before it began with anything."""
        return self.interrupted and self.pid is None

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True
        if self.pid is not None:
            os.kill(self.pid, signal.SIGINT)


def _arguments(options: argparse.Namespace) -> list[str]:
    inventories = [argument for inventory in options.inventory or () for argument in ("--inventory", inventory)]
    arguments = [*inventories, *options.passed_on]
    if not inventories and _sudo_wants_a_password() and not _among(arguments, ("-K", "--ask-become-pass")):
        arguments.append("--ask-become-pass")
    return arguments


def _sudo_wants_a_password() -> bool:
    """Whether this machine can be converged only with a password that the person at the terminal knows."""
    if os.geteuid() == 0 or not sys.stdin.isatty():
        return False
    sudo = ["sudo", "--reset-timestamp", "--non-interactive", "true"]
    return subprocess.run(sudo, capture_output=True, check=False).returncode != 0


def _passwords(arguments: Sequence[str]) -> dict[str, str]:
    return {
        prompt: getpass.getpass(question)
        for options, (question, prompt) in _ASKING.items()
        if _among(arguments, options)
    }


def _among(arguments: Sequence[str], options: Sequence[str]) -> bool:
    """Say whether one of the options was given, also as a letter among others, as in -CD."""
    letters = {option[1] for option in options if len(option) == 2}
    return any(
        argument in options or (_LETTERS.fullmatch(argument) and not letters.isdisjoint(argument))
        for argument in arguments
    )


def _environment() -> dict[str, str]:
    environment = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_HOST_KEY_CHECKING": "True",  # Ansible's own default, which ansible-runner turns off
        "LC_ALL": "C.UTF-8",  # Ansible wants UTF-8, and a bare system has no other such locale
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
    }
    if not sys.stdout.isatty():
        environment["ANSIBLE_NOCOLOR"] = "1"
    return {**environment, **{name: value for name, value in os.environ.items() if name.startswith("ANSIBLE_")}}

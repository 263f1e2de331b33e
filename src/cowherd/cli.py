"""The command line. Standard library only: Debian's Python reads it before Cowherd's own environment is there."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cowherd import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


_INTERRUPTED = 130
"""What shells report for a command that was interrupted."""


@dataclass(frozen=True)
class Command:
    """One word after ./cowherd.

    requirements: the environment that it runs in.
    options: adds its options to a parser.
    run: does it and returns the exit status.
    asks: whether its playbook shows a plan and wants it confirmed.
    """

    name: str
    help: str
    requirements: Sequence[Path]
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    asks: bool = False


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit status."""
    options = parse(argv)
    command: Command = options.command
    try:
        environment.enter(command.requirements)
        return command.run(options)
    except environment.EnvironmentFailed as error:
        environment.say(str(error))
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the options, with the Command as `command` and what stands after `--` as `passed_on`."""
    own, passed_on = _split(argv)
    parser = argparse.ArgumentParser(prog="./cowherd", description="Copy-on-write storage for Incus hosts.")
    words = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        word = words.add_parser(command.name, help=command.help, description=command.help, allow_abbrev=False)
        command.options(word)
        word.set_defaults(command=command, passed_on=passed_on)
    return parser.parse_args(own)


def playbook(name: str, help_text: str, *, asks: bool = False) -> Command:
    """Return the command that runs playbooks/NAME.yml."""
    return Command(name, help_text, environment.RUN, _playbook_options, _run_playbook, asks)


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _playbook_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [-h] [-i INVENTORY] [--plain | --json] [-- ARGUMENTS OF ansible-playbook]"
    parser.add_argument("-i", "--inventory", action="append", help="hosts (default: this machine, inventories/local)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--plain", action="store_true", help="print Ansible's own output, as without a terminal")
    form.add_argument("--json", action="store_true", help="print the outcome as one JSON document, for programs")


def _run_playbook(options: argparse.Namespace) -> int:
    from cowherd import playbooks

    return playbooks.run(options)


def _test_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"{parser.prog} [-h] [--tier TIER,...] [-k EXPRESSION] [-- ARGUMENTS OF pytest]"
    parser.add_argument("--tier", metavar="TIER,...", help="only these tiers, of those that the final table lists")
    parser.add_argument("-k", metavar="EXPRESSION", help="only tests that match, as pytest has it")


def _run_tests(options: argparse.Namespace) -> int:
    from cowherd import suite

    return suite.run(options)


COMMANDS = (
    playbook("site", "Make every launch on the hosts a copy-on-write clone. Run again, nothing changes."),
    playbook("golden", "Keep golden file trees on the hosts, and clone them for sessions."),
    playbook("verify", "Launch a throw-away container on each host and compare its phases with the targets."),
    playbook("migrate", "Move containers to another pool, with a way back. Shows a plan, and asks.", asks=True),
    playbook("rollback", "Put moved containers back where they were. Shows a plan, and asks.", asks=True),
    playbook("migrate_cleanup", "Remove the kept sources of moves for good. Shows a plan, and asks twice.", asks=True),
    playbook("images", "Build images of root file systems, where what they are made of has changed."),
    playbook("live_build", "Build btrfs images of live and install media, and verify them by their checksums."),
    playbook("live_install", "Install a root of a btrfs seed onto a device or into a file."),
    Command("test", "Run all that tells whether Cowherd works.", environment.TEST, _test_options, _run_tests),
)

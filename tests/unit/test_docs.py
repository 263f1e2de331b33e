"""What the pages say exists: each command is accepted by the program it is for, each link leads somewhere."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cowherd import cli

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for page in PAGES
        for line in page.read_text().splitlines()
        if line.startswith(("    ./cowherd", "    ansible"))
    }
)
WITHOUT_EFFECT = {"ansible": "--list-hosts", "ansible-playbook": "--syntax-check"}


def test_there_are_commands() -> None:
    assert COMMANDS


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("./cowherd")])
def test_the_front_end_takes_the_command(command: str) -> None:
    assert cli.parse(shlex.split(command)[1:])


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("ansible")])
def test_ansible_takes_the_command(command: str) -> None:
    program, *arguments = shlex.split(command)
    argv = [str(Path(sys.executable).with_name(program)), *arguments, WITHOUT_EFFECT[program]]
    finished = subprocess.run(
        argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120
    )
    assert finished.returncode == 0, finished.stderr


def test_ansible_doc_finds_what_modules_share() -> None:
    program = Path(sys.executable).with_name("ansible-doc")
    shown = subprocess.run(
        [program, "--json", "golden_cache"], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True
    )
    assert {"store", "project"} <= json.loads(shown.stdout)["golden_cache"]["doc"]["options"].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("playbook", sorted(ROOT.glob("playbooks/*.yml")), ids=lambda path: path.name)
def test_the_readme_names_each_playbook(playbook: Path) -> None:
    assert playbook.name in (ROOT / "README.md").read_text()

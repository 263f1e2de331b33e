"""cow-session: its command line, and that its one file has all that it needs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow.errors import Busy, CowError
from ansible.module_utils.cow.golden import cli, program
from ansible.module_utils.cow.golden.folders import Folders
from ansible.module_utils.cow.golden.refusals import Exists, InUse, NoRoom, NotThere, Refusal
from ansible.module_utils.cow.units import Found

UNITS = Path("/etc/systemd/system")
PAGE = Path(__file__).parents[2] / "docs" / "golden.md"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "cow-session"
    path.write_bytes(program.build())
    return path


def test_it_is_the_same_each_time(command: Path) -> None:
    assert command.read_bytes() == program.build()


def test_all_parts_are_in_it(command: Path) -> None:
    """Each module is loaded where there is nothing but the file and the standard library."""
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in zipfile.ZipFile(command).namelist()
        if name.endswith(".py") and name != "__main__.py"
    ]
    assert "cow.golden.volumes" in modules
    load = f"import sys; sys.path.insert(0, {str(command)!r}); import {', '.join(modules)}; print(cow.__file__)"
    loaded = subprocess.run([sys.executable, "-IS", "-c", load], capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith(str(command))


def test_what_a_clone_does_not_need_is_not_loaded(command: Path, tmp_path: Path) -> None:
    """Time to start is most of the time that a clone takes."""
    Folders(str(tmp_path)).create_project("p")
    script = f"""
import sys
sys.path.insert(0, {str(command)!r})
from cow.golden import cli
sys.stdout = open("/dev/null", "w")
status = cli.main(["--config=/nonexistent", "--store={tmp_path}", "--backend=copy", "clone", "p", "s"])
sys.stdout = sys.__stdout__
unwanted = {{
    "cow.plan", "cow.treecopy", "ctypes", "datetime", "decimal", "hashlib", "multiprocessing", "shutil",
    "subprocess", "typing", "uuid", "zipfile",
}}
print(status)
print(*sorted(unwanted & set(sys.modules)))
"""
    finished = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    assert finished.stdout.split("\n") == ["3", "", ""]  # it comes as far as to the generation that is not there


@pytest.mark.parametrize(
    "line",
    [
        "clone p s --at /srv/s --generation 3 --reserve 5GiB",
        "promote p s --keep 2",
        "promote p --source /srv/build --volume-size 10GiB",
        "destroy p s",
        "list",
        "list p --no-sizes",
        "list list",
        "clone list gc",
        "gc --dry-run --keep 2 --grace 60",
        "gc p",
        "mount",
        "mount p s",
        "trim",
        "serve",
        "--store tank/golden --backend zfs --expect zfs list",
    ],
)
def test_command_lines(line: str) -> None:
    assert cli.parsed(line.split()) == cli.parser().parse_args(line.split())
    assert cli.parsed(line.split()).command in line


def test_a_misspelt_command_is_told_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parsed(["--store", "mount", "clon", "mount"])
    assert "'clon' (choose from" in (said := capsys.readouterr().err)
    assert "promote" in said


@pytest.mark.parametrize("line", re.findall(r"^cow-session (.*)$", PAGE.read_text(), re.MULTILINE))
def test_command_lines_of_the_page(line: str) -> None:
    assert cli.parsed(shlex.split(line, comments=True)).command in line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "clone p",
        "promote p",
        "promote p s --source /x",
        "--backend ext4 list",
        "purge",
        "purge clone",
        "list gc mount x y",
    ],
)
def test_command_lines_that_are_wrong(line: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parsed(line.split())
    assert ended.value.code == 2


COMMANDS = ("clone", "promote", "destroy", "list", "gc", "mount", "trim")


@pytest.mark.parametrize("line", ["--help", "--help clone", "-h list"])
def test_help_names_all_commands(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parsed(line.split())
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n    {name} " in printed for name in (*COMMANDS, "serve"))


def _wanted(**params: Any) -> program.Wanted:
    return program.Wanted.of({"path": "/opt/cow-session", "state": "present", "fork_server": True, **params})


def _found(*, served: bool = True, systemd: bool = True) -> program.Found:
    files = {UNITS / name: text for name, text in program._units(Path("/opt/cow-session")).items()} if served else {}
    active = frozenset({"cow-session.socket"} if served else ())
    return program.Found(
        Path("/opt/cow-session"), program.build(), 0o755, Found(files, enabled=active, active=active, systemd=systemd)
    )


def test_the_fork_server_comes_after_the_program_and_goes_before_it() -> None:
    bare = program.Found(Path("/opt/cow-session"))
    assert program.plan(bare, _wanted()).titles == [
        "write /opt/cow-session",
        f"write {UNITS}/cow-session.socket",
        f"write {UNITS}/cow-session.service",
        "have systemd read its units again",
        "start and enable cow-session.socket",
    ]
    assert program.plan(_found(), _wanted()).titles == []
    gone = [
        "stop and disable cow-session.socket",
        f"remove {UNITS}/cow-session.socket",
        f"remove {UNITS}/cow-session.service",
        "have systemd read its units again",
    ]
    assert program.plan(_found(), _wanted(fork_server=False)).titles == gone
    assert program.plan(_found(), _wanted(state="absent")).titles == [*gone, "remove /opt/cow-session"]


def test_a_host_without_systemd_has_the_program_alone() -> None:
    bare = _found(served=False, systemd=False)
    assert program.plan(bare, _wanted(fork_server=False)).titles == []
    with pytest.raises(CowError, match="Set fork_server to false"):
        program.plan(bare, _wanted())


def test_a_host_has_one_fork_server(tmp_path: Path) -> None:
    """That of a program at another path is refused where one is asked for, and left alone where none is."""
    for name, text in program._units(Path("/usr/local/bin/cow-session")).items():
        (tmp_path / name).write_text(text)
    wanted = replace(_wanted(), path=tmp_path / "cow-session")
    with pytest.raises(CowError, match="for the program at another path"):
        program.observe(wanted, folder=tmp_path)
    assert program.observe(replace(wanted, fork_server=False), folder=tmp_path).units.files == {}


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (CowError("why"), 1, "refused"),
        (Refusal("why"), 1, "refused"),
        (NotThere("why"), 3, "absent"),
        (Exists("why"), 4, "exists"),
        (InUse("why"), 5, "in-use"),
        (Busy("why"), 5, "in-use"),
        (NoRoom("why"), 6, "no-room"),
    ],
)
def test_failures_have_a_status_and_a_word(error: CowError, status: int, word: str) -> None:
    assert cli._failure(error) == ({"error": word, "msg": "why"}, status)
    assert f"  {status}  " in cli.STATUSES
    assert re.search(rf"^\| {status} \| .* \| `{word}` \|$", PAGE.read_text(), re.MULTILINE)

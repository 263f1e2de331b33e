"""cow-session: its command line, and that its one file has all that it needs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible.module_utils.cow.errors import Busy, CowError
from ansible.module_utils.cow.golden import cli, program
from ansible.module_utils.cow.golden.folders import Folders
from ansible.module_utils.cow.golden.refusals import Exists, InUse, NoRoom, NotThere, Refusal

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


@pytest.mark.parametrize("line", ["--help", "--help clone", "-h list"])
def test_help_names_all_commands(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.parsed(line.split())
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert all(f"\n    {name} " in printed for name in ("clone", "promote", "destroy", "list", "gc", "mount", "trim"))


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

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from ansible.module_utils.cow import durable

WATCHED = """
import os, stat, sys
from pathlib import Path
from ansible.module_utils.cow import durable
path, seen = Path(sys.argv[1]), set()
def look(event, args):
    if event == "open" or event.startswith("os."):
        seen.add(oct(stat.S_IMODE(os.stat(path).st_mode)))
sys.addaudithook(look)
durable.write(path, b"new", 0o755)
print(*seen)
"""


def test_a_program_can_be_executed_all_the_time_while_it_is_replaced(tmp_path: Path) -> None:
    """Its mode is looked at before each call that the replacement makes."""
    program = tmp_path / "program"
    program.write_bytes(b"old")
    program.chmod(0o755)
    load = "import tests.support.importable.sitecustomize\n"
    watched = [sys.executable, "-c", load + WATCHED, program]
    finished = subprocess.run(watched, stdout=subprocess.PIPE, text=True, check=True)
    assert finished.stdout.split() == ["0o755"]
    assert (program.read_bytes(), stat.S_IMODE(program.stat().st_mode)) == (b"new", 0o755)


def test_what_is_left_of_a_killed_run_has_no_say_in_the_mode(tmp_path: Path) -> None:
    (tmp_path / ".file.draft").write_bytes(b"longer than what is written")
    (tmp_path / ".file.draft").chmod(0o666)
    durable.write(tmp_path / "file", b"new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"new"]

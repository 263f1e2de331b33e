from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.errors import CowError

IMPORTABLE = Path(__file__).parents[1] / "support" / "importable"
HOLDER = """\
import sys
from pathlib import Path
from ansible.module_utils.cow.lock import held
with held(sys.argv[1], folder=Path(sys.argv[2]), member=sys.argv[3]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def other_process(resource: str, folder: Path, member: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock during the block."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, resource, folder, member],
        env={**os.environ, "PYTHONPATH": str(IMPORTABLE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_another_process_is_kept_out_and_told_who_holds_it(tmp_path: Path) -> None:
    with other_process("pool:fast", tmp_path) as holder:
        with pytest.raises(CowError, match=rf"process {holder.pid}\) is changing pool:fast"):
            take("pool:fast", tmp_path)
        take("pool:slow", tmp_path)


def test_it_is_free_again_when_the_holder_is_killed(tmp_path: Path) -> None:
    with other_process("pool:fast", tmp_path) as holder:
        holder.kill()
        holder.wait()
        take("pool:fast", tmp_path)


def test_each_member_has_a_lock_of_its_own(tmp_path: Path) -> None:
    """And all of them one file, however many they are."""
    with other_process("sessions", tmp_path, "alice") as holder:
        with pytest.raises(CowError, match="Another run is changing alice of sessions"):
            take("sessions", tmp_path, "alice")
        for number in range(1000):
            take("sessions", tmp_path, f"s{number}")
        take("sessions", tmp_path)
        holder.kill()
        holder.wait()
        take("sessions", tmp_path, "alice")
    assert [file.name for file in tmp_path.iterdir()] == ["sessions.lock"]


def test_it_is_waited_for(tmp_path: Path) -> None:
    with other_process("pool:fast", tmp_path) as holder:
        waits: list[float] = []

        def let_go(seconds: float) -> None:
            waits.append(seconds)
            if len(waits) == 3:
                holder.kill()
                holder.wait()

        with lock.held("pool:fast", timeout=10, folder=tmp_path, clock=lambda: sum(waits), sleep=let_go):
            assert len(waits) == 3


def test_it_is_not_waited_for_longer_than_asked(tmp_path: Path) -> None:
    with other_process("pool:fast", tmp_path):
        waits: list[float] = []
        with (
            pytest.raises(CowError, match="Another run"),
            lock.held("pool:fast", timeout=2, folder=tmp_path, clock=lambda: sum(waits), sleep=waits.append),
        ):
            pass
        assert 2 <= sum(waits) < 2.2


def test_it_is_free_again_after_an_error_in_the_block(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock.held("pool:fast", folder=tmp_path):
        raise RuntimeError
    take("pool:fast", tmp_path)


@pytest.mark.parametrize("resource", ["incus:/var/lib/incus/unix.socket", "../../etc/passwd", "a b\n", "-x"])
def test_its_file_stays_in_the_folder(tmp_path: Path, resource: str) -> None:
    folder = tmp_path / "locks" / "deep"
    take(resource, folder)
    (file,) = folder.iterdir()
    assert file.is_file()
    assert file.read_text() == f"{os.getpid()}\n"


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "pool.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(CowError, match="cannot be opened"):
        take("pool", tmp_path)
    assert not (tmp_path / "victim").exists()


IN_TURN = """\
import sys
from pathlib import Path
from ansible.module_utils.cow.lock import in_turn
for _ in range(int(sys.argv[3])):
    with in_turn("pool", shared=sys.argv[2] == "shared", folder=Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
"""


@contextmanager
def taking_turns(folder: Path, how: str, times: int = 1) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", IN_TURN, folder, how, str(times)],
        env={**os.environ, "PYTHONPATH": str(IMPORTABLE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def holds(process: subprocess.Popen[str]) -> bool:
    assert process.stdout
    return process.stdout.readline() == "held\n"


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def test_some_share_it_and_one_alone_waits_for_them_but_not_for_later_ones(tmp_path: Path) -> None:
    with taking_turns(tmp_path, "shared") as first, taking_turns(tmp_path, "shared") as second:
        assert holds(first)
        assert holds(second)
        with taking_turns(tmp_path, "alone") as alone:
            wait_until_it_is_someones_turn(tmp_path)
            with (
                pytest.raises(CowError, match=r"pool\.turn"),
                lock.in_turn("pool", shared=True, timeout=0, folder=tmp_path),
            ):
                pass
            let_go(first)
            let_go(second)
            assert holds(alone)
            with pytest.raises(CowError), lock.in_turn("pool", shared=True, timeout=0, folder=tmp_path):
                pass


def wait_until_it_is_someones_turn(folder: Path) -> None:
    """Return once another process has the second lock, for it waits for the first."""
    for _ in range(1000):
        try:
            take("pool.turn", folder)
        except CowError:
            return
        time.sleep(0.01)
    raise AssertionError("nobody waits")


def take(resource: str, folder: Path, member: str = "") -> None:
    with lock.held(resource, member=member, timeout=0, folder=folder):
        pass

"""Worker processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible.module_utils.cow.crew import Count, crew, meanwhile
from ansible.module_utils.cow.errors import CowError


@contextmanager
def halving(count: Count) -> Iterator[Callable[[int], tuple[int, int]]]:
    """Count each number, and report its half and who did it; refuse negative ones, and end at zero."""

    def halve(number: int) -> tuple[int, int]:
        if number < 0:
            raise CowError(f"{number} is negative.")
        if number == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        count(number)
        return number // 2, os.getpid()

    yield halve


@contextmanager
def refusing(_count: Count) -> Iterator[Callable[[int], int]]:
    raise CowError("It cannot be begun.")
    yield


def never(_report: object) -> tuple[int, ...]:
    return ()


def alive(process_id: int) -> bool:
    return Path("/proc", str(process_id)).exists()


def test_all_tasks_are_done_and_those_that_come_of_them() -> None:
    halves, workers, told = [], set(), []

    def received(report: tuple[int, int]) -> tuple[int, ...]:
        halves.append(report[0])
        workers.add(report[1])
        return (report[0],) if report[0] else ()

    with crew(halving, 2) as processes:
        processes.run([8, 8, 8], received, lambda: told.append(processes.counted))
        assert all(map(alive, workers))
    assert sorted(halves) == sorted([4, 2, 1, 0] * 3)
    assert processes.counted == told[-1] == 45
    assert told == sorted(told)
    assert os.getpid() not in workers
    assert not any(map(alive, workers))


def test_tasks_are_begun_in_their_order() -> None:
    halves: list[int] = []
    with crew(halving, 1) as processes:
        processes.run([20, 4, 60], lambda report: halves.append(report[0]) or ())
    assert halves == [10, 2, 30]


def test_what_a_worker_refuses_is_raised() -> None:
    with pytest.raises(CowError, match=r"^-3 is negative\.$"), crew(halving, 2) as processes:
        processes.run([4, -3, 6, 8, 10], never)


def test_work_that_cannot_be_begun_is_told_even_when_its_worker_had_no_task_yet() -> None:
    with crew(refusing, 2) as processes:
        time.sleep(0.2)
        with pytest.raises(CowError, match=r"^It cannot be begun\.$"):
            processes.run([1, 2, 3], never)


def test_a_worker_that_is_killed_at_work_is_told_in_a_sentence() -> None:
    with pytest.raises(CowError, match="was ended from outside; is the memory full"), crew(halving, 2) as processes:
        processes.run([4, 0, 6], never)


def test_a_worker_that_is_killed_while_it_waits_is_told_in_a_sentence() -> None:
    workers: list[int] = []
    with crew(halving, 1) as processes:
        processes.run([4], lambda report: workers.append(report[1]) or ())
        os.kill(workers[0], signal.SIGKILL)
        while Path("/proc", str(workers[0]), "stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        with pytest.raises(CowError, match="was ended from outside"):
            processes.run([4], never)


def test_meanwhile_something_is_computed_elsewhere() -> None:
    """What is returned may be more than a pipe holds, and nobody has to ask for it."""
    large = b"x" * (1 << 20)
    with meanwhile(lambda: (os.getpid(), large)) as computed:
        pass
    with meanwhile(lambda: (os.getpid(), large)) as computed:
        process_id, got = computed()
        assert alive(process_id)
    assert process_id != os.getpid()
    assert got == large
    assert not alive(process_id)


def test_what_refuses_meanwhile_is_raised_when_it_is_asked_for() -> None:
    def refuse() -> None:
        raise CowError("It cannot be.")

    with meanwhile(refuse) as computed, pytest.raises(CowError, match=r"^It cannot be\.$"):
        computed()


def test_workers_end_with_who_started_them(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "import tests.conftest\n"
        "from ansible.module_utils.cow.crew import crew\n"
        "from tests.unit.test_crew import halving\n"
        "with crew(halving, 2) as processes:\n"
        "    processes.run([5, 5, 5], lambda report: print(report[1], flush=True) or ())\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        workers = {int(line) for line in iter(process.stdout.readline, "waiting\n")}
        process.kill()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert workers

"""Worker processes that end with this one, for work on many files at which threads of Python would take turns."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, NoReturn, TypeVar, cast

from .errors import CowError
from .kernel import die_with_parent

_Task = TypeVar("_Task")
_Report = TypeVar("_Report")

Count = Callable[[int], None]
"""Told by a worker what it has done since it was last called, in whatever unit."""

Work = Callable[[Count], AbstractContextManager[Callable[[_Task], _Report]]]
"""Entered once in each worker, which has what this process had in memory; what it gives is called with each task."""

_COUNTER = struct.Struct("Q")


class Ended(CowError):
    """A worker ended before its work did."""


@dataclass(frozen=True)
class _Failure:
    words: str


@contextmanager
def crew(work: Work[_Task, _Report], size: int | None = None) -> Iterator[Crew[_Task, _Report]]:
    """Start workers; by default one for each processor. Tasks and reports are pickled.

    A CowError that the work raises is raised by `Crew.run`.
    """
    fork = multiprocessing.get_context("fork")
    size = size or os.cpu_count() or 1
    counters = mmap.mmap(-1, _COUNTER.size * size)
    processes, connections = [], []
    try:
        for number in range(size):
            ours, theirs = fork.Pipe()
            counter = memoryview(counters).cast("Q")[number : number + 1]
            process = fork.Process(target=_serve, args=(theirs, os.getpid(), work, counter), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        yield Crew(connections, counters)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for connection in connections:
            connection.close()


class Crew(Generic[_Task, _Report]):
    """Workers that wait for tasks."""

    def __init__(self, connections: list[Connection], counters: mmap.mmap) -> None:
        self._connections, self._counters = connections, counters

    @property
    def counted(self) -> int:
        """What all workers have counted so far."""
        return sum(number for (number,) in _COUNTER.iter_unpack(self._counters[:]))

    def run(
        self,
        tasks: Iterable[_Task],
        received: Callable[[_Report], Iterable[_Task]],
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """Have all tasks done, begun in their order.

        received: called with each report, in the order in which they come; returns further tasks, which are next.
        tell: called about twice a second, and at the end.
        """
        waiting = list(tasks)[::-1]
        idle, busy = list(self._connections), set[Connection]()
        while waiting or busy:
            while waiting and idle:
                connection = idle.pop()
                _send(connection, waiting.pop())
                busy.add(connection)
            for ready in wait(busy, timeout=0.5):
                connection = cast("Connection", ready)
                waiting += received(_received(connection))
                busy.remove(connection)
                idle.append(connection)
            tell()

    def begin(self, task: _Task) -> Callable[[], _Report]:
        """Have the first worker begin with a task, and return what waits for the report."""
        connection = self._connections[0]
        _send(connection, task)
        return lambda: cast("_Report", _received(connection))


@contextmanager
def meanwhile(compute: Callable[[], _Report]) -> Iterator[Callable[[], _Report]]:
    """Have something computed in a process of its own during the block, and give what waits for it.

    Where that process is ended from outside, it is computed by who waits.
    """
    with crew(lambda _: nullcontext(lambda _: compute()), 1) as alone:
        received = alone.begin(None)

        def wait_for_it() -> _Report:
            try:
                return received()
            except Ended:
                return compute()

        yield wait_for_it


def _send(connection: Connection, task: Any) -> None:
    try:
        connection.send(task)
    except BrokenPipeError as error:
        _refuse_end(error)


def _received(connection: Connection) -> Any:
    try:
        report = connection.recv()
    except (EOFError, ConnectionResetError) as error:
        _refuse_end(error)
    if isinstance(report, _Failure):
        raise CowError(report.words)
    return report


def _refuse_end(error: Exception) -> NoReturn:
    raise Ended("A process that worked on a part of the files was ended from outside; is the memory full?") from error


def _serve(connection: Connection, parent: int, work: Work[Any, Any], counter: memoryview) -> None:
    """Do tasks until there are no more."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends its workers

    def count(amount: int) -> None:
        counter[0] += amount

    with suppress(EOFError):
        try:
            with work(count) as do:
                while True:
                    connection.send(do(connection.recv()))
        except CowError as error:
            connection.send(_Failure(str(error)))
            # Whoever has a task for this worker next finds that in its answer.
            while True:
                connection.recv()

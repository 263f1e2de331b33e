"""Waiting for what comes about by itself, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def until(probe: Callable[[], Value], *, within: float = 30.0, every: float = 0.1) -> Value:
    """Return the first true value that `probe` gives; AssertionError when there is none in `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := probe()):
        assert time.monotonic() < deadline, f"nothing after {within:g} s"
        time.sleep(every)
    return value

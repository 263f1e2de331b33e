"""records: its dataclasses are like those of `dataclasses`, whose functions take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.cow import records
from ansible.module_utils.cow.golden.model import Session


def classes(made_by: ModuleType) -> SimpleNamespace:
    """The same classes, made by one module or the other."""

    @made_by.dataclass(frozen=True, order=True)
    class Size:
        """A value with an order."""

        bytes: int

        def __str__(self) -> str:
            return f"{self.bytes}B"

    @made_by.dataclass(frozen=True)
    class Base:
        """Of each kind of field one."""

        location: str
        name: str = "copy"
        tools: list[str] = made_by.field(default_factory=list)

        def upper(self) -> str:
            return self.name.upper()

    @made_by.dataclass(frozen=True)
    class Derived(Base):
        """Another default, and one field more."""

        name: str = "btrfs"
        size: Size = Size(3)

    return SimpleNamespace(Size=Size, Base=Base, Derived=Derived, replace=made_by.replace, std=dataclasses)


def outcome(work: Callable[[SimpleNamespace], Any], made_by: ModuleType) -> Any:
    try:
        return work(classes(made_by))
    except (TypeError, AttributeError) as error:
        return type(error)


def match_positions(m: SimpleNamespace) -> Any:
    match m.Derived("a", "b", ["c"], m.Size(1)):
        case m.Derived(location, name, tools, size):
            return location, name, tools, str(size)
    return None


BEHAVIOURS: dict[str, Callable[[SimpleNamespace], Any]] = {
    "shown": lambda m: repr(m.Derived("a", tools=["t"])).replace("classes.<locals>.", ""),
    "shown in its own way": lambda m: str(m.Size(3)),
    "by position": lambda m: vars(m.Base("a", "b", ["c"])),
    "by name": lambda m: vars(m.Base(tools=["c"], location="a")),
    "defaults": lambda m: repr(vars(m.Derived("a"))).replace("classes.<locals>.", ""),
    "a factory makes a new one each time": lambda m: m.Base("a").tools is m.Base("a").tools,
    "attributes of the class": lambda m: (m.Base.name, m.Derived.name, hasattr(m.Base, "tools")),
    "methods": lambda m: m.Derived("a").upper(),
    "documentation": lambda m: m.Base.__doc__,
    "positions to match": lambda m: (m.Base.__match_args__, m.Derived.__match_args__),
    "a match": match_positions,
    "one missing": lambda m: m.Base(),
    "too many": lambda m: m.Size(1, 2),
    "twice": lambda m: m.Size(1, bytes=2),
    "unknown": lambda m: m.Size(1, bits=2),
    "equal": lambda m: m.Base("a") == m.Base("a"),
    "not equal": lambda m: m.Base("a") == m.Base("b"),
    "equal to one of another class": lambda m: m.Base("a", "b") == m.Derived("a", "b"),
    "equal to something else": lambda m: m.Size(1) == 1,
    "in a set": lambda m: len({m.Size(1), m.Size(1), m.Size(2)}),
    "hashed with a list in it": lambda m: hash(m.Base("a")),
    "sorted": lambda m: [str(size) for size in sorted([m.Size(2), m.Size(1)])],
    "compared": lambda m: (
        m.Size(1) < m.Size(1),
        m.Size(1) <= m.Size(1),
        m.Size(2) > m.Size(1),
        m.Size(2) >= m.Size(3),
    ),
    "compared with something else": lambda m: m.Size(1) < 2,
    "compared without an order": lambda m: m.Base("a") < m.Base("b"),
    "set": lambda m: setattr(m.Size(1), "bytes", 2),
    "deleted": lambda m: delattr(m.Size(1), "bytes"),
    "replaced": lambda m: vars(m.replace(m.Base("a", tools=["t"]), name="c")),
    "replaced by an unknown one": lambda m: m.replace(m.Size(1), bits=2),
    "replaced by dataclasses": lambda m: vars(m.std.replace(m.Base("a", tools=["t"]), name="c")),
    "as a dictionary": lambda m: m.std.asdict(m.Derived("a")),
    "its fields": lambda m: [field.name for field in m.std.fields(m.Derived)],
    "their defaults": lambda m: [field.default for field in m.std.fields(m.Base)][:2] == [m.std.MISSING, "copy"],
    "a dataclass": lambda m: (m.std.is_dataclass(m.Size), m.std.is_dataclass(m.Size(1))),
}


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_as_the_standard_ones(behaviour: str) -> None:
    work = BEHAVIOURS[behaviour]
    assert outcome(work, records) == outcome(work, dataclasses)


def test_the_frozen_error_is_the_standard_one() -> None:
    session: Any = Session("s", 1, "complete", "/s")
    with pytest.raises(dataclasses.FrozenInstanceError, match="name"):
        session.name = "t"
    assert session.name == "s"


def test_only_frozen_ones_are_made() -> None:
    with pytest.raises(TypeError, match="frozen"):
        records.dataclass(frozen=False)(type("Open", (), {}))

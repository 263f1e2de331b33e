"""Frozen dataclasses of the modules that `cow-session` loads for a clone, which is to take milliseconds.

`dataclass`, `field` and `replace` mean what they mean in `dataclasses`, as far as these modules use them: that module,
and the code that it compiles for each class, took a third of the time of a clone. Type checkers see the standard ones,
and the functions of `dataclasses` take these classes for their own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import Any
else:

    def dataclass(cls: type | None = None, *, frozen: bool, order: bool = False) -> Any:
        """Give a class what its annotations say; `frozen` has to be true."""
        if cls is None:
            return lambda cls: dataclass(cls, frozen=frozen, order=order)
        if not frozen:
            raise TypeError("only frozen dataclasses can be made here")
        declared: dict[str, Any] = {}
        for base in cls.__mro__[:0:-1]:
            declared.update(base.__dict__.get("_declared", {}))
        for name in cls.__annotations__:
            declared[name] = cls.__dict__.get(name, _REQUIRED)
            if isinstance(declared[name], _Made):
                delattr(cls, name)
        cls._declared = declared
        cls.__match_args__ = tuple(declared)
        methods = {**_METHODS, **(_ORDER if order else {})}
        for name in methods.keys() - cls.__dict__.keys():
            setattr(cls, name, methods[name])
        return cls

    def field(*, default_factory: Callable[[], Any]) -> Any:
        """Have a default made anew for each instance."""
        return _Made(default_factory)

    def replace(instance: Any, /, **changes: Any) -> Any:
        """Return a copy with some fields changed."""
        return type(instance)(**{**instance.__dict__, **changes})


_REQUIRED = object()


class _Made:
    """A default that is made when it is needed."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self.make = make


class _Fields:
    """`__dataclass_fields__`, by which `dataclasses` knows its own, made when somebody asks for them."""

    def __get__(self, instance: object, owner: Any) -> dict[str, Any]:
        import dataclasses  # noqa: PLC0415

        given = {name: value for name, value in owner._declared.items() if value is not _REQUIRED}  # noqa: SLF001
        made = {name: dataclasses.field(default_factory=v.make) for name, v in given.items() if isinstance(v, _Made)}
        twin = type(owner.__name__, (), {"__annotations__": dict.fromkeys(owner._declared, "Any"), **given, **made})  # noqa: SLF001
        fields: dict[str, Any] = dataclasses.dataclass(twin).__dataclass_fields__  # type: ignore[attr-defined]
        return fields


def _init(self: Any, /, *given: object, **named: object) -> None:
    declared = self._declared
    values = dict(zip(declared, given, strict=False))
    if len(given) > len(declared) or (wrong := [name for name in named if name in values or name not in declared]):
        what = ", ".join(wrong) if len(given) <= len(declared) else f"{len(given)} values"
        raise TypeError(f"{type(self).__name__} was given {what}, and has the fields {', '.join(declared)}")
    values.update(named)
    for name, default in declared.items():
        if name not in values:
            if default is _REQUIRED:
                raise TypeError(f"{type(self).__name__} was not given {name}")
            values[name] = default.make() if isinstance(default, _Made) else default
    self.__dict__.update(values)


def _values(instance: Any) -> tuple[Any, ...]:
    return tuple(instance.__dict__[name] for name in instance._declared)  # noqa: SLF001


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{key}={self.__dict__[key]!r}' for key in self._declared)})"


def _eq(self: object, other: object) -> bool:
    return _values(self) == _values(other) if type(self) is type(other) else NotImplemented


def _compared(compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    return lambda one, other: compare(_values(one), _values(other)) if type(one) is type(other) else NotImplemented


def _hash(self: object) -> int:
    return hash(_values(self))


def _frozen(self: object, name: str, *_: object) -> None:
    from dataclasses import FrozenInstanceError  # noqa: PLC0415

    raise FrozenInstanceError(f"cannot change the field {name!r} of {type(self).__name__}")


_METHODS = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _frozen,
    "__delattr__": _frozen,
    "__dataclass_fields__": _Fields(),
}
_ORDER = {f"__{name}__": _compared(getattr(operator, name)) for name in ("lt", "le", "gt", "ge")}
__all__ = ["dataclass", "field", "replace"]

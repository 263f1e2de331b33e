"""What can be set of a resource: its description and its configuration, which is text by key.

Incus keeps no empty values: a key that is not set and one that is empty are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..errors import CowError
from ..plan import Step
from .client import Server

Settings = Mapping[str, str]
"""Configuration by key, and the description under the key "description"."""

DESCRIPTION = "description"


def as_text(options: Mapping[str, Any], what: str) -> dict[str, str]:
    """Give options in the form that Incus keeps them: booleans as true and false, nothing as "".

    Raises CowError for one that is a list or a dictionary; `what` is to have them, in words.
    """
    return {key: _as_text(value, f"{key} of {what}") for key, value in options.items()}


def together(config: Settings, description: str | None) -> dict[str, str]:
    """Join a configuration and a description; one that is None is left out."""
    return {**config, **({} if description is None else {DESCRIPTION: description})}


def merged(found: Settings, wanted: Settings) -> dict[str, str]:
    """Give the settings as they are once the wanted ones are made; what is there besides stays."""
    return {key: value for key, value in {**found, **wanted}.items() if value}


def differing(found: Settings, wanted: Settings) -> dict[str, str]:
    """Give those of the wanted settings that are not as they are wanted."""
    return {key: value for key, value in wanted.items() if found.get(key, "") != value}


def step(
    server: Server,
    path: tuple[str, str],
    title: str,
    found: Settings,
    wanted: Settings,
    *,
    check: Callable[[Settings, Settings], None] = lambda _before, _after: None,
) -> Step:
    """Set these of a resource: a collection and a name in it.

    check: raises CowError when the settings right before and right after the change say that it must not be made.
    """
    return Step(
        title=title,
        run=partial(_set, server, path, wanted, check),
        before={key: found.get(key) for key in wanted},
        after=wanted,
    )


def _set(server: Server, path: tuple[str, str], wanted: Settings, check: Callable[[Settings, Settings], None]) -> None:
    # A PUT replaces the whole configuration: what is not sent is unset.
    found = server.find(*path)
    if found is None:
        raise CowError(f"{path[1]} was removed by somebody while it was being changed. Run again.")
    before = together(found.body["config"], found.body[DESCRIPTION])
    after = merged(before, wanted)
    check(before, after)
    config = {key: value for key, value in after.items() if key != DESCRIPTION}
    server.put(*path, body={"config": config, DESCRIPTION: after.get(DESCRIPTION, "")}, etag=found.etag)


def _as_text(value: Any, what: str) -> str:
    if isinstance(value, Mapping | list):
        raise CowError(f"The value of {what} is {value!r}, wanted is a text, a number or a boolean.")
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)

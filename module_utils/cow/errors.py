"""The errors an operator can do something about."""

from __future__ import annotations


class CowError(Exception):
    """Something found on the host, or asked for, that stops the work.

    The text is one sentence or two for the operator: what was found, what was wanted, and the command or variable that
    resolves it. `converge()` reports it through `fail_json`; it never surfaces as a traceback.
    """


class Drift(CowError):
    """What exists cannot be turned into what is wanted without losing something."""


class NotYetKnown(CowError):
    """What is to be done can only be told in the run itself. In check mode that is a warning and not a failure."""


class Busy(CowError):
    """Another run holds what is needed, for longer than was to be waited."""

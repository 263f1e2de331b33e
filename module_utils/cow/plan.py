"""The control loop that every module shares: observe, plan, apply.

A module reads the host once (`observe`), derives an ordered list of steps from what it found and what is wanted
(`plan`, a pure function), and `converge` runs the steps. `changed`, `diff` and `steps` are derived from the plan alone,
so check mode reports what a run does. This is the only code that knows about check mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .errors import CowError, NotYetKnown

State = Mapping[str, Any]
Observed = TypeVar("Observed")


@dataclass(frozen=True)
class Step:
    """One change to the host.

    title: imperative and specific ("create storage pool fast: btrfs, loop file of 50GiB"); two steps that differ in
        what they do differ in their title.
    run: does it. Not part of the step's identity.
    before, after: what the step changes, as key to value, for the diff. None stands for "is not there".
    destroys: what is deleted or overwritten and cannot be made again; "" when nothing is.
    permit: the module option that allows `destroys`.
    """

    title: str
    run: Callable[[], None] = field(compare=False, repr=False)
    before: State | None = None
    after: State | None = None
    destroys: str = ""
    permit: str = ""


@dataclass(frozen=True)
class Plan:
    """Ordered steps, and what the operator should know besides.

    warnings: shown by Ansible as warnings, in check mode too.
    facts: return values that planning decided, such as the driver in effect and why.
    """

    steps: tuple[Step, ...] = ()
    warnings: tuple[str, ...] = ()
    facts: State = field(default_factory=dict)

    @classmethod
    def of(cls, *steps: Step) -> Plan:
        """A plan of these steps and nothing else to say."""
        return cls(steps=steps)

    def __add__(self, other: Plan) -> Plan:
        """This plan, then the other one."""
        return Plan(self.steps + other.steps, self.warnings + other.warnings, {**self.facts, **other.facts})

    @property
    def titles(self) -> list[str]:
        """The steps in words, in order."""
        return [step.title for step in self.steps]

    def diff(self) -> list[dict[str, str]]:
        """One entry in Ansible's before/after form for each step."""
        return [
            {
                "before_header": step.title,
                "after_header": step.title,
                "before": _as_text(step.before),
                "after": _as_text(step.after),
            }
            for step in self.steps
        ]


class Module(Protocol):
    """What `converge` uses of AnsibleModule."""

    params: dict[str, Any]
    check_mode: bool

    def warn(self, warning: str) -> None:
        """Show a warning."""

    def exit_json(self, **result: Any) -> Any:
        """End with a result."""

    def fail_json(self, msg: str, **result: Any) -> Any:
        """End with a failure."""


def converge(
    module: Module,
    observe: Callable[[], Observed],
    plan: Callable[[Observed], Plan],
    describe: Callable[[Observed], State] = lambda _: {},
    observe_result: Callable[[], Observed] | None = None,
) -> None:
    """Observe, plan, apply unless in check mode, and end the module with what is then there.

    observe: reads the host, never writes. Called once more after a change, for the return values, unless
        `observe_result` is given.
    plan: pure; raises CowError when what is wanted cannot be had. NotYetKnown from either of both ends check mode with
        a warning and no steps.
    describe: return values from what was observed. In check mode that is the host as it is, without the steps.
    observe_result: reads after a change what `describe` needs, where that is much less than all; default: `observe`.
    """
    done: list[str] = []
    try:
        with _system_errors_in_words():
            found = observe()
            planned = plan(found)
            _refuse_loss(planned, module.params)
            for warning in planned.warnings:
                module.warn(warning)
            if planned.steps and not module.check_mode:
                _apply(planned, done)
                found = (observe_result or observe)()
            described = describe(found)
    except CowError as error:
        if module.check_mode and isinstance(error, NotYetKnown):
            module.warn(str(error))
            module.exit_json(changed=False, diff=[], steps=[])
        else:
            module.fail_json(msg=_with_progress(str(error), done), changed=bool(done), steps=done)
        return
    module.exit_json(
        changed=bool(planned.steps),
        diff=planned.diff(),
        steps=planned.titles,
        **{**described, **planned.facts},
    )


@contextlib.contextmanager
def explained(module: Module) -> Iterator[None]:
    """End the module with the sentence of a CowError, or of what the system refused, that leaves the block."""
    try:
        with _system_errors_in_words():
            yield
    except CowError as error:
        module.fail_json(msg=str(error))


def report(module: Module, read: Callable[[], State], in_check_mode: Callable[[], State] | None = None) -> None:
    """End a module that leaves the host as it is with what it read.

    in_check_mode: gives the result where reading would do something for a while that check mode must not do.
    """
    with explained(module):
        found = in_check_mode() if in_check_mode and module.check_mode else read()
        module.exit_json(changed=False, **found)


@contextlib.contextmanager
def _system_errors_in_words() -> Iterator[None]:
    """Turn what the system refused (no space left, no permission) into a CowError; without its words it is a bug."""
    try:
        yield
    except OSError as error:
        if not error.strerror:
            raise
        refusal = f"did not let {error.filename} be used" if error.filename else "refused"
        raise CowError(f"The system {refusal}: {error.strerror}.") from error


def _apply(planned: Plan, done: list[str]) -> None:
    for step in planned.steps:
        step.run()
        done.append(step.title)


def _refuse_loss(planned: Plan, params: State) -> None:
    for step in planned.steps:
        if step.destroys and not (step.permit and params.get(step.permit)):
            way_out = f" Set {step.permit} to allow it." if step.permit else ""
            raise CowError(f"To {step.title} would destroy {step.destroys}, and that was not allowed.{way_out}")


def _with_progress(message: str, done: Sequence[str]) -> str:
    return f"{message} Done before that: {'; '.join(done)}." if done else message


def _as_text(state: State | None) -> str:
    if state is None:
        return ""
    return "".join(f"{key}: {_value_text(value)}\n" for key, value in sorted(state.items()))


def _value_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(f"\n  {key}: {inner}" for key, inner in sorted(value.items())) or "{}"
    return "" if value is None else str(value)

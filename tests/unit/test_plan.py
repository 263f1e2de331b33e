from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError, NotYetKnown
from ansible.module_utils.cow.plan import Plan, Step, converge, explained, report
from hypothesis import given
from hypothesis import strategies as st


@dataclass
class Recorder:
    """A module that keeps what it is told."""

    params: dict[str, Any] = field(default_factory=dict)
    check_mode: bool = False
    warnings: list[str] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def exit_json(self, **result: Any) -> None:
        self.result = result

    def fail_json(self, msg: str, **result: Any) -> None:
        self.result = {"failed": True, "msg": msg, **result}


World = dict[str, int]


def setting(world: World, key: str, value: int) -> Step:
    return Step(
        title=f"set {key} to {value}",
        run=lambda: world.update({key: value}),
        before={key: world.get(key)},
        after={key: value},
    )


def towards(wanted: World, world: World) -> Callable[[World], Plan]:
    return lambda found: Plan.of(
        *(setting(world, key, value) for key, value in wanted.items() if found.get(key) != value)
    )


def fail() -> None:
    raise CowError("The disk is full.")


worlds = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3))


@given(worlds, worlds)
def test_check_mode_says_what_the_run_does_and_the_second_run_does_nothing(world: World, wanted: World) -> None:
    before = dict(world)
    check, run, again = Recorder(check_mode=True), Recorder(), Recorder()
    converge(check, lambda: dict(world), towards(wanted, world))
    assert world == before
    converge(run, lambda: dict(world), towards(wanted, world))
    assert world == {**before, **wanted}
    converge(again, lambda: dict(world), towards(wanted, world))
    assert check.result == run.result
    assert run.result["changed"] == bool(run.result["steps"]) == (world != before)
    assert len(run.result["diff"]) == len(run.result["steps"])
    assert again.result == {"changed": False, "diff": [], "steps": []}


@pytest.mark.parametrize("check_mode", [True, False])
def test_described_is_what_is_there_at_the_end(check_mode: bool) -> None:
    world: World = {"a": 1}
    module = Recorder(check_mode=check_mode)
    converge(module, lambda: dict(world), towards({"a": 2}, world), describe=lambda found: {"world": found})
    assert module.result["world"] == {"a": 1 if check_mode else 2}


@pytest.mark.parametrize(("check_mode", "looks"), [(True, ["all"]), (False, ["all", "result"])])
def test_after_a_change_only_what_is_described_is_looked_at_again(check_mode: bool, looks: list[str]) -> None:
    world: World = {"a": 1}
    looked: list[str] = []

    def look(what: str) -> World:
        looked.append(what)
        return dict(world)

    module = Recorder(check_mode=check_mode)
    converge(
        module,
        lambda: look("all"),
        towards({"a": 2}, world),
        describe=lambda found: {"world": found},
        observe_result=lambda: look("result"),
    )
    assert looked == looks
    assert module.result["world"] == {"a": 1 if check_mode else 2}


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize(
    ("params", "permit", "said"),
    [
        ({"force": True}, "force", None),
        ({"force": False}, "force", "would destroy the data of fast, and that was not allowed. Set force to allow it."),
        ({}, "force", "Set force to allow it."),
        ({"force": True}, "", "would destroy the data of fast, and that was not allowed."),
    ],
)
def test_loss_needs_permission_before_anything_runs(
    check_mode: bool, params: dict[str, Any], permit: str, said: str | None
) -> None:
    ran: list[str] = []
    harmless = Step("look", run=lambda: ran.append("look"))
    loss = Step("wipe fast", run=lambda: ran.append("wipe"), destroys="the data of fast", permit=permit)
    module = Recorder(params=params, check_mode=check_mode)
    converge(module, lambda: None, lambda _: Plan.of(harmless, loss))
    if said is None:
        assert module.result["changed"]
        assert ran == ([] if check_mode else ["look", "wipe"])
    else:
        assert said in module.result["msg"]
        assert module.result["changed"] is False
        assert ran == []


def test_failure_in_the_middle_says_what_was_done() -> None:
    world: World = {}
    module = Recorder()
    steps = (setting(world, "a", 1), setting(world, "b", 2), Step("fill", run=fail), setting(world, "c", 3))
    converge(module, lambda: None, lambda _: Plan.of(*steps))
    assert module.result == {
        "failed": True,
        "msg": "The disk is full. Done before that: set a to 1; set b to 2.",
        "changed": True,
        "steps": ["set a to 1", "set b to 2"],
    }
    assert world == {"a": 1, "b": 2}


@pytest.mark.parametrize("check_mode", [True, False])
def test_failure_before_the_first_step_changes_nothing(check_mode: bool) -> None:
    for observe, plan in ((fail, lambda _: Plan()), (lambda: None, lambda _: fail())):
        module = Recorder(check_mode=check_mode)
        converge(module, observe, plan)
        assert module.result == {"failed": True, "msg": "The disk is full.", "changed": False, "steps": []}


def test_warnings_and_facts_of_a_plan_are_given_in_check_mode_too() -> None:
    planned = Plan(warnings=("one",), facts={"driver": "btrfs"}) + Plan(warnings=("two",), facts={"why": "asked for"})
    for module in (Recorder(), Recorder(check_mode=True)):
        converge(module, lambda: None, lambda _: planned)
        assert module.warnings == ["one", "two"]
        assert (module.result["driver"], module.result["why"]) == ("btrfs", "asked for")


def test_plans_add_up_in_order() -> None:
    one, two = (Plan.of(setting({}, key, 1)) for key in "ab")
    assert (one + two).titles == ["set a to 1", "set b to 1"]
    assert one + Plan() == one == Plan() + one


def test_steps_are_compared_by_what_they_say() -> None:
    assert Step("go", run=fail) == Step("go", run=lambda: None)
    assert Step("go", run=fail) != Step("go", run=fail, after={"a": 1})


def test_diff_can_be_read() -> None:
    step = Step(
        "set size of fast",
        run=fail,
        before=None,
        after={"size": "50GiB", "config": {"b": 2, "a": 1}, "note": None, "empty": {}},
    )
    assert Plan.of(step).diff() == [
        {
            "before_header": "set size of fast",
            "after_header": "set size of fast",
            "before": "",
            "after": "config: \n  a: 1\n  b: 2\nempty: {}\nnote: \nsize: 50GiB\n",
        }
    ]


def test_report_reads_and_changes_nothing() -> None:
    module = Recorder()
    report(module, lambda: {"pools": []})
    assert module.result == {"changed": False, "pools": []}


def test_bad_input_ends_in_its_sentence() -> None:
    for run in (lambda module: report(module, fail), refuse):
        module = Recorder()
        run(module)
        assert module.result == {"failed": True, "msg": "The disk is full."}


def refuse(module: Recorder) -> None:
    with explained(module):
        fail()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device", "/srv/x"),
            "The system did not let /srv/x be used: No space left on device.",
        ),
        (OSError(28, "No space left on device"), "The system refused: No space left on device."),
    ],
)
def test_what_the_system_refuses_is_said_in_words(error: OSError, said: str) -> None:
    def refuse() -> None:
        raise error

    in_plan, in_block = Recorder(), Recorder()
    converge(in_plan, lambda: None, lambda _: Plan.of(Step("look", run=lambda: None), Step("write", run=refuse)))
    assert in_plan.result["msg"] == f"{said} Done before that: look."
    with explained(in_block):
        refuse()
    assert in_block.result["msg"] == said


def test_an_error_without_words_is_a_bug() -> None:
    with pytest.raises(OSError, match="odd"), explained(Recorder()):
        raise OSError("odd")


def test_what_only_the_run_can_know_is_a_warning_in_check_mode() -> None:
    def observe() -> None:
        raise NotYetKnown("The daemon is down.")

    check, run = Recorder(check_mode=True), Recorder()
    for module in (check, run):
        converge(module, observe, lambda _: Plan())
    assert (check.result, check.warnings) == ({"changed": False, "diff": [], "steps": []}, ["The daemon is down."])
    assert run.result["msg"] == "The daemon is down."

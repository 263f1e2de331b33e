"""The plans and results of migrations as tables, the lines about progress, and what the playbooks promise."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from cowherd import progress

ROOT = Path(__file__).parents[2]


def load(path: str) -> ModuleType:
    """A plugin, which Ansible loads by its path."""
    spec = importlib.util.spec_from_file_location(f"plugin_{Path(path).stem}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables = load("roles/pool_migration/filter_plugins/pool_migration.py")
action = load("action_plugins/incus_instance_pool.py")

GIB = 2**30


def instance(name: str, **changes: Any) -> dict[str, Any]:
    """An instance as incus_instance_info returns it."""
    return {
        "name": name,
        "project": "default",
        "type": "container",
        "status": "Running",
        "uuid": f"uuid-of-{name}",
        "pool": "slow",
        "protected": False,
        "move": None,
        "snapshots": [],
        "size_bytes": GIB,
        "needed_bytes": GIB,
        "expected_downtime_seconds": 1.2,
        "not_carried": ["the date of creation"],
        "refused": [],
        "fingerprint": None,
        **changes,
    }


def moved(name: str, **changes: Any) -> dict[str, Any]:
    """A move as incus_instance_info returns it."""
    return {
        "name": name,
        "project": "default",
        "uuid": f"uuid-of-{name}",
        "phase": "moved",
        "from_pool": "slow",
        "to_pool": "fast",
        "kept": f"kept-of-{name}-1",
        "aside": [f"kept-of-{name}-1"],
        "began": "2026-01-10T09:00:00Z",
        "ended": "2026-01-10T10:00:00Z",
        "downtime_seconds": 1.4,
        "verify_seconds": 0.3,
        "total_seconds": 24.1,
        "bytes": GIB,
        "digest": "6bd3c1f7c5b6f0b1a8d1",
        "snapshot_digests": {},
        **changes,
    }


def seen(*instances: dict[str, Any], moves: tuple[dict[str, Any], ...] = (), free: int = 10 * GIB) -> dict[str, Any]:
    """What incus_instance_info returns."""
    needed = sum(one["needed_bytes"] for one in instances if not one["refused"])
    space = {"free_bytes": free, "host_free_bytes": None, "needed_bytes": needed}
    return {"instances": list(instances), "moves": list(moves), "foreign": [], "space": space}


def plan(found: dict[str, Any], **options: Any) -> dict[str, Any]:
    planned: dict[str, Any] = tables.plan(found, "fast", "slow", **options)
    return planned


def work(planned: dict[str, Any]) -> list[str]:
    return [one["name"] for one in planned["work"]]


def says(planned: dict[str, Any]) -> dict[str, str]:
    return {one["instance"]: one["says"] for one in planned["records"]}


MARY = instance("mary", protected=True, refused=["mary is protected."])
MACHINE = instance("vm", refused=["vm is a virtual machine. Only containers are moved."])


def test_the_smallest_moves_first() -> None:
    assert work(plan(seen(instance("large", size_bytes=9 * GIB), instance("small"), MARY))) == ["small", "large"]


def test_what_is_protected_stays_and_stops_nothing() -> None:
    planned = plan(seen(instance("c1"), MARY))
    assert (work(planned), planned["refused"], planned["protected"]) == (["c1"], [], ["mary"])
    assert says(planned) == {"c1": "moves", "mary": "stays, as it is protected"}


def test_the_plan_is_a_table() -> None:
    snapshots = [{"name": "s", "size_bytes": GIB}, {"name": "t", "size_bytes": GIB}]
    planned = plan(seen(instance("c1", snapshots=snapshots), MARY))
    assert planned["title"] == "1 of 2 instances would move from pool slow to fast"
    assert planned["rows"][0] == ["c1", "Running", "1 GiB", "2, 2 GiB", "1.2 s", "moves", "the date of creation"]
    title, head, *lines = planned["lines"]
    assert title == f"{planned['title']}."
    assert head.startswith("Instance  State    Size   Snapshots  Down about  What happens")
    assert [line.index("Running") for line in lines] == [head.index("State")] * 2
    assert [len(row) for row in planned["rows"]] == [len(planned["columns"])] * 2


def test_what_cannot_move_stops_the_others_unless_they_are_to_go_alone() -> None:
    stopped = plan(seen(instance("c1"), MACHINE))
    assert stopped["refused"] == [MACHINE["refused"][0], tables.ASK_HOW]
    assert plan(seen(instance("c1"), MACHINE), skip_refused=True)["refused"] == []
    assert says(stopped)["vm"].startswith("refused: vm is a virtual machine")


def test_what_is_named_has_to_move() -> None:
    assert plan(seen(instance("c1")), names=["c1"])["refused"] == []
    assert plan(seen(MARY), names=["mary"])["refused"] == ["mary stays, as it is protected"]
    assert plan(seen(MACHINE), names=["vm"], skip_refused=True)["refused"] != []


def test_kept_sources_are_no_work_and_no_fault() -> None:
    kept = instance("kept-of-c1-1", refused=["kept-of-c1-1 is a kept source."], needed_bytes=0)
    planned = plan(seen(kept, moves=(moved("c1"),)))
    assert (work(planned), planned["refused"]) == ([], [])
    assert says(planned) == {"kept-of-c1-1": "stays: set aside by a move of c1"}


def test_an_instance_of_the_same_name_in_another_project_is_another_one() -> None:
    kept = instance("kept-of-c1-1", project="shop", refused=["It looks like what a move has left."])
    planned = plan(seen(kept, moves=(moved("c1"),)))
    assert says(planned)["shop/kept-of-c1-1"].startswith("refused")


@pytest.mark.parametrize("phase", ["copying", "filling", "stopping", "verified", "starting"])
def test_an_interrupted_move_goes_on_first(phase: str) -> None:
    found = seen(instance("a"), instance("c1"), moves=(moved("c1", phase=phase),))
    planned = plan(found)
    assert work(planned) == ["c1", "a"]
    assert phase in says(planned)["c1"]


def test_an_interrupted_move_goes_on_while_its_instance_has_another_name() -> None:
    found = seen(instance("a"), moves=(moved("c1", phase="verified"),))
    assert work(plan(found)) == ["c1", "a"]
    assert work(plan(found, names=["a"])) == ["a"]


def test_an_interrupted_move_to_another_pool_stops_the_run() -> None:
    planned = plan(seen(instance("c1"), moves=(moved("c1", phase="copying", to_pool="other"),)))
    assert work(planned) == []
    assert "Finish or undo that first." in planned["refused"][0]


@pytest.mark.parametrize(("free", "host"), [(GIB, None), (10 * GIB, GIB)])
def test_what_does_not_fit_together_is_refused(free: int, host: int | None) -> None:
    found = seen(instance("c1"), instance("c2"), free=free)
    found["space"]["host_free_bytes"] = host
    (refused,) = plan(found)["refused"]
    assert "need up to 2 GiB, with 1 GiB free for pool fast." in refused


def test_the_result_says_what_came_of_each() -> None:
    results = [
        {"item": {"name": "c1", "project": "default"}, "changed": True, "move": moved("c1")},
        {"item": {"name": "c2", "project": "shop"}, "failed": True, "msg": "It did not stop.", "changed": False},
    ]
    said = tables.result(results)
    kept = "moved; the source is kept as kept-of-c1-1 on pool slow"
    assert said["rows"][0] == ["c1", "1.4 s", "0.3 s", "24.1 s", "1 GiB", "6bd3c1f7c5b6", kept]
    assert said["rows"][1] == ["shop/c2", "", "", "", "", "", "failed: It did not stop."]
    assert said["records"][0]["digest"] == "6bd3c1f7c5b6f0b1a8d1"


def test_the_result_of_a_rollback_says_what_is_kept() -> None:
    move = moved("c1", phase="rolled_back", kept="", aside=["undone-of-c1-1"])
    said = tables.result([{"item": {"name": "c1", "project": "default"}, "changed": True, "move": move}])
    assert said["rows"] == [
        ["c1", "", "", "", "", "", "back on pool slow; what ran meanwhile is kept as undone-of-c1-1"]
    ]


def test_no_loop_has_no_result() -> None:
    assert tables.result([{"skipped": True}])["rows"] == []


def test_a_rollback_undoes_what_can_be_undone() -> None:
    moves = (
        moved("c1"),
        moved("c2", phase="rolled_back"),
        moved("c3", kept="", aside=[]),
        moved("c4", phase="stopping", kept="", aside=[], ended=""),
    )
    planned = tables.rollback(seen(moves=moves))
    assert work(planned) == ["c1", "c4"]
    assert planned["ways"] == [{"to_pool": "fast", "from_pool": "slow"}]
    assert says(planned)["c3"] == "cannot: its source was removed"


def test_a_rollback_of_some_leaves_the_profiles() -> None:
    planned = tables.rollback(seen(moves=(moved("c1"), moved("c2"))), names=["c2"])
    assert (work(planned), planned["ways"], planned["refused"]) == (["c2"], [], [])


def test_a_name_without_a_move_is_refused() -> None:
    for made in (tables.rollback(seen(moves=(moved("c1"),)), names=["c9"]), tables.cleanup(seen(), 1, names=["c9"])):
        assert "There is no move of c9" in made["refused"][0]


@pytest.mark.parametrize(("hours", "removed"), [(23.9, []), (24.1, ["c1"])])
def test_a_cleanup_waits_for_the_retention(hours: float, removed: list[str]) -> None:
    ended = 1_768_039_200  # 2026-01-10T10:00:00Z
    planned = tables.cleanup(seen(moves=(moved("c1"),)), 24, now=ended + hours * 3600)
    assert work(planned) == removed
    if not removed:
        assert says(planned)["c1"] == "stays for 0.1 hours more (pool_migration_retention)"


def test_a_cleanup_leaves_what_is_not_finished() -> None:
    planned = tables.cleanup(seen(moves=(moved("c1", phase="starting", ended=""),)), 0, now=2e9)
    assert work(planned) == []


PRINT = {"configuration": "c", "power": "p", "tree": "t"}


def printed(name: str, status: str = "Stopped", **changes: str) -> dict[str, Any]:
    return instance(name, status=status, fingerprint={**PRINT, **changes})


@pytest.mark.parametrize(
    ("after", "touched", "said"),
    [
        ([printed("mary")], [], []),
        ([], ["mary is gone."], []),
        ([printed("mary", configuration="x")], ["The configuration or the snapshots of mary were changed."], []),
        ([printed("mary", power="x")], ["mary was started, stopped or restarted."], []),
        ([printed("mary", tree="x")], ["The files of mary were changed."], []),
    ],
)
def test_protected_instances_are_compared(after: list[Any], touched: list[str], said: list[str]) -> None:
    assert tables.touched([printed("mary")], after) == {"touched": touched, "said": said}


def test_a_running_instance_writes_its_own_files() -> None:
    compared = tables.touched([printed("mary", "Running")], [printed("mary", "Running", tree="x")])
    assert compared == {"touched": [], "said": ["The files of mary were changed, as it runs."]}


def test_only_a_pinned_instance_may_have_another_configuration() -> None:
    before = [printed("mary"), printed("naira")]
    after = [printed("mary", configuration="x"), printed("naira", configuration="x")]
    steps = ["pin the root disk of mary to pool slow", "put the root disk of profile default on pool fast"]
    assert tables.touched(before, after, steps)["touched"] == [
        "The configuration or the snapshots of naira were changed."
    ]


TOLD = {
    "phase": "copying",
    "instance": "c1",
    "bytes_done": 34,
    "bytes_total": 100,
    "bytes_per_second": 11,
    "updated": 1,
}


@pytest.mark.parametrize(
    ("changes", "line", "share"),
    [
        (
            {},
            "progress pi-01: c1: copying 34 % (34 B of 100 B, 11 B/s, 6 s left)",
            progress.Share("c1: copying, 34 B of 100 B, 11 B/s, 6 s left", 34),
        ),
        (
            {"bytes_per_second": 0, "instance": "shop/c1"},
            "progress pi-01: shop/c1: copying 34 % (34 B of 100 B)",
            progress.Share("shop/c1: copying, 34 B of 100 B", 34),
        ),
        ({"phase": "stopping", "bytes_total": 0}, "progress pi-01: c1: stopping", progress.Share("c1: stopping")),
    ],
)
def test_a_line_about_progress_is_one_that_the_front_end_knows(
    changes: dict[str, Any], line: str, share: progress.Share
) -> None:
    assert action.line("pi-01", {**TOLD, **changes}) == line
    event = {"event": "verbose", "stdout": f"{line}\r\n"}
    assert progress.advance(progress.Run(), event).hosts["pi-01"].share == share


@pytest.mark.parametrize("event", [{"event": "verbose", "stdout": "no progress pi-01: x"}, {"event": "warning"}])
def test_other_lines_are_none(event: dict[str, Any]) -> None:
    assert progress.advance(progress.Run(), event) == progress.Run()


def test_a_new_phase_is_said_at_once_and_the_same_one_now_and_then() -> None:
    said: list[str] = []
    now = [0.0]
    told = action.Told("pi-01", say=said.append, clock=lambda: now[0])
    for seconds, phase in ((1, "copying"), (2, "copying"), (3, "stopping"), (4, "stopping"), (10, "stopping")):
        now[0] = seconds
        told(json.dumps({**TOLD, "phase": phase}).encode())
    assert [line.split()[3] for line in said] == ["copying", "stopping", "stopping"]


@pytest.mark.parametrize("read", [b"", b"{", b"[]", b"{}", b'{"bytes_done": null}'])
def test_what_is_no_progress_is_passed_over(read: bytes) -> None:
    said: list[str] = []
    action.Told("pi-01", say=said.append)(read)
    assert said == []


PLAYBOOKS = {"migrate": ("plan", "migrate"), "rollback": ("rollback_plan", "rollback")}
PLAYBOOKS["migrate_cleanup"] = ("cleanup_plan", "cleanup")


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_all_hosts_show_their_plan_before_the_first_is_changed(name: str) -> None:
    planning, doing = yaml.safe_load((ROOT / f"playbooks/{name}.yml").read_text())
    parts = [play["tasks"][0]["ansible.builtin.import_role"]["tasks_from"] for play in (planning, doing)]
    assert tuple(parts) == PLAYBOOKS[name]
    assert "serial" not in planning
    assert doing["serial"][0] == 1
    assert doing["max_fail_percentage"] == 0
    assert planning["any_errors_fatal"] is doing["any_errors_fatal"] is True


def test_the_example_fleet_protects_what_must_not_be_touched() -> None:
    fleet = yaml.safe_load((ROOT / "inventories/fleet/group_vars/incus_hosts.yml").read_text())
    assert fleet["pool_migration_protected"] == ["mary", "naira", "stanley"]


def test_each_variable_has_a_default_and_a_description() -> None:
    specs = yaml.safe_load((ROOT / "roles/pool_migration/meta/argument_specs.yml").read_text())["argument_specs"]
    defaults = yaml.safe_load((ROOT / "roles/pool_migration/defaults/main.yml").read_text())
    assert set(specs["main"]["options"]) == set(defaults)
    assert all(spec["options"] == specs["main"]["options"] for spec in specs.values())

"""What is planned for golden trees and sessions, as tables of found against wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError, Drift
from ansible.module_utils.cow.golden import collect, resource
from ansible.module_utils.cow.golden.folders import Folders
from ansible.module_utils.cow.golden.model import (
    BUILDING,
    COMPLETE,
    GONE,
    MAKING,
    REMOVING,
    UNMARKED,
    Generation,
    Project,
    Record,
    Room,
    Session,
    Sizes,
)
from ansible.module_utils.cow.golden.refusals import Exists, InUse, NoRoom, NotThere, Refusal
from ansible.module_utils.cow.golden.resource import FoundCache, FoundSession, WantedCache, WantedSession
from ansible.module_utils.cow.golden.store import Source, Store, require_free_path, superseded, unfinished

NOW = 1_000_000
STORE = Store(Folders("/srv/golden", name="copy"), "it is so", clock=lambda: NOW)
FOLDER, ALICE = Source(folder=Path("/srv/build")), Source(session="alice")


def generation(number: int, state: str = COMPLETE, *, source: Source = FOLDER, seen: str = "old") -> Generation:
    record = Record(NOW - 100_000 + number, str(source), seen) if state == COMPLETE else None
    return Generation(number, state, record)


def session(
    name: str, of: int | None, state: str = COMPLETE, *, mounted: bool = True, created: int = NOW - 100_000
) -> Session:
    return Session(name, of, state, f"/nonexistent/{name}", mounted=mounted, created=created)


def project(current: int | None, *generations: Generation, sessions: tuple[Session, ...] = ()) -> Project:
    return Project("p", current, generations, sessions)


ONE = project(1, generation(1))
THREE = project(3, generation(1), generation(2), generation(3))
PROMOTE = WantedCache("p", source=FOLDER)


@pytest.mark.parametrize(
    ("found", "wanted", "steps"),
    [
        (
            FoundCache(None, "new"),
            PROMOTE,
            [
                "create golden project p in /srv/golden (copy)",
                "make generation 1 of p from /srv/build, and make it current",
            ],
        ),
        (FoundCache(None), WantedCache("p"), ["create golden project p in /srv/golden (copy)"]),
        (FoundCache(ONE, "old"), PROMOTE, []),
        (FoundCache(ONE, "new"), PROMOTE, ["make generation 2 of p from /srv/build, and make it current"]),
        (
            FoundCache(ONE, "old"),
            WantedCache("p", source=ALICE),
            ["make generation 2 of p from session alice, and make it current"],
        ),
        (
            FoundCache(THREE, "new"),
            replace(PROMOTE, keep=2),
            [
                "make generation 4 of p from /srv/build, and make it current",
                "remove superseded generation 1 of p",
                "remove superseded generation 2 of p",
            ],
        ),
        (
            FoundCache(replace(THREE, sessions=(session("a", 1),)), "old"),
            replace(PROMOTE, keep=1),
            ["remove superseded generation 2 of p"],
        ),
        (
            FoundCache(project(1, generation(1), generation(2, BUILDING)), "new"),
            PROMOTE,
            ["remove unfinished generation 2 of p", "make generation 3 of p from /srv/build, and make it current"],
        ),
        (
            FoundCache(project(1, generation(1), generation(2)), "new"),
            PROMOTE,
            ["make generation 3 of p from /srv/build, and make it current"],
        ),
        (FoundCache(project(1, generation(1), generation(2, UNMARKED)), "old"), PROMOTE, []),
        (FoundCache(None), WantedCache("p", present=False), []),
        (FoundCache(ONE), WantedCache("p", present=False, generation=7), []),
        (FoundCache(THREE), WantedCache("p", present=False, generation=2), ["remove generation 2 of p"]),
        (FoundCache(THREE), WantedCache("p", present=False), ["remove golden project p with 3 generations"]),
    ],
)
def test_steps_for_a_project(found: FoundCache, wanted: WantedCache, steps: list[str]) -> None:
    planned = resource.plan_cache(found, wanted, STORE, pytest.fail)
    assert planned.titles == steps
    assert planned.facts == {"backend": "copy", "why": "it is so", "not_removed": []}


@pytest.mark.parametrize(
    ("found", "wanted", "error", "said"),
    [
        (ONE, WantedCache("p", present=False, generation=1), InUse, "is current"),
        (
            replace(THREE, sessions=(session("a", 2), session("b", 2))),
            WantedCache("p", present=False, generation=2),
            InUse,
            "has sessions: a, b",
        ),
        (replace(ONE, sessions=(session("a", 1),)), WantedCache("p", present=False), InUse, "has sessions: a"),
        (replace(ONE, foreign=("/srv/golden/p/x",)), WantedCache("p", present=False), Refusal, "/srv/golden/p/x"),
        (
            project(2, generation(1, UNMARKED), generation(2)),
            WantedCache("p", present=False),
            Refusal,
            "generation 1 has no marker",
        ),
        (
            replace(ONE, sessions=(session("a", None, UNMARKED),)),
            WantedCache("p", present=False),
            Refusal,
            "session a has no marker",
        ),
        (
            project(2, generation(1, UNMARKED), generation(2)),
            WantedCache("p", present=False, generation=1),
            Refusal,
            "has no marker",
        ),
    ],
)
def test_removals_that_are_refused(found: Project, wanted: WantedCache, error: type[CowError], said: str) -> None:
    with pytest.raises(error, match=said):
        resource.plan_cache(FoundCache(found), wanted, STORE, pytest.fail)


def test_removals_need_the_permission() -> None:
    for wanted in (WantedCache("p", present=False), WantedCache("p", present=False, generation=1)):
        (step,) = resource.plan_cache(FoundCache(THREE), wanted, STORE, pytest.fail).steps
        assert (bool(step.destroys), step.permit) == (True, "state")


ROOMY, FULL = Room(50, 100), Room(2, 100)
WANTED = WantedSession("p", "alice")
CLONED = session("alice", 1)


@pytest.mark.parametrize(
    ("found", "wanted", "steps"),
    [
        (
            FoundSession(ONE, None, ROOMY),
            WANTED,
            ["clone generation 1 of p for session alice at /srv/golden/p/sessions/alice"],
        ),
        (
            FoundSession(THREE, None, ROOMY),
            replace(WANTED, path="/nonexistent/a", generation=2),
            ["clone generation 2 of p for session alice at /nonexistent/a"],
        ),
        (FoundSession(ONE, CLONED, FULL), WANTED, []),
        (FoundSession(ONE, CLONED, FULL), replace(WANTED, path="/nonexistent/alice", generation=1), []),
        (
            FoundSession(ONE, replace(CLONED, mounted=False), ROOMY),
            WANTED,
            ["mount session alice of p at /nonexistent/alice"],
        ),
        (FoundSession(ONE, None, FULL), replace(WANTED, present=False), []),
        (FoundSession(None, None, FULL), replace(WANTED, present=False), []),
        (FoundSession(ONE, CLONED, FULL), replace(WANTED, present=False), ["destroy session alice of p"]),
    ],
)
def test_steps_for_a_session(found: FoundSession, wanted: WantedSession, steps: list[str]) -> None:
    assert resource.plan_session(found, wanted, STORE).titles == steps


@pytest.mark.parametrize(
    ("found", "wanted", "error", "said"),
    [
        (FoundSession(ONE, None, FULL), WANTED, NoRoom, "2 B free of 100 B, and 2 B .reserve 2%. are to stay free"),
        (FoundSession(ONE, None, ROOMY), replace(WANTED, reserve="50%"), NoRoom, "reserve 50%"),
        (FoundSession(ONE, None, ROOMY), replace(WANTED, generation=9), NotThere, "Complete ones are: 1"),
        (FoundSession(project(None), None, ROOMY), WANTED, NotThere, "has no generation yet"),
        (
            FoundSession(project(1, generation(1), generation(2, BUILDING)), None, ROOMY),
            replace(WANTED, generation=2),
            NotThere,
            "Its state is building",
        ),
        (FoundSession(ONE, CLONED, ROOMY), replace(WANTED, path="/other"), Drift, "is at /nonexistent/alice"),
        (FoundSession(ONE, CLONED, ROOMY), replace(WANTED, generation=2), Drift, "is a clone of generation 1"),
        (FoundSession(ONE, replace(CLONED, state=MAKING), ROOMY), WANTED, Refusal, "is making, not complete"),
        (FoundSession(ONE, None, ROOMY), replace(WANTED, path="/proc"), Exists, "is mounted at /proc"),
    ],
)
def test_sessions_that_are_refused(
    found: FoundSession, wanted: WantedSession, error: type[CowError], said: str
) -> None:
    with pytest.raises(error, match=said):
        resource.plan_session(found, wanted, STORE)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"project": "../x"}, "golden project"),
        ({"name": "a/b"}, "session"),
        ({"name": "-a"}, "session"),
        ({"path": "relative"}, "absolute path"),
        ({"reserve": "lots"}, "not a size"),
    ],
)
def test_bad_options_of_a_session(changed: dict[str, Any], said: str) -> None:
    usual = {"project": "p", "name": "a", "state": "present", "path": None, "generation": None, "reserve": "2%"}
    with pytest.raises(CowError, match=said):
        WantedSession.of({**usual, **changed})


def test_what_is_kept() -> None:
    many = project(5, *(generation(number) for number in range(1, 6)), sessions=(session("a", 2),))
    assert [each.number for each in superseded(many, 2)] == [1, 3]
    assert [each.number for each in superseded(replace(many, current=1), 2)] == [3]
    half = project(1, generation(1), generation(2, BUILDING), generation(3, REMOVING), generation(4, UNMARKED))
    assert [each.number for each in unfinished(half)] == [2, 3]


def test_a_path_must_be_empty(tmp_path: Path) -> None:
    require_free_path(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    require_free_path(tmp_path / "empty")
    (tmp_path / "link").symlink_to("empty")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(Exists):
            require_free_path(path)


def test_garbage_is_what_is_old_and_nobody_uses() -> None:
    sessions = (
        session("live", 3),
        session("half", 3, MAKING, mounted=False),
        session("young", 3, MAKING, mounted=False, created=NOW - 10),
        session("half-mounted", 3, REMOVING),
        session("gone", 3, GONE, mounted=False),
        session("unmarked", None, UNMARKED),
    )
    generations = (generation(1), generation(2), generation(3), generation(4, BUILDING), generation(5, UNMARKED))
    found = replace(project(3, *generations, sessions=sessions), foreign=("/srv/golden/p/x",))
    findings = collect.look(STORE, found, keep=1, grace=3600)
    assert [item.what for item in findings.items] == [
        "session half of p (making)",
        "session gone of p (gone)",
        "generation 4 of p (building)",
        "generation 1 of p (superseded)",
        "generation 2 of p (superseded)",
    ]
    assert [what for what, _ in findings.reported] == [
        "session young of p",
        "session half-mounted of p",
        "session unmarked of p",
        "generation 5 of p",
        "/srv/golden/p/x",
    ]
    assert [item.what for item in collect.look(STORE, found, keep=3, grace=3600).items] == [
        "session half of p (making)",
        "session gone of p (gone)",
        "generation 4 of p (building)",
    ]
    in_grace = collect.look(STORE, found, keep=1, grace=200_000)
    assert [item.what for item in in_grace.items] == ["generation 4 of p (building)"]


def test_sizes_add_up() -> None:
    assert Sizes(exclusive=3, shared=4).apparent == 7

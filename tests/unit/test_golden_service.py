"""Which files and units a store gets, and which go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.golden import cli, service
from ansible.module_utils.cow.golden.service import Wanted
from ansible.module_utils.cow.units import Found

UNITS = Path("/etc/systemd/system")
PARAMS: dict[str, Any] = {
    "name": "golden",
    "state": "present",
    "command": "/usr/local/bin/cow-session",
    "store": "/srv/golden",
    "backend": "auto",
    "expect": None,
    "reserve": "2%",
    "keep": 3,
    "grace": 3600,
    "volume_size": "100GiB",
    "mount": True,
    "collect": "daily",
    "trim": "",
}
MOUNT = "cow-session-golden-mount.service"
TIMER = "cow-session-golden-gc.timer"


def wanted(**params: Any) -> Wanted:
    return Wanted.of({**PARAMS, **params})


def written(of: Wanted) -> dict[Path, str]:
    """The files after a run on a bare host."""
    steps = service.plan(Found(), of).steps
    return {
        Path(step.title.removeprefix("write ")): dict(step.after or {})["content"]
        for step in steps
        if step.after and "content" in step.after
    }


def test_a_bare_host_gets_files_then_systemd_is_told() -> None:
    assert service.plan(Found(), wanted()).titles == [
        f"write {UNITS}/{MOUNT}",
        f"write {UNITS}/cow-session-golden-gc.service",
        f"write {UNITS}/{TIMER}",
        "write /etc/cowherd/golden.json",
        "have systemd read its units again",
        f"start and enable {MOUNT} and {TIMER}",
    ]


def test_a_second_run_does_nothing() -> None:
    found = Found(written(wanted()), enabled=frozenset({MOUNT, TIMER}), active=frozenset({MOUNT, TIMER}))
    assert service.plan(found, wanted()).titles == []


@pytest.mark.parametrize("lacking", ["enabled", "active"])
def test_a_unit_that_was_stopped_or_disabled_is_started(lacking: str) -> None:
    states = {"enabled": frozenset({MOUNT, TIMER}), "active": frozenset({MOUNT, TIMER}), lacking: frozenset({MOUNT})}
    assert service.plan(Found(written(wanted()), **states), wanted()).titles == [f"start and enable {TIMER}"]


def test_another_time_restarts_the_timer() -> None:
    found = Found(written(wanted()), enabled=frozenset({MOUNT, TIMER}), active=frozenset({MOUNT, TIMER}))
    assert service.plan(found, wanted(collect="hourly")).titles == [
        f"write {UNITS}/{TIMER}",
        "have systemd read its units again",
        f"start and enable {TIMER}",
    ]


@pytest.mark.parametrize("params", [{"mount": False, "collect": ""}, {"state": "absent"}])
def test_units_that_are_not_asked_for_go(params: dict[str, Any]) -> None:
    found = Found(written(wanted()), enabled=frozenset({MOUNT, TIMER}), active=frozenset({MOUNT, TIMER}))
    titles = service.plan(found, wanted(**params)).titles
    assert titles[0] == f"stop and disable {MOUNT} and {TIMER}"
    assert f"remove {UNITS}/{MOUNT}" in titles
    assert ("remove /etc/cowherd/golden.json" in titles) == (params.get("state") == "absent")
    assert titles[-1] == "have systemd read its units again"


def test_a_host_without_systemd_gets_the_configuration_alone() -> None:
    bare = Found(systemd=False)
    assert service.plan(bare, wanted(mount=False, collect="")).titles == ["write /etc/cowherd/golden.json"]
    with pytest.raises(CowError, match="systemd does not run here"):
        service.plan(bare, wanted())


def test_cow_session_takes_the_configuration() -> None:
    text = written(wanted(expect="btrfs"))[Path("/etc/cowherd/golden.json")]
    assert set(json.loads(text)) <= set(cli.OPTIONS)
    assert cli.CONFIGURATION == "/etc/cowherd/golden.json"
    assert json.loads(text)["expect"] == "btrfs"


def test_words_of_a_unit_mean_themselves() -> None:
    of = wanted(store='/srv/100% "mine"', command="/opt/my $tools/cow-session")
    text = written(of)[UNITS / MOUNT]
    assert 'RequiresMountsFor="/srv/100%% \\"mine\\""\n' in text
    assert 'ExecStart="/opt/my $$tools/cow-session" --config /etc/cowherd/golden.json mount\n' in text


def test_the_store_alone_is_trimmed() -> None:
    text = written(wanted(trim="weekly"))[UNITS / "cow-session-golden-trim.service"]
    assert "ExecStart=/usr/local/bin/cow-session --config /etc/cowherd/golden.json trim\n" in text


def test_a_dataset_is_waited_for_by_the_units_of_zfs() -> None:
    text = written(wanted(store="tank/golden"))[UNITS / MOUNT]
    assert "RequiresMountsFor" not in text
    assert "zfs-volumes.target" in text


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"name": "../up"}, "cannot be the name of a service"),
        ({"command": "cow-session"}, "is not an absolute path"),
        ({"store": "/srv/a\nb"}, "control character"),
        ({"store": "srv/-x"}, "is not a dataset"),
        ({"reserve": "much"}, "is not a size"),
        ({"volume_size": "50%"}, "is a percentage"),
        ({"keep": 0}, "Give 1 or more"),
        ({"grace": -1}, "Give 0 or more"),
    ],
)
def test_what_cannot_be_asked_for(params: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CowError, match=sentence):
        wanted(**params)


def test_a_unit_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / MOUNT).write_text("[Unit]\nDescription=Mine\n")
    with pytest.raises(CowError, match="is not Cowherd's"):
        service.observe(wanted(), folder=tmp_path)
    (tmp_path / MOUNT).unlink()
    (tmp_path / MOUNT).symlink_to("/dev/null")
    with pytest.raises(CowError, match="a unit that is masked"):
        service.observe(wanted(), folder=tmp_path)

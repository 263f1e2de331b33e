"""incus_instance_info on a private daemon: the table of a plan, and fingerprints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support import migration
from tests.support.incus_runs import refused, run
from tests.support.incusd import Incusd
from tests.support.migration import launch, rootfs
from tests.support.waiting import until

MODULE = "incus_instance_info"


@pytest.fixture
def host(incusd: Incusd, busybox_image: tuple[Path, Path]) -> Incusd:
    migration.prepare(incusd, busybox_image)
    return incusd


def info(daemon: Incusd, **options: Any) -> dict[str, Any]:
    result = run(daemon, MODULE, **options)
    assert not result.get("failed"), result["msg"]
    return result


def test_the_table(host: Incusd) -> None:
    launch(host, "c1")
    (rootfs(host, "c1") / "big").write_bytes(os.urandom(3 << 20))
    host.run("snapshot", "create", "c1", "s1")
    host.run("create", "bb", "mary", "--storage", "slow")
    host.run("create", "bb", "there", "--storage", "fast")
    found = info(host, from_pool="slow", pool="fast", protected=["mary"])
    rows = {row["name"]: row for row in found["instances"]}
    assert list(rows) == ["c1", "mary"]
    c1 = rows["c1"]
    assert c1["size_bytes"] > 3 << 20
    assert c1["size_bytes"] <= c1["needed_bytes"] < 2 * c1["size_bytes"]
    assert [(one["name"], one["size_bytes"] > 3 << 20) for one in c1["snapshots"]] == [("s1", True)]
    assert (c1["refused"], c1["protected"], c1["move"]) == ([], False, None)
    assert c1["expected_downtime_seconds"] > 0
    assert rows["mary"]["expected_downtime_seconds"] == 0
    assert "mary is protected" in rows["mary"]["refused"][0]
    assert found["space"]["needed_bytes"] == c1["needed_bytes"]
    assert found["space"]["host_free_bytes"] > 0
    run(host, "incus_instance_pool", name="c1", pool="fast")
    after = info(host, pool="fast")
    rows = {row["name"]: row for row in after["instances"]}
    assert rows["c1"]["move"]["phase"] == "moved"
    (kept,) = rows["c1"]["move"]["aside"]
    assert "a copy or a kept source of a move" in rows[kept]["refused"][0]
    assert [move["name"] for move in after["moves"]] == ["c1"]
    assert after["foreign"] == []


def test_fingerprints_tell_what_was_touched(host: Incusd) -> None:
    launch(host, "mary")
    last_written = rootfs(host, "mary") / "etc" / "resolv.conf"
    until(lambda: last_written.exists() and last_written.read_text())

    def taken() -> dict[str, str]:
        (row,) = info(host, names=["mary"], fingerprint=True)["instances"]
        return dict(row["fingerprint"])

    first = taken()
    assert taken() == first
    host.run("config", "set", "mary", "user.x", "1")
    second = taken()
    assert {key for key in first if first[key] != second[key]} == {"configuration"}
    (rootfs(host, "mary") / "etc" / "passwd").touch()
    third = taken()
    assert {key for key in first if second[key] != third[key]} == {"tree"}
    host.run("restart", "mary", "--force")
    assert taken()["power"] != first["power"]


def test_bad_input(host: Incusd) -> None:
    assert "There is no pool none. There are fast, slow" in refused(host, MODULE, pool="none")
    assert "nobody in names is no instance" in refused(host, MODULE, names=["nobody"])
    assert "marry in protected is no instance" in refused(host, MODULE, protected=["marry"])
    assert info(host)["instances"] == []

"""playbooks/live_build.yml and live_install.yml: from two trees to verified media, and from there onto a device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import manifest

from tests.support import needs, seeds, trees, waiting
from tests.support.ansible import PlaybookRun, run_playbook
from tests.support.seeds import mounted, run

NAMES = ("install", "live")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the trees `install` and `live`, the second like the first with a change."""
    needs.root("file systems are mounted")
    needs.program("mkfs.btrfs")
    with seeds.memory(tmp_path_factory.mktemp("live")) as folder:
        for name in NAMES:
            trees.make_hostile(folder / name, depth=20)
        (folder / "live" / "live-only").write_bytes(os.urandom(1 << 20))
        yield folder
        for name in NAMES:
            trees.let_go(folder / name)


def build(place: Path, check: bool = False, **more: Any) -> PlaybookRun:
    roots = [{"name": "install", "src": str(place / "install")}, {"name": "live", "src": str(place / "live")}]
    roots[1]["from"] = "install"
    variables = {
        "live_image_folder": str(place / "media"),
        "live_image_images": [{"name": "debian.seed", "level": 1, "label": "media", "roots": roots}],
    }
    return run_playbook("playbooks/live_build.yml", "inventories/local", variables={**variables, **more}, check=check)


def install(place: Path, target: Path | str, check: bool = False, **more: Any) -> PlaybookRun:
    variables = {
        "live_install_seed": str(place / "media" / "debian.seed"),
        "live_install_target": str(target),
        "live_install_options": {"records": str(place / "records")},
    }
    given = {**variables, **more}
    return run_playbook("playbooks/live_install.yml", "inventories/local", variables=given, check=check)


@pytest.fixture(scope="module")
def built(place: Path) -> dict[str, PlaybookRun]:
    """In check mode where there is nothing, with the folder, for real, and once more."""
    bare = build(place, check=True).succeeded()
    assert not (place / "media").exists()
    (place / "media").mkdir(mode=0o700)
    check = build(place, check=True).succeeded()
    assert not any((place / "media").iterdir())
    return {"bare": bare, "check": check, "do": build(place).succeeded(), "again": build(place).succeeded()}


def test_media_are_built_and_verified(place: Path, built: dict[str, PlaybookRun]) -> None:
    assert "Would build debian.seed" in " ".join(built["bare"].output.split())
    assert _steps(built["check"]) == _steps(built["do"]) != []
    (made,) = [task for task in built["do"].tasks if task.task.endswith("Have the images")]
    assert made.result["results"][0]["image"]["verified"] is True
    table = next(task.result["msg"] for task in built["do"].tasks if task.task.endswith("Say what the images are"))
    assert str(place / "media/debian.seed") in table
    assert table.rstrip().endswith("install, live")
    (row,) = _rows(built["do"], "live_image")
    assert row[:4] == [str(place / "media/debian.seed"), "install, live", "xxhash64", "loop"]
    assert built["again"].changed == {"localhost": 0}, built["again"].output


def test_a_root_is_installed_on_a_device(place: Path, built: dict[str, PlaybookRun]) -> None:
    assert built["do"].changed["localhost"] > 0
    disk = place / "disk"
    with disk.open("wb") as file:
        file.truncate(300 << 20)
    device = run("losetup", "--find", "--show", disk).strip()
    try:
        check = install(place, device, check=True).succeeded()
        done = install(place, device).succeeded()
        assert _steps(check) == _steps(done) != []
        assert "root install, btrfs" in " ".join(done.output.split())
        (row,) = _rows(done, "live_install")
        assert row[:3] == [device, "install", "btrfs"]
        assert install(place, device).succeeded().changed == {"localhost": 0}
    finally:
        run("losetup", "--detach", device)
        waiting.until(lambda: not run("losetup", "--associated", disk))
    _assert_equal(disk, place / "install", place)
    with mounted(disk, place / "shown", "ro,subvolid=5") as point:
        assert [path.name for path in point.iterdir()] == ["install"]


def test_the_other_root_is_installed_in_a_file(place: Path, built: dict[str, PlaybookRun]) -> None:
    assert built["do"].changed["localhost"] > 0
    options = {"records": str(place / "records"), "size": "400MiB", "filesystem": "ext4", "label": "box"}
    install(place, place / "box.img", live_install_root="live", live_install_options=options).succeeded()
    _assert_equal(place / "box.img", place / "live", place)


def test_a_damaged_seed_is_not_installed(place: Path, built: dict[str, PlaybookRun]) -> None:
    assert built["do"].changed["localhost"] > 0
    content = bytearray((place / "media/debian.seed").read_bytes())
    wanted = (place / "live/live-only").read_bytes()[:4096]
    content[content.index(wanted)] ^= 1
    (place / "damaged.seed").write_bytes(content)
    options = {"records": str(place / "records"), "size": "400MiB"}
    seed = {"live_install_seed": str(place / "damaged.seed"), "live_install_options": options}
    refused = install(place, place / "other.img", **seed)
    assert refused.status != 0
    assert "Hit: live:/live-only." in " ".join(refused.output.split())
    assert not (place / "other.img").exists()


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"live_install_seed": ""}, "Say what to install and where"),
        ({"live_install_options": {"sise": "1GiB"}}, "live_install_options has sise"),
        ({"live_install_disk": "/dev/sda"}, "has no variable live_install_disk"),
    ],
)
def test_what_cannot_be_meant_to_install(place: Path, variables: dict[str, Any], words: str) -> None:
    refused = install(place, place / "none.img", **variables)
    assert refused.status != 0
    assert words in " ".join(refused.output.split())
    assert not (place / "none.img").exists()


def _steps(run: PlaybookRun) -> list[str]:
    results = (result for task in run.tasks for result in task.result.get("results", [task.result]))
    return [step for result in results for step in result.get("steps", [])]


def _rows(run: PlaybookRun, role: str) -> list[list[str]]:
    """The table that the role hands to the front end, each row with as many cells as there are columns."""
    handed = next(task.result for task in run.tasks if "Hand" in task.task and "ansible_facts" in task.result)
    table = handed["ansible_facts"][f"__{role}_cowherd_tables"]["result"]
    assert {len(row) for row in table["rows"]} == {len(table["columns"])}
    return [list(row) for row in table["rows"]]


def _assert_equal(disk: Path, tree: Path, place: Path) -> None:
    wanted = manifest.of(tree)
    with mounted(disk, place / "shown") as point:
        found = manifest.of(point)
    assert [line for line in manifest.differences(wanted, found) if not line.startswith("lost+found ")] == []

"""playbooks/images.yml: a list of images of one tree, the same bytes when forced, and Incus takes what it builds."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import manifest
from ansible.module_utils.cow.manifest import Manifest

from tests.support import images, needs, seeds
from tests.support.ansible import PlaybookRun, run_module, run_playbook
from tests.support.incusd import Incusd

NAMES = ("root.ext4", "root.squashfs", "root.erofs", "root.btrfs", "root.verity")
VARYING = "root.btrfs"
"""Not the same bytes each time, as the module says of it."""
PROGRAMS = ("mke2fs", "mksquashfs", "mkfs.erofs", "mkfs.btrfs", "veritysetup")
PLAYBOOK = "playbooks/images.yml"


@pytest.fixture(scope="module")
def images_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images") / "built"


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory, images_folder: Path) -> Any:
    """Run the playbook on this machine, with images of one Debian."""
    needs.root("owners are kept")
    for program in (*PROGRAMS, "mmdebstrap"):
        needs.program(program)
    tree = tmp_path_factory.mktemp("tree")
    seeds.run(
        "tar",
        "--extract",
        "--numeric-owner",
        "--file",
        images.debian_rootfs("trixie", variant="minbase"),
        "--directory",
        tree,
    )
    variables = {"rootfs_image_folder": str(images_folder), "rootfs_image_source": {"src": str(tree)}}

    def run(check: bool = False, **more: Any) -> PlaybookRun:
        return run_playbook(PLAYBOOK, "inventories/local", variables={**variables, **more}, check=check)

    return run


@pytest.fixture(scope="module")
def runs(play: Any, images_folder: Path) -> dict[str, PlaybookRun]:
    """In check mode where there is nothing, with the folder, for real, and once more."""
    bare = play(check=True).succeeded()
    assert not images_folder.exists()
    images_folder.mkdir()
    images_folder.chmod(0o750)
    check = play(check=True).succeeded()
    assert not any(images_folder.iterdir())
    return {"bare": bare, "check": check, "do": play().succeeded(), "again": play().succeeded()}


def test_check_mode_says_what_the_run_does(runs: dict[str, PlaybookRun]) -> None:
    assert _steps(runs["check"])
    assert _steps(runs["check"]) == _steps(runs["do"])
    assert f"Would build {', '.join(NAMES)}" in " ".join(runs["bare"].output.split())


def test_a_folder_that_is_there_keeps_its_mode(runs: dict[str, PlaybookRun], images_folder: Path) -> None:
    assert runs["again"].changed["localhost"] == 0
    assert images_folder.stat().st_mode & 0o777 == 0o750


def test_there_are_images_in_all_formats(runs: dict[str, PlaybookRun], images_folder: Path) -> None:
    assert runs["do"].changed["localhost"] > 0
    assert {name for name in NAMES if (images_folder / name).is_file()} == set(NAMES)
    table = next(task.result["msg"] for task in runs["do"].tasks if task.task.endswith("Say what the images are"))
    lines = table.splitlines()
    assert [line.split()[0] for line in lines] == [str(images_folder / name) for name in NAMES]
    assert "root hash" in lines[-1]
    summary = _summary(runs["do"])
    assert [row[:2] for row in summary["rows"]] == [[each["path"], each["format"]] for each in summary["records"]]
    assert [len(row) for row in summary["rows"]] == [len(summary["columns"])] * len(NAMES)
    assert len(summary["rows"][-1][-1]) == 64


def test_a_second_run_changes_nothing(runs: dict[str, PlaybookRun]) -> None:
    assert runs["again"].changed == {"localhost": 0}, runs["again"].output


def test_forced_builds_give_the_same_bytes(
    runs: dict[str, PlaybookRun],
    play: Any,
    images_folder: Path,
    tmp_path: Path,
) -> None:
    """And of btrfs the same content, and what is otherwise in it is said."""
    before, content = _digests(images_folder), _content(images_folder / VARYING, tmp_path / "before")
    forced = play(rootfs_image_rebuild=True).succeeded()
    assert forced.changed["localhost"] > 0
    after = _digests(images_folder)
    assert {name for name in NAMES if after[name] != before[name]} == {VARYING}
    assert {Path(image["path"]).name for image in _images(forced) if image["varies"]} == {VARYING}
    assert manifest.differences(content, _content(images_folder / VARYING, tmp_path / "after")) == []
    fingerprints = [{image["path"]: image["fingerprint"] for image in _images(run)} for run in (runs["do"], forced)]
    assert fingerprints[0] == fingerprints[1]


def test_an_option_that_there_is_not_ends_before_anything_is_written(play: Any, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    wanted = {"rootfs_image_folder": str(folder), "rootfs_image_images": [{"name": "a", "fromat": "ext4"}]}
    run = play(**wanted)
    assert run.status != 0
    assert "has no fromat" in " ".join(run.output.split())
    assert not folder.exists()


@pytest.mark.parametrize("entry", [{"format": "ext4"}, {"name": "../a", "format": "ext4"}])
def test_an_image_needs_a_name_in_the_folder(play: Any, entry: dict[str, str]) -> None:
    run = play(rootfs_image_images=[entry])
    assert run.status != 0
    assert "needs a name of its own" in " ".join(run.output.split())


def test_an_image_where_a_file_beside_another_belongs_is_refused(play: Any, tmp_path: Path) -> None:
    folder, names = tmp_path / "images", ("root", "root.verity", "other.verity")
    run = play(rootfs_image_folder=str(folder), rootfs_image_images=[{"name": name} for name in names])
    assert run.status != 0
    assert "root.verity has the name of a file that belongs beside another image" in " ".join(run.output.split())
    assert not folder.exists()


def test_incus_takes_the_squashfs_of_one_of_its_own_images(incusd: Incusd, tmp_path: Path) -> None:
    """From an image of a daemon to a file, and from the file to an image and a container that runs."""
    for program in PROGRAMS:
        needs.program(program)
    metadata, rootfs = images.busybox_image(tmp_path)
    incusd.run("image", "import", str(metadata), str(rootfs), "--alias", "base")
    source = {"incus": {"image": "base", "socket": str(incusd.socket)}}
    run_playbook(
        PLAYBOOK,
        "inventories/local",
        variables={
            "rootfs_image_folder": str(tmp_path / "built"),
            "rootfs_image_source": source,
            "rootfs_image_images": [{"name": "base.squashfs", "format": "squashfs"}],
        },
    ).succeeded()
    taken = {"alias": "again", "rootfs": {"path": str(tmp_path / "built" / "base.squashfs")}}
    result = run_module("incus_image", {**taken, "socket": str(incusd.socket)})
    assert result["changed"], result
    incusd.run("storage", "create", "plain", "dir")
    incusd.run("launch", "again", "c1", "--storage", "plain")
    assert "busybox" in incusd.run("exec", "c1", "--", "ls", "/bin")


def _steps(run: PlaybookRun) -> list[str]:
    results = (result for task in run.tasks for result in task.result.get("results", [task.result]))
    return [step for result in results for step in result.get("steps", [])]


def _summary(run: PlaybookRun) -> dict[str, Any]:
    handed = next(task.result for task in run.tasks if task.task.endswith("Hand them to the summary of the run"))
    return dict(handed["ansible_facts"]["__rootfs_image_cowherd_tables"]["result"])


def _images(run: PlaybookRun) -> list[dict[str, Any]]:
    return list(_summary(run)["records"])


def _content(image: Path, point: Path) -> Manifest:
    with seeds.mounted(image, point) as root:
        return manifest.of(root)


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in NAMES}

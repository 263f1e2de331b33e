"""btrfs_subvolume on a real btrfs: what it makes, what it refuses, and that check mode writes nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.ansible import FourRuns, four_runs, run_module
from tests.support.loops import btrfs

MODULE = "btrfs_subvolume"


@contextmanager
def mounted(source: Path | str, point: Path, options: str) -> Iterator[None]:
    point.mkdir(exist_ok=True)
    command("mount", "-o", options, source, point)
    try:
        yield
    finally:
        command("umount", point)


def command(*argv: Path | str) -> str:
    return os.fsdecode(subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout)


def create(path: Path) -> Path:
    command("btrfs", "subvolume", "create", path)
    return path


def shown(path: Path) -> dict[str, str]:
    """What `btrfs subvolume show` says, as label to value."""
    lines = (line.partition(":") for line in command("btrfs", "subvolume", "show", path).splitlines())
    return {label.strip(): value.strip() for label, _, value in lines}


def device_of(path: Path) -> str:
    return command("findmnt", "--noheadings", "--output", "SOURCE", "--target", path).strip()


def everything(folder: Path) -> tuple[str, str, list[tuple[str, str]]]:
    """All that the module could change in the file system mounted on `folder`."""
    properties = [
        (str(path), command("btrfs", "property", "get", path)) for path in sorted(folder.rglob("*")) if path.is_dir()
    ]
    command("btrfs", "filesystem", "sync", folder)  # or the generations would still move by themselves
    listed = command("btrfs", "subvolume", "list", "-puqR", folder)
    return listed, command("btrfs", "subvolume", "get-default", folder), properties


def four(folder: Path, **args: Any) -> FourRuns:
    return four_runs(MODULE, texts(args), state=lambda: everything(folder))


def refused(folder: Path, **args: Any) -> str:
    """The message of a run that fails and changes nothing, the same in check mode."""
    before = everything(folder)
    in_check, in_run = (run_module(MODULE, texts(args), check) for check in (True, False))
    assert in_run["failed"]
    assert in_check["msg"] == in_run["msg"]
    assert everything(folder) == before
    return str(in_run["msg"])


def texts(args: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in args.items() if value is not None}


def test_create(btrfs_folder: Path) -> None:
    path = btrfs_folder / "with space"
    runs = four(btrfs_folder, path=path)
    assert runs.do["steps"] == [f"create subvolume {path}"]
    there = shown(path)
    for result in (runs.do, runs.again):
        assert result["uuid"] == there["UUID"]
        assert result["id"] == int(there["Subvolume ID"])
        assert result["generation"] == int(there["Generation"])
        assert result["created"].replace("T", " ").replace("Z", " +0000") == there["Creation time"]
        assert (result["parent_uuid"], result["received_uuid"], result["readonly"]) == (None, None, False)
        assert (result["compression"], result["default"]) == ("default", False)
    assert "uuid" not in runs.check


def test_create_with_properties(btrfs_folder: Path) -> None:
    path = btrfs_folder / "small"
    runs = four(btrfs_folder, path=path, compression="zstd", readonly=True, default=True)
    assert runs.do["steps"] == [f"create subvolume {path}", f"make {path} the default subvolume"]
    assert os.getxattr(path, "btrfs.compression") == b"zstd"
    assert shown(path)["Flags"] == "readonly"
    assert command("btrfs", "subvolume", "get-default", btrfs_folder).split()[1] == shown(path)["Subvolume ID"]
    assert runs.again["default"]


def test_properties_of_an_existing_one(btrfs_folder: Path) -> None:
    path = create(btrfs_folder / "a")
    closed = four(btrfs_folder, path=path, compression="lzo", readonly=True)
    assert closed.do["steps"] == [f"set compression of subvolume {path} to lzo", f"make subvolume {path} read-only"]
    assert closed.do["diff"][0]["before"] == "compression: default\n"
    assert closed.do["diff"][0]["after"] == "compression: lzo\n"
    opened = four(btrfs_folder, path=path, compression="default", readonly=False)
    assert opened.do["steps"] == [f"make subvolume {path} writable", f"set compression of subvolume {path} to default"]
    assert "btrfs.compression" not in os.listxattr(path)


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("compression", [None, "none"])
def test_snapshot(btrfs_folder: Path, readonly: bool, compression: str | None) -> None:
    source, path = create(btrfs_folder / "source"), btrfs_folder / "snapshot"
    (source / "file").write_text("content")
    runs = four(btrfs_folder, path=path, source=source, readonly=readonly, compression=compression)
    assert (path / "file").read_text() == "content"
    assert runs.again["parent_uuid"] == shown(source)["UUID"]
    assert runs.again["readonly"] is readonly
    assert runs.again["compression"] == (compression or "default")


def test_snapshot_warns_of_what_it_leaves_out(btrfs_folder: Path) -> None:
    source = create(btrfs_folder / "source")
    inner = create(source / "inner")
    result = run_module(MODULE, texts({"path": btrfs_folder / "snapshot", "source": source}), check=True)
    assert str(inner) in str(result["warnings"])


def test_snapshot_of_another_source_is_drift(btrfs_folder: Path) -> None:
    source, other = create(btrfs_folder / "source"), create(btrfs_folder / "other")
    path = btrfs_folder / "snapshot"
    command("btrfs", "subvolume", "snapshot", other, path)
    message = refused(btrfs_folder, path=path, source=source)
    assert f"is not a snapshot of {source}" in message
    assert shown(other)["UUID"] in message


def test_received_subvolume_keeps_its_flag(btrfs_folder: Path, tmp_path: Path) -> None:
    source, sent = create(btrfs_folder / "source"), btrfs_folder / "sent"
    command("btrfs", "subvolume", "snapshot", "-r", source, sent)
    command("btrfs", "send", "-f", tmp_path / "stream", sent)
    (btrfs_folder / "in").mkdir()
    command("btrfs", "receive", "-f", tmp_path / "stream", btrfs_folder / "in")
    received = btrfs_folder / "in" / "sent"
    message = refused(btrfs_folder, path=received, readonly=False)
    assert "was received" in message
    assert f"set source to {received}" in message
    assert run_module(MODULE, texts({"path": received, "readonly": True}))["received_uuid"] == shown(sent)["UUID"]
    clone = four(btrfs_folder, path=btrfs_folder / "clone", source=received)
    assert clone.again["received_uuid"] is None
    four(btrfs_folder, path=received, state="absent")


def test_delete(btrfs_folder: Path) -> None:
    path = create(btrfs_folder / "a")
    (path / "file").write_text("content")
    runs = four(btrfs_folder, path=path, state="absent")
    assert runs.do["steps"] == [f"delete subvolume {path}"]
    assert not path.exists()


def test_delete_with_nested_ones_only_when_allowed(btrfs_folder: Path) -> None:
    path = create(btrfs_folder / "a")
    (path / "folder").mkdir()
    nested = create(path / "folder" / "b")
    inmost = create(nested / "c")
    odd = Path(os.fsdecode(os.fsencode(path) + b"/\xff\nd"))
    create(odd)
    message = refused(btrfs_folder, path=path, state="absent")
    assert str(inmost) in message
    assert "Set recursive" in message
    runs = four(btrfs_folder, path=path, state="absent", recursive=True)
    assert runs.do["steps"] == [
        *(f"delete subvolume {inner}" for inner in (inmost, nested)),
        f"delete subvolume {path}/\\xff\nd",
        f"delete subvolume {path}",
    ]
    assert not path.exists()


def test_delete_more_nested_ones_than_the_kernel_tells_at_once(btrfs_folder: Path) -> None:
    path = create(btrfs_folder / "a")
    for number in range(300):
        create(path / str(number))
    result = run_module(MODULE, texts({"path": path, "state": "absent", "recursive": True}))
    assert len(result["steps"]) == 301
    assert not path.exists()


def test_delete_refuses_the_top_level(btrfs_folder: Path) -> None:
    assert "top level" in refused(btrfs_folder, path=btrfs_folder, state="absent", recursive=True)


def test_delete_refuses_the_default(btrfs_folder: Path) -> None:
    path = create(btrfs_folder / "a")
    nested = create(path / "b")
    command("btrfs", "subvolume", "set-default", nested)
    message = refused(btrfs_folder, path=path, state="absent", recursive=True)
    assert f"{nested} is the default subvolume" in message
    four(btrfs_folder, path=btrfs_folder, default=True)
    four(btrfs_folder, path=path, state="absent", recursive=True)


def test_delete_refuses_what_is_mounted(btrfs_folder: Path, tmp_path: Path) -> None:
    path, point = create(btrfs_folder / "a"), tmp_path / "mounted here"
    (path / "folder").mkdir()
    with mounted(device_of(btrfs_folder), point, "subvol=a"):
        assert str(point) in refused(btrfs_folder, path=path, state="absent")
        assert str(point) in refused(btrfs_folder, path=point, state="absent")
    with mounted(path / "folder", point, "bind"):
        assert str(point) in refused(btrfs_folder, path=path, state="absent")
    with mounted(create(btrfs_folder / "other"), path / "folder", "bind"):
        assert str(path / "folder") in refused(btrfs_folder, path=path, state="absent")


def test_a_read_only_surrounding_is_refused(btrfs_folder: Path) -> None:
    outer = create(btrfs_folder / "outer")
    inner = create(outer / "inner")
    command("btrfs", "property", "set", outer, "ro", "true")
    assert f"{outer} cannot be written to" in refused(btrfs_folder, path=inner, state="absent")
    assert f"{outer} cannot be written to" in refused(btrfs_folder, path=outer, state="absent", recursive=True)
    assert f"{outer} cannot be written to" in refused(btrfs_folder, path=outer / "new")
    assert "Set readonly: false" in refused(btrfs_folder, path=outer, compression="zstd")


def test_something_else_at_the_path_is_refused(btrfs_folder: Path) -> None:
    subvolume = create(btrfs_folder / "a")
    folder, file, link = (btrfs_folder / name for name in ("folder", "file", "link"))
    folder.mkdir()
    file.touch()
    link.symlink_to(subvolume)
    for state in ("present", "absent"):
        assert "ordinary folder" in refused(btrfs_folder, path=folder, state=state)
        assert "is a file" in refused(btrfs_folder, path=file, state=state)
        assert "symbolic link" in refused(btrfs_folder, path=link, state=state)


def test_source_is_checked(btrfs_folder: Path, tmp_path: Path) -> None:
    path = btrfs_folder / "snapshot"
    assert "does not exist" in refused(btrfs_folder, path=path, source=btrfs_folder / "none")
    (btrfs_folder / "folder").mkdir()
    assert "ordinary folder" in refused(btrfs_folder, path=path, source=btrfs_folder / "folder")
    with btrfs(tmp_path / "other.img", tmp_path / "other", size=128 << 20) as other:
        assert "different file systems" in refused(btrfs_folder, path=path, source=create(other / "a"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"path": "relative"}, "not an absolute path"),
        ({"path": "{folder}/../a"}, "not an absolute path"),
        ({"path": "{folder}/-a"}, "cannot be the name of a subvolume"),
        ({"path": "{folder}/none/a"}, "{folder}/none does not exist"),
        ({"path": "{folder}/a", "source": "b"}, "not an absolute path"),
        ({"path": "/proc/a"}, "/proc/a is on proc"),
        ({"path": "{folder}/a", "compression": "gzip"}, "value of compression must be one of"),
        ({"path": "{folder}/a", "read_only": True}, "read_only"),
    ],
)
def test_bad_input(btrfs_folder: Path, args: dict[str, Any], said: str) -> None:
    filled = {
        key: value.format(folder=btrfs_folder) if isinstance(value, str) else value for key, value in args.items()
    }
    assert said.format(folder=btrfs_folder) in refused(btrfs_folder, **filled)


def test_absent_is_what_it_is_already(btrfs_folder: Path) -> None:
    for path in (btrfs_folder / "a", btrfs_folder / "none" / "a", Path("/proc/a")):
        result = run_module(MODULE, texts({"path": path, "state": "absent"}))
        assert (result["changed"], result["steps"]) == (False, [])

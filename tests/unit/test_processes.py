"""Which processes use a folder, told by real processes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.cow import mounts, processes


@pytest.mark.parametrize("use", ["cd {folder}/in", "exec 3<{folder}/in/file", "exec 3>{folder}/new"])
def test_a_process_that_uses_a_folder_is_named(tmp_path: Path, use: str) -> None:
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "file").touch()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "folder2").mkdir()
    command = ["sh", "-c", f"{use.format(folder=folder)} && echo in && read line"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout
        user.stdout.readline()
        named = (f"sh (process {user.pid})",)
        assert processes.within(folder) == processes.within(tmp_path / "link") == named
        assert processes.within(tmp_path / "folder2") == ()
        shutil.rmtree(folder)
        assert processes.within(folder) == ()
        user.communicate(b"\n")


def test_a_program_that_runs_is_named(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/cat", program)
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as user:
        assert processes.within(tmp_path) == (f"program (process {user.pid})",)
        user.communicate()
    assert processes.within(tmp_path) == ()


def test_an_open_folder_counts(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_PATH)
    try:
        (named,) = processes.within(tmp_path)
        assert f"(process {os.getpid()})" in named
    finally:
        os.close(descriptor)


MOUNTED = "36 35 0:31 {root} {point} rw shared:{peers} master:{master} - btrfs /dev/vdb rw"


def copied(point: str, peers: int, master: int) -> processes.Elsewhere:
    line = MOUNTED.format(root="/tree", point=point, peers=peers, master=master)
    return processes.Elsewhere("sh (process 1)", mounts.parse(line.encode())[36])


def test_copies_of_a_mount_go_with_it_also_those_of_copies() -> None:
    own = copied("/own", 1, 0).mount
    peer, slave, of_slave = copied("/peer", 1, 0), copied("/slave", 2, 1), copied("/of-slave", 0, 2)
    others = (copied("/private", 0, 0), copied("/other", 3, 4))
    assert processes.staying((of_slave, slave, *others, peer), own) == others
    private = copied("/own", 0, 0).mount
    assert processes.staying((peer, *others), private) == (peer, *others)

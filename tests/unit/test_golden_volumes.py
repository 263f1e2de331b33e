"""The commands of the backend for volumes: they are run on OpenZFS in a virtual machine; here is what they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.golden import volumes
from ansible.module_utils.cow.golden.model import COMPLETE, Session
from ansible.module_utils.cow.golden.volumes import Volumes
from ansible.module_utils.cow.process import Finished
from ansible.module_utils.cow.zfs import Zfs

ALICE = Session("alice", 1, COMPLETE, "/srv/work/alice")
VOLUME = "tank/golden/p/sessions/alice"


class Recorder:
    """Answers commands by `answer`, and keeps those that are not questions."""

    def __init__(self, answer: Callable[[Sequence[str]], str] = lambda _: "") -> None:
        self.answer = answer
        self.commands: list[str] = []

    def __call__(self, argv: Sequence[str], **_: object) -> Finished:
        if argv[:2] != ["zfs", "get"] and "zvol_id" not in argv[0]:
            self.commands.append(" ".join(argv))
        return Finished(tuple(argv), 0, self.answer(argv), "")


def backend(recorder: Recorder, devices: Path = Path("/nonexistent")) -> Volumes:
    ticks = iter(range(1000))
    return Volumes(
        "tank/golden", Zfs(recorder), devices=devices, clock=lambda: float(next(ticks)), sleep=lambda _: None
    )


@pytest.mark.parametrize(("status", "why"), [(0, ""), (1, "out of space")])
def test_the_file_system_is_frozen_around_the_snapshot(tmp_path: Path, status: int, why: str) -> None:
    """Also when the snapshot fails: the script is run with programs that note how they were called."""
    for name, text in (("xfs_freeze", "exit 0"), ("zfs", f"echo {why} >&2; exit {status}")):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {tmp_path}/log\n{text}\n')
        (tmp_path / name).chmod(0o755)
    recorder = Recorder()
    backend(recorder).capture("p", 2, ALICE)
    assert recorder.commands[1].endswith(f" {VOLUME}@golden-2 tank/golden/p/generations/2")
    ended = subprocess.run(
        ["sh", "-c", volumes._FROZEN_SNAPSHOT, "sh", ALICE.path, f"{VOLUME}@golden-2"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr.strip()) == (status, why)
    assert (tmp_path / "log").read_text().splitlines() == [
        "xfs_freeze -f /srv/work/alice",
        f"zfs snapshot -o cowherd:kind=golden {VOLUME}@golden-2",
        "xfs_freeze -u /srv/work/alice",
    ]


def test_a_clone_has_no_options_that_volumes_do_not_have() -> None:
    recorder = Recorder()
    backend(recorder).claim("p", 1, ALICE)
    (clone,) = recorder.commands
    assert "mountpoint" not in clone
    assert "canmount" not in clone
    assert "cowherd:path=/srv/work/alice" in clone


def test_a_device_that_does_not_come_is_an_error() -> None:
    with pytest.raises(CowError, match=f"/nonexistent/zvol/{VOLUME} did not come within 30 s"):
        backend(Recorder()).mount("p", ALICE)


def test_a_device_of_another_volume_is_not_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "zvol" / VOLUME
    link.parent.mkdir(parents=True)
    link.symlink_to("/dev/zd0")
    monkeypatch.setattr(Path, "is_block_device", lambda _: True)
    answers = iter(["tank/other", "tank/other", VOLUME])
    recorder = Recorder(lambda argv: next(answers) + "\n" if "zvol_id" in argv[0] else "")
    path = tmp_path / "alice"
    backend(recorder, tmp_path)._mount(VOLUME, path)
    assert recorder.commands == [f"mount -t xfs -o nouuid,discard -- /dev/zd0 {path}"]
    assert next(answers, None) is None


def test_the_first_generation_is_an_empty_xfs() -> None:
    recorder = Recorder(lambda argv: "" if argv[1] != "get" else "tank/golden/p\tcowherd:kind\tproject\tlocal\n")
    made = backend(recorder)
    object.__setattr__(made, "_device", lambda _: Path("/dev/zd0"))
    made._create("tank/golden/p/generations/1", Path("/run/building"), "p")
    create, mkfs = recorder.commands
    assert create.startswith(
        f"zfs create -s -V {100 << 30} -o volblocksize=8K -o compression=lz4 -o dedup=off -o cowherd:kind=generation"
    )
    assert mkfs == "mkfs.xfs -q -K -- /dev/zd0"


def test_its_names_in_mountinfo() -> None:
    assert f"/nonexistent/zvol/{VOLUME}" in backend(Recorder())._sources(VOLUME)
    assert volumes._MOUNT_OPTIONS.split(",")[0] == "nouuid"

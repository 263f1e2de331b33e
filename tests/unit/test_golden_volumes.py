"""The commands of the backend for volumes: they are run on OpenZFS in a virtual machine; here is what they are."""

from __future__ import annotations

import os
import signal
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
from tests.support import waiting

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


SNAPSHOT = f"{VOLUME}@golden-2"
FREEZE, TAKE, THAW = (
    "xfs_freeze -f /srv/work/alice", f"zfs snapshot -o cowherd:kind=golden {SNAPSHOT}", "xfs_freeze -u /srv/work/alice",
)  # fmt: skip


def start(folder: Path, zfs: str, within: float = 60.0) -> subprocess.Popen[str]:
    """Run the script with programs that note how they were called; that one of ZFS does `zfs` then."""
    for name, text in (("xfs_freeze", "exit 0"), ("zfs", zfs)):
        (folder / name).write_text(f'#!/bin/sh\necho "${{0##*/}} $*" >> {folder}/log\n{text}\n')
        (folder / name).chmod(0o755)
    return subprocess.Popen(
        volumes._frozen_snapshot(ALICE.path, SNAPSHOT, within),
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def noted(folder: Path) -> list[str]:
    log = folder / "log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.mark.parametrize(("status", "why"), [(0, ""), (1, "out of space")])
def test_the_file_system_is_frozen_around_the_snapshot(tmp_path: Path, status: int, why: str) -> None:
    """Also when the snapshot fails."""
    recorder = Recorder()
    backend(recorder).capture("p", 2, ALICE)
    assert recorder.commands[0] == " ".join(volumes._frozen_snapshot(ALICE.path, SNAPSHOT))
    assert recorder.commands[1].endswith(f" {SNAPSHOT} tank/golden/p/generations/2")
    script = start(tmp_path, f"echo {why} >&2; exit {status}")
    said = script.communicate()[1].strip()
    assert (script.returncode, said) == (status, why)
    assert noted(tmp_path) == [FREEZE, TAKE, THAW]


def test_it_is_thawed_when_everything_is_told_to_end(tmp_path: Path) -> None:
    """As systemd does with what a service has started; `timeout` has made a group of processes."""
    script = start(tmp_path, "exec sleep 600")
    waiting.until(lambda: TAKE in noted(tmp_path))
    os.killpg(script.pid, signal.SIGTERM)
    assert "ended from outside" in script.communicate()[1]
    assert script.returncode != 0
    assert noted(tmp_path) == [FREEZE, TAKE, THAW]


def test_it_is_thawed_while_the_snapshot_hangs(tmp_path: Path) -> None:
    script = start(tmp_path, f"trap '' TERM; until [ -e {tmp_path}/go ]; do sleep 0.1; done", within=0.5)
    try:
        waiting.until(lambda: THAW in noted(tmp_path))
        assert noted(tmp_path) == [FREEZE, TAKE, THAW]
    finally:
        (tmp_path / "go").touch()
        script.communicate()
    assert script.returncode == 124


def test_it_is_thawed_when_the_command_is_killed(tmp_path: Path) -> None:
    script = start(tmp_path, f"until [ -e {tmp_path}/go ]; do sleep 0.1; done")
    waiting.until(lambda: TAKE in noted(tmp_path))
    script.kill()
    script.wait()
    (tmp_path / "go").touch()
    script.communicate()
    assert noted(tmp_path) == [FREEZE, TAKE, THAW]


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

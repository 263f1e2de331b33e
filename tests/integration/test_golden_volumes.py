"""What of volumes needs an XFS and no ZFS."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.module_utils.cow import kernel, mounts
from ansible.module_utils.cow.golden.volumes import Volumes

from tests.support import loops, needs

VOLUME = "tank/golden/p/sessions/alice"


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Path]:
    """An XFS that is frozen."""
    needs.root("a file system is mounted")
    with loops.xfs(tmp_path / "image", tmp_path / "mounted", size=300 << 20) as folder:
        freeze(folder)
        try:
            yield folder
        finally:
            kernel.thaw(folder)


def freeze(folder: Path) -> int:
    return subprocess.run(["xfs_freeze", "-f", folder], stderr=subprocess.DEVNULL, check=False).returncode


def volumes(tmp_path: Path, session: Path) -> Volumes:
    """The backend, for which the device of the session is that of a volume."""
    (device,) = {mount.source for mount in mounts.every() if mount.mount_point == session}
    link = tmp_path / "zvol" / VOLUME
    link.parent.mkdir(parents=True)
    link.symlink_to(device)
    return Volumes("tank/golden", devices=tmp_path)


def test_a_session_that_was_left_frozen_is_thawed(tmp_path: Path, session: Path) -> None:
    assert freeze(session) != 0
    backend = volumes(tmp_path, session)
    backend._thaw("tank/golden/p/sessions/bob", session)
    assert freeze(session) != 0
    backend._thaw(VOLUME, session)
    backend._thaw(VOLUME, session)
    assert freeze(session) == 0


def test_a_session_that_was_left_frozen_is_unmounted(tmp_path: Path, session: Path) -> None:
    """A frozen file system lives on when it is unmounted, and then nobody can thaw it or have its device."""
    backend = volumes(tmp_path, session)
    backend._unmount(VOLUME, session)
    subprocess.run(["mkfs.xfs", "-q", "-f", tmp_path / "image"], check=True)
    subprocess.run(["mount", "-o", "loop", tmp_path / "image", session], check=True)
    assert freeze(session) == 0

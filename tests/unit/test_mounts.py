from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible.module_utils.cow import mounts
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.mounts import Mount
from ansible.module_utils.cow.size import Size

TABLE = (
    rb"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
43 22 0:39 /@home /home rw,relatime shared:1 master:2 - btrfs /dev/sda2 rw,subvolid=256,subvol=/@home
44 22 0:40 / /srv/with\040space\011tab\134slash rw - fuse.sshfs me@host:/dir rw,user_id=0
"""
    b"45 22 0:41 / /odd\xff\r rw -   rw\n"
)


def test_parse() -> None:
    table = mounts.parse(TABLE)
    assert table[43] == Mount(
        fstype="btrfs",
        source="/dev/sda2",
        mount_point=Path("/home"),
        options=("rw", "relatime", "subvolid=256", "subvol=/@home"),
        root=Path("/@home"),
        device="0:39",
        parent=22,
        peers=1,
        master=2,
    )
    assert (table[22].peers, table[22].master) == (0, 0)
    assert table[22].options == ("rw", "relatime", "discard")
    assert table[44].mount_point == Path("/srv/with space\ttab\\slash")
    assert table[44].fstype == "fuse.sshfs"
    assert os.fsencode(table[45].mount_point) == b"/odd\xff\r"


def test_inside_is_seen_from_the_top_of_the_file_system() -> None:
    assert mounts.parse(TABLE)[43].inside(Path("/home/me/x")) == Path("/@home/me/x")


def test_every_is_the_kernel_s_own_table() -> None:
    points = [mount.mount_point for mount in mounts.every()]
    assert len(points) == len(Path("/proc/self/mountinfo").read_bytes().splitlines())
    assert Path("/proc") in points


@pytest.mark.parametrize("path", ["/proc", "/proc/none/at/all", "/proc/self/status"])
def test_under_proc(path: str) -> None:
    mount = mounts.under(Path(path))
    assert (mount.fstype, mount.mount_point) == ("proc", Path("/proc"))


def test_under_follows_links_and_takes_the_nearest_that_exists(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert mounts.under(link).fstype == "proc"
    assert mounts.under(link / "none" / "none").fstype == "proc"
    assert mounts.under(tmp_path / "none").mount_point == mounts.under(tmp_path).mount_point


def test_existing(tmp_path: Path) -> None:
    assert mounts.existing(tmp_path / "none" / "none") == tmp_path
    assert mounts.existing(tmp_path) == tmp_path


def test_free_is_what_an_ordinary_user_may_write(tmp_path: Path) -> None:
    assert mounts.free(Path("/proc")) == Size(0)
    status = os.statvfs(tmp_path)
    whole = Size(status.f_blocks * status.f_frsize)
    assert Size(0) < mounts.free(tmp_path / "none") < whole


def test_what_is_no_path_is_refused() -> None:
    with pytest.raises(CowError, match="cannot be looked at"):
        mounts.under(Path("/" + "x" * 300))

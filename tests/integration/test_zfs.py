"""What is read of datasets, from a ZFS in user space of the test's own.

It runs where it sees no socket, lock or cache of another: it would import the pools in the cache, though they are in
use there. It ends with all its mounts when the test does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.ansible import ROOT

_ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_PROGRAM = """\
set -e
for folder in /run /var/lib /etc/zfs; do mount -t tmpfs tmpfs "$folder"; done
mkdir /run/lock /run/zfs /var/lib/zfs
zfs-fuse --no-daemon --no-kstat-mount &
until zpool list > "$1/log" 2>&1; do kill -0 $! && sleep 0.1; done
zpool create -m none tank "$1/disk"
for name in empty files parent parent/child snapshot unmounted; do zfs create "tank/$name"; done
for name in empty files unmounted; do zfs set "mountpoint=$1/$name" "tank/$name"; done
echo word > "$1/files/letter"
head -c 2M /dev/urandom > "$1/unmounted/data"
zfs unmount tank/unmounted
zfs snapshot tank/snapshot@now
exec "$2" -P -c "$3"
"""
_READ = """\
import json
from ansible.module_utils.cow import zfs
names = "empty", "files", "parent", "snapshot", "unmounted", "missing"
found = {name: zfs.find(f"tank/{name}") for name in names}
print(json.dumps({name: dataset and dataset.content for name, dataset in found.items()}))
"""


@pytest.fixture
def program() -> None:
    """Skip unless a ZFS in user space can run here."""
    needs.root("a ZFS in user space mounts file systems")
    for name in ("zfs-fuse", "unshare"):
        needs.program(name)
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse: the kernel has no FUSE, or this container may not use it")


@pytest.mark.usefixtures("program")
def test_only_a_dataset_without_anything_in_it_is_empty(tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as disk:
        disk.truncate(128 << 20)
    finished = subprocess.run(
        [*_ALONE, "sh", "-c", _PROGRAM, "sh", tmp_path, sys.executable, _READ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests/support/importable")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout.splitlines()[-1]) == {
        "empty": "",
        "files": "it holds letter",
        "parent": "it holds tank/parent/child",
        "snapshot": "it holds tank/snapshot@now",
        "unmounted": "it holds 2.1 MiB",
        "missing": None,
    }

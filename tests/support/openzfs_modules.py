"""The checks of `zfs_modules` on OpenZFS: `python3 -m support.openzfs_modules` prints a line of JSON for each.

For a virtual machine that has OpenZFS, this folder as `support`, `library` and `module_utils` beside it, and the
`ansible/module_utils` of ansible-core. Modules are forked from this process, which has loaded what they import, for
Python takes seconds to start there.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from . import zfs_modules
from .ansible import Result
from .zfs_modules import Zfs, four

ROOT = Path(__file__).parents[1]


class _OpenZfs:
    def run(self, *argv: str) -> str:
        finished = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, f"{argv}: {finished.stderr}"
        return finished.stdout

    def module(self, name: str, args: Mapping[str, Any], check: bool = False) -> Result:
        given = {**args, "_ansible_check_mode": check, "_ansible_diff": True}
        with tempfile.TemporaryFile() as printed:
            process = os.fork()
            if not process:
                _be(ROOT / f"library/{name}.py", given, printed)
            os.waitpid(process, 0)
            printed.seek(0)
            result: Result = json.loads(printed.read())
        return result


def _be(module: Path, args: Mapping[str, Any], printed: BinaryIO) -> NoReturn:
    try:
        os.dup2(printed.fileno(), 1)
        with import_module("ansible.module_utils.testing").patch_module_args(args):
            runpy.run_path(str(module), run_name="__main__")
    except SystemExit:
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)  # whatever came, for all else is the parent's to do


@contextmanager
def _pool(zfs: Zfs, name: str) -> Iterator[str]:
    """A pool in memory, as the checks begin with, during the block."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        disk = Path(folder, "disk")
        with disk.open("wb") as file:
            file.truncate(256 << 20)
        zfs.run("zpool", "create", "-m", "none", name, str(disk))
        try:
            yield zfs_modules.begun(zfs, name)
        finally:
            zfs.run("zpool", "destroy", name)


def a_snapshot_is_held(zfs: Zfs, pool: str) -> None:
    """Which zfs-fuse cannot tell of."""
    name = f"{pool}/golden@held"
    held = four(zfs, pool, "zfs_snapshot", name=name, holds=["release-7", "keep"])
    assert held.do["steps"][0] == f"take snapshot {name}"
    assert sorted(held.again["holds"]) == ["keep", "release-7"]
    refused = zfs_modules.refused(zfs, pool, "zfs_snapshot", name=name, state="absent")
    assert "release-7" in refused, refused
    more = four(zfs, pool, "zfs_snapshot", name=name, holds=["more"])
    assert sorted(more.again["holds"]) == ["keep", "more", "release-7"]
    assert zfs.run("zfs", "get", "-Hp", "-o", "value", "userrefs", name) == "3\n"
    gone = four(zfs, pool, "zfs_snapshot", name=name, state="absent", release=True)
    assert gone.do["steps"][-1] == f"destroy {name}"


CHECKS = (*zfs_modules.CHECKS, a_snapshot_is_held)


def main() -> None:
    """Make all checks, each on a pool of its own."""
    (ROOT / "ansible/__init__.py").touch()
    import_module("ansible.module_utils").__path__.append(str(ROOT / "module_utils"))
    for name in ("testing", "basic", "cow.plan", "cow.zfs_clones", "cow.zfs_snapshots"):
        import_module(f"ansible.module_utils.{name}")
    zfs = _OpenZfs()
    for number, check in enumerate(CHECKS):
        failure = ""
        try:
            with _pool(zfs, f"modules{number}") as pool:
                check(zfs, pool)
        except AssertionError:
            failure = traceback.format_exc()
        sys.stdout.write(f"{json.dumps({'check': check.__name__, 'failure': failure})}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""zfs_clone and zfs_snapshot on a ZFS in user space."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import zfs_fuse, zfs_modules
from tests.support.ansible import Result, run_module
from tests.support.zfs_fuse import ZfsFuse
from tests.support.zfs_modules import Zfs, refused


@dataclass(frozen=True)
class Fuse:
    """For the checks that are made on OpenZFS too."""

    fuse: ZfsFuse

    def run(self, *argv: str) -> str:
        return self.fuse.run(*argv)

    def module(self, name: str, args: Mapping[str, Any], check: bool = False) -> Result:
        return run_module(name, args, check, within=self.fuse.within)


@pytest.fixture(scope="module")
def fuse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuse]:
    with zfs_fuse.running(tmp_path_factory.mktemp("zfs")) as running:
        yield Fuse(running)


@pytest.fixture
def pool(fuse: Fuse) -> str:
    return zfs_modules.begun(fuse, fuse.fuse.pool())


@pytest.mark.parametrize("check", zfs_modules.CHECKS, ids=lambda check: check.__name__)
def test_what_holds_on_any_zfs(fuse: Fuse, pool: str, check: Callable[[Zfs, str], None]) -> None:
    check(fuse, pool)


def test_a_snapshot_is_held(fuse: Fuse, pool: str) -> None:
    """Holds are taken; to list them is what zfs-fuse cannot do, so that the second run is for OpenZFS."""
    name = f"{pool}/golden@held"
    done = fuse.module("zfs_snapshot", {"name": name, "holds": ["release-7"]}, check=True)
    assert done["steps"] == [f"take snapshot {name}", f"hold {name} with the tag release-7"]
    fuse.module("zfs_snapshot", {"name": name, "holds": ["release-7"]})
    assert fuse.run("zfs", "get", "-Hp", "-o", "value", "userrefs", name) == "1\n"


@pytest.mark.parametrize(
    ("module", "args", "said"),
    [
        ("zfs_clone", {"name": "{pool}", "origin": "{pool}/golden@monday"}, "is a pool"),
        ("zfs_clone", {"name": "{pool}/work/-a", "origin": "{pool}/golden@monday"}, "is not a dataset"),
        ("zfs_clone", {"name": "{pool}/work/a", "origin": "{pool}/golden"}, "is not a snapshot"),
        ("zfs_clone", {"name": "{pool}/work/a", "origin": "{pool}/golden@none"}, "golden@none does not exist"),
        ("zfs_clone", {"name": "{pool}/none/a", "origin": "{pool}/golden@monday"}, "{pool}/none does not exist"),
        ("zfs_clone", {"name": "{pool}/work/a"}, "origin"),
        ("zfs_clone", {"name": "{pool}/golden", "origin": "{pool}/golden@monday"}, "is not a clone"),
        ("zfs_clone", {"name": "{pool}/golden", "state": "absent"}, "only copy"),
        ("zfs_snapshot", {"name": "{pool}/golden"}, "is not a snapshot"),
        ("zfs_snapshot", {"name": "{pool}/none@a"}, "{pool}/none does not exist"),
        ("zfs_snapshot", {"name": "{pool}/golden@a", "properties": {"atime": "off"}}, "user properties"),
        ("zfs_snapshot", {"name": "{pool}/golden@a", "holds": ["a b"]}, "tag of a hold"),
    ],
)
def test_bad_input(fuse: Fuse, pool: str, module: str, args: dict[str, Any], said: str) -> None:
    filled = {key: value.format(pool=pool) if isinstance(value, str) else value for key, value in args.items()}
    assert said.format(pool=pool) in refused(fuse, pool, module, **filled)

"""Private daemons and file systems for integration tests, and the watch that nothing of them stays."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from ansible.module_utils.cow import kernel

from tests.support import golden, images, leftovers, needs, programs
from tests.support.golden import Place, Store
from tests.support.incusd import Incusd, running
from tests.support.loops import btrfs


@pytest.fixture(scope="session", autouse=True)
def nothing_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails when a process, mount or device stays. Set up before, so taken down after, all other session fixtures.

    What is mounted meanwhile is seen by no namespace of another session, which would keep the device behind it busy.
    """
    with kernel.own_mounts() if os.geteuid() == 0 else nullcontext():
        leftovers.sweep_dead_sessions()
        with programs.quick():
            yield
        left = leftovers.find(str(tmp_path_factory.getbasetemp()))
        assert not left, f"the tests left behind: {'; '.join(left)}"


@pytest.fixture(scope="session")
def shared_incusd() -> Iterator[Incusd]:
    """The daemon of the session; tests take `incusd`."""
    needs.incus()
    with running() as daemon:
        yield daemon


@pytest.fixture
def incusd(shared_incusd: Incusd) -> Iterator[Incusd]:
    """A private daemon with nothing in it: no pool, network, image, instance or project but what it starts with."""
    yield shared_incusd
    shared_incusd.clean()


@pytest.fixture(scope="session")
def busybox_image(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The metadata tar and the squashfs of the small image."""
    return images.busybox_image(tmp_path_factory.mktemp("busybox"))


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    """A new store of golden trees in the `place` of the module."""
    with golden.store(place) as made:
        yield made


@pytest.fixture
def btrfs_folder(tmp_path: Path) -> Iterator[Path]:
    """A mounted, empty btrfs of 1 GiB on a loop device."""
    needs.root("a btrfs is mounted")
    needs.program("mkfs.btrfs")
    with btrfs(tmp_path / "btrfs.img", tmp_path / "btrfs") as folder:
        yield folder

"""What the tests share of which each works in virtual machines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import nothing_left
from tests.support import leftovers, needs
from tests.support.vm import bootable, machine, qemu

__all__ = ["nothing_left"]


@pytest.fixture(scope="session")
def bootable_tree() -> Iterator[Path]:
    """The tree of a small Debian, to which tests may add files; `id` beside it is the key of its root."""
    needs.root("owners of files are kept, and a chroot makes the initial RAM disk")
    for program in ("mmdebstrap", "qemu-img", qemu.PROGRAM, "ssh"):
        needs.program(program)
    folder = leftovers.new_folder()
    try:
        yield bootable.unpack(folder)
    finally:
        leftovers.remove(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for a test, in which `vm` is for its machine."""
    folder = leftovers.new_folder()
    yield folder
    machine.down(folder / "vm")
    leftovers.remove(folder)

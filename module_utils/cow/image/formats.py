"""The formats that images are made in. A new one is loaded here, and named in the module's choices."""

# Of a run that has nothing to build, most is loading and, as Ansible sends its modules, compiling.
# ruff: noqa: PLC0415
from __future__ import annotations

from collections.abc import Callable, Mapping

from .job import Builder


def builder(name: str) -> Builder:
    """Return what makes images of a format; only its own module is loaded."""
    return _BUILDERS[name]()


def _ext4() -> Builder:
    from .ext4 import Ext4

    return Ext4()


def _squashfs() -> Builder:
    from .squashfs import Squashfs

    return Squashfs()


def _erofs() -> Builder:
    from .erofs import Erofs

    return Erofs()


def _btrfs() -> Builder:
    from .btrfs import Btrfs

    return Btrfs()


_BUILDERS: Mapping[str, Callable[[], Builder]] = {
    "ext4": _ext4,
    "squashfs": _squashfs,
    "erofs": _erofs,
    "btrfs": _btrfs,
}

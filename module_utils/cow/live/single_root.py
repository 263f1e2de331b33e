"""What becomes of the roots of a seed in a file system that has all of them, and is to have one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import btrfs
from ..btrfs import Btrfs
from ..errors import CowError
from ..image import workshop
from ..process import CommandFailed
from . import seed as seeds
from .seed import Seed


@contextmanager
def unfinished_in_words(seed: Seed) -> Iterator[None]:
    """Say of a failure during the block that it leaves an unfinished installation, and why it may have failed."""
    try:
        yield
    except workshop.NoRoom as error:
        raise CowError(
            "The target is too small: there was no space left on it. It is marked as unfinished. Give a larger one."
        ) from error
    except CommandFailed as error:
        raise CowError(_in_words(error, seed)) from error


def _in_words(error: CommandFailed, seed: Seed) -> str:
    if "Input/output error" in error.finished.stderr:
        return (
            f"The seed {seed.path} is damaged, or a device fails: {error.finished.stderr.strip()} Verify the seed with "
            f"live_image (state: verified). The target is marked as unfinished."
        )
    return f"{error} The target is marked as unfinished."


def keep_only(point: Path, root: str, tool: Btrfs) -> None:
    """Delete all that is in the file system at `point` besides one root."""
    (point / seeds.DESCRIPTION).unlink(missing_ok=True)
    own = point / root
    others = [each for each in btrfs.nested(point) if not each.path.is_relative_to(own)]
    for each in others:
        if each.readonly and not each.received_uuid and btrfs.nested(each.path):
            tool.set_readonly(each.path, readonly=False)
    for each in others:
        tool.delete(each.path)
    if others:
        tool.await_deletions(point)


def make_default(path: Path, tool: Btrfs) -> None:
    """Have the root at `path` mounted when none is named, for writing."""
    _make_writable(path, tool)
    tool.set_default(path)


def _make_writable(path: Path, tool: Btrfs) -> None:
    """Take a snapshot instead of a read-only root: one that was received is never made writable itself."""
    found = btrfs.at(path)
    if found is None or not found.readonly:
        return
    draft = path.with_name(f".{path.name}.writable")
    tool.snapshot(path, draft, readonly=False)
    tool.delete(path)
    draft.rename(path)


def used_bytes(device: str) -> int:
    """Return what the file system that was installed on a device takes there."""
    found = btrfs.superblock(Path(device))
    if found is None or found.seed or found.devices != 1:
        raise CowError(f"What was installed on {device} is not a btrfs of one device. Look at the kernel log.")
    return found.used_bytes

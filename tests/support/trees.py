"""File trees for tests: everything that a copy can lose, made from a seed."""

from __future__ import annotations

import os
import random
import socket
import stat
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service=ep, as in security.capability (capabilities(7), version 2)."""

ODD_NAMES = (b"with space", b"new\nline", b"-n", b"\xff\xfe", "grün".encode(), b"x" * 255, b"quote'\"\\", b"*", b"...")


def acl(user: int, *, default: bool = False) -> bytes:
    """An ACL that lets one more user read, as in system.posix_acl_access (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, 4, user), (4, 4, nobody), (16, 4, nobody), (32, 0 if default else 4, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@contextmanager
def hostile(folder: Path, seed: int = 1) -> Iterator[Path]:
    """A tree with every kind of file and attribute in the new `folder`; its flags are taken away at the end."""
    make_hostile(folder, seed)
    try:
        yield folder
    finally:
        let_go(folder)


def let_go(folder: Path) -> None:
    """Take away the flags that keep anybody from deleting the tree."""
    subprocess.run(
        ["chattr", "-R", "-f", "-i", "-a", folder], stdin=subprocess.DEVNULL, capture_output=True, check=False
    )


def make_hostile(folder: Path, seed: int = 1, depth: int = 400, *, flags: bool = True) -> None:
    """Make the tree of `hostile` without taking it away; `depth` is that of its deepest folder.

    flags: also those of chattr(1), which not every file system has.
    """
    dice = random.Random(seed)
    folder.mkdir()
    top = os.fsencode(folder)
    _plain(top, dice)
    _odd_names(top)
    _special(top)
    _links(top)
    _sparse(top, dice)
    _attributes(top)
    _deep(top, depth)
    _times(top, dice)
    if flags:
        _flags(folder)


def write(path: bytes, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)


def _plain(top: bytes, dice: random.Random) -> None:
    for number in range(40):
        parent = top + b"/dir%d/sub%d" % (number % 4, number % 3)
        os.makedirs(parent, exist_ok=True)
        write(parent + b"/file%d" % number, dice.randbytes(dice.choice((0, 1, 100, 4096, 5000, 200_000))))
    os.mkdir(top + b"/empty")


def _odd_names(top: bytes) -> None:
    os.mkdir(top + b"/odd")
    for name in ODD_NAMES:
        write(top + b"/odd/" + name, name)
        os.symlink((name * 1000)[:1000], top + b"/odd/" + b"l" + name[:254])


def _special(top: bytes) -> None:
    os.mkfifo(top + b"/fifo", 0o640)
    os.mknod(top + b"/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(top + b"/block", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(top)  # the path of a socket may have 108 bytes
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
    os.symlink(b"/nowhere", top + b"/dangling")
    os.symlink(b"/etc", top + b"/outside")


def _links(top: bytes) -> None:
    write(top + b"/dir0/first", b"one file")
    for number in range(5):
        os.link(top + b"/dir0/first", top + b"/dir%d/again%d" % (number % 4, number))
    os.link(top + b"/dangling", top + b"/dir1/dangling", follow_symlinks=False)
    write(top + b"/kept", b"immutable with two names")
    os.link(top + b"/kept", top + b"/dir2/kept")


def _sparse(top: bytes, dice: random.Random) -> None:
    with open(top + b"/sparse", "xb") as file:
        for start in (0, 10 << 20, 1 << 32):
            file.seek(start + 4096 * 3)
            file.write(dice.randbytes(4096))
        file.truncate(1 << 34)
    write(top + b"/zeros", bytes(300_000))
    with open(top + b"/hole", "xb") as file:
        file.truncate(1 << 20)


def _attributes(top: bytes) -> None:
    write(top + b"/setuid", b"#!")
    os.chown(top + b"/setuid", 1000, 1001)
    os.chmod(top + b"/setuid", 0o6755)
    os.setxattr(top + b"/setuid", "user.note", bytes(range(256)))
    write(top + b"/capable", b"#!")
    os.chown(top + b"/capable", 12, 34)
    os.setxattr(top + b"/capable", "security.capability", CAPABILITY)
    os.setxattr(top + b"/capable", "trusted.overlay.opaque", b"y")
    write(top + b"/shared", b"acl")
    os.setxattr(top + b"/shared", "system.posix_acl_access", acl(1234))
    os.mkdir(top + b"/inherit")
    os.mkdir(top + b"/inherit/below")
    write(top + b"/inherit/below/file", b"no acl of its own")
    os.setxattr(top + b"/inherit", "system.posix_acl_default", acl(4321, default=True))
    os.mkdir(top + b"/sticky")
    os.chmod(top + b"/sticky", 0o1777)
    os.mkdir(top + b"/closed")
    write(top + b"/closed/file", b"not readable")
    os.chmod(top + b"/closed/file", 0)
    os.chmod(top + b"/closed", 0)
    os.chown(top, 100, 200)
    os.chmod(top, 0o2750)


def _deep(top: bytes, depth: int) -> None:
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(depth):  # by default longer than PATH_MAX in all
        os.mkdir(b"a folder in a folder", dir_fd=descriptor)
        below = os.open(b"a folder in a folder", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open(b"bottom", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def _times(top: bytes, dice: random.Random) -> None:
    for _, folders, files, parent in os.fwalk(top, topdown=False):
        for name in sorted((*files, *folders)):
            moment = dice.randrange(1, 1 << 60)
            os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)


def _flags(folder: Path) -> None:
    for flag, name in (("+i", "kept"), ("+a", "dir3"), ("+i", "empty"), ("+d", "zeros"), ("+i", "dir0/sub0")):
        subprocess.run(["chattr", flag, folder / name], stdin=subprocess.DEVNULL, check=True)

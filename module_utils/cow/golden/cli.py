"""`cow-session`: sessions of golden trees for services that make them at run time.

Prints one JSON document on standard output, also on failure ({"error": a word, "msg": a sentence}).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import CowError
from .refusals import Refusal

CONFIGURATION = "/etc/cowherd/golden.json"
BACKENDS = ("zfs", "zvol", "btrfs", "reflink", "copy")
OPTIONS = ("store", "backend", "expect", "reserve", "keep", "volume_size", "grace")
"""What the configuration may set, and an option of the command line overrides."""
STATUSES = """\
exit status:
  0  done, also where nothing was left to do
  1  refused or failed; "msg" says why
  2  the command line cannot be understood
  3  there is no such project, generation or session
  4  there is one already, or its path is taken
  5  it is in use: mounted and busy, has sessions, or another run is changing it
  6  the store has less free space than is to be kept
  7  garbage collection failed for some, and went on with the others
"""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="cow-session",
        description="Clones golden file trees for sessions. Prints JSON.",
        epilog=STATUSES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--config", default=CONFIGURATION, metavar="FILE", help=f"JSON object of {', '.join(OPTIONS)}")
    top.add_argument("--store", help="folder, or ZFS dataset as POOL/NAME")
    top.add_argument("--backend", choices=("auto", *BACKENDS), help="how trees are kept (auto)")
    top.add_argument("--expect", choices=BACKENDS, help="fail when it comes to another backend")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    clone = commands.add_parser("clone", help="make a session from the current generation")
    _names(clone, "project", "session")
    clone.add_argument("--at", metavar="PATH", help="where to mount it: an empty folder, or nothing yet")
    clone.add_argument("--generation", type=int, metavar="N", help="clone this generation and not the current one")
    clone.add_argument("--reserve", metavar="SIZE", help="free space at or under which it is refused (2%%)")

    promote = commands.add_parser("promote", help="make a session or a folder the next generation")
    promote.add_argument("project")
    what = promote.add_mutually_exclusive_group(required=True)
    what.add_argument("session", nargs="?")
    what.add_argument("--source", metavar="FOLDER")
    promote.add_argument("--keep", type=int, metavar="N", help="complete generations to keep (3)")
    promote.add_argument("--volume-size", metavar="SIZE", help="of the first volume with the backend zvol (100GiB)")

    destroy = commands.add_parser("destroy", help="unmount a session and destroy what was written in it")
    _names(destroy, "project", "session")

    listing = commands.add_parser("list", help="list projects, generations and sessions, and what they take")
    listing.add_argument("project", nargs="?")
    listing.add_argument("--no-sizes", action="store_true", help="do not measure, which looks at each file")

    collect = commands.add_parser("gc", help="finish what was interrupted, remove superseded generations")
    collect.add_argument("project", nargs="?")
    collect.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    collect.add_argument("--keep", type=int, metavar="N", help="complete generations to keep (3)")
    collect.add_argument("--grace", type=int, metavar="SECONDS", help="leave what is younger alone (3600)")

    mount = commands.add_parser("mount", help="mount sessions again, as after a reboot")
    mount.add_argument("project", nargs="?")
    mount.add_argument("session", nargs="?")
    return top


def _names(command: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        command.add_argument(name)

"""The command line; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .image import image
from .machine import down, up
from .process import MachineError
from .qemu import Hardware


def main() -> int:
    """Start or end one machine."""
    arguments = _parser().parse_args()
    try:
        if arguments.action == "down":
            down(arguments.folder)
        else:
            hardware = Hardware(memory=arguments.memory, disks=tuple(arguments.disk))
            machine = up(arguments.folder, image(arguments.package), hardware)
            json.dump(machine.host_variables, sys.stdout)
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.support.vm", description="Debian machines for tests.")
    actions = parser.add_subparsers(dest="action", required=True)
    start = actions.add_parser("up", help="start a new machine, print Ansible's variables for it")
    start.add_argument("--memory", type=int, default=Hardware.memory, metavar="MIB")
    start.add_argument(
        "--disk", action="append", default=[], metavar="SIZE", help="an empty disk besides; may be repeated"
    )
    start.add_argument(
        "--package", action="append", default=[], metavar="NAME", help="installed besides; may be repeated"
    )
    end = actions.add_parser("down", help="end the machine and delete what it wrote")
    for action in (start, end):
        action.add_argument("folder", type=Path, help="of the machine; what is there is replaced")
    return parser


if __name__ == "__main__":
    sys.exit(main())

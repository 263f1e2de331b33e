"""The command line; see the package."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .image import RELEASE, Image, image
from .machine import Machine, boot, boot_again, down, up
from .process import MachineError
from .qemu import QUIET, Hardware


def main() -> int:
    """Start or end one machine."""
    arguments = _parser().parse_args()
    try:
        if arguments.action == "down":
            down(arguments.folder)
        else:
            machine = _started(arguments)
            for source, target in arguments.bring:
                machine.bring(source, target)
            json.dump(machine.host_variables, sys.stdout)
    except MachineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _started(arguments: argparse.Namespace) -> Machine:
    disks = tuple(arguments.disk)
    if arguments.action == "up":
        return up(arguments.folder, image(arguments.package), Hardware(memory=arguments.memory, disks=disks))
    hardware = Hardware(memory=arguments.memory, disks=disks, boot=f"{arguments.boot} {QUIET}")
    start = boot_again if arguments.again else boot
    return start(arguments.folder, Image(arguments.image, RELEASE), hardware)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.support.vm", description="Debian machines for tests.")
    actions = parser.add_subparsers(dest="action", required=True)
    start = actions.add_parser("up", help="start a new machine, print Ansible's variables for it")
    start.add_argument(
        "--package", action="append", default=[], metavar="NAME", help="installed besides; may be repeated"
    )
    boot = actions.add_parser("boot", help="the same with a disk of your own, booted and not resumed")
    boot.add_argument("--image", type=Path, required=True, help="folder with disk.raw, vmlinuz, initrd and id")
    boot.add_argument("--boot", required=True, metavar="OPTIONS", help="what the kernel is told")
    boot.add_argument("--again", action="store_true", help="with the disks that the machine in the folder has")
    for action in (start, boot):
        action.add_argument("--memory", type=int, default=Hardware.memory, metavar="MIB")
        action.add_argument(
            "--disk", action="append", default=[], metavar="SIZE", help="an empty disk besides; may be repeated"
        )
        action.add_argument(
            "--bring",
            action="append",
            nargs=2,
            type=Path,
            default=[],
            metavar=("FOLDER", "PATH"),
            help="copy what is in a folder to a new one in the machine; may be repeated",
        )
    end = actions.add_parser("down", help="end the machine and delete what it wrote")
    for action in (start, boot, end):
        action.add_argument("folder", type=Path, help="of the machine; what is there is replaced")
    return parser


if __name__ == "__main__":
    sys.exit(main())

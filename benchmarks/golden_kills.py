"""What golden trees are after cow-session was killed before each change that it makes, on each technology."""

from __future__ import annotations

import base64
import io
import json
import shlex
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import yaml
from ansible.module_utils.cow import kernel
from tests.support import golden, golden_kills, openzfs_kills
from tests.support.ansible import ROOT
from tests.support.golden_kills import Outcome
from tests.support.vm import machine
from tests.support.vm.image import image
from tests.support.vm.machine import Machine
from tests.support.vm.qemu import Hardware

_HEAD = """\
| backend | operation | kills | before | done all the same | all whole after |
|---|---|---:|---|---:|---:|
"""
_WITHIN = 3600.0
"""Seconds for all operations in a machine that is emulated."""
_MAKE_PROGRAM = f"""\
from pathlib import Path
from cow.golden import program
file = Path({str(openzfs_kills.PROGRAM)!r})
file.write_bytes(program.build())
file.chmod(0o755)
"""


def measure() -> str:
    """Kill it on what the kernel here has, and return the table."""
    outcomes = []
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch, kernel.own_mounts():
        for backend in golden.BACKENDS:
            folder = Path(scratch, backend)
            folder.mkdir()
            with golden.place(backend, folder) as place:
                for operation in golden_kills.OPERATIONS:
                    with golden.store(place) as store:
                        outcomes.append(golden_kills.outcome(store, operation))
    return _table(outcomes)


def measure_openzfs() -> str:
    """Kill it on OpenZFS, in the virtual machine of the scenario `zfs`, and return the table."""
    variables = yaml.safe_load((ROOT / "molecule/zfs/inventory/hosts.yml").read_text())["incus_hosts"]["vars"]
    hardware = Hardware(memory=variables["vm_memory"], disks=tuple(variables["vm_disks"]))
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as scratch,
        machine.running(Path(scratch, "vm"), image(variables["vm_packages"]), hardware) as vm,
    ):
        _bring(vm)
        printed = "".join(
            vm.run(f"cd /root && python3 -m support.openzfs_kills {backend}", timeout=_WITHIN)
            for backend in ("zvol", "zfs")
        )
        zfs, linux = vm.run("cat /sys/module/zfs/version; uname -r").split()
    table = _table(Outcome.of(json.loads(line)) for line in printed.splitlines())
    return f"{table}\n\nIn the machine: OpenZFS {zfs}, Linux {linux}."


def _bring(vm: Machine) -> None:
    """Give it the operations, and cow-session as it makes it itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for part in openzfs_kills.PARTS:
            archive.add(ROOT / "tests/support" / part, f"support/{part}")
        archive.add(ROOT / "module_utils/cow", "cow")
    vm.run("base64 --decode | tar --extract --directory /root", stdin=base64.b64encode(buffer.getvalue()).decode())
    vm.run(f"cd /root && python3 -c {shlex.quote(_MAKE_PROGRAM)}")


def _table(outcomes: Iterable[Outcome]) -> str:
    return _HEAD + "\n".join(map(_row, outcomes))


def _row(found: Outcome) -> str:
    """Count the kills; the first one after which something is not as it has to be is the last."""
    total = len(found.kills) + bool(found.failure)
    if found.failure:
        sys.stderr.write(f"{found.backend}, {found.operation}, kill {total}: {found.failure}\n")
    before = ", ".join(f"{count} {change}" for change, count in Counter(kill.before for kill in found.kills).items())
    done = sum(kill.done for kill in found.kills)
    whole = f"{len(found.kills)} of {total} ({100 * len(found.kills) // total} %)"
    return f"| `{found.backend}` | {found.operation} | {total} | {before} | {done} | {whole} |"

"""The file `cow-session`: a program of one file (PEP 441) made of the same code as the modules, and its fork server.

It is made on the host that runs it and holds, beside the source, the code compiled for that Python: Python takes the
one when it is of its own version and compiles the other when it is not.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import durable, names, process, units
from ..errors import CowError
from ..plan import Plan, Step
from . import (
    cli,
    collect,
    datasets,
    extents,
    fingerprint,
    folders,
    forkserver,
    resource,
    start,
    stores,
    subvolumes,
    views,
    volumes,
)

_SHEBANG = b"#!/usr/bin/python3 -IS\n"
"""Isolated, and without site-packages: nothing but the standard library is needed, and it starts quicker."""
_MAIN = """\
from cow.golden.start import main


def load():
    from cow.golden.cli import main

    return main


main(load)
"""
_SOCKET_UNIT, _SERVICE_UNIT = "cow-session.socket", "cow-session.service"
_WHEN = (1980, 1, 1, 0, 0, 0)
_ENTRY_POINTS = (
    cli, collect, datasets, extents, fingerprint, folders, forkserver, resource, start, stores, subvolumes, views,
    volumes,
)  # fmt: skip
"""With all that they import, these are the program."""
_PARTS = (
    "", "btrfs", "crew", "durable", "errors", "kernel", "lock", "manifest", "mounts", "names", "plan", "process",
    "processes", "reflink", "size", "tree", "treecopy", "zfs",
    "golden", "golden.backend", "golden.cli", "golden.collect", "golden.datasets", "golden.extents",
    "golden.fingerprint", "golden.folders", "golden.forkserver", "golden.model", "golden.refusals", "golden.resource",
    "golden.start", "golden.store", "golden.stores", "golden.subvolumes", "golden.views", "golden.volumes",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Where the program is to be, or not to be; fork_server: whether systemd is to start its fork server."""

    path: Path
    present: bool = True
    fork_server: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        present = params["state"] == "present"
        return cls(Path(names.absolute_path(params["path"])), present, present and params["fork_server"])


@dataclass(frozen=True)
class Found:
    """The file at the path: content, None for no file; mode: its permissions; units: those of its fork server."""

    path: Path
    content: bytes | None = None
    mode: int = 0
    units: units.Found = field(default_factory=units.Found)


def observe(wanted: Wanted, folder: Path = units.FOLDER, run: process.Runner = process.run) -> Found:
    """Read the file that is there, and the units of its fork server."""
    path = wanted.path
    if not path.parent.is_dir():
        raise CowError(f"The folder {path.parent} does not exist. Create it, or choose another path.")
    served = units.observe([folder / unit for unit in (_SOCKET_UNIT, _SERVICE_UNIT)], [_SOCKET_UNIT], run)
    if (service := served.files.get(folder / _SERVICE_UNIT)) and _start_of(path) not in service:
        if wanted.fork_server:
            raise CowError(
                f"{folder / _SERVICE_UNIT} is for the program at another path, and a host has one fork server. "
                f"Have that one removed (state: absent), or set fork_server to false."
            )
        served = units.Found(systemd=served.systemd)
    try:
        status = path.lstat()
    except FileNotFoundError:
        return Found(path, units=served)
    if not stat.S_ISREG(status.st_mode):
        raise CowError(f"{path} exists and is no regular file. Choose another path, or move it away.")
    content = path.read_bytes()
    if content and (not content.startswith(_SHEBANG) or b"cow/golden/cli.py" not in content):
        raise CowError(f"{path} exists and is another program. Choose another path, or move it away.")
    return Found(path, content, stat.S_IMODE(status.st_mode), served)


def plan(found: Found, wanted: Wanted, folder: Path = units.FOLDER, run: process.Runner = process.run) -> Plan:
    """Decide what is to be done: the units go before the program does, and come after it."""
    if wanted.fork_server and not found.units.systemd:
        raise CowError("systemd does not run here, so nothing can start a fork server. Set fork_server to false.")
    files = {folder / unit: text for unit, text in _units(wanted.path).items()} if wanted.fork_server else {}
    served = units.steps(found.units, files, [_SOCKET_UNIT], run)
    program = _program(found, wanted)
    return Plan(steps=tuple(program + served if wanted.present else served + program))


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module."""
    return {
        "path": str(found.path),
        "sha256": None if found.content is None else _digest(found.content),
        "units": sorted(path.name for path in found.units.files),
    }


def _program(found: Found, wanted: Wanted) -> list[Step]:
    if not wanted.present:
        return [] if found.content is None else [_removal(found)]
    content = build()
    if found.content == content and found.mode == 0o755:
        return []
    return [
        Step(
            title=f"write {wanted.path}",
            run=lambda: durable.write(wanted.path, content, 0o755),
            before=None if found.content is None else {"sha256": _digest(found.content), "mode": f"{found.mode:04o}"},
            after={"sha256": _digest(content), "mode": "0755"},
        )
    ]


def _start_of(path: Path) -> str:
    return f"ExecStart={units.command(str(path), 'serve')}\n"


def _units(path: Path) -> dict[str, str]:
    """Return the text of each unit by its name.

    The server ends with its socket, which systemd would not start while it runs; those that it forked go on.
    """
    head = f"{units.MARK}.\n[Unit]\nDescription=Run cow-session for others, quicker\n"
    return {
        _SOCKET_UNIT: f"{head}\n[Socket]\nListenSequentialPacket={start.SOCKET}\nSocketMode=0600\nBacklog=1024\n"
        f"RemoveOnStop=yes\n\n"
        f"[Install]\nWantedBy=sockets.target\n",
        _SERVICE_UNIT: f"{head}PartOf={_SOCKET_UNIT}\n\n[Service]\n{_start_of(path)}KillMode=process\n",
    }


def build() -> bytes:
    """Make the program: the same bytes each time, for the same source and the same Python."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "__main__", _MAIN.encode())
        for part in _PARTS:
            name, is_package, source = _source(part)
            _add(archive, f"{name}/__init__" if is_package else name, source)
    return _SHEBANG + buffer.getvalue()


def _source(part: str) -> tuple[str, bool, bytes]:
    """Return where in the program a part is, whether it is a package, and its source."""
    package = __package__.rpartition(".")[0]
    module = importlib.import_module(f"{package}.{part}" if part else package)
    specification = module.__spec__
    if specification is None or specification.loader is None or specification.origin is None:
        raise CowError(f"The source of {module.__name__} cannot be found, so the program cannot be made.")
    source = specification.loader.get_data(specification.origin)  # type: ignore[attr-defined]
    return "/".join(["cow", *part.split(".")]).rstrip("/"), specification.submodule_search_locations is not None, source


def _add(archive: zipfile.ZipFile, name: str, source: bytes) -> None:
    """Add a module with its source and its code, which is not compared with the source when it is loaded."""
    code = compile(source, f"{name}.py", "exec", dont_inherit=True, optimize=0)
    compiled = importlib._bootstrap_external._code_to_hash_pyc(  # type: ignore[attr-defined]  # noqa: SLF001
        code, importlib.util.source_hash(source), False
    )
    for suffix, content in (("py", source), ("pyc", compiled)):
        entry = zipfile.ZipInfo(f"{name}.{suffix}", _WHEN)
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, content)


def _removal(found: Found) -> Step:
    return Step(
        title=f"remove {found.path}",
        run=lambda: durable.remove(found.path),
        before={"sha256": _digest(found.content or b"")},
    )


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""The file `cow-session`: a program of one file (PEP 441) made of the same code as the modules.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import durable, names
from ..errors import CowError
from ..plan import Plan, Step
from . import cli, collect, datasets, extents, fingerprint, folders, resource, stores, subvolumes, views, volumes

_SHEBANG = b"#!/usr/bin/python3 -IS\n"
"""Isolated, and without site-packages: nothing but the standard library is needed, and it starts quicker."""
_MAIN = """\
import gc
import sys
from cow.golden.cli import main

status = main()
gc.freeze()  # what is there is looked through for garbage at the end otherwise, which takes longer than a clone
sys.exit(status)
"""
_WHEN = (1980, 1, 1, 0, 0, 0)
_ENTRY_POINTS = (cli, collect, datasets, extents, fingerprint, folders, resource, stores, subvolumes, views, volumes)
"""With all that they import, these are the program."""
_PARTS = (
    "", "btrfs", "durable", "errors", "kernel", "lock", "manifest", "mounts", "names", "plan", "process", "processes",
    "reflink", "size", "tree", "treecopy", "zfs",
    "golden", "golden.backend", "golden.cli", "golden.collect", "golden.datasets", "golden.extents",
    "golden.fingerprint", "golden.folders", "golden.model", "golden.refusals", "golden.resource", "golden.store",
    "golden.stores", "golden.subvolumes", "golden.views", "golden.volumes",
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """Where the program is to be, or not to be."""

    path: Path
    present: bool = True

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Wanted:
        """Read it from the parameters of the module."""
        return cls(Path(names.absolute_path(params["path"])), params["state"] == "present")


@dataclass(frozen=True)
class Found:
    """The file at the path: content, None for no file; mode: its permissions."""

    path: Path
    content: bytes | None = None
    mode: int = 0


def observe(wanted: Wanted) -> Found:
    """Read the file that is there."""
    path = wanted.path
    if not path.parent.is_dir():
        raise CowError(f"The folder {path.parent} does not exist. Create it, or choose another path.")
    try:
        status = path.lstat()
    except FileNotFoundError:
        return Found(path)
    if not stat.S_ISREG(status.st_mode):
        raise CowError(f"{path} exists and is no regular file. Choose another path, or move it away.")
    content = path.read_bytes()
    if content and (not content.startswith(_SHEBANG) or b"cow/golden/cli.py" not in content):
        raise CowError(f"{path} exists and is another program. Choose another path, or move it away.")
    return Found(path, content, stat.S_IMODE(status.st_mode))


def plan(found: Found, wanted: Wanted) -> Plan:
    """Decide what is to be done."""
    if not wanted.present:
        return Plan() if found.content is None else Plan.of(_removal(found))
    content = build()
    if found.content == content and found.mode == 0o755:
        return Plan()
    return Plan.of(
        Step(
            title=f"write {wanted.path}",
            run=lambda: durable.write(wanted.path, content, 0o755),
            before=None if found.content is None else {"sha256": _digest(found.content), "mode": f"{found.mode:04o}"},
            after={"sha256": _digest(content), "mode": "0755"},
        )
    )


def describe(found: Found) -> dict[str, Any]:
    """Give the return values of the module."""
    return {"path": str(found.path), "sha256": None if found.content is None else _digest(found.content)}


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

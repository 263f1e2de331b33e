"""Trees in a virtual machine that has cow-session: `python3 -m support.openzfs_trees ACTION ...`.

make FOLDER makes one of everything that a copy can lose. compare FOLDER COPY prints how the copy differs, as JSON.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from . import trees

PROGRAM = "/usr/local/bin/cow-session"


def make(folder: str) -> None:
    """Without flags, which the file systems of golden trees do not all have."""
    trees.make_hostile(Path(folder), depth=40, flags=False)


def compare(source: str, copy: str) -> None:
    """By manifest, with the code of cow-session."""
    sys.path.insert(0, PROGRAM)
    manifest = import_module("cow.manifest")
    first, second = manifest.of(Path(source)), manifest.of(Path(copy))
    attributes = sorted({name.decode() for entry in first.tree.entries for name, _ in entry.xattrs})
    json.dump({"attributes": attributes, "differences": manifest.differences(first, second)}, sys.stdout)


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])

"""Mount namespaces of their own, as containers have."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sees(folder: Path, at: Path, *, propagation: str = "private") -> Iterator[subprocess.Popen[bytes]]:
    """A process that has a folder mounted at another one during the block, where nobody else sees it."""
    script = 'mount --bind "$1" "$2" && echo in && read line'
    command = ["unshare", "--mount", f"--propagation={propagation}", "sh", "-c", script, "sh", folder, at]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"in\n"
        try:
            yield process
        finally:
            process.communicate(b"\n")

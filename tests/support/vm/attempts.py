"""Several attempts at booting in one machine, each with other options: for those that are to be refused.

The initial RAM disk gets one more script, for boot=attempts. It does for each line of options what /init does for
boot=cowherd, with the line in the place of what the kernel was told, and a refusal ends the attempt, not the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

BOOT = "boot=attempts"

_SCRIPT = """\
mountroot() {
    cowherd_attempt=0
    while IFS= read -r cowherd_line <&9; do
        cowherd_attempt=$((cowherd_attempt + 1))
        while umount /run/cowherd/* 2>/dev/null; do :; done
        rm -rf --one-file-system /run/cowherd
        echo "$cowherd_line" >/run/options
        busybox mount -o bind /run/options /proc/cmdline
        (
            . /scripts/cowherd
            panic() {
                echo "attempt $cowherd_attempt: $*" >/dev/console
                exit
            }
            mountroot
            echo "attempt $cowherd_attempt: it would boot" >/dev/console
        )
        umount /proc/cmdline
    done 9</attempts
    panic "no more attempts"
}
"""


def initrd(original: Path, target: Path, options: Sequence[str]) -> None:
    """Write an initial RAM disk that makes these attempts."""
    files = {"scripts/attempts": _SCRIPT, "attempts": "".join(f"{line}\n" for line in options)}
    content = original.read_bytes()
    target.write_bytes(content + bytes(-len(content) % 512) + b"".join(_archive(files)))


def refusals(console: str) -> list[str]:
    """Return what the console shows of each attempt, in their order."""
    return re.findall(r"^attempt \d+: (.*?)\r?$", console, re.MULTILINE)


def _archive(files: dict[str, str]) -> Iterator[bytes]:
    """Pack files as the kernel unpacks them, one archive behind another (early-userspace/buffer-format)."""
    for number, (name, text) in enumerate({**files, "TRAILER!!!": ""}.items(), start=1):
        fields = (number, 0o100644, 0, 0, 1, 0, len(text.encode()), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
        yield header + bytes(-len(header) % 4)
        yield text.encode() + bytes(-len(text.encode()) % 4)

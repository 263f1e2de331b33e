"""What tests may leave on a machine (processes, mounts, loop devices, links), found and removed by where it belongs.

Everything that a test session starts lives under a folder whose name begins with `PREFIX`, and every bridge that it
makes is called by `bridge_name`, so that what belongs to this session is told from what belongs to the machine or to
another session.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOM = Path("/var/tmp")
"""On disk, and short: the path of a unix socket may have 108 bytes."""

PREFIX = f"{ROOM}/cw{os.getpid()}-"
"""How the folders of this test session begin."""

_BRIDGE = f"cw{os.getpid()}b"


def new_folder() -> Path:
    """An empty folder for this session; `remove` takes it away with all that came to depend on it."""
    return Path(tempfile.mkdtemp(prefix=PREFIX))


def bridge_name(number: int) -> str:
    """A name that no other session gives to a link (at most 15 bytes, the kernel's limit)."""
    return f"{_BRIDGE}{number}"


def remove(folder: Path) -> None:
    """Kill, unmount, detach and delete all that lives in the folder. Nothing of it needs to be in order."""
    bridges = [path.name for path in folder.glob("networks/*")]
    _kill_processes(str(folder))
    for mounted in reversed(_mounts(str(folder))):
        if not _succeeds("umount", mounted):
            _succeeds("umount", "--lazy", mounted)
    for device in _loops(str(folder)):
        _succeeds("losetup", "--detach", device)
    for bridge in bridges:
        _remove_bridge(bridge)
    shutil.rmtree(folder, ignore_errors=True)


def find(*prefixes: str) -> list[str]:
    """What this session has left, in words: under its own folders, and mounts and loop devices under `prefixes`."""
    everywhere = (PREFIX, *prefixes)
    return [
        *(f"process {process} ({_command_line(process)})" for process in _processes(PREFIX)),
        *(f"mount {mounted}" for prefix in everywhere for mounted in _mounts(prefix)),
        *(f"loop device {device}" for prefix in everywhere for device in _loops(prefix)),
        *(f"link {link}" for link in _links(f"{_BRIDGE}*")),
        *(f"folder {path}" for path in _folders(PREFIX)),
    ]


def sweep_dead_sessions() -> None:
    """Remove what sessions left that were killed: those whose process is no more."""
    owners = {path: re.match(r"cw(\d+)-", path.name) for path in ROOM.glob("cw*-*")}
    dead = {path: owner[1] for path, owner in owners.items() if owner and not Path("/proc", owner[1]).exists()}
    for path in dead:
        remove(path)
    for owner in dead.values():
        for bridge in _links(f"cw{owner}b*"):
            _remove_bridge(bridge)


def remove_links_of_nobody(bridge: str, folder: Path) -> None:
    """Take away the links that containers left in a bridge which ended while the daemon in the folder did not run.

    LXC has given the other end back to this machine then; a container that runs has it for itself. Nothing is taken
    while a container of the daemon runs, starts or ends, for then both ends are here for a moment too.
    """
    if any(re.search(r"^\[lxc monitor\]| forkst(art|op) ", _command_line(each)) for each in _processes(str(folder))):
        return
    listing = ("ip", "-json", "link", "show", "master", bridge, "type", "veth")
    shown = subprocess.run(listing, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    for link in json.loads(shown or "[]"):
        if "link" in link and "link_netnsid" not in link:
            _succeeds("ip", "link", "delete", link["ifname"])


def _folders(prefix: str) -> list[Path]:
    return sorted(Path(prefix).parent.glob(f"{Path(prefix).name}*"))


def _kill_processes(folder: str) -> None:
    """The daemon, so that it reacts to nothing, then the containers; their monitors end by themselves, given time.

    A container's init outlives its monitor, and nothing else then tells whose it was.
    """
    for attempt in range(100):
        processes = _processes(folder)
        if not processes:
            return
        monitors = [process for process in processes if _command_line(process).startswith("[lxc monitor]")]
        others = [process for process in processes if process not in monitors]
        inits = [child for monitor in monitors for child in _children(monitor)]
        for process in others or inits or (monitors if attempt > 50 else []):
            _kill(process)
        time.sleep(0.1)


def _processes(prefix: str) -> list[int]:
    """Those with a word that begins with the prefix on their command line."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [number for number in numbers if re.search(rf"(^|[ =]){re.escape(prefix)}", _command_line(number))]


def _command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _mounts(prefix: str) -> list[str]:
    """Mount points in the order in which they were mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return [point for point in points if point.startswith(prefix)]


def _loops(prefix: str) -> list[str]:
    return [
        f"/dev/{backing.parent.parent.name}"
        for backing in Path("/sys/block").glob("loop*/loop/backing_file")
        if _read(backing).startswith(prefix)
    ]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _links(pattern: str, of: str = ".") -> list[str]:
    return [path.name for path in Path("/sys/class/net", of).glob(pattern)]


def _remove_bridge(bridge: str) -> None:
    """The bridge, the containers' links in it, and the firewall chains that Incus made for it."""
    for link in (*_links("*", f"{bridge}/brif"), bridge):
        _succeeds("ip", "link", "delete", link)
    for chain in ("fwd", "in", "out", "pstrt"):
        _succeeds("nft", f"flush chain inet incus {chain}.{bridge}; delete chain inet incus {chain}.{bridge}")


def _succeeds(*argv: str) -> bool:
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

"""Images for tests: a tiny one from busybox, and Debian root file systems kept between runs."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .vm import apt

BUSYBOX = Path("/bin/busybox")

ARCHITECTURE = os.uname().machine
"""As Incus calls it."""

_CREATED = 1700000000
"""The date in all of the image's files, so that the same busybox gives the same fingerprint."""

_INIT = """\
#!/bin/sh
trap 'exit 0' PWR TERM
ip link set lo up
/etc/dhcp &
while :; do wait; sleep 1; done
"""

_DHCP = """\
#!/bin/sh
while [ ! -e /sys/class/net/eth0 ]; do sleep 0.2; done
exec udhcpc -f -i eth0 -s /etc/udhcpc -t 3 -T 1 -A 1 >/dev/null
"""

_UDHCPC = """\
#!/bin/sh
case "$1" in
  deconfig)
    ip addr flush dev "$interface"
    ip link set "$interface" up
    ;;
  bound | renew)
    ip addr replace "$ip/$mask" dev "$interface"
    [ -z "$router" ] || ip route replace default via "$router"
    for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
    ;;
esac
"""

_BOOTABLE = (
    "btrfs-progs",
    "busybox",
    "cryptsetup-bin",
    "dbus",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "openssh-server",
    "python3",
    "systemd-sysv",
    "udev",
    "zstd",
)

_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "var")


def busybox_image(folder: Path) -> tuple[Path, Path]:
    """Make the small image in two files, the metadata tar and the squashfs of the root file system.

    As a container it gets an IPv4 address by DHCP as soon as there is an eth0, has the busybox commands, and stops at
    once when asked to. The bytes, and so the fingerprint, depend on the installed busybox and squashfs-tools alone.
    """
    rootfs = folder / "rootfs.squashfs"
    metadata = metadata_tar(folder, "busybox")
    with _tree(folder) as tree:
        rootfs.unlink(missing_ok=True)
        options = ["-quiet", "-no-progress", "-all-root", "-all-time", str(_CREATED), "-mkfs-time", str(_CREATED)]
        _run("mksquashfs", tree / "rootfs", rootfs, *options)
    return metadata, rootfs


def busybox_unified(folder: Path) -> Path:
    """Make the small image in one file, metadata and root file system in a tar.xz."""
    unified = folder / "unified.tar.xz"
    with _tree(folder) as tree:
        _tar(unified, tree, "metadata.yaml", "rootfs")
    return unified


def busybox_rootfs_tar(folder: Path) -> Path:
    """Make a tar of the small image's root file system alone, without metadata."""
    rootfs = folder / "rootfs.tar"
    with _tree(folder) as tree:
        _tar(rootfs, tree / "rootfs", ".")
    return rootfs


def metadata_tar(folder: Path, name: str) -> Path:
    """Make the metadata part of an image of this machine's architecture."""
    metadata = folder / "metadata.tar"
    (folder / "metadata.yaml").write_text(_metadata(name))
    _tar(metadata, folder, "metadata.yaml")
    return metadata


def debian_rootfs(
    suite: str,
    packages: Sequence[str] = (),
    *,
    variant: str = "important",
    options: Sequence[str] = (),
) -> Path:
    """Return a tar of a Debian root file system, built by mmdebstrap the first time and then kept in the cache.

    options: more of mmdebstrap's, such as `--customize-hook=...`. The mirror is the one of this machine's apt.
    """
    inputs = {"suite": suite, "packages": sorted(packages), "variant": variant, "options": list(options)}
    include = [f"--include={','.join(packages)}"] if packages else []

    def build(target: Path) -> None:
        mirror = apt.of_this_machine().archives[0][0]
        _run("mmdebstrap", "--quiet", f"--variant={variant}", *include, *options, suite, target, mirror)

    return cached(f"debian-{suite}", ".tar", {**inputs, "architecture": ARCHITECTURE}, build)


def bootable_debian() -> Path:
    """Return a tar of a small Debian that Ansible works on, with what its RAM disk needs for dm-verity and btrfs."""
    return debian_rootfs("trixie", _BOOTABLE, variant="minbase")


def cached(name: str, suffix: str, inputs: object, build: Callable[[Path], None]) -> Path:
    """Return the file that `build` makes of these inputs, made once per machine, also when several ask at once.

    The cache is outside the checkout: $COWHERD_CACHE, or ~/.cache/cowherd.
    """
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("COWHERD_CACHE") or Path.home() / ".cache" / "cowherd")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}-{key}{suffix}"
    with (folder / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            unfinished = folder / f"unfinished-{target.name}"
            build(unfinished)
            unfinished.rename(target)
    return target


@contextmanager
def _tree(folder: Path) -> Iterator[Path]:
    """A folder with metadata.yaml and rootfs/, for the length of the block."""
    tree = folder / "tree"
    rootfs = tree / "rootfs"
    for name in _FOLDERS:
        (rootfs / name).mkdir(parents=True)
    try:
        (tree / "metadata.yaml").write_text(_metadata("busybox"))
        shutil.copy(BUSYBOX, rootfs / "bin" / "busybox")
        for name in _run(BUSYBOX, "--list").split():
            if name != "busybox":
                (rootfs / "bin" / name).symlink_to("busybox")
        (rootfs / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (rootfs / "etc" / "group").write_text("root:x:0:\n")
        for script, text in {"sbin/init": _INIT, "etc/dhcp": _DHCP, "etc/udhcpc": _UDHCPC}.items():
            (rootfs / script).write_text(text)
            (rootfs / script).chmod(0o755)
        yield tree
    finally:
        shutil.rmtree(tree)


def _metadata(name: str) -> str:
    return json.dumps(
        {
            "architecture": ARCHITECTURE,
            "creation_date": _CREATED,
            "properties": {"description": f"{name}, for tests", "os": name},
        }
    )


def _tar(target: Path, folder: Path, *names: str) -> None:
    same = ["--sort=name", f"--mtime=@{_CREATED}", "--owner=0", "--group=0", "--numeric-owner"]
    _run("tar", "--create", "--auto-compress", *same, "--file", target, "--directory", folder, *names)


def _run(*argv: str | Path) -> str:
    finished = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {finished.stderr.strip()}")
    return finished.stdout

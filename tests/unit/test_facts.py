"""What is read off a host, from the files and the answers that hosts of several kinds give."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.cow import apt, facts, host, process, tools, zfs_support

OS_RELEASE = """\
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL='https://www.debian.org/'
"""


def installed(program: str) -> str:
    """Find every program, as on a host that has them all."""
    return f"/usr/sbin/{program}"


def machine(root: Path, files: Mapping[str, str]) -> Path:
    """A file tree as a host has it."""
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@dataclass(frozen=True)
class Answers:
    """Commands that answer from a table, as (status, stdout, stderr) by program and first arguments."""

    table: Mapping[str, tuple[int, str, str]]

    def __call__(self, argv: Sequence[str], *, accept: Sequence[int] = (0,), **_options: Any) -> process.Finished:
        spoken = " ".join([Path(argv[0]).name, *argv[1:]])
        answer = next((answer for start, answer in self.table.items() if spoken.startswith(start)), None)
        if answer is None:
            raise process.CommandMissing(f"The program {argv[0]} is not installed on this host.")
        finished = process.Finished(tuple(argv), *answer)
        if finished.status not in accept:
            raise process.CommandFailed(finished)
        return finished


def test_debian_on_a_raspberry_pi(tmp_path: Path) -> None:
    files = {"etc/os-release": OS_RELEASE, "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0"}
    system = host.operating_system("armhf", machine(tmp_path, files))
    assert (system.id, system.version_id, system.codename) == ("debian", "12", "bookworm")
    assert system.name == "Debian GNU/Linux 12 (bookworm)"
    assert (system.architecture, system.machine) == ("armhf", "armv7l")
    assert (system.model, system.raspberry_pi) == ("Raspberry Pi 5 Model B Rev 1.0", True)


def test_system_that_says_nothing(tmp_path: Path) -> None:
    system = host.operating_system(None, tmp_path)
    assert (system.id, system.like, system.version_id, system.codename, system.model) == ("linux", (), None, None, None)
    assert system.machine == os.uname().machine


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"run/systemd/container": "lxc\n"}, host.Virtualization("container", "lxc")),
        ({"proc/1/environ": "TERM=linux\0container=podman\0"}, host.Virtualization("container", "podman")),
        ({".dockerenv": ""}, host.Virtualization("container", "docker")),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, host.Virtualization("vm", "QEMU")),
        ({"sys/class/dmi/id/sys_vendor": "Dell Inc.\n"}, host.Virtualization("none")),
        ({"proc/device-tree/hypervisor/compatible": "linux,kvm\0"}, host.Virtualization("vm", "linux,kvm")),
        ({"proc/cpuinfo": "flags\t\t: fpu vme hypervisor lahf_lm\n"}, host.Virtualization("vm")),
        ({"proc/cpuinfo": "flags\t\t: fpu vme\n"}, host.Virtualization("none")),
    ],
)
def test_virtualization(tmp_path: Path, files: dict[str, str], expected: host.Virtualization) -> None:
    assert host.virtualization(machine(tmp_path, files)) == expected


def test_file_systems(tmp_path: Path) -> None:
    modules = f"lib/modules/{os.uname().release}"
    files = {
        "proc/filesystems": "nodev\tsysfs\nnodev\toverlay\n\text4\n",
        f"{modules}/modules.builtin": "kernel/fs/ext4/ext4.ko\nkernel/fs/squashfs/squashfs.ko\n",
        f"{modules}/modules.dep": "kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/raid6.ko.xz\nupdates/dkms/zfs.ko: spl.ko\n",
    }
    assert host.file_systems(machine(tmp_path, files)) == host.FileSystems(
        known=("ext4", "overlay", "sysfs"), loadable=("btrfs", "squashfs", "zfs")
    )


def test_systemd_that_is_installed_but_not_running(tmp_path: Path) -> None:
    assert not host.runs_systemd(machine(tmp_path, {"usr/bin/systemctl": ""}))
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert host.runs_systemd(tmp_path)


def test_zfs_that_works(tmp_path: Path) -> None:
    sys = machine(tmp_path, {"module/zfs/version": "2.3.2-1\n"})
    run = Answers({"zpool list -H -p": (0, "tank\tONLINE\t10200547328\t10200430592\n", "")})
    assert zfs_support.observe({"zfsutils-linux": "2.3.2-2"}, run, installed, sys) == zfs_support.Support(
        implementation="openzfs",
        userland="2.3.2",
        module="2.3.2-1",
        pools=(zfs_support.Pool("tank", "ONLINE", 10200547328, 10200430592),),
    )


def test_zfs_without_its_module_says_what_modprobe_says(tmp_path: Path) -> None:
    said = "modprobe: FATAL: Module zfs not found in directory /lib/modules/6.12"
    found = zfs_support.observe(
        {"zfsutils-linux": "2.3.2-2"}, Answers({"modprobe --dry-run": (1, "", said + "\n")}), installed, tmp_path
    )
    assert (found.implementation, found.module, found.module_error) == ("openzfs", None, said)


def test_zfs_fuse_needs_no_module_and_gives_no_exact_sizes(tmp_path: Path) -> None:
    run = Answers({"zpool list -H -o name,health": (0, "tank\tONLINE\n", "")})
    found = zfs_support.observe({"zfs-fuse": "0.7.0-25+b1"}, run, installed, tmp_path)
    assert (found.implementation, found.userland, found.module_error) == ("zfs-fuse", "0.7.0", None)
    assert found.pools == (zfs_support.Pool("tank", "ONLINE", None, None),)


def test_pools_that_cannot_be_listed(tmp_path: Path) -> None:
    found = zfs_support.observe(
        {"zfs-fuse": "0.7.0-25+b1"}, Answers({"zpool": (1, "", "connect: no daemon\n")}), installed, tmp_path
    )
    assert (found.pools, found.pools_error) == ((), "connect: no daemon")


def test_no_zfs(tmp_path: Path) -> None:
    assert zfs_support.observe({}, Answers({}), lambda _: None, tmp_path) == zfs_support.Support()


HELP_4_5 = """\
-comp <comp>\t\tselect <comp> compression
Compressors available and default options:
\tgzip (default)
\t  -Xcompression-level <compression-level>
\t\t<compression-level> should be 1 .. 9 (default 9)
\tlz4
\t  -Xhc
\t\tCompress using LZ4 High Compression
\tzstd
\t  -Xcompression-level <compression-level>

Environment:
SOURCE_DATE_EPOCH\tIf set, this is used
"""


def test_compressors() -> None:
    assert tools.compressors(HELP_4_5) == ("gzip", "lz4", "zstd")


def test_addresses_are_returned_without_passwords() -> None:
    source = apt.Source(("deb",), ("https://me:word@example.org/debian", "http://example.org/a"), ("trixie",))
    assert facts._source(source)["uris"] == ["https://example.org/debian", "http://example.org/a"]


@pytest.mark.parametrize(
    ("minimum", "suffices"), [("", True), ("6.0", True), ("6.0.4", True), ("6.0.4-3", False), ("6.1", False)]
)
def test_minimum_version(minimum: str, suffices: bool) -> None:
    assert facts.is_enough("6.0.4-2+deb13u4", minimum) is suffices


@pytest.mark.parametrize(
    ("minimum", "suffices"),
    [("6.0.3", True), ("6.0.4", False), ("1:6.0.3", True), ("1:6.0.4", False), ("2:6.0", False)],
)
def test_a_vendors_epoch_counts_only_where_the_minimum_has_one(minimum: str, suffices: bool) -> None:
    assert facts.is_enough("1:6.0.3-debian12-202411081902", minimum) is suffices


@pytest.mark.parametrize(
    ("offers", "from_backports", "expected"),
    [
        ({"incus-base": [("6.0.4-2", "trixie")], "incus": [("6.0.4-2", "trixie")]}, False, ("incus-base", "6.0.4-2")),
        ({"incus-base": [], "incus": [("6.0.0-1ubuntu0.3", "noble")]}, False, ("incus", "6.0.0-1ubuntu0.3")),
        ({"incus-base": [("6.0.4-2~bpo12+1", "bookworm-backports")]}, True, ("incus-base", "6.0.4-2~bpo12+1")),
        ({"incus-base": [("6.0.4-2~bpo12+1", "bookworm-backports")]}, False, None),
        ({}, False, None),
    ],
)
def test_which_package_brings_the_daemon(
    offers: dict[str, list[tuple[str, str]]], from_backports: bool, expected: tuple[str, str] | None
) -> None:
    known = {package: [apt.Offer(*offer) for offer in offered] for package, offered in offers.items()}
    assert facts.best_offer(known, from_backports=from_backports) == (expected and facts.Offered(*expected))


@pytest.mark.parametrize(
    ("release", "backports", "known", "expected"),
    [
        ("6.0.4-2", None, True, "release"),
        ("6.0.4-2", "6.0.5-1~bpo13+1", True, "release"),
        ("6.0.0-1", "6.0.4-2~bpo12+1", True, "backports"),
        (None, None, True, "backports"),
        (None, "6.0.0-1~bpo12+1", True, "nowhere"),
        (None, None, False, None),
    ],
)
def test_origin(release: str | None, backports: str | None, known: bool, expected: str | None) -> None:
    offered = [version and facts.Offered("incus-base", version) for version in (release, backports)]
    assert facts.origin(offered[0] or None, offered[1] or None, "6.0.4", known=known) == expected

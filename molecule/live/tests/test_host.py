"""A machine that runs from a root that was installed by a seed, after it had been booted from that seed."""

from __future__ import annotations

from testinfra.host import Host


def test_it_is_the_installed_root(host: Host) -> None:
    mount = host.mount_point("/")
    assert mount.device == "/dev/vdb"
    assert mount.filesystem == "btrfs"
    assert "subvol=/install" in mount.options
    assert not host.file("/srv/live-only").exists
    assert not host.file("/run/cowherd").exists


def test_it_has_no_tie_to_the_seed(host: Host) -> None:
    shown = host.check_output("btrfs filesystem show --raw /")
    assert "Label: 'installed'" in shown
    assert shown.count("devid") == 1
    assert host.check_output("blkid -o value -s UUID /dev/vdb") != host.check_output("blkid -o value -s UUID /dev/vda")
    assert "Metadata, DUP" in host.check_output("btrfs filesystem df /")


def test_all_of_it_is_there(host: Host) -> None:
    """The files of packages have the checksums that the packages say."""
    assert host.check_output("dpkg --verify") == ""
    assert host.check_output("btrfs scrub start -B /")


def test_it_runs_and_can_be_written_to(host: Host) -> None:
    assert host.run("systemctl is-system-running --wait").stdout.strip() == "running"
    assert len(host.file("/etc/machine-id").content_string.strip()) == 32
    assert host.file("/etc/ssh/ssh_host_ed25519_key").exists
    host.check_output("echo kept >/srv/new && sync")
    assert host.file("/srv/new").content_string == "kept\n"

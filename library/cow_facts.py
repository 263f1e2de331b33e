# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell what a host can do."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cow_facts
short_description: Tell what a host can do with copy-on-write storage and Incus
description:
  - Reads, in one remote execution, what there is to decide on before Incus and its storage are set up - the system,
    file systems, ZFS, reflinks, tools and their features, Incus itself, and where its packages would come from.
  - Writes nothing and loads no kernel module. Where systemd listens on the Incus socket, asking the daemon for its
    version starts it.
author:
  - Cowherd contributors
options:
  paths:
    description:
      - Folders whose file system and space to report. Of one that does not exist, its nearest existing ancestor is
        looked at.
    type: list
    elements: path
    default: [/var/lib/incus]
  reflink_paths:
    description:
      - Folders in which to try a reflink (ioctl C(FICLONE)), between two files that have no name and vanish at once.
      - In check mode too, as nothing of it stays.
    type: list
    elements: path
    default: []
  packages:
    description: Packages whose installed versions to report in RV(ansible_facts.cowherd.packages).
    type: list
    elements: str
    default: []
  minimum_version:
    description:
      - The lowest version of Incus that will do, such as V(6.0) or, with Debian's revision, V(6.0.4-2+deb13u4).
      - Compared in Debian's order, in which a backport (V(~bpo)) is lower than the version that it was built from.
      - An empty string takes any version.
    type: str
    default: ""
  socket:
    description: The unix socket of the Incus daemon.
    type: path
    default: /var/lib/incus/unix.socket
attributes:
  check_mode:
    description: Can run in check mode, and reports the same there.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
  idempotent:
    description: When run twice, the host is the same in between and after.
    support: full
  platform:
    description: Linux. Facts about packages need dpkg and apt, and are empty without them.
    support: full
    platforms: linux
"""

EXAMPLES = r"""
- name: See what the host can do
  cow_facts:

- name: See whether caches could be clones, and whether this Incus is recent enough
  cow_facts:
    paths:
      - /var/lib/incus
      - /srv
    reflink_paths:
      - /srv
    packages:
      - btrfs-progs
    minimum_version: "6.0.4"
"""

RETURN = r"""
ansible_facts:
  description: The facts, also available as C(ansible_facts.cowherd) to the tasks that follow.
  returned: success
  type: dict
  sample: {cowherd: {service_manager: systemd}}
  contains:
    cowherd:
      description: All facts of this module.
      returned: success
      type: dict
      sample: {service_manager: systemd}
      contains:
        os:
          description: The operating system and the machine.
          returned: success
          type: dict
          sample: {id: debian, codename: trixie}
          contains:
            id:
              description: As os-release has it.
              returned: success
              type: str
              sample: debian
            like:
              description: The systems that it is derived from.
              returned: success
              type: list
              elements: str
              sample: []
            name:
              description: For people.
              returned: success
              type: str
              sample: Debian GNU/Linux 13 (trixie)
            version_id:
              description: The release's number; null for a system without releases.
              returned: success
              type: str
              sample: "13"
            codename:
              description: The release's codename; null where there is none.
              returned: success
              type: str
              sample: trixie
            architecture:
              description: Of the installed programs, as Debian calls it. A 64-bit kernel may run 32-bit programs.
              returned: success
              type: str
              sample: arm64
            machine:
              description: The same, as Incus calls it.
              returned: success
              type: str
              sample: aarch64
            kernel:
              description: The release of the running kernel.
              returned: success
              type: str
              sample: 6.12.48+deb13-arm64
            model:
              description: What the device tree says the board is; null on machines that have none.
              returned: success
              type: str
              sample: Raspberry Pi 5 Model B Rev 1.0
            raspberry_pi:
              description: Whether the board is a Raspberry Pi.
              returned: success
              type: bool
              sample: true
        service_manager:
          description: V(systemd) when that is the init that runs; null for any other.
          returned: success
          type: str
          sample: systemd
        virtualization:
          description: What the system runs in, as far as it can be seen from inside.
          returned: success
          type: dict
          sample: {kind: vm, technology: QEMU}
          contains:
            kind:
              description: V(container), V(vm) or V(none).
              returned: success
              type: str
              sample: none
            technology:
              description: As it calls itself, such as V(lxc) or V(QEMU); null where it does not.
              returned: success
              type: str
              sample: null
        file_systems:
          description: What the kernel can mount.
          returned: success
          type: dict
          sample: {known: [ext4, overlay], loadable: [btrfs]}
          contains:
            known:
              description: File systems that the running kernel knows by now.
              returned: success
              type: list
              elements: str
              sample: [btrfs, ext4, overlay, squashfs, tmpfs]
            loadable:
              description: Those of use here that there is a module for, not loaded yet.
              returned: success
              type: list
              elements: str
              sample: [erofs, xfs]
        paths:
          description: For each path of O(paths), the file system that it is on, or would be on.
          returned: success
          type: dict
          sample:
            /var/lib/incus:
              file_system: ext4
              source: /dev/mmcblk0p2
              mount_point: /
              size_bytes: 62277025792
              free_bytes: 53250000000
        reflink:
          description:
            - For each path of O(reflink_paths), whether a reflink was made there (C(supported)), what the system said
              if not (C(why_not)), the file system, and the free space in bytes.
          returned: success
          type: dict
          sample:
            /srv:
              supported: false
              why_not: Operation not supported
              file_system: ext4
              free_bytes: 53250000000
        tools:
          description:
            - For each of C(btrfs), C(mkfs_btrfs), C(mkfs_xfs), C(mke2fs), C(mksquashfs), C(mkfs_erofs), C(veritysetup),
              C(qemu_system) (for the host's own architecture), C(mmdebstrap) and C(rsync), whether it is installed, and
              the upstream version of the package that brought it (null when it came in none).
            - Features are those that the installed program itself has - C(btrfs) lists subvolumes as JSON
              (C(subvolume_json)), C(mkfs_xfs) makes file systems that can C(reflink), the C(compressors) of
              C(mksquashfs).
          returned: success
          type: dict
          sample:
            btrfs:
              installed: true
              version: "6.14"
              subvolume_json: false
            mksquashfs:
              installed: true
              version: 4.6.1
              compressors: [gzip, lzo, lz4, xz, zstd, lzma]
            mkfs_erofs:
              installed: false
              version: null
        zfs:
          description: Which ZFS there is.
          returned: success
          type: dict
          sample: {implementation: openzfs, userland: 2.3.2, module: 2.3.2, pools: []}
          contains:
            implementation:
              description: V(openzfs) or V(zfs-fuse), by the commands that are installed; null without them.
              returned: success
              type: str
              sample: openzfs
            userland:
              description: The upstream version of the commands.
              returned: success
              type: str
              sample: 2.3.2
            module:
              description: The version of the loaded kernel module; null when it is not loaded.
              returned: success
              type: str
              sample: null
            module_error:
              description:
                - What modprobe says when OpenZFS's commands are installed and the module cannot be loaded; else null.
              returned: success
              type: str
              sample: "modprobe: FATAL: Module zfs not found in directory /lib/modules/6.12.48+deb13-amd64"
            pools:
              description: The imported pools. zfs-fuse does not tell sizes exactly, they are null there.
              returned: success
              type: list
              elements: dict
              sample:
                - name: tank
                  health: ONLINE
                  size_bytes: 10200547328
                  free_bytes: 10200430592
            pools_error:
              description: What zpool says when it cannot list the pools; else null.
              returned: success
              type: str
              sample: null
        packages:
          description: The installed version of each package of O(packages); null for one that is not installed.
          returned: success
          type: dict
          sample:
            btrfs-progs: 6.14-1
            mmdebstrap: null
        incus:
          description: Incus on this host.
          returned: success
          type: dict
          sample: {package: incus-base, version: 6.0.4-2, suffices: true}
          contains:
            package:
              description:
                - The package that brings the daemon, V(incus-base) or V(incus).
                - The installed one, else the one that apt offers, else V(incus-base).
              returned: success
              type: str
              sample: incus-base
            version:
              description: The installed version of it, or without one what a daemon that answers says; else null.
              returned: success
              type: str
              sample: 6.0.4-2+deb13u4
            upstream_version:
              description: The same without Debian's revision.
              returned: success
              type: str
              sample: 6.0.4
            suffices:
              description: Whether Incus is there and not lower than O(minimum_version).
              returned: success
              type: bool
              sample: true
            origin:
              description:
                - Where an Incus that suffices is - V(installed), V(release) when the release or a vendor's repository
                  offers one, V(nowhere) when the backports are too old as well.
                - V(backports) also while apt does not use them and it is not known what they have.
                - Null when package lists were never fetched.
              returned: success
              type: str
              sample: installed
            available:
              description:
                - The versions that apt offers, by its package lists as they were last fetched. Null for none.
                - Looked up only when a package of O(packages) or an Incus that suffices is missing.
              returned: success
              type: dict
              sample: {release: null, backports: 6.0.4-2~bpo12+1}
              contains:
                release:
                  description: In the release itself, or a vendor's repository.
                  returned: success
                  type: str
                  sample: null
                backports:
                  description: In the release's backports.
                  returned: success
                  type: str
                  sample: 6.0.4-2~bpo12+1
            daemon:
              description: The path of the daemon's program; null when it is not installed.
              returned: success
              type: str
              sample: /usr/libexec/incus/incusd
            socket:
              description: The daemon's socket.
              returned: success
              type: dict
              sample: {path: /var/lib/incus/unix.socket, state: answers, why: null}
              contains:
                path:
                  description: As given in O(socket).
                  returned: success
                  type: str
                  sample: /var/lib/incus/unix.socket
                state:
                  description:
                    - V(answers); V(missing) when there is no socket; V(refused) when nobody listens; V(denied) when
                      this user may not use it; V(unusable) for anything else.
                  returned: success
                  type: str
                  sample: answers
                why:
                  description: What is wrong and what to do, in a sentence; null when it answers.
                  returned: success
                  type: str
                  sample: null
            server:
              description: What the daemon says of itself; null unless it answers.
              returned: success
              type: dict
              sample: {version: 6.0.4, name: pi-01, clustered: false, storage_drivers: [btrfs, dir]}
              contains:
                version:
                  description: Upstream's version of the running daemon.
                  returned: success
                  type: str
                  sample: 6.0.4
                name:
                  description: Its name, in a cluster the member's.
                  returned: success
                  type: str
                  sample: pi-01
                clustered:
                  description: Whether it is a member of a cluster.
                  returned: success
                  type: bool
                  sample: false
                storage_drivers:
                  description:
                    - The drivers that it found tools for when it started. Tools that were installed since are noticed
                      when a pool is made.
                  returned: success
                  type: list
                  elements: str
                  sample: [btrfs, dir, zfs]
        apt:
          description: Where packages come from.
          returned: success
          type: dict
          sample: {lists_fetched: true, python_apt: true}
          contains:
            sources:
              description: The enabled sources, in apt's order. User names and passwords in addresses are left out.
              returned: success
              type: list
              elements: dict
              sample:
                - types: [deb]
                  uris: ["http://deb.example.org/debian"]
                  suites: [trixie, trixie-updates]
                  components: [main]
                  signed_by: /usr/share/keyrings/debian-archive-keyring.gpg
            lists_fetched:
              description: Whether package lists were ever fetched.
              returned: success
              type: bool
              sample: true
            backports:
              description: The release's backports.
              returned: success
              type: dict
              sample: {suite: trixie-backports, configured: true}
              contains:
                suite:
                  description: What they are called; null for a system without codename.
                  returned: success
                  type: str
                  sample: trixie-backports
                configured:
                  description: Whether apt uses them already.
                  returned: success
                  type: bool
                  sample: false
                stanza:
                  description:
                    - What to write to a C(.sources) file to have them, from the mirror that serves the release.
                    - Null when no source serves the release, or its address carries a password.
                  returned: success
                  type: str
                  sample: |
                    Types: deb
                    URIs: http://deb.example.org/debian
                    Suites: trixie-backports
                    Components: main
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
            python_apt:
              description: Whether python3-apt is there, which M(ansible.builtin.apt) needs in check mode.
              returned: success
              type: bool
              sample: true
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import facts
from ansible.module_utils.cow.incus.client import DEFAULT_SOCKET
from ansible.module_utils.cow.plan import report

ARGUMENTS: dict[str, dict[str, Any]] = {
    "paths": {"type": "list", "elements": "path", "default": ["/var/lib/incus"]},
    "reflink_paths": {"type": "list", "elements": "path", "default": []},
    "packages": {"type": "list", "elements": "str", "default": []},
    "minimum_version": {"type": "str", "default": ""},
    "socket": {"type": "path", "default": DEFAULT_SOCKET},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    wanted = facts.Wanted(**module.params)
    report(module, lambda: {"ansible_facts": {"cowherd": facts.gather(wanted)}})


if __name__ == "__main__":
    main()

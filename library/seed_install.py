# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install a root of a btrfs seed onto a device or into a file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: seed_install
short_description: Install a root of a btrfs seed onto a device or into a file
description:
  - Writes one root (a top-level subvolume) of a btrfs seed onto a block device or into a file.
  - Where btrfs is wanted, the blocks of the seed that are in use are written to the target as they are, compressed,
    with a UUID and a label of its own in its metadata. Where that does not fit, the seed grows a new file system on the
    target (a sprout), to which its extents move. Where something else is wanted, the root is copied with all
    attributes.
  - The seed is never written to. Several targets can grow out of one seed at a time. While all of it is read, to be
    copied or verified, nobody else can mount it, and other runs wait for that, up to six hours, with their targets
    untouched.
  - What is on the target is destroyed only when O(replace) names it. Looked for are the signatures that C(blkid) knows,
    and bytes that are not zero, in all of a file, and in the first and the last MiB of a device. What is elsewhere on a
    device, without a signature, is not found.
  - A target on which an installation did not end is marked in its first sector, and the next run begins anew. XFS has
    no room for that, and is known by its label C(cowherd-part) and its UUID in O(records) on this host.
  - What was installed is remembered on this host, under the UUID of the new file system. A target that has this root
    already is left as it is, however much was written to it since.
author:
  - Cowherd contributors
requirements:
  - Linux 5.11 or newer
  - btrfs-progs 6.2 or newer
  - e2fsprogs for ext4, xfsprogs for xfs
extends_documentation_fragment:
  - attributes
attributes:
  check_mode:
    description:
      - Reports what a run would do. The seed is mounted read-only for a moment, and nothing is written.
      - The seed is not verified, so that a run may refuse a damaged one that check mode did not.
    support: full
  diff_mode:
    description: Shows what is on the target and what will be.
    support: full
options:
  seed:
    description:
      - Absolute path of the seed, a file or a block device. The live system that runs from it may be the one in use.
      - A seed that is mounted, and has no device added to it, cannot be mounted a second time and is refused.
    type: path
    required: true
  root:
    description: Name of the root to install. The others do not come to the target.
    type: str
    required: true
  target:
    description:
      - Absolute path of a block device, best below C(/dev/disk/by-id), or of a file.
      - A device is refused that is mounted, swap, beneath another device, or opened with C(O_EXCL), as is a disk with
        partitions, and a file that a loop device shows.
      - A file that a virtual machine or a pool of ZFS uses as a disk, and a device that a program has opened without
        C(O_EXCL), are not seen to be in use.
    type: path
    required: true
  size:
    description: Size of the file to make when there is none at O(target), such as V(8GiB). It begins as a hole.
    type: str
  filesystem:
    description: What the target is to be.
    type: str
    choices: [btrfs, ext4, xfs]
    default: btrfs
  method:
    description:
      - V(blocks) writes the blocks of the seed that are in use to the same places of the target. A copy of its metadata
        is changed in memory. The target has to be as large as the seed and a little, and of
        256 MiB at least.
      - V(sprout) grows the file system out of the seed, which compares each extent with its checksum once more.
      - V(copy) makes a new one and copies the root into it.
      - V(auto) is V(copy) when O(filesystem), O(checksum) or O(node_size) cannot be had from the seed, V(sprout) when
        O(verify) is false, the target too small for V(blocks), or too little memory free for its metadata, and else
        V(blocks), which is the fastest.
    type: str
    choices: [auto, blocks, sprout, copy]
    default: auto
  label:
    description: Label of the new file system, at most 255 bytes for btrfs, 16 for ext4, 12 for xfs; O(root) without it.
      V(cowherd-part) stands for an installation that is not finished, and is refused.
    type: str
  uuid:
    description:
      - UUID of the new file system. Without it, a random one.
      - One that another block device of this host has is refused, as is one that another root was installed with on
        another target, as the records have it.
    type: str
  metadata:
    description:
      - How a btrfs stores its metadata, once (V(single)) or twice (V(dup)).
      - Without it, as the seed does (V(blocks), V(sprout)), or as C(mkfs.btrfs) chooses (V(copy)).
    type: str
    choices: [single, dup]
  checksum:
    description: Checksums of a btrfs. They are chosen for ever; when the seed has others, the root is copied.
    type: str
    choices: [crc32c, xxhash64, sha256, blake2b]
  node_size:
    description: Bytes of a block of metadata of a btrfs. Chosen for ever, likewise.
    type: int
    choices: [4096, 8192, 16384, 32768, 65536]
  replace:
    description:
      - What is on the target and may be destroyed, as its UUID or as the type that C(blkid) gives it, such as V(ext4),
        or V(data) for data that nothing recognises.
      - When something else is found there, nothing is written.
    type: str
  verify:
    description:
      - Whether all of the seed is read and compared with its checksums before anything is written. It takes as long as
        it takes to read the seed, and is done only when there is something to install.
      - Without it, damage shows while the seed is read, on a target whose former content is gone. The target is then
        marked as unfinished. With V(blocks), it shows only when the installed system reads what is damaged.
    type: bool
    default: true
  records:
    description: Absolute path of the folder in which installations are remembered.
    type: path
    default: /var/lib/cowherd/installs
"""

EXAMPLES = r"""
- name: Install the root that is called install onto an empty disk
  seed_install:
    seed: /srv/media/debian.seed
    root: install
    target: /dev/disk/by-id/nvme-example
    metadata: dup

- name: Install it into a new file, with ext4
  seed_install:
    seed: /srv/media/debian.seed
    root: install
    target: /srv/images/guest.img
    size: 8GiB
    filesystem: ext4

- name: Install it over what is known to be there
  seed_install:
    seed: /dev/disk/by-label/media
    root: install
    target: /dev/disk/by-id/ata-example
    replace: 2f8c0c3a-9d3c-4b0f-8c56-0f6a2b6c2d11
"""

RETURN = r"""
installed:
  description: The installation that is on the target after the run, in check mode before it. Null when there is none.
  type: dict
  returned: success
  sample:
    target: /dev/nvme0n1
    filesystem: btrfs
    method: blocks
    why: the blocks of the seed come as they are
    uuid: 3a14888d-d3a2-49c0-b2f3-88b0a62859c0
    label: install
    root: install
    seed_uuid: 2730919d-6d71-49cb-b81a-b7ed7d387c6c
    bytes: 417726464
    seconds: 4.3
  contains:
    target:
      description: The device or file, with symbolic links resolved.
      type: str
      returned: success
      sample: /dev/nvme0n1
    filesystem:
      description: Its file system.
      type: str
      returned: success
      sample: btrfs
    method:
      description: V(blocks), V(sprout) or V(copy).
      type: str
      returned: success
      sample: blocks
    why:
      description: Why by this method.
      type: str
      returned: success
      sample: the blocks of the seed come as they are
    uuid:
      description: UUID of the new file system.
      type: str
      returned: success
      sample: 3a14888d-d3a2-49c0-b2f3-88b0a62859c0
    label:
      description: Its label.
      type: str
      returned: success
      sample: install
    root:
      description: The root that was installed; the default subvolume of a btrfs.
      type: str
      returned: success
      sample: install
    seed_uuid:
      description: UUID of the seed.
      type: str
      returned: success
      sample: 2730919d-6d71-49cb-b81a-b7ed7d387c6c
    bytes:
      description: What it takes on the target, compressed and with metadata, or for V(copy) what was copied.
      type: int
      returned: success
      sample: 417726464
    seconds:
      description: How long the installation took.
      type: float
      returned: success
      sample: 4.3
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["install root install of /srv/media/debian.seed on /dev/nvme0n1 (btrfs, blocks)"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.live import install
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "seed": {"type": "path", "required": True},
    "root": {"type": "str", "required": True},
    "target": {"type": "path", "required": True},
    "size": {"type": "str"},
    "filesystem": {"type": "str", "choices": ["btrfs", "ext4", "xfs"], "default": "btrfs"},
    "method": {"type": "str", "choices": ["auto", "blocks", "sprout", "copy"], "default": "auto"},
    "label": {"type": "str"},
    "uuid": {"type": "str"},
    "metadata": {"type": "str", "choices": ["single", "dup"]},
    "checksum": {"type": "str", "choices": ["crc32c", "xxhash64", "sha256", "blake2b"]},
    "node_size": {"type": "int", "choices": [4096, 8192, 16384, 32768, 65536]},
    "replace": {"type": "str"},
    "verify": {"type": "bool", "default": True},
    "records": {"type": "path", "default": "/var/lib/cowherd/installs"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with explained(module):
        wanted = install.Wanted.of(module.params)
        with lock.held(f"seed_install:{wanted.target.resolve()}"):
            converge(
                module,
                observe=lambda: install.observe(wanted),
                plan=lambda found: install.plan(found, wanted),
                describe=install.describe,
            )


if __name__ == "__main__":
    main()

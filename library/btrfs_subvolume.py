# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Create, snapshot and delete btrfs subvolumes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: btrfs_subvolume
short_description: Create, snapshot and delete btrfs subvolumes
description:
  - Has a btrfs subvolume exist, empty or as a snapshot of another one, or not exist.
  - Needs no more than the path; the file system is found from it and has to be mounted.
  - The read-only flag of a received subvolume is never changed, for later increments of C(btrfs receive) rely on it.
author:
  - Cowherd contributors
requirements:
  - Linux 4.18 or newer
  - btrfs-progs 6.2 or newer
extends_documentation_fragment:
  - attributes
options:
  path:
    description:
      - Absolute path of the subvolume. The folder that it is in has to exist.
      - A file, a symbolic link or an ordinary folder at this path is left alone and reported as an error.
    type: path
    required: true
  state:
    description:
      - V(present) creates the subvolume when there is none, and sets the properties that are given.
      - V(absent) deletes the subvolume and what is in it. The top level of a file system, the default subvolume, and
        one that is mounted or has something mounted in it are refused.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Absolute path of the subvolume to take a snapshot of, on the same file system.
      - When O(path) exists already and is not a snapshot of this subvolume, that is reported as an error.
      - A snapshot is taken once. Its source may change afterwards without making a new one necessary.
    type: path
  readonly:
    description:
      - Whether the subvolume is read-only.
      - Without this option, a new subvolume is writable and an existing one stays as it is.
    type: bool
  compression:
    description:
      - How files that are written from now on are compressed.
      - V(none) means never, V(default) what the mount option says.
      - Without this option, an existing subvolume stays as it is, and a snapshot has what its source has.
    type: str
    choices: [default, none, lzo, zlib, zstd]
  default:
    description:
      - V(true) makes it the subvolume that is mounted when a mount names none.
      - V(false) changes nothing, also for one that is the default already.
    type: bool
    default: false
  recursive:
    description:
      - Allows O(state=absent) to delete the subvolumes inside this one too, at any depth.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Have a compressed subvolume
  btrfs_subvolume:
    path: /srv/pool/containers
    compression: zstd

- name: Keep a read-only snapshot of it
  btrfs_subvolume:
    path: /srv/pool/containers-before-upgrade
    source: /srv/pool/containers
    readonly: true

- name: Delete a subvolume with the subvolumes inside it
  btrfs_subvolume:
    path: /srv/pool/old
    state: absent
    recursive: true
"""

RETURN = r"""
id:
  description: Number of the subvolume in its file system.
  type: int
  returned: when the subvolume exists
  sample: 256
uuid:
  description: UUID of the subvolume; null for the top level of an old file system.
  type: str
  returned: when the subvolume exists
  sample: 05f77ec6-5644-9d41-9858-772ff20d662a
parent_uuid:
  description: UUID of the subvolume that it is a snapshot of; null when it is none.
  type: str
  returned: when the subvolume exists
  sample: 628470b8-e3a8-43cc-b657-ccf4e9b52d39
received_uuid:
  description: UUID that the subvolume had where it was sent from; null when it was not received.
  type: str
  returned: when the subvolume exists
  sample: null
readonly:
  description: Whether it is read-only.
  type: bool
  returned: when the subvolume exists
  sample: false
compression:
  description: How new files in it are compressed; V(default) stands for what the mount option says.
  type: str
  returned: when the subvolume exists
  sample: zstd
default:
  description: Whether it is mounted when a mount names no subvolume.
  type: bool
  returned: when the subvolume exists
  sample: false
generation:
  description: Generation (transaction number) of its last change.
  type: int
  returned: when the subvolume exists
  sample: 1047
created:
  description: When it was created, in UTC.
  type: str
  returned: when the subvolume exists
  sample: "2025-11-20T10:55:24Z"
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["create subvolume /srv/pool/containers"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import subvolumes
from ansible.module_utils.cow.btrfs import Btrfs
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "source": {"type": "path"},
    "readonly": {"type": "bool"},
    "compression": {"type": "str", "choices": ["default", "none", "lzo", "zlib", "zstd"]},
    "default": {"type": "bool", "default": False},
    "recursive": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with explained(module):
        wanted = subvolumes.Wanted.of(module.params)
        converge(
            module,
            observe=lambda: subvolumes.observe(wanted),
            plan=lambda found: subvolumes.plan(found, wanted, Btrfs()),
            describe=subvolumes.describe,
        )


if __name__ == "__main__":
    main()

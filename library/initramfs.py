# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have files in the tree of a Debian, and its initial RAM disks made with them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: initramfs
short_description: Have files in the tree of a Debian, and its initial RAM disks made with them
description:
  - Writes hooks and scripts of initramfs-tools(7), and what else is to be there, into the tree of a root file system
    that is not running, and makes the initial RAM disk of each kernel in it.
  - The RAM disks are made by the tree's own C(update-initramfs) in a chroot, as root. Do not have this done to a tree
    that you would not run.
  - Symbolic links in the tree are not followed. A file that is written is root's when it is new.
  - What each RAM disk was made with is recorded in the tree, in C(var/lib/cowherd/initramfs.json). It is made again
    when O(files) are others, or when it was changed by something else.
author:
  - Cowherd contributors
requirements:
  - initramfs-tools and a kernel in the tree
extends_documentation_fragment:
  - attributes
attributes:
  diff_mode:
    description: Shows the checksum and the mode of each file that changes, and which RAM disks are made.
    support: full
options:
  tree:
    description: Absolute path of the root of the tree.
    type: path
    required: true
  files:
    description: Files to have in the tree. One that is left out later stays there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is to be, from the root of the tree, such as V(etc/initramfs-tools/hooks/cowherd).
        type: str
        required: true
      content:
        description: What is to be in it.
        type: str
        required: true
      mode:
        description: Its permissions, in octal.
        type: str
        default: "0644"
"""

EXAMPLES = r"""
- name: Have the RAM disks of a tree know a disk controller that is not the host's
  initramfs:
    tree: /srv/trees/debian
    files:
      - path: etc/initramfs-tools/conf.d/modules
        content: |
          MODULES=most
"""

RETURN = r"""
kernels:
  description: The kernels in the tree, as it is after the run, in check mode before it.
  type: list
  elements: dict
  returned: success
  sample:
    - version: 6.12.117+deb13-amd64
      kernel: /srv/trees/debian/boot/vmlinuz-6.12.117+deb13-amd64
      initrd: /srv/trees/debian/boot/initrd.img-6.12.117+deb13-amd64
  contains:
    version:
      description: Its version.
      type: str
      returned: success
      sample: 6.12.117+deb13-amd64
    kernel:
      description: Where it is.
      type: str
      returned: success
      sample: /srv/trees/debian/boot/vmlinuz-6.12.117+deb13-amd64
    initrd:
      description: Its initial RAM disk; null when it has none yet.
      type: str
      returned: success
      sample: /srv/trees/debian/boot/initrd.img-6.12.117+deb13-amd64
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["write etc/initramfs-tools/hooks/cowherd in /srv/trees/debian"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import initramfs, lock
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "tree": {"type": "path", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "str", "required": True},
            "content": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
        },
    },
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with explained(module):
        wanted = initramfs.Wanted.of(module.params)
        with lock.held(f"initramfs:{wanted.tree}"):
            converge(
                module,
                observe=lambda: initramfs.observe(wanted),
                plan=lambda found: initramfs.plan(found, wanted),
                describe=initramfs.describe,
            )


if __name__ == "__main__":
    main()

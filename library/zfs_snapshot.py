# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take, hold and destroy ZFS snapshots."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_snapshot
short_description: Take, hold and destroy ZFS snapshots
description:
  - Has a snapshot of a dataset exist, with holds and user properties, or not exist.
  - Never destroys anything recursively or by force. The clones of a snapshot are looked for first, and named.
author:
  - Cowherd contributors
requirements:
  - OpenZFS 2.0 or newer
extends_documentation_fragment:
  - attributes
options:
  name:
    description:
      - The snapshot, as POOL/NAME@SNAPSHOT. The dataset has to exist.
    type: str
    required: true
  state:
    description:
      - V(present) takes it when there is none, V(absent) destroys it.
      - One that has clones is not destroyed, nor one that is held, unless O(release) allows that.
    type: str
    choices: [present, absent]
    default: present
  holds:
    description:
      - Tags that hold it, so that it cannot be destroyed. Other holds stay as they are.
    type: list
    elements: str
    default: []
  release:
    description:
      - Allows O(state=absent) to release the holds first.
    type: bool
    default: false
  properties:
    description:
      - User properties to set, whose names have a colon. Those that are not named stay as they are.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Take a snapshot and keep it from being destroyed
  zfs_snapshot:
    name: tank/golden@monday
    holds: [release-7]
    properties:
      "site:build": "4711"

- name: Destroy it all the same
  zfs_snapshot:
    name: tank/golden@monday
    state: absent
    release: true
"""

RETURN = r"""
name:
  description: Name of the snapshot.
  type: str
  returned: when it exists
  sample: tank/golden@monday
created:
  description: When it was taken, in UTC.
  type: str
  returned: when it exists
  sample: "2025-11-20T10:55:24Z"
holds:
  description: The tags that hold it.
  type: list
  elements: str
  returned: when it exists
  sample: [release-7]
clones:
  description: The datasets that are clones of it.
  type: list
  elements: str
  returned: when it exists
  sample: [tank/work/alice]
properties:
  description: The properties that were asked for, with their values now.
  type: dict
  returned: when it exists
  sample: {"site:build": "4711"}
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["take snapshot tank/golden@monday", "hold tank/golden@monday with the tag release-7"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import zfs_snapshots
from ansible.module_utils.cow.plan import converge, explained
from ansible.module_utils.cow.zfs import Zfs

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "holds": {"type": "list", "elements": "str", "default": []},
    "release": {"type": "bool", "default": False},
    "properties": {"type": "dict", "default": {}},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    tool = Zfs()
    with explained(module):
        wanted = zfs_snapshots.Wanted.of(module.params)
        converge(
            module,
            observe=lambda: zfs_snapshots.observe(wanted, tool),
            plan=lambda found: zfs_snapshots.plan(found, wanted, tool),
            describe=zfs_snapshots.describe,
        )


if __name__ == "__main__":
    main()

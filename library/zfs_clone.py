# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Clone a ZFS snapshot, and promote or destroy the clone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zfs_clone
short_description: Clone a ZFS snapshot, and promote or destroy the clone
description:
  - Has a dataset exist as a clone of a snapshot, or not exist.
  - Which snapshot it is a clone of is looked at in every run.
  - Never destroys anything recursively or by force; what depends on it is named instead.
author:
  - Cowherd contributors
requirements:
  - OpenZFS 2.0 or newer
extends_documentation_fragment:
  - attributes
options:
  name:
    description:
      - The dataset, as POOL/NAME. The one above it has to exist.
    type: str
    required: true
  origin:
    description:
      - The snapshot, as POOL/NAME@SNAPSHOT. Required with O(state=present).
      - A dataset of this name that is not a clone of it is reported as an error.
    type: str
  state:
    description:
      - V(present) clones it when there is no such dataset, V(absent) destroys it with all that was written in it.
      - A dataset that is not a clone is never destroyed, nor one of another O(origin), nor one that has snapshots or
        datasets below it, or is in use.
    type: str
    choices: [present, absent]
    default: present
  promote:
    description:
      - V(true) promotes it until it depends on no other dataset. The snapshots up to its origin are its own then,
        and what
        they were taken of is a clone of it.
      - V(false) changes nothing, also for one that was promoted.
    type: bool
    default: false
  properties:
    description:
      - Properties to set, native ones such as V(mountpoint), and user properties, whose names have a colon. Those
        that are not
        named stay as they are.
      - Values are compared as C(zfs get -p) gives them, so write sizes in bytes.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Clone a snapshot
  zfs_clone:
    name: tank/work/alice
    origin: tank/golden@monday
    properties:
      mountpoint: /srv/work/alice
      "site:owner": alice

- name: Destroy the clone
  zfs_clone:
    name: tank/work/alice
    origin: tank/golden@monday
    state: absent
"""

RETURN = r"""
name:
  description: Name of the dataset.
  type: str
  returned: when it exists
  sample: tank/work/alice
origin:
  description: The snapshot that it is a clone of; null when it was promoted.
  type: str
  returned: when it exists
  sample: tank/golden@monday
properties:
  description: The properties that were asked for, with their values now.
  type: dict
  returned: when it exists
  sample: {mountpoint: /srv/work/alice}
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["clone tank/golden@monday as tank/work/alice"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import zfs_clones
from ansible.module_utils.cow.plan import converge, explained
from ansible.module_utils.cow.zfs import Zfs

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "origin": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "promote": {"type": "bool", "default": False},
    "properties": {"type": "dict", "default": {}},
}
RULES: dict[str, Any] = {"required_if": [("state", "present", ("origin",))]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, **RULES)
    tool = Zfs()
    with explained(module):
        wanted = zfs_clones.Wanted.of(module.params)
        converge(
            module,
            observe=lambda: zfs_clones.observe(wanted, tool),
            plan=lambda found: zfs_clones.plan(found, wanted, tool),
            describe=zfs_clones.describe,
        )


if __name__ == "__main__":
    main()

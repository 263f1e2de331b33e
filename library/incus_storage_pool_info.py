# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the storage pools of Incus."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_storage_pool_info
short_description: Read the storage pools of Incus
description:
  - Returns for each pool its driver, effective source, size and use, who uses it in all projects,
    whether it can clone, and whether it is half-made.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer
extends_documentation_fragment:
  - attributes.reading
attributes:
  platform:
    description: Runs on Linux, as a user who may use the socket of Incus.
    support: full
    platforms: linux
options:
  name:
    description: Name of the one pool to read. All are read without it.
    type: str
  socket:
    description: Path of the unix socket of the Incus daemon.
    type: path
    default: /var/lib/incus/unix.socket
seealso:
  - module: incus_storage_pool
"""

EXAMPLES = r"""
- name: Look at all pools
  incus_storage_pool_info:
  register: storage

- name: Name those that copy instead of cloning
  ansible.builtin.debug:
    msg: "{{ storage.pools | rejectattr('can_clone') | map(attribute='name') }}"
"""

RETURN = r"""
pools:
  description:
    - The pools by name, each with the keys that M(incus_storage_pool) returns as RV(incus_storage_pool#module:pool).
    - Empty when O(name) names none.
  type: list
  elements: dict
  returned: success
  sample: [{name: default, driver: btrfs, source: /var/lib/incus/disks/default.img, can_clone: true, half_made: false}]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import names
from ansible.module_utils.cow.incus import connection, pools
from ansible.module_utils.cow.plan import report

ARGUMENTS: dict[str, Any] = {"name": {"type": "str"}, **connection.READING_ARGUMENTS}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    name = module.params["name"]
    with connection.reading(module) as server:
        found = pools.read_all(server) if name is None else (pools.read(server, names.pool(name)),)
        report(module, lambda: {"pools": [pools.describe(pool)["pool"] for pool in found if pool is not None]})


if __name__ == "__main__":
    main()

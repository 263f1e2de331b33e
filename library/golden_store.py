# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have a place for golden trees: a folder, or a dataset and the pool of ZFS that it is in."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_store
short_description: Have a place for golden trees
description:
  - Has the folder or the ZFS dataset exist that M(golden_cache) and M(golden_session) call the store.
  - Makes the pool of ZFS too, on a named device on which nothing is. A device with a file system, partitions or
    anything else that can be recognised is refused, and so is one from which a pool could be imported, also a
    destroyed one. Nothing is ever done by force.
author:
  - Cowherd contributors
extends_documentation_fragment:
  - golden
  - attributes
attributes:
  check_mode:
    description:
      - Reports what a run would do, and writes nothing. Where there is no pool, and no device to make it on, it warns,
        for a task before may be to make it.
    support: full
options:
  store:
    description:
      - Where the golden trees are to be, an absolute path of a folder, or a ZFS dataset as POOL/NAME.
      - One that exists stays as it is.
    type: str
    required: true
  device:
    description:
      - The block device on which to make the pool of a dataset, when there is none of its name yet.
      - When there is one, it has to be on this device.
    type: path
  pool_properties:
    description:
      - Properties of the pool, when it is made.
    type: dict
    default:
      ashift: "12"
      autotrim: "on"
  properties:
    description:
      - Properties of the datasets that are made, and of the pool's own.
      - Without C(acltype=posixacl) a tree that has ACLs cannot be kept.
    type: dict
    default:
      acltype: posixacl
      atime: "off"
      compression: lz4
      xattr: sa
"""

EXAMPLES = r"""
- name: Have a pool on the second disk, and a place for golden trees in it
  golden_store:
    store: tank/golden
    device: /dev/disk/by-id/nvme-SAMPLE_1TB_S0

- name: Have a folder on the btrfs that is at /srv
  golden_store:
    store: /srv/golden
"""

RETURN = r"""
store:
  description: The store.
  type: str
  returned: always
  sample: tank/golden
exists:
  description: Whether it exists; false in check mode before it is made.
  type: bool
  returned: always
  sample: true
backend:
  description: The backend in effect; null in check mode before the store is there.
  type: str
  returned: always
  sample: zfs
why:
  description: Why it is that one; null where it is.
  type: str
  returned: always
  sample: tank/golden names a dataset
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["create pool tank on /dev/vdb (4.0 GiB)", "create dataset tank/golden"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.golden import place, stores
from ansible.module_utils.cow.plan import converge, explained
from ansible.module_utils.cow.zfs import Zfs
from ansible.module_utils.cow.zpool import Zpool

ARGUMENTS: dict[str, Any] = {
    **stores.ARGUMENTS,
    "device": {"type": "path"},
    "pool_properties": {"type": "dict", "default": {"ashift": "12", "autotrim": "on"}},
    "properties": {
        "type": "dict",
        "default": {"acltype": "posixacl", "atime": "off", "compression": "lz4", "xattr": "sa"},
    },
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    zpool, zfs = Zpool(), Zfs()
    with explained(module):
        wanted = place.Wanted.of(module.params)
        with lock.held(f"golden-store:{wanted.store}"):
            converge(
                module,
                observe=lambda: place.observe(wanted, zpool, zfs),
                plan=lambda found: place.plan(found, wanted, zpool, zfs),
                describe=lambda found: place.describe(found, wanted),
            )


if __name__ == "__main__":
    main()

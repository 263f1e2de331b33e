# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make and keep a storage pool of Incus."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_storage_pool
short_description: Make and keep a storage pool of Incus on copy-on-write storage
description:
  - Has a storage pool exist on a driver that clones, so that launching an instance does not copy its image.
  - Chooses where the pool lives when nothing is said, never shrinks one, and never removes one that holds anything.
  - A pool of another driver than the wanted one is drift. It is left as it is and reported, with the way out.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer, not clustered
extends_documentation_fragment:
  - attributes
options:
  name:
    description: Name of the pool.
    type: str
    required: true
  state:
    description:
      - V(present) makes the pool when there is none, grows its loop file and sets its configuration.
      - V(absent) removes a pool that holds nothing but cached images. One that is in use is refused, and a V(dir) pool
        with files that Incus does not know.
    type: str
    choices: [present, absent]
    default: present
  driver:
    description:
      - V(auto), V(btrfs), V(zfs) or V(dir).
      - V(auto) is satisfied by any driver that clones. For a new pool it takes the first that is possible of
        O(source), O(device), O(dataset), O(path), the ZFS pool of the root file system, and a btrfs loop file.
        It never takes V(dir).
    type: str
    default: auto
  source:
    description:
      - Exactly where a new pool is to be, a block device, a path on btrfs that does not exist yet, or a dataset.
      - Not a file. For a loop file give O(size) alone.
    type: str
  device:
    description: An unused block device for a new pool. One with anything on it is refused.
    type: path
  path:
    description:
      - A folder. When it is on btrfs, a new pool is a subvolume in it; when it is not, the pool is elsewhere, and a
        warning says where. There is none for C(/var/lib/cowherd/pools), which the role C(cow_pool) gives of itself.
      - Incus refuses a path that begins like its own folder, such as C(/var/lib/incus-pools).
    type: path
  dataset:
    description:
      - A ZFS dataset (POOL/NAME) for a new pool, not existing yet or empty. One is empty that has no files, snapshots
        or datasets in it; a volume or a whole ZFS pool is refused.
    type: str
  size:
    description:
      - Size of the loop file, as in V(50GiB), or as a share of what is free under the daemon's folder, as in V(30%).
      - Without it, a new loop file has half of what is free, and at least 5GiB.
      - An existing loop file grows to a larger size that is given in bytes. A smaller one is drift, a share changes
        nothing.
    type: str
  config:
    description: Further configuration keys of the pool, as Incus names them. Keys that are not given stay.
    type: dict
    default: {}
  description:
    description: Description of the pool.
    type: str
  recreate_empty:
    description:
      - Allows a V(dir) pool to be removed and made again on the wanted driver when it has no instances, custom volumes,
        buckets, and no files that Incus does not know.
      - Profiles of all projects that name it are detached meanwhile and attached again. An interrupted run is finished
        by the next one.
    type: bool
    default: false
  drift:
    description:
      - What to do when the pool exists but cannot become what is wanted without moving data.
      - V(fail) ends with an error, V(report) leaves it, warns, and returns RV(drift).
    type: str
    choices: [fail, report]
    default: fail
  socket:
    description: Path of the unix socket of the Incus daemon. The folder that it is in is the daemon's own (INCUS_DIR).
    type: path
    default: /var/lib/incus/unix.socket
  pending:
    description:
      - Incus is about to be installed or started by the same play. When there is no daemon, an empty one is assumed,
        so that check mode can say what a run does on a host where nothing is installed yet.
      - A daemon that is down but has a database is not guessed at. Check mode then warns and names no steps.
    type: bool
    default: false
seealso:
  - module: incus_storage_pool_info
  - module: incus_preseed
"""

EXAMPLES = r"""
- name: Have a pool that clones, wherever it is best
  incus_storage_pool:
    name: default

- name: Have a pool on an SSD of its own
  incus_storage_pool:
    name: fast
    driver: btrfs
    device: /dev/sda

- name: Let the loop file of a pool grow
  incus_storage_pool:
    name: default
    size: 80GiB
"""

RETURN = r"""
pool:
  description: The pool as it is after the run; in check mode as it is. Null when there is none.
  type: dict
  returned: success
  sample: {name: default, driver: btrfs, source: /var/lib/incus/disks/default.img, can_clone: true}
  contains:
    name:
      description: Its name.
      type: str
      returned: success
      sample: default
    driver:
      description: The driver in effect.
      type: str
      returned: success
      sample: btrfs
    source:
      description: The effective source, as the server has rewritten it. A loop file, UUID, device, path or dataset.
      type: str
      returned: success
      sample: /var/lib/incus/disks/default.img
    initial_source:
      description: The source that it was made with, where the server recorded it.
      type: str
      returned: success
      sample: /dev/sda
    status:
      description: What the server says of it; V(Created) when it can be used.
      type: str
      returned: success
      sample: Created
    description:
      description: Its description.
      type: str
      returned: success
      sample: ""
    size_bytes:
      description: Its size in bytes; null while it is not available.
      type: int
      returned: success
      sample: 53687091200
    used_bytes:
      description: How much of it is in use, in bytes; null while it is not available.
      type: int
      returned: success
      sample: 6062080
    can_clone:
      description: Whether a new instance is a clone of its image and not a copy.
      type: bool
      returned: success
      sample: true
    half_made:
      description: Whether making it was interrupted and it holds nothing.
      type: bool
      returned: success
      sample: false
    used_by:
      description: Who uses it in all projects, by kind. Names carry their project when it is not the default one.
      type: dict
      returned: success
      sample: {instances: [c1, shop/c2], volumes: [], buckets: [], images: [], profiles: [default]}
location:
  description: Where a new pool was made, by kind (loop, device, subvolume, dataset or directory), and why there.
  type: dict
  returned: when a pool is made
  sample: {kind: loop, why: "a loop file of 50GiB in /var/lib/incus/disks"}
drift:
  description: What is not as wanted and cannot be changed, with the way out.
  type: str
  returned: when O(drift=report) and there is drift
  sample: "Pool default has driver dir and holds instances c1; wanted is one that clones (btrfs or zfs). ..."
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["create storage pool default: btrfs, a loop file of 50GiB in /var/lib/incus/disks"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import arguments, connection, pools, profiles
from ansible.module_utils.cow.plan import converge

ARGUMENTS: dict[str, Any] = {
    **arguments.STORAGE_POOL,
    **connection.ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        wanted = pools.Wanted.of(module.params)
        absent = module.params["state"] == "absent"
        converge(
            module,
            observe=lambda: pools.observe(server, wanted.wish, profiles.read_all(server)),
            plan=lambda found: pools.plan_absent(server, found) if absent else pools.plan(server, found, wanted),
            describe=lambda found: pools.describe(found.pool),
        )


if __name__ == "__main__":
    main()

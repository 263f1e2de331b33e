# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the instances of Incus, and what a move to another pool would mean for each."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_instance_info
short_description: Read the instances of Incus, and what a move to another pool would mean for each
description:
  - Returns for each instance where its root is, how large it and its snapshots are, how far a move of it is, what a
    move to O(pool) would not keep, how long it would be down, and why a move would be refused.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer
extends_documentation_fragment:
  - attributes.reading
attributes:
  platform:
    description: Runs on Linux, as root, on the host of the daemon.
    support: full
    platforms: linux
options:
  pool:
    description:
      - Storage pool that a move would be to. Without it nothing is said of a move, and sizes are not measured.
    type: str
  from_pool:
    description: Only instances whose root is on this pool are returned.
    type: str
  names:
    description: The instances to return, each as NAME or PROJECT/NAME, exactly. All of all projects when it is empty.
    type: list
    elements: str
    default: []
  protected:
    description:
      - Instances that must not be touched, each as NAME or PROJECT/NAME, exactly; an entry that names no instance is an
        error.
    type: list
    elements: str
    default: []
  fingerprint:
    description: Whether to return a fingerprint of each instance, to tell later that nothing has touched it.
    type: bool
    default: false
  headroom:
    description: What has to stay free on the target pool, as in M(incus_instance_pool).
    type: str
    default: 512MiB
  allow_other_disks:
    description: As in M(incus_instance_pool).
    type: bool
    default: false
  allow_untested_version:
    description: As in M(incus_instance_pool).
    type: bool
    default: false
  socket:
    description: Path of the unix socket of the Incus daemon.
    type: path
    default: /var/lib/incus/unix.socket
seealso:
  - module: incus_instance_pool
"""

EXAMPLES = r"""
- name: Look at what a move of everything on the pool slow to fast would mean
  incus_instance_info:
    from_pool: slow
    pool: fast
    protected: [mary]
  register: before

- name: Take the fingerprints of those that must not be touched
  incus_instance_info:
    names: [mary]
    fingerprint: true
"""

RETURN = r"""
instances:
  description: The instances, by project and name.
  type: list
  elements: dict
  returned: success
  sample: [{name: c1, project: default, pool: slow, status: Running, size_bytes: 402653184, refused: []}]
  contains:
    name:
      description: Its name.
      type: str
      returned: success
      sample: c1
    project:
      description: The project that it is in.
      type: str
      returned: success
      sample: default
    type:
      description: V(container) or V(virtual-machine).
      type: str
      returned: success
      sample: container
    status:
      description: What the server says of it, such as V(Running) or V(Stopped).
      type: str
      returned: success
      sample: Running
    uuid:
      description: The uuid that Incus gave it; empty when it has none.
      type: str
      returned: success
      sample: 7175e023-cbaf-43e9-b08d-7f2ce708862c
    pool:
      description: The pool that its root is on; empty when it has no root disk.
      type: str
      returned: success
      sample: slow
    protected:
      description: Whether it is among O(protected).
      type: bool
      returned: success
      sample: false
    move:
      description:
        - What the journal says of its last move, as M(incus_instance_pool) returns it; null when there is none.
      type: dict
      returned: success
      sample: null
    snapshots:
      description: Its snapshots, the oldest first.
      type: list
      elements: dict
      returned: success
      sample: [{name: before-upgrade, created_at: "2026-01-10T09:12:44Z", expires_at: "", size_bytes: 402653184}]
      contains:
        name:
          description: Its name.
          type: str
          returned: success
          sample: before-upgrade
        created_at:
          description: When it was taken, in UTC (ISO 8601).
          type: str
          returned: success
          sample: "2026-01-10T09:12:44Z"
        expires_at:
          description: When it expires; empty when it does not.
          type: str
          returned: success
          sample: ""
        size_bytes:
          description: What its files hold, in bytes; null when O(pool) is not given.
          type: int
          returned: success
          sample: 402653184
    size_bytes:
      description: What the files of its root hold, in bytes; null when O(pool) is not given or it is not a container.
      type: int
      returned: success
      sample: 402653184
    needed_bytes:
      description: What root and snapshots need on the target pool at most, in bytes; null when sizes are not measured.
      type: int
      returned: success
      sample: 805306368
    expected_downtime_seconds:
      description:
        - How long it would be down, estimated from the number of its files, without the time that it takes to stop.
        - V(0) for one that does not run, null when O(pool) is not given.
      type: float
      returned: success
      sample: 1.2
    not_carried:
      description: What a move would not keep, in words.
      type: list
      elements: str
      returned: success
      sample: ["the date of creation of the instance, which becomes that of the move"]
    refused:
      description: Why a move to O(pool) would be refused, in words; empty when it would not, or O(pool) is not given.
      type: list
      elements: str
      returned: success
      sample: ["c1 is a virtual machine. Only containers are moved."]
    fingerprint:
      description: What tells that nothing has touched it; null unless O(fingerprint).
      type: dict
      returned: success
      sample: {configuration: 51c0..., power: 77aa..., tree: 09fe...}
      contains:
        configuration:
          description: SHA-256 of its configuration, profiles, devices and snapshots.
          type: str
          returned: success
          sample: 51c0a3
        power:
          description: SHA-256 of its status, PID and time of start.
          type: str
          returned: success
          sample: 77aa01
        tree:
          description:
            - SHA-256 of its root and snapshots, each file with all attributes and its ctime. One that runs and writes
              changes it by itself. Empty for what is not a container on a pool of files.
          type: str
          returned: success
          sample: 09fe44
moves:
  description: All moves that there are journals of, each with the keys of RV(instances[].move), and the instance.
  type: list
  elements: dict
  returned: success
  sample: [{name: c1, project: default, uuid: 7175e023-cbaf-43e9-b08d-7f2ce708862c, phase: moved}]
foreign:
  description: Instances that are called like a copy or a kept source of a move and that no journal knows.
  type: list
  elements: str
  returned: success
  sample: []
space:
  description: The room on the target pool; null when O(pool) is not given.
  type: dict
  returned: success
  sample: {free_bytes: 21474836480, host_free_bytes: null, needed_bytes: 805306368}
  contains:
    free_bytes:
      description: What the pool says is free, in bytes.
      type: int
      returned: success
      sample: 21474836480
    host_free_bytes:
      description: What the host's file system has free when the pool is in a sparse file there; null otherwise.
      type: int
      returned: success
      sample: null
    needed_bytes:
      description: What all returned instances that would not be refused need together at most.
      type: int
      returned: success
      sample: 805306368
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import connection, move_table
from ansible.module_utils.cow.plan import report

ARGUMENTS: dict[str, Any] = {
    **connection.READING_ARGUMENTS,
    "pool": {"type": "str"},
    "from_pool": {"type": "str"},
    "names": {"type": "list", "elements": "str", "default": []},
    "protected": {"type": "list", "elements": "str", "default": []},
    "fingerprint": {"type": "bool", "default": False},
    "headroom": {"type": "str", "default": "512MiB"},
    "allow_other_disks": {"type": "bool", "default": False},
    "allow_untested_version": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.reading(module) as server:
        report(module, lambda: move_table.read(server, move_table.Asked.of(module.params)))


if __name__ == "__main__":
    main()

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have an instance's root on a storage pool of Incus, with a way back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_instance_pool
short_description: Move a container of Incus to another storage pool, and back, with nothing lost
description:
  - Has the root of a container, and all its snapshots, on a storage pool. It is copied while it runs, stopped, brought
    up to date, compared file by file with its source (contents included), and put in the source's place by two renames.
  - The source stays, renamed aside and switched off, until O(state=cleaned) removes it. Until then O(state=rolled_back)
    puts it back.
  - Each step is in a journal on the host before it is taken, so that a run that was interrupted in any way is finished
    or undone by the next one. MAC addresses, uuid, instance-id of cloud-init, profiles, devices, configuration, and
    dates of snapshots stay the same.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0, not clustered
  - Pools of the drivers dir or btrfs, as source and as target
extends_documentation_fragment:
  - attributes
attributes:
  platform:
    description: Runs on Linux, as root, on the host of the daemon.
    support: full
    platforms: linux
options:
  name:
    description: Name of the container.
    type: str
    required: true
  project:
    description: Project that it is in.
    type: str
    default: default
  pool:
    description: Storage pool that its root is to be on. Needed with O(state=moved).
    type: str
  state:
    description:
      - V(moved) has the container's root on O(pool).
      - V(rolled_back) undoes a move from whichever step it is at. What was written to the container since the move
        stays in the copy, which is kept aside; nothing is deleted but a copy that was never finished.
      - V(cleaned) removes what moves of this container have put aside, when O(remove_source) allows it, O(retention) is
        over, the journal says that the copy was compared, and nobody has used what is to be removed.
    type: str
    choices: [moved, rolled_back, cleaned]
    default: moved
  protected:
    description:
      - Instances that must not be touched, each as NAME (in the project V(default)) or PROJECT/NAME, exactly.
      - An entry that names no instance is an error, as a typing error must not lose its protection.
      - This container is refused when it is among them.
    type: list
    elements: str
    default: []
  stop_timeout:
    description:
      - Seconds that the container gets to stop. One that does not is left running and the move is not made; one that
        ends only after that is started again.
    type: int
    default: 60
  health_command:
    description: Command that is run in the container after its start. It has to end with status 0.
    type: list
    elements: str
    default: ["true"]
  health_timeout:
    description:
      - Seconds in which the container, once started, has to run, to end O(health_command) well, and to have the
        addresses that it had before. Otherwise the move is undone.
    type: int
    default: 60
  headroom:
    description:
      - What has to stay free on the target pool, and on the host's file system when the pool is in a file there.
    type: str
    default: 512MiB
  retention:
    description: Hours that must have passed since the move before O(state=cleaned) removes what was put aside.
    type: float
    default: 168
  remove_source:
    description: Allows O(state=cleaned) to remove the kept source, with its snapshots and backups, for good.
    type: bool
    default: false
  allow_other_disks:
    description:
      - Allows to move a container that has further disks on the pool which it leaves. These stay where they are.
    type: bool
    default: false
  allow_untested_version:
    description: Allows a version of Incus that the move was not tested with.
    type: bool
    default: false
  progress_file:
    description:
      - File on the host that says how far the run is, for somebody who reads it meanwhile. It is replaced as a whole
        each time and removed at the end.
      - It holds a JSON object with C(phase), C(instance), C(bytes_done), C(bytes_total), C(bytes_per_second) and
        C(updated) (seconds since 1970).
    type: path
  socket:
    description: Path of the unix socket of the Incus daemon. The folder that it is in is the daemon's own (INCUS_DIR).
    type: path
    default: /var/lib/incus/unix.socket
seealso:
  - module: incus_instance_info
  - module: incus_profile_pool
  - module: incus_storage_pool
"""

EXAMPLES = r"""
- name: Have c1 on the pool fast
  incus_instance_pool:
    name: c1
    pool: fast
    protected: [mary, shop/stanley]

- name: Put c1 back where it was
  incus_instance_pool:
    name: c1
    state: rolled_back

- name: Remove what the move has put aside, a day after it
  incus_instance_pool:
    name: c1
    state: cleaned
    retention: 24
    remove_source: true
"""

RETURN = r"""
instance:
  description: The container as it is after the run; in check mode as it is.
  type: dict
  returned: success
  sample: {name: c1, project: default, pool: fast, status: Running, uuid: 7175e023-cbaf-43e9-b08d-7f2ce708862c}
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
    pool:
      description: The pool that its root is on.
      type: str
      returned: success
      sample: fast
    status:
      description: What the server says of it, such as V(Running) or V(Stopped).
      type: str
      returned: success
      sample: Running
    uuid:
      description: The uuid that Incus gave it; a move keeps it.
      type: str
      returned: success
      sample: 7175e023-cbaf-43e9-b08d-7f2ce708862c
move:
  description: What the journal says of the container's last move; null when there is none.
  type: dict
  returned: success
  sample: {phase: moved, from_pool: slow, to_pool: fast, kept: kept-of-c1-3fa1b2, downtime_seconds: 1.4}
  contains:
    phase:
      description:
        - How far it is. V(copying), V(filling), V(stopping), V(verified), V(starting), V(moved), V(rolling_back)
          or V(rolled_back). The copy takes the source's place after V(verified).
      type: str
      returned: success
      sample: moved
    from_pool:
      description: The pool that the container was on.
      type: str
      returned: success
      sample: slow
    to_pool:
      description: The pool that it is moved to.
      type: str
      returned: success
      sample: fast
    kept:
      description: Name of the source that is kept aside; empty when there is none.
      type: str
      returned: success
      sample: kept-of-c1-3fa1b2
    aside:
      description: Names of all instances that moves of this container have put aside and that are still there.
      type: list
      elements: str
      returned: success
      sample: [kept-of-c1-3fa1b2]
    began:
      description: When the move began, in UTC (ISO 8601).
      type: str
      returned: success
      sample: "2026-01-10T09:12:44Z"
    ended:
      description: When it was finished; empty before that.
      type: str
      returned: success
      sample: "2026-01-10T09:13:20Z"
    downtime_seconds:
      description: From the request to stop until the container ran again; 0 for one that did not run.
      type: float
      returned: success
      sample: 1.4
    verify_seconds:
      description: The share of the downtime that comparing took.
      type: float
      returned: success
      sample: 0.3
    total_seconds:
      description: From the beginning to the end, with all runs that it took.
      type: float
      returned: success
      sample: 24.1
    bytes:
      description: What is in the files of the root and of all snapshots, in bytes.
      type: int
      returned: success
      sample: 402653184
    digest:
      description: SHA-256 of the manifest of the root that source and copy had in common.
      type: str
      returned: success
      sample: 6bd3c1f7c5b6f0b1a8d1b8a9d4e2c0a6f4a7b0b6de2d3d0a3b8f9a1c2d3e4f50
    snapshot_digests:
      description: The same for each snapshot, by name.
      type: dict
      returned: success
      sample: {before-upgrade: 0d1b...}
not_carried:
  description: What a move does not keep, in words.
  type: list
  elements: str
  returned: success
  sample: ["the date of creation of the instance, which becomes that of the move"]
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["copy c1 with 2 snapshots from pool slow to fast as move-of-c1-3fa1b2"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import connection, moving
from ansible.module_utils.cow.plan import converge

ARGUMENTS: dict[str, Any] = {
    **connection.READING_ARGUMENTS,
    "name": {"type": "str", "required": True},
    "project": {"type": "str", "default": "default"},
    "pool": {"type": "str"},
    "state": {"type": "str", "choices": ["moved", "rolled_back", "cleaned"], "default": "moved"},
    "protected": {"type": "list", "elements": "str", "default": []},
    "stop_timeout": {"type": "int", "default": 60},
    "health_command": {"type": "list", "elements": "str", "default": ["true"]},
    "health_timeout": {"type": "int", "default": 60},
    "headroom": {"type": "str", "default": "512MiB"},
    "retention": {"type": "float", "default": 168},
    "remove_source": {"type": "bool", "default": False},
    "allow_other_disks": {"type": "bool", "default": False},
    "allow_untested_version": {"type": "bool", "default": False},
    "progress_file": {"type": "path"},
}
RULES: dict[str, Any] = {"required_if": [["state", "moved", ["pool"]]]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, **RULES)
    with connection.session(module) as server:
        wanted = moving.Wanted.of(module.params)
        converge(
            module,
            observe=lambda: moving.observe(server, wanted),
            plan=lambda found: moving.plan(server, found, wanted),
            describe=moving.describe,
        )


if __name__ == "__main__":
    main()

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make and keep a profile of Incus."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_profile
short_description: Make and keep a profile of Incus, merging devices
description:
  - Has a profile exist with the given configuration and devices. What it holds besides stays.
  - The pool of a root disk that instances inherit is not changed, since Incus does not move them. That is drift.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer
extends_documentation_fragment:
  - attributes
options:
  name:
    description: Name of the profile.
    type: str
    required: true
  project:
    description: Project that the profile is in.
    type: str
    default: default
  state:
    description: V(absent) removes a profile that no instance uses. The profile V(default) cannot be removed.
    type: str
    choices: [present, absent]
    default: present
  config:
    description: Configuration keys, as Incus names them.
    type: dict
    default: {}
  devices:
    description:
      - Devices by name, each with its options. They are merged into those of the same name.
      - A root disk (type V(disk), path V(/), with a pool) is merged into the one that there is, whatever its name.
    type: dict
    default: {}
  fallback_devices:
    description: Devices that are added where the profile has none of the same type; for a disk, of the path.
    type: dict
    default: {}
  remove_devices:
    description: Names of devices that are taken away.
    type: list
    elements: str
    default: []
  description:
    description: Description of the profile.
    type: str
  drift:
    description:
      - What to do when the root disk should move to another pool while instances inherit it.
      - V(fail) ends with an error, V(report) leaves the profile, warns, and returns RV(drift).
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
"""

EXAMPLES = r"""
- name: Put the root disk of new instances on the pool fast
  incus_profile:
    name: default
    devices:
      root:
        type: disk
        path: /
        pool: fast

- name: Give new instances a NIC unless they have one already
  incus_profile:
    name: default
    fallback_devices:
      eth0:
        type: nic
        network: incusbr0
"""

RETURN = r"""
profile:
  description: The profile as it is after the run; in check mode as it is. Null when there is none.
  type: dict
  returned: success
  sample: {name: default, project: default, config: {}, devices: {root: {type: disk, path: /, pool: fast}}, used_by: []}
  contains:
    name:
      description: Its name.
      type: str
      returned: success
      sample: default
    project:
      description: The project that it is in.
      type: str
      returned: success
      sample: default
    description:
      description: Its description.
      type: str
      returned: success
      sample: Default Incus profile
    config:
      description: Its configuration.
      type: dict
      returned: success
      sample: {limits.memory: 1GiB}
    devices:
      description: Its devices by name.
      type: dict
      returned: success
      sample: {root: {type: disk, path: /, pool: fast}}
    used_by:
      description: The instances that use it, with their project when it is not the default one.
      type: list
      elements: str
      returned: success
      sample: [c1, shop/c2]
drift:
  description: What is not as wanted and cannot be changed, with the way out.
  type: str
  returned: when O(drift=report) and there is drift
  sample: "Profile default has its root disk on pool local, wanted is fast, but c1 inherit it ..."
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["set device root of profile default"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import arguments, connection, profiles
from ansible.module_utils.cow.plan import converge

ARGUMENTS: dict[str, Any] = {
    **arguments.PROFILE,
    **connection.ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        wanted = profiles.Wanted.of(module.params)
        absent = module.params["state"] == "absent"
        converge(
            module,
            observe=lambda: profiles.read_all(server),
            plan=lambda known: (
                profiles.plan_absent(server, known, wanted.key) if absent else profiles.plan(server, known, wanted)
            ),
            describe=lambda known: profiles.describe(known.get(wanted.key)),
        )


if __name__ == "__main__":
    main()

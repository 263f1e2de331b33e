# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Repoint the root disks of profiles from one storage pool of Incus to another."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_profile_pool
short_description: Repoint the root disks of profiles from one storage pool of Incus to another
description:
  - Has no profile of any project put new instances on O(from_pool), once the instances are moved away from it.
  - A profile whose root disk is still inherited by an instance stays as it is, since Incus does not move instances with
    their profile. The result says which profile stays and for which instances.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0, not clustered
extends_documentation_fragment:
  - attributes
options:
  from_pool:
    description: Storage pool that profiles are to leave.
    type: str
    required: true
  pool:
    description: Storage pool that their root disks are to be on.
    type: str
    required: true
  protected:
    description:
      - Instances that must not be touched, each as NAME or PROJECT/NAME, exactly; an entry that names no instance is an
        error.
    type: list
    elements: str
    default: []
  pin_protected:
    description:
      - Gives a protected instance that inherits its root disk a root disk of its own, equal to the one that it
        inherits, so that the profile can be repointed. That changes its configuration and nothing else; it is not
        restarted.
    type: bool
    default: false
  socket:
    description: Path of the unix socket of the Incus daemon.
    type: path
    default: /var/lib/incus/unix.socket
seealso:
  - module: incus_instance_pool
  - module: incus_profile
"""

EXAMPLES = r"""
- name: Have new instances on fast, and leave those that are protected where they are
  incus_profile_pool:
    from_pool: slow
    pool: fast
    protected: [mary]
    pin_protected: true
"""

RETURN = r"""
profiles:
  description: The profiles with a root disk on one of the two pools, as they are after the run; in check mode as it is.
  type: list
  elements: dict
  returned: success
  sample: [{name: default, project: default, pool: fast, inheriting: [], why_it_stays: ""}]
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
    pool:
      description: The pool of its root disk.
      type: str
      returned: success
      sample: fast
    inheriting:
      description: Instances that inherit its root disk.
      type: list
      elements: str
      returned: success
      sample: [mary]
    why_it_stays:
      description: Why its root disk stays on O(from_pool), in words; empty when it does not.
      type: str
      returned: success
      sample: ""
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["pin the root disk of mary to pool slow", "put the root disk of profile default on pool fast"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import connection, profile_pools
from ansible.module_utils.cow.plan import converge

ARGUMENTS: dict[str, Any] = {
    **connection.READING_ARGUMENTS,
    "from_pool": {"type": "str", "required": True},
    "pool": {"type": "str", "required": True},
    "protected": {"type": "list", "elements": "str", "default": []},
    "pin_protected": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        wanted = profile_pools.Wanted.of(module.params)
        converge(
            module,
            observe=lambda: profile_pools.observe(server, wanted),
            plan=lambda found: profile_pools.plan(server, found, wanted),
            describe=lambda found: profile_pools.describe(found, wanted),
        )


if __name__ == "__main__":
    main()

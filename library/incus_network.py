# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make and keep a managed network of Incus."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_network
short_description: Make and keep a managed network of Incus
description:
  - Has a managed network exist with the given configuration. Keys that are not given stay as they are.
  - An interface of the host with the same name is left alone and reported as an error.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer, not clustered
extends_documentation_fragment:
  - attributes
options:
  name:
    description: Name of the network, which is also that of its interface; at most 15 characters.
    type: str
    required: true
  state:
    description: V(absent) removes a network that nothing uses. One that is in use is refused.
    type: str
    choices: [present, absent]
    default: present
  type:
    description: Type of a new network. The type of an existing one cannot be changed.
    type: str
    choices: [bridge, macvlan, sriov, ovn, physical]
    default: bridge
  config:
    description:
      - Configuration keys, as Incus names them.
      - An address that is wanted as V(auto) is satisfied by any. For a new C(ipv4.address), a private subnet is chosen
        that the host has no route to.
    type: dict
    default: {}
  description:
    description: Description of the network.
    type: str
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
- name: Have a bridge with NAT
  incus_network:
    name: incusbr0
    config:
      ipv4.address: auto
      ipv4.nat: true
      ipv6.address: none
"""

RETURN = r"""
network:
  description: The network as it is after the run; in check mode as it is. Null when there is none.
  type: dict
  returned: success
  sample: {name: incusbr0, type: bridge, managed: true, status: Created, config: {}, used_by: []}
  contains:
    name:
      description: Its name.
      type: str
      returned: success
      sample: incusbr0
    type:
      description: Its type.
      type: str
      returned: success
      sample: bridge
    managed:
      description: Whether Incus made it.
      type: bool
      returned: success
      sample: true
    description:
      description: Its description.
      type: str
      returned: success
      sample: ""
    status:
      description: What the server says of it.
      type: str
      returned: success
      sample: Created
    config:
      description: Its configuration.
      type: dict
      returned: success
      sample: {ipv4.address: 10.1.2.1/24, ipv4.nat: "true"}
    used_by:
      description: The instances and profiles that use it, as paths of the API.
      type: list
      elements: str
      returned: success
      sample: [profiles/default]
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["create network incusbr0 (bridge)"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import arguments, connection, networks
from ansible.module_utils.cow.plan import converge

ARGUMENTS: dict[str, Any] = {
    **arguments.NETWORK,
    **connection.ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        wanted = networks.Wanted.of(module.params)
        absent = module.params["state"] == "absent"
        converge(
            module,
            observe=lambda: networks.observe(server),
            plan=lambda found: (
                networks.plan_absent(server, found, wanted.name) if absent else networks.plan(server, found, wanted)
            ),
            describe=lambda found: networks.describe(found.networks.get(wanted.name)),
        )


if __name__ == "__main__":
    main()

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Converge an Incus server onto networks, pools, profiles and images in one plan."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_preseed
short_description: Converge an Incus server onto networks, pools, profiles and images in one plan
description:
  - Does what M(incus_network), M(incus_storage_pool), M(incus_profile) and M(incus_image) do, for any number of
    resources in one execution, and with one plan.
  - One plan knows what its own earlier steps change. When a pool is made again, the images on it are unpacked again,
    and check mode says so.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer, not clustered
extends_documentation_fragment:
  - attributes
options:
  networks:
    description: Networks, each with the options of M(incus_network) but O(incus_network#module:state).
    type: list
    elements: dict
    default: []
  storage_pools:
    description: Storage pools, each with the options of M(incus_storage_pool) but O(incus_storage_pool#module:state).
    type: list
    elements: dict
    default: []
  profiles:
    description:
      - Profiles, each with the options of M(incus_profile) but O(incus_profile#module:state).
      - One may be named more than once; the entries are merged in their order.
    type: list
    elements: dict
    default: []
  images:
    description: Images, each with the options of M(incus_image) but O(incus_image#module:state).
    type: list
    elements: dict
    default: []
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
  - module: incus_network
  - module: incus_storage_pool
  - module: incus_profile
  - module: incus_image
"""

EXAMPLES = r"""
- name: Have a bridge, a pool that clones, and a default profile that uses both
  incus_preseed:
    networks:
      - name: incusbr0
        config:
          ipv4.address: auto
    storage_pools:
      - name: default
        size: 50GiB
    profiles:
      - name: default
        devices:
          root: {type: disk, path: /, pool: default}
          eth0: {type: nic, network: incusbr0}
"""

RETURN = r"""
storage_pools:
  description:
    - The pools that were asked for as they are after the run, in check mode as they are, with the keys of
      RV(incus_storage_pool#module:pool). One that is still to be made is missing.
  type: list
  elements: dict
  returned: success
  sample: [{name: default, driver: btrfs, source: /var/lib/incus/disks/default.img, can_clone: true}]
locations:
  description: Where pools were made, by name of the pool, as RV(incus_storage_pool#module:location).
  type: dict
  returned: success
  sample: {default: {kind: loop, why: a loop file of 50GiB in /var/lib/incus/disks}}
drift:
  description: What is not as wanted and cannot be changed without moving data, each with the way out.
  type: list
  elements: str
  returned: success
  sample: []
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["create network incusbr0 (bridge)", "set device eth0, device root of profile default"]
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.cow.errors import CowError
from ansible.module_utils.cow.incus import arguments, connection, images, networks, pools, preseed, profiles
from ansible.module_utils.cow.plan import converge

_ENTRIES: dict[str, Any] = {"type": "list", "elements": "dict", "default": []}
ARGUMENTS: dict[str, Any] = {
    "networks": _ENTRIES,
    "storage_pools": _ENTRIES,
    "profiles": _ENTRIES,
    "images": _ENTRIES,
    **connection.ARGUMENTS,
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        wanted = _wanted(module.params)
        converge(
            module,
            observe=lambda: preseed.observe(server, wanted),
            plan=lambda found: preseed.plan(server, found, wanted),
            describe=preseed.describe,
        )


def _wanted(params: Mapping[str, Any]) -> preseed.Wanted:
    return preseed.Wanted(
        networks=[networks.Wanted.of(entry) for entry in _entries(params, "networks", arguments.NETWORK)],
        storage_pools=[pools.Wanted.of(entry) for entry in _entries(params, "storage_pools", arguments.STORAGE_POOL)],
        profiles=[profiles.Wanted.of(entry) for entry in _entries(params, "profiles", arguments.PROFILE)],
        images=[images.Wanted.of(entry) for entry in _entries(params, "images", arguments.IMAGE)],
    )


def _entries(params: Mapping[str, Any], option: str, spec: dict[str, Any]) -> list[dict[str, Any]]:
    validated = []
    for entry in params[option]:
        result = ArgumentSpecValidator(spec).validate(entry)
        if result.error_messages:
            name = entry.get("name") or entry.get("alias") or "without a name"
            raise CowError(f"{option}, entry {name}: {result.error_messages[0]}.")
        validated.append(result.validated_parameters)
    return validated


if __name__ == "__main__":
    main()

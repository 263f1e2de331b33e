# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Launch a throw-away container and time each phase."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_launch_probe
short_description: Launch a throw-away container and time each phase
description:
  - Launches a container, waits for its network, pushes files into it, runs a command in it, and deletes it.
  - The container is created with all of its configuration and started once.
  - The container is deleted also when a phase fails and when the module is told to end. What a killed run left is
    deleted at the beginning of the next one with the same O(name_prefix).
  - A target that is missed is returned and is no failure of the module.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer
extends_documentation_fragment:
  - attributes
attributes:
  check_mode:
    description: Launches nothing, and says so.
    support: full
  diff_mode:
    description: There is nothing to show, as nothing stays changed.
    support: none
  idempotent:
    description: Leaves the host as it was.
    support: full
options:
  image:
    description: Alias of the image in the default project.
    type: str
    required: true
  pool:
    description: The storage pool for the root disk. Without it, that of the profiles.
    type: str
  profiles:
    description: Profiles of the container.
    type: list
    elements: str
    default: [default]
  name_prefix:
    description: What the name of the container begins with.
    type: str
    default: cowherd-probe
  config:
    description: Configuration keys of the container.
    type: dict
    default: {}
  devices:
    description: Devices of the container by name, each as its options.
    type: dict
    default: {}
  files:
    description: Files to push, as the configuration of what runs in the container. Their folders have to exist.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path in the container.
        type: path
        required: true
      content:
        description: What is in the file.
        type: str
        required: true
      mode:
        description: Its mode in octal digits.
        type: str
        default: "0644"
  command:
    description: The command that makes the container take the configuration up, such as C(systemctl daemon-reload).
    type: list
    elements: str
    default: ["true"]
  http:
    description: A request that is repeated until it succeeds, as the last phase before the container is deleted.
    type: dict
    suboptions:
      url:
        description: Where to ask. C({address}) in it stands for the address of the container.
        type: str
        required: true
      status:
        description: The status of the answer that is waited for.
        type: int
        default: 200
      timeout:
        description: Seconds to wait for it.
        type: float
        default: 30
  network_timeout:
    description: Seconds to wait for the address, which is an IPv4 one unless the network has IPv6 alone.
    type: float
    default: 30
  targets:
    description:
      - Milliseconds that a phase should take at most, by its name.
      - Phases are C(create), C(start), C(network), C(push), C(reload), C(http) and C(delete), and besides
        C(launch), which is C(create) and C(start) together, and C(total), which is all but C(delete).
    type: dict
    default: {}
  runs:
    description: How many containers to launch one after the other. The figures are medians.
    type: int
    default: 1
  socket:
    description: Path of the unix socket of the Incus daemon. The folder that it is in is the daemon's own (INCUS_DIR).
    type: path
    default: /var/lib/incus/unix.socket
  pending:
    description:
      - Incus is about to be installed by the same play. When there is no daemon, an empty one is assumed,
        so that check mode can say what a run does on a host where nothing is installed yet.
    type: bool
    default: false
seealso:
  - module: incus_image
"""

EXAMPLES = r"""
- name: Time a launch from the base image
  incus_launch_probe:
    image: base
    targets:
      launch: 2000
    runs: 3

- name: Time a deployment until the service answers
  incus_launch_probe:
    image: agent
    pool: fast
    files:
      - path: /etc/agent.conf
        content: "listen = 8080\n"
    command: [systemctl, restart, agent]
    http:
      url: http://{address}:8080/healthz
    targets:
      launch: 2000
      http: 5000
"""

RETURN = r"""
phases:
  description: The phases in their order, and then the sums C(launch) and C(total).
  type: list
  elements: dict
  returned: when a container was launched
  sample:
    - {name: create, ms: 62.1, target_ms: null, ok: true, reason: ""}
    - {name: start, ms: 181.4, target_ms: null, ok: true, reason: ""}
  contains:
    name:
      description: What was timed.
      type: str
      returned: when a container was launched
      sample: create
    ms:
      description: Milliseconds, the median of all runs; null when the phase did not take place.
      type: float
      returned: when a container was launched
      sample: 62.1
    target_ms:
      description: What O(targets) says; null when it says nothing.
      type: float
      returned: when a container was launched
      sample: 2000
    ok:
      description: Whether the target is met. A phase that did not take place does not meet one.
      type: bool
      returned: when a container was launched
      sample: true
    reason:
      description: Why the phase did not take place; empty when it did.
      type: str
      returned: when a container was launched
      sample: the container has no NIC
ok:
  description: Whether all targets are met.
  type: bool
  returned: when a container was launched
  sample: true
address:
  description: Address that the last container had, IPv4 unless the network has IPv6 alone; null when it has no NIC.
  type: str
  returned: when a container was launched
  sample: 10.140.3.17
image:
  description: Fingerprint of the image.
  type: str
  returned: when a container was launched
  sample: 5848b4812b68644c79585013d1725a0229cfaf1c76d7da30c10c1f314065fe90
storage_pool:
  description: The storage pool that the root disk was on, with the keys of RV(incus_storage_pool#module:pool).
  type: dict
  returned: when a container was launched
  sample: {name: default, driver: btrfs, source: /var/lib/incus/disks/default.img, can_clone: true}
runs:
  description: How many containers were launched.
  type: int
  returned: when a container was launched
  sample: 3
msg:
  description: Why nothing was timed.
  type: str
  returned: in check mode
  sample: In check mode no container of base is launched, so nothing is timed.
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import connection, probe
from ansible.module_utils.cow.plan import report

ARGUMENTS: dict[str, Any] = {
    "image": {"type": "str", "required": True},
    "pool": {"type": "str"},
    "profiles": {"type": "list", "elements": "str", "default": ["default"]},
    "name_prefix": {"type": "str", "default": "cowherd-probe"},
    "config": {"type": "dict", "default": {}},
    "devices": {"type": "dict", "default": {}},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
        },
    },
    "command": {"type": "list", "elements": "str", "default": ["true"]},
    "http": {
        "type": "dict",
        "options": {
            "url": {"type": "str", "required": True},
            "status": {"type": "int", "default": 200},
            "timeout": {"type": "float", "default": 30},
        },
    },
    "network_timeout": {"type": "float", "default": 30},
    "targets": {"type": "dict", "default": {}},
    "runs": {"type": "int", "default": 1},
    **connection.ARGUMENTS,
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        wanted = probe.Wanted.of(module.params)
        report(module, lambda: probe.read(server, wanted), in_check_mode=lambda: probe.nothing_launched(wanted))


if __name__ == "__main__":
    main()

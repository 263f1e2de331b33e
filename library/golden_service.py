# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have sessions mounted again after a reboot, and garbage collected, by systemd."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_service
short_description: Have sessions mounted again after a reboot, and garbage collected, by systemd
description:
  - Writes the configuration of C(cow-session) for a store, C(/etc/cowherd/NAME.json), and units of systemd that run it.
  - Only the units that are asked for are there; those of this name that are not are stopped and removed.
author:
  - Cowherd contributors
requirements:
  - systemd, where any unit is asked for
extends_documentation_fragment:
  - golden
  - attributes
options:
  name:
    description:
      - What the configuration and the units are called; C(cow-session) reads that of V(golden) unless told otherwise.
    type: str
    default: golden
  state:
    description:
      - V(present) has them, V(absent) removes them all. Sessions and what is mounted stay.
    type: str
    choices: [present, absent]
    default: present
  command:
    description:
      - Absolute path of C(cow-session) (M(golden_command)).
    type: path
    default: /usr/local/bin/cow-session
  store:
    description:
      - Where the golden trees are, an absolute path of a folder, or a ZFS dataset as POOL/NAME. Required with
        O(state=present).
    type: str
    required: false
  reserve:
    description:
      - Free space of the store at or under which no new session is made, as a share of the store or as a size.
    type: str
    default: 2%
  keep:
    description:
      - How many complete generations of a project to keep, the current one among them.
    type: int
    default: 3
  grace:
    description:
      - Seconds for which garbage collection leaves alone a generation that was superseded, and a session that is not
        complete.
      - Generations that are not complete are removed at any age, unless a run is making them.
    type: int
    default: 3600
  volume_size:
    description:
      - Size of the volume that the first generation of a project gets with O(backend=zvol), with a unit.
    type: str
    default: 100GiB
  mount:
    description:
      - Whether sessions are mounted again when the host starts.
    type: bool
    default: true
  collect:
    description:
      - When to collect garbage, in systemd's calendar form such as V(daily) or V(*-*-* 03:00). Never when it is empty.
    type: str
    default: daily
  trim:
    description:
      - When to have what was freed in the store's own file systems given back to their devices, likewise. It runs
        C(cow-session trim).
      - It matters to O(backend=zvol), where the pool does not learn of small freed blocks in any other way.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Mount sessions at boot, and collect garbage at night
  golden_service:
    store: tank/golden
    expect: zfs
    collect: "*-*-* 03:00"
"""

RETURN = r"""
configuration:
  description: Path of the configuration; null when there is none.
  type: str
  returned: always
  sample: /etc/cowherd/golden.json
units:
  description: The units that are there.
  type: list
  elements: str
  returned: always
  sample: [cow-session-golden-gc.service, cow-session-golden-gc.timer, cow-session-golden-mount.service]
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["write /etc/cowherd/golden.json"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.golden import service, stores
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "default": "golden"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "command": {"type": "path", "default": "/usr/local/bin/cow-session"},
    **stores.ARGUMENTS,
    "store": {"type": "str"},
    "reserve": {"type": "str", "default": "2%"},
    "keep": {"type": "int", "default": 3},
    "grace": {"type": "int", "default": 3600},
    "volume_size": {"type": "str", "default": "100GiB"},
    "mount": {"type": "bool", "default": True},
    "collect": {"type": "str", "default": "daily"},
    "trim": {"type": "str", "default": ""},
}
RULES: dict[str, Any] = {"required_if": [("state", "present", ["store"])]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, **RULES)
    with explained(module):
        wanted = service.Wanted.of(module.params)
        with lock.held(f"golden-service:{wanted.name}"):
            converge(
                module,
                observe=lambda: service.observe(wanted),
                plan=lambda found: service.plan(found, wanted),
                describe=lambda found: service.describe(found, wanted),
            )


if __name__ == "__main__":
    main()

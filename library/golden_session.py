# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a session its own writable clone of a golden file tree."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_session
short_description: Give a session its own writable clone of a golden file tree
description:
  - Has a session exist, a writable clone of a generation of a project (M(golden_cache)), seen at a path; or not exist.
  - A session that exists and is not mounted, as after a reboot, is mounted again. What was written in it stays.
author:
  - Cowherd contributors
extends_documentation_fragment:
  - golden
  - attributes
options:
  project:
    description:
      - Name of the project, 1 to 63 letters, digits, C(.), C(_) or C(-), beginning with a letter or digit.
    type: str
    required: true
  name:
    description:
      - Name of the session, 1 to 63 letters, digits, C(.), C(_) or C(-), beginning with a letter or digit.
    type: str
    required: true
  state:
    description:
      - V(present) clones and mounts it, V(absent) unmounts and destroys it with all that was written in it.
      - One whose mount is in use is left as it is, and reported as an error.
    type: str
    choices: [present, absent]
    default: present
  path:
    description:
      - Absolute path at which the tree is to be seen. There is nothing yet, or an empty folder.
        Symbolic links that lead to it are followed, and the path without them is the one that is returned.
      - Without this option, a new session is seen in the store where that is a folder, else under
        C(/var/lib/cowherd/sessions);
        an existing one stays where it is.
    type: path
  generation:
    description:
      - Number of the generation to clone. Without this option, a new session is a clone of the current one.
    type: int
  reserve:
    description:
      - Free space of the store at or under which no new session is made, as a share of the store or as a size.
    type: str
    default: 2%
"""

EXAMPLES = r"""
- name: Give alice a copy of the golden tree to work in
  golden_session:
    store: tank/golden
    project: monorepo
    name: alice
    path: /srv/work/alice

- name: Be done with it
  golden_session:
    store: tank/golden
    project: monorepo
    name: alice
    state: absent
"""

RETURN = r"""
backend:
  description: The backend in effect.
  type: str
  returned: always
  sample: btrfs
why:
  description: What the store was found to be, and why that makes it this backend.
  type: str
  returned: always
  sample: /srv/golden is on btrfs
name:
  description: Name of the session.
  type: str
  returned: when the session exists
  sample: alice
generation:
  description: Number of the generation that it is a clone of.
  type: int
  returned: when the session exists
  sample: 4
path:
  description: Where its tree is seen.
  type: str
  returned: when the session exists
  sample: /srv/work/alice
mounted:
  description: Whether something is mounted there; true as well for a folder that needs no mount.
  type: bool
  returned: when the session exists
  sample: true
created:
  description: When it was created, in UTC.
  type: str
  returned: when the session exists
  sample: "2025-11-20T10:55:24Z"
d_type:
  description:
    - Whether its file system tells kinds of entries as it lists a folder, which container engines need for overlays.
    - Null where that cannot be told, because it is not mounted or empty.
  type: bool
  returned: when the session exists
  sample: true
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["clone generation 4 of monorepo for session alice at /srv/work/alice"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.golden import resource, stores
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    **stores.ARGUMENTS,
    "project": {"type": "str", "required": True},
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "path": {"type": "path"},
    "generation": {"type": "int"},
    "reserve": {"type": "str", "default": "2%"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with explained(module):
        wanted = resource.WantedSession.of(module.params)
        store = stores.opened(module.params)
        converge(
            module,
            observe=lambda: resource.observe_session(store, wanted),
            plan=lambda found: resource.plan_session(found, wanted, store),
            describe=lambda found: resource.describe_session(found, store),
        )


if __name__ == "__main__":
    main()

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep golden file trees of a project in generations, and promote new ones."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_cache
short_description: Keep golden file trees of a project in generations, and promote new ones
description:
  - A project has numbered generations of its golden tree, which never change, and one of them is current. Sessions
    (M(golden_session)) are writable clones of a generation.
  - Makes the next generation from a folder or from a session, and makes it current when it is complete. A run that is
    interrupted anywhere leaves the generation current that was.
  - Nothing is made when the source has not changed since the current generation was made from it, which is told from
    the
    names, sizes, inodes and change times in it.
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
  state:
    description:
      - V(present) makes the project when there is none, and the next generation from O(source) or O(session).
      - V(absent) removes the project, or O(generation) alone. It is refused while there are sessions, which are
        named, and for
        the generation that is current.
    type: str
    choices: [present, absent]
    default: present
  source:
    description:
      - Absolute path of a folder whose content is to be the next generation. It is copied with all attributes, sharing
        data where source and store can. A symbolic link is followed once, when the module begins.
    type: path
  session:
    description:
      - The session whose tree, as it is now, is to be the next generation. It stays, and can be written on.
    type: str
  keep:
    description:
      - How many complete generations to keep, the current one among them. Older ones are removed, those with
        sessions excepted. What else keeps one from being removed is a warning, and so it is for what an interrupted run
        left.
    type: int
    default: 3
  generation:
    description:
      - Number of the generation that is to be absent.
    type: int
  volume_size:
    description:
      - Size of the volume that the first generation of a project gets with O(backend=zvol), with a unit as in
        V(100GiB). It takes
        no more of the pool than is written.
      - Later generations have the size of the first one.
    type: str
    default: 100GiB
"""

EXAMPLES = r"""
- name: Make what the build produced the next generation
  golden_cache:
    store: tank/golden
    project: monorepo
    source: /srv/build/output
    expect: zfs

- name: Make a session's tree the next generation
  golden_cache:
    store: /srv/golden
    project: monorepo
    session: nightly

- name: Remove a generation that nobody should use
  golden_cache:
    store: /srv/golden
    project: monorepo
    generation: 4
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
current:
  description: Number of the current generation; null when there is none.
  type: int
  returned: always
  sample: 4
generations:
  description: The generations, oldest first.
  type: list
  elements: dict
  returned: always
  contains:
    number:
      description: Its number. That of one that has been current is never used again.
      type: int
      returned: always
      sample: 4
    current:
      description: Whether new sessions are clones of it.
      type: bool
      returned: always
      sample: true
    state:
      description:
        - V(complete), or V(building) and V(removing) for what an interrupted run left and garbage collection finishes.
        - V(unmarked) for one that has no marker; it is reported, and neither used nor removed.
      type: str
      returned: always
      sample: complete
    created:
      description: When it was completed, in UTC; null while it is not.
      type: str
      returned: always
      sample: "2025-11-20T10:55:24Z"
    source:
      description: What it was made from, V(session:ID) or V(directory:PATH); null while it is not known.
      type: str
      returned: always
      sample: session:build-17
    sessions:
      description: The sessions that are clones of it.
      type: list
      elements: str
      returned: always
      sample: [alice, bob]
not_removed:
  description: Superseded and unfinished generations that could not be removed. The promotion does not fail for them.
  type: list
  elements: dict
  returned: always
  contains:
    what:
      description: Which one.
      type: str
      returned: always
      sample: generation 2 of monorepo (superseded)
    msg:
      description: Why it stays, as in the warning.
      type: str
      returned: always
      sample: >-
        Generation 2 cannot be removed: tank/golden/monorepo/generations/2@backup depends on it, and was not made by
        Cowherd. Destroy that first, or let the generation stay.
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["copy /srv/build/output as generation 4 of monorepo", "make generation 4 of monorepo current"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.golden import resource, stores
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    **stores.ARGUMENTS,
    "project": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "source": {"type": "path"},
    "session": {"type": "str"},
    "keep": {"type": "int", "default": 3},
    "generation": {"type": "int"},
    "volume_size": {"type": "str", "default": "100GiB"},
}
RULES: dict[str, Any] = {"mutually_exclusive": [("source", "session", "generation")]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, **RULES)
    with explained(module):
        wanted = resource.WantedCache.of(module.params)
        store = stores.opened(module.params)
        converge(
            module,
            observe=lambda: resource.observe_cache(store, wanted),
            plan=lambda found: resource.plan_cache(found, wanted, store, module.warn),
            describe=lambda found: resource.describe_cache(found, store),
        )


if __name__ == "__main__":
    main()

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""List golden trees and the sessions that are clones of them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_cache_info
short_description: List golden trees and the sessions that are clones of them
description:
  - Reads the projects of a store with their generations and sessions, and what each takes. Changes nothing.
author:
  - Cowherd contributors
extends_documentation_fragment:
  - golden
  - attributes.reading
options:
  project:
    description:
      - The project to look at. Without this option, all of the store.
    type: str
  sizes:
    description:
      - Whether to find out what each generation and session takes.
      - With the backends btrfs, reflink and copy this looks at each file, which takes a while for large trees.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Look at what is there
  golden_cache_info:
    store: tank/golden
  register: golden
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
free_bytes:
  description: What can still be written to the store.
  type: int
  returned: always
  sample: 53687091200
total_bytes:
  description: What the file system or pool of the store has in all.
  type: int
  returned: always
  sample: 107374182400
projects:
  description: The projects by name.
  type: list
  elements: dict
  returned: always
  contains:
    name:
      description: Name of the project.
      type: str
      returned: always
      sample: monorepo
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
            - V(complete), or V(building) and V(removing) for what an interrupted run left and garbage collection
              finishes.
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
        apparent_bytes:
          description: Bytes of data that its tree refers to, exclusive and shared ones together; null when not
            measured.
          type: int
          returned: always
          sample: 4294967296
        exclusive_bytes:
          description: Bytes that nothing else refers to, and that come back when it goes; null when not measured. On
            ZFS 0 for a generation with sessions, for what they have all replaced is not told.
          type: int
          returned: always
          sample: 214748364
        shared_bytes:
          description: Bytes that something else refers to as well; null when not measured.
          type: int
          returned: always
          sample: 4080218932
    sessions:
      description: The sessions, by name.
      type: list
      elements: dict
      returned: always
      contains:
        name:
          description: Its name.
          type: str
          returned: always
          sample: alice
        generation:
          description: Number of the generation that it is a clone of; null where that cannot be told.
          type: int
          returned: always
          sample: 4
        state:
          description:
            - V(complete), or V(making) and V(removing) for what is under way, or what an interrupted run left.
            - V(unmarked) for one that has no marker; it is reported, and neither used nor removed.
            - V(gone) for a marker whose tree is no more.
          type: str
          returned: always
          sample: complete
        path:
          description: Where its tree is seen.
          type: str
          returned: always
          sample: /srv/work/alice
        mounted:
          description: Whether something is mounted there; true as well for a folder that needs no mount.
          type: bool
          returned: always
          sample: true
        created:
          description: When it was created, in UTC.
          type: str
          returned: always
          sample: "2025-11-20T10:55:24Z"
        d_type:
          description:
            - Whether its file system tells kinds of entries as it lists a folder, which container engines need for
              overlays.
            - Null where that cannot be told, because it is not mounted or empty.
          type: bool
          returned: always
          sample: true
        apparent_bytes:
          description: Bytes of data that its tree refers to, exclusive and shared ones together; null when not
            measured.
          type: int
          returned: always
          sample: 4294967296
        exclusive_bytes:
          description: Bytes that nothing else refers to, and that come back when it goes; null when not measured.
          type: int
          returned: always
          sample: 214748364
        shared_bytes:
          description: Bytes that something else refers to as well; null when not measured.
          type: int
          returned: always
          sample: 4080218932
    foreign:
      description: What is among them and was not made by Cowherd; it is left alone.
      type: list
      elements: str
      returned: always
      sample: [tank/golden/monorepo/sessions/mine]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.golden import stores, views
from ansible.module_utils.cow.plan import explained, report

ARGUMENTS: dict[str, Any] = {
    **stores.ARGUMENTS,
    "project": {"type": "str"},
    "sizes": {"type": "bool", "default": True},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with explained(module):
        store = stores.opened(module.params)
        report(module, lambda: views.listed(store, module.params["project"], sizes=module.params["sizes"]))


if __name__ == "__main__":
    main()

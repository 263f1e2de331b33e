# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Install cow-session, the command that makes sessions of golden trees."""

from __future__ import annotations

DOCUMENTATION = r"""
module: golden_command
short_description: Install cow-session, the command that makes sessions of golden trees
description:
  - Writes one file that is a program, made of the same code as the modules. It needs Python 3.11 or newer, and
    nothing else.
  - The file is made on the host and holds the code compiled for its Python too, so that the program starts quickly.
    After an upgrade of Python it works on, and the next run makes it quick again.
author:
  - Cowherd contributors
requirements:
  - Python 3.11 or newer
  - systemd, with O(fork_server=true)
extends_documentation_fragment:
  - attributes
options:
  path:
    description:
      - Absolute path of the program. The folder that it is in has to exist.
    type: path
    default: /usr/local/bin/cow-session
  state:
    description:
      - V(present) writes the program, V(absent) removes it. A file that is something else is refused.
    type: str
    choices: [present, absent]
    default: present
  fork_server:
    description:
      - Whether C(clone) and C(destroy) are run by a process that has the program loaded, which takes half of the time
        or less. The units C(cow-session.socket) and C(cow-session.service) of systemd are written for that, and
        removed when it is V(false).
      - The process is started when somebody comes, and ends when nobody came for a minute. It serves root alone, and
        of root's processes those that see the same host, and are confined in nothing that it is not; others run the
        command by themselves, and so do all where it is not there.
      - One program of a host has one. Refused where systemd does not run.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Have the command, and a process that has it loaded
  golden_command:
    fork_server: true
"""

RETURN = r"""
path:
  description: Where the program is.
  type: str
  returned: always
  sample: /usr/local/bin/cow-session
sha256:
  description: Checksum of the program; null when there is none.
  type: str
  returned: always
  sample: 1b4f0e9851971998e732078544c96b36c3d01cedf7caa332359d6f1d83567014
units:
  description: The units of its fork server that are there.
  type: list
  elements: str
  returned: always
  sample: [cow-session.service, cow-session.socket]
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["write /usr/local/bin/cow-session"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.golden import program
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path", "default": "/usr/local/bin/cow-session"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "fork_server": {"type": "bool", "default": False},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with explained(module):
        wanted = program.Wanted.of(module.params)
        converge(
            module,
            observe=lambda: program.observe(wanted),
            plan=lambda found: program.plan(found, wanted),
            describe=program.describe,
        )


if __name__ == "__main__":
    main()

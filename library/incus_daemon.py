# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have the Incus daemon of a host run."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_daemon
short_description: Have the Incus daemon run, with or without systemd
description:
  - Starts the installed Incus daemon when nothing answers on its socket, and waits until it is ready.
  - Under systemd, the units of the package are started, and enabled for the next boot.
  - Without systemd, or for a socket of one's own, the daemon is started directly as the package's init script does it,
    in a session of its own. It then runs until the host goes down; that script, if the host's init runs it, starts it
    at the next boot.
  - A daemon that answers is left as it is.
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer
  - start-stop-daemon, which is part of dpkg
extends_documentation_fragment:
  - attributes
attributes:
  check_mode:
    description: Reports what a run would do, and starts nothing but what systemd starts when its socket is asked.
    support: full
  diff_mode:
    description: Shows how the daemon would be started.
    support: full
  idempotent:
    description: A second run finds the daemon answering and changes nothing.
    support: full
options:
  socket:
    description:
      - The daemon's unix socket, always called C(unix.socket), in the folder where it keeps everything (C(INCUS_DIR)).
      - In any other folder than V(/var/lib/incus), a daemon of its own is started, with its log there.
    type: path
    default: /var/lib/incus/unix.socket
  timeout:
    description: Seconds that the daemon has to become ready.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Have Incus run
  incus_daemon:

- name: Have a second daemon run, apart from the host's own
  incus_daemon:
    socket: /srv/incus-lab/unix.socket
    timeout: 300
"""

RETURN = r"""
program:
  description: The daemon's executable; null when there is none and the daemon answers all the same.
  type: str
  returned: success
  sample: /usr/libexec/incus/incusd
state:
  description: Whether it answers (V(answers)), or in check mode why not (V(missing) or V(refused)).
  type: str
  returned: success
  sample: answers
server_version:
  description: The version of the daemon; null unless it answers.
  type: str
  returned: success
  sample: 6.0.4
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["start and enable incus.socket and incus.service"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.incus import daemon
from ansible.module_utils.cow.incus.client import DEFAULT_SOCKET
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "socket": {"type": "path", "default": DEFAULT_SOCKET},
    "timeout": {"type": "int", "default": 120},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    socket = module.params["socket"]
    with explained(module), lock.held(f"incus:{socket}"):
        converge(
            module,
            observe=lambda: daemon.observe(socket),
            plan=lambda found: daemon.plan(found, module.params["timeout"]),
            describe=daemon.describe,
        )


if __name__ == "__main__":
    main()

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How modules bear check mode and diff mode, and where they run; a module says only what is otherwise with it."""

from __future__ import annotations


class ModuleDocFragment:
    """Of modules that bring the host to what is wanted, and of those that only read."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Reports what a run would do, and writes nothing.
    support: full
  diff_mode:
    description: Shows what each step changes.
    support: full
  idempotent:
    description: A second run with the same options changes nothing.
    support: full
  platform:
    description: Runs on Linux, as root.
    support: full
    platforms: linux
"""

    READING = r"""
attributes:
  check_mode:
    description: Only reads, so that check mode makes no difference.
    support: full
  diff_mode:
    description: Only reads, so that there is nothing to show.
    support: none
  idempotent:
    description: Only reads.
    support: full
  platform:
    description: Runs on Linux, as root.
    support: full
    platforms: linux
"""

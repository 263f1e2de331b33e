# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules for images have in common (their arguments are in module_utils/cow/image/resource.py)."""

from __future__ import annotations


class ModuleDocFragment:
    """What is left out of an image, and when it takes the place of what is there."""

    DOCUMENTATION = r"""
attributes:
  diff_mode:
    description: Shows what each step changes, and for an image that exists which of its inputs are different.
    support: full
  idempotent:
    description: A second run with the same options changes nothing, but for O(rebuild).
    support: full
options:
  purge:
    description:
      - What to leave out of each tree, as patterns from the root of the tree, in which C(*) stands for any part of
        a name.
      - What matches C(etc/machine-id) is kept as an empty file, as systemd wants it of an image.
      - The default is what must not be the same on two machines (ssh host keys, machine-id, seeds of random numbers),
        what belongs to the machine that the tree comes from (resolv.conf), and caches.
      - With an empty list the image has all that its trees have.
    type: list
    elements: str
    default:
      - etc/machine-id
      - etc/resolv.conf
      - etc/ssh/ssh_host_*_key
      - etc/ssh/ssh_host_*_key.pub
      - var/cache/apt/*.bin
      - var/cache/apt/archives/*.deb
      - var/lib/apt/lists/*_*
      - var/lib/dbus/machine-id
      - var/lib/systemd/credential.secret
      - var/lib/systemd/random-seed
      - var/log/journal/*
      - tmp/*
      - var/tmp/*
  mode:
    description:
      - Permissions of the image and the files beside it, in octal and in quotes, such as V('0640'), as YAML makes
        another number of one without. Root file systems have secrets in them.
    type: str
    default: "0600"
  rebuild:
    description: Builds the image even when nothing that it is made from has changed.
    type: bool
    default: false
  overwrite:
    description:
      - Allows to replace a file that was not built by this module or was changed since, at O(path) or at the place of
        a file that belongs beside the image.
    type: bool
    default: false
"""

# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules for golden trees have in common (their arguments are in module_utils/cow/golden/stores.py)."""

from __future__ import annotations


class ModuleDocFragment:
    """Which store it is, and how trees are kept there."""

    DOCUMENTATION = r"""
requirements:
  - OpenZFS 2.0 or newer for the backends zfs and zvol
  - xfsprogs for the backend zvol
options:
  store:
    description:
      - Where the golden trees are, an absolute path of a folder, or a ZFS dataset as POOL/NAME.
      - It has to exist. What is in it and was not made by Cowherd is left alone.
    type: str
    required: true
  backend:
    description:
      - How trees are kept and cloned. V(auto) takes the best one that the store is on, and says which and why.
      - V(zfs) has datasets and clones, V(zvol) XFS on volumes of ZFS and clones of them, V(btrfs) subvolumes and
        snapshots, V(reflink) folders that share data where the file system can (XFS, btrfs), V(copy) plain copies.
      - A store keeps the backend that it was begun with; another one is refused.
    type: str
    choices: [auto, zfs, zvol, btrfs, reflink, copy]
    default: auto
  expect:
    description:
      - The backend that it has to come to. Another one, such as a fallback to V(copy), is an error then.
    type: str
    choices: [zfs, zvol, btrfs, reflink, copy]
"""

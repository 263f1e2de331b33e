# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build a btrfs image of live or install media that carries its checksums and several roots."""

from __future__ import annotations

DOCUMENTATION = r"""
module: live_image
short_description: Build and verify btrfs images of live and install media
description:
  - Builds one btrfs image of one or more trees, each in a subvolume of its own (a root). A root that begins as
    a snapshot of another takes only what is otherwise in it.
  - The image is compressed, carries the checksums of all that is in it, and is a seed. It is never written to; file
    systems grow out of it, which is how M(seed_install) installs it.
  - In the image, and beside it as O(path) with C(.cowherd.json) added, is a description of its roots and of what they
    were made from. Beside it is a record, O(path) with C(.cowherd) added, too. Nothing is built again while all that
    the image was made from is the same; when it is not, the diff names what changed.
  - The image is built in the folder that it belongs in and takes the place of the old one in one step, after it was
    verified. A build that fails leaves the old image; what a killed one leaves is removed by the next run.
  - The sources are never written to. When one changes during the build, the build fails.
author:
  - Cowherd contributors
requirements:
  - Linux 5.11 or newer
  - btrfs-progs 6.2 or newer; 6.12 or newer for O(method=mkfs)
  - GNU tar, and the program that decompresses the archive, for archives
attributes:
  check_mode:
    description:
      - Reports what a run would do, and writes nothing. With O(state=verified) all is read as in a run.
      - An archive is not unpacked, so that the method that its content allows shows only in the run.
    support: full
extends_documentation_fragment:
  - image
  - attributes
options:
  path:
    description:
      - Absolute path of the image. The folder that it is in has to exist. With O(state=verified) it may be a block
        device that the image was written to.
      - A file at this path that was not built by this module, or was changed since, is left alone unless O(overwrite)
        allows to replace it.
    type: path
    required: true
  state:
    description:
      - V(present) builds the image when there is none, or when what it is made from is not what it was made from.
      - V(verified) reads all of an image that is in use, compares it with the checksums in it, and fails when something
        is damaged, with the names of the files that cannot be read any more. It needs no record and no checksum beside
        the image.
      - V(absent) deletes the image with what was made beside it. Other files there stay.
    type: str
    choices: [present, verified, absent]
    default: present
  roots:
    description: The roots of the image, in the order in which they are made.
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the root, which is that of its subvolume.
        type: str
        required: true
      src:
        description:
          - Absolute path of a folder, a tar (plain or compressed with anything that GNU tar knows), or a squashfs.
          - File systems that are mounted inside the folder are left out; their mount points stay, empty.
        type: path
      incus:
        description: What to take from Incus on this host. Give this or O(roots[].src).
        type: dict
        suboptions:
          image:
            description: Alias or fingerprint of an image of a container.
            type: str
          instance:
            description:
              - Name of a container. Without O(roots[].incus.snapshot) it should be stopped, as a tree that changes
                fails the build.
            type: str
          snapshot:
            description: Name of one of the snapshots of O(roots[].incus.instance).
            type: str
          project:
            description: The project that it is in.
            type: str
            default: default
          socket:
            description:
              - Path of the unix socket of the daemon. The folder that it is in is the daemon's own (INCUS_DIR).
            type: path
            default: /var/lib/incus/unix.socket
      from:
        description:
          - Name of an earlier root. This one begins as a snapshot of it and is then made equal to its own tree, so that
            what is the same in both is in the image once.
        type: str
  checksum:
    description:
      - The checksums of the image. V(xxhash64) is quick and finds each accident; V(sha256) and V(blake2b) are
        cryptographic hashes, V(crc32c) has 32 bits.
      - What is grown out of the image has the same ones for ever.
    type: str
    choices: [crc32c, xxhash64, sha256, blake2b]
    default: xxhash64
  level:
    description: Level of compression (zstd), from 1, quick, to 15, small.
    type: int
    default: 15
  label:
    description: Label of the file system, at most 255 bytes. File systems inherit it that are grown out of it.
    type: str
  method:
    description:
      - How the image is made.
      - V(mkfs) has C(mkfs.btrfs) write it, without a mount or loop device. That loses fractions of seconds of
        modification times, flags (chattr) and device numbers, knows no O(roots[].from), and leaves more slack. What is
        lost is a warning and in the result.
      - V(loop) has the kernel fill it, compares each root with its source, and then grows the image out of that in the
        smallest file that it fits into, of 96 MiB or more. It needs two loop devices, and room for the image twice.
      - V(auto) is V(mkfs) where nothing is lost by it, and else V(loop).
    type: str
    choices: [auto, mkfs, loop]
    default: auto
  seed:
    description:
      - Whether the image is a seed. One that is not can be mounted and written to.
      - To clear the flag of an image makes each file system useless that was grown out of it and still needs it, here
        and elsewhere. It needs O(force).
    type: bool
    default: true
  verify:
    description:
      - Whether a new image is read from the disk, where the file system allows that, and compared with the checksums in
        it, before it takes the place of the old one. When something is damaged, the build fails.
      - An image that was built without it is not built or verified again because of it; O(state=verified) does that.
    type: bool
    default: true
  force:
    description:
      - Allows to replace or delete a seed that file systems which are mounted on this host need, and to clear the flag
        of a seed.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Build media with a root to install, and a live root that has some more in it
  live_image:
    path: /srv/media/debian.seed
    label: media
    roots:
      - name: install
        src: /srv/trees/debian
      - name: live
        src: /srv/trees/debian-live
        from: install

- name: Build media of an image of Incus, with cryptographic checksums
  live_image:
    path: /srv/media/agent.seed
    checksum: sha256
    roots:
      - name: install
        incus:
          image: debian/13

- name: Verify what was written to a stick
  live_image:
    path: /dev/disk/by-id/usb-example
    state: verified
"""

RETURN = r"""
image:
  description: The image as it is after the run, in check mode before it. Null when there is none that was built here.
  type: dict
  returned: success
  sample:
    path: /srv/media/debian.seed
    method: loop
    why: root live begins as a snapshot of install, which only the kernel can take
    uuid: 2730919d-6d71-49cb-b81a-b7ed7d387c6c
    label: media
    checksum: xxhash64
    compression: zstd:15
    fingerprint: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    roots:
      - name: install
        from: null
        source: /srv/trees/debian
        digest: 7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730
        payload_bytes: 338413056
        inodes: 9381
        added_bytes: 149946368
      - name: live
        from: install
        source: /srv/trees/debian-live
        digest: bf07a7fbb825fc0aae7bf4a1177b2b31fcf8a3feeaf7092761e18c859ee52a9c
        payload_bytes: 351272960
        inodes: 9502
        added_bytes: 5242880
    used_bytes: 155189248
    payload_bytes: 689686016
    bytes: 186646528
    allocated_bytes: 160432128
    payload_ratio: 3.6951
    seconds: 21.4
    description_path: /srv/media/debian.seed.cowherd.json
    lost: []
    varies: ["UUID of the file system", "UUIDs of its device, its subvolumes and its tree of chunks"]
    verified: true
    seed: true
  contains:
    path:
      description: Where it is.
      type: str
      returned: success
      sample: /srv/media/debian.seed
    method:
      description: V(mkfs) or V(loop).
      type: str
      returned: success
      sample: loop
    why:
      description: Why by this method.
      type: str
      returned: success
      sample: as asked for
    uuid:
      description: UUID of the file system. It is another one each time, as file systems know their seed by it.
      type: str
      returned: success
      sample: 2730919d-6d71-49cb-b81a-b7ed7d387c6c
    label:
      description: Its label.
      type: str
      returned: success
      sample: media
    checksum:
      description: The type of its checksums.
      type: str
      returned: success
      sample: xxhash64
    compression:
      description: Compressor and level.
      type: str
      returned: success
      sample: zstd:15
    fingerprint:
      description: SHA-256 over the contents, the options and the versions of the tools.
      type: str
      returned: success
      sample: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    roots:
      description: The roots.
      type: list
      elements: dict
      returned: success
      contains:
        name:
          description: Name of the root and its subvolume.
          type: str
          returned: success
          sample: live
        from:
          description: The root that it began as a snapshot of; null for none.
          type: str
          returned: success
          sample: install
        source:
          description: What it was made from.
          type: str
          returned: success
          sample: /srv/trees/debian-live
        digest:
          description: SHA-256 over all attributes and contents of the tree; equal trees have the same.
          type: str
          returned: success
          sample: bf07a7fbb825fc0aae7bf4a1177b2b31fcf8a3feeaf7092761e18c859ee52a9c
        payload_bytes:
          description: What is in the files of the tree, each file once, without their holes.
          type: int
          returned: success
          sample: 351272960
        inodes:
          description: How many files, folders and other things the tree has, hard links counted once.
          type: int
          returned: success
          sample: 9502
        added_bytes:
          description: What it added to the image, with metadata; null for V(mkfs).
          type: int
          returned: success
          sample: 5242880
    used_bytes:
      description: What is in use of the image.
      type: int
      returned: success
      sample: 155189248
    payload_bytes:
      description: What is in the files of all trees.
      type: int
      returned: success
      sample: 689686016
    bytes:
      description: Its size.
      type: int
      returned: success
      sample: 186646528
    allocated_bytes:
      description: What it took on the disk, without its holes, when it had been built.
      type: int
      returned: success
      sample: 160432128
    payload_ratio:
      description: RV(image.payload_bytes) divided by RV(image.bytes).
      type: float
      returned: success
      sample: 3.6951
    seconds:
      description: How long the build took, without reading the sources before and the image afterwards.
      type: float
      returned: success
      sample: 21.4
    description_path:
      description: The description beside the image, which is in the image as C(cowherd-media.json) too.
      type: str
      returned: success
      sample: /srv/media/debian.seed.cowherd.json
    lost:
      description: What the trees have and the image does not, in words.
      type: list
      elements: str
      returned: success
      sample: ["flags (chattr) of 3 files, such as etc/fixed, as they are not copied"]
    varies:
      description: What is otherwise in an image that is built again from the same inputs; all else is the same.
      type: list
      elements: str
      returned: success
      sample: ["UUID of the file system", "UUIDs of its device, its subvolumes and its tree of chunks"]
    verified:
      description: Whether it was verified before it took its place.
      type: bool
      returned: success
      sample: true
    seed:
      description: Whether it is a seed.
      type: bool
      returned: success
      sample: true
verified:
  description: What was read and found to be right. Null with another O(state) than V(verified).
  type: dict
  returned: success
  sample:
    checksum: xxhash64
    data_bytes: 149946368
    metadata_bytes: 5242880
  contains:
    checksum:
      description: The type of the checksums.
      type: str
      returned: success
      sample: xxhash64
    data_bytes:
      description: Bytes of data that were compared with their checksums, compressed as they are.
      type: int
      returned: success
      sample: 149946368
    metadata_bytes:
      description: Bytes of metadata, likewise.
      type: int
      returned: success
      sample: 5242880
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["build /srv/media/debian.seed (btrfs seed, xxhash64) from /srv/trees/debian (install): there is none"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.image import resource, sources
from ansible.module_utils.cow.live import media
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
    "roots": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "src": {"type": "path"},
            "incus": sources.INCUS_ARGUMENTS,
            "from": {"type": "str"},
        },
        "mutually_exclusive": [("src", "incus")],
        "required_one_of": [("src", "incus")],
    },
    "checksum": {"type": "str", "choices": ["crc32c", "xxhash64", "sha256", "blake2b"], "default": "xxhash64"},
    "level": {"type": "int", "default": 15},
    "label": {"type": "str"},
    "method": {"type": "str", "choices": ["auto", "mkfs", "loop"], "default": "auto"},
    "seed": {"type": "bool", "default": True},
    "verify": {"type": "bool", "default": True},
    **resource.ARGUMENTS,
    "force": {"type": "bool", "default": False},
}
RULES: dict[str, Any] = {"required_if": [("state", "present", ("roots",))]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, **RULES)
    with explained(module):
        wanted = media.Wanted.of(module.params)
        with lock.held(resource.lock_name(wanted.path)):
            converge(
                module,
                observe=lambda: media.observe(wanted),
                plan=lambda found: media.plan(found, wanted),
                describe=media.describe,
                observe_result=lambda: media.observe_result(wanted),
            )


if __name__ == "__main__":
    main()

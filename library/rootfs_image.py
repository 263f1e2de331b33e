# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build an image of a root file system that is as small as its content allows, and can be verified."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rootfs_image
short_description: Build and verify images of root file systems
description:
  - Builds an ext4, squashfs, erofs or btrfs image of a folder, an archive, or what Incus has, sized from the content
    itself.
  - Beside the image lies a record, O(path) with C(.cowherd) added, with the fingerprint of all that the image was made
    from. Nothing is built again while that is the same; when it is not, the diff names what changed.
  - The image is built in the folder that it belongs in and takes the place of the old one in one step. A build that
    fails leaves the old image; what a killed one leaves is removed by the next run.
  - The same content, options and versions of the tools give the same bytes, but for btrfs, and for ext4 that the kernel
    filled. RV(image.varies) says what is otherwise then.
  - The source is never written to. When it changes during the build, the build fails.
  - A destination without room for an ext4 image, or for a btrfs image that is not compressed, is refused before
    anything is built. How large others get is not known before; what is free is compared with the image that was built
    with the same options before, and when that is larger, there is a warning.
author:
  - Cowherd contributors
requirements:
  - e2fsprogs 1.46 or newer for ext4, squashfs-tools 4.5 or newer for squashfs, erofs-utils 1.5 or newer for erofs
  - btrfs-progs 6.2 or newer for btrfs, 6.13 or newer where no loop device is to be used
  - cryptsetup (veritysetup) for O(verity), openssl to sign
  - GNU tar, and the program that decompresses the archive, for archives
attributes:
  check_mode:
    description:
      - Reports what a run would do, and writes nothing.
      - An archive is not unpacked, so that a size that is too small for what is in it shows only in the run.
    support: full
extends_documentation_fragment:
  - image
  - attributes
options:
  path:
    description:
      - Absolute path of the image. The folder that it is in has to exist.
      - A file at this path that was not built by this module, or was changed since, is left alone unless O(overwrite)
        allows to replace it. So is one where the hash tree or the signature belongs, such as another image.
    type: path
    required: true
  state:
    description:
      - V(present) builds the image when there is none, or when what it is made from is not what it was made from.
      - V(verified) reads an image that has a hash tree, and fails unless all of it is what O(root_hash) says.
      - V(absent) deletes the image with the record, hash tree and signature that were made with it. Other files beside
        it stay.
    type: str
    choices: [present, verified, absent]
    default: present
  src:
    description:
      - Absolute path of a folder, a tar (plain or compressed with anything that GNU tar knows), or a squashfs.
      - File systems that are mounted inside the folder are left out; their mount points stay, empty.
    type: path
  incus:
    description: What to take from Incus on this host. Give this or O(src).
    type: dict
    suboptions:
      image:
        description: Alias or fingerprint of an image of a container.
        type: str
      instance:
        description:
          - Name of a container. Without O(incus.snapshot) it should be stopped, as a tree that changes fails the build.
        type: str
      snapshot:
        description: Name of one of the snapshots of O(incus.instance).
        type: str
      project:
        description: The project that it is in.
        type: str
        default: default
      socket:
        description: Path of the unix socket of the daemon. The folder that it is in is the daemon's own (INCUS_DIR).
        type: path
        default: /var/lib/incus/unix.socket
  format:
    description:
      - The file system of the image. V(ext4) and V(btrfs) can be written to, V(squashfs) and V(erofs) cannot. All but
        V(ext4) are compressed.
      - V(squashfs) has no ACLs. That is reported, and an error with O(strict).
      - Two images with V(btrfs) of the same tree have the same content and the same UUID, but are never the same bytes,
        because the tools draw other UUIDs of devices and subvolumes and write the time each time. With O(verity) each
        build has a root hash of its own therefore.
      - The tree is the top-level subvolume of V(btrfs), so that it is mounted without C(subvol=). Its blocks
        have checksums (crc32c).
    type: str
    choices: [ext4, squashfs, erofs, btrfs]
  label:
    description:
      - Label of the file system, at most 16 bytes, 255 for V(btrfs). V(squashfs) has none.
    type: str
  size:
    description:
      - Size of an ext4 or btrfs image.
      - V(minimum) has it hold the content and nothing more.
      - V(+20%) and V(+512MiB) leave that much free, as part of the minimum or as it stands.
      - V(2GiB) is the size of the image. When the content needs more, that is an error with the minimum in its message.
        It is found before anything is built for ext4, and for btrfs when the content has been compressed.
      - With anything but V(minimum), a btrfs image is grown by the kernel and has 96 MiB or more. Its blocks are handed
        out in chunks, so that it is larger than the content and the room together.
    type: str
    default: minimum
  method:
    description:
      - How an ext4 or btrfs image is filled. For ext4 there are V(mke2fs), V(loop) and V(shrink), for btrfs V(mkfs) and
        V(loop).
      - V(mke2fs) has the tool write it in one go. It is the smallest, and the same bytes each time.
      - V(loop) mounts it and copies. It keeps flags and fractions of seconds, needs a loop device, and takes more room.
        Its bytes are different each time.
      - V(shrink) copies into a large image and has C(resize2fs) make it small. It needs no computed size, and is the
        largest.
      - V(auto) is V(mke2fs) where it works. Its versions 1.47.1 to 1.47.3 fail with files of 2 GiB and more, and the
        choice is V(loop) then, as it is with a folder of tens of thousands of entries, for which it takes minutes.
      - V(mkfs) has C(mkfs.btrfs) write a btrfs image without a mount. It cuts off fractions of seconds of modification
        times, leaves out flags and device numbers, and fills holes.
      - For btrfs, V(loop) mounts a large file system, copies, and grows one out of it that is just large enough, of
        96 MiB or more. It loses nothing.
      - For btrfs, V(auto) is V(mkfs) where nothing is lost by it, and V(loop) otherwise. What C(mkfs.btrfs) makes a
        tenth or more too large is grown anew.
    type: str
    choices: [auto, mke2fs, mkfs, loop, shrink]
    default: auto
  reserved_percent:
    description:
      - Part of an ext4 image that only root may fill, in percent, from 0 to 50.
      - Changes what users of the image find free, and neither its size nor what fits.
    type: int
    default: 0
  journal:
    description:
      - Journal of an ext4 image.
      - V(auto) is what C(mke2fs) makes for its size, none under 8 MiB, 4 MiB under 128 MiB, 16 MiB under 1 GiB, 32 MiB
        under 2 GiB, 64 MiB under 16 GiB, and more above.
      - V(none) saves that, for images that are only read or are made anew after a crash.
      - A size such as V(8MiB), at least 4 MiB. The image then has 8 MiB or more.
    type: str
    default: auto
  packed_meta_blocks:
    description:
      - Has the bitmaps and inode tables of an ext4 image at its beginning, so that all its data is in one piece.
    type: bool
    default: false
  inodes:
    description:
      - How many inodes an ext4 image has.
      - V(exact) has one for each file and no more, so that no new file can be made in it.
      - V(+1000) has so many more, rounded up to what fits in the blocks of the inode tables.
      - V(auto) is V(exact) with O(size=minimum), and has one more for each 16 KiB that are left free otherwise.
    type: str
    default: auto
  preset:
    description:
      - How hard squashfs, erofs and btrfs compress, from what is quick to what is small, with the best compressor that
        the installed tool has.
    type: str
    choices: [fast, balanced, small]
    default: balanced
  compressor:
    description:
      - Compressor of squashfs (V(gzip), V(lz4), V(lzo), V(xz), V(zstd)), erofs (V(lz4), V(lz4hc), V(lzma), V(deflate),
        V(zstd)) or btrfs (V(zstd), V(zlib), V(lzo)), or V(none), instead of the one of O(preset).
      - One that the installed tool does not have is an error that says which ones it has.
    type: str
  level:
    description: Level of O(compressor), for those that have levels. In btrfs, zstd has 1 to 15 and zlib 1 to 9.
    type: int
  strict:
    description:
      - Has it be an error when the format cannot hold all that the tree has, instead of a warning.
      - Fractions of seconds of modification times are no error where nearly each tree would have it. V(squashfs), and
        V(ext4) that C(mke2fs) fills, cut them off, with or without this. V(erofs), and V(ext4) with V(loop) or
        V(shrink) as O(method), keep them; V(btrfs) keeps them, or names them among what it loses.
    type: bool
    default: false
  source_date_epoch:
    description:
      - The time of the build that is written into the image, in seconds since 1970.
      - Without it, the newest modification time in the tree, rounded up.
      - In erofs, later modification times become this one.
      - C(mkfs.btrfs) 6.14 does not heed it, although it is given.
    type: int
  verity:
    description:
      - Adds a hash tree for dm-verity. The image is padded to whole blocks of 4 KiB.
      - Its salt is derived from the content, so that the same content has the same root hash.
    type: bool
    default: false
  verity_tree:
    description:
      - V(appended) has the hash tree after the file system, in the same file.
      - V(beside) has it in a file of its own, O(path) with C(.verity) added.
    type: str
    choices: [appended, beside]
    default: appended
  signing:
    description:
      - Signs the root hash for the kernel's keyring, in a file O(path) with C(.roothash.p7s) added (PKCS#7, DER).
    type: dict
    suboptions:
      key:
        description: Absolute path of the private key in PEM form, without a passphrase.
        type: path
        required: true
      certificate:
        description: Absolute path of its certificate in PEM form.
        type: path
        required: true
  root_hash:
    description:
      - The root hash that O(state=verified) compares with, from a source that is trusted. It is never taken from
        a file.
    type: str
"""

EXAMPLES = r"""
- name: Build the smallest ext4 image of a tree
  rootfs_image:
    path: /srv/images/root.ext4
    src: /srv/trees/debian
    format: ext4

- name: Build an ext4 image of an archive, with room for what is written later
  rootfs_image:
    path: /srv/images/agent.ext4
    src: /srv/downloads/agent.tar.zst
    format: ext4
    size: +25%

- name: Build a read-only image that the kernel verifies while it reads
  rootfs_image:
    path: /srv/images/root.erofs
    incus:
      image: debian/13
    format: erofs
    verity: true
    signing:
      key: /etc/cowherd/verity.key
      certificate: /etc/cowherd/verity.crt

- name: Build a compressed image that can be written to, with room for a gigabyte more
  rootfs_image:
    path: /srv/images/agent.btrfs
    src: /srv/trees/debian
    format: btrfs
    label: agent
    size: +1GiB

- name: Verify an image that came over the network
  rootfs_image:
    path: /srv/images/root.erofs
    state: verified
    root_hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""

RETURN = r"""
image:
  description: The image as it is after the run, in check mode before it. Null when there is none that was built here.
  type: dict
  returned: success
  sample:
    path: /srv/images/root.erofs
    format: erofs
    method: mkfs.erofs
    why: mkfs.erofs is the only way to make one
    compressor: lz4hc
    level: 12
    bytes: 190840832
    allocated_bytes: 190840832
    payload_bytes: 338413056
    payload_ratio: 1.77
    minimum_bytes: null
    inodes: 9381
    tries: 1
    varies: []
    seconds: 17.2
    uuid: 2f8c0c3a-9d3c-5b0f-8c56-0f6a2b6c2d11
    source_date_epoch: 1764158400
    fingerprint: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    lost: []
    verity:
      root_hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      tree_path: /srv/images/root.erofs
      hash_offset: 189345792
      data_blocks: 46227
      block_bytes: 4096
      algorithm: sha256
      salt: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
      uuid: 2f8c0c3a-9d3c-5b0f-8c56-0f6a2b6c2d11
      signature_path: /srv/images/root.erofs.roothash.p7s
  contains:
    path:
      description: Where it is.
      type: str
      returned: success
      sample: /srv/images/root.erofs
    format:
      description: Its file system.
      type: str
      returned: success
      sample: erofs
    method:
      description: >-
        How it was filled; for ext4 V(mke2fs), V(loop) or V(shrink), for btrfs V(mkfs) or V(loop), else the name of the
        tool.
      type: str
      returned: success
      sample: mkfs.erofs
    why:
      description: Why by this method.
      type: str
      returned: success
      sample: mkfs.erofs is the only way to make one
    compressor:
      description: What its content is compressed with; V(none) when it is not.
      type: str
      returned: success
      sample: lz4hc
    level:
      description: Level of the compressor; null for its own default, and for one that has none.
      type: int
      returned: success
      sample: 12
    bytes:
      description: Its size, with an appended hash tree.
      type: int
      returned: success
      sample: 190840832
    allocated_bytes:
      description: What it takes on the disk, without its holes, when it had been built.
      type: int
      returned: success
      sample: 190840832
    payload_bytes:
      description: What is in the files of the tree, each file once, without their holes.
      type: int
      returned: success
      sample: 338413056
    payload_ratio:
      description: RV(image.payload_bytes) divided by RV(image.bytes).
      type: float
      returned: success
      sample: 1.77
    minimum_bytes:
      description: >-
        The smallest size of an ext4 or btrfs image with these options, computed for ext4, and for btrfs known since
        its content is compressed; null for other formats.
      type: int
      returned: success
      sample: 416284672
    inodes:
      description: How many files, folders and other things the tree has, hard links counted once.
      type: int
      returned: success
      sample: 9381
    tries:
      description: How often the tool was run; 2 when the computed size was too small.
      type: int
      returned: success
      sample: 1
    varies:
      description: What is otherwise in an image that is built again from the same inputs; empty when nothing is.
      type: list
      elements: str
      returned: success
      sample: []
    seconds:
      description: How long the build took, without reading the source before.
      type: float
      returned: success
      sample: 17.2
    uuid:
      description: UUID of the file system, derived from the fingerprint; null for squashfs, which has none.
      type: str
      returned: success
      sample: 2f8c0c3a-9d3c-5b0f-8c56-0f6a2b6c2d11
    source_date_epoch:
      description: The time of the build that is written into it, in seconds since 1970.
      type: int
      returned: success
      sample: 1764158400
    fingerprint:
      description: SHA-256 over the content, the options and the versions of the tools.
      type: str
      returned: success
      sample: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752
    lost:
      description:
        - What the tree has and the image does not, in words.
        - Without the fractions of seconds of modification times that V(squashfs), and V(ext4) that C(mke2fs) fills,
          cut off.
      type: list
      elements: str
      returned: success
      sample: ["POSIX ACLs of 3 files, such as srv/shared, as squashfs has none"]
    verity:
      description: Parameters of the hash tree; null when there is none.
      type: dict
      returned: success
      contains:
        root_hash:
          description: The root hash.
          type: str
          returned: success
          sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        tree_path:
          description: The file that the hash tree is in.
          type: str
          returned: success
          sample: /srv/images/root.erofs
        hash_offset:
          description: Where the hash tree begins in that file, in bytes.
          type: int
          returned: success
          sample: 189345792
        data_blocks:
          description: Number of blocks that it covers.
          type: int
          returned: success
          sample: 46227
        block_bytes:
          description: Size of a block, of data and of hashes.
          type: int
          returned: success
          sample: 4096
        algorithm:
          description: The hash.
          type: str
          returned: success
          sample: sha256
        salt:
          description: The salt, in hexadecimal digits.
          type: str
          returned: success
          sample: 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae
        uuid:
          description: UUID of the hash tree.
          type: str
          returned: success
          sample: 2f8c0c3a-9d3c-5b0f-8c56-0f6a2b6c2d11
        signature_path:
          description: The file with the signature of the root hash; null when it was not signed.
          type: str
          returned: success
          sample: /srv/images/root.erofs.roothash.p7s
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: ["build /srv/images/root.erofs (erofs) from /srv/trees/debian"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow import lock
from ansible.module_utils.cow.image import images, resource, sources
from ansible.module_utils.cow.plan import converge, explained

ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["present", "verified", "absent"], "default": "present"},
    "src": {"type": "path"},
    "incus": sources.INCUS_ARGUMENTS,
    "format": {"type": "str", "choices": ["ext4", "squashfs", "erofs", "btrfs"]},
    "label": {"type": "str"},
    "size": {"type": "str", "default": "minimum"},
    "method": {"type": "str", "choices": ["auto", "mke2fs", "mkfs", "loop", "shrink"], "default": "auto"},
    "reserved_percent": {"type": "int", "default": 0},
    "journal": {"type": "str", "default": "auto"},
    "packed_meta_blocks": {"type": "bool", "default": False},
    "inodes": {"type": "str", "default": "auto"},
    "preset": {"type": "str", "choices": ["fast", "balanced", "small"], "default": "balanced"},
    "compressor": {"type": "str"},
    "level": {"type": "int"},
    "strict": {"type": "bool", "default": False},
    "source_date_epoch": {"type": "int"},
    "verity": {"type": "bool", "default": False},
    "verity_tree": {"type": "str", "choices": ["appended", "beside"], "default": "appended"},
    "signing": {
        "type": "dict",
        "options": {
            "key": {"type": "path", "required": True, "no_log": False},
            "certificate": {"type": "path", "required": True},
        },
    },
    "root_hash": {"type": "str"},
    **resource.ARGUMENTS,
}
RULES: dict[str, Any] = {
    "mutually_exclusive": [("src", "incus")],
    "required_if": [
        ("state", "present", ("src", "incus"), True),
        ("state", "present", ("format",)),
        ("state", "verified", ("root_hash",)),
    ],
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True, **RULES)
    with explained(module):
        wanted = images.Wanted.of(module.params)
        with lock.held(resource.lock_name(wanted.path)):
            converge(
                module,
                observe=lambda: images.observe(wanted),
                plan=lambda found: images.plan(found, wanted),
                describe=images.describe,
                observe_result=lambda: images.observe_result(wanted),
            )


if __name__ == "__main__":
    main()

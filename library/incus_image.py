# Copyright: Cowherd contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have an image of Incus under an alias, unpacked before the first launch."""

from __future__ import annotations

DOCUMENTATION = r"""
module: incus_image
short_description: Have an image of Incus under an alias, unpacked before the first launch
description:
  - Has an alias name an image from a remote, a download, files of the host, or packages of Debian.
  - An image that was imported here keeps a token of its source as property. As long as that is the wanted source,
    nothing is downloaded, read or built.
  - When the source is another one, the new image is imported before the alias is moved. The old one is deleted when it
    was imported here and no other alias names it; one that was imported by hand stays. Instances are not affected.
  - An alias that somebody gave to an image by hand is accepted, unless a checksum or fingerprint says that it is
    another image.
  - An image is unpacked on O(pools), so that the first launch is a clone like any later one.
  - Without a source, the image is made on the spot from packages of the host's own release, as with an empty O(debian).
author:
  - Cowherd contributors
requirements:
  - Incus 6.0 or newer, not clustered
  - mmdebstrap to make images from packages, and zstd to have them small
extends_documentation_fragment:
  - attributes
attributes:
  check_mode:
    description:
      - Reports what a run would do, and writes nothing.
      - Downloads and remotes are not asked, so that one that cannot be reached shows only in the run.
    support: full
options:
  alias:
    description: The alias, such as V(debian/13).
    type: str
    required: true
  project:
    description: The project that the alias and the image are in.
    type: str
    default: default
  state:
    description: V(absent) deletes the alias, and the image too when it has no other.
    type: str
    choices: [present, absent]
    default: present
  pools:
    description:
      - Names of storage pools to have the image unpacked on. For this a container is made of it and deleted unstarted.
      - Nothing is done on a pool whose driver copies the image for each launch anyway, such as V(dir).
    type: list
    elements: str
    default: []
  remote:
    description: Import from an image server.
    type: dict
    suboptions:
      server:
        description: Address of the server.
        type: str
        required: true
      protocol:
        description: What the server speaks; V(incus) is another Incus with public images.
        type: str
        choices: [simplestreams, incus]
        default: simplestreams
      alias:
        description: Alias of the image there. Give this or O(remote.fingerprint).
        type: str
      fingerprint:
        description: Fingerprint of the image there, or its first 12 digits or more.
        type: str
      certificate:
        description: Certificate of the server in PEM form, for one that no authority vouches for.
        type: str
      auto_update:
        description:
          - Whether Incus replaces the image whenever the remote's alias names a newer one.
          - Without this option, a new image is not replaced, and an existing one stays as it is.
        type: bool
  url:
    description: Download from a web server.
    type: dict
    suboptions:
      url:
        description: Address of the image in one file, or with O(url.metadata_url) of its root file system.
        type: str
        required: true
      checksum:
        description: Checksum of the file, as C(sha256:) and 64 hexadecimal digits.
        type: str
        required: true
      metadata_url:
        description: Address of the metadata of an image in two files.
        type: str
      metadata_checksum:
        description: Checksum of the metadata, as C(sha256:) and 64 hexadecimal digits.
        type: str
  files:
    description:
      - Import from files on the host.
      - They are read whole when they are new, and again when their size or modification time has changed.
    type: dict
    suboptions:
      path:
        description: Absolute path of an image in one file. Give this, or O(files.metadata) and O(files.rootfs).
        type: path
      metadata:
        description: Absolute path of the metadata of an image in two files.
        type: path
      rootfs:
        description: Absolute path of its root file system, a tar or a squashfs.
        type: path
  rootfs:
    description: Import a root file system that has no metadata yet.
    type: dict
    suboptions:
      path:
        description: Absolute path of a tar, plain or compressed, or a squashfs. It is for the machine of this host.
        type: path
        required: true
  debian:
    description:
      - Make the image with C(mmdebstrap) from the packages of the mirror that apt on the host uses, with the updates
        and security fixes of the release where apt is set up for those.
      - It boots systemd, and takes its address on C(eth0) by DHCP with systemd-networkd.
      - It is made again when the options change, not when there are newer packages.
    type: dict
    suboptions:
      release:
        description: Code name of the release, such as V(trixie). Without it, that of the host.
        type: str
      packages:
        description: Packages to install besides those of the variant.
        type: list
        elements: str
        default: []
      variant:
        description: The set of packages to begin with, as C(mmdebstrap) calls it.
        type: str
        choices: [minbase, important, standard]
        default: important
      mirror:
        description: Address of another mirror to take all packages from. It stays in the image as its source for apt.
        type: str
  socket:
    description: Path of the unix socket of the Incus daemon. The folder that it is in is the daemon's own (INCUS_DIR).
    type: path
    default: /var/lib/incus/unix.socket
  pending:
    description:
      - Incus is about to be installed or started by the same play. When there is no daemon, an empty one is assumed,
        so that check mode can say what a run does on a host where nothing is installed yet.
      - A daemon that is down but has a database is not guessed at. Check mode then warns and names no steps.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Have an image of this host's own release, ready to be cloned on the pool
  incus_image:
    alias: base
    pools: [default]

- name: Have Debian 13 with an ssh server, made from packages
  incus_image:
    alias: debian/13
    debian:
      release: trixie
      packages: [openssh-server, python3]
    pools: [default]

- name: Have the image that the remote calls by this name, and its later versions
  incus_image:
    alias: alpine/edge
    remote:
      server: https://images.linuxcontainers.org
      alias: alpine/edge
      auto_update: true

- name: Have an image from a web server
  incus_image:
    alias: agent
    url:
      url: https://example.com/images/agent-1.2.tar.xz
      checksum: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

- name: Have an image from two files of the host
  incus_image:
    alias: agent
    files:
      metadata: /srv/images/agent-metadata.tar.xz
      rootfs: /srv/images/agent-rootfs.squashfs

- name: Forget an image
  incus_image:
    alias: agent
    state: absent
"""

RETURN = r"""
image:
  description: The image that the alias names after the run; in check mode before it. Null when there is none.
  type: dict
  returned: success
  sample:
    alias: debian/13
    project: default
    fingerprint: 5848b4812b68644c79585013d1725a0229cfaf1c76d7da30c10c1f314065fe90
    architecture: x86_64
    size_bytes: 97517568
    auto_update: false
    aliases: [debian/13]
    properties: {os: debian, release: trixie}
    unpacked_on: [default]
  contains:
    alias:
      description: The alias.
      type: str
      returned: success
      sample: debian/13
    project:
      description: The project.
      type: str
      returned: success
      sample: default
    fingerprint:
      description: SHA-256 of its files.
      type: str
      returned: success
      sample: 5848b4812b68644c79585013d1725a0229cfaf1c76d7da30c10c1f314065fe90
    architecture:
      description: The machines that it is for, as Incus calls them.
      type: str
      returned: success
      sample: x86_64
    size_bytes:
      description: Size of its files in bytes.
      type: int
      returned: success
      sample: 97517568
    auto_update:
      description: Whether Incus replaces it by newer versions of the remote.
      type: bool
      returned: success
      sample: false
    aliases:
      description: All of its aliases.
      type: list
      elements: str
      returned: success
      sample: [debian/13]
    properties:
      description: Its properties.
      type: dict
      returned: success
      sample: {os: debian, release: trixie}
    unpacked_on:
      description: The pools on which a launch is a clone from the first time on.
      type: list
      elements: str
      returned: success
      sample: [default]
steps:
  description: What was done in this order, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample:
    - "import image debian/13: trixie built on this host (important)"
    - unpack image debian/13 on storage pool default
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.cow.incus import arguments, connection, images
from ansible.module_utils.cow.plan import converge

ARGUMENTS: dict[str, Any] = {
    **arguments.IMAGE,
    **connection.ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(ARGUMENTS, supports_check_mode=True)
    with connection.session(module) as server:
        which = images.key(module.params)
        if module.params["state"] == "absent":
            converge(
                module,
                observe=lambda: images.observe_absent(server, which),
                plan=lambda found: images.plan_absent(server, found, which),
                describe=lambda found: images.describe(found, which),
            )
        else:
            wanted = images.Wanted.of(module.params)
            # The pools of a daemon that is still to be installed are too.
            fresh = frozenset(wanted.pools if isinstance(server, connection.FutureServer) else ())
            converge(
                module,
                observe=lambda: images.observe(server, [wanted]),
                plan=lambda found: images.plan(server, found, wanted, fresh),
                describe=lambda found: images.describe(found, which),
            )


if __name__ == "__main__":
    main()

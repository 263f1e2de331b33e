"""The formats that images are made in. A new one is a class like those, named here and in the module's choices."""

from __future__ import annotations

from collections.abc import Mapping

from .btrfs import Btrfs
from .erofs import Erofs
from .ext4 import Ext4
from .job import Builder
from .squashfs import Squashfs

FORMATS: Mapping[str, Builder] = {"ext4": Ext4(), "squashfs": Squashfs(), "erofs": Erofs(), "btrfs": Btrfs()}

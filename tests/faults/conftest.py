"""The daemons and images of the integration tests, for tests that break things on purpose."""

from __future__ import annotations

from tests.integration.conftest import btrfs_folder, busybox_image, incusd, nothing_left, shared_incusd, store

__all__ = ["btrfs_folder", "busybox_image", "incusd", "nothing_left", "shared_incusd", "store"]

"""Tests against real Incus, btrfs and ZFS; each skips with a reason where its means are missing."""

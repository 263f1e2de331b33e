"""Live and install media: a btrfs seed with one or more roots, and its installation onto devices."""

"""Images of root file systems: sources of trees, sizing, a builder for each format, and dm-verity."""

"""What Cowherd knows about copy-on-write storage and Incus. Standard library only; runs on the managed host."""

"""Incus, spoken to through its REST API: the client, and one module for each kind of resource."""

"""The watch of the integration tests that nothing stays, for tests of which each works in a virtual machine."""

from __future__ import annotations

from tests.integration.conftest import nothing_left

__all__ = ["nothing_left"]

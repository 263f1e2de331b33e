"""The watch that nothing stays, as for the integration tests."""

from __future__ import annotations

from tests.integration.conftest import nothing_left

__all__ = ["nothing_left"]

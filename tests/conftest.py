"""Fixtures that every folder may use. Kept few: a test is easiest to read when it builds what it needs."""

from __future__ import annotations

import pytest

from fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until moved."""
    return FakeClock()

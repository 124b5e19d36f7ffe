"""Fixtures that every folder may use. Kept few: a test is easiest to read when it builds what it needs."""

from __future__ import annotations

import pytest

from fakes import FakeClock
from servers import postgres_url, private_redis, redis_space
from stores import shared, store

__all__ = ["clock", "postgres_url", "private_redis", "redis_space", "shared", "store"]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until moved."""
    return FakeClock()

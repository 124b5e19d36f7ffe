"""Fixtures that every folder may use. Kept few: a test is easiest to read when it builds what it needs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from fakes import FakeClock
from servers import postgres_url, private_redis, redis_space
from stores import shared, store

# No test is timed: how long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

__all__ = ["clock", "postgres_url", "private_redis", "redis_space", "shared", "store"]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until moved."""
    return FakeClock()

"""What several suites of the stores share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from postgres_gate import Gate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def gate(postgres_url: str) -> AsyncIterator[Gate]:
    async with Gate.open(postgres_url) as opened:
        yield opened

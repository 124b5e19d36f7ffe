"""What the tests of this room start from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.serving.account_doubles import House

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """A store with people in it."""
    made = House()
    await made.settle()
    yield made
    await made.passwords.aclose()

"""An engine of a test's own, which leaves no process behind."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from convene.engine.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Kept = TypeVar("Kept", bound=Supervisor)


@asynccontextmanager
async def running(engine: Kept) -> AsyncIterator[Kept]:
    """Start an engine; close it at the end, and see that its child is gone."""
    engine.start()
    try:
        yield engine
    finally:
        await engine.aclose()
    assert engine.status().pid == 0

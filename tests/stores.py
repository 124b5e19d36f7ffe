"""Every store there is, for the suites that all of them pass unchanged.

store     one open store: memory, SQLite, Postgres in turn
shared    a function that opens one more writer of the same database: SQLite, Postgres in turn
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from convene.store.memory import MemoryStore
from convene.store.postgres import PostgresStore
from convene.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from convene.clock import Clock
    from convene.store.base import Store
    from fakes import FakeClock


class OpenAnother(Protocol):
    """Opens one more writer of the database that all of a test share; all are closed when the test ends."""

    async def __call__(self, clock: Clock | None = None) -> SqliteStore | PostgresStore: ...


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    """One open store of each kind."""
    opened: Store
    if request.param == "memory":
        opened = MemoryStore()
    elif request.param == "sqlite":
        opened = await SqliteStore.open(tmp_path / "d" / "convene.db", clock)
    else:
        opened = await PostgresStore.open(request.getfixturevalue("postgres_url"), clock)
    yield opened
    await opened.aclose()


@pytest.fixture(params=["sqlite", "postgres"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenAnother]:
    """A database that several writers have open, of each kind that can be."""
    opened: list[SqliteStore | PostgresStore] = []
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""

    async def another(clock: Clock | None = None) -> SqliteStore | PostgresStore:
        one = await (PostgresStore.open(url, clock) if url else SqliteStore.open(tmp_path / "shared.db", clock))
        opened.append(one)
        return one

    yield another
    for one in opened:
        await one.aclose()

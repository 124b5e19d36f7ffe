"""That an open store shows life, and stops at once when it is closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.store import presence
from convene.store.presence import DEAD_AFTER_US, Presence
from convene.store.sqlite_file import SqliteFile
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    opened = await SqliteFile.open(tmp_path / "c.db")
    yield opened
    await opened.aclose()


async def seen(file: SqliteFile) -> dict[str, int]:
    return dict(await file.rows("SELECT id, seen_at_us FROM writers"))


async def test_a_writer_is_there_from_the_start_and_gone_at_the_end(file: SqliteFile, clock: FakeClock) -> None:
    writer = await Presence.start(file, clock)
    assert await seen(file) == {writer.id: int(clock.now() * 1e6)}
    await writer.aclose()
    await writer.aclose()
    assert await seen(file) == {}


async def test_a_writer_shows_life_again_and_again(
    file: SqliteFile, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0.0)
    writer = await Presence.start(file, clock)
    for _ in range(3):
        clock.move(1.0)
        async with asyncio.timeout(60):
            while (await seen(file))[writer.id] != int(clock.now() * 1e6):
                pass
    await writer.aclose()


async def test_two_writers_of_one_file_are_two(file: SqliteFile, clock: FakeClock) -> None:
    first, second = await Presence.start(file, clock), await Presence.start(file, clock)
    assert set(await seen(file)) == {first.id, second.id}
    await first.aclose()
    assert set(await seen(file)) == {second.id}
    await second.aclose()


async def test_those_long_dead_are_forgotten(file: SqliteFile, clock: FakeClock) -> None:
    await file.write([("INSERT INTO writers (id, seen_at_us) VALUES ('w-old', 1), ('w-now', ?)", (2 * 10**15,))])
    writer = await Presence.start(file, clock)
    assert set(await seen(file)) == {writer.id, "w-now"}
    assert int(clock.now() * 1e6) - 1 > 100 * DEAD_AFTER_US
    await writer.aclose()


async def test_a_store_that_cannot_be_told_does_not_keep_a_writer_from_closing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = await SqliteFile.open(tmp_path / "other.db")
    writer = await Presence.start(file, FakeClock())
    await file.aclose()
    await writer.aclose()
    assert "could not be told" in caplog.text


async def test_a_beat_that_fails_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(presence, "BEAT_S", 0.0)
    file = await SqliteFile.open(tmp_path / "other.db")
    tries = iter(range(3))
    enough = asyncio.Event()

    async def write(_: object) -> list[int]:
        if next(tries, None) is None:
            enough.set()
        raise StoreFault("The store cannot be used.")

    writer = await Presence.start(file, FakeClock())
    monkeypatch.setattr(file, "write", write)
    await asyncio.wait_for(enough.wait(), 60)
    await writer.aclose()
    await file.aclose()
    assert "could not be shown" in caplog.text

"""What only the books in Postgres have: a connection that may be lost before or after a commit, and other writers."""

from __future__ import annotations

import asyncio
import functools
import random
from typing import TYPE_CHECKING, Any

import pytest

from convene.errors import StoreFault
from convene.store import postgres_ledger
from convene.store.base_ledger import Entry, Filter, Intent
from convene.store.ledger_rows import MOST
from convene.store.postgres import PostgresStore
from ledger_samples import ALL, ended, entry, intent, summed
from postgres_gate import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from convene.store.base_ledger import Ledger
    from convene.store.postgres_ledger import PostgresLedger
    from postgres_gate import Gate

DEADLINE_S = 30.0
EVERYTHING = Filter(whose=ALL)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresStore]:
    opened = await PostgresStore.open(postgres_url)
    yield opened
    await opened.aclose()


async def all_of(books: Ledger) -> list[Entry]:
    return [one async for one in books.entries(EVERYTHING)]


async def rows_of_intents(store: PostgresStore) -> int:
    [[count]] = await store.database.rows("SELECT count(*) FROM intents")
    return int(count)


# Groups.


async def test_intents_of_one_turn_are_one_row_which_goes_with_the_last_of_them(store: PostgresStore) -> None:
    await asyncio.gather(*(store.ledger.begin(intent(number)) for number in range(50)))
    assert await rows_of_intents(store) == 1
    await asyncio.gather(*(store.ledger.finish(entry(number)) for number in range(49)))
    assert await rows_of_intents(store) == 1
    await store.ledger.finish(entry(49))
    assert await rows_of_intents(store) == 0


async def test_intents_that_end_in_the_turn_they_begin_in_are_never_written(store: PostgresStore) -> None:
    await asyncio.gather(store.ledger.begin(intent(1)), store.ledger.finish(entry(1)), store.ledger.begin(intent(2)))
    assert await store.ledger.open_intents() == [intent(2)]
    await asyncio.gather(store.ledger.finish(entry(2)), store.ledger.begin(intent(3)), store.ledger.finish(entry(3)))
    assert await rows_of_intents(store) == 0


async def test_more_than_a_group_holds_is_written_in_several(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_ledger, "GROUP_MAX", 7)
    await asyncio.gather(*(store.ledger.begin(intent(number)) for number in range(40)))
    waiting = [store.ledger.finish(entry(number)) for number in range(40)]
    await store.ledger.flush()
    assert all(waiter.done() for waiter in waiting)
    assert await all_of(store.ledger) == [entry(number) for number in range(40)]
    assert await rows_of_intents(store) == 0


async def test_of_two_entries_with_one_id_in_one_group_the_first_counts(store: PostgresStore) -> None:
    first, second = entry(1, prompt_tokens=5), entry(1, prompt_tokens=7)
    await asyncio.gather(*(store.ledger.finish(one) for one in (first, second, entry(0), second)))
    assert await all_of(store.ledger) == [entry(0), first]
    assert await store.ledger.total(ALL) == summed([entry(0), first])


# Values.


async def test_text_that_postgres_cannot_hold_is_replaced_and_found_again(store: PostgresStore) -> None:
    odd = entry(1, session_id="s\0x", agent_address="\ud800", request_id="r\0", model_asked="a\\u0000")
    await asyncio.gather(store.ledger.begin(intent(1, session_id="s\0x")), store.ledger.finish(odd))
    await store.ledger.begin(intent(2, session_id="s\0\ud800"))
    [found] = await store.ledger.find("r\0", ALL)
    assert (found.session_id, found.agent_address, found.request_id) == ("s\ufffdx", "\ufffd", "r\ufffd")
    assert found.model_asked == "a\\u0000"
    assert await store.ledger.page(Filter(whose=ALL, session_id="s\0x"), 5) == [found]
    [left] = await store.ledger.open_intents()
    await store.ledger.finish(ended(left))
    assert await store.ledger.open_intents() == []


async def test_figures_that_no_sum_can_hold_are_cut(store: PostgresStore) -> None:
    await store.ledger.finish(entry(1, prompt_tokens=1 << 80, cost_micros=1 << 63))
    [found] = await all_of(store.ledger)
    assert (found.prompt_tokens, found.cost_micros) == (MOST, MOST)


async def test_an_entry_that_is_refused_fails_alone(store: PostgresStore, caplog: pytest.LogCaptureFixture) -> None:
    await store.database.rows("ALTER TABLE entries ADD CHECK (duration_us <> 666)")
    finishing = [store.ledger.finish(entry(number, duration_us=666 if number == 5 else 1)) for number in range(9)]
    begun = store.ledger.begin(intent(20))
    done = await asyncio.gather(*finishing, return_exceptions=True)
    await begun
    assert [type(one) for one in done] == [StoreFault if number == 5 else type(None) for number in range(9)]
    assert len(await all_of(store.ledger)) == 8
    assert await store.ledger.open_intents() == [intent(20)]
    assert "cannot be written" in caplog.text


# Connections.


async def test_ended_sessions_under_load_lose_nothing_and_double_nothing(store: PostgresStore) -> None:
    """Goal B1: `pg_terminate_backend` at any moment, as an operator or a failing server would."""
    chance = random.Random(5)  # noqa: S311 -- a seeded test
    begun: list[Intent] = []
    finished: list[Entry] = []
    running = True

    async def caller(first: int) -> None:
        number = first
        while running:
            one = intent(number, key_id=f"key-{number % 3}")
            number += 1
            await store.ledger.begin(one)
            begun.append(one)
            if chance.random() < 0.9:
                await store.ledger.finish(ended(one))
                finished.append(ended(one))

    callers = [asyncio.create_task(caller(first * 100_000)) for first in range(16)]
    for _ in range(25):
        await until(functools.partial(more_than, finished, len(finished) + 20))
        await store.database.rows("SELECT pg_terminate_backend(?)", (backend_of(store.ledger),))
    running = False
    await asyncio.gather(*callers)
    assert sorted(one.id for one in await all_of(store.ledger)) == sorted(one.id for one in finished)
    assert await store.ledger.total(ALL) == summed(finished)
    ids = {one.id for one in finished}
    assert {one.id for one in await store.ledger.open_intents()} == {one.id for one in begun} - ids


async def more_than(entries: list[Entry], count: int) -> bool:
    return len(entries) > count


def backend_of(books: PostgresLedger) -> int:
    session: Any = books._session
    return int(session.get_server_pid())


async def test_a_commit_whose_answer_is_lost_is_repeated_and_counts_once(store: PostgresStore, gate: Gate) -> None:
    behind = await PostgresStore.open(gate.url)
    await behind.ledger.begin(intent(1))
    gate.set("mute")
    finishing = behind.ledger.finish(entry(1, prompt_tokens=5))
    await until(lambda: store.ledger.find(entry(1).id, ALL))
    assert not finishing.done()
    gate.set("open")
    async with asyncio.timeout(DEADLINE_S):
        await finishing
    assert await store.ledger.total(ALL) == summed([entry(1, prompt_tokens=5)])
    assert await rows_of_intents(store) == 0
    await behind.aclose()


async def test_while_the_database_is_away_nobody_begins_and_what_has_ended_is_kept(
    store: PostgresStore, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = await PostgresStore.open(gate.url)
    await behind.ledger.begin(intent(1))
    monkeypatch.setattr(postgres_ledger, "STUCK_S", 0.05)
    gate.set("shut")
    finishing = behind.ledger.finish(entry(1))
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(StoreFault):
            await behind.ledger.begin(intent(2))
    with pytest.raises(StoreFault):
        behind.ledger.begin(intent(3))
    also = behind.ledger.finish(entry(4))
    assert not finishing.done()
    gate.set("open")
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.gather(finishing, also)
        await behind.ledger.begin(intent(5))
    assert await all_of(store.ledger) == [entry(1), entry(4)]
    assert await store.ledger.open_intents() == [intent(5)]
    await behind.aclose()


async def test_a_beginning_that_was_refused_is_not_open_though_it_had_been_written(
    store: PostgresStore, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = await PostgresStore.open(gate.url)
    await behind.ledger.begin(intent(1))
    monkeypatch.setattr(postgres_ledger, "STUCK_S", 0.5)
    gate.set("mute")
    beginning = asyncio.ensure_future(behind.ledger.begin(intent(2)))
    await until(lambda: _has(store, 2))
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(StoreFault):
            await beginning
    gate.set("open")
    async with asyncio.timeout(DEADLINE_S):
        await behind.ledger.flush()
    assert await store.ledger.open_intents() == [intent(1)]
    await behind.aclose()


async def _has(store: PostgresStore, count: int) -> bool:
    return len(await store.ledger.open_intents()) == count


async def test_closing_writes_what_is_left_and_tells_what_could_not_be(
    store: PostgresStore, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = await PostgresStore.open(gate.url)
    waiting = [written.ledger.finish(entry(number)) for number in range(30)]
    await written.aclose()
    assert all(waiter.done() and waiter.exception() is None for waiter in waiting)
    assert len(await all_of(store.ledger)) == 30
    away = await PostgresStore.open(gate.url)
    await away.ledger.begin(intent(99))
    monkeypatch.setattr(postgres_ledger, "CLOSE_S", 0.05)
    gate.set("shut")
    lost = [away.ledger.finish(entry(number)) for number in (40, 41)]
    async with asyncio.timeout(DEADLINE_S):
        await away.aclose()
        for waiter in lost:
            with pytest.raises(StoreFault):
                await waiter
    assert "2 entries were not written" in caplog.text


# Several writers.


async def test_writers_that_share_keys_and_entries_wait_for_each_other_in_no_circle(
    store: PostgresStore, postgres_url: str
) -> None:
    """Two replicas settle the same orphans and serve the same keys: each entry counts once, whoever wrote it."""
    other = await PostgresStore.open(postgres_url)
    chance = random.Random(9)  # noqa: S311 -- a seeded test
    entries = [entry(number, key_id=f"key-{number % 7}", model=f"m{number % 5}") for number in range(300)]

    async def write(books: Ledger) -> None:
        mine = chance.sample(entries, len(entries))
        for start in range(0, len(mine), 10):
            await asyncio.gather(*(books.finish(one) for one in mine[start : start + 10]))

    async with asyncio.timeout(2 * DEADLINE_S):
        await asyncio.gather(write(store.ledger), write(other.ledger))
    assert await all_of(store.ledger) == entries
    assert await other.ledger.total(ALL) == summed(entries)
    await other.aclose()


async def test_what_a_killed_writer_left_open_is_an_orphan_for_the_others(
    store: PostgresStore, postgres_url: str
) -> None:
    other = await PostgresStore.open(postgres_url)
    await other.ledger.begin(intent(1))
    await store.ledger.begin(intent(2))
    assert await store.ledger.orphans(30_000_000) == []
    await other.aclose()
    assert await store.ledger.orphans(30_000_000) == [intent(1)]
    await store.ledger.finish(ended(intent(1), status="unknown"))
    assert await store.ledger.orphans(30_000_000) == []
    assert await store.ledger.open_intents() == [intent(2)]


async def test_acknowledged_rows_are_committed_with_the_disk_waited_for(store: PostgresStore) -> None:
    await store.ledger.finish(entry(1))
    session = store.ledger._session
    assert session is not None
    assert [tuple(row) for row in await session.fetch("SHOW synchronous_commit")] == [("on",)]

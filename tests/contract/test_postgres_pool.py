"""The sessions and migrations of Postgres, against a real one: its own promises beyond those of `sql.Database`."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.store import postgres_pool
from convene.store.migrations import CHANGES, steps_for
from convene.store.postgres_pool import PostgresPool, examine
from convene.store.postgres_wire import Wire
from servers import run_sql

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

DEADLINE_S = 20.0
STEPS = steps_for("postgres")
NOTE = "INSERT INTO revisions (name, number) VALUES (?, ?)"


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[PostgresPool]:
    opened = await PostgresPool.open(postgres_url, size=2)
    yield opened
    await opened.aclose()


async def until(look: Callable[[], Awaitable[object]]) -> None:
    for _ in range(100_000):
        if await look():
            return
    pytest.fail("it never came")


async def pid_of(pool: PostgresPool) -> int:
    [[pid]] = await pool.rows("SELECT pg_backend_pid()")
    return int(pid)


async def test_a_question_mark_is_a_hole_only_outside_of_a_literal(pool: PostgresPool) -> None:
    rows = await pool.rows("SELECT '?' || 'it''s ?' || CAST(? AS text), CAST(? AS bigint)", ("x", 5))
    assert rows == [("?it's ?x", 5)]


async def test_changes_are_done_together_and_counted_one_by_one(pool: PostgresPool) -> None:
    done = await pool.write([(NOTE, ("a", 1)), (NOTE, ("b", 2)), ("UPDATE revisions SET number = 7", ())])
    assert done == [1, 1, 2]
    with pytest.raises(StoreFault):
        await pool.write([(NOTE, ("c", 3)), (NOTE, ("a", 4))])
    assert await pool.rows("SELECT name, number FROM revisions ORDER BY name") == [("a", 7), ("b", 7)]


@pytest.mark.parametrize("text", ["nul\0inside", "half\ud800of a pair", "\0"])
async def test_text_that_postgres_cannot_hold_is_kept_with_a_replacement(pool: PostgresPool, text: str) -> None:
    kept = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    await pool.write([(NOTE, (text, 1))])
    assert await pool.rows("SELECT name FROM revisions WHERE name = ?", (text,)) == [(kept,)]


async def test_a_statement_that_is_refused_leaves_the_session_in_use(pool: PostgresPool) -> None:
    before = await pid_of(pool)
    with pytest.raises(StoreFault) as caught:
        await pool.rows("SELECT nonsense FROM revisions")
    assert "nonsense" in str(caught.value.detail)
    assert await pid_of(pool) == before


async def test_a_cancelled_statement_leaves_no_session_behind_that_anybody_could_get(pool: PostgresPool) -> None:
    before = await pid_of(pool)
    asking = asyncio.ensure_future(pool.rows("SELECT pg_sleep(10)"))
    await asyncio.sleep(0)
    sleeping = "SELECT 1 FROM pg_stat_activity WHERE pid = ? AND wait_event = 'PgSleep'"
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: pool.rows(sleeping, (before,)))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    async with asyncio.timeout(DEADLINE_S):
        pids = {await pid_of(pool) for _ in range(4)}
    assert before not in pids


async def test_cancelled_writes_are_done_whole_or_not_at_all(pool: PostgresPool) -> None:
    async def write(number: int) -> None:
        await pool.write([(NOTE, (f"a{number}", number)), (NOTE, (f"b{number}", number))])

    for number in range(60):
        writing = asyncio.ensure_future(write(number))
        for _ in range(number % 12):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
    rows = await pool.rows("SELECT number, count(*) FROM revisions GROUP BY number HAVING count(*) <> 2")
    assert rows == []


async def test_a_look_up_outlives_the_end_of_its_session(pool: PostgresPool, postgres_url: str) -> None:
    pid = await pid_of(pool)
    run_sql(postgres_url, f"SELECT pg_terminate_backend({pid})")
    assert await pool.rows("SELECT 1") == [(1,)]


async def test_callers_wait_for_a_session_and_are_told_when_none_comes(
    pool: PostgresPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_pool, "WAIT_S", 0.01)
    async with pool.session(), pool.session():
        with pytest.raises(StoreFault, match="busy"):
            await pool.rows("SELECT 1")
    monkeypatch.undo()
    assert len(await asyncio.gather(*(pool.rows("SELECT 1") for _ in range(20)))) == 20


async def test_after_the_end_every_call_is_refused(pool: PostgresPool) -> None:
    await pool.rows("SELECT 1")
    await pool.aclose()
    await pool.aclose()
    with pytest.raises(StoreFault, match="closed"):
        await pool.rows("SELECT 1")


async def test_any_number_of_replicas_may_start_at_once(postgres_url: str) -> None:
    pools = await asyncio.gather(*(PostgresPool.open(postgres_url) for _ in range(8)))
    assert await pools[0].rows("SELECT number FROM shape") == [(len(STEPS),)]
    for pool in pools:
        await pool.aclose()


@pytest.mark.parametrize("older", range(len(CHANGES)))
async def test_every_older_shape_is_brought_up_to_date_with_what_it_holds(postgres_url: str, older: int) -> None:
    await (await PostgresPool.open(postgres_url, steps=STEPS[:older])).aclose()
    assert await examine(postgres_url) == (older, 0)
    if older:
        names = "INSERT INTO keys (id, name, owner, plan, digest, last4, created_at, scopes) "
        run_sql(postgres_url, names + "VALUES ('k', 'n', 'o', 'p', '', 'abcd', 1, '[]')")
    await (await PostgresPool.open(postgres_url)).aclose()
    assert await examine(postgres_url) == (len(STEPS), int(older > 0))


async def test_a_newer_shape_is_refused_and_left_as_it_is(postgres_url: str) -> None:
    await (await PostgresPool.open(postgres_url)).aclose()
    run_sql(postgres_url, "UPDATE shape SET number = number + 1")
    with pytest.raises(StoreFault, match="newer") as caught:
        await PostgresPool.open(postgres_url)
    assert "pg_dump" in str(caught.value.detail)
    assert run_sql(postgres_url, "SELECT number FROM shape") == str(len(STEPS) + 1)


async def test_a_step_that_fails_leaves_nothing_of_itself(postgres_url: str) -> None:
    await (await PostgresPool.open(postgres_url, steps=STEPS[:1])).aclose()
    broken = (STEPS[0], ("CREATE TABLE half (id TEXT)", "CREATE TABLE nonsense (id NO_TYPE)"))
    with pytest.raises(StoreFault, match="cannot be used"):
        await PostgresPool.open(postgres_url, steps=broken)
    assert run_sql(postgres_url, "SELECT number, to_regclass('half') IS NULL FROM shape") == "1|t"


@pytest.mark.parametrize("url", ["postgresql://postgres:canary@127.0.0.1:1/x", "postgresql://u:canary@h:port/x"])
async def test_a_database_that_cannot_be_reached_is_a_fault_without_its_password(url: str) -> None:
    with pytest.raises(StoreFault) as caught:
        await PostgresPool.open(url)
    assert "canary" not in f"{caught.value} {caught.value.detail}"


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(StoreFault, match="extra `postgres`"):
        Wire("postgresql://h/x")


async def test_a_server_that_goes_silent_holds_nobody_who_leaves() -> None:
    """A half-open connection: bytes go out, none come back, and still a cancelled caller is free at once."""
    silent, gone = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        silent.set()
        await reader.read()
        writer.close()
        gone.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opening = asyncio.ensure_future(PostgresPool.open(f"postgresql://postgres@127.0.0.1:{port}/x?sslmode=disable"))
    async with asyncio.timeout(DEADLINE_S):
        await silent.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await gone.wait()
    server.close()
    await server.wait_closed()

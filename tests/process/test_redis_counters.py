"""What Redis adds to the contract of counters: round trips, lost servers, cancelled callers, doubles, keys and time.

The contract itself is `tests/contract/test_counters.py`. These tests have a Redis of their own, as they count its
commands, pause it and kill it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import random
from typing import TYPE_CHECKING, Any, Final

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convene.clock import SystemClock
from convene.errors import NotFound, StoreFault
from convene.limits import gcra
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Past, Refusal, Unit
from convene.limits.periods import number_of
from convene.store.redis_counters import STALE_US, RedisCounters
from convene.store.redis_scripts import AMOUNT_MOST, PRELUDE, SERVER_CLOCK
from fakes import FakeClock
from process.http_client_peers import Authority
from servers import RedisSpace, own_redis, shared_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from servers import PrivateRedis

HOUR_US: Final = 3_600_000_000
PATIENT_S: Final = 20.0
"""For tests in which nothing is late: a busy machine is no outage."""
WAIT_S: Final = 0.05

LIMITS: Final = (
    Limit.rate(Unit.REQUESTS, 10_000, MINUTE_US, scope="key", subject="k1", name="requests per minute"),
    Limit.rate(Unit.TOKENS, 10_000_000, MINUTE_US, scope="key", subject="k1", name="tokens per minute"),
    Limit.rate(Unit.REQUESTS, 999_983, DAY_US, scope="user", subject="u1", name="requests per day"),
    Limit.rate(Unit.TOKENS, 999_999_937, DAY_US, scope="team", subject="t1", name="tokens per day"),
    Limit.slots(1000, scope="key", subject="k1"),
    Limit.budget(Unit.MICROS, 10**12, "month", scope="key", subject="k1", name="budget per month"),
)
COST: Final = Amounts(requests=1, tokens=700, micros=12, slots=1)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    """A Redis for this file, which each test finds running and empty."""
    with own_redis() as started:
        yield started


@pytest.fixture
def admin(server: PrivateRedis) -> Iterator[redis.Redis]:
    """A client that looks at the server by other means than ours."""
    client = redis.Redis.from_url(server.url)
    client.flushall()
    client.config_resetstat()
    with contextlib.closing(client):
        yield client


@pytest.fixture
async def counters(server: PrivateRedis, admin: redis.Redis) -> AsyncIterator[RedisCounters]:
    assert admin.ping()
    async with contextlib.aclosing(RedisCounters(server.url, SystemClock(), wait_s=PATIENT_S)) as made:
        yield made


def calls(admin: redis.Redis) -> dict[str, int]:
    """Return how often each command was called by clients and scripts."""
    found: Any = admin.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in found.items()}


async def grant(counters: RedisCounters, lease: str) -> Grant:
    answer = await counters.reserve(lease, LIMITS, COST, HOUR_US)
    assert isinstance(answer, Grant), answer
    return answer


async def test_a_decision_over_six_limits_is_one_command(counters: RedisCounters, admin: redis.Redis) -> None:
    """A5: exactly one round trip."""
    await grant(counters, "first")  # the server learns the text
    before = calls(admin)
    for number in range(50):
        await grant(counters, f"l{number}")
    after = calls(admin)
    assert after["evalsha"] - before.get("evalsha", 0) == 50
    assert after.get("eval", 0) == before.get("eval", 0)
    # What else was called, was called by the script: as often in each of the fifty.
    others = {name: after[name] - before.get(name, 0) for name in after if name not in {"evalsha", "info"}}
    assert [name for name, count in others.items() if count % 50] == []
    assert others["time"] == others["mget"] == 50


async def test_settling_topping_up_and_refusing_are_one_command_each(
    counters: RedisCounters, admin: redis.Redis
) -> None:
    small = (Limit.rate(Unit.REQUESTS, 1, DAY_US, scope="key", subject="k2", name="requests per day"),)

    async def round_of(lease: str) -> None:
        await grant(counters, lease)
        assert isinstance(await counters.reserve(f"{lease}-2", small, Amounts(requests=2), HOUR_US), Refusal)
        assert isinstance(await counters.top_up(lease, 1, COST, HOUR_US), Grant)
        assert await counters.settle(lease, COST) is not None
        await counters.levels(LIMITS)
        await counters.renew([lease], HOUR_US)
        assert await counters.expire() == ()

    await round_of("a")
    before = calls(admin)
    await round_of("b")
    after = calls(admin)
    assert after["evalsha"] - before["evalsha"] == 7
    assert after["eval"] == before["eval"]


async def test_a_server_that_forgot_the_scripts_is_told_again(counters: RedisCounters, admin: redis.Redis) -> None:
    await grant(counters, "a")
    admin.script_flush()
    await grant(counters, "b")
    admin.script_flush()
    assert await counters.settle("a", COST) is not None


async def test_every_key_has_the_one_hash_tag_and_none_is_left_for_ever(
    counters: RedisCounters, admin: redis.Redis
) -> None:
    daily = Limit.budget(Unit.MICROS, 10, "day", scope="key", subject="k{1}", name="per day")
    limits = (*LIMITS, daily)
    for number in range(3):
        assert isinstance(await counters.reserve(f"l{number}", limits, COST._replace(micros=1), HOUR_US), Grant)
    keys = {key.decode() for key in admin.scan_iter()}
    assert len(keys) == 9
    assert all(key.startswith("{convene}:") for key in keys)
    for number in range(3):
        await counters.settle(f"l{number}", COST._replace(micros=1))
    left: dict[str, Any] = {key.decode(): admin.pttl(key) for key in admin.scan_iter()}
    assert {key.split(":")[1] for key in left} == {"rate", "used"}
    assert min(left.values()) > 0, left


async def test_a_total_is_never_forgotten(counters: RedisCounters, admin: redis.Redis) -> None:
    total = Limit.budget(Unit.MICROS, 100, "total", scope="key", subject="k1", name="in total")
    await counters.reserve("a", (total,), COST, HOUR_US)
    assert admin.pttl("{convene}:used:key:k1:in total") == -1


async def test_two_tags_do_not_see_each_other(server: PrivateRedis, counters: RedisCounters) -> None:
    await grant(counters, "a")
    async with contextlib.aclosing(RedisCounters(server.url, SystemClock(), tag="b", wait_s=PATIENT_S)) as other:
        levels = await other.levels(LIMITS)
        assert levels.states[4:] == (0, 0)
        assert await other.settle("a", COST) is None


@pytest.mark.parametrize("tag", ["", "a}b", "{a"])
def test_a_tag_that_redis_would_cut_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="hash tag"):
        RedisCounters("redis://h", SystemClock(), tag=tag)


# Cancelled callers.


async def test_callers_that_are_cancelled_never_break_the_order(counters: RedisCounters, admin: redis.Redis) -> None:
    """Cancel churn: 20 callers, each call cancelled at some turn of the loop; what remains gets its own answers."""
    await grant(counters, "warm")
    made = int(info(admin, "total_connections_received"))
    chance = random.Random(3)  # noqa: S311 - it must be foreseeable
    kept: set[str] = set()

    async def caller(name: int) -> None:
        for number in range(60):
            lease = f"{name}-{number}"
            task = asyncio.create_task(counters.reserve(lease, LIMITS, COST, HOUR_US))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            if chance.random() < 0.7:
                task.cancel()
            (answer,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(answer, Grant):
                kept.add(lease)

    await asyncio.gather(*(caller(name) for name in range(20)))
    assert 0 < len(kept) < 1200
    assert int(info(admin, "total_connections_received")) == made
    for name in range(20):
        lease = f"plain-{name}"
        assert (await grant(counters, lease)).states[4:] == (len(kept) + 2, 12 * (len(kept) + 2)), (
            "an answer of its own"
        )
        kept.add(lease)
    assert held(admin) == kept | {"warm"}, "what was cancelled was given back"
    assert admin.zcard("{convene}:slots:key:k1:concurrent requests") == len(kept) + 1


def held(admin: redis.Redis) -> set[str]:
    """Return the leases that the server knows."""
    found: Any = admin.hkeys("{convene}:held")
    return {lease.decode() for lease in found}


def info(admin: redis.Redis, name: str) -> str:
    """Return one figure of the server."""
    found: Any = admin.info()
    return str(found[name])


async def test_a_reservation_that_is_cancelled_is_given_back_even_by_a_server_without_scripts(
    counters: RedisCounters, admin: redis.Redis
) -> None:
    await grant(counters, "warm")
    task = asyncio.create_task(counters.reserve("a", LIMITS, COST, HOUR_US))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await counters.levels(LIMITS)).states[4:] == (1, 12)
    assert held(admin) == {"warm"}


async def test_a_cancelled_settlement_has_been_made(counters: RedisCounters) -> None:
    await grant(counters, "a")
    task = asyncio.create_task(counters.settle("a", Amounts()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await counters.levels(LIMITS)).states[4:] == (0, 0)


# Lost servers.


async def test_a_server_that_is_not_there_is_a_fault_at_once(server: PrivateRedis) -> None:
    async with contextlib.aclosing(RedisCounters("redis://127.0.0.1:1", SystemClock())) as nobody:
        for _ in range(3):
            with pytest.raises(StoreFault) as caught:
                await nobody.levels(LIMITS)
            assert "redis: " in caught.value.detail
            assert "redis" not in caught.value.message.lower()
    assert server.url


async def test_a_server_that_stands_still_is_a_fault_after_the_wait_and_then_used_again(server: PrivateRedis) -> None:
    async with contextlib.aclosing(RedisCounters(server.url, SystemClock(), wait_s=WAIT_S)) as counters:
        await until_answered(counters)
        server.pause()
        try:
            async with asyncio.timeout(PATIENT_S):
                asked = [counters.levels(LIMITS) for _ in range(20)]
                for answer in await asyncio.gather(*asked, return_exceptions=True):
                    assert isinstance(answer, StoreFault)
                with pytest.raises(StoreFault):  # a new connection, made by the kernel alone
                    await counters.levels(LIMITS)
        finally:
            server.resume()
        await until_answered(counters)


async def until_answered(counters: RedisCounters) -> None:
    """Ask until the server answers in time; a busy machine may need a few tries."""
    async with asyncio.timeout(PATIENT_S):
        while True:
            with contextlib.suppress(StoreFault):
                await counters.levels(LIMITS)
                return


async def test_a_server_that_was_killed_is_found_again_and_its_counters_are_to_be_rebuilt() -> None:
    with own_redis() as server:
        async with contextlib.aclosing(RedisCounters(server.url, SystemClock(), wait_s=PATIENT_S)) as counters:
            assert await counters.fresh()
            assert not await counters.fresh()
            await grant(counters, "a")
            server.kill()
            with pytest.raises(StoreFault):
                await grant(counters, "b")
            with pytest.raises(StoreFault):
                await counters.fresh()
            server.start()
            assert await counters.fresh()
            assert (await grant(counters, "a")).states[4:] == (1, 12)


async def test_a_server_that_refuses_is_a_fault_and_goes_on(counters: RedisCounters, admin: redis.Redis) -> None:
    await grant(counters, "a")
    admin.config_set("maxmemory", 1)
    with pytest.raises(StoreFault, match="again in a moment") as caught:
        await grant(counters, "b")
    assert "OOM" in caught.value.detail
    admin.config_set("maxmemory", 0)
    assert (await grant(counters, "b")).states[4] == 2


async def test_a_replica_is_left_for_whoever_has_its_name_now(counters: RedisCounters, admin: redis.Redis) -> None:
    await grant(counters, "a")
    made = int(info(admin, "total_connections_received"))
    admin.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(StoreFault) as caught:
            await grant(counters, "b")
        assert "READONLY" in caught.value.detail
        with pytest.raises(StoreFault):
            await counters.fresh()
    finally:
        admin.replicaof("NO", "ONE")
    await grant(counters, "b")
    assert int(info(admin, "total_connections_received")) > made


async def test_a_password_a_database_and_a_socket_are_used(server: PrivateRedis, admin: redis.Redis) -> None:
    admin.config_set("requirepass", "geheim")
    port = server.port
    try:
        for url in (f"redis://:geheim@127.0.0.1:{port}/3", f"unix://default:geheim@{server.socket}?db=3"):
            async with contextlib.aclosing(RedisCounters(url, SystemClock(), wait_s=PATIENT_S)) as counters:
                await grant(counters, "a")
        for url in (server.url, f"redis://:falsch@127.0.0.1:{port}", f"redis://:geheim@127.0.0.1:{port}/999"):
            async with contextlib.aclosing(RedisCounters(url, SystemClock(), wait_s=PATIENT_S)) as counters:
                with pytest.raises(StoreFault) as caught:
                    await grant(counters, "a")
                assert "geheim" not in caught.value.detail
                assert "falsch" not in caught.value.detail
    finally:
        with contextlib.closing(redis.Redis(port=port, password="geheim", db=3)) as client:
            assert client.hlen("{convene}:held") == 1
            client.config_set("requirepass", "")


async def tunnel(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry what comes over TLS to a plain port and back."""
    there, back = await asyncio.open_connection("127.0.0.1", port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
        sink.transport.abort()

    await asyncio.gather(pump(reader, back), pump(there, writer))


async def test_tls_is_used_and_the_certificate_examined(
    server: PrivateRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    context = authority.context("DNS:localhost")
    front = await asyncio.start_server(functools.partial(tunnel, server.port), "127.0.0.1", 0, ssl=context)
    async with front:
        url = f"rediss://localhost:{front.sockets[0].getsockname()[1]}"
        async with contextlib.aclosing(RedisCounters(url, SystemClock(), wait_s=PATIENT_S)) as stranger:
            with pytest.raises(StoreFault, match="again in a moment") as caught:
                await stranger.levels(LIMITS)
            assert "certificate" in caught.value.detail.lower()
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        async with contextlib.aclosing(RedisCounters(url, SystemClock(), wait_s=PATIENT_S)) as counters:
            await grant(counters, "a")
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=PATIENT_S)


async def test_closing_waits_for_the_connection_and_for_one_in_the_making(server: PrivateRedis) -> None:
    counters = RedisCounters(server.url, SystemClock(), wait_s=PATIENT_S)
    task = asyncio.create_task(counters.levels(LIMITS))
    await asyncio.sleep(0)
    await counters.aclose()
    await asyncio.wait([task])
    assert task.cancelled() or task.exception() is not None
    await counters.levels(LIMITS)
    await counters.aclose()
    await counters.aclose()


# Time.


async def test_a_reservation_that_comes_much_too_late_is_not_made(server: PrivateRedis, admin: redis.Redis) -> None:
    """What a paused server finds in its sockets when it goes on: callers who were told long ago that it is down."""
    async with contextlib.aclosing(RedisCounters(server.url, FakeClock(), wait_s=PATIENT_S)) as counters:
        await grant(counters, "a")
        assert counters._ahead_us is not None
        counters._ahead_us -= STALE_US + MINUTE_US  # the next one is asked as if a minute and a bit ago
        late = await counters._decide("b", counters._plan(LIMITS), counters._pack(COST), HOUR_US)
        assert late[0] == 2
        assert held(admin) == {"a"}
        assert isinstance(await counters.reserve("b", LIMITS, COST, HOUR_US), Grant)


async def test_a_server_whose_clock_was_set_is_believed_at_the_second_try(
    server: PrivateRedis, admin: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    async with contextlib.aclosing(RedisCounters(server.url, FakeClock(), wait_s=PATIENT_S)) as counters:
        await grant(counters, "a")
        before = calls(admin)
        assert counters._ahead_us is not None
        counters._ahead_us -= HOUR_US  # as far as we know; the server's clock was put forward
        await grant(counters, "b")
        await grant(counters, "c")
        assert calls(admin)["evalsha"] - before.get("evalsha", 0) == 3
    (record,) = caplog.records
    assert record.getMessage().startswith("the clock of Redis was set by 3600.")


# Doubles.


def lua(client: redis.Redis, body: str, *words: int) -> list[int]:
    """Run a piece of Lua with the functions of the scripts."""
    found: Any = client.eval(f"{SERVER_CLOCK}{PRELUDE}{body}", 2, "a", "b", *words)
    return list(found)


WHOLE: Final = st.one_of(st.integers(0, AMOUNT_MOST), st.integers(0, 10**7), st.sampled_from([1, AMOUNT_MOST]))


@given(units=WHOLE, amount=WHOLE.filter(bool), window_us=st.sampled_from([MINUTE_US, HOUR_US, DAY_US]))
@example(units=AMOUNT_MOST, amount=AMOUNT_MOST - 1, window_us=DAY_US)
@example(units=999_999_936, amount=999_999_937, window_us=DAY_US)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_prices_are_exact_in_doubles(units: int, amount: int, window_us: int) -> None:
    limit = Limit.rate(Unit.TOKENS, amount, window_us, scope="key", subject="k", name="n")
    with contextlib.closing(redis.Redis.from_url(shared_redis())) as client:
        body = "return {price(tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]))}"
        assert tuple(lua(client, body, units, limit.step, limit.per)) == gcra.price(limit, units)
        if units <= amount:  # a refund is at most what was charged, which is at most the whole limit
            assert tuple(lua(client, body, -units, limit.step, limit.per)) == gcra.price(limit, -units)


@given(day=st.integers(0, 100_000), moment=st.integers(0, DAY_US - 1))
@example(day=11_016, moment=0)
@example(day=11_016, moment=DAY_US - 1)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_periods_are_those_of_the_calendar(day: int, moment: int) -> None:
    with contextlib.closing(redis.Redis.from_url(shared_redis())) as client:
        at = day * DAY_US + moment
        found = lua(client, "local at = tonumber(ARGV[1]) return {number(2, at), number(3, at), number(4, at)}", at)
        assert found == [number_of("day", at), number_of("month", at), 0]


async def test_a_fraction_of_a_limit_that_was_changed_is_rounded_up_once(counters: RedisCounters) -> None:
    before, after = (
        Limit.rate(Unit.TOKENS, amount, DAY_US, scope="key", subject="k1", name="tokens per day")
        for amount in (999_983, 7)
    )
    answer = await counters.reserve("a", (before,), Amounts(tokens=999_982), HOUR_US)
    assert isinstance(answer, Grant)
    whole, rest = gcra.price(before, 999_982)
    assert rest >= after.per
    assert answer.states == (answer.now_us + whole,)
    assert (await counters.levels((after,))).states == (answer.now_us + whole + 1,)
    assert (await counters.levels((before,))).states == answer.states


@pytest.mark.parametrize("days", [-1, 1])
async def test_the_later_of_two_periods_stands(counters: RedisCounters, days: int) -> None:
    """A wall clock that was set between the books and the counters."""
    daily = Limit.budget(Unit.MICROS, 100, "day", scope="key", subject="k1", name="per day")
    await counters.reserve("a", (daily,), Amounts(micros=5), HOUR_US)
    await counters.replay([Past((daily,), Amounts(micros=40), -days * DAY_US)])
    assert (await counters.levels((daily,))).states == ((40,) if days > 0 else (5,))


async def test_what_a_double_cannot_count_is_refused(counters: RedisCounters) -> None:
    huge = Limit.rate(Unit.TOKENS, AMOUNT_MOST + 1, MINUTE_US, scope="key", subject="k1", name="n")
    with pytest.raises(ValueError, match="counts exactly"):
        await counters.reserve("a", (huge,), COST, HOUR_US)
    for amounts in (Amounts(tokens=AMOUNT_MOST + 1), Amounts(slots=2)):
        with pytest.raises(ValueError, match="at most"):
            await counters.reserve("a", LIMITS, amounts, HOUR_US)
        with pytest.raises(ValueError, match="at most"):
            await counters.settle("a", amounts)
    with pytest.raises(NotFound):
        await counters.top_up("a", 1, COST, HOUR_US)


async def test_the_largest_debts_do_not_overflow(counters: RedisCounters) -> None:
    limits = (
        Limit.rate(Unit.TOKENS, 1, DAY_US, scope="key", subject="k1", name="tokens per day"),
        Limit.budget(Unit.MICROS, 1, "total", scope="key", subject="k1", name="in total"),
    )
    most = Amounts(tokens=AMOUNT_MOST, micros=AMOUNT_MOST)
    for number in range(6):
        assert isinstance(await counters.reserve(f"l{number}", limits, Amounts(), HOUR_US), Grant)
        assert await counters.settle(f"l{number}", most) is not None
        levels = await counters.levels(limits)
    assert max(levels.states) <= 1 << 53
    assert min(levels.states) > 1 << 52
    answer = await counters.reserve("x", limits, Amounts(tokens=1, micros=1), HOUR_US)
    assert isinstance(answer, Refusal)
    assert (answer.reason, answer.wait_us) == ("spent", None)


async def test_a_round_that_is_refused_names_the_limit_in_another_process_too(
    counters: RedisCounters, redis_space: RedisSpace
) -> None:
    assert redis_space.tag
    small = Limit.budget(Unit.MICROS, 20, "total", scope="team", subject="Größe", name="in total")
    assert isinstance(await counters.reserve("a", (*LIMITS, small), COST, HOUR_US), Grant)
    server_url = counters._line._address
    url = f"redis://{server_url.host}:{server_url.port}"
    async with contextlib.aclosing(RedisCounters(url, SystemClock(), wait_s=PATIENT_S)) as other:
        answer = await other.top_up("a", 1, COST, HOUR_US)
    assert isinstance(answer, Refusal)
    assert answer.limit == small
    assert type(answer.limit) is Limit
    assert answer.reason == "spent"

"""Two servers on one Postgres and one Redis are one: keys, limits, books, and what a killed one leaves behind."""

from __future__ import annotations

import contextlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from convene.serving.bookkeeping import LIFE_US
from process.program import SCRIPTED, WAIT_S, Program, program
from servers import run_sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from servers import RedisSpace

LIMITED = """
[plans.owner]
requests_per_minute = 40
concurrent_requests = 30
budget_total = 1.0
[prices.scripted-echo]
request = 0.000001
[limits]
lease_s = 2.0
"""
SILENCE = f"UPDATE writers SET seen_at_us = seen_at_us - {LIFE_US} WHERE id IN (SELECT writer FROM intents)"  # noqa: S608 - a number
"""What makes the writers of all that is under way look dead."""


def config(postgres: str, redis: str = "", tag: str = "") -> str:
    """Return a configuration that keeps everything elsewhere."""
    counters = f'redis_url = "{redis}"\n' if redis else ""
    named = f'tag = "{tag}"\n' if tag else ""
    return f'database_url = "{postgres}"\n{counters}{SCRIPTED}{LIMITED}{named}'


@contextlib.contextmanager
def two(folder: Path, text: str) -> Iterator[tuple[Program, Program]]:
    """Run two servers, each in a folder of its own; the second has no key to print and takes the first one's."""
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    with program(folder / "a", text) as first:
        first.wait_ready()
        with program(folder / "b", text, key=first.key) as second:
            second.wait_ready()
            yield first, second


def ask(server: Program, **fields: object) -> tuple[int, dict[str, Any]]:
    """Return the status and the body of one chat."""
    with server.chat(model="scripted-echo", **fields) as answer:
        return answer.status, json.loads(answer.read())


def read(server: Program, path: str) -> dict[str, Any]:
    """Return what the first key reads at `path`."""
    status, body = server.get(path, key=server.key)
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def slots_used(server: Program) -> list[int]:
    """Return how many requests are said to be under way."""
    return [one["used"] for one in read(server, "/v1/limits")["data"] if one["name"] == "concurrent requests"]


def hammer(servers: tuple[Program, Program], count: int) -> list[int]:
    """Send so many requests to both in turn, eight at once, and return their statuses."""
    with ThreadPoolExecutor(8) as pool:
        return [status for status, _ in pool.map(lambda n: ask(servers[n % 2]), range(count))]


@pytest.mark.req("OPS-31", "LIMIT-01", "USAGE-01")
@pytest.mark.parametrize("counters", ["redis", "postgres"])
def test_a_limit_holds_over_both_and_both_tell_the_same_usage(
    tmp_path: Path, postgres_url: str, redis_space: RedisSpace, counters: str
) -> None:
    text = config(postgres_url, redis_space.url, redis_space.tag) if counters == "redis" else config(postgres_url)
    with two(tmp_path, text) as servers:
        statuses = hammer(servers, 120)
        admitted = statuses.count(200)
        assert set(statuses) == {200, 429}
        # 40 at once, and one more for each 1.5 s that the hammering took.
        assert 40 <= admitted <= 40 + 40 * WAIT_S / 60
        told = [read(server, "/v1/usage") for server in servers]
        assert [(one["requests"], one["total_tokens"]) for one in told] == [(admitted, told[0]["total_tokens"])] * 2
        assert told[0]["cost"]["micros"] == admitted
        left = [
            next(limit for limit in read(server, "/v1/limits")["data"] if limit["name"] == "budget in total")
            for server in servers
        ]
        assert [one["used"] for one in left] == [admitted, admitted]


def test_what_a_killed_server_had_begun_is_entered_by_the_other_and_its_slots_come_back(
    tmp_path: Path, postgres_url: str
) -> None:
    with contextlib.ExitStack() as stack:
        (tmp_path / "survivor").mkdir()
        (tmp_path / "victim").mkdir()
        survivor = stack.enter_context(program(tmp_path / "survivor", config(postgres_url)))
        survivor.wait_ready()
        with (
            contextlib.suppress(AssertionError),  # it does not end in order, that is the point
            program(tmp_path / "victim", config(postgres_url), key=survivor.key) as victim,
        ):
            victim.wait_ready()
            with victim.chat(model="scripted-slow", stream=True) as answer:
                assert answer.status == 200
                assert answer.read(1)
                victim.process.kill()
                victim.process.wait()
        run_sql(postgres_url, SILENCE)
        until = time.monotonic() + WAIT_S
        while read(survivor, "/v1/usage")["requests"] == 0:
            assert time.monotonic() < until, survivor.log.read_text()
            time.sleep(0.1)
        (entry,) = read(survivor, "/v1/usage/requests")["data"]
        assert (entry["status"], entry["model"]) == ("unknown", "scripted-slow")
        while slots_used(survivor) != [0]:
            assert time.monotonic() < until, "its lease does not end"
            time.sleep(0.1)

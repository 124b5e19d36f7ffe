"""Streams on the wire: when the head leaves, when a comment goes out, and what never happens."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from convene.api.call import ClientLeftError
from convene.api.sse import PING
from convene.api.stream import TICK_S_MIN, Streams
from simulation import SimulatedLoop
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from collections.abc import Coroutine, MutableMapping

T = TypeVar("T")


def play(scene: Coroutine[Any, Any, T]) -> T:
    """Run a scene in virtual time, to the end of everything it scheduled."""
    loop = SimulatedLoop()
    try:
        result = loop.run_until_complete(scene)
        loop.run_until_complete(asyncio.sleep(10))
        assert not asyncio.all_tasks(loop)
        assert not loop.faults
        return result
    finally:
        loop.close()


@pytest.mark.req("SSE-02")
def test_the_head_leaves_with_the_first_frames_and_each_write_is_one_message() -> None:
    async def scene() -> Connection:
        connection = Connection()
        stream = Streams(12, 10).open(connection.call())
        assert connection.sent == []
        await stream.write([b"data: 1\n\n", b"data: 2\n\n"])
        await stream.write([b"data: 3\n\n"])
        await stream.finish([b"data: [DONE]\n\n"])
        stream.leave()
        return connection

    connection = play(scene())
    assert connection.status == 200
    assert connection.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
    assert connection.headers[b"x-request-id"] == b"req_1"
    bodies = [(message["body"], message["more_body"]) for message in connection.sent[1:]]
    assert bodies == [(b"data: 1\n\ndata: 2\n\n", True), (b"data: 3\n\n", True), (b"data: [DONE]\n\n", False)]


@pytest.mark.parametrize(
    ("first_event_s", "silence_s", "comments"), [(10, 9, 0), (10, 12, 1), (10, 40, 3), (1, 1.5, 1)]
)
def test_before_the_first_event_only_the_first_wait_counts(
    first_event_s: float, silence_s: float, comments: int
) -> None:
    async def scene() -> tuple[bytes, bool]:
        connection = Connection()
        stream = Streams(12, first_event_s).open(connection.call())
        await asyncio.sleep(silence_s)
        body, started = connection.body, stream.started
        stream.leave()
        return body, started

    assert play(scene()) == (PING * comments, comments > 0)


@pytest.mark.req("SSE-03")
@pytest.mark.parametrize("ping_s", [0.1, 2, 12])
def test_comments_come_in_silence_and_never_later_than_a_second_after_their_time(ping_s: float) -> None:
    async def scene() -> list[float]:
        loop = asyncio.get_running_loop()
        times: list[float] = []
        connection = Connection()
        send = connection.send

        async def timed(message: MutableMapping[str, Any]) -> None:
            await send(message)
            times.append(loop.time())

        connection.send = timed  # type: ignore[method-assign]
        stream = Streams(ping_s, 10).open(connection.call())
        await stream.write([b"data: 1\n\n"])
        await asyncio.sleep(ping_s * 10)
        stream.leave()
        return times[1:]

    times = play(scene())
    assert len(times) >= 8
    gaps = [after - before for before, after in pairwise(times)]
    assert all(ping_s <= gap <= ping_s + 1.001 for gap in gaps)


def test_a_stream_that_speaks_gets_no_comment() -> None:
    async def scene() -> bytes:
        connection = Connection()
        stream = Streams(2, 2).open(connection.call())
        for _ in range(20):
            await asyncio.sleep(1)
            await stream.write([b"x"])
        await stream.finish([b"."])
        await asyncio.sleep(30)
        stream.leave()
        return connection.body

    assert play(scene()) == b"x" * 20 + b"."


def test_no_comment_goes_into_a_write_that_the_client_holds_up() -> None:
    async def scene() -> bytes:
        connection = Connection()
        stream = Streams(2, 2).open(connection.call())
        await stream.write([b"1"])
        connection.stuck = asyncio.Event()
        writing = asyncio.create_task(stream.write([b"2"]))
        await asyncio.sleep(30)
        connection.stuck.set()
        await writing
        body = connection.body
        stream.leave()
        return body

    assert play(scene()) == b"12"


def test_a_client_that_has_left_is_no_news_to_the_ticker_but_to_the_writer() -> None:
    async def scene() -> None:
        connection = Connection()
        call = connection.call()
        stream = Streams(2, 2).open(call)
        await stream.write([b"1"])
        connection.gone = True
        await asyncio.sleep(10)
        with pytest.raises(ClientLeftError):
            await stream.write([b"2"])
        assert call.status == 499
        stream.leave()

    play(scene())


def test_the_ticker_sleeps_when_the_last_stream_has_left_and_wakes_for_the_next() -> None:
    async def scene() -> None:
        streams = Streams(2, 2)
        for _ in range(2):
            stream = streams.open(Connection().call())
            assert streams._timer is not None
            stream.leave()
            stream.leave()
            await asyncio.sleep(5)
            assert streams._timer is None
            assert not streams.live

    play(scene())


@pytest.mark.parametrize("waits", [(12, 0), (0.1, 10), (0.0, 0.0)])
def test_however_small_the_waits_the_ticker_never_spins(waits: tuple[float, float]) -> None:
    assert Streams(*waits)._tick_s >= TICK_S_MIN > 0

"""Every way a slow or idle client is cut off, in a time that only the test moves; and what a drain does to each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from unit.http.server_doubles import (
    FakeTransport,
    Line,
    echo,
    only,
    piece,
    read_answers,
    request,
    scripted,
    small,
    start,
    turn,
)

if TYPE_CHECKING:
    from convene.http.server_asgi import Receive, Scope, Send

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def hang(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Send the head and one event, then never anything."""
    await send(start())
    await send(piece(b"x"))
    await asyncio.get_running_loop().create_future()


# --- reading -----------------------------------------------------------------------------------------------------


async def test_a_connection_that_says_nothing_is_closed_after_the_first_byte_time() -> None:
    line = Line(echo)
    await line.pass_time(4.5)
    assert not line.transport.closed
    await line.pass_time(1.0)
    assert line.transport.closed
    assert not line.transport.writes
    await line.end()


async def test_blank_lines_are_not_a_first_byte() -> None:
    line = Line(echo)
    for _ in range(6):
        await line.feed(b"\r\n")
        await line.pass_time(1)
    assert line.transport.closed
    await line.end()


async def test_a_head_that_drips_is_refused_with_408_counted_from_connect() -> None:
    line = Line(echo)
    await line.pass_time(4)
    for byte in b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaa":
        if line.transport.eof:
            break
        line.connection.data_received(bytes([byte]))
        await line.pass_time(1)
    assert line.loop.now == pytest.approx(1000.0 + 11, abs=1)
    answer = only(line.transport.sent)
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    await line.end()


async def test_a_later_head_has_its_time_from_its_own_first_byte() -> None:
    line = Line(echo)
    await line.feed(request("GET"))
    await line.pass_time(25)
    await line.feed(b"GET / HTT")
    await line.pass_time(9)
    assert not line.transport.eof
    await line.pass_time(2)
    assert [answer.status for answer in read_answers(line.transport.sent)] == [200, 408]
    await line.end()


async def test_an_idle_connection_is_closed_in_silence_and_blank_lines_do_not_keep_it() -> None:
    line = Line(echo)
    sent = await line.feed(request("GET"))
    await line.pass_time(29)
    await line.feed(b"\r\n")
    assert not line.transport.closed
    await line.pass_time(2)
    assert line.transport.closed
    assert line.transport.sent == sent
    await line.end()


@pytest.mark.parametrize("head", [request(body=b"x" * 1000)[:-1000], CHUNKED])
async def test_a_body_that_drips_is_refused_within_15_s_and_its_task_cancelled(head: bytes) -> None:
    line = Line(echo)
    await line.feed(head)
    for _ in range(5):
        await line.feed(b"x" if b"chunked" not in head else b"1\r\nx\r\n")
        await line.pass_time(3)
    answer = only(line.transport.sent)
    assert answer.status == 408
    assert "1024 bytes per second" in answer.error["message"]
    assert not line.edge.running
    await line.end()


async def test_a_body_just_fast_enough_is_taken_and_bounded_in_total() -> None:
    line = Line(echo, small(body_total_s=60.0))
    raw = request(body=b"x" * 100_000)
    await line.feed(raw[:-100_000])
    for _ in range(58):
        await line.feed(b"x" * 1100)
        await line.pass_time(1)
        assert not line.transport.writes
    await line.pass_time(3)
    answer = only(line.transport.sent)
    assert (answer.status, answer.error["message"]) == (408, "The request body took longer than 60 s.")
    await line.end()


async def test_a_slow_body_of_a_streaming_answer_breaks_the_connection() -> None:
    line = Line(hang)
    await line.feed(request(body=b"xyz")[:-1])
    await line.pass_time(12)
    assert line.transport.aborted
    await line.end()


async def test_time_in_which_we_do_not_read_does_not_count() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    line = Line(app, small(body_held_bytes=10, body_total_s=40.0))
    raw = request(body=b"x" * 100)
    await line.feed(raw[:-50])
    await line.pass_time(100)
    gate.set()
    await turn()
    assert only(await line.feed(raw[-50:])).status == 200
    await line.end()


async def test_a_body_that_waits_for_continue_has_its_time_from_there() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    line = Line(app)
    await line.feed(request(headers="Expect: 100-continue", body=b"abc")[:-3])
    await line.pass_time(60)
    gate.set()
    await turn()
    await line.pass_time(9)
    assert line.transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    await line.pass_time(2)
    assert [answer.status for answer in read_answers(line.transport.sent)] == [100, 408]
    await line.end()


async def test_a_body_begun_behind_another_request_has_its_time_too() -> None:
    line = Line(echo)
    await line.feed(request("GET") + request(body=b"abc")[:-1])
    await line.pass_time(12)
    assert [answer.status for answer in read_answers(line.transport.sent)] == [200, 408]
    await line.end()


# --- writing -----------------------------------------------------------------------------------------------------


async def test_a_reader_that_takes_nothing_is_dropped_within_the_stall_time() -> None:
    line = Line(hang)
    await line.feed(request("GET"))
    await line.pass_time(100)
    line.transport.waiting = 12
    await line.pass_time(28)
    assert not line.transport.aborted
    await line.pass_time(2)
    assert line.transport.aborted
    await line.end()


async def test_a_reader_that_takes_a_few_bytes_is_dropped_too_and_one_at_the_least_rate_is_not() -> None:
    for taken_per_s, dropped in ((1, True), (300, False)):
        line = Line(hang)
        await line.feed(request("GET"))
        line.connection._written += 100_000
        line.transport.waiting = 100_000
        for _ in range(60):
            line.transport.waiting -= taken_per_s
            await line.pass_time(1)
        assert line.transport.aborted is dropped
        await line.end()


async def test_a_reader_that_catches_up_starts_anew() -> None:
    line = Line(hang)
    await line.feed(request("GET"))
    for _ in range(4):
        line.transport.waiting = 100
        await line.pass_time(20)
        line.transport.waiting = 0
        await line.pass_time(1)
    assert not line.transport.aborted
    await line.end()


@pytest.mark.parametrize("close", [True, False])
async def test_the_rest_of_a_complete_answer_is_not_waited_for_forever(*, close: bool) -> None:
    line = Line(echo)
    await line.feed(request("GET", headers="Connection: close" if close else ""))
    line.transport.waiting = 5000
    await line.pass_time(28)
    assert not line.transport.aborted
    await line.pass_time(3)
    assert line.transport.aborted
    await line.end()


async def test_after_a_refusal_input_is_thrown_away_for_the_linger_time_once_the_answer_is_out() -> None:
    line = Line(echo)
    await line.feed(b"nonsense\r\n\r\n")
    line.transport.waiting = 10
    await line.pass_time(10)
    line.transport.waiting = 0
    await line.pass_time(2)
    assert not line.transport.aborted
    await line.pass_time(1)
    assert line.transport.aborted
    await line.end()


# --- drain -------------------------------------------------------------------------------------------------------


async def test_a_drain_closes_idle_connections_and_tells_new_requests_503() -> None:
    idle, fresh, begun = (Line(echo) for _ in range(3))
    await idle.feed(request("GET"))
    await begun.feed(request("GET")[:10])
    for line in (idle, fresh, begun):
        line.edge.draining = True
        line.connection.close_if_idle()
    assert (idle.transport.closed, fresh.transport.closed, begun.transport.closed) == (True, False, False)
    for sent in (await fresh.feed(request("GET")), await begun.feed(request("GET")[10:])):
        answer = only(sent)
        assert (answer.status, answer.error["code"]) == (503, "server_shutting_down")
        assert answer.headers["retry-after"] == "1"
    for line in (idle, fresh, begun):
        await line.end()


async def test_a_stream_that_runs_when_a_drain_begins_ends_whole_and_then_closes() -> None:
    gate = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"a"))
        await gate.wait()
        await send(piece(b"b", more=False))

    line = Line(app)
    await line.feed(request("GET"))
    line.edge.draining = True
    line.connection.close_if_idle()
    assert not line.transport.closed
    gate.set()
    await turn()
    assert only(line.transport.sent).body == b"ab"
    assert line.transport.closed
    await line.end()


async def test_an_answer_begun_after_a_drain_says_that_the_connection_closes() -> None:
    line = Line(echo)
    line.connection.data_received(request("GET"))
    line.edge.draining = True
    await turn()
    assert only(line.transport.sent).headers["connection"] == "close"
    await line.end()


async def test_a_stream_cancelled_by_a_drain_may_still_say_why() -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"a"))
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await send(piece(b"error", more=False))
            raise

    line = Line(app)
    await line.feed(request("GET"))
    line.edge.draining = True
    for running in list(line.edge.running):
        running.cancel()
    await turn()
    assert only(line.transport.sent).body == b"aerror"
    assert line.transport.closed
    await line.end()


async def test_a_request_cancelled_by_a_drain_before_its_head_gets_503() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.get_running_loop().create_future()

    line = Line(app)
    await line.feed(request("GET"))
    line.edge.draining = True
    for running in list(line.edge.running):
        running.cancel()
    assert only(await line.feed()).status == 503
    await line.end()


async def test_the_end_of_a_stop_closes_what_is_quiet_and_drops_what_is_not() -> None:
    quiet, busy = Line(echo), Line(hang)
    await busy.feed(request("GET"))
    for line in (quiet, busy):
        line.connection.close_when_sent()
    assert (quiet.transport.closed, busy.transport.aborted) == (True, True)
    await quiet.end()
    await busy.end()


async def test_nothing_is_done_to_a_transport_that_is_closing() -> None:
    line = Line(scripted(start(), piece(b"x", more=False), read=False), small(pipelined_bytes=1))
    line.connection.data_received(request("GET"))
    line.transport.closed = True
    line.connection.data_received(b"GET / HTTP/1.1\r\n")
    assert not line.transport.paused
    await line.end()


def test_the_fake_transport_refuses_a_double_pause_as_uvloop_does() -> None:
    transport = FakeTransport()
    transport.pause_reading()
    with pytest.raises(AssertionError):
        transport.pause_reading()

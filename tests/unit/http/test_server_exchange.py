"""What an application may send, and what the client gets when it does not keep to it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from unit.http.server_doubles import (
    Line,
    echo,
    only,
    piece,
    read_answers,
    read_body,
    request,
    respond,
    scripted,
    small,
    start,
    turn,
)

if TYPE_CHECKING:
    from convene.http.server_asgi import Message, Receive, Scope, Send

STREAM = (start(content_type="text/event-stream"), piece(b"data: 1\n\n"), piece(b"data: 2\n\n"), piece(b"", more=False))
DATE = b"date: Tue, 14 Nov 2023 22:13:20 GMT\r\n"


async def writes_for(raw: bytes, *messages: Message) -> list[bytes]:
    """Return the writes of an application that sends `messages` for the request `raw`."""
    line = Line(scripted(*messages))
    await line.feed(raw)
    await line.end()
    return line.transport.writes


# --- framing -----------------------------------------------------------------------------------------------------


@pytest.mark.req("SSE-02")
async def test_a_stream_is_chunked_with_one_write_per_event() -> None:
    assert await writes_for(request("GET"), *STREAM) == [
        b"HTTP/1.1 200 OK\r\n" + DATE + b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        b"9\r\ndata: 1\n\n\r\n",
        b"9\r\ndata: 2\n\n\r\n",
        b"0\r\n\r\n",
    ]


async def test_an_empty_first_piece_sends_the_head_alone() -> None:
    writes = await writes_for(request("GET"), start(), piece(b""), piece(b"x"), piece(b"y", more=False))
    assert writes[0].endswith(b"chunked\r\n\r\n")
    assert writes[1:] == [b"1\r\nx\r\n", b"1\r\ny\r\n0\r\n\r\n"]


async def test_a_stream_to_an_http_1_0_client_ends_with_the_connection() -> None:
    line = Line(scripted(*STREAM))
    sent = await line.feed(request("GET", version="1.0", headers="Connection: keep-alive"))
    answer = only(sent)
    assert (answer.body, answer.headers["connection"]) == (b"data: 1\n\ndata: 2\n\n", "close")
    assert "transfer-encoding" not in answer.headers
    assert line.transport.closed
    await line.end()


async def test_a_stream_with_its_own_length_is_sent_plain() -> None:
    writes = await writes_for(request("GET"), start(content_length="4"), piece(b"ab"), piece(b"cd", more=False))
    assert (writes[0].split(b"\r\n\r\n")[1], writes[1:]) == (b"ab", [b"cd"])
    assert b"chunked" not in writes[0]


@pytest.mark.parametrize("messages", [(start(), piece(b"body", more=False)), STREAM])
async def test_an_answer_to_head_has_the_head_only_and_the_connection_goes_on(messages: tuple[Message, ...]) -> None:
    line = Line(scripted(*messages))
    await line.feed(request("HEAD"))
    first = line.transport.sent
    assert first.endswith(b"\r\n\r\n")
    assert first.count(b"\r\n\r\n") == 1
    await line.feed(request("HEAD"))
    assert line.transport.sent == first * 2
    await line.end()


async def test_an_answer_to_head_tells_the_length_the_body_would_have() -> None:
    (write,) = await writes_for(request("HEAD"), start(), piece(b"body", more=False))
    assert b"content-length: 4\r\n" in write


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_without_body_has_neither_body_nor_framing(status: int) -> None:
    (write,) = await writes_for(request("GET"), start(status, content_length="4"), piece(b"body", more=False))
    assert write.endswith(b"GMT\r\n\r\n")


async def test_a_large_body_is_not_copied_together_with_its_head() -> None:
    body = b"x" * 300_000
    writes = await writes_for(request("GET"), start(), piece(body, more=False))
    assert len(writes) == 2
    assert only(b"".join(writes)).body == body


async def test_an_own_date_replaces_the_servers() -> None:
    (write,) = await writes_for(request("GET"), start(date="x"), piece(b"", more=False))
    assert write.count(b"date: ") == 1


async def test_an_application_may_close_the_connection() -> None:
    line = Line(scripted(start(connection="close"), piece(b"", more=False)))
    answer = only(await line.feed(request("GET") + request("GET")))
    assert answer.headers["connection"] == "close"
    assert line.transport.closed
    await line.end()


# --- the application's faults --------------------------------------------------------------------------------------


@pytest.mark.req("ERRSHAPE-02", "ERRSHAPE-04", "OSDK-07")
async def test_an_exception_before_the_head_is_a_500_in_the_house_shape_and_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        raise LookupError("a secret")

    line = Line(app)
    with caplog.at_level(logging.ERROR):
        answer = only(await line.feed(request("GET")))
    assert (answer.status, answer.error["type"], answer.error["code"]) == (500, "server_error", "internal_error")
    assert "secret" not in answer.body.decode()
    assert answer.headers["x-request-id"] == "req_1"
    assert "a secret" in caplog.text
    await line.end()


async def test_an_exception_in_mid_stream_breaks_the_connection_so_that_the_client_sees_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        await send(piece(b"x"))
        raise LookupError

    line = Line(app)
    with caplog.at_level(logging.ERROR):
        sent = await line.feed(request("GET"))
    assert line.transport.aborted
    assert not sent.endswith(b"0\r\n\r\n")
    assert "LookupError" in caplog.text
    await line.end()


@pytest.mark.parametrize(
    ("messages", "status"), [((), 500), ((start(),), 500), ((start(), piece(b"x")), None)], ids=["none", "head", "part"]
)
async def test_an_application_that_returns_too_early_is_made_up_for(
    messages: tuple[Message, ...], status: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    line = Line(scripted(*messages))
    with caplog.at_level(logging.ERROR):
        sent = await line.feed(request("GET"))
    if status is None:
        assert line.transport.aborted
    else:
        assert only(sent).status == status
    assert "without a complete answer" in caplog.text
    await line.end()


@pytest.mark.parametrize(
    "messages",
    [
        (piece(b"x"),),
        (start(), start()),
        ({"type": "http.response.trailers"},),
        (start(199), piece(b"", more=False)),
        (start(x_a="b\r\nset-cookie: c"), piece(b"", more=False)),
        (start(content_length="3"), piece(b"ab", more=False)),
        (start(content_length="1"), piece(b"ab", more=False)),
        (start(content_length="1"), piece(b"ab")),
    ],
)
async def test_messages_that_would_make_a_wrong_answer_become_a_500(
    messages: tuple[Message, ...], caplog: pytest.LogCaptureFixture
) -> None:
    line = Line(scripted(*messages))
    with caplog.at_level(logging.CRITICAL):
        assert only(await line.feed(request("GET"))).status == 500
    await line.end()


@pytest.mark.parametrize("last", [piece(b"cde"), piece(b"", more=False)])
async def test_a_stream_that_breaks_its_own_length_is_broken_off(last: Message) -> None:
    line = Line(scripted(start(content_length="4"), piece(b"ab"), last))
    await line.feed(request("GET"))
    assert line.transport.aborted
    await line.end()


async def test_a_message_after_the_last_is_the_applications_fault_and_does_not_reach_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line(scripted(start(), piece(b"x", more=False), piece(b"y", more=False)))
    with caplog.at_level(logging.ERROR):
        assert only(await line.feed(request("GET"))).body == b"x"
    assert "the application failed" in caplog.text
    await line.end()


async def test_an_application_that_cancels_itself_is_answered_for() -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise asyncio.CancelledError

    line = Line(app)
    assert only(await line.feed(request("GET"))).status == 500
    await line.end()


async def test_a_request_cancelled_before_its_first_step_is_answered_and_uncounted() -> None:
    line = Line(echo)
    line.connection.data_received(request("GET"))
    for running in list(line.edge.running):
        running.cancel()
    assert only(await line.feed()).status == 500
    assert not line.edge.running
    await line.end()


# --- receive -----------------------------------------------------------------------------------------------------


async def test_a_body_comes_in_pieces_as_it_arrives_and_ends_once() -> None:
    seen: list[Message] = []

    async def app(_scope: Scope, receive: Receive, send: Send) -> None:
        while not seen or seen[-1]["more_body"]:
            seen.append(await receive())
        await respond(send, b"")
        seen.append(await receive())

    line = Line(app)
    raw = request(body=b"abcdef")
    await line.feed(raw[:-4])
    await line.feed(raw[-4:-1])
    await line.feed(raw[-1:])
    assert seen == [
        {"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cde", "more_body": True},
        {"type": "http.request", "body": b"f", "more_body": False},
        {"type": "http.disconnect"},
    ]
    await line.end()


async def test_an_empty_body_is_one_empty_message() -> None:
    line = Line(echo)
    assert only(await line.feed(request("GET"))).body == b"GET /v1/x?:"
    await line.end()


async def test_two_receives_at_once_both_learn_that_the_client_left_and_a_cancelled_one_leaves_nothing() -> None:
    seen: list[object] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        await read_body(receive)
        early = asyncio.ensure_future(receive())
        await turn()
        early.cancel()
        both = await asyncio.gather(receive(), receive())
        seen.extend(message["type"] for message in both)

    line = Line(app, small(cancel_on_disconnect=False))
    line.connection.data_received(request("GET"))
    for _ in range(4):
        await turn()
    line.connection.connection_lost(None)
    await turn()
    assert seen == ["http.disconnect", "http.disconnect"]


async def test_an_application_that_does_not_read_stops_the_socket_and_reading_goes_on_when_it_does() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    line = Line(app, small(body_held_bytes=100))
    raw = request(body=b"x" * 300)
    await line.feed(raw[:-250])
    assert not line.transport.paused
    await line.feed(raw[-250:-100])
    assert line.transport.paused
    gate.set()
    await turn()
    assert not line.transport.paused
    assert only(await line.feed(raw[-100:])).body.endswith(b"x" * 300)
    await line.end()


async def test_an_answer_before_the_body_is_whole_closes_and_reads_on_for_a_moment() -> None:
    line = Line(scripted(start(401), piece(b"no", more=False), read=False))
    sent = await line.feed(request(body=b"x" * 50)[:-10])
    answer = only(sent)
    assert (answer.status, answer.headers["connection"]) == (401, "close")
    assert line.transport.eof
    assert not line.transport.closed
    assert await line.feed(b"x" * 10, request("GET")) == sent
    await line.end()


# --- Expect: 100-continue -------------------------------------------------------------------------------------------

EXPECTING = request(headers="Expect: 100-continue", body=b"abc")


async def test_continue_is_sent_when_the_application_asks_for_the_body_and_not_before() -> None:
    gate = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await gate.wait()
        await echo(scope, receive, send)

    line = Line(app)
    assert await line.feed(EXPECTING[:-3]) == b""
    gate.set()
    await turn()
    assert line.transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    answers = read_answers(await line.feed(b"abc"))
    assert [answer.status for answer in answers] == [100, 200]
    await line.end()


async def test_continue_is_not_sent_when_the_body_is_already_there() -> None:
    line = Line(echo)
    assert only(await line.feed(EXPECTING)).status == 200
    await line.end()


async def test_continue_is_not_sent_when_part_of_the_body_came_without_waiting() -> None:
    line = Line(echo)
    await line.feed(EXPECTING[:-1])
    assert only(await line.feed(EXPECTING[-1:])).status == 200
    await line.end()


async def test_an_application_that_refuses_without_reading_sends_no_continue() -> None:
    line = Line(scripted(start(403), piece(b"", more=False), read=False))
    assert only(await line.feed(EXPECTING[:-3])).status == 403
    await line.end()


async def test_an_http_1_0_client_gets_no_continue() -> None:
    line = Line(echo)
    await line.feed(request(headers="Expect: 100-continue", body=b"abc", version="1.0")[:-3])
    assert not line.transport.writes
    await line.end()


# --- backpressure ------------------------------------------------------------------------------------------------


async def test_send_waits_while_the_client_does_not_take_and_goes_on_when_it_does() -> None:
    sent: list[int] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send(start())
        for n in range(6):
            await send(piece(b"x"))
            sent.append(n)
        await send(piece(b"", more=False))

    line = Line(app, small(write_held_bytes=1234))
    assert line.transport.limits == (1234, None)
    line.connection.data_received(request("GET"))
    line.connection.pause_writing()
    await turn()
    assert sent == []
    line.connection.resume_writing()
    await turn()
    assert sent == list(range(6))
    await line.end()


async def test_a_send_that_waits_ends_when_the_client_leaves() -> None:
    line = Line(scripted(start(), piece(b"x"), piece(b"y")), small(cancel_on_disconnect=False))
    line.connection.data_received(request("GET"))
    line.connection.pause_writing()
    await turn()
    assert line.edge.running
    await line.end()


async def test_a_cancelled_writer_is_no_obstacle() -> None:
    line = Line(scripted(start(), piece(b"x"), piece(b"y", more=False)))
    line.connection.data_received(request("GET"))
    line.connection.pause_writing()
    await turn()
    for running in list(line.edge.running):
        running.cancel()
    await turn()
    line.connection.resume_writing()
    assert line.transport.aborted
    await line.end()

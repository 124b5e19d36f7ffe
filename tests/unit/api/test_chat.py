"""The chat endpoint alone: how a stream ends when its turn breaks in a way nobody foresaw, or is cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.api.chat import ChatCompletions
from convene.api.stream import Streams
from convene.events import Event, Fold, TextDelta, fold
from convene.serving.base import ChatRequest, Outcome, Principal
from unit.api.asgi_doubles import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.api.call import Call

BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "x"}]}'


class Told:
    """A turn that emits what it is told; an error among it is raised, an event of the loop is waited for."""

    id = "chatcmpl-1"
    created = 5
    model = "m"
    run_id = ""
    conversation_id = None

    def __init__(self, *script: Event | Exception | asyncio.Event) -> None:
        self.outcome = Outcome()
        self.closed = False
        self.waiting = asyncio.Event()
        self._script = script

    def start(self, request: ChatRequest, principal: Principal, request_id: str = "") -> Told:
        del request, principal, request_id
        return self

    async def events(self) -> AsyncGenerator[Event]:
        try:
            for step in self._script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.waiting.set()
                    await step.wait()
                else:
                    yield step
        finally:
            self.closed = True

    async def answer(self) -> Fold:
        return fold([event async for event in self.events()])


def request(turn: Told) -> tuple[ChatCompletions, Streams, Connection, Call]:
    """Return the endpoint over this turn, and a request for a stream."""
    streams = Streams(12, 10)
    connection = Connection(BODY)
    call = connection.call()
    call.principal = Principal(key_id="k", owner="o")
    return ChatCompletions(turn, streams), streams, connection, call


async def test_a_fault_of_our_own_before_the_first_frame_is_left_to_the_front() -> None:
    turn = Told(KeyError("hunter2"))
    chat, streams, connection, call = request(turn)
    with pytest.raises(KeyError):
        await chat(call)
    assert (connection.sent, streams.live, turn.closed) == ([], set(), True)


@pytest.mark.req("SSE-15", "SSE-16", "ERR-09")
async def test_a_fault_of_our_own_in_mid_stream_is_a_frame_that_tells_nothing_but_its_id() -> None:
    turn = Told(TextDelta("a"), KeyError("hunter2"))
    chat, streams, connection, call = request(turn)
    await chat(call)
    assert connection.body.endswith(b"\n\ndata: [DONE]\n\n")
    frame = msgspec.json.decode(connection.body.split(b"\n\n")[-3].removeprefix(b"data: "))
    assert frame["error"]["code"] == "internal_error"
    assert "req_1" in frame["error"]["message"]
    assert b"hunter2" not in connection.body
    assert not connection.sent[-1]["more_body"]
    assert (streams.live, turn.closed) == (set(), True)


@pytest.mark.req("SSE-16")
@pytest.mark.parametrize("client_left", [False, True])
async def test_a_stream_that_a_shutdown_cancels_says_so_to_a_client_that_is_still_there(*, client_left: bool) -> None:
    turn = Told(TextDelta("a"), asyncio.Event())
    chat, streams, connection, call = request(turn)
    task = asyncio.create_task(chat(call))
    async with asyncio.timeout(60):
        await turn.waiting.wait()
    connection.gone = client_left
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert (streams.live, turn.closed) == (set(), True)
    assert connection.body.endswith(b"data: [DONE]\n\n") != client_left
    assert (b'"code":"server_busy"' in connection.body) != client_left
    assert call.status == (499 if client_left else 200)


async def test_a_stream_cancelled_before_its_first_frame_sends_nothing() -> None:
    turn = Told(asyncio.Event())
    chat, streams, connection, call = request(turn)
    task = asyncio.create_task(chat(call))
    async with asyncio.timeout(60):
        await turn.waiting.wait()
    task.cancel()
    await asyncio.wait([task])
    assert (connection.sent, streams.live, turn.closed) == ([], set(), True)

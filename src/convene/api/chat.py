"""`POST /v1/chat/completions`: a body to a turn, the turn's events to one JSON body or to a stream of frames."""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agent_hops import HEADER, read_hops
from convene.api.chat_reply import WHOLE, ReplyShape, cost_of, reply_bytes
from convene.api.chat_request import read_chat
from convene.api.sse import ChatFrames
from convene.api.stream_end import Ending

if TYPE_CHECKING:
    from convene.api.call import Call
    from convene.api.chat_request import ChatCall
    from convene.api.stream import Streams
    from convene.serving.base import ChatRequest, Turn, Turns

log = logging.getLogger("convene.chat")
HOPS: Final = HEADER.encode()


class ChatCompletions:
    """The endpoint; holds the use case and the open streams."""

    def __init__(self, turns: Turns, streams: Streams, shape: ReplyShape = WHOLE) -> None:
        """`shape`: what the operator says of whole replies."""
        self._turns = turns
        self._streams = streams
        self._shape = shape

    async def __call__(self, call: Call) -> None:
        """Answer one request."""
        body = call.whole_body()
        if body is None:
            body = await call.body()
        asked = read_chat(body, call.text_header(b"x-session-id") if b"x-session-id" in call.headers else None)
        if asked.oddities:
            for level, words in asked.oddities:
                log.log(level, "request %s: %s", call.request_id, words)
        request = _travelled(asked.request, call) if HOPS in call.headers else asked.request
        turn = self._turns.start(request, call.principal or call.caller, call.request_id)
        call.outcome = turn.outcome
        if turn.run_id:
            call.common.append((b"x-run-id", turn.run_id.encode()))
        if asked.stream:
            await self._stream(call, asked, turn)
            return
        gathered = await turn.answer()
        reply = reply_bytes(gathered, turn, asked, call.request_id, self._shape)
        if not call.reply_whole(reply):
            await call.reply(200, reply)

    async def _stream(self, call: Call, asked: ChatCall, turn: Turn) -> None:
        frames = ChatFrames(
            reply_id=turn.id,
            created=turn.created,
            model=turn.model,
            request_id=call.request_id,
            include_usage=asked.include_usage,
            legacy_functions=asked.legacy_functions,
            service_tier=asked.service_tier,
            seeded=asked.seeded,
        )
        stream = self._streams.open(call)
        async with Ending(stream, call, ChatFrames.failure, log):
            async with aclosing(turn.events()) as events:
                async for event in events:
                    ready = frames.frames(event)
                    if ready:
                        await stream.write(ready)
            await stream.finish(
                frames.end(cost_of(turn.outcome), run_id=turn.run_id, conversation_id=turn.conversation_id)
            )


def _travelled(request: ChatRequest, call: Call) -> ChatRequest:
    """Return a request with the agents that it has been through, as its header says (`agent_hops.py`)."""
    hops = read_hops(call.header(HOPS))
    return msgspec.structs.replace(request, agentic=msgspec.structs.replace(request.agentic, hops=hops))

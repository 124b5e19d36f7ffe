"""A whole answer at once: `whole` gives what `generate` gives, for plain replies and for odd ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import ConveneError
from convene.events import Began, Finished, TextDelta, UsageReported
from convene.messages import FunctionTool, Message
from convene.providers.base import Generation, Sampling
from convene.providers.openai import OpenAISettings
from convene.usage import Usage
from unit.providers.upstream_doubles import DONE, USAGE, FakeClient, chunk, model_at, ok, refused, streamed

if TYPE_CHECKING:
    from convene.events import Event
    from unit.providers.upstream_doubles import FakeResponse

ASKED = Generation(messages=(Message(role="user", content="hi"),))
ONCE = OpenAISettings(upstream="up", model="host-model", retries=0)
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
TALK = {"role": "assistant", "content": "Hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def reply(message: object = None, usage: object = None, **more: object) -> bytes:
    choice = {"index": 0, "message": message or TALK, "finish_reason": "stop"} | more
    body = {"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage or COUNTS}
    return msgspec.json.encode(body)


async def by_generator(body: FakeResponse, generation: Generation) -> list[Event] | str:
    try:
        return [
            event async for event in model_at(FakeClient(answer=lambda _: body), settings=ONCE).generate(generation)
        ]
    except ConveneError as fault:
        return f"{type(fault).__name__} {fault.message}"


async def at_once(body: FakeResponse, generation: Generation) -> list[Event] | str:
    whole_of = model_at(FakeClient(answer=lambda _: body), settings=ONCE).whole
    assert whole_of is not None
    try:
        return list(await whole_of(generation))
    except ConveneError as fault:
        return f"{type(fault).__name__} {fault.message}"


REPLIES = [
    pytest.param(reply(), id="plain"),
    pytest.param(reply(finish_reason="length"), id="cut by length"),
    pytest.param(reply(finish_reason="eos"), id="another word for stop"),
    pytest.param(reply({"content": ""}), id="empty"),
    pytest.param(reply({"content": None}), id="null"),
    pytest.param(reply({"content": "<think>why</think>Hello"}), id="thinking in tags"),
    pytest.param(reply({"content": " Hello"}), id="begins with a space"),
    pytest.param(reply(TALK | {"reasoning_content": "because"}), id="reasoning beside it"),
    pytest.param(reply(TALK | {"reasoning": "because"}), id="reasoning under the other name"),
    pytest.param(reply(TALK | {"refusal": "no"}), id="refusal"),
    pytest.param(reply(TALK | {"tool_calls": []}), id="no calls, as an empty list"),
    pytest.param(reply(TALK | {"tool_calls": [CALL]}, finish_reason="tool_calls"), id="a call"),
    pytest.param(reply({"content": [{"type": "text", "text": "Hello"}]}), id="content as parts"),
    pytest.param(reply(usage={"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3}), id="no count of output"),
    pytest.param(reply(usage={"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2}), id="no count of input"),
    pytest.param(reply(usage=COUNTS | {"prompt_tokens_details": {"cached_tokens": 2}}), id="cached"),
    pytest.param(reply(usage=COUNTS | {"prompt_tokens_details": {"cached_tokens": 9}}), id="cached beyond the prompt"),
    pytest.param(reply(usage=COUNTS | {"completion_tokens_details": {"reasoning_tokens": 1}}), id="reasoning counted"),
    pytest.param(reply(usage=COUNTS | {"prompt_cache_hit_tokens": 1}), id="cached, in another word"),
    pytest.param(reply(index=None), id="no index"),
    pytest.param(reply() + b" ", id="space behind it"),
    pytest.param(b'{"error":{"message":"overloaded"}}', id="an error in the place of a reply"),
    pytest.param(b'{"choices":[]}', id="no choice"),
    pytest.param(b"<html>", id="no JSON"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"[" * 5000, id="a bomb"),
]


@pytest.mark.parametrize("body", REPLIES)
async def test_a_whole_answer_is_what_the_generator_gives(body: bytes) -> None:
    assert await at_once(ok(body), ASKED) == await by_generator(ok(body), ASKED)


@pytest.mark.parametrize(
    "generation",
    [
        pytest.param(Generation(messages=ASKED.messages, tools=(FunctionTool("f"),)), id="with tools"),
        pytest.param(Generation(messages=ASKED.messages, sampling=Sampling(logprobs=True)), id="with logprobs"),
        pytest.param(Generation(messages=ASKED.messages, n=2), id="of two"),
        pytest.param(Generation(messages=(Message(role="tool", content="1"),)), id="after a tool's result"),
    ],
)
@pytest.mark.parametrize("text", ["Hello", '<tool_call>{"name": "f", "arguments": {}}</tool_call>'])
async def test_what_is_asked_for_decides_how_a_reply_is_read(generation: Generation, text: str) -> None:
    body = reply({"content": text})
    found, expected = await at_once(ok(body), generation), await by_generator(ok(body), generation)
    assert [type(event) for event in found] == [type(event) for event in expected]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_a_refusal_is_the_same_fault_either_way(status: int) -> None:
    assert await at_once(refused(status), ASKED) == await by_generator(refused(status), ASKED)


async def test_a_host_that_streams_unasked_is_read_to_its_end() -> None:
    def answer() -> FakeResponse:
        return streamed(chunk({"role": "assistant", "content": "Hel"}), chunk("lo", finish="stop"), USAGE, DONE)

    assert await at_once(answer(), ASKED) == await by_generator(answer(), ASKED)


async def test_a_plain_reply_is_four_events_and_gives_the_connection_back() -> None:
    client = FakeClient(answer=lambda _: ok(reply()))
    whole_of = model_at(client).whole
    assert whole_of is not None
    began, *rest = await whole_of(ASKED)
    assert isinstance(began, Began)
    assert rest == [TextDelta("Hello"), Finished("stop"), UsageReported(Usage(3, 2))]
    assert all(response.closed for response in client.responses)

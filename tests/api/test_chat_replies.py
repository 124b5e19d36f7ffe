"""What a whole reply is made of, rule by rule, and through the eyes of the official client."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from convene.config import Model

if TYPE_CHECKING:
    from api.conftest import Serve, Served

HELLO: Any = [{"role": "user", "content": "hello big world"}]


@pytest.mark.req("OAI-40", "CHAT-31", "CHAT-32", "CHAT-33", "CHAT-35", "CHAT-46", "CHAT-49", "DEC-02", "DEC-08")
async def test_a_whole_reply_has_every_required_key_and_no_delta(served: Served) -> None:
    reply = (await served.chat()).json()
    assert set(reply) == {
        "id",
        "object",
        "created",
        "model",
        "choices",
        "usage",
        "metadata",
        "executable_data",
        "intermediate_steps",
        "thought",
        "conversation_id",
        "system_fingerprint",
    }
    (choice,) = reply["choices"]
    assert set(choice) == {"index", "message", "finish_reason", "logprobs"}
    assert choice["message"] == {"role": "assistant", "content": "hello big world", "refusal": None}
    assert (choice["index"], choice["finish_reason"], choice["logprobs"]) == (0, "stop", None)
    assert isinstance(reply["id"], str)
    assert reply["id"].startswith("chatcmpl-")


@pytest.mark.req("CHAT-41", "CHAT-43", "ERR-10")
async def test_the_five_extras_are_always_there_and_empty_for_a_plain_question(served: Served) -> None:
    answer = await served.chat()
    reply = answer.json()
    assert reply["executable_data"] == []
    assert reply["intermediate_steps"] == []
    assert reply["thought"] == []
    assert reply["conversation_id"] is None
    assert reply["metadata"] == {
        "request_id": answer.headers["x-request-id"],
        "model": "scripted-echo",
        "upstream": "scripted",
    }
    assert "error" not in reply


@pytest.mark.req("CHAT-47")
async def test_created_counts_unix_seconds_and_object_names_the_kind(served: Served) -> None:
    before = int(time.time())
    reply = (await served.chat()).json()
    assert reply["object"] == "chat.completion"
    assert before <= reply["created"] <= before + 60
    assert isinstance(reply["created"], int)


@pytest.mark.req("CHAT-37", "OAI-42", "COMPAT-01", "CLIENT-11")
async def test_usage_is_an_object_with_three_totals_and_the_details(served: Served) -> None:
    for body in ({}, {"model": "scripted-tools", "tools": [{"type": "function", "function": {"name": "f"}}]}):
        usage = (await served.chat(**body)).json()["usage"]
        assert usage["prompt_tokens"] == 3
        assert usage["completion_tokens"] > 0
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        assert usage["completion_tokens_details"] == {"reasoning_tokens": 0}
        assert usage["prompt_tokens_details"] == {"cached_tokens": 0}


@pytest.mark.req("OAI-46", "CHAT-40", "OAI-48")
async def test_reasoning_stands_under_both_names_and_in_thought_and_not_in_the_content(served: Served) -> None:
    reply = (await served.chat(model="scripted-think")).json()
    message = reply["choices"][0]["message"]
    assert message["content"] == "hello big world"
    assert message["reasoning_content"] == message["reasoning"] == reply["thought"][0]
    assert "wrote 3 words" in message["reasoning"]


@pytest.mark.req("CHAT-07", "OAI-42")
async def test_reasoning_counts_as_completion_tokens(served: Served) -> None:
    thinking = (await served.chat(model="scripted-think")).json()
    usage = thinking["usage"]
    reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
    assert reasoning == len(thinking["thought"][0].split())
    assert usage["completion_tokens"] == reasoning + 3


@pytest.mark.parametrize("text", ["", "   ", "hello"])
@pytest.mark.req("CHAT-48", "CHAT-34", "CLIENT-12")
async def test_content_is_a_string_even_when_there_is_little_to_say(served: Served, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    fields = {"top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": 0.1, "web_search": False}
    content = (await served.chat(messages=messages, **fields)).json()["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    assert content
    assert content.strip() in {"(empty message)", "", "hello"}


@pytest.mark.req("OAI-19")
async def test_n_choices_come_with_their_indexes_whole_and_streamed(served: Served) -> None:
    reply = (await served.chat(n=3)).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert {choice["message"]["content"] for choice in reply["choices"]} == {"hello big world"}
    chunks = [frame for frame in await served.frames(n=3) if frame != "[DONE]"]
    for index in range(3):
        own = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert "".join(choice["delta"].get("content", "") for choice in own) == "hello big world"
        assert [choice["finish_reason"] for choice in own if choice["finish_reason"]] == ["stop"]
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)


@pytest.mark.req("OAI-21")
async def test_logprobs_list_token_logprob_and_bytes_and_join_to_the_text(served: Served) -> None:
    whole = (await served.chat(logprobs=True, top_logprobs=1)).json()["choices"][0]["logprobs"]["content"]
    chunks = [frame for frame in await served.frames(logprobs=True, top_logprobs=1) if frame != "[DONE]"]
    streamed = [
        token
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["logprobs"] is not None
        for token in choice["logprobs"]["content"]
    ]
    assert whole == streamed
    assert "".join(token["token"] for token in whole) == "hello big world"
    assert bytes(byte for token in whole for byte in token["bytes"]).decode() == "hello big world"
    assert all(token["top_logprobs"][0]["token"] == token["token"] for token in whole)


@pytest.mark.req("CHAT-36", "OAI-50", "DEC-05", "OAI-62")
async def test_model_is_echoed_as_it_was_asked_for_even_by_an_alias(serve: Serve) -> None:
    models = {"house": Model(upstream=("scripted",), model="scripted-echo", aliases=("gpt-6-astra",))}
    async with serve(models=models) as one:
        for name in ("house", "gpt-6-astra"):
            reply = (await one.chat(model=name)).json()
            assert reply["model"] == name
            assert reply["metadata"]["model"] == name
            assert {chunk["model"] for chunk in (await one.frames(model=name))[:-1]} == {name}


@pytest.mark.req("API-02", "CLIENT-01", "HDR-01")
async def test_the_official_client_reads_content_usage_and_the_extras_as_attributes(served: Served) -> None:
    reply = await served.sdk.chat.completions.create(
        model="scripted-think",
        messages=HELLO,
        temperature=0.7,
        max_tokens=500,
        top_p=0.9,
        frequency_penalty=0,
        presence_penalty=0,
        extra_body={"web_search": True},
        extra_headers={"x-session-id": "3f1e"},
    )
    assert reply.choices[0].message.content == "hello big world"
    assert reply.model == "scripted-think"
    assert reply.usage is not None
    assert reply.usage.total_tokens > 0
    extras: Any = reply
    assert extras.executable_data == []
    assert [step["kind"] for step in extras.intermediate_steps] == ["model"]
    assert "3 words" in extras.thought[0]
    assert reply._request_id == extras.metadata["request_id"]


@pytest.mark.req("STRUCT-01", "OAI-16", "OAI-17", "STRUCT-05", "DEC-21")
async def test_structured_output_is_bare_json_of_the_schema(served: Served) -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Person",
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": ["integer", "null"]}, "kind": {"enum": ["a", ""]}},
        "required": ["name", "age", "kind"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    parsed = json.loads((await served.chat(response_format=wanted)).json()["choices"][0]["message"]["content"])
    assert set(parsed) == {"name", "age", "kind"}
    text = (await served.chat(response_format={"type": "json_object"})).json()["choices"][0]["message"]["content"]
    assert text.startswith("{")
    assert isinstance(json.loads(text), dict)


async def test_a_structured_answer_that_is_cut_off_says_length(served: Served) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "array", "minItems": 9}}}
    reply = (await served.chat(response_format=wanted, max_tokens=2)).json()
    assert reply["choices"][0]["finish_reason"] == "length"

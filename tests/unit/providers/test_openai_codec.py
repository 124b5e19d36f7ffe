"""What is written for a host: only what was set, in the plain OpenAI form."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.messages import (
    FunctionTool,
    ImagePart,
    Message,
    OpaquePart,
    ResponseFormat,
    TextPart,
    ToolCall,
    ToolChoice,
)
from convene.providers.base import Generation, Sampling
from convene.providers.openai_codec import (
    PLAIN,
    Dialect,
    encode_any,
    encode_chat,
    encode_embeddings,
    prompt_text,
)

USER = Message(role="user", content="Hi")
LOOK = FunctionTool("look", "Looks.", {"type": "object", "properties": {}}, strict=True)
BARE = FunctionTool("bare")


def body_of(generation: Generation, dialect: Dialect = PLAIN) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(encode_chat(generation, "host-model", dialect))
    return found


def message_of(message: Message, dialect: Dialect = PLAIN) -> dict[str, Any]:
    found: dict[str, Any] = body_of(Generation(messages=(message,)), dialect)["messages"][0]
    return found


def test_a_plain_request_has_three_fields() -> None:
    assert body_of(Generation(messages=(USER,))) == {
        "model": "host-model",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
    }


def test_a_stream_always_asks_for_usage() -> None:
    body = body_of(Generation(messages=(USER,), stream=True))
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}


def test_every_sampling_field_that_was_set_is_written() -> None:
    sampling = Sampling(
        temperature=0.0,
        top_p=0.5,
        frequency_penalty=-1.0,
        presence_penalty=1.0,
        max_tokens=7,
        stop=("a", "b"),
        seed=0,
        logit_bias={"5": -100.0},
        logprobs=True,
        top_logprobs=0,
        reasoning_effort="low",
        verbosity="high",
    )
    body = body_of(Generation(messages=(USER,), sampling=sampling, n=2, user="u"))
    del body["model"], body["messages"], body["stream"]
    assert body == {
        "temperature": 0.0,
        "top_p": 0.5,
        "frequency_penalty": -1.0,
        "presence_penalty": 1.0,
        "max_tokens": 7,
        "stop": ["a", "b"],
        "seed": 0,
        "logit_bias": {"5": -100.0},
        "logprobs": True,
        "top_logprobs": 0,
        "reasoning_effort": "low",
        "verbosity": "high",
        "n": 2,
        "user": "u",
    }


def test_the_token_limit_goes_by_the_name_the_host_reads() -> None:
    generation = Generation(messages=(USER,), sampling=Sampling(max_tokens=5))
    body = body_of(generation, Dialect(max_tokens_field="max_completion_tokens"))
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


def test_top_logprobs_without_logprobs_are_not_written() -> None:
    assert "top_logprobs" not in body_of(Generation(messages=(USER,), sampling=Sampling(top_logprobs=3)))


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (Message(role="system", content="Be kind."), {"role": "system", "content": "Be kind."}),
        (Message(role="user", content="x", name="ann"), {"role": "user", "content": "x", "name": "ann"}),
        (Message(role="assistant", content=""), {"role": "assistant", "content": ""}),
        (
            Message(role="tool", content='{"a":1}', tool_call_id="c1"),
            {"role": "tool", "content": '{"a":1}', "tool_call_id": "c1"},
        ),
        (Message(role="user", content=(TextPart("one"),)), {"role": "user", "content": "one"}),
        (Message(role="user", content=()), {"role": "user", "content": ""}),
        (
            Message(role="user", content=(TextPart("a"), TextPart("b"))),
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        ),
        (Message(role="assistant", content=(TextPart("a"), TextPart("b"))), {"role": "assistant", "content": "a\nb"}),
        (
            Message(role="user", content=(TextPart("see"), ImagePart("data:x"), ImagePart("http://y", "low"))),
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:x"}},
                    {"type": "image_url", "image_url": {"url": "http://y", "detail": "low"}},
                ],
            },
        ),
        (
            Message(role="user", content=(OpaquePart("input_audio", {"data": "AA", "format": "wav"}),)),
            {
                "role": "user",
                "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}],
            },
        ),
    ],
)
def test_messages_are_written_in_the_plain_form(message: Message, wire: dict[str, object]) -> None:
    assert message_of(message) == wire


def test_a_call_without_text_has_null_content_and_its_arguments_untouched() -> None:
    call = ToolCall("c1", "look", '{"q":  1.0}')
    wire = message_of(Message(role="assistant", tool_calls=(call,)))
    assert wire["content"] is None
    assert wire["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q":  1.0}'}}
    ]
    assert message_of(Message(role="assistant", content="So:", tool_calls=(call,)))["content"] == "So:"


def test_reasoning_goes_back_only_to_hosts_that_want_it() -> None:
    message = Message(role="assistant", content="a", reasoning="because")
    assert "reasoning_content" not in message_of(message)
    assert message_of(message, Dialect(echo_reasoning=True))["reasoning_content"] == "because"


def test_tools_are_written_with_what_they_have() -> None:
    body = body_of(Generation(messages=(USER,), tools=(LOOK, BARE), parallel_tool_calls=False))
    parameters = {"type": "object", "properties": {}}
    assert body["tools"] == [
        {
            "type": "function",
            "function": {"name": "look", "description": "Looks.", "parameters": parameters, "strict": True},
        },
        {"type": "function", "function": {"name": "bare"}},
    ]
    assert body["parallel_tool_calls"] is False
    assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        (ToolChoice("none"), "none"),
        (ToolChoice("required"), "required"),
        (ToolChoice("named", "look"), {"type": "function", "function": {"name": "look"}}),
    ],
)
def test_a_tool_choice_is_written(choice: ToolChoice, wire: object) -> None:
    assert body_of(Generation(messages=(USER,), tools=(LOOK,), tool_choice=choice))["tool_choice"] == wire


@pytest.mark.req("OAI-12")
def test_allowed_tools_narrow_the_list_where_the_host_does_not_know_the_form() -> None:
    generation = Generation(
        messages=(USER,), tools=(LOOK, BARE), tool_choice=ToolChoice("required", allowed=("bare", "gone"))
    )
    body = body_of(generation)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["bare"]
    assert body["tool_choice"] == "required"
    body = body_of(generation, Dialect(allowed_tools=True))
    assert len(body["tools"]) == 2
    assert body["tool_choice"]["allowed_tools"]["mode"] == "required"
    assert [tool["function"]["name"] for tool in body["tool_choice"]["allowed_tools"]["tools"]] == ["bare", "gone"]


def test_no_tool_is_written_when_none_of_them_is_allowed() -> None:
    choice = ToolChoice("auto", allowed=())
    assert "tools" not in body_of(Generation(messages=(USER,), tools=(LOOK,), tool_choice=choice))


@pytest.mark.req("OAI-13")
def test_tool_choice_and_parallel_calls_are_not_written_without_tools() -> None:
    body = body_of(Generation(messages=(USER,), tool_choice=ToolChoice("required"), parallel_tool_calls=False))
    assert "tool_choice" not in body
    assert "parallel_tool_calls" not in body


@pytest.mark.parametrize(
    ("wanted", "wire"),
    [
        (ResponseFormat("json_object"), {"type": "json_object"}),
        (
            ResponseFormat("json_schema", "n", {"type": "object"}, strict=True, description="d"),
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True, "description": "d"},
            },
        ),
        (ResponseFormat("json_schema"), {"type": "json_schema", "json_schema": {"name": "answer"}}),
    ],
)
def test_a_response_format_is_written(wanted: ResponseFormat, wire: object) -> None:
    assert body_of(Generation(messages=(USER,), response_format=wanted))["response_format"] == wire


@pytest.mark.req("OAI-01")
def test_unknown_fields_go_along() -> None:
    body = body_of(Generation(messages=(USER,), extra={"top_k": 40, "enable_thinking": True}))
    assert body["top_k"] == 40
    assert body["enable_thinking"] is True


@pytest.mark.parametrize("name", ["model", "stream", "stream_options", "max_tokens", "tools", "n"])
def test_unknown_fields_never_write_a_known_one(name: str) -> None:
    plain = Generation(messages=(USER,))
    assert body_of(msgspec.structs.replace(plain, extra={name: "theirs"})) == body_of(plain)


@pytest.mark.parametrize("name", ["api_base", "base_url", "api_key", "user_config", "extra_headers"])
def test_no_caller_chooses_an_endpoint_or_a_key_of_a_gateway(name: str) -> None:
    assert name not in body_of(Generation(messages=(USER,), extra={name: "http://evil"}))


def test_embeddings_ask_for_floats() -> None:
    assert msgspec.json.decode(encode_embeddings(["a", [1, 2]], 8, "m")) == {
        "model": "m",
        "input": ["a", [1, 2]],
        "encoding_format": "float",
        "dimensions": 8,
    }
    assert "dimensions" not in msgspec.json.decode(encode_embeddings(["a"], None, "m"))


def test_the_text_of_a_prompt_counts_calls_and_tools_but_no_pictures() -> None:
    call = ToolCall("c", "look", '{"q":1}')
    messages = (
        Message(role="user", content=(TextPart("hello"), ImagePart("data:AAAA"))),
        Message(role="assistant", tool_calls=(call,)),
    )
    text = prompt_text(Generation(messages=messages, tools=(LOOK,)))
    assert "hello" in text
    assert 'look{"q":1}' in text
    assert "Looks." in text
    assert "AAAA" not in text


def test_the_short_way_for_plain_requests_has_every_field_of_sampling() -> None:
    everything = Sampling(
        temperature=1.0,
        top_p=0.5,
        frequency_penalty=0.1,
        presence_penalty=0.2,
        max_tokens=9,
        stop=("a",),
        seed=7,
        logit_bias={"1": 2.0},
        logprobs=True,
        top_logprobs=3,
        reasoning_effort="high",
        verbosity="low",
    )
    wanted = msgspec.to_builtins(everything)
    assert set(wanted) == set(Sampling.__struct_fields__)  # one that is new is to be set above
    assert body_of(Generation(messages=(USER,), sampling=everything)).items() >= {**wanted, "stop": ["a"]}.items()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.one_of(TEXT, st.just((TextPart("a"), ImagePart("https://x/y.png")))),
    name=st.one_of(st.none(), TEXT),
    tool_calls=st.sampled_from([(), (), (ToolCall("c", "look", "{}"),)]),
    tool_call_id=st.sampled_from([None, None, "c"]),
    reasoning=st.sampled_from([None, None, "hm"]),
)
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.one_of(st.none(), st.floats(0, 2)),
    top_p=st.one_of(st.none(), st.floats(0, 1)),
    frequency_penalty=st.one_of(st.none(), st.floats(-2, 2)),
    presence_penalty=st.one_of(st.none(), st.floats(-2, 2)),
    max_tokens=st.one_of(st.none(), st.integers(1, 9)),
    stop=st.sampled_from([(), ("a", "b")]),
    seed=st.one_of(st.none(), st.integers(-5, 5)),
    logit_bias=st.one_of(st.none(), st.dictionaries(st.sampled_from(["1", "2"]), st.floats(-9, 9))),
    logprobs=st.booleans(),
    top_logprobs=st.one_of(st.none(), st.integers(0, 5)),
    reasoning_effort=st.sampled_from([None, "high"]),
    verbosity=st.sampled_from([None, "low"]),
)
GENERATIONS = st.builds(
    Generation,
    messages=st.lists(MESSAGES, min_size=1, max_size=3).map(tuple),
    sampling=SAMPLINGS,
    n=st.sampled_from([1, 1, 2]),
    tools=st.sampled_from([(), (), (LOOK,)]),
    response_format=st.sampled_from([ResponseFormat(), ResponseFormat(), ResponseFormat("json_object")]),
    stream=st.booleans(),
    user=st.one_of(st.none(), TEXT),
    extra=st.sampled_from([{}, {}, {"top_k": 3}]),
)


@given(
    GENERATIONS, TEXT, st.sampled_from([PLAIN, Dialect(max_tokens_field="max_completion_tokens", echo_reasoning=True)])
)
def test_the_short_way_for_plain_requests_writes_what_the_general_way_writes(
    generation: Generation, model: str, dialect: Dialect
) -> None:
    assert encode_chat(generation, model, dialect) == encode_any(generation, model, dialect)

"""A body off the wire to a generation: which field becomes what, and what disappears."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from convene.api.chat_request import _read_any, read_chat
from convene.errors import BadRequest
from convene.messages import FunctionTool, Message, ResponseFormat, ToolChoice
from convene.providers.base import Generation, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.chat_request import ChatCall

HELLO = [{"role": "user", "content": "hello"}]


def read(*, session_id: str | None = None, **fields: object) -> ChatCall:
    """Return what a body asks for; model and messages are filled in."""
    return read_chat(msgspec.json.encode({"model": "m", "messages": HELLO} | fields), session_id)


def test_the_smallest_body_asks_for_nothing_special() -> None:
    call = read()
    assert call.request.generation == Generation(
        messages=(Message(role="user", content="hello"),), tool_choice=ToolChoice("none")
    )
    assert (call.stream, call.include_usage, call.legacy_functions, call.service_tier) == (False, False, False, False)
    assert (call.oddities, call.seeded) == ((), False)


@pytest.mark.req(
    "CHAT-04", "CHAT-05", "CHAT-09", "CHAT-10", "CHAT-11", "CHAT-23", "OAI-18", "OAI-20", "OAI-21", "OAI-22"
)
def test_every_sampling_field_arrives_under_its_own_name() -> None:
    given: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.25,
        "frequency_penalty": -2,
        "presence_penalty": 2,
        "max_tokens": 7,
        "stop": ["a", "", "b"],
        "seed": -(2**63),
        "logit_bias": {"1": 5, "2": 0, "3": -100},
        "logprobs": True,
        "top_logprobs": 20,
        "reasoning_effort": "minimal",
        "verbosity": "low",
    }
    assert read(**given).request.generation.sampling == Sampling(
        temperature=0.5,
        top_p=0.25,
        frequency_penalty=-2,
        presence_penalty=2,
        max_tokens=7,
        stop=("a", "b"),
        seed=-(2**63),
        logit_bias={"1": 5, "3": -100},
        logprobs=True,
        top_logprobs=20,
        reasoning_effort="minimal",
        verbosity="low",
    )


@pytest.mark.req("OAI-04", "OAI-05", "CHAT-06")
@pytest.mark.parametrize(
    "fields",
    [
        {"stop": "", "logit_bias": {}, "n": 1, "top_logprobs": 0, "logprobs": False},
        {"stop": [], "logit_bias": {"foo": 0}, "max_tokens": 0, "max_completion_tokens": 0},
        {"max_tokens": None, "stop": [""], "n": None, "temperature": None, "stream": None, "tools": []},
        {"functions": [], "function_call": "none", "response_format": None, "parallel_tool_calls": None},
    ],
)
def test_values_that_ask_for_nothing_new_disappear(fields: dict[str, Any]) -> None:
    assert read(**fields).request.generation == read().request.generation


@pytest.mark.req("OAI-05")
@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 5, "max_completion_tokens": 0}, 5),
        ({"max_tokens": 0, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 5, "max_completion_tokens": None}, 5),
    ],
)
def test_of_two_limits_the_newer_counts_if_it_is_one(fields: dict[str, Any], limit: int) -> None:
    assert read(**fields).request.generation.sampling.max_tokens == limit


@pytest.mark.req("OAI-01", "CHAT-24")
def test_unknown_fields_travel_on_and_are_noted_once() -> None:
    call = read(
        top_k=5, ignore_eos=True, prompt_cache_key="k", store=True, metadata={"a": "b", "c": 1}, server_tools=True
    )
    assert call.request.generation.extra == {"top_k": 5, "ignore_eos": True, "prompt_cache_key": "k"}
    assert call.request.metadata == {"a": "b"}
    assert call.oddities == ((logging.DEBUG, "unknown fields: ignore_eos, top_k"),)


@pytest.mark.req("OAI-25")
def test_store_and_metadata_leave_no_trace_in_the_generation() -> None:
    assert read(store=True, metadata={"a": "b"}).request.generation == read().request.generation


def test_streams_and_their_usage_are_asked_for_apart() -> None:
    usage = {"include_usage": True}
    assert not read(stream_options=usage).include_usage
    assert not read(stream_options=usage, stream=False).include_usage
    call = read(stream_options=usage, stream=True)
    assert (call.stream, call.include_usage, call.request.generation.stream) == (True, True, True)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"web_search": True}, {"web_search": True}),
        ({"web_search_options": {}}, {"web_search": True, "web_search_options": {}}),
        ({"web_search": False}, {}),
        ({"planner_mode": True, "study_mode": True}, {"planner_mode": True, "study_mode": True}),
        ({"server_tools": False}, {"server_tools": False}),
        ({"max_tool_calls": 0}, {"max_tool_calls": 0}),
        ({"max_tool_calls": 500}, {"max_tool_calls": 500}),
        ({"max_tool_calls": None}, {}),
        ({"on_disconnect": "continue"}, {"on_disconnect": "continue"}),
        ({"on_disconnect": "cancel"}, {"on_disconnect": "cancel"}),
        ({"on_disconnect": None}, {}),
        ({"agent_address": "agent1q"}, {"agent_address": "agent1q"}),
        ({"agent_address": ""}, {}),
    ],
)
def test_the_agentic_fields_are_carried_for_the_rooms_that_act_on_them(
    fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    agentic = read(**fields).request.agentic
    assert msgspec.structs.asdict(agentic) == msgspec.structs.asdict(read().request.agentic) | expected
    assert read(session_id="s1").request.agentic.session_id == "s1"
    assert read(session_id="").request.agentic.session_id is None


@pytest.mark.req("OAI-12", "OAI-13", "CHAT-14")
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ("any", ToolChoice("required")),
        ({"type": "function", "function": {"name": "f"}}, ToolChoice("named", "f")),
        ({"type": "function", "name": "f"}, ToolChoice("named", "f")),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "g"}}]}},
            ToolChoice("required", None, ("g",)),
        ),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}, {"name": "g"}]},
            ToolChoice("auto", None, ("f", "g")),
        ),
    ],
)
def test_each_form_of_tool_choice_is_read(choice: object, expected: ToolChoice) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in "fg"]
    assert read(tools=tools, tool_choice=choice).request.generation.tool_choice == expected
    assert read(tool_choice=choice).request.generation.tool_choice == ToolChoice("none")
    warned = bool(read(tool_choice=choice).oddities)
    assert warned == (choice not in (None, "auto", "none"))


@pytest.mark.parametrize("choice", ["required", {"type": "custom", "custom": {"name": "x"}}])
def test_a_demand_that_only_tools_of_other_types_could_meet_is_refused(choice: object) -> None:
    tools = [{"type": "custom", "custom": {"name": "x"}}]
    assert read(tools=tools).request.generation.tools == ()
    with pytest.raises(BadRequest) as caught:
        read(tools=tools, tool_choice=choice)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tool_choice")


def test_the_old_functions_are_tools_with_one_call_and_yield_to_tools() -> None:
    call = read(functions=[{"name": "f", "description": "d"}], function_call={"name": "f"})
    assert call.legacy_functions
    assert call.request.generation.tools == (FunctionTool("f", "d"),)
    assert call.request.generation.tool_choice == ToolChoice("named", "f")
    assert call.request.generation.parallel_tool_calls is False
    tools = [{"type": "function", "function": {"name": "t"}}]
    both = read(functions=[{"name": "f"}], tools=tools, tool_choice="required")
    assert not both.legacy_functions
    assert [tool.name for tool in both.request.generation.tools] == ["t"]
    none = read(functions=[{"name": "f"}], function_call="none")
    assert (none.legacy_functions, none.request.generation.tools) == (False, ())


@pytest.mark.req("OAI-16", "CHAT-16")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"type": "text"}, ResponseFormat()),
        ({"type": "json_object"}, ResponseFormat("json_object")),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
            ResponseFormat("json_schema", "n", {"type": "object"}, strict=True),
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": {}, "description": "d"}},
            ResponseFormat("json_schema", "answer", {}, None, "d"),
        ),
    ],
)
def test_each_response_format_is_read(given: object, expected: ResponseFormat) -> None:
    assert read(response_format=given).request.generation.response_format == expected


@pytest.mark.req("CHAT-29", "DEC-14")
def test_one_level_around_messages_is_taken_off_and_no_more() -> None:
    assert read(messages=[HELLO]).request.generation.messages == read().request.generation.messages
    for messages, param in (([[HELLO]], "messages[0]"), ([HELLO, HELLO], "messages[1]"), ([[]], "messages")):
        with pytest.raises(BadRequest) as caught:
            read(messages=messages)
        assert caught.value.param == param


def test_speech_is_asked_for_by_modalities_and_travels_on() -> None:
    call = read(modalities=["text", "audio"], audio={"voice": "v"})
    assert call.request.generation.spoken
    assert call.request.generation.extra == {"modalities": ["text", "audio"], "audio": {"voice": "v"}}
    assert not read(modalities=["text"], audio={"voice": "v"}).request.generation.spoken


TEXT = some.text(max_size=5)
PLAIN_FIELDS: dict[str, some.SearchStrategy[Any]] = {
    "temperature": some.sampled_from((0, 1, 2, 0.5, -1, 3, "1", True)),
    "top_p": some.sampled_from((0, 1, 0.25, 2)),
    "stream": some.booleans() | some.just(1),
    "stream_options": some.sampled_from(({}, {"include_usage": True}, {"include_usage": None, "later": 1}, [])),
    "stop": TEXT | some.lists(TEXT, max_size=5) | some.just(3),
    "max_tokens": some.sampled_from((0, 7, 7.0, 7.5, -1, 10**9)),
    "max_completion_tokens": some.sampled_from((0, 5, 5.0, "5")),
    "presence_penalty": some.sampled_from((-2, 0, 0.5, 3)),
    "frequency_penalty": some.sampled_from((-2, 0, 0.5, 3)),
    "seed": some.integers(-(2**63) - 1, 2**63),
    "user": TEXT | some.just(5),
    "n": some.sampled_from((1, 2)),
    "later": some.just(1),
}
PLAIN_MESSAGE = some.fixed_dictionaries(
    {"role": some.sampled_from(("user", "system", "assistant", "developer", "tool", "nobody", 5))},
    optional={
        "content": TEXT | some.sampled_from((None, [], [{"type": "text", "text": "x"}])),
        "name": TEXT | some.none(),
        "refusal": some.none() | TEXT,
    },
)


def outcome(read: Callable[[bytes, str | None], ChatCall], body: bytes, session_id: str | None) -> object:
    """Return the call, or what the refusal says."""
    try:
        return read(body, session_id)
    except BadRequest as fault:
        return fault.message, fault.code, fault.param


@pytest.mark.req("OAI-07", "OAI-30")
@given(
    fields=some.fixed_dictionaries(
        {"model": some.sampled_from(("m", "m" * 257, "", 5)), "messages": some.lists(PLAIN_MESSAGE, max_size=3)},
        optional={name: values | some.none() for name, values in PLAIN_FIELDS.items()},
    ),
    session_id=some.sampled_from((None, "", "s")),
    tail=some.sampled_from((b"", b" ", b"x", b"\xff")),
)
def test_the_short_way_for_plain_bodies_gives_what_the_long_way_gives(
    fields: dict[str, object], session_id: str | None, tail: bytes
) -> None:
    body = msgspec.json.encode(fields) + tail
    assert outcome(read_chat, body, session_id) == outcome(_read_any, body, session_id)


def test_a_key_that_comes_twice_counts_the_same_either_way() -> None:
    body = b'{"model": "a", "messages": [{"role": "user", "content": "x", "content": "y"}], "model": "b"}'
    assert read_chat(body, None) == _read_any(body, None)
    assert (read_chat(body, None).request.model, read_chat(body, None).request.generation.messages[0].content) == (
        "b",
        "y",
    )

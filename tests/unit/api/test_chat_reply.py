"""A gathered turn as a whole reply: every optional part, and the rules on what is null, empty or absent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from convene.api.chat_reply import ReplyShape, reply_bytes
from convene.api.chat_request import read_chat
from convene.events import (
    Began,
    CallDelta,
    Cited,
    Event,
    Finished,
    Noticed,
    PlainAnswer,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    ToolRan,
    UsageReported,
    fold,
)
from convene.serving.base import Outcome
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Fold


class Turn:
    """What a reply needs to know of its turn."""

    id = "chatcmpl-1"
    created = 5
    model = "asked"
    run_id = ""
    conversation_id = None
    outcome = Outcome()

    def events(self) -> AsyncGenerator[Event]:
        raise AssertionError("a reply is made of what was gathered")

    async def answer(self) -> Fold:
        raise AssertionError("a reply is made of what was gathered")


def reply(*events: Event, **fields: object) -> dict[str, Any]:
    """Return the parsed reply of a turn."""
    body = {"model": "asked", "messages": [{"role": "user", "content": "x"}]} | fields
    call = read_chat(msgspec.json.encode(body), None)
    return msgspec.json.decode(reply_bytes(fold(events), Turn(), call, "req_1"), type=dict[str, Any])


@pytest.mark.req("COMPAT-01", "CHAT-48", "CHAT-49", "OAI-40")
def test_a_turn_without_any_event_is_still_a_whole_reply() -> None:
    found = reply()
    (choice,) = found["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": None}
    assert found["usage"]["total_tokens"] == 0
    assert found["metadata"] == {"request_id": "req_1", "model": "asked"}
    assert "system_fingerprint" not in found


@pytest.mark.req("TOOLS-04", "TOOLS-05", "CHAT-48", "COMPAT-02")
@pytest.mark.parametrize(("text", "content"), [("", None), ("I look.", "I look.")])
def test_text_and_calls_stand_together_and_content_is_null_only_beside_calls(text: str, content: str | None) -> None:
    (choice,) = reply(
        TextDelta(text), CallDelta(0, '{"a"', "c1", "f"), CallDelta(1, "{}", "c2", "g"), CallDelta(0, ":1}"),
        Finished("tool_calls"),
    )["choices"]  # fmt: skip
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == content
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


@pytest.mark.req("OAI-43")
def test_a_refusal_fills_its_own_field() -> None:
    (choice,) = reply(RefusalDelta("I "), RefusalDelta("won't."), Finished("content_filter"))["choices"]
    assert choice["message"] == {"role": "assistant", "content": "", "refusal": "I won't."}
    assert choice["finish_reason"] == "content_filter"


@pytest.mark.req("OAI-46", "CHAT-40")
def test_reasoning_of_each_choice_stands_twice_in_it_and_once_in_thought() -> None:
    found = reply(ReasoningDelta("a"), ReasoningDelta("b", 1), ReasoningDelta("c"), TextDelta("x"), TextDelta("y", 1))
    assert found["thought"] == ["ac", "b"]
    for index, text in enumerate(found["thought"]):
        message = found["choices"][index]["message"]
        assert message["reasoning"] == message["reasoning_content"] == text


def test_citations_steps_and_tools_that_ran_have_their_places() -> None:
    found = reply(
        StepChanged(id="s", kind="tool", name="search", status="running"),
        StepChanged(id="s", kind="tool", name="search", status="done", usage={"tokens": 1}),
        ToolRan(id="t", tool_name="search", result=[1]),
        Cited("http://a.test", "A", 0, 3),
        Noticed("code", "words"),
        TextDelta("abc"),
    )
    (step,) = found["intermediate_steps"]
    assert (step["status"], step["usage"]) == ("done", {"tokens": 1})
    assert "detail" not in step
    assert found["executable_data"] == [
        {"id": "t", "type": "tool_call", "tool_name": "search", "args": {}, "result": [1], "status": "done"}
    ]
    (annotation,) = found["choices"][0]["message"]["annotations"]
    assert annotation["url_citation"] == {"url": "http://a.test", "title": "A", "start_index": 0, "end_index": 3}
    assert found["metadata"]["notices"] == [{"code": "code", "message": "words"}]


@pytest.mark.req("OAI-42", "CHAT-37")
def test_usage_adds_up_and_an_estimate_is_owned_to() -> None:
    found = reply(UsageReported(Usage(5, 7, 2, 3)), UsageReported(Usage(1, 1, estimated=True)))
    assert found["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 8,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert [notice["code"] for notice in found["metadata"]["notices"]] == ["usage_estimated"]


@pytest.mark.req("OAI-20", "OAI-23")
def test_fingerprint_and_tier_come_when_there_is_one_or_one_was_asked_for() -> None:
    assert reply(Began("up", "m", "fp_host"))["system_fingerprint"] == "fp_host"
    seeded = reply(Began("up", "m"), seed=1)
    assert seeded["system_fingerprint"].startswith("fp_")
    assert "system_fingerprint" not in reply(Began("up", "m"))
    assert seeded["metadata"]["upstream"] == "up"
    assert reply(service_tier="flex")["service_tier"] == "default"


@pytest.mark.req("OAI-19")
def test_choices_come_in_the_order_of_their_index() -> None:
    found = reply(TextDelta("c", 2), TextDelta("a", 0), TextDelta("b", 1))
    assert [(choice["index"], choice["message"]["content"]) for choice in found["choices"]] == [
        (0, "a"),
        (1, "b"),
        (2, "c"),
    ]


TEXTS = some.text(some.characters(codec="utf-8") | some.sampled_from('%"\\/\n\0'), max_size=40)
COUNTS = some.integers(0, 2**53)


@pytest.mark.req("COMPAT-01", "CHAT-48", "OAI-40")
@given(
    answer=some.builds(
        PlainAnswer,
        upstream=TEXTS,
        model=TEXTS,
        fingerprint=TEXTS | some.none(),
        text=TEXTS,
        finish=some.sampled_from(("stop", "length", "tool_calls", "content_filter")),
        usage=some.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, some.booleans()),
    ),
    names=some.tuples(TEXTS, TEXTS, TEXTS),
    created=COUNTS,
    fields=some.fixed_dictionaries({}, optional={"seed": some.just(1), "service_tier": some.just("flex")}),
)
def test_a_plain_answer_has_the_very_bytes_of_its_events_folded(
    answer: PlainAnswer, names: tuple[str, str, str], created: int, fields: dict[str, object]
) -> None:
    turn = Turn()
    turn.id, turn.model, turn.created = *names[:2], created
    body = {"model": "asked", "messages": [{"role": "user", "content": "x"}]} | fields
    call = read_chat(msgspec.json.encode(body), None)
    assert reply_bytes(answer, turn, call, names[2]) == reply_bytes(fold(answer), turn, call, names[2])


def test_a_plain_answer_reads_like_the_fold_of_its_events() -> None:
    answer = PlainAnswer("up", "m", None, "text", "length", Usage(3, 2))
    folded = fold(answer)
    assert (answer.usage, answer.finish, answer.upstream) == (folded.usage, folded.finish, folded.upstream)
    assert answer.choices[0].text == folded.choices[0].text == ["text"]


RAN = ToolRan(id="call_1", tool_name="look", args={"what": "it"}, result={"found": True})
AGENT = ToolRan(id="call_2", tool_name="ask", type="agent_manifest", agent={"name": "a"})
ANSWERED = (TextDelta("There."), Finished("stop"))


def shaped(shape: str, *events: Event, **fields: object) -> dict[str, Any]:
    """Return the message of a reply, with the server's calls in this shape."""
    body = {"model": "asked", "messages": [{"role": "user", "content": "x"}]} | fields
    call = read_chat(msgspec.json.encode(body), None)
    made = reply_bytes(fold(events), Turn(), call, "req_1", ReplyShape(shape))  # type: ignore[arg-type]  # one of three
    return msgspec.json.decode(made, type=dict[str, Any])["choices"][0]["message"]  # type: ignore[no-any-return]


@pytest.mark.req("TOOLS-10", "DEC-01")
def test_calls_of_the_server_have_both_key_sets_in_order_and_agents_are_none_of_them() -> None:
    message = shaped("dual", RAN, AGENT, msgspec.structs.replace(RAN, id="call_3"), *ANSWERED)
    assert [(one["index"], one["id"]) for one in message["tool_calls"]] == [(0, "call_1"), (1, "call_3")]
    assert message["tool_calls"][0] == {
        "id": "call_1",
        "index": 0,
        "type": "function",
        "function": {"name": "look", "arguments": '{"what":"it"}'},
        "tool_name": "look",
        "args": {"what": "it"},
        "result": {"found": True},
    }
    assert message["content"] == "There."


@pytest.mark.req("COMPAT-02", "DEC-01")
def test_the_bare_shape_is_the_references_alone_and_off_is_nothing() -> None:
    assert shaped("bare", RAN, *ANSWERED)["tool_calls"] == [
        {"id": "call_1", "tool_name": "look", "args": {"what": "it"}, "result": {"found": True}}
    ]
    assert "tool_calls" not in shaped("off", RAN, *ANSWERED)


@pytest.mark.req("DEC-01")
def test_a_client_with_tools_of_its_own_never_sees_calls_of_the_server_among_them() -> None:
    tools = [{"type": "function", "function": {"name": "mine"}}]
    assert "tool_calls" not in shaped("dual", RAN, *ANSWERED, tools=tools)
    mine = CallDelta(0, "{}", "c", "mine")
    (made,) = shaped("dual", RAN, mine, Finished("tool_calls"), tools=tools)["tool_calls"]
    assert made == {"id": "c", "type": "function", "function": {"name": "mine", "arguments": "{}"}}


@pytest.mark.req("CHAT-49")
def test_without_calls_of_the_server_there_are_no_empty_ones() -> None:
    assert "tool_calls" not in shaped("dual", AGENT, *ANSWERED)
    assert "tool_calls" not in shaped("dual", *ANSWERED)


def test_a_run_and_its_conversation_are_named_and_the_cost_is_split_by_step() -> None:
    class Priced(Turn):
        run_id = "run_1"
        conversation_id = "conv_1"  # type: ignore[assignment]  # a turn with a session
        outcome = Outcome(currency="USD", cost_micros=30, by_step=(("s1", 10), ("s3", 20)))

    call = read_chat(b'{"model":"asked","messages":[{"role":"user","content":"x"}]}', "s")
    made = msgspec.json.decode(reply_bytes(fold(ANSWERED), Priced(), call, "req_1"), type=dict[str, Any])
    assert made["conversation_id"] == "conv_1"
    assert made["metadata"]["run_id"] == "run_1"
    by_step = [{"step": "s1", "micros": 10}, {"step": "s3", "micros": 20}]
    assert made["metadata"]["cost"] == {"currency": "USD", "micros": 30, "by_step": by_step}


def test_a_plain_answer_too_has_its_cost_as_a_text_where_all_metadata_are() -> None:
    class Priced(Turn):
        outcome = Outcome(currency="USD", cost_micros=30)

    answer = PlainAnswer("up", "m", None, "Hi", "stop", Usage(1, 2))
    call = read_chat(b'{"model": "asked", "messages": [{"role": "user", "content": "x"}]}', None)
    for shape, kind in ((ReplyShape(), dict), (ReplyShape(metadata="strings"), str)):
        made = msgspec.json.decode(reply_bytes(answer, Priced(), call, "req_1", shape))
        assert isinstance(made["metadata"]["cost"], kind)

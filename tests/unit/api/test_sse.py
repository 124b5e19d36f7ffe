"""Events to frames: every rule of the conventions page on what our encoder writes, and on what it never does."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from convene.api.sse import DONE, ChatFrames, encode_line
from convene.errors import BadRequest, Busy, ConveneError, Malformed
from convene.events import (
    Began,
    CallDelta,
    Cited,
    Event,
    Finished,
    Noticed,
    ReasoningDelta,
    RefusalDelta,
    StepChanged,
    TextDelta,
    TokenLogprob,
    ToolRan,
    UsageReported,
)
from convene.usage import Usage

BEGAN = Began("up", "m")


def encoder(**fields: bool) -> ChatFrames:
    """Return an encoder."""
    given: dict[str, Any] = {"reply_id": "chatcmpl-1", "created": 5, "model": "m", "request_id": "req_1"}
    return ChatFrames(**(given | {"include_usage": False} | fields))


def stream(*events: Event, **fields: bool) -> list[Any]:
    """Return the parsed frames of a whole stream, `[DONE]` left out after a check that it is there, once."""
    frames = encoder(**fields)
    raw = [frame for event in events for frame in frames.frames(event)] + frames.end()
    return parse(raw)


def parse(raw: list[bytes]) -> list[Any]:
    """Return frames parsed strictly."""
    assert raw[-1] == DONE
    assert raw.count(DONE) == 1
    for frame in raw:
        assert frame.startswith(b"data: ")
        assert frame.endswith(b"\n\n")
        assert b"\n" not in frame[:-2]
        assert len(frame.decode().splitlines()) == 2
    return [msgspec.json.decode(frame[6:]) for frame in raw[:-1]]


@pytest.mark.req("SSE-05", "SSE-11")
def test_a_plain_stream_is_role_text_finish() -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
    extras: dict[str, Any] = {
        "executable_data": [],
        "thought": [],
        "conversation_id": None,
        "metadata": {"request_id": "req_1", "model": "m", "upstream": "up"},
    }

    def choice(delta: object, finish: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert stream(BEGAN, TextDelta("a"), TextDelta("b"), Finished("stop"), UsageReported(Usage(1, 2))) == [
        head | choice({"role": "assistant", "content": ""}) | {"executable_data": []},
        head | choice({"content": "a"}),
        head | choice({"content": "b"}),
        head | choice({}, "stop") | extras,
    ]


@pytest.mark.req("SSE-14")
def test_a_stream_of_nothing_still_holds_a_choice() -> None:
    frames = stream()
    assert [frame["choices"][0]["finish_reason"] for frame in frames] == [None, "stop"]
    assert frames[0]["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.req("SSE-12")
def test_usage_is_last_with_no_choices_and_null_before_and_adds_up() -> None:
    frames = stream(
        TextDelta("a"),
        ReasoningDelta("r"),
        TextDelta("b"),
        Finished("length"),
        UsageReported(Usage(1, 2, 1)),
        UsageReported(Usage(3, 4, 0, 2)),
        include_usage=True,
    )
    assert all(frame["usage"] is None for frame in frames[:-1])
    assert frames[-1]["choices"] == []
    assert frames[-1]["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 6,
        "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


@pytest.mark.req("SSE-07", "SSE-08", "SSE-09")
def test_a_call_names_itself_once() -> None:
    frames = stream(
        CallDelta(0, "", "c1", "f"), CallDelta(0, '{"a"'), CallDelta(0, ":1}"), CallDelta(1, "{}", "c2", "g"),
        Finished("tool_calls"),
    )  # fmt: skip
    calls = [frame["choices"][0]["delta"]["tool_calls"] for frame in frames[1:-1]]
    assert calls == [
        [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"a"'}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
        [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
    ]
    assert frames[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_old_form_has_function_call_and_its_own_finish() -> None:
    frames = stream(CallDelta(0, "", "c", "f"), CallDelta(0, "{}"), Finished("tool_calls"), legacy_functions=True)
    assert [frame["choices"][0]["delta"] for frame in frames[1:-1]] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]
    assert frames[-1]["choices"][0]["finish_reason"] == "function_call"


@pytest.mark.req("OAI-19", "SSE-05")
def test_each_choice_opens_with_its_role_and_only_the_last_finish_carries_the_extras() -> None:
    frames = stream(TextDelta("a"), TextDelta("b", 1), TextDelta("c", 1), Finished("stop", 1), Finished("length", 0))
    roles = [frame["choices"][0]["index"] for frame in frames if "role" in frame["choices"][0]["delta"]]
    assert roles == [0, 1]
    ends = [frame for frame in frames if frame["choices"][0]["finish_reason"]]
    assert [(end["choices"][0]["index"], end["choices"][0]["finish_reason"]) for end in ends] == [
        (0, "length"),
        (1, "stop"),
    ]
    assert ["metadata" in end for end in ends] == [False, True]
    assert next(frame for frame in frames if frame.get("executable_data") == []) is frames[0]


@pytest.mark.req("OAI-46")
def test_reasoning_refusal_citations_and_logprobs_have_their_deltas() -> None:
    token = TokenLogprob("é", -0.5, None, (TokenLogprob("e", -1.0, [101]),))
    frames = stream(
        ReasoningDelta("hm"), RefusalDelta("no"), Cited("http://a.test", "A", 0, 1), TextDelta("é", 0, (token,)),
        Finished("stop"),
    )  # fmt: skip
    deltas = [frame["choices"][0]["delta"] for frame in frames[1:-1]]
    assert deltas == [
        {"reasoning_content": "hm", "reasoning": "hm"},
        {"refusal": "no"},
        {
            "annotations": [
                {
                    "type": "url_citation",
                    "url_citation": {"url": "http://a.test", "title": "A", "start_index": 0, "end_index": 1},
                }
            ]
        },
        {"content": "é"},
    ]
    assert frames[-2]["choices"][0]["logprobs"]["content"] == [
        {
            "token": "é",
            "logprob": -0.5,
            "bytes": [195, 169],
            "top_logprobs": [{"token": "e", "logprob": -1.0, "bytes": [101]}],
        }
    ]
    assert frames[-1]["thought"] == ["hm"]


def test_progress_is_an_extra_key_on_a_valid_chunk_and_what_ran_comes_with_the_finish() -> None:
    step = StepChanged(id="s1", kind="tool", name="search", status="running", depends_on=("s0",))
    frames = stream(
        step,
        ToolRan(id="t", tool_name="search", args={"q": 1}),
        Noticed("odd", "words"),
        TextDelta("a"),
        Finished("stop"),
    )
    assert frames[1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None}]
    (shown,) = frames[1]["intermediate_steps"]
    assert (shown["id"], shown["status"], shown["depends_on"]) == ("s1", "running", ["s0"])
    assert not {"usage", "detail"} & set(shown)
    last = frames[-1]
    assert [(ran["id"], ran["tool_name"], ran["args"]) for ran in last["executable_data"]] == [
        ("t", "search", {"q": 1})
    ]
    assert last["metadata"]["notices"] == [{"code": "odd", "message": "words"}]


@pytest.mark.req("OAI-20", "OAI-23")
@pytest.mark.parametrize(
    ("began", "fields", "mark"),
    [
        (Began("up", "m", 'fp"1'), {}, 'fp"1'),
        (Began("up", "m", "fp"), {"seeded": True}, "fp"),
        (BEGAN, {}, None),
        (BEGAN, {"service_tier": True}, None),
    ],
)
def test_fingerprint_and_tier_are_on_every_chunk_or_on_none(
    began: Began, fields: dict[str, bool], mark: str | None
) -> None:
    frames = stream(began, TextDelta("a"), TextDelta("b"), Finished("stop"), include_usage=True, **fields)
    assert [frame.get("system_fingerprint") for frame in frames] == [mark] * len(frames)
    tier = "default" if "service_tier" in fields else None
    assert [frame.get("service_tier") for frame in frames] == [tier] * len(frames)
    assert frames[2]["choices"][0]["delta"] == {"content": "b"}


def test_a_seed_gives_the_same_fingerprint_each_time_and_another_for_another_model() -> None:
    marks = [
        stream(Began("up", model), TextDelta("a"), seeded=True)[0]["system_fingerprint"]
        for model in ("m", "m", "other")
    ]
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.req("SSE-15", "STREAM-12")
@pytest.mark.parametrize(
    "fault", [Malformed("broke off"), Busy("down"), BadRequest("no", param="x"), ConveneError("?")]
)
def test_a_fault_is_one_frame_with_all_four_keys_and_no_choices(fault: ConveneError) -> None:
    (frame,) = parse(ChatFrames.failure(fault))
    assert frame["choices"] == []
    assert set(frame["error"]) == {"message", "type", "param", "code"}
    assert frame["error"]["message"] == fault.message
    assert frame["error"]["param"] == fault.param


@pytest.mark.req("SSE-03")
@pytest.mark.parametrize(
    "text", ["\u2028", "a\u2029b", "\u0085", "\r\n", "\x0b\x0c\x1c\x1d\x1e", "é\u2028\u20ac\U0001f600"]
)
def test_no_line_splitter_finds_a_second_line(text: str) -> None:
    line = encode_line({"a": [text]})
    assert len(line.splitlines()) == 1
    assert len(line.decode().splitlines()) == 1
    assert msgspec.json.decode(line) == {"a": [text]}


PIECES = ("", "a", " b", "\u2028", '"', "\\", "é", "data: x\n\n", "[DONE]", "<think>", "\x00")


def draw_event(source: random.Random, opened: set[tuple[int, int]]) -> Event:
    """Return some event that a provider may emit."""
    choice = source.randrange(2)
    text = source.choice(PIECES)
    kind = source.randrange(6)
    if kind < 2:
        return TextDelta(text, choice, (TokenLogprob(text, 0.0),) if kind else ())
    if kind == 2:
        index = source.randrange(2)
        first = (choice, index) not in opened
        opened.add((choice, index))
        return CallDelta(index, text, f"c{choice}{index}" if first else None, "magic" if first else None, choice)
    if kind == 3:
        return ReasoningDelta(text, choice)
    if kind == 4:
        return RefusalDelta(text, choice)
    return StepChanged(id="s", kind="tool", name=text, status="done")


@pytest.mark.req(
    "SSE-04", "SSE-05", "SSE-06", "SSE-07", "SSE-08", "SSE-09", "SSE-11", "SSE-12", "STREAM-02", "STREAM-03"
)
def test_whatever_happens_in_a_turn_no_row_of_the_matrix_of_broken_streams_is_written() -> None:
    """Q05, Q07, Q09, Q11, Q16, Q19 to Q23 and Q25 of the conventions page, for 200 drawn turns."""
    for seed in range(200):
        source = random.Random(seed)  # noqa: S311 - repeatable on purpose
        opened: set[tuple[int, int]] = set()
        events: list[Event] = [draw_event(source, opened) for _ in range(source.randrange(12))]
        frames = stream(
            BEGAN, *events, Finished("stop", 0), Finished("length", 1), UsageReported(Usage(1, 1)),
            include_usage=bool(seed % 2), seeded=bool(seed % 3),
        )  # fmt: skip
        check(frames, with_usage=bool(seed % 2))


def check(frames: list[Any], *, with_usage: bool) -> None:
    """Hold a stream to what the strictest readers want."""
    seen: set[int] = set()
    named: set[tuple[int, int]] = set()
    finished: set[int] = set()
    assert len({(frame["id"], frame["created"], frame["model"], frame["object"]) for frame in frames}) == 1
    for frame in frames:
        assert isinstance(frame["choices"], list)
        assert ("usage" in frame) == with_usage
        if not frame["choices"]:
            assert with_usage
            assert frame is frames[-1]
        for choice in frame["choices"]:
            index, delta = choice["index"], choice["delta"]
            assert isinstance(delta, dict)
            assert index not in finished
            assert (delta.get("role") == "assistant") == (index not in seen)
            seen.add(index)
            assert choice["finish_reason"] in {None, "stop", "length"}
            if choice["finish_reason"]:
                finished.add(index)
                assert delta == {}
            assert None not in delta.values()
            for call in delta.get("tool_calls", []):
                key = (index, call["index"])
                assert type(call["index"]) is int
                assert isinstance(call["function"]["arguments"], str)
                assert (key not in named) == ("id" in call) == ("type" in call) == ("name" in call["function"])
                named.add(key)
    assert finished == {0, 1}

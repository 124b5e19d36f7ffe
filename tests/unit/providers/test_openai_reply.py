"""What hosts send, in all its variants, as events: files in, events out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.errors import BadRequest, Malformed, RateLimited, Unavailable
from convene.events import (
    Began,
    CallDelta,
    Event,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    TextDelta,
    TokenLogprob,
    UsageReported,
    fold,
)
from convene.messages import FunctionTool, Message, ToolCall
from convene.providers.base import Generation, Sampling
from convene.providers.openai_codec import PLAIN, Dialect
from convene.providers.openai_faults import Blamed
from convene.providers.openai_reply import ReplyReader
from convene.providers.openai_wire import WireChoice, WireChunk, WireMessage
from convene.providers.sse import EVENT_BYTES_MAX
from convene.usage import Usage, estimate_tokens
from fakes import FakeClock
from unit.providers.upstream_doubles import DONE, USAGE, ask, chunk, frame, whole

if TYPE_CHECKING:
    from convene.errors import ConveneError

BLAMED = Blamed("up", "asked-model", "http://a/v1", "sk-secret-1234567890")
TOOLED = Generation(messages=ask().messages, tools=(FunctionTool("look"),))
BEGAN = Began("up", "host-model")
USED = UsageReported(Usage(7, 3))


def reader_for(generation: Generation | None = None, dialect: Dialect = PLAIN) -> ReplyReader:
    return ReplyReader(generation or ask(), BLAMED, FakeClock(), dialect)


def read(body: bytes, generation: Generation | None = None, dialect: Dialect = PLAIN) -> list[Event]:
    reader = reader_for(generation, dialect)
    events = reader.read_whole(body)
    assert reader.verdict is None
    return events


def follow(*pieces: bytes, generation: Generation | None = None, dialect: Dialect = PLAIN) -> list[Event]:
    reader = reader_for(generation, dialect)
    events = [event for piece in pieces for event in reader.feed(piece)] + reader.end_stream()
    assert reader.verdict is None
    return events


def fail(*pieces: bytes, generation: Generation | None = None) -> tuple[list[Event], ConveneError, str]:
    """Return the events before the fault, the fault, and what the next try may be."""
    reader = reader_for(generation)
    events = [event for piece in pieces for event in reader.feed(piece)] + reader.end_stream()
    assert reader.verdict is not None
    return events, reader.verdict.fault, reader.verdict.next


def fail_whole(body: bytes) -> tuple[ConveneError, str]:
    reader = reader_for()
    reader.read_whole(body)
    assert reader.verdict is not None
    return reader.verdict.fault, reader.verdict.next


# --- whole replies ---


def test_a_whole_reply_is_began_text_finished_usage() -> None:
    assert read(whole("Hello")) == [BEGAN, TextDelta("Hello"), Finished("stop"), USED]


def test_fingerprint_and_model_are_the_hosts_own_words() -> None:
    assert read(whole("x", system_fingerprint="fp"))[0] == Began("up", "host-model", "fp")
    assert read(whole("x", model=None))[0] == Began("up", "asked-model")


def test_nulls_everywhere_are_an_empty_answer() -> None:
    message = {
        "role": None,
        "content": None,
        "refusal": None,
        "tool_calls": None,
        "function_call": None,
        "reasoning_content": None,
        "reasoning": None,
    }
    reply = whole(message, finish=None, system_fingerprint=None, error=None)
    assert read(reply) == [BEGAN, Finished("stop"), USED]


def test_a_reply_without_index_and_with_two_choices_is_counted_by_place() -> None:
    choices = [{"message": {"content": "a"}}, None, {"message": {"content": "b"}, "finish_reason": "length"}]
    events = read(whole("x", choices=choices))
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta("a", 0), TextDelta("b", 2)]
    assert [event for event in events if isinstance(event, Finished)] == [Finished("stop", 0), Finished("length", 2)]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_comes_by_any_of_its_names(key: str) -> None:
    assert read(whole({"content": "a", key: "because"}))[1:3] == [ReasoningDelta("because"), TextDelta("a")]


def test_reasoning_by_two_names_comes_once() -> None:
    events = read(whole({"content": "a", "reasoning_content": "r", "reasoning": "r"}))
    assert events[1:3] == [ReasoningDelta("r"), TextDelta("a")]


def test_content_may_be_a_list_of_parts_with_thinking_among_them() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "a"},
        "b",
        {"type": "image"},
        7,
    ]
    assert read(whole({"content": content}))[1:3] == [ReasoningDelta("hm"), TextDelta("ab")]


def test_a_refusal_is_a_refusal() -> None:
    assert read(whole({"content": None, "refusal": "No."}))[1] == RefusalDelta("No.")


@pytest.mark.req("OAI-41")
@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("stop", "stop"),
        ("eos", "stop"),
        ("end_turn", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "stop"),
        ("whatever", "stop"),
        ("", "stop"),
        (None, "stop"),
        (3, "stop"),
        (["stop"], "stop"),
    ],
)
def test_finish_reasons_become_one_of_ours(sent: object, meant: str) -> None:
    assert [event.reason for event in read(whole("x", finish=sent)) if isinstance(event, Finished)] == [meant]


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_a_host_that_says_it_failed_has_failed(reason: str) -> None:
    fault, after = fail_whole(whole("half an ans", finish=reason))
    assert isinstance(fault, Unavailable)
    assert after == "end"


def call(name: object = "look", arguments: object = "{}", **more: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def calls_of(events: list[Event]) -> tuple[ToolCall, ...]:
    return fold(events).choice(0).tool_calls


def test_calls_are_numbered_by_place_and_end_the_turn_as_tool_calls() -> None:
    message = {"content": None, "tool_calls": [call(id="a", arguments='{"q": 1}'), call("two", id="b"), None]}
    events = read(whole(message, finish="stop"))
    assert events[1:4] == [
        CallDelta(0, '{"q": 1}', "a", "look"),
        CallDelta(1, "{}", "b", "two"),
        Finished("tool_calls"),
    ]


def test_calls_cut_by_the_token_limit_still_say_length() -> None:
    events = read(whole({"tool_calls": [call(id="a", arguments='{"q')]}, finish="length"))
    assert events[1:3] == [CallDelta(0, '{"q', "a", "look"), Finished("length")]


def test_arguments_as_object_become_json_text_and_missing_ids_are_made() -> None:
    events = read(whole({"tool_calls": [call(arguments={"q": [1, "é"]}), call("two", None, id="")]}))
    first, second = calls_of(events)
    assert first.arguments == '{"q":[1,"é"]}'
    assert second.arguments == "{}"
    assert first.id.startswith("call_")
    assert first.id != second.id


def test_calls_of_one_id_or_index_in_a_whole_reply_are_still_several() -> None:
    events = read(whole({"tool_calls": [call(id="x", index=0), call("two", id="x", index=0)]}))
    assert [made.name for made in calls_of(events)] == ["look", "two"]


def test_the_old_function_call_is_a_call() -> None:
    events = read(whole({"function_call": {"name": "look", "arguments": "{}"}}, finish="function_call"))
    assert [made.name for made in calls_of(events)] == ["look"]
    assert Finished("tool_calls") in events


@pytest.mark.parametrize("arguments", ["{}", ""])
def test_a_call_without_a_name_is_malformed(arguments: str) -> None:
    fault, after = fail_whole(whole({"tool_calls": [call(None, arguments, id="a")]}))
    assert isinstance(fault, Malformed)
    assert after == "end"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b'"x"',
        b"null",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":null}',
        b'{"choices":[null]}',
        b"[" * 100_000,
        b'{"choices":' + b"[" * 100_000,
    ],
)
def test_what_is_no_reply_is_malformed_and_may_be_tried_again(body: bytes) -> None:
    fault, after = fail_whole(body)
    assert isinstance(fault, Malformed)
    assert after == "again"
    assert "up" in fault.message
    assert "http://a" not in fault.message
    assert "http://a/v1" in fault.detail


def test_an_error_in_a_200_is_judged_by_its_code() -> None:
    fault, after = fail_whole(b'{"error":{"message":"slow down","code":429}}')
    assert isinstance(fault, RateLimited)
    assert after == "elsewhere"
    fault, after = fail_whole(b'{"error":{"message":"too long","code":"context_length_exceeded"}}')
    assert isinstance(fault, BadRequest)
    assert fault.code == "context_length_exceeded"
    fault, after = fail_whole(b'{"object":"error","message":"too long","code":400}')
    assert isinstance(fault, BadRequest)
    fault, after = fail_whole(b'{"error":"boom"}')
    assert isinstance(fault, Unavailable)
    assert after == "again"


def test_characters_that_are_none_do_not_cost_the_answer() -> None:
    body = whole("x").replace(b'"x"', b'"a\\ud83d b\\ud83d\\ude00 c\\\\ud800 \xff"', 2)
    [text] = [event.text for event in read(body) if isinstance(event, TextDelta)]
    assert text == "a\ufffd b😀 c\\ud800 \ufffd"


# --- usage ---


def used(usage: object, generation: Generation | None = None, message: object = "Hello") -> Usage:
    return fold(read(whole(message, usage=usage), generation)).usage or Usage()


@pytest.mark.req("CHAT-07")
def test_cached_and_reasoning_tokens_are_read() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 8,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert used(usage) == Usage(9, 8, 5, 4)


def test_deepseeks_word_for_cached_tokens_is_read() -> None:
    assert used({"prompt_tokens": 9, "completion_tokens": 8, "prompt_cache_hit_tokens": 4}) == Usage(9, 8, 0, 4)


@pytest.mark.req("CHAT-07")
def test_reasoning_counted_beside_the_completion_is_added_to_it() -> None:
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 8,
        "total_tokens": 22,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert used(usage) == Usage(9, 13, 5)


def test_a_missing_completion_count_follows_from_the_total() -> None:
    assert used({"prompt_tokens": 9, "total_tokens": 17}) == Usage(9, 8)


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": None}, {"prompt_tokens": 0, "completion_tokens": 0}, {"prompt_tokens": "9"}]
)
def test_missing_usage_is_estimated_and_says_so(usage: object) -> None:
    message = {"content": "Hellö", "reasoning_content": "because"}
    assert used(usage, message=message) == Usage(
        estimate_tokens("Hello"), estimate_tokens("Hellöbecause"), estimate_tokens("because"), estimated=True
    )


def test_an_empty_answer_may_cost_no_completion_tokens() -> None:
    assert used({"prompt_tokens": 9, "completion_tokens": 0}, message={"content": ""}) == Usage(9, 0)


def test_calls_count_towards_an_estimate() -> None:
    message = {"tool_calls": [call(arguments='{"q": "word"}')]}
    assert used(None, message=message).completion_tokens == estimate_tokens('look{"q": "word"}')


# --- log probabilities ---

LOGGED = Generation(messages=ask().messages, sampling=Sampling(logprobs=True))


def tokens(*texts: str) -> dict[str, object]:
    return {"content": [{"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []} for text in texts]}


def with_logprobs(text: str, logprobs: object, generation: Generation = LOGGED) -> list[TextDelta]:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "stop", "logprobs": logprobs}
    return [event for event in read(whole("x", choices=[choice]), generation) if isinstance(event, TextDelta)]


@pytest.mark.req("OAI-21")
def test_log_probabilities_come_with_their_text() -> None:
    logprobs = {
        "content": [
            {
                "token": "Hi",
                "logprob": -0.1,
                "bytes": [72, 105],
                "top_logprobs": [{"token": "Yo", "logprob": None, "bytes": None}],
            }
        ]
    }
    [delta] = with_logprobs("Hi", logprobs)
    assert delta.logprobs == (TokenLogprob("Hi", -0.1, [72, 105], (TokenLogprob("Yo", -9999.0),)),)


@pytest.mark.req("OAI-21")
def test_tokens_of_markup_are_left_out_so_the_joined_tokens_are_the_text() -> None:
    deltas = with_logprobs("<think>a b</think>\nSo a b", tokens("<think>", "a", " b", "</think>", "\n", "So", " a b"))
    assert "".join(token.token for delta in deltas for token in delta.logprobs) == "So a b"


@pytest.mark.req("OAI-21")
def test_tokens_without_a_whole_character_wait_for_its_text() -> None:
    first = {"index": 0, "delta": {"content": ""}, "logprobs": tokens("\\xf0")}
    second = {"index": 0, "delta": {"content": "😀"}, "logprobs": tokens("😀")}
    events = follow(frame({"choices": [first]}), frame({"choices": [second]}), DONE, generation=LOGGED)
    [delta] = [event for event in events if isinstance(event, TextDelta)]
    assert [token.token for token in delta.logprobs] == ["\\xf0", "😀"]


def test_log_probabilities_are_left_out_when_nobody_asked_or_in_another_form() -> None:
    assert with_logprobs("Hi", tokens("Hi"), ask())[0].logprobs == ()
    assert with_logprobs("Hi", {"tokens": ["Hi"], "token_logprobs": [-1]})[0].logprobs == ()
    assert with_logprobs("Hi", [1])[0].logprobs == ()
    assert with_logprobs("Hi", None)[0].logprobs == ()


# --- streams ---


def test_a_stream_gives_the_events_of_the_whole_reply() -> None:
    events = follow(
        chunk({"role": "assistant", "content": ""}), chunk("Hel"), chunk("lo"), chunk(finish="stop"), USAGE, DONE
    )
    assert events == [BEGAN, TextDelta("Hel"), TextDelta("lo"), Finished("stop"), USED]


def test_events_come_as_soon_as_their_bytes() -> None:
    reader = reader_for()
    assert reader.feed(chunk("Hel")) == [BEGAN, TextDelta("Hel")]
    assert reader.feed(chunk("lo")) == [TextDelta("lo")]


def test_usage_on_the_last_ordinary_chunk_is_usage() -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    assert follow(chunk("a"), chunk(finish="stop", usage=usage), DONE)[-1] == USED


def test_of_running_usage_counts_the_last_is_right() -> None:
    running = [chunk("a", usage={"prompt_tokens": 7, "completion_tokens": count}) for count in (1, 2, 3)]
    assert follow(*running, chunk(finish="stop"), DONE)[-1] == USED


def test_a_first_chunk_without_choices_begins_nothing() -> None:
    reader = reader_for()
    assert reader.feed(frame({"model": "", "choices": [], "prompt_filter_results": []})) == []
    assert reader.feed(frame({"model": "m"})) == []
    assert reader.feed(chunk("a"))[0] == BEGAN


@pytest.mark.parametrize("delta", [None, {}, {"content": None}, {"role": None}, {"unknown": {"x": 1}}])
def test_chunks_that_say_nothing_give_no_event(delta: object) -> None:
    reader = reader_for()
    reader.feed(chunk("a"))
    body = {"choices": [{"index": None, "delta": delta}, None]}
    assert reader.feed(frame(body)) == []


def test_a_stream_without_done_is_fine_once_it_is_finished() -> None:
    assert follow(chunk("a"), chunk(finish="length"))[1:3] == [TextDelta("a"), Finished("length")]


def test_a_stream_with_done_but_no_finish_reason_is_fine() -> None:
    assert follow(chunk("a"), DONE)[1:3] == [TextDelta("a"), Finished("stop")]


def test_what_follows_done_is_not_read() -> None:
    assert follow(chunk("a"), DONE + chunk("b"), b"data: rubbish\n\n") == follow(chunk("a"), DONE)


def test_a_stream_that_stops_without_an_end_is_malformed_after_its_events() -> None:
    events, fault, after = fail(chunk("a"), chunk("b"))
    assert events == [BEGAN, TextDelta("a"), TextDelta("b")]
    assert isinstance(fault, Malformed)
    assert after == "end"


@pytest.mark.parametrize("pieces", [(), (b": ping\n\n",), (DONE,), (USAGE, DONE), (frame({"choices": None}),)])
def test_a_stream_without_a_choice_is_malformed_before_its_first_event_and_may_be_tried_again(
    pieces: tuple[bytes, ...],
) -> None:
    events, fault, after = fail(*pieces)
    assert events == []
    assert isinstance(fault, Malformed)
    assert after == "again"


@pytest.mark.parametrize(
    "error",
    [
        frame({"error": {"message": "boom at http://10.0.0.1", "code": 500}}),
        b"event: error\n" + frame({"error": {"message": "boom"}}),
        b"event: error\n" + frame({"message": "boom"}),
        b"event: error\ndata: boom\n\n",
        frame({"error": "boom", "choices": []}),
        frame({"object": "error", "message": "boom", "code": 500}),
        frame({"error": {"message": "boom", "code": 400}}),
    ],
)
def test_an_error_in_mid_stream_ends_it_after_its_events(error: bytes) -> None:
    events, fault, after = fail(chunk("a") + error)
    assert events == [BEGAN, TextDelta("a")]
    assert isinstance(fault, Unavailable)
    assert "boom" not in fault.message
    assert "boom" in fault.detail
    assert after == "end"


def test_an_error_before_the_first_event_counts_like_its_status() -> None:
    events, fault, after = fail(frame({"error": {"message": "busy", "code": "503"}}))
    assert (events, after) == ([], "again")
    assert isinstance(fault, Unavailable)
    _, fault, after = fail(frame({"error": {"message": "bad tool", "code": 400}}))
    assert isinstance(fault, BadRequest)
    assert fault.message == "bad tool"


def test_json_that_breaks_in_mid_stream_is_malformed_after_its_events() -> None:
    events, fault, _ = fail(chunk("a") + b'data: {"choices":[{\n\n')
    assert events == [BEGAN, TextDelta("a")]
    assert isinstance(fault, Malformed)


def test_events_of_unknown_type_are_skipped_unread() -> None:
    execute = b'event: execute\ndata: {"choices":[{"delta":{"content":"evil"}}]}\n\n'
    junk = b"event: asi.progress\ndata: not json\n\n"
    assert follow(execute, junk, b": ping\n\n", chunk("a"), DONE) == follow(chunk("a"), DONE)


@pytest.mark.req("OAI-19")
def test_several_choices_stream_side_by_side() -> None:
    two = msgspec.structs.replace(ask(stream=True), n=2)
    events = follow(
        chunk("a0"), chunk("b0", index=1), chunk("a1"), chunk(finish="length"), chunk(finish="stop", index=1), USAGE,
        generation=two,
    )  # fmt: skip
    assert events == [
        BEGAN,
        TextDelta("a0"),
        TextDelta("b0", 1),
        TextDelta("a1"),
        Finished("length"),
        Finished("stop", 1),
        USED,
    ]


def test_of_several_choices_all_must_end() -> None:
    two = msgspec.structs.replace(ask(stream=True), n=2)
    _, fault, _ = fail(chunk("a"), chunk(finish="stop"), generation=two)
    assert isinstance(fault, Malformed)


@pytest.mark.parametrize("index", [-1, 128, 10**12])
def test_a_choice_that_nobody_can_have_asked_for_is_malformed(index: int) -> None:
    _, fault, _ = fail(chunk("a", index=index))
    assert isinstance(fault, Malformed)


def test_an_event_that_is_too_large_is_malformed_after_the_events_before_it() -> None:
    events, fault, after = fail(chunk("a") + b"data: " + b"x" * EVENT_BYTES_MAX)
    assert events == [BEGAN, TextDelta("a")]
    assert isinstance(fault, Malformed)
    assert "http://a/v1" in fault.detail
    assert after == "end"


# --- calls in streams (matrix rows Q20 to Q26) ---


def piece(
    index: object = 0, call_id: object = None, name: object = None, arguments: object = None
) -> dict[str, object]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": call_id, "type": None, "function": function}


def stream_calls(*pieces: dict[str, object], finish: str = "tool_calls") -> list[Event]:
    frames = [chunk({"tool_calls": [each]}) for each in pieces]
    return follow(*frames, chunk(finish=finish), USAGE, DONE)


WANTED = [CallDelta(0, "", "a", "look"), CallDelta(0, '{"q"'), CallDelta(0, ":1}"), Finished("tool_calls")]


@pytest.mark.parametrize(
    "pieces",
    [
        [piece(0, "a", "look", ""), piece(0, arguments='{"q"'), piece(0, arguments=":1}")],
        [piece(None, "a", "look", ""), piece(None, arguments='{"q"'), piece(None, arguments=":1}")],
        [piece(None, "a", "look"), piece(None, "a", arguments='{"q"'), piece(None, "a", arguments=":1}")],
        [piece(0, "a", "look"), piece(0, "a", "look", '{"q"'), piece(0, "a", "look", ":1}")],
        [piece(0, "a", "look"), piece(0, "", "", '{"q"'), piece(0, "", "", ":1}")],
        [piece(0, "a", "look"), piece(0, "other", None, '{"q"'), piece(0, "another", None, ":1}")],
        [piece(3, "a", "look"), piece(3, arguments='{"q"'), piece(3, arguments=":1}")],
        [piece("0", "a", "look"), piece("0", arguments='{"q"'), piece("0", arguments=":1}")],
    ],
    ids=["plain", "Q20", "id-repeated", "Q21", "Q22", "changing-ids", "from-3", "text-index"],
)
@pytest.mark.req("SSE-08")
def test_a_call_in_pieces_is_one_call_named_once(pieces: list[dict[str, object]]) -> None:
    assert stream_calls(*pieces)[1:-1] == WANTED


def test_a_call_without_a_reason_of_its_own_still_ends_the_turn() -> None:
    assert Finished("tool_calls") in stream_calls(piece(0, "a", "look", "{}"), finish="stop")


def test_a_whole_call_in_one_piece_keeps_its_object_as_text() -> None:
    events = stream_calls(piece(0, "a", "look", {"q": 1}))
    assert events[1] == CallDelta(0, '{"q":1}', "a", "look")


def test_a_name_that_comes_late_is_waited_for() -> None:
    events = stream_calls(piece(0, "a"), piece(0, arguments='{"q"'), piece(0, name="look", arguments=":1}"))
    assert events[1:-2] == [CallDelta(0, '{"q":1}', "a", "look")]


def test_parallel_calls_keep_their_order_and_pieces() -> None:
    events = stream_calls(
        piece(0, "a", "look", '{"q":'), piece(1, "b", "two", "{"), piece(0, arguments="1}"), piece(1, arguments="}")
    )
    assert calls_of(events) == (ToolCall("a", "look", '{"q":1}'), ToolCall("b", "two", "{}"))


def test_several_calls_under_one_index_are_several_calls() -> None:
    events = stream_calls(piece(0, "a", "look", "{}"), piece(0, "b", "two", "{}"))
    assert calls_of(events) == (ToolCall("a", "look", "{}"), ToolCall("b", "two", "{}"))


def test_whole_calls_without_index_and_id_are_several_calls() -> None:
    events = stream_calls(piece(None, None, "look", {}), piece(None, None, "look", {}))
    assert [made.name for made in calls_of(events)] == ["look", "look"]


def test_a_call_whose_arguments_never_come_has_an_empty_object() -> None:
    assert calls_of(stream_calls(piece(0, "a", "look"))) == (ToolCall("a", "look", "{}"),)


def test_the_old_function_call_streams_too() -> None:
    pieces = [
        chunk({"function_call": {"name": "look", "arguments": ""}}),
        chunk({"function_call": {"arguments": "{}"}}),
    ]
    assert [made.arguments for made in calls_of(follow(*pieces, chunk(finish="function_call"), DONE))] == ["{}"]


def test_endless_calls_are_malformed() -> None:
    body = frame({"choices": [{"delta": {"tool_calls": [piece(None, None, "look", "{}")] * 1100}}]})
    _, fault, _ = fail(body)
    assert isinstance(fault, Malformed)


# --- markup ---


@pytest.mark.req("OAI-48")
def test_thinking_tags_in_a_stream_become_reasoning() -> None:
    events = follow(
        chunk("<th"), chunk("ink>a"), chunk("</think>\n"), chunk("b"), chunk("c"), chunk(finish="stop"), DONE
    )
    assert events[1:4] == [ReasoningDelta("a"), TextDelta("b"), TextDelta("c")]


@pytest.mark.req("OAI-48")
def test_a_template_that_opens_thinking_is_known_by_the_dialect() -> None:
    dialect = Dialect(template_opens_thinking=True)
    assert read(whole("a</think>b"), dialect=dialect)[1:3] == [ReasoningDelta("a"), TextDelta("b")]
    apart = whole({"reasoning_content": "a", "content": "b"})
    assert read(apart, dialect=dialect)[1:3] == [ReasoningDelta("a"), TextDelta("b")]
    streamed = follow(chunk({"reasoning_content": "a"}), chunk("b"), DONE, dialect=dialect)
    assert streamed[1:3] == [ReasoningDelta("a"), TextDelta("b")]


@pytest.mark.req("TOOLS-12")
def test_tool_tags_become_calls_when_the_request_had_tools() -> None:
    text = 'Wait.<tool_call>{"name":"look","arguments":{"q":1}}</tool_call>'
    events = read(whole(text), TOOLED)
    assert events[1] == TextDelta("Wait.")
    assert [(made.name, made.arguments) for made in calls_of(events)] == [("look", '{"q":1}')]
    assert Finished("tool_calls") in events
    assert read(whole(text))[1] == TextDelta(text)


@pytest.mark.req("TOOLS-12")
def test_tool_tags_become_calls_after_a_tools_result_too() -> None:
    messages = (*ask().messages, Message(role="tool", content="{}", tool_call_id="a"))
    events = read(whole('<tool_call>{"name":"look"}</tool_call>'), Generation(messages=messages))
    assert [made.name for made in calls_of(events)] == ["look"]


def test_held_text_comes_out_before_the_end() -> None:
    assert follow(chunk("a <tool_"), chunk(finish="stop"), DONE, generation=TOOLED)[1:4] == [
        TextDelta("a "),
        TextDelta("<tool_"),
        Finished("stop"),
    ]


LONG_STREAM = b"".join(
    [
        b"\xef\xbb\xbf: hello\r\n\r\n",
        chunk({"role": "assistant"}),
        chunk({"reasoning": "é"}),
        chunk('<tool_call>{"name"'),
        chunk(':"look"}</tool_call>'),
        chunk({"tool_calls": [piece(0, "a", "two", "{")]}),
        chunk({"tool_calls": [piece(0, None, None, "}")]}),
        chunk(finish="tool_calls"),
        USAGE,
        DONE,
    ]
)


@given(st.lists(st.integers(0, len(LONG_STREAM)), max_size=20).map(sorted))
def test_where_a_stream_is_cut_makes_no_difference(at: list[int]) -> None:
    pieces = [LONG_STREAM[start:end] for start, end in zip([0, *at], [*at, len(LONG_STREAM)], strict=True)]
    assert follow(*pieces, generation=TOOLED) == follow(LONG_STREAM, generation=TOOLED)


WORDS = [*WireChunk.__struct_fields__, *WireChoice.__struct_fields__, *WireMessage.__struct_fields__]
WORDS += ["object", "function", "name", "arguments", "id", "prompt_tokens"]
LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
JSON_VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=15,
)


@given(JSON_VALUES)
def test_no_json_makes_the_reader_raise(body: object) -> None:
    raw = msgspec.json.encode(body)
    whole_reader, stream_reader = reader_for(LOGGED), reader_for(TOOLED)
    whole_reader.read_whole(raw)
    stream_reader.feed(b"data: " + raw + b"\n\n")
    stream_reader.end_stream()
    assert whole_reader.complete != (whole_reader.verdict is not None)
    assert stream_reader.complete != (stream_reader.verdict is not None)

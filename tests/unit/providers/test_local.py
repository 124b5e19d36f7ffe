"""One generation on the embedded engine: what is sent, what comes back, and what is refused."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

import msgspec
import pytest

from convene.engine.base import EngineSettings, EngineStatus
from convene.errors import BadRequest, Busy, Malformed, Unavailable
from convene.events import Began, Finished, ReasoningDelta, TextDelta, UsageReported
from convene.http.base import Disconnected, Timeouts
from convene.messages import ImagePart, Message, OpaquePart, ResponseFormat, TextPart, ToolChoice
from convene.providers.base import Generation, Sampling
from convene.providers.local import LocalSettings
from convene.usage import Usage
from unit.providers.local_doubles import (
    DONE,
    OLD,
    PROGRESS,
    QUICK,
    USED,
    WEATHER,
    FakeEngine,
    body_of,
    counts,
    gather,
    make_chat,
    reach,
    refusal,
    reply,
    say,
    text_of,
)
from unit.providers.upstream_doubles import JSON, FakeResponse, Stall, chunk, frame, streamed

JSON_OBJECT = ResponseFormat(kind="json_object")
PERSON = ResponseFormat(
    kind="json_schema",
    schema={"type": "object", "properties": {"age": {"type": "integer", "maximum": 120}}, "required": ["age"]},
)


async def test_every_request_follows_the_recipe() -> None:
    chat, client = make_chat(reply("hello"))
    await gather(chat, say("hi"))
    (request,) = client.requests
    assert request.url == OLD.base_url + "/v1/chat/completions"
    assert ("authorization", "Bearer old-key") in request.headers
    assert request.fresh, "the child closes connections that it has promised to keep"
    assert body_of(request) == {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_progress": True,
        "n": 1,
        "temperature": 0.2,
        "top_p": 0.9,
        "max_tokens": 512,
    }


async def test_events_come_in_the_order_of_the_contract() -> None:
    chat, client = make_chat(reply("hel", "lo"))
    events, gathered = await gather(chat, say())
    assert [type(event) for event in events] == [Began, TextDelta, TextDelta, Finished, UsageReported]
    assert events[0] == Began("embedded", "tiny-1", gathered.began.fingerprint if gathered.began else None)
    assert text_of(gathered) == "hello"
    assert events[-1] == UsageReported(Usage(10, 4, cached_tokens=6))
    assert client.responses[0].closed


@pytest.mark.req("OAI-20")
async def test_the_fingerprint_is_ours_and_stays_the_same() -> None:
    prints = set()
    for _ in range(2):
        chat, _client = make_chat(reply("x"))
        _events, gathered = await gather(chat, say())
        assert gathered.began is not None
        prints.add(gathered.began.fingerprint)
    (fingerprint,) = prints
    assert fingerprint is not None
    assert re.fullmatch("fp_[0-9a-f]{10}", fingerprint)


@pytest.mark.req("OAI-04", "OAI-18", "OAI-20")
async def test_the_clients_own_sampling_wins() -> None:
    sampling = Sampling(
        temperature=1.5,
        top_p=0.5,
        max_tokens=7,
        stop=("END", ""),
        seed=-3,
        frequency_penalty=-2.0,
        presence_penalty=1.0,
        logit_bias={"57": -100.0, "x": 0.0},
    )
    chat, client = make_chat(reply("x"))
    await gather(chat, say(sampling=sampling))
    body = body_of(client.requests[0])
    assert body["temperature"] == 1.5
    assert body["top_p"] == 0.5
    assert body["max_tokens"] == 7
    assert body["stop"] == ["END"]
    assert body["seed"] == (-3) % 0xFFFF_FFFF
    assert body["frequency_penalty"] == -2.0
    assert body["presence_penalty"] == 1.0
    assert body["logit_bias"] == {"57": -100.0}


@pytest.mark.req("OAI-19")
async def test_n_choices_are_n_requests_with_their_usage_summed() -> None:
    chat, client = make_chat(reply("one"), reply("two"), reply("three", finish="length"))
    events, gathered = await gather(chat, say(n=3, sampling=Sampling(seed=5)))
    assert [text_of(gathered, choice) for choice in range(3)] == ["one", "two", "three"]
    assert [gathered.choices[choice].finish for choice in range(3)] == ["stop", "stop", "length"]
    assert [body_of(request)["seed"] for request in client.requests] == [5, 6, 7]
    assert [type(event) for event in events].count(Began) == 1
    assert events[-1] == UsageReported(Usage(30, 12, cached_tokens=18))


async def test_more_choices_than_the_cap_are_refused_by_name() -> None:
    chat, client = make_chat()
    with pytest.raises(BadRequest) as caught:
        await gather(chat, say(n=9))
    assert caught.value.param == "n"
    assert not client.requests


@pytest.mark.req("OAI-21")
@pytest.mark.parametrize("asked", [None, 0, 1])
async def test_log_probabilities_come_with_as_many_rivals_as_asked(asked: int | None) -> None:
    rivals = [{"token": "h", "logprob": -0.1, "bytes": [104]}, {"token": "j", "logprob": -1.8e308, "bytes": [106]}]
    token = {"id": 3, "token": "h", "logprob": -0.1, "bytes": [104], "top_logprobs": rivals}
    choice = {"index": 0, "delta": {"content": "h"}, "finish_reason": None, "logprobs": {"content": [token]}}
    piece = frame({"model": "tiny-1", "choices": [choice]})
    chat, client = make_chat(streamed(PROGRESS, piece, chunk(finish="stop"), USED, DONE))
    _events, gathered = await gather(chat, say(sampling=Sampling(logprobs=True, top_logprobs=asked)))
    assert body_of(client.requests[0])["top_logprobs"] == 1, "with 0 the child gives none at all"
    (found,) = gathered.choices[0].logprobs
    assert (found.token, found.logprob, found.bytes) == ("h", -0.1, [104])
    assert len(found.top_logprobs) == (asked or 0)


async def test_thinking_tags_of_a_pulled_model_are_no_content() -> None:
    chat, _client = make_chat(reply("<think>hm</think>", "yes"))
    events, gathered = await gather(chat, say())
    assert text_of(gathered) == "yes"
    assert ReasoningDelta("hm") in events


# The window.


async def test_a_short_prompt_is_not_counted() -> None:
    chat, client = make_chat(reply("x"))
    await gather(chat, say("hi " * 100))
    assert len(client.requests) == 1


@pytest.mark.req("OAI-06")
async def test_a_limit_above_what_the_window_leaves_is_clamped() -> None:
    chat, client = make_chat(*counts(2000), reply("x"))
    await gather(chat, say("word " * 400, sampling=Sampling(max_tokens=99_999)))
    assert [request.url.rsplit("/", 1)[1] for request in client.requests] == [
        "apply-template",
        "tokenize",
        "completions",
    ]
    assert body_of(client.requests[1]) == {"content": "rendered", "add_special": True, "parse_special": True}
    assert body_of(client.requests[2])["max_tokens"] == 48


async def test_what_was_cut_off_is_counted_by_the_models_own_tokenizer() -> None:
    written = FakeResponse(200, JSON, [msgspec.json.encode({"tokens": [7, 8, 9]})])
    chat, client = make_chat(written, *counts(21))
    assert await chat.tally(say("Hi."), "so far") == Usage(21, 3)
    paths = [request.url.rpartition("1001")[2] for request in client.requests]
    assert paths == ["/tokenize", "/apply-template", "/tokenize"]
    chat, _ = make_chat(*counts(21))
    assert await chat.tally(say("Hi."), "") == Usage(21, 0)


async def test_a_prompt_as_long_as_the_window_is_refused_with_both_figures() -> None:
    chat, client = make_chat(*counts(2048))
    with pytest.raises(BadRequest, match=r"2048 tokens.*window is 2048") as caught:
        await gather(chat, say("word " * 2000))
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert len(client.requests) == 2, "the model itself was not asked"


async def test_a_prompt_far_beyond_the_window_is_refused_uncounted() -> None:
    chat, client = make_chat()
    with pytest.raises(BadRequest, match="about") as caught:
        await gather(chat, say("x" * 128 * 2049))
    assert caught.value.code == "context_length_exceeded"
    assert not client.requests


async def test_a_length_refused_by_the_child_itself_reads_the_same() -> None:
    chat, _client = make_chat(refusal(400, "too big", "exceed_context_size_error", n_prompt_tokens=3031, n_ctx=2048))
    with pytest.raises(BadRequest, match=r"3031 tokens.*window is 2048") as caught:
        await gather(chat, say())
    assert caught.value.code == "context_length_exceeded"


# What the model cannot read.


@pytest.mark.req("OAI-04")
@pytest.mark.parametrize(
    ("part", "word"),
    [(ImagePart("data:image/png;base64,AA"), "image_url"), (OpaquePart("input_audio", {}), "input_audio")],
)
async def test_pictures_and_sounds_are_refused_naming_their_field(part: ImagePart | OpaquePart, word: str) -> None:
    chat, client = make_chat()
    messages = (Message(role="system", content="x"), Message(role="user", content=(TextPart("look"), part)))
    with pytest.raises(BadRequest, match=word) as caught:
        await gather(chat, Generation(messages=messages))
    assert caught.value.param == "messages[1].content[1]"
    assert not client.requests


async def test_a_bias_on_what_is_no_token_id_is_refused() -> None:
    chat, _client = make_chat()
    with pytest.raises(BadRequest) as caught:
        await gather(chat, say(sampling=Sampling(logit_bias={"foo": 3.0})))
    assert caught.value.param == "logit_bias"


async def test_no_messages_are_refused() -> None:
    chat, _client = make_chat()
    with pytest.raises(BadRequest) as caught:
        await gather(chat, Generation(messages=()))
    assert caught.value.param == "messages"


# Answers with a form.


@pytest.mark.req("OAI-16", "OAI-17", "STRUCT-01", "STRUCT-05")
@pytest.mark.parametrize("wanted", [JSON_OBJECT, PERSON])
async def test_a_form_is_sent_as_a_grammar_and_streams_as_it_comes(wanted: ResponseFormat) -> None:
    chat, client = make_chat(reply('{"age"', ":3}"))
    events, gathered = await gather(chat, say(response_format=wanted))
    grammar = body_of(client.requests[0])["grammar"]
    assert isinstance(grammar, str)
    assert grammar.startswith("%llguidance {}\nstart: %json {")
    assert '"whitespace_flexible": false' in grammar
    assert "response_format" not in body_of(client.requests[0])
    assert text_of(gathered) == '{"age":3}'
    assert [event for event in events if isinstance(event, TextDelta)] == [TextDelta('{"age"'), TextDelta(":3}")]


async def test_free_text_where_a_form_was_asked_is_refused_before_any_event() -> None:
    chat, client = make_chat(reply("Sure! Here", " you are"))
    async with aclosing(chat.generate(say(response_format=PERSON))) as events:
        with pytest.raises(BadRequest) as caught:
            await anext(events)
    assert caught.value.param == "response_format"
    assert client.responses[0].closed


@pytest.mark.req("STRUCT-06")
async def test_a_cut_off_form_ends_with_length() -> None:
    chat, _client = make_chat(reply('{"age":', finish="length"))
    _events, gathered = await gather(chat, say(response_format=PERSON))
    assert gathered.choices[0].finish == "length"


async def test_a_whole_answer_that_breaks_the_form_is_a_fault() -> None:
    chat, _client = make_chat(reply('{"age":300}'))
    with pytest.raises(Malformed) as caught:
        await gather(chat, say(response_format=PERSON))
    assert "300" not in caught.value.message + caught.value.detail


async def test_a_stop_string_may_cut_the_form() -> None:
    chat, _client = make_chat(reply('{"age"'))
    _events, gathered = await gather(chat, say(response_format=PERSON, sampling=Sampling(stop=(":",))))
    assert text_of(gathered) == '{"age"'


@pytest.mark.req("OAI-17", "STRUCT-06")
async def test_an_unsupported_keyword_is_refused_by_name() -> None:
    chat, client = make_chat()
    wanted = ResponseFormat(kind="json_schema", schema={"type": "string", "not": {"const": "a"}})
    with pytest.raises(BadRequest, match="'not'") as caught:
        await gather(chat, say(response_format=wanted))
    assert caught.value.param == "response_format"
    assert not client.requests


# Queue, cancel, faults.


async def test_closing_the_generator_closes_the_response_and_frees_the_place() -> None:
    engine = FakeEngine(settings=EngineSettings(slots=1))
    stall = Stall()
    chat, client = make_chat(streamed(PROGRESS, chunk("a"), stall), reply("b"), engine=engine)
    async with aclosing(chat.generate(say())) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                break
    assert client.responses[0].closed
    _events, gathered = await gather(chat, say())
    assert text_of(gathered) == "b"


async def test_cancelling_the_task_closes_the_response() -> None:
    stall = Stall()
    chat, client = make_chat(streamed(PROGRESS, stall))
    task = asyncio.create_task(gather(chat, say()))
    await reach(stall)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert client.responses[0].closed


async def test_requests_beyond_the_slots_wait_and_beyond_the_line_are_busy() -> None:
    engine = FakeEngine(settings=EngineSettings(slots=1))
    stall = Stall()
    settings = LocalSettings(waiting_max=1, waits=QUICK)
    first = streamed(PROGRESS, stall, chunk("a"), chunk(finish="stop"), USED, DONE)
    chat, client = make_chat(first, reply("b"), engine=engine, settings=settings)
    served = asyncio.create_task(gather(chat, say()))
    await reach(stall)
    waiting = asyncio.create_task(gather(chat, say()))
    await asyncio.sleep(0)
    with pytest.raises(Busy) as caught:
        await gather(chat, say())
    assert caught.value.retry_after_s is not None
    assert caught.value.retry_after_s >= 1
    assert len(client.requests) == 1, "whoever waits has sent nothing, so no time-out of theirs runs"
    stall.go_on.set()
    assert text_of((await served)[1]) == "a"
    assert text_of((await waiting)[1]) == "b"


async def test_a_child_that_dies_in_mid_answer_is_unavailable_and_not_asked_again() -> None:
    chat, client = make_chat(streamed(PROGRESS, chunk("a"), Disconnected(received=True)))
    with pytest.raises(Unavailable, match="restarts by itself") as caught:
        await gather(chat, say())
    assert caught.value.retry_after_s is not None
    assert len(client.requests) == 1


async def test_a_stream_without_an_end_is_no_answer() -> None:
    chat, _client = make_chat(streamed(PROGRESS, chunk("a")))
    with pytest.raises(Malformed):
        await gather(chat, say())


async def test_an_end_without_the_last_frames_is_an_answer_if_it_finished() -> None:
    broken = streamed(PROGRESS, chunk("a"), chunk(finish="stop"), Disconnected(received=True))
    chat, _client = make_chat(broken)
    _events, gathered = await gather(chat, say("hello"))
    assert text_of(gathered) == "a"
    assert gathered.usage is not None
    assert gathered.usage.estimated


async def test_an_error_inside_the_stream_is_a_fault() -> None:
    body = b'data: {"error":{"code":500,"message":"boom","type":"server_error"}}\n\n'
    chat, _client = make_chat(streamed(PROGRESS, chunk("a"), body))
    with pytest.raises(Unavailable):
        await gather(chat, say())


async def test_time_outs_are_those_of_the_settings() -> None:
    chat, client = make_chat(reply("x"))
    await gather(chat, say())
    assert client.requests[0].timeouts == Timeouts(first_byte_s=120.0, between_bytes_s=60.0, total_s=900.0)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (EngineStatus(state="ready"), None),
        (EngineStatus(state="fetching", completed_bytes=40_200_000, total_bytes=92_900_000), "fetching 40 of 93 MB"),
        (EngineStatus(state="fetching", detail="asking"), "fetching the weights (asking)"),
        (EngineStatus(state="loading"), "loading"),
        (EngineStatus(state="failed", detail="no room on the disk"), "failed (no room on the disk)"),
        (EngineStatus(state="absent"), "not started"),
    ],
)
async def test_readiness_is_the_engines_in_words(status: EngineStatus, words: str | None) -> None:
    chat, _client = make_chat(engine=FakeEngine(status=status))
    found = chat.ready()
    assert found == (None if words is None else f"tiny-1: {words}")


async def test_its_capabilities_are_those_of_a_small_text_model() -> None:
    chat, _client = make_chat()
    found = chat.capabilities
    assert (found.context_window, found.output_tokens_max, found.temperature) == (2048, 2047, 0.2)
    assert (found.vision, found.audio, found.files, found.tools, found.json_schema) == (False, False, False, True, True)
    assert chat.upstream == "embedded"


# A model whose template knows tools.

NATIVE = LocalSettings(native_tools=True, waits=QUICK)


async def test_native_tools_go_to_the_child_and_its_calls_come_back() -> None:
    piece = {
        "tool_calls": [{"index": 0, "id": "c1", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}]
    }
    stream = streamed(PROGRESS, chunk(piece), chunk(finish="tool_calls"), USED, DONE)
    chat, client = make_chat(*counts(100), stream, settings=NATIVE)
    generation = say(
        "weather in Rome?", tools=(WEATHER,), tool_choice=ToolChoice("required"), parallel_tool_calls=False
    )
    _events, gathered = await gather(chat, generation)
    body = body_of(client.requests[-1])
    assert isinstance(body["tools"], list)
    assert body["tools"][0]["function"]["name"] == "get_weather"
    assert body["tool_choice"] == "required"
    assert body["parallel_tool_calls"] is False
    assert body_of(client.requests[0])["tools"] == body["tools"], "they count as prompt"
    (call,) = gathered.choices[0].tool_calls
    assert (call.id, call.name, call.arguments) == ("c1", "get_weather", '{"city":"Rome"}')
    assert gathered.choices[0].finish == "tool_calls"


async def test_native_tools_beside_a_form_are_refused() -> None:
    chat, _client = make_chat(settings=NATIVE)
    with pytest.raises(BadRequest) as caught:
        await gather(chat, say(tools=(WEATHER,), response_format=PERSON))
    assert caught.value.param == "response_format"

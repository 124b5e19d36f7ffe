"""Streams of the chat endpoint, frame by frame, and through the official client's readers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from openai import APIError

from api.conftest import read_frames
from convene.config import Edge, Scripted

if TYPE_CHECKING:
    from pathlib import Path

    from api.conftest import Serve, Served

HELLO: Any = [{"role": "user", "content": "hello big world"}]
TOOLS: Any = [
    {"type": "function", "function": {"name": "one", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "two", "parameters": {"type": "object", "properties": {}}}},
]
MODELS = ("scripted-echo", "scripted-think", "scripted-tools")


def chunks_of(frames: list[Any]) -> list[dict[str, Any]]:
    """Return the chunks, after a check that `[DONE]` is last and only last."""
    assert frames[-1] == "[DONE]"
    chunks = frames[:-1]
    assert all(isinstance(chunk, dict) for chunk in chunks)
    return chunks


@pytest.mark.req("SSE-01", "STREAM-01", "OSDK-07")
async def test_the_head_forbids_caching_buffering_and_packing(served: Served) -> None:
    answer = await served.chat(stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in answer.headers
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("include_usage", [True, False])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.req("SSE-03", "SSE-04", "SSE-06", "SSE-14", "STREAM-02", "STREAM-03", "STREAM-11", "CHAT-33")
async def test_every_chunk_has_the_constant_fields_and_a_delta_object(
    served: Served, model: str, *, include_usage: bool
) -> None:
    options = {"include_usage": include_usage}
    chunks = chunks_of(await served.frames(model=model, tools=TOOLS, stream_options=options))
    assert len({(chunk["id"], chunk["created"], chunk["object"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert chunks[0]["id"].startswith("chatcmpl-")
    said = 0
    for chunk in chunks:
        assert isinstance(chunk["choices"], list)
        assert "error" not in chunk
        for choice in chunk["choices"]:
            assert set(choice) == {"index", "delta", "logprobs", "finish_reason"}
            assert isinstance(choice["delta"], dict)
            assert None not in choice["delta"].values()
            assert isinstance(choice["delta"].get("content", ""), str)
            said += bool(choice["delta"].keys() & {"content", "reasoning_content", "tool_calls"})
    assert said > 1


@pytest.mark.req("SSE-05", "SSE-11")
async def test_the_role_comes_first_and_once_and_the_finish_carries_no_content(served: Served) -> None:
    chunks = chunks_of(await served.frames())
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[0]["executable_data"] == []
    assert sum("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"]) == 1
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])


@pytest.mark.req("CHAT-43")
async def test_the_last_chunk_with_a_finish_reason_carries_the_extras(served: Served) -> None:
    answer = await served.chat(model="scripted-think", stream=True)
    last = read_frames(answer.text)[-2]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["executable_data"] == []
    assert last["conversation_id"] is None
    assert "3 words" in last["thought"][0]
    assert last["metadata"]["request_id"] == answer.headers["x-request-id"]
    assert last["metadata"]["upstream"] == "scripted"


@pytest.mark.req("SSE-12", "STREAM-09", "OAI-42")
async def test_asked_for_usage_comes_last_with_no_choices_and_is_null_before(served: Served) -> None:
    chunks = chunks_of(await served.frames(stream_options={"include_usage": True}))
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


@pytest.mark.parametrize(
    "options", [None, {}, {"include_usage": False}, {"continuous_usage_stats": True, "include_obfuscation": True}]
)
@pytest.mark.req("SSE-13", "SSE-19")
async def test_unasked_no_usage_comes_and_nothing_is_padded(served: Served, options: object) -> None:
    chunks = chunks_of(await served.frames(stream_options=options))
    assert all(chunk["choices"] for chunk in chunks)
    assert not any(chunk.keys() & {"usage", "obfuscation"} for chunk in chunks)


@pytest.mark.req("STREAM-04", "OAI-46")
async def test_reasoning_streams_under_both_names_before_the_content(served: Served) -> None:
    chunks = chunks_of(await served.frames(model="scripted-think"))
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    reasoning = [delta for delta in deltas if "reasoning_content" in delta]
    assert all(delta["reasoning"] == delta["reasoning_content"] for delta in reasoning)
    assert all("content" not in delta for delta in reasoning)
    text = "".join(delta["reasoning"] for delta in reasoning)
    assert text == chunks[-1]["thought"][0]


@pytest.mark.req("SSE-07", "SSE-08", "SSE-09", "SSE-10", "STREAM-07", "TOOLS-04")
async def test_calls_stream_by_index_with_id_type_and_name_once_and_arguments_in_pieces(served: Served) -> None:
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name in ("one", "two")
        for schema in [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}]
    ]
    chunks = chunks_of(await served.frames(model="scripted-tools", tools=tools))
    pieces = [
        piece for chunk in chunks for choice in chunk["choices"] for piece in choice["delta"].get("tool_calls", [])
    ]
    heads = [piece for piece in pieces if "id" in piece]
    assert [(head["index"], head["type"], head["function"]["name"]) for head in heads] == [
        (0, "function", "one"),
        (1, "function", "two"),
    ]
    assert all(isinstance(piece["index"], int) for piece in pieces)
    for piece in pieces:
        if "id" not in piece:
            assert set(piece) == {"index", "function"}
            assert set(piece["function"]) == {"arguments"}
        assert isinstance(piece["function"]["arguments"], str)
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.req("SSE-08", "SSE-05", "SSE-12", "STREAM-07")
async def test_the_stream_helper_of_the_official_client_gathers_calls_and_usage(served: Served) -> None:
    async with served.sdk.chat.completions.stream(
        model="scripted-tools", messages=HELLO, tools=TOOLS, stream_options={"include_usage": True}
    ) as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert [call.function.name for call in calls] == ["one", "two"]
    assert [call.function.arguments for call in calls] == ["{}", "{}"]
    assert final.usage is not None
    assert final.usage.total_tokens > 0
    assert "tool_calls.function.arguments.done" in events


@pytest.mark.parametrize("model", ["scripted-echo", "scripted-think"])
@pytest.mark.req("SSE-05", "SSE-06", "CHAT-08", "API-02")
async def test_raw_and_wrapped_reading_of_a_stream_give_the_same_text(served: Served, model: str) -> None:
    raw = ""
    async for chunk in await served.sdk.chat.completions.create(model=model, messages=HELLO, stream=True):
        raw += chunk.choices[0].delta.content or ""
    async with served.sdk.chat.completions.stream(model=model, messages=HELLO) as stream:
        final = await stream.get_final_completion()
    assert raw == final.choices[0].message.content == "hello big world"


@pytest.mark.req("SSE-15", "SSE-16", "STREAM-12", "OAI-42")
async def test_a_fault_in_mid_stream_is_one_error_frame_then_done_and_no_finish(served: Served) -> None:
    frames = await served.frames(model="scripted-fail-after", stream_options={"include_usage": True})
    assert frames[-1] == "[DONE]"
    fault = frames[-2]
    assert fault["choices"] == []
    assert set(fault["error"]) == {"message", "type", "param", "code"}
    assert fault["error"]["type"] == "server_error"
    assert sum("error" in frame for frame in frames) == 1
    assert not any(choice["finish_reason"] for frame in frames[:-1] for choice in frame["choices"])


@pytest.mark.req("SSE-15", "STREAM-12")
async def test_the_official_client_raises_the_error_of_a_fault_in_mid_stream(served: Served) -> None:
    text: list[str] = []

    async def read() -> None:
        chunks = await served.sdk.chat.completions.create(model="scripted-fail-after", messages=HELLO, stream=True)
        async for chunk in chunks:
            text.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - kept when it raises

    with pytest.raises(APIError, match="failed, as its script says") as caught:
        await read()
    assert "".join(text) == "This answer breaks"
    assert caught.value.code == "upstream_malformed"


@pytest.mark.req("ERR-07")
async def test_a_fault_before_the_first_event_has_its_real_status_on_a_stream_too(served: Served) -> None:
    answer = await served.chat(model="scripted-fail-before", stream=True)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["code"] == "model_unavailable"


def write_script(tmp_path: Path, steps: str) -> Scripted:
    """Return scripted models with one more, `mine`, that follows `steps`."""
    path = tmp_path / "script.toml"
    path.write_text(f'[[models]]\nname = "mine"\n[[models.turns]]\nsteps = [{steps}]\n')
    return Scripted(enabled=True, file=str(path))


@pytest.mark.req("SSE-03", "STREAM-02")
async def test_a_silent_stream_is_kept_alive_by_comments_and_stays_readable(serve: Serve, tmp_path: Path) -> None:
    scripted = write_script(tmp_path, '{text = "one"}, {pause_s = 0.5}, {text = " two"}')
    async with serve(scripted=scripted, edge=Edge(ping_s=0.1, first_event_s=5)) as one:
        answer = await one.chat(model="mine", stream=True)
        text = ""
        async for chunk in await one.sdk.chat.completions.create(model="mine", messages=HELLO, stream=True):
            text += chunk.choices[0].delta.content or ""
    blocks = answer.text[:-2].split("\n\n")
    comments = [place for place, block in enumerate(blocks) if block.startswith(":")]
    assert comments
    assert all(blocks[place] == ": ping" for place in comments)
    said = next(place for place, block in enumerate(blocks) if '"content":"one"' in block)
    assert comments[0] > said
    chunks_of(read_frames(answer.text))
    assert text == "one two"


async def test_when_the_first_event_is_late_the_head_leaves_and_a_fault_is_then_a_frame(
    serve: Serve, tmp_path: Path
) -> None:
    scripted = write_script(tmp_path, '{pause_s = 0.5}, {fail = "unavailable"}')
    async with serve(scripted=scripted, edge=Edge(ping_s=5, first_event_s=0.1)) as one:
        answer = await one.chat(model="mine", stream=True)
    assert answer.status_code == 200
    assert answer.text.startswith(": ping\n\n")
    frames = read_frames(answer.text)
    assert frames[0]["error"]["code"] == "model_unavailable"
    assert frames[1:] == ["[DONE]"]


async def test_a_first_event_wait_of_zero_does_not_spin(serve: Serve) -> None:
    async with serve(edge=Edge(ping_s=5, first_event_s=0)) as one:
        frames = await one.frames(model="scripted-slow")
    assert frames[-1] == "[DONE]"


@pytest.mark.req("SSE-03")
async def test_line_separators_of_unicode_reach_the_client_escaped(served: Served) -> None:
    text = "a\u2028b\u2029c\u0085d\r\ne\u0000f"
    answer = await served.chat(messages=[{"role": "user", "content": text}], stream=True)
    for raw in ("\u2028", "\u2029", "\u0085", "\r", "\u0000"):
        assert raw not in answer.text
    chunks = chunks_of(read_frames(answer.text))
    assert "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]) == text


@pytest.mark.req("OAI-35")
async def test_a_client_that_leaves_stops_the_model_and_what_it_used_is_logged(serve: Serve) -> None:
    async with serve() as one:
        long: Any = [{"role": "user", "content": "word " * 500}]
        stream = await one.sdk.chat.completions.create(model="scripted-slow", messages=long, stream=True)
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()
        others = [task for task in asyncio.all_tasks() if task.get_name().startswith("app POST")]
        assert not others
    (line,) = [line for line in one.lines if line["path"] == "/v1/chat/completions"]
    assert line["status"] == 499
    assert 0 < line["completion_tokens"] < 500
    assert line["prompt_tokens"] > 0

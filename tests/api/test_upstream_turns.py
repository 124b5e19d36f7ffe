"""Turns that an OpenAI-compatible upstream answers: what is handed on, and how its faults look from outside."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from api.conftest import read_frames
from convene.config import Model, Scripted, Upstream
from convene.http.base import ConnectFailed, Disconnected, TimedOut
from unit.providers.upstream_doubles import (
    DONE,
    USAGE,
    FakeClient,
    FakeResponse,
    Stall,
    chunk,
    ok,
    refused,
    streamed,
    whole,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from api.conftest import Serve, Served
    from convene.http.base import HttpError

URL = "http://127.0.0.1:9/v1"


def upstream(
    serve: Serve,
    *script: FakeResponse | HttpError | Stall,
    **model: Any,  # noqa: ANN401 - fields of Model
) -> tuple[AbstractAsyncContextManager[Served], FakeClient]:
    """Return a served application whose model `far` lives at a scripted upstream, and the upstream."""
    client = FakeClient(*script)
    manager = serve(
        connect=lambda _: client,
        scripted=Scripted(enabled=False),
        upstreams={"up": Upstream(base_url=URL, retries=0)},
        models={"far": Model(upstream=("up",), model="host-model", aliases=("near",), **model)},
    )
    return manager, client


def sent(client: FakeClient) -> dict[str, Any]:
    """Return the last body that went out."""
    body: dict[str, Any] = json.loads(client.requests[-1].body)
    return body


@pytest.mark.req("OAI-01", "CHAT-24")
async def test_unknown_fields_and_hints_travel_on_and_our_own_do_not(serve: Serve) -> None:
    manager, client = upstream(serve, ok(whole("hi")))
    async with manager as one:
        answer = await one.chat(
            model="near",
            top_k=5,
            enable_thinking=True,
            safety_identifier="s",
            study_mode=True,
            web_search=True,
            server_tools=False,
            max_tool_calls=3,
            on_disconnect="cancel",
            store=True,
            metadata={"a": "b"},
            logit_bias={"1": 0, "2": 5},
            max_tokens=0,
            temperature=0.5,
            api_base="http://evil.test",
        )
    assert answer.status_code == 200, answer.text
    body = sent(client)
    assert body["model"] == "host-model"
    assert (body["top_k"], body["enable_thinking"], body["safety_identifier"]) == (5, True, "s")
    assert body["logit_bias"] == {"2": 5}
    assert body["temperature"] == 0.5
    ours = {"study_mode", "web_search", "server_tools", "max_tool_calls", "on_disconnect", "api_base"}
    ours |= {"store", "metadata", "max_tokens"}
    assert not ours & set(body)
    assert answer.json()["model"] == "near"
    assert answer.json()["metadata"]["upstream"] == "up"


@pytest.mark.req("CHAT-04")
async def test_a_limit_above_the_window_is_cut_down_and_the_default_temperature_is_set(serve: Serve) -> None:
    manager, client = upstream(serve, ok(whole("hi")), ok(whole("hi")), context_window=4096, temperature=0.2)
    async with manager as one:
        await one.chat(model="far", max_tokens=32000)
        assert (sent(client)["max_tokens"], sent(client)["temperature"]) == (4096, 0.2)
        await one.chat(model="far", max_tokens=10, temperature=0)
        assert (sent(client)["max_tokens"], sent(client)["temperature"]) == (10, 0)


@pytest.mark.parametrize(
    ("fields", "lacks", "param"),
    [
        ({"logprobs": True}, {"logprobs": False}, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, {"tools": False}, "tools"),
        ({"response_format": {"type": "json_object"}}, {"json_schema": False}, "response_format"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "v"}}, {}, "modalities"),
    ],
)
@pytest.mark.req("OAI-04", "ERRSHAPE-05")
async def test_what_a_model_cannot_do_is_a_400_unsupported_parameter(
    serve: Serve, fields: dict[str, Any], lacks: dict[str, Any], param: str
) -> None:
    manager, client = upstream(serve, **lacks)
    async with manager as one:
        answer = await one.chat(model="far", **fields)
    assert answer.status_code == 400
    assert (answer.json()["error"]["code"], answer.json()["error"]["param"]) == ("unsupported_parameter", param)
    assert not client.requests


@pytest.mark.parametrize("depth", [*range(300, 1000, 25), 2000, 8000])
@pytest.mark.req("OAI-30")
async def test_deeply_nested_unknown_fields_never_break_the_server(serve: Serve, depth: int) -> None:
    manager, _ = upstream(serve, *[ok(whole("hi")) for _ in range(1)])
    async with manager as one:
        deep = '{"a":' * depth + "1" + "}" * depth
        body = f'{{"model": "far", "messages": [{{"role": "user", "content": "x"}}], "unknown": {deep}}}'
        answer = await one.http.post("/v1/chat/completions", content=body.encode(), headers=one.auth)
    assert answer.status_code in {200, 400}, answer.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (lambda: ConnectFailed("refused by 10.0.0.1"), 503, "model_unavailable"),
        (lambda: TimedOut("first_byte", 1.0), 504, "upstream_timeout"),
        (lambda: Disconnected(received=False), 503, "model_unavailable"),
        (lambda: refused(500, b'{"error": {"message": "stack trace of the host"}}'), 503, "model_unavailable"),
        (lambda: refused(401, b'{"error": {"message": "bad key sk-secret-1234567890"}}'), 502, "upstream_rejected"),
        (lambda: refused(429, b"{}", {"retry-after": "7"}), 429, "rate_limit_exceeded"),
        (lambda: ok(b"<html>not json</html>"), 502, None),
    ],
)
@pytest.mark.req("LIMIT-06", "OSDK-05", "ERR-09")
async def test_faults_of_the_upstream_have_a_real_status_streamed_or_not(
    serve: Serve, fault: Callable[[], FakeResponse | HttpError], status: int, code: str | None, *, stream: bool
) -> None:
    manager, _ = upstream(serve, fault())
    async with manager as one:
        answer = await one.chat(model="far", stream=stream)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert code is None or error["code"] == code
    for leak in ("10.0.0.1", "sk-secret", "stack trace", "127.0.0.1"):
        assert leak not in answer.text
    if status == 429:
        assert answer.headers["retry-after"] == "7"
        assert answer.headers["retry-after-ms"] == "7000"


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "magic", "arguments": "{"}}
QUIRKS: dict[str, list[bytes]] = {
    "Q01 comments": [b": hi\n\n", chunk({"role": "assistant", "content": "ok"}), chunk(None, finish="stop"), DONE],
    "Q02 CRLF": [chunk("ok").replace(b"\n", b"\r\n"), chunk(None, finish="stop"), DONE],
    "Q05 usage without choices": [
        chunk("ok"),
        chunk(None, finish="stop"),
        b'data: {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, "choices": null}\n\n',
        DONE,
    ],
    "Q07 no role": [chunk("ok"), chunk(None, finish="stop"), USAGE, DONE],
    "Q08 role always": [
        chunk({"role": "assistant", "content": "ok"}),
        chunk({"role": "assistant"}, finish="stop"),
        DONE,
    ],
    "Q09 null delta": [
        chunk("ok"),
        b'data: {"choices": [{"index": 0, "delta": null, "finish_reason": "stop"}]}\n\n',
        DONE,
    ],
    "Q10 no DONE": [chunk("ok"), chunk(None, finish="stop")],
    "Q16 named event": [b'event: asi.progress\ndata: {"a": 1}\n\n', chunk("ok"), chunk(None, finish="stop"), DONE],
    "Q18 reasoning": [chunk({"reasoning": "hm"}), chunk("ok"), chunk(None, finish="stop"), DONE],
    "Q20 call without index": [
        chunk({"tool_calls": [{key: CALL[key] for key in ("id", "type", "function")}]}),
        chunk({"tool_calls": [{"function": {"arguments": "}"}}]}),
        chunk(None, finish="tool_calls"),
        DONE,
    ],
    "Q21 name repeated": [
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [CALL | {"function": {"name": "magic", "arguments": "}"}}]}),
        chunk(None, finish="tool_calls"),
        DONE,
    ],
    "Q22 empty later": [
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [{"index": 0, "id": "", "function": {"name": "", "arguments": "}"}}]}),
        chunk(None, finish="tool_calls"),
        DONE,
    ],
    "Q23 null later": [
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [{"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": "}"}}]}),
        chunk(None, finish="tool_calls"),
        DONE,
    ],
    "Q25 object arguments": [
        chunk({"tool_calls": [CALL | {"function": {"name": "magic", "arguments": {}}}]}),
        chunk(None, finish="tool_calls"),
        DONE,
    ],
    "Q26 calls but stop": [
        chunk({"tool_calls": [CALL | {"function": {"name": "magic", "arguments": "{}"}}]}),
        chunk(None, finish="stop"),
        DONE,
    ],
}


@pytest.mark.parametrize("row", QUIRKS)
@pytest.mark.req("SSE-03", "SSE-04", "SSE-05", "SSE-06", "SSE-07", "SSE-08", "SSE-09", "SSE-10", "SSE-14", "DEC-21")
async def test_no_quirk_of_an_upstream_ever_shows_in_our_stream(serve: Serve, row: str) -> None:
    manager, _ = upstream(serve, streamed(*QUIRKS[row]))
    tools = [{"type": "function", "function": {"name": "magic", "parameters": {"type": "object"}}}]
    async with manager as one:
        answer = await one.chat(model="far", stream=True, tools=tools, stream_options={"include_usage": True})
    assert answer.status_code == 200, answer.text
    assert "event:" not in answer.text
    assert "\r" not in answer.text
    *chunks, done = read_frames(answer.text)
    assert done == "[DONE]"
    check_chunks(chunks)
    calls = [piece for one_chunk in chunks for c in one_chunk["choices"] for piece in c["delta"].get("tool_calls", [])]
    finish = [c["finish_reason"] for one_chunk in chunks for c in one_chunk["choices"] if c["finish_reason"]]
    if "call" in row or row[:3] in {"Q21", "Q22", "Q23", "Q25", "Q26"}:
        assert [piece["function"]["name"] for piece in calls if "name" in piece["function"]] == ["magic"]
        assert json.loads("".join(piece["function"]["arguments"] for piece in calls)) == {}
        assert finish == ["tool_calls"]
    else:
        assert not calls
        assert finish == ["stop"]
        text = "".join(c["delta"].get("content", "") for one_chunk in chunks for c in one_chunk["choices"])
        assert text == "ok"


def check_chunks(chunks: list[dict[str, Any]]) -> None:
    """Hold a stream with usage to what strict readers want."""
    assert len({(one["id"], one["created"], one["object"], one["model"]) for one in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all(one["usage"] is None for one in chunks[:-1])
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    for one in chunks:
        for choice in one["choices"]:
            assert isinstance(choice["delta"], dict)
            for call in choice["delta"].get("tool_calls", []):
                assert isinstance(call["index"], int)
                assert isinstance(call["function"]["arguments"], str)
                assert None not in call.values()
                assert ("id" in call) == ("name" in call["function"]) == ("type" in call)


@pytest.mark.parametrize(
    "pieces",
    [
        [chunk("half"), Disconnected(received=True)],
        [chunk("half")],
        [chunk("half"), b'data: {"error": {"message": "boom"}}\n\n'],
        [chunk("half"), b'event: error\ndata: {"error": {"message": "boom"}}\n\n'],
        [chunk("half"), b"data: {broken\n\n"],
        [chunk("half"), TimedOut("between_bytes", 1.0)],
        [chunk("half"), chunk(None, finish="error")],
    ],
)
@pytest.mark.req("SSE-15", "SSE-16", "STREAM-12")
async def test_an_upstream_that_breaks_in_mid_stream_ends_ours_in_one_error_frame(
    serve: Serve, pieces: list[bytes | HttpError]
) -> None:
    manager, _ = upstream(serve, streamed(*pieces))
    async with manager as one:
        answer = await one.chat(model="far", stream=True)
    *chunks, fault, done = read_frames(answer.text)
    assert done == "[DONE]"
    assert set(fault["error"]) == {"message", "type", "param", "code"}
    assert fault["choices"] == []
    assert not any(c["finish_reason"] for one_chunk in chunks for c in one_chunk["choices"])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.req("OAI-43", "OAI-41")
async def test_a_refusal_and_a_filter_are_told_apart(serve: Serve, *, stream: bool) -> None:
    message = {"role": "assistant", "content": None, "refusal": "I will not."}
    manager, _ = upstream(
        serve,
        streamed(chunk({"refusal": "I will not."}), chunk(None, finish="content_filter"), DONE)
        if stream
        else ok(whole(message, finish="content_filter")),
    )
    async with manager as one:
        answer = await one.chat(model="far", stream=stream)
    if stream:
        chunks = read_frames(answer.text)[:-1]
        assert (
            "".join(c["delta"].get("refusal", "") for one_chunk in chunks for c in one_chunk["choices"])
            == "I will not."
        )
        assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"
    else:
        choice = answer.json()["choices"][0]
        assert (choice["message"]["refusal"], choice["finish_reason"]) == ("I will not.", "content_filter")
        assert choice["message"]["content"] == ""


async def test_estimated_usage_is_marked_by_a_notice(serve: Serve) -> None:
    manager, _ = upstream(serve, ok(whole("hello there", usage=None)))
    async with manager as one:
        reply = (await one.chat(model="far")).json()
    assert [notice["code"] for notice in reply["metadata"]["notices"]] == ["usage_estimated"]
    assert reply["usage"]["completion_tokens"] > 0


@pytest.mark.req("OAI-35")
async def test_a_client_that_leaves_closes_the_upstream_and_its_use_is_counted(serve: Serve) -> None:
    stall = Stall()
    response = streamed(chunk("twelve bytes"), stall)
    manager, _ = upstream(serve, response)
    async with manager as one:
        body = {"model": "far", "messages": [{"role": "user", "content": "abcdef"}], "stream": True}
        async with one.http.stream("POST", "/v1/chat/completions", json=body, headers=one.auth) as answer:
            assert answer.status_code == 200
            async with asyncio.timeout(60):
                await stall.reached.wait()
        assert response.closed
    (line,) = one.lines
    assert (line["status"], line["prompt_tokens"], line["completion_tokens"]) == (499, 6, 4)


@pytest.mark.req("OAI-35")
async def test_a_client_that_leaves_a_whole_reply_closes_the_upstream_too(serve: Serve) -> None:
    stall = Stall()
    response = FakeResponse(200, {"content-type": "application/json"}, [stall])
    manager, _ = upstream(serve, response)
    async with manager as one:
        asking = asyncio.create_task(one.chat(model="far"))
        async with asyncio.timeout(60):
            await stall.reached.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert response.closed
    assert [line["status"] for line in one.lines] == [499]

"""The access log tells who asked for what and how it went, and never a prompt, an answer or a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from api.conftest import Serve

SECRET_WORDS = "xyzzy plugh"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.req("OPS-17")
async def test_a_line_has_the_agreed_fields(serve: Serve, *, stream: bool) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with serve() as one:
        body = {"model": "scripted-echo", "messages": [{"role": "user", "content": SECRET_WORDS}], "stream": stream}
        headers = one.auth | {"x-request-id": "mine-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        await one.http.post("/v1/chat/completions?debug=1", json=body, headers=headers)
    (line,) = one.lines
    assert {name: line[name] for name in line if name not in {"ts", "duration_ms", "ttft_ms", "key"}} == {
        "level": "info",
        "event": "request",
        "request_id": "mine-1",
        "trace_id": trace,
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "model": "scripted-echo",
        "upstream": "scripted",
        "stream": stream,
        "finish": "stop",
        "prompt_tokens": 2,
        "completion_tokens": 2,
    }
    assert line["ts"] > 1_700_000_000
    assert 0 <= line["ttft_ms"] <= line["duration_ms"]
    assert line["key"]
    assert line["key"] not in one.key or len(line["key"]) < len(one.key)
    assert one.key not in repr(one.lines)
    assert "xyzzy" not in repr(one.lines)


@pytest.mark.parametrize("given", ["", "00-xyz-b7ad6b7169203331-01", "00-" + "0" * 32, "a" * 200])
async def test_a_trace_header_that_is_none_is_left_out(serve: Serve, given: str) -> None:
    async with serve() as one:
        await one.http.get("/health", headers={"traceparent": given})
    (line,) = one.lines
    assert "trace_id" not in line


@pytest.mark.req("OPS-17")
async def test_refusals_are_logged_with_their_status_and_without_a_key(serve: Serve) -> None:
    async with serve() as one:
        await one.http.get("/v1/models", headers={"Authorization": "Bearer convene_wrongkey1234"})
        await one.http.get("/none")
        await one.chat(model="scripted-fail-before")
        await one.chat(model="scripted-fail-after", stream=True)
    assert [(line["status"], line["path"]) for line in one.lines] == [
        (401, "/v1/models"),
        (404, "/none"),
        (503, "/v1/chat/completions"),
        (200, "/v1/chat/completions"),
    ]
    assert [line.get("finish") for line in one.lines] == [None, None, "model_unavailable", "upstream_malformed"]
    assert one.lines[3]["completion_tokens"] > 0
    assert "wrongkey" not in repr(one.lines)


async def test_the_log_can_be_switched_off(serve: Serve) -> None:
    async with serve(access_log=False) as one:
        await one.chat()
    assert one.lines == []

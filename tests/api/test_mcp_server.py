"""This server as an MCP server: the official client in both eras, raw requests, faults, cancellation, hops."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from api.conftest import BASE
from api.test_agents import call, text
from convene.config import Plan
from market_doubles import ADDRESS, OTHER, Market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx2

    from api.conftest import Served

MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])
MODERN = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@asynccontextmanager
async def client(served: Served, mode: str = "auto", key: str = "") -> AsyncIterator[Client]:
    """Yield the official client, connected in process."""
    headers = {"Authorization": f"Bearer {key or served.key}"}
    served.http.headers.update(headers)
    transport = streamable_http_client(f"{BASE}/mcp", http_client=served.http)
    async with Client(transport, mode=mode, read_timeout_seconds=20) as one:
        yield one


async def post(served: Served, message: Any, headers: dict[str, str] | None = None) -> httpx2.Response:  # noqa: ANN401
    content = message if isinstance(message, bytes) else json.dumps(message).encode()
    base = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    return await served.http.post("/mcp", content=content, headers=served.auth | base | (headers or {}))


def request(method: str, params: dict[str, Any] | None = None, number: Any = 1) -> dict[str, Any]:  # noqa: ANN401
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}


def modern(method: str, params: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return a request of the newest revision and its headers."""
    params = {"_meta": META} | (params or {})
    headers = {"mcp-protocol-version": MODERN, "mcp-method": method}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return request(method, params), headers


def events(answer: httpx2.Response) -> list[Any]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.req("MCP-05")
@MODES
async def test_the_official_client_asks_and_the_books_have_it(served: Served, mode: str) -> None:
    async with client(served, mode) as one:
        tools = await one.list_tools()
        assert [tool.name for tool in tools.tools] == ["ask"]
        result = await one.call_tool("ask", {"prompt": "hello, ü", "model": "scripted-echo"})
    assert not result.is_error
    assert result.content[0].text == "hello, ü"  # type: ignore[union-attr]  # it is a text
    assert result.structured_content is not None
    assert result.structured_content["answer"] == "hello, ü"
    run = await served.http.get(f"/v1/runs/{result.structured_content['run_id']}", headers=served.auth)
    assert run.json()["status"] == "completed" or run.json()["status"] == "done"
    entries = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert [(entry["served_by"], entry["status"]) for entry in entries] == [("scripted-echo", "ok")]


@MODES
async def test_progress_is_told_while_a_model_works_and_asks_an_agent(play: Any, mode: str) -> None:  # noqa: ANN401
    market = Market().add("booker", 0.05, "Booked: table 7.")
    said: list[str] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        del progress, total
        said.append(message or "")

    async with play([call()], [text("It is done.")], box=market) as served, client(served, mode) as one:
        result = await one.call_tool("ask", {"prompt": "book me a table in Rome"}, progress_callback=note)
    assert result.structured_content is not None
    assert result.structured_content["answer"] == "It is done."
    assert result.structured_content["agents"][0]["address"] == ADDRESS
    assert any("booker: message_dispatched" in words for words in said)
    assert said[-1] == "answering"


@MODES
async def test_agents_are_found_and_asked_word_for_word(play: Any, mode: str) -> None:  # noqa: ANN401
    market = Market().add("booker", "Table *7*.\n\nNo more. ")
    async with play([text("the model")], box=market) as served, client(served, mode) as one:
        assert [tool.name for tool in (await one.list_tools()).tools] == ["ask", "search_agents", "call_agent"]
        found = await one.call_tool("search_agents", {"query": "tables"})
        assert found.structured_content is not None
        [agent] = found.structured_content["agents"]
        assert (agent["agent"], agent["name"]) == (ADDRESS, "booker")
        asked = await one.call_tool("call_agent", {"agent": "@booker", "message": "a table"})
        unknown = await one.call_tool("call_agent", {"agent": OTHER, "message": "a table"})
        entries = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
    assert asked.content[0].text == "Table *7*.\n\nNo more. "  # type: ignore[union-attr]  # it is a text
    assert unknown.is_error
    assert "No agent is known as" in unknown.content[0].text  # type: ignore[union-attr]  # it is a text
    assert [(entry["agent_calls"], entry["total_tokens"]) for entry in entries] == [(1, 0)]


async def test_an_agent_that_fails_is_a_failed_result(play: Any) -> None:  # noqa: ANN401
    down = Market().add("booker", "x")
    down.agents[ADDRESS] = (down.agents[ADDRESS][0], ())
    async with play([text("the model")], box=down) as served, client(served) as one:
        result = await one.call_tool("call_agent", {"agent": "@booker", "message": "a table"})
    assert "without an answer" in result.content[0].text  # type: ignore[union-attr]  # it is a text


async def test_a_conversation_is_remembered_for_its_owner_alone(play: Any) -> None:  # noqa: ANN401
    async with play([text("first")], [text("second")], [text("third")]) as served, client(served) as one:
        for prompt in ("one", "two"):
            await one.call_tool("ask", {"prompt": prompt, "conversation": "c"})
        listed = (await served.http.get("/v1/sessions", headers=served.auth)).json()["data"]
        assert [one["id"] for one in listed] == ["mcp:c"]
        entries = (await served.http.get("/v1/usage/requests", headers=served.auth)).json()["data"]
        assert {entry["session"] for entry in entries} == {"mcp:c"}
        owner = entries[0]["key"]
        notes = await served.app.runs.sessions.recall(owner, "mcp:c")
    said = [json.loads(body) for body in notes.values()]
    assert [(one["said"], one["answered"]) for one in said] == [("one", "first"), ("two", "second")]


async def test_what_a_limit_refuses_is_a_result_that_a_model_can_read(play: Any) -> None:  # noqa: ANN401
    plans = {"owner": Plan(requests_per_minute=1)}
    async with play([text("first")], plans=plans) as served, client(served) as one:
        assert not (await one.call_tool("ask", {"prompt": "one"})).is_error
        result = await one.call_tool("ask", {"prompt": "two"})
    assert result.is_error
    assert result.structured_content is not None
    assert result.structured_content["error"]["code"] == "rate_limit_exceeded"
    assert "Try again in" in result.content[0].text  # type: ignore[union-attr]  # it is a text


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ask", {}),
        ("ask", {"prompt": 5}),
        ("ask", {"prompt": "x", "who": "me"}),
        ("ask", {"prompt": " "}),
        ("ask", {"prompt": "x", "model": "no-such-model"}),
        ("search_agents", {"query": []}),
        ("call_agent", {"agent": "x"}),
        ("call_agent", {"agent": "x", "message": "y"}),
    ],
)
async def test_arguments_that_are_not_as_they_should_be_are_a_failed_result(
    served: Served, name: str, arguments: dict[str, Any]
) -> None:
    answer = await post(served, request("tools/call", {"name": name, "arguments": arguments}))
    assert answer.status_code == 200
    [message] = events(answer)
    assert message["result"]["isError"] is True


async def test_a_fault_of_ours_ends_the_stream_and_tells_nothing(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(served.app.answering.answering, "ask", broken)
    answer = await post(served, request("tools/call", {"name": "ask", "arguments": {"prompt": "x"}}))
    assert "secret" not in answer.text
    assert events(answer)[0]["result"]["isError"] is True


async def test_who_reads_no_streams_gets_json(served: Served) -> None:
    message = request("tools/call", {"name": "ask", "arguments": {"prompt": "hi", "model": "scripted-echo"}})
    answer = await post(served, message, {"accept": "application/json"})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["result"]["structuredContent"]["answer"] == "hi"


async def test_a_key_is_asked_for(served: Served) -> None:
    for headers in ({"authorization": "Bearer no"}, {"authorization": ""}):
        answer = await served.http.post("/mcp", json=request("ping"), headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.test", 403),
        ("http://convene.test", 403),
        ("null", 403),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:8000", 200),
        ("https://public.test", 200),
        ("https://listed.test", 200),
    ],
)
async def test_a_page_of_a_foreign_origin_may_not_ask_whatever_name_it_has_made_lead_here(
    serve: Any,  # noqa: ANN401 -- a fixture's factory
    origin: str,
    status: int,
) -> None:
    async with serve(public_url="https://public.test", cors_origins=("https://listed.test",)) as served:
        answer = await post(served, request("ping"), {"origin": origin})
    assert answer.status_code == status


async def test_there_is_nothing_to_listen_to_and_no_session_to_end(served: Served) -> None:
    for method in ("GET", "DELETE"):
        answer = await served.http.request(method, "/mcp", headers=served.auth)
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.req("MCP-02")
@pytest.mark.parametrize(
    ("asked", "given"),
    [("2025-11-25", "2025-11-25"), ("2024-11-05", "2024-11-05"), ("1999-01-01", "2025-11-25"), (None, "2025-11-25")],
)
async def test_older_clients_are_greeted_in_their_revision(served: Served, asked: str | None, given: str) -> None:
    params = {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await post(served, request("initialize", params))
    assert answer.json()["result"]["protocolVersion"] == given
    assert len(answer.headers["mcp-session-id"]) == 32
    note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await post(served, note)).status_code == 202


@pytest.mark.parametrize(
    ("change", "headers", "code"),
    [
        ({}, {"mcp-method": "tools/call"}, -32020),
        ({}, {"mcp-protocol-version": "2025-11-25"}, -32020),
        ({"_meta": {}}, {}, -32020),
        (
            {"_meta": META | {"io.modelcontextprotocol/protocolVersion": "2027-01-01"}},
            {"mcp-protocol-version": "2027-01-01"},
            -32022,
        ),
        ({"_meta": {"io.modelcontextprotocol/protocolVersion": MODERN}}, {}, -32602),
    ],
)
async def test_a_modern_request_says_the_same_in_its_headers_and_its_body(
    served: Served, change: dict[str, Any], headers: dict[str, str], code: int
) -> None:
    message, usual = modern("tools/list", change)
    answer = await post(served, message, usual | headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert answer.json()["id"] == 1


async def test_a_version_that_nobody_speaks_is_answered_with_those_that_are(served: Served) -> None:
    answer = await post(served, request("ping"), {"mcp-protocol-version": "1999-01-01"})
    assert answer.json()["error"]["data"] == {
        "supported": [MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"],
        "requested": "1999-01-01",
    }


async def test_the_name_of_a_tool_stands_in_a_header_too(served: Served) -> None:
    message, headers = modern("tools/call", {"name": "ask", "arguments": {"prompt": "hi", "model": "scripted-echo"}})
    assert (await post(served, message, headers | {"mcp-name": "other"})).json()["error"]["code"] == -32020
    assert (await post(served, message, headers | {"mcp-name": "=?base64?!?="})).json()["error"]["code"] == -32020
    result = events(await post(served, message, headers | {"mcp-name": "=?base64?YXNr?="}))[0]["result"]
    assert result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "convene"


async def test_what_is_not_offered_is_said(served: Served) -> None:
    message, headers = modern("subscriptions/listen")
    answer = await post(served, message, headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)
    assert (await post(served, request("prompts/list"))).json()["error"]["code"] == -32601
    unknown = request("tools/call", {"name": "rm", "arguments": {}})
    assert (await post(served, unknown)).json()["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 5000, -32700),
        (b"[]", -32600),
        (b'"x"', -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[1]}', -32602),
    ],
)
async def test_what_is_no_request_is_refused_in_the_words_of_the_protocol(
    served: Served, body: bytes, code: int
) -> None:
    answer = await post(served, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_a_client_that_leaves_ends_its_call(play: Any) -> None:  # noqa: ANN401
    async with play([{"pause_s": 30}, text("late")]) as served:
        message = request("tools/call", {"name": "ask", "arguments": {"prompt": "x"}})
        asking = asyncio.create_task(post(served, message))
        await _until_running(served)
        asking.cancel()
        await asyncio.wait([asking])
        await _until_cancelled(served)


async def test_a_client_of_an_older_revision_cancels_by_notification_its_own_call_alone(play: Any) -> None:  # noqa: ANN401
    async with play([{"pause_s": 30}, text("late")]) as served:
        message = request("tools/call", {"name": "ask", "arguments": {"prompt": "x"}}, number=7)
        mine = {"mcp-session-id": "a"}
        asking = asyncio.create_task(post(served, message, mine))
        await _until_running(served)
        for session, number in (("b", 7), ("a", 8), ("a", "7")):
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            assert (await post(served, note, {"mcp-session-id": session})).status_code == 202
        await asyncio.sleep(0.05)
        assert not asking.done()
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}}
        await post(served, note, mine)
        assert events(await asking)[0]["error"]["message"] == "The call was cancelled."
        await _until_cancelled(served)


@pytest.mark.parametrize("way", ["meta", "header"])
async def test_a_question_says_through_which_agents_it_has_been_and_the_next_one_learns_it(
    play: Any,  # noqa: ANN401 -- a fixture's factory
    way: str,
) -> None:
    market = Market().add("booker", "Booked.")
    async with play([text("the model")], box=market) as served:
        params: dict[str, Any] = {"name": "call_agent", "arguments": {"agent": "@booker", "message": "a table"}}
        headers = {}
        if way == "meta":
            params["_meta"] = {"convene/hops": f"agent1qa, {OTHER}", "convene/agentAddress": OTHER}
        else:
            headers = {"x-convene-hops": f"agent1qa, {OTHER}"}
        answer = await post(served, request("tools/call", params), headers)
        assert events(answer)[-1]["result"]["isError"] is False
    [asked] = market.asked
    assert (asked.hops, asked.caller) == (("agent1qa", OTHER), OTHER if way == "meta" else "")


async def _until_running(served: Served) -> None:
    async with asyncio.timeout(10):
        while not served.app.runs.runs.live:  # noqa: ASYNC110 -- the application does it
            await asyncio.sleep(0.01)


async def _until_cancelled(served: Served) -> None:
    async with asyncio.timeout(10):
        while True:
            runs = (await served.http.get("/v1/runs", headers=served.auth)).json()["data"]
            if [run["status"] for run in runs] == ["cancelled"]:
                return
            await asyncio.sleep(0.01)

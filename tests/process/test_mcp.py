"""Tools of MCP servers over real sockets, against a double that can be told to fail: what is offered, called, lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.app_mcp import open_servers
from convene.cli_doctor import examine_agents, examine_mcp
from convene.clock import SystemClock
from convene.config import Config, KnownAgent, Mcp, Secret
from convene.errors import Failed, Retry
from convene.http.client import HttpClient
from convene.tools.base import ToolContext
from mcp_double import DoubleTool, McpDouble

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.tools.base import Tool, ToolResult
    from convene.tools.mcp import McpBox, McpServer

WAIT_S = 20.0
"""No test takes it; it turns one that hangs into one that fails."""
ADD = DoubleTool(
    name="add",
    run=lambda a, b: a + b,
    description="Adds",
    schema={"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
)
ERAS = pytest.mark.parametrize("modern", [True, False], ids=["2026-07-28", "2025-11-25"])


def refuse() -> str:
    raise ValueError("the number is taken; try 7")


@contextlib.asynccontextmanager
async def connected(server: McpDouble, **settings: object) -> AsyncGenerator[McpBox]:
    """Yield the box of this one server, called `calc`, looked at once."""
    configured = msgspec.structs.replace(Mcp(url=server.url), **settings)
    box = open_servers({"calc": configured}, SystemClock(), HttpClient)
    box.start()
    try:
        async with asyncio.timeout(WAIT_S):
            await box.servers[0].turned()
            yield box
    finally:
        await box.aclose()


async def until(server: McpServer, *, up: bool) -> None:
    while bool(server.fault) == up:
        await server.turned()


def find(box: McpBox, name: str) -> Tool:
    return next(tool for tool in box.tools() if tool.spec.name == name)


def names(box: McpBox) -> list[str]:
    return [tool.spec.name for tool in box.tools()]


async def call(
    box: McpBox, name: str, key: str = "run:s1:0", said: list[str] | None = None, **given: object
) -> ToolResult:
    progress = (lambda _: None) if said is None else said.append
    context = ToolContext(owner="me", run_id="run_1", call_id="c1", idempotency_key=key, progress=progress)
    return await find(box, name).run(given, context)


@pytest.mark.req("MCP-02")
@ERAS
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "json"])
async def test_a_tool_is_found_and_called(*, modern: bool, streams: bool) -> None:
    async with McpDouble(ADD, modern=modern, streams=streams) as server, connected(server) as box:
        assert names(box) == ["calc__add"]
        assert not box.notices()
        result = await call(box, "calc__add", a=2, b=3)
        assert (result.text, result.data) == ("5", {"text": "5"})
        assert [(one.tool, one.arguments, one.key) for one in server.calls] == [("add", {"a": 2, "b": 3}, "run:s1:0")]


@ERAS
async def test_the_list_is_read_to_its_last_page(*, modern: bool) -> None:
    tools = [DoubleTool(name=f"t{number}", run=lambda: "") for number in range(7)]
    async with McpDouble(*tools, modern=modern, page=3) as server, connected(server) as box:
        assert names(box) == [f"calc__t{number}" for number in range(7)]
        assert server.methods.count("tools/list") == 3


async def test_the_operator_chooses_the_tools_and_their_labels() -> None:
    tools = [DoubleTool(name=name, run=lambda: "") for name in ("read_a", "read_b", "drop")]
    async with McpDouble(*tools) as server, connected(server, tools=("read_*",), labels=("private",)) as box:
        assert names(box) == ["calc__read_a", "calc__read_b"]
        assert find(box, "calc__read_a").spec.labels == {"private"}


async def test_a_key_and_headers_go_to_the_server_and_a_wrong_key_is_no_tools() -> None:
    async with McpDouble(ADD, key="right") as server:
        async with connected(server, api_key=Secret("right"), headers={"x-team": Secret("blue")}) as box:
            await call(box, "calc__add", a=1, b=1)
            assert server.calls[0].headers["x-team"] == "blue"
        async with connected(server, api_key=Secret("wrong")) as box:
            assert not names(box)
            assert box.servers[0].fault == "it answers 401"
            assert [notice.code for notice in box.notices()] == ["tools_unavailable"]
            assert "calc" in box.notices()[0].message
            assert "127.0.0.1" not in box.notices()[0].message


async def test_an_error_of_the_tool_is_told_to_the_model_which_may_try_again() -> None:
    async with McpDouble(DoubleTool(name="pick", run=refuse)) as server, connected(server) as box:
        with pytest.raises(Retry, match="the number is taken; try 7"):
            await call(box, "calc__pick")


async def test_a_call_that_the_server_refuses_as_invalid_may_be_tried_again() -> None:
    async with McpDouble(ADD) as server, connected(server) as box:
        server.tools = {}
        with pytest.raises(Retry, match="Unknown tool"):
            await call(box, "calc__add", a=1, b=1)


@ERAS
async def test_a_cancelled_call_is_cancelled_at_the_server(*, modern: bool) -> None:
    async with McpDouble(ADD, modern=modern) as server, connected(server) as box:
        server.hold = asyncio.Event()
        calling = asyncio.create_task(call(box, "calc__add", a=1, b=1))
        await server.until(lambda: bool(server.calls))
        calling.cancel()
        await asyncio.wait([calling])
        assert calling.cancelled()
        await server.until(lambda: bool(server.cancelled))
        server.hold = None
        assert (await call(box, "calc__add", a=1, b=1)).text == "2"


@ERAS
async def test_a_call_that_takes_too_long_fails_and_is_cancelled_at_the_server(*, modern: bool) -> None:
    async with McpDouble(ADD, modern=modern) as server, connected(server, timeout_s=0.2) as box:
        server.hold = asyncio.Event()
        with pytest.raises(Failed, match=r"calc did not answer within 0\.2 s"):
            await call(box, "calc__add", a=1, b=1)
        await server.until(lambda: bool(server.cancelled))


async def test_a_forgotten_session_is_begun_anew_once_for_all_calls_and_none_is_run_twice() -> None:
    async with McpDouble(ADD, modern=False) as server, connected(server) as box:
        server.forget()
        results = await asyncio.gather(*(call(box, "calc__add", f"k{number}", a=number, b=1) for number in range(5)))
        assert [result.text for result in results] == ["1", "2", "3", "4", "5"]
        assert server.methods.count("initialize") == 2
        assert set(server.by_key.values()) == {1}


@ERAS
async def test_a_server_that_goes_down_loses_its_tools_and_gets_them_back(*, modern: bool) -> None:
    async with McpDouble(ADD, modern=modern) as server, connected(server) as box:
        await server.until(lambda: server.listeners > 0)
        await server.down()
        await until(box.servers[0], up=False)
        assert not names(box)
        assert [spec.name for spec in box.missing()] == ["calc__add"]
        await server.up()
        await until(box.servers[0], up=True)
        assert names(box) == ["calc__add"]
        assert not box.missing()
        assert (await call(box, "calc__add", a=1, b=2)).text == "3"


@ERAS
async def test_a_changed_list_is_looked_up(*, modern: bool) -> None:
    async with McpDouble(ADD, modern=modern) as server, connected(server) as box:
        await server.until(lambda: server.listeners > 0)
        server.change(ADD, DoubleTool(name="new", run=lambda: ""))
        while names(box) != ["calc__add", "calc__new"]:
            await box.servers[0].turned()


async def test_a_call_is_sent_once_though_the_connection_closes_under_it() -> None:
    async with McpDouble(ADD) as server, connected(server) as box:
        await call(box, "calc__add", "first", a=1, b=1)
        server.spoil = lambda method, body: None if method == "tools/call" else body
        with pytest.raises(Failed, match="Whether the call was carried out is not known"):
            await call(box, "calc__add", "second", a=1, b=1)
        assert server.by_key == {"first": 1, "second": 1}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"jsonrpc":"2.0","id":999,"result":{}}', b"[" * 99_999])
async def test_an_answer_that_is_not_the_protocol_fails_the_call_alone(body: bytes) -> None:
    async with McpDouble(ADD) as server, connected(server) as box:
        server.spoil = lambda method, whole: body if method == "tools/call" else whole
        with pytest.raises(Failed, match="did not answer as it should"):
            await call(box, "calc__add", a=1, b=1)
        server.spoil = lambda _, whole: whole
        assert (await call(box, "calc__add", a=1, b=1)).text == "2"


async def test_an_answer_above_the_bound_fails() -> None:
    big = DoubleTool(name="big", run=lambda: "x" * 20_000)
    for streams in (True, False):
        async with McpDouble(big, streams=streams) as server, connected(server, answer_bytes_max=10_000) as box:
            with pytest.raises(Failed):
                await call(box, "calc__big")


async def test_progress_is_passed_on_and_what_a_server_asks_of_us_is_answered() -> None:
    async with McpDouble(ADD, modern=False, streams=True) as server, connected(server) as box:
        server.before = [
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": number, "progress": 1}}
            for number in range(1, 20)
        ]
        server.before += [
            {"jsonrpc": "2.0", "id": "p", "method": "ping"},
            {"jsonrpc": "2.0", "id": "s", "method": "sampling/createMessage", "params": {}},
        ]
        said: list[str] = []
        assert (await call(box, "calc__add", said=said, a=1, b=1)).text == "2"
        assert said == ["1"]
        await server.until(lambda: server.methods.count("answer") == 2)


async def test_nothing_is_left_when_a_server_never_answers() -> None:
    async with McpDouble(ADD) as server:
        box = open_servers({"calc": Mcp(url=server.url)}, SystemClock(), HttpClient)
        await server.down()
        box.start()
        await box.servers[0].turned()
        assert not names(box)
        await box.aclose()


async def test_the_doctor_greets_each_server_and_says_what_it_found() -> None:
    bad = DoubleTool(name="bad", run=lambda: "", schema={"type": "object", "properties": {"a": {"type": "no"}}})
    async with McpDouble(ADD) as well, McpDouble(ADD, bad, modern=False) as half, McpDouble(ADD, key="k") as closed:
        servers = {"well": well, "half": half, "closed": closed, "none": well, "off": well, "gone": well}
        found = await examine_mcp(
            {
                name: Mcp(
                    url=one.url if name != "gone" else "http://127.0.0.1:9/mcp",
                    tools=("x*",) if name == "none" else (),
                    enabled=name != "off",
                )
                for name, one in servers.items()
            }
        )
    told = {one.name: one for one in found}
    assert [one.state for one in found] == ["ok", "warn", "warn", "warn", "warn"]
    assert told["mcp well"].found == "1 tools, revision 2026-07-28"
    assert told["mcp half"].found.startswith("1 tools, revision 2025-11-25; left out: bad: its schema")
    assert (told["mcp closed"].found, told["mcp closed"].next_step) == (
        f"{closed.url}: it answers 401",
        "mend mcp.closed.api_key",
    )
    assert told["mcp none"].next_step == "nothing of its list is allowed by mcp.none.tools"
    assert "mcp.gone.url" in told["mcp gone"].next_step
    assert not half.sessions
    assert not any(one.calls for one in (well, half, closed))


async def test_it_is_known_when_all_servers_have_been_asked_those_that_are_down_too() -> None:
    async with McpDouble(ADD) as server:
        down = Mcp(url="http://127.0.0.1:9/mcp", connect_s=1.0)
        box = open_servers({"calc": Mcp(url=server.url), "down": down}, SystemClock(), HttpClient)
        waiting = asyncio.create_task(box.asked())
        await asyncio.sleep(0)
        assert not waiting.done()
        box.start()
        try:
            async with asyncio.timeout(WAIT_S):
                await waiting
                await box.asked()
            assert names(box) == ["calc__add"]
        finally:
            await box.aclose()


async def test_the_doctor_asks_named_agents_what_they_are() -> None:
    async with McpDouble(ADD) as well, McpDouble(ADD, key="k") as closed:
        agents = {
            "well": KnownAgent(url=well.url),
            "closed": KnownAgent(url=closed.url, protocol="mcp"),
            "gone": KnownAgent(url="http://127.0.0.1:9/"),
            "off": KnownAgent(url=well.url, enabled=False),
            "chat": KnownAgent(address="agent1q" + "w" * 58),
        }
        found = await examine_agents(msgspec.structs.replace(Config(), agent=agents))
    assert [(one.name, one.state) for one in found] == [
        ("agent well", "ok"),
        ("agent closed", "warn"),
        ("agent gone", "warn"),
    ]
    assert found[0].found.endswith("mcp, 1 skills")
    assert "the operator can set them" in found[1].found
    assert "agent.gone.url" in found[2].next_step

"""How a server is kept over hours of virtual time: found, looked at again, listened to, lost, found again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

import pytest

from convene.events import Noticed
from convene.tools.base import ToolContext
from convene.tools.mcp import DATA_BYTES_MAX, TEXT_CHARS_MAX, McpBox
from convene.tools.mcp_exchange import Endpoint
from simulation import Answer, run
from unit.tools.mcp_plays import ECHO, SSE, Server, asked, call, events, methods, open_server

if TYPE_CHECKING:
    from convene.http.base import Request
    from convene.tools.base import ToolResult
    from convene.tools.mcp import McpServer
    from simulation import FakeClient, World

CHANGED = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
CHANGES = {"result": {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {"listChanged": True}}}}


class Weather:
    """A server that is up or down, and remembers when it was asked for what."""

    def __init__(self, world: World, server: Server) -> None:
        self.up = True
        self.times: list[tuple[float, str]] = []
        self._world, self._server = world, server

    def __call__(self, request: Request) -> Answer:
        self.times.append((self._world.loop.time(), asked(request)["method"]))
        return self._server(request) if self.up else Answer(fault="refuse")

    def at(self, method: str) -> list[float]:
        return [when for when, what in self.times if what == method]


def test_a_server_is_looked_at_again_as_often_as_configured() -> None:
    async def scene(world: World) -> None:
        weather = Weather(world, Server(modern=True))
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(601)
        await server.aclose()
        assert weather.at("tools/list") == [60.0 * number for number in range(11)]
        assert len(weather.at("server/discover")) == 1

    run(scene, 1)


def test_a_server_that_is_down_is_tried_with_growing_pauses_and_found_when_it_is_back() -> None:
    async def scene(world: World) -> None:
        weather = Weather(world, Server(modern=True))
        weather.up = False
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(1000)
        tried = weather.at("server/discover")
        pauses = [later - earlier for earlier, later in itertools.pairwise(tried)]
        for number, pause in enumerate(pauses):
            assert min(60, 2**number) / 2 <= pause <= min(60, 2**number)
        assert len(pauses) > 15
        assert server.fault
        weather.up = True
        await asyncio.sleep(61)
        assert (server.fault, [tool.spec.name for tool in server.tools]) == ("", ["sim__echo"])
        await server.aclose()

    run(scene, 1)


@pytest.mark.parametrize("failed", [Answer(status=500), Answer(fault="reset"), Answer(body=b"?")])
def test_one_failed_look_is_no_outage_if_a_greeting_succeeds(failed: Answer) -> None:
    left = [failed]

    async def scene(world: World) -> None:
        def fails(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
            return left.pop() if world.loop.time() > 50 and left and asked(request)["method"] == "tools/list" else None

        server, client = open_server(world, Server(fails, modern=True))
        server.start()
        await asyncio.sleep(65)
        assert len(server.tools) == 1
        assert methods(client).count("server/discover") == 2
        await server.aclose()

    run(scene, 1)


def test_a_failed_call_lets_the_server_be_looked_at_at_once() -> None:
    async def scene(world: World) -> None:
        weather = Weather(world, Server(modern=True))
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(10)
        (tool,) = server.tools
        weather.up = False
        with pytest.raises(Exception, match="cannot be reached"):
            await call(tool)
        await asyncio.sleep(0.1)
        assert server.tools == ()
        assert world.loop.time() < 11
        await server.aclose()

    run(scene, 1)


def test_a_flood_of_changes_is_looked_up_once_a_second() -> None:
    flood = Answer(headers=SSE, body=events(*[CHANGED] * 200), gap_s=(0.1, 0.1), piece_bytes=75)

    def told(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        method = asked(request)["method"]
        return CHANGES if method == "server/discover" else flood if method == "subscriptions/listen" else None

    async def scene(world: World) -> None:
        weather = Weather(world, Server(told, modern=True))
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(10.5)
        looked = weather.at("tools/list")
        assert 8 <= len(looked) <= 11
        await server.aclose()

    run(scene, 1)


def test_a_stream_that_ends_at_once_every_time_is_opened_ever_less_often() -> None:
    def told(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        method = asked(request)["method"]
        if method == "subscriptions/listen":
            return Answer(headers=SSE)
        return CHANGES if method == "server/discover" else None

    async def scene(world: World) -> None:
        weather = Weather(world, Server(told, modern=True))
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(600)
        opened = weather.at("subscriptions/listen")
        assert len(opened) <= 16
        assert opened[-1] - opened[-2] == pytest.approx(60.0, abs=1)
        await server.aclose()

    run(scene, 1)


def test_a_stream_that_is_not_offered_is_not_asked_for_again() -> None:
    async def scene(world: World) -> None:
        weather = Weather(world, Server())
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(600)
        assert len(weather.at("GET")) == 1
        await server.aclose()

    run(scene, 1)


def test_a_changed_list_changes_what_is_offered_and_running_calls_go_on() -> None:
    play = Server(modern=True)

    async def scene(world: World) -> None:
        server, _ = open_server(world, play)
        server.start()
        await server.turned()
        (old,) = server.tools
        play.tools = [{"name": "other", "inputSchema": {"type": "object"}}]
        await server.turned()
        assert [tool.spec.name for tool in server.tools] == ["sim__other"]
        assert await call(old) == "echoed"
        await server.aclose()

    run(scene, 1)


def test_what_is_left_out_is_logged_once_and_not_at_every_look(caplog: pytest.LogCaptureFixture) -> None:
    play = Server(modern=True)
    play.tools = [ECHO, {"name": "bad", "inputSchema": {"type": "string"}}, {"name": "worse"}]

    async def scene(world: World) -> None:
        server, _ = open_server(world, play)
        server.start()
        await asyncio.sleep(300)
        assert len(server.tools) == 1
        await server.aclose()

    with caplog.at_level(logging.INFO, logger="convene.mcp"):
        run(scene, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "MCP server sim, tool left out: bad: its parameters are no object",
        "MCP server sim, tool left out: 1 entries of its list cannot be read",
        "MCP server sim: 1 tools, revision 2026-07-28",
    ]


def test_an_outage_is_logged_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(world: World) -> None:
        weather = Weather(world, Server(modern=True))
        weather.up = False
        server, _ = open_server(world, weather)
        server.start()
        await asyncio.sleep(300)
        weather.up = True
        await asyncio.sleep(300)
        await server.aclose()

    with caplog.at_level(logging.INFO, logger="convene.mcp"):
        run(scene, 1)
    assert [record.getMessage() for record in caplog.records] == [
        "MCP server sim cannot be used: http://mcp.test/mcp refused",
        "MCP server sim: 1 tools, revision 2026-07-28",
    ]


def test_a_box_holds_the_tools_of_those_that_are_there_and_notices_of_the_others() -> None:
    async def scene(world: World) -> None:
        weather = Weather(world, Server(modern=True))
        up, _ = open_server(world, Server(modern=True), server="up")
        down, _ = open_server(world, weather, server="down")
        box = McpBox([up, down])
        assert [notice.message for notice in box.notices()] == [
            "The tools of up cannot be used now.",
            "The tools of down cannot be used now.",
        ]
        box.start()
        await asyncio.sleep(1)
        assert [tool.spec.name for tool in box.tools()] == ["up__echo", "down__echo"]
        assert not box.notices()
        weather.up = False
        await asyncio.sleep(100)
        assert [tool.spec.name for tool in box.tools()] == ["up__echo"]
        assert box.notices() == [Noticed("tools_unavailable", "The tools of down cannot be used now.")]
        assert [spec.name for spec in box.missing()] == ["down__echo"]
        await box.aclose()

    run(scene, 1)


def test_a_box_that_was_never_started_can_be_closed() -> None:
    async def scene(world: World) -> None:
        server, client = open_server(world, Server())
        await McpBox([server]).aclose()
        assert client.closed
        assert not client.sent

    run(scene, 1)


def test_a_server_that_does_not_hear_the_good_bye_does_not_hold_up_the_end() -> None:
    def deaf(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
        return Answer(fault="stall") if asked(request)["method"] == "DELETE" else None

    async def scene(world: World) -> None:
        server, client = open_server(world, Server(deaf))
        server.start()
        await asyncio.sleep(1)
        await server.aclose()
        assert world.loop.time() <= 3.1
        assert client.closed

    run(scene, 1)


async def result_of(server: McpServer) -> ToolResult:
    context = ToolContext(owner="o", run_id="r", call_id="c", idempotency_key="k")
    return await server.tools[0].run({}, context)


def gives(told: dict[str, Any], bytes_max: int = 5_000_000) -> ToolResult:
    """Return what becomes of a result."""

    async def scene(world: World) -> ToolResult:
        def also(request: Request) -> Any:  # noqa: ANN401 -- what `Server` takes
            return {"result": told} if asked(request)["method"] == "tools/call" else None

        server, _ = open_server(world, Server(also, modern=True), bytes_max=bytes_max)
        server.start()
        await server.turned()
        try:
            return await result_of(server)
        finally:
            await server.aclose()

    return run(scene, 1)


def text(content: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": content}]}


def test_a_result_shows_its_data_where_it_has_some_and_else_its_text() -> None:
    assert gives(text("21 degrees")).data == {"text": "21 degrees"}
    both = gives(text("21 degrees") | {"structuredContent": {"degrees": 21}})
    assert (both.text, both.data) == ("21 degrees", {"degrees": 21})
    assert gives({"content": [], "structuredContent": None}).data is None
    assert (both.sources, both.links, both.notices) == ((), (), ())


def test_a_long_result_is_cut_for_the_model_and_more_so_where_it_is_only_shown() -> None:
    result = gives(text("x" * (TEXT_CHARS_MAX + 500)) | {"structuredContent": ["y" * DATA_BYTES_MAX]})
    assert result.text.endswith("x\n[cut: 500 characters more]")
    assert isinstance(result.data, dict)
    assert len(result.data["text"]) < DATA_BYTES_MAX


def test_an_address_in_a_result_is_no_link_that_may_be_read() -> None:
    assert gives(text("see https://evil.test/?q=secret")).links == ()


def test_the_key_does_not_show_where_the_endpoint_is_shown() -> None:
    assert "s3cret" not in repr(Endpoint(url="http://a", headers=(("authorization", "Bearer s3cret"),)))


def test_every_client_is_closed_and_no_task_is_left_when_it_ends_in_the_middle() -> None:
    async def scene(world: World) -> FakeClient:
        def slow(_: Request) -> Answer:
            return Answer(fault="stall")

        server, client = open_server(world, slow)
        server.start()
        await asyncio.sleep(3)
        await server.aclose()
        return client

    assert run(scene, 1).closed

"""Tools of a real server, built with the official SDK, in a process of its own: each revision, each way to answer."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.app_mcp import open_servers
from convene.clock import SystemClock
from convene.config import Mcp, Secret
from convene.errors import Failed, Retry
from convene.http.base import Request
from convene.http.client import HttpClient
from convene.tools.base import ToolContext

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.tools.base import ToolResult
    from convene.tools.mcp import McpBox

PROGRAM = Path(__file__).with_name("mcp_sdk_server.py")
WAIT_S = 60.0
"""No test takes it; it turns one that hangs into one that fails."""
WAYS = pytest.mark.parametrize(
    ("words", "revision"),
    [
        (("stream",), "2026-07-28"),
        (("json",), "2026-07-28"),
        (("older",), "2025-11-25"),
        (("older", "json"), "2025-11-25"),
        (("older", "stateless"), "2025-11-25"),
        (("older", "stateless", "json"), "2025-11-25"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
ERAS = pytest.mark.parametrize("words", [(), ("older",)], ids=["2026-07-28", "2025-11-25"])


class Running:
    """The program, and what it says."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.process = process
        self.port = port

    @classmethod
    async def begin(cls, *words: str, port: int = 0) -> Running:
        """Start it and wait until it listens."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), str(port), *words, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        return cls(process, int(await process.stdout.readline()))

    async def says(self, line: str) -> None:
        """Wait for a line of it."""
        assert self.process.stdout is not None
        while (read := (await self.process.stdout.readline()).decode().strip()) != line:
            assert read, f"it ended without saying {line!r}"

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


@contextlib.asynccontextmanager
async def serving(*words: str, **settings: object) -> AsyncGenerator[tuple[Running, McpBox]]:
    """Yield a running server and the box of its tools, looked at once."""
    async with asyncio.timeout(WAIT_S):
        running = await Running.begin(*words)
        configured = msgspec.structs.replace(Mcp(url=f"http://127.0.0.1:{running.port}/mcp"), **settings)
        box = open_servers({"sdk": configured}, SystemClock(), HttpClient)
        try:
            box.start()
            await box.servers[0].turned()
            yield running, box
        finally:
            await box.aclose()
            await running.kill()


async def call(box: McpBox, tool: str, said: list[str] | None = None, **given: object) -> ToolResult:
    progress = (lambda _: None) if said is None else said.append
    context = ToolContext(owner="me", run_id="run_1", call_id="c1", idempotency_key="run_1:s1:0", progress=progress)
    return await next(one for one in box.tools() if one.spec.name == f"sdk__{tool}").run(given, context)


@pytest.mark.req("MCP-02", "MCP-03")
@WAYS
async def test_tools_are_listed_and_called_in_every_way_a_server_may_answer(
    words: tuple[str, ...], revision: str
) -> None:
    async with serving(*words, headers={"x-team": Secret("blue")}) as (_, box):
        server = box.servers[0]
        assert (server.fault, server._link.session.version) == ("", revision)
        assert bool(server._link.session.id) == (words[0] == "older" and "stateless" not in words)
        specs = {tool.spec.name: tool.spec for tool in box.tools()}
        assert set(specs) == {f"sdk__{name}" for name in ("add", "fail", "slow", "seen", "picture", "ask", "grow")}
        assert specs["sdk__add"].description == "Add two numbers."
        assert specs["sdk__add"].labels == {"untrusted"}
        assert specs["sdk__fail"].labels == {"untrusted", "sends"}
        assert (await call(box, "add", a=2, b=3)).data == {"result": 5}
        assert (await call(box, "picture")).text == "see\n\n[image, image/png, about 3 bytes, not shown]"
        assert (await call(box, "seen")).text == "run_1:s1:0 blue"
        with pytest.raises(Retry):
            await call(box, "fail")
        with pytest.raises(Retry, match="valid integer"):
            await call(box, "add", a="two", b=3)
        results = await asyncio.gather(*(call(box, "add", a=number, b=1) for number in range(20)))
        assert [result.text for result in results] == [str(number + 1) for number in range(20)]


@ERAS
async def test_progress_of_a_slow_call_is_passed_on(words: tuple[str, ...]) -> None:
    async with serving(*words) as (_, box):
        said: list[str] = []
        assert (await call(box, "slow", said, steps=3)).text == "done"
        assert said == ["step 0", "step 1", "step 2"]


@ERAS
async def test_a_cancelled_call_ends_at_the_server_too(words: tuple[str, ...]) -> None:
    async with serving(*words) as (running, box):
        calling = asyncio.create_task(call(box, "slow", steps=1000))
        await running.says("slow began")
        calling.cancel()
        await running.says("slow cancelled")
        await asyncio.wait([calling])
        assert (await call(box, "add", a=1, b=1)).text == "2"


@ERAS
async def test_a_call_above_its_time_ends_at_the_server_too(words: tuple[str, ...]) -> None:
    async with serving(*words, timeout_s=0.5) as (running, box):
        with pytest.raises(Failed, match=r"did not answer within 0\.5 s"):
            await call(box, "slow", steps=1000)
        await running.says("slow cancelled")


@pytest.mark.parametrize("words", [("json",), ("older",)])
async def test_a_tool_that_asks_for_input_fails_and_does_not_hang(words: tuple[str, ...]) -> None:
    async with serving(*words) as (_, box):
        with pytest.raises((Retry, Failed)):
            await call(box, "ask")
        assert (await call(box, "add", a=1, b=1)).text == "2"


@ERAS
async def test_a_tool_that_is_new_is_offered_soon(words: tuple[str, ...]) -> None:
    async with serving(*words) as (_, box):
        await call(box, "grow")
        while "sdk__grown" not in [tool.spec.name for tool in box.tools()]:
            await box.servers[0].turned()


async def test_a_session_that_is_ended_at_the_server_is_begun_anew() -> None:
    async with serving("older") as (running, box):
        before = box.servers[0]._link.session
        client = HttpClient()
        headers = (("mcp-session-id", before.id), ("mcp-protocol-version", before.version))
        ended = await client.send(Request("DELETE", f"http://127.0.0.1:{running.port}/mcp", headers))
        assert ended.status == 200
        ended.close()
        await client.aclose()
        assert (await call(box, "add", a=1, b=1)).text == "2"
        assert box.servers[0]._link.session.id not in ("", before.id)


@ERAS
async def test_a_killed_server_loses_its_tools_and_a_new_one_in_its_place_brings_them_back(
    words: tuple[str, ...],
) -> None:
    async with serving(*words) as (running, box):
        server = box.servers[0]
        assert (await call(box, "add", a=1, b=1)).text == "2"
        await running.kill()
        while not server.fault:
            await server.turned()
        assert not box.tools()
        assert [notice.code for notice in box.notices()] == ["tools_unavailable"]
        again = await Running.begin(*words, port=running.port)
        try:
            while server.fault:
                await server.turned()
            assert (await call(box, "add", a=1, b=2)).text == "3"
        finally:
            await again.kill()


async def test_a_key_opens_a_guarded_server_and_a_wrong_one_does_not() -> None:
    async with serving("key=right", api_key=Secret("right")) as (_, box):
        assert (await call(box, "add", a=1, b=1)).text == "2"
    async with serving("key=right", api_key=Secret("wrong")) as (_, box):
        assert (box.servers[0].fault, box.tools()) == ("it answers 401", [])

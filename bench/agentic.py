"""Agentic turns: what a round costs beyond the model and the tool, in time at half load and in processor time.

The whole application in this process, over SQLite: limits, ledger and the kill-safe journal as in real life, a scripted
model and a tool that answer at once. A turn has five rounds, four of which call the tool; what it takes is overhead.
The same without the journal is the loop's own, for the journal has a bar of its own (`runs.py`). Then two hundred turns
at once, with a tool that takes its time, must all come to their end.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import uvloop

from convene.app import App
from convene.clock import SystemClock
from convene.config import Config, Engine, Scripted, Search
from convene.events import Finished
from convene.messages import Message
from convene.providers.base import Generation
from convene.serving.base import ChatRequest, Principal
from convene.serving.passing import PassingRuns
from convene.tools.base import ToolContext, ToolResult, ToolSpec
from parts import result, say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.events import Noticed
    from convene.tools.base import Tool

ROUND_MS_BAR, CPU_MS_BAR = 1.0, 3.0
JOURNALED_MS_BAR: Final = 3.0
"""A round and, at the journal's own bar of one millisecond each, the two steps that it is."""
ROUNDS, WARM, TURNS, PACED, AT_ONCE, LOAD = 5, 50, 400, 600, 200, 16
WHO = Principal(key_id="bench", owner="bench")
PAGE: Final = "What a page says, about as long as a snippet of a search. " * 10


class Instant:
    """A tool that answers after `pause_s` seconds."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        self.spec = ToolSpec(
            name="look",
            description="Looks something up.",
            parameters={"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]},
        )

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """Return a page."""
        del context
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        return ToolResult(text=f"{arguments['what']}: {PAGE}")

    def tools(self) -> Sequence[Tool]:
        """Return itself: it is its own box."""
        return (self,)

    def notices(self) -> Sequence[Noticed]:
        """Return nothing."""
        return ()


def measure() -> bool:
    """Print the figures; return whether all bars hold."""
    return uvloop.run(_measure())


async def _measure() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        tool = Instant()
        app = App(_config(Path(folder)), SystemClock(), lambda _: None, tools=tool)
        await app.start()
        try:
            return await _bars(app, tool)
        finally:
            await app.stop()


def _config(folder: Path) -> Config:
    call = {"steps": [{"call": {"name": "look", "args": {"what": "the weather"}}}]}
    answer = {"steps": [{"text": "It is sunny, as far as anybody knows, and will stay so for the rest of the week."}]}
    script = folder / "script.json"
    script.write_text(json.dumps({"models": [{"name": "rounds", "turns": [*([call] * (ROUNDS - 1)), answer]}]}))
    return Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        engine=Engine(enabled=False),
        search=Search(enabled=False),
        scripted=Scripted(enabled=True, file=str(script)),
        auth="none",
    )


async def _bars(app: App, tool: Instant) -> bool:
    kept, bare = app.agent.runs, PassingRuns(app.agent.clock.now)
    await _many(app, WARM)
    cpu_ms = await _many(app, TURNS)
    say(f"     {cpu_ms:.2f} ms of processor time a turn, ledger and journal in it")
    app.agent.runs = bare
    say(f"     {await _many(app, TURNS):.2f} ms without the journal")
    loop_ms = await _half_load(app, "without the journal")
    app.agent.runs = kept
    journaled_ms = await _half_load(app, "with the journal")
    tool.pause_s = 0.1
    ends = await asyncio.gather(*(_turn(app) for _ in range(AT_ONCE)), return_exceptions=True)
    whole = sum(isinstance(end, float) for end in ends)
    holds = (
        result("a round, p50 at half load", loop_ms, ROUND_MS_BAR, unit="ms", most=True),
        result("the same, and its two steps in the journal", journaled_ms, JOURNALED_MS_BAR, unit="ms", most=True),
        result(f"processor time of a turn of {ROUNDS} rounds", cpu_ms, CPU_MS_BAR, unit="ms", most=True),
        result(f"of {AT_ONCE} turns at once come to their end", whole, AT_ONCE, unit="turns"),
    )
    return all(holds)


async def _half_load(app: App, what: str) -> float:
    """Return what a round takes in ms, the median, at half of the turns a second that go through at most."""
    began = time.perf_counter()
    await asyncio.gather(*(_few(app, TURNS // LOAD) for _ in range(LOAD)))
    full = LOAD * (TURNS // LOAD) / (time.perf_counter() - began)
    waits = [wait / ROUNDS for wait in await _paced(app, full / 2)]
    p50, p99 = statistics.median(waits), sorted(waits)[int(len(waits) * 0.99)]
    say(f"     {full:.0f} turns/s {what}; at half of it {p50:.2f} ms p50, {p99:.2f} ms p99 a round")
    return p50


async def _many(app: App, count: int) -> float:
    """Run turns one after the other; return the processor time of one in ms, all threads included."""
    before = time.process_time()
    for _ in range(count):
        await _turn(app)
    return (time.process_time() - before) / count * 1000


async def _few(app: App, count: int) -> None:
    for _ in range(count):
        await _turn(app)


async def _paced(app: App, rate: float) -> list[float]:
    """Begin turns at a steady rate, whether the earlier ones have ended or not; return what each took in ms."""
    loop = asyncio.get_running_loop()
    first, tasks = loop.time(), []
    for number in range(PACED):
        await asyncio.sleep(max(0.0, first + number / rate - loop.time()))
        tasks.append(asyncio.create_task(_turn(app)))
    return list(await asyncio.gather(*tasks))


async def _turn(app: App) -> float:
    """Run one turn to its end; return what it took in ms. Raises `AssertionError` if it did not end well."""
    generation = Generation(messages=(Message(role="user", content="How will the weather be?"),), stream=True)
    began = time.perf_counter()
    turn = app._turns.start(ChatRequest(model="rounds", generation=generation), WHO)  # noqa: SLF001 -- the inside is measured
    last = None
    async for event in turn.events():
        last = event
    assert last == Finished("stop")
    return (time.perf_counter() - began) * 1000

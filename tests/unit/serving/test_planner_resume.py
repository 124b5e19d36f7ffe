"""A planned turn whose process dies at any write of its journal: another goes on with the same plan."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.events import fold
from convene.serving.agent import Hooks
from convene.serving.base import Agentic
from convene.serving.base_agentic import Job
from convene.serving.planner import Planner
from fakes import FakeClock
from run_doubles import RunHouse
from tool_doubles import PlayedTool, say_sunny
from unit.serving.agent_doubles import WHO, House, Rounds, says, text_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from convene.events import Event
    from convene.providers.base import Generation
    from convene.serving.turn import Turn
    from convene.tools.base import ToolContext, ToolResult

LOOPS = 600
PLAN = json.dumps(
    {
        "steps": [
            {"id": "rome", "task": "weather", "tool": "weather", "input": "Rome", "depends_on": []},
            {"id": "oslo", "task": "weather", "tool": "weather", "input": "Oslo", "depends_on": []},
            {"id": "think", "task": "think", "tool": "none", "input": "", "depends_on": []},
            {
                "id": "next",
                "task": "weather elsewhere",
                "tool": "weather",
                "input": "",
                "depends_on": ["rome", "think"],
            },
        ]
    }
)
SAYS = {
    "Make a plan": PLAN,
    "Give the result of this step": "Think so.",
    "Write the arguments": '{"city":"Bonn"}',
    "The plan was carried out": "All is sunny.",
}


class Told(Rounds):
    """Says what its last message asks for."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        self.asked.append(generation)
        asked = generation.messages[-1].text()
        for event in says(next(words for mark, words in SAYS.items() if mark in asked)):
            await asyncio.sleep(0)
            assert not isinstance(event, Exception)
            yield event


class World:
    """One store of runs, and the processes that hold its run one after the other."""

    def __init__(self) -> None:
        self.house = RunHouse()
        self.effects: list[tuple[str, str]] = []
        """City and idempotency key of each call that was really made."""

    async def look(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        self.effects.append((str(arguments["city"]), context.idempotency_key))
        return await say_sunny(arguments, context)

    def process(self) -> House:
        hooks = Hooks(runs=self.house.runs, planner=lambda loop: Planner(loop, FakeClock()))
        return House(Told(says()), PlayedTool(do=self.look), hooks=hooks)


async def play(turn: Turn) -> list[Event]:
    return [event async for event in turn.events()]


async def settle(task: asyncio.Task[list[Event]]) -> None:
    """Let a process run until it waits for what never comes, or has ended."""
    for _ in range(LOOPS):
        if task.done():
            return
        await asyncio.sleep(0)


async def kill_after(world: World, writes: int) -> bool:
    """Run the turn in a process that dies after so many writes; return whether it had ended before."""
    world.house.store.left = writes
    task = asyncio.create_task(play(world.process().turn(agentic=Agentic(planner_mode=True))))
    await settle(task)
    ended = task.done() and not task.cancelled()
    world.house.going_down = True  # a killed process tells nobody of its end
    task.cancel()
    await asyncio.wait([task])
    world.house.going_down = False
    return ended


async def go_on(world: World) -> list[Event]:
    """Take the dead run up in another process and walk it to its end."""
    world.house.store.kill()
    world.house.runs.live.clear()
    (run,) = await world.house.store.claim(0, 1)
    journal = world.house.runs.take_up(run, await world.house.store.steps(run.id))
    job = msgspec.json.decode(run.request, type=Job)
    return await play(world.process().turns.resume(job, WHO, journal, f"{run.turn_id}-r2"))


@pytest.mark.parametrize("writes", range(1, 18))
async def test_a_plan_killed_at_any_write_goes_on_and_repeats_nothing_that_had_ended(writes: int) -> None:
    world = World()
    if await kill_after(world, writes):
        assert writes > 15, "the turn came to its end with fewer writes than it has steps"
        return
    made = list(world.effects)
    rows = [row for row in world.house.store.rows.values() if row.status == "done" and row.kind == "tool"]
    done = {json.loads(json.loads(row.input)["arguments"])["city"] for row in rows}
    events = await go_on(world)
    assert text_of(events) == "All is sunny."
    assert sorted(str(ran.args["city"]) for ran in fold(events).tools) == ["Bonn", "Oslo", "Rome"]
    repeated = world.effects[len(made) :]
    assert not {city for city, _ in repeated} & done, "a call that had ended is not made again"
    assert {one for one in repeated if one[0] in dict(made)} <= set(made), "what is repeated has the same key"
    assert len(repeated) == len(set(repeated)), "and is repeated once"

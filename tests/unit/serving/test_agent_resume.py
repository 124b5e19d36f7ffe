"""A turn whose process dies at any write of its journal, taken up by another: nothing is lost and nothing done twice.

The agent, its loop and the real journal over a store of the test's own. A kill lets the store take no more writes, so
that whoever waits for one never goes on, as in life.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.events import StepChanged, ToolRan, UsageReported, fold
from convene.serving.agent import Hooks
from convene.serving.base_agentic import Job
from convene.tools.base import Source, ToolResult
from convene.usage import Usage
from run_doubles import RunHouse
from tool_doubles import PlayedTool
from unit.serving.agent_doubles import WHO, House, Rounds, call, says, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.events import Event
    from convene.messages import Message, ToolCall
    from convene.serving.base_agentic import RunView
    from convene.serving.turn import Turn
    from convene.tools.base import Label, ToolContext, ToolSpec

TURNS_OF_THE_LOOP = 400
"""More than any of these turns needs."""
SCRIPT = (
    says("Let me look.", call(call_id="a"), call(arguments='{"city":"Oslo"}', index=1, call_id="b"), think="hm"),
    says("", call(arguments='{"city":"Bonn"}', call_id="c")),
    says("Sunny everywhere."),
)
ANSWER = "Let me look.\n\nSunny everywhere."
WRITES = 13
"""The run's begin, each of its six steps twice."""


class World:
    """One store of runs, and the processes that hold its runs one after the other."""

    def __init__(self) -> None:
        self.house = RunHouse()
        self.effects: list[tuple[str, str]] = []
        """City and idempotency key of each call that was really made."""
        self.asked = 0

    async def look(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        """Note the effect; it is made before the answer is there."""
        city = str(arguments["city"])
        self.effects.append((city, context.idempotency_key))
        await asyncio.sleep(0)
        return ToolResult(text=f"{city} is sunny", sources=(Source(f"https://{city}.example", city),))

    def process(self) -> House:
        """Return a process over the store. Its model goes on where the conversation is, like any model."""
        model = Told(self)
        return House(model, PlayedTool(do=self.look), hooks=Hooks(runs=self.house.runs))


class Told(Rounds):
    """Says what comes next in a conversation, by how many rounds there are in it."""

    def __init__(self, world: World) -> None:
        super().__init__(*SCRIPT)
        self._world = world

    def _next(self, messages: tuple[Message, ...]) -> int:
        self._world.asked += 1
        return sum(message.role == "assistant" for message in messages)


async def until_stuck(task: asyncio.Task[list[Event]]) -> None:
    """Let a process run until it waits for what never comes, or has ended."""
    for _ in range(TURNS_OF_THE_LOOP):
        if task.done():
            return
        await asyncio.sleep(0)


async def play(turn: Turn) -> list[Event]:
    return [event async for event in turn.events()]


async def kill_after(world: World, writes: int) -> tuple[list[Event] | None, Usage]:
    """Run a turn in a process that dies after so many writes; return what came of it, and what it had used."""
    house = world.process()
    world.house.store.left = writes
    turn = house.turn()
    task = asyncio.create_task(play(turn))
    await until_stuck(task)
    world.house.going_down = True  # a killed process tells nobody of its end
    task.cancel()
    await asyncio.wait([task])
    world.house.going_down = False
    used = turn.outcome.usage or Usage()
    return (None if task.cancelled() else task.result()), used


async def go_on(world: World) -> tuple[list[Event], Turn]:
    """Take the dead run up in another process and walk it to its end."""
    world.house.store.kill()
    world.house.runs.live.clear()
    (run,) = await world.house.store.claim(0, 1)
    journal = world.house.runs.take_up(run, await world.house.store.steps(run.id))
    house = world.process()
    turn = house.turns.resume(msgspec.json.decode(run.request, type=Job), WHO, journal, f"{run.turn_id}-r2")
    return await play(turn), turn


@pytest.mark.parametrize("writes", range(1, WRITES + 1))
async def test_a_run_killed_at_any_write_is_ended_by_another_with_the_same_answer(writes: int) -> None:
    world = World()
    before, used = await kill_after(world, writes)
    assert before is None
    ended = {row.number for row in world.house.store.rows.values() if row.status == "done"}
    done_before = list(world.effects)
    asked_before = world.asked
    events, turn = await go_on(world)

    gathered = fold(events)
    assert text_of(events) == ANSWER
    assert [(step.id, step.kind, step.status) for step in gathered.steps.values()] == [
        ("s1", "model", "done"),
        ("s2", "tool", "done"),
        ("s3", "tool", "done"),
        ("s4", "model", "done"),
        ("s5", "tool", "done"),
        ("s6", "model", "done"),
    ]
    assert [event.args["city"] for event in events if isinstance(event, ToolRan)] == ["Rome", "Oslo", "Bonn"]
    keys = dict(world.effects)
    assert {city: key.split(":")[1] for city, key in keys.items()} == {"Rome": "s2", "Oslo": "s3", "Bonn": "s5"}
    for city, key in keys.items():
        made = [effect for effect in world.effects if effect[0] == city]
        assert set(made) == {(city, key)}, "a repeated call has the same key"
        assert len(made) <= 2, "a call is made again once at most"
    again = world.effects[len(done_before) :]
    assert not {f"s{number}" for number in ended} & {key.split(":")[1] for _, key in again}
    rounds_done = len(ended & {1, 4, 6})
    assert world.asked - asked_before == 3 - rounds_done

    assert gathered.usage == Usage(30, 15), "the reader is told of the whole turn"
    mine = turn.outcome.usage or Usage()
    assert mine == Usage(10 * (3 - rounds_done), 5 * (3 - rounds_done)), "the books of what this process has used"
    assert used.total_tokens >= 15 * rounds_done
    assert turn.id.endswith("-r2")
    (run,) = world.house.store.runs.values()
    assert run.status == "done"


async def test_a_run_that_nobody_kills_makes_as_many_writes_as_these_tests_kill_at() -> None:
    world = World()
    events, _ = await kill_after(world, 10_000)
    assert events is not None
    assert text_of(events) == ANSWER
    assert 10_000 - (world.house.store.left or 0) == WRITES + 1


async def test_steps_that_were_recorded_are_shown_again_as_they_were() -> None:
    world = World()
    await kill_after(world, 9)
    kept = {row.number: row for row in world.house.store.rows.values() if row.status == "done"}
    events, _ = await go_on(world)
    shown = {event.id: event for event in events if isinstance(event, StepChanged)}
    for number, row in kept.items():
        assert msgspec.json.encode(shown[f"s{number}"]) in row.shown


async def test_two_kills_are_two_resumptions() -> None:
    world = World()
    await kill_after(world, 4)
    world.house.store.kill()
    world.house.runs.live.clear()
    (run,) = await world.house.store.claim(0, 1)
    journal = world.house.runs.take_up(run, await world.house.store.steps(run.id))
    world.house.store.left = 4
    job = msgspec.json.decode(run.request, type=Job)
    task = asyncio.create_task(play(world.process().turns.resume(job, WHO, journal, "r2")))
    await until_stuck(task)
    world.house.going_down = True
    task.cancel()
    await asyncio.wait([task])
    world.house.going_down = False
    events, _ = await go_on(world)
    assert text_of(events) == ANSWER
    assert sum(event.usage.total_tokens for event in events if isinstance(event, UsageReported)) == 45


async def test_a_tool_that_is_gone_makes_a_run_that_was_begun_fail_and_not_do_something_else() -> None:
    world = World()
    await kill_after(world, 4)
    world.house.store.kill()
    world.house.runs.live.clear()
    (run,) = await world.house.store.claim(0, 1)
    journal = world.house.runs.take_up(run, await world.house.store.steps(run.id))
    house = House(Told(world), PlayedTool("other"), hooks=Hooks(runs=world.house.runs))
    job = msgspec.json.decode(run.request, type=Job)
    events = await play(house.turns.resume(job, WHO, journal, "r2"))
    failed = [event for event in events if isinstance(event, ToolRan) and event.status == "failed"]
    assert failed
    assert all("There is no tool called 'weather'" in str(event.result) for event in failed)


class Spy:
    """A policy that allows everything and remembers which labels had come into the run."""

    def __init__(self) -> None:
        self.seen: list[set[Label]] = []

    def check(self, call: ToolCall, spec: ToolSpec, arguments: Mapping[str, object], view: RunView) -> str | None:
        del call, spec, arguments
        self.seen.append(set(view.labels))
        return None


async def test_results_of_a_tool_that_is_gone_after_a_crash_count_as_strangers_words() -> None:
    """Their labels went with it, and the policy must not think better of them than before."""
    world = World()
    script = (says("", call("gone", call_id="a")), says("", call("there", call_id="b")), says("Done."))

    def process(*tools: PlayedTool, spy: Spy) -> House:
        model = Told(world)
        model._rounds = script
        return House(model, *tools, hooks=Hooks(runs=world.house.runs, policy=spy))

    gone, there, before, after = PlayedTool("gone"), PlayedTool("there"), Spy(), Spy()
    house = process(gone, there, spy=before)
    world.house.store.left = 5  # the run, and the first round and the first call, each begun and ended
    task = asyncio.create_task(play(house.turn()))
    await until_stuck(task)
    world.house.going_down = True
    task.cancel()
    await asyncio.wait([task])
    world.house.going_down = False
    assert len(gone.asked) == 1
    world.house.store.kill()
    world.house.runs.live.clear()
    (run,) = await world.house.store.claim(0, 1)
    journal = world.house.runs.take_up(run, await world.house.store.steps(run.id))
    house = process(there, spy=after)
    turn = house.turns.resume(msgspec.json.decode(run.request, type=Job), WHO, journal, f"{run.turn_id}-r2")
    assert text_of(await play(turn)) == "Done."
    assert (len(gone.asked), len(there.asked)) == (1, 1)
    assert before.seen[0] == set()
    assert after.seen == [{"private", "untrusted"}]

"""Agentic turns in virtual time, from seeds: whatever model, tools and client do, a turn ends, and is settled once.

Models call tools that answer, hang, fail or break; clients stay, or leave at any event. `simulation.run` finds tasks
that are left over and waits that never end.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import Failed, Retry, UpstreamFault
from convene.events import Finished, Noticed, StepChanged, fold
from convene.serving.agent import AgentSettings
from convene.serving.base import Agentic
from convene.serving.terms import PLAIN, AgenticTerms, Terms
from convene.tools.base import ToolResult
from convene.usage import Usage
from simulation import run
from tool_doubles import PlayedTool
from unit.serving.agent_doubles import House, Rounds, call, says, text_of

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from convene.events import Event
    from convene.tools.base import ToolContext
    from simulation import World
    from unit.serving.agent_doubles import Said

SEEDS = range(150)
SETTINGS = AgentSettings(seconds=300, whole_s=80, calls_at_once=2)


class Moody:
    """A tool that does what a source of chance says."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self.running = 0
        self.most = 0

    async def __call__(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self._source.choice((0, 0.1, 5, 200)))
            mood = self._source.randrange(6)
            if mood == 0:
                raise Retry("again, please.")
            if mood == 1:
                raise Failed("no.")
            if mood == 2:
                raise ZeroDivisionError
            if mood == 3:
                context.progress("half of it is done")
            return ToolResult(text=f"{arguments} gave {mood} " * self._source.choice((1, 500)))
        finally:
            self.running -= 1


def draw_rounds(source: random.Random) -> list[Said]:
    """Return what a model says: calls for a while, good and bad ones, and then an answer, or a fault."""
    rounds: list[Said] = []
    for _ in range(source.randrange(4)):
        calls = [
            call(
                source.choice(("weather", "weather", "nothing")),
                source.choice(('{"city":"Rome"}', '{"city":"Rome"}', "{", "{}")),
                index=index,
            )
            for index in range(source.randrange(1, 4))
        ]
        rounds.append(says(source.choice(("", "Hm.")), *calls, usage=Usage(source.randrange(100), 7)))
    last = says("That is all.")
    if source.random() < 0.2:
        last = [*last[: source.randrange(len(last))], UpstreamFault("it broke")]
    return [*rounds, last]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_a_turn_ends_is_settled_once_and_leaves_nothing_behind(seed: int) -> None:
    async def scene(world: World) -> None:
        source = world.source("turn")
        moody = Moody(source)
        tool = PlayedTool(do=moody, timeout_s=source.choice((1.0, 60.0)))
        said, terms = draw_rounds(source), source.choice((PLAIN, Terms(on_disconnect="drain")))
        house = House(Rounds(*said), tool, settings=SETTINGS, agentic=AgenticTerms(calls=5), terms=terms)
        leaves_at = source.choice((None, None, source.randrange(20)))
        turn = house.turn(stream=source.random() < 0.5)
        events: list[Event] = []
        fault = None
        began = world.loop.time()
        source_of_events = turn.events()
        try:
            async for event in source_of_events:
                events.append(event)
                if len(events) - 1 == leaves_at:
                    break
        except UpstreamFault as raised:
            fault = raised
        finally:
            await source_of_events.aclose()
        asked = len(house.model.asked)
        await house.turns.drains.idle()
        assert house.lease.settled == 1
        assert moody.running == 0
        assert len(house.model.asked) == asked
        if terms is not PLAIN and turn.outcome.usage is not None and not isinstance(said[-1][-1], Exception):
            assert not turn.outcome.usage.estimated
        assert moody.most <= SETTINGS.calls_at_once
        assert len(tool.asked) <= 5
        assert world.loop.time() - began <= SETTINGS.seconds + 2
        if fault is None and (not events or leaves_at is None or len(events) <= leaves_at):
            check_whole(events, turn.outcome.usage or Usage())

    run(scene, seed)


def check_whole(events: list[Event], used: Usage) -> None:
    """Hold the events of a turn that came to its end to what always holds."""
    gathered = fold(events)
    assert isinstance(events[-1], Finished)
    assert sum(isinstance(event, Finished) for event in events) == 1
    assert all(step.status in {"done", "failed", "skipped"} for step in gathered.steps.values())
    assert gathered.usage == used
    numbers = [int(step.id[1:]) for step in gathered.steps.values()]
    assert numbers == sorted(numbers) == list(range(1, len(numbers) + 1))
    running = [event.id for event in events if isinstance(event, StepChanged) and event.status == "running"]
    assert set(running) == set(gathered.steps)


def test_the_ceiling_of_time_stops_a_tool_that_hangs_and_the_turn_ends_well() -> None:
    async def scene(world: World) -> tuple[list[Event], float]:
        house = House(Rounds(says("Wait.", call())), PlayedTool(do=hang, timeout_s=10_000), settings=SETTINGS)
        events = await house.play(house.turn(stream=True))
        return events, world.loop.time()

    events, ended = run(scene, 1)
    assert ended == pytest.approx(300, abs=1)
    assert text_of(events) == "Wait.\n\nI stopped here: this turn has reached its ceiling of 300 seconds."
    assert events[-1] == Finished("length")
    assert [event.code for event in events if isinstance(event, Noticed)] == ["ceiling_reached"]
    assert fold(events).steps["s2"].status == "failed"


def test_a_whole_answer_is_not_waited_for_longer_than_clients_do() -> None:
    async def scene(world: World) -> float:
        house = House(Rounds(says("Wait.", call())), PlayedTool(do=hang, timeout_s=10_000), settings=SETTINGS)
        await house.turn().answer()
        return world.loop.time()

    assert run(scene, 1) == pytest.approx(80, abs=1)


def test_a_round_that_is_cut_off_by_the_clock_is_billed_at_an_estimate() -> None:
    class Slow(Rounds):
        async def generate(self, generation: object) -> object:  # type: ignore[override]  # a generator
            async for event in super().generate(generation):  # type: ignore[arg-type]  # what the agent asks for
                yield event
                await asyncio.sleep(200)

    async def scene(world: World) -> tuple[str, Usage | None]:
        house = House(Slow(says("twelve bytes")), settings=SETTINGS)
        turn = house.turn(stream=True)
        events = await house.play(turn)
        assert world.loop.time() == pytest.approx(300, abs=1)
        return text_of(events), turn.outcome.usage

    said, used = run(scene, 1)
    assert said.startswith("twelve bytes\n\nI stopped here")
    assert used is not None
    assert (used.completion_tokens, used.estimated) == (4, True)


def test_a_client_that_leaves_stops_its_tools_within_a_second() -> None:
    async def scene(world: World) -> float:
        house = House(Rounds(says("Wait.", call(), call(index=1))), PlayedTool(do=hang), settings=SETTINGS)
        events = house.turn(stream=True).events()
        async for event in events:
            if isinstance(event, StepChanged) and event.kind == "tool":
                break
        left = world.loop.time()
        await events.aclose()
        assert house.lease.settled == 1
        return world.loop.time() - left

    assert run(scene, 1) <= 1


def test_a_run_that_goes_on_without_its_client_ends_and_is_settled_then() -> None:
    async def scene(world: World) -> tuple[int, int]:
        async def slow(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
            del arguments, context
            await asyncio.sleep(30)
            return ToolResult(text="sunny")

        house = House(Rounds(says("Wait.", call()), says("Sunny.")), PlayedTool(do=slow), settings=SETTINGS)
        events = house.turn(stream=True, agentic=Agentic(on_disconnect="continue")).events()
        async for event in events:
            if isinstance(event, StepChanged) and event.kind == "tool":
                break
        await events.aclose()
        before = house.lease.settled
        await house.turns.drains.idle()
        assert world.loop.time() == pytest.approx(30, abs=1)
        assert len(house.model.asked) == 2
        return before, house.lease.settled

    assert run(scene, 1) == (0, 1)


def test_a_server_that_goes_down_cuts_off_a_run_that_goes_on_and_settles_it() -> None:
    async def scene(world: World) -> int:
        house = House(Rounds(says("Wait.", call())), PlayedTool(do=hang), settings=SETTINGS)
        events = house.turn(stream=True, agentic=Agentic(on_disconnect="continue")).events()
        async for event in events:
            if isinstance(event, StepChanged) and event.kind == "tool":
                break
        await events.aclose()
        await house.turns.drains.aclose()
        assert world.loop.time() <= 5
        return house.lease.settled

    assert run(scene, 1) == 1


async def hang(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
    """Never answer."""
    del arguments, context
    await asyncio.Event().wait()
    raise AssertionError

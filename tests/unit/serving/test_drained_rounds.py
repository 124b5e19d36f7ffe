"""A round that is under way when the client of an agentic turn leaves is read to its end for the books, and no more."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest

from convene.errors import BadRequest, Conflict, Malformed
from convene.events import Began, Finished, Fold, StepChanged, TextDelta, UsageReported
from convene.providers.base import Capabilities
from convene.serving import drain as module
from convene.serving.agent import AgentSettings, Hooks
from convene.serving.base import Agentic
from convene.serving.channel import AHEAD_MAX
from convene.serving.deferred import SENTENCE
from convene.serving.drain import Pump, UnreadRounds
from convene.serving.planner import Planner
from convene.serving.terms import Terms
from convene.tools.base import ToolResult
from convene.usage import Usage
from fakes import FakeClock
from run_doubles import RunHouse, job
from tool_doubles import PlayedTool, say_sunny
from unit.serving.agent_doubles import WHO, House, Rounds, call, says
from unit.serving.test_agent import Journals

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from convene.events import Event
    from convene.providers.base import Generation
    from convene.serving.terms import OnDisconnect
    from convene.serving.turn import Turn
    from convene.tools.base import ToolContext
    from unit.serving.agent_doubles import Said

DRAIN = Terms(on_disconnect="drain", drain_s=5.0)
BOUND_S = 60
ROUND = Usage(10, 5)
"""What each round of these models uses, by its own words."""
SCRIPT = (says("Let me look.", call()), says("Sunny."))
LAST = TextDelta("and more")
SESSION = Agentic(session_id="s")
PLAN = json.dumps(
    {
        "steps": [
            {"id": name, "task": f"think of {name}", "tool": "none", "input": "", "depends_on": []}
            for name in ("a", "b")
        ]
    }
)


class Paced(Rounds):
    """A model that goes on saying only as far as it is let, and notes how its rounds ended."""

    def __init__(self, *rounds: Said, can: Capabilities | None = None) -> None:
        super().__init__(*rounds, can=can)
        self.may_end = asyncio.Event()
        self.is_held = asyncio.Event()
        self.holds_at = 0
        """The round, from 1, that stops before `LAST` or its last two events until it `may_end`; 0: none does."""
        self.closed = 0

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        number = len(self.asked) + 1
        try:
            async for event in super().generate(generation):
                if self.holds_at and number >= self.holds_at and (event == LAST or isinstance(event, Finished)):
                    self.is_held.set()
                    await self.may_end.wait()
                yield event
        finally:
            for _ in range(5):  # as a connection takes its time
                await asyncio.sleep(0)
            self.closed += 1


def house_of(*rounds: Said, terms: Terms = DRAIN, hooks: Hooks | None = None) -> tuple[House, Paced]:
    """Return a house whose model says these rounds, and the model."""
    model = Paced(*(rounds or SCRIPT))
    return House(model, terms=terms, hooks=hooks), model


def with_agents(
    *rounds: Said,
    terms: Terms = DRAIN,
    settings: AgentSettings = AgentSettings(),  # noqa: B008 -- frozen
) -> tuple[House, Paced, RunHouse]:
    """Return the same with somebody to ask, so that turns of a session may be deferred, and with where runs are."""
    runs, model = RunHouse(), Paced(*(rounds or SCRIPT))
    tools = PlayedTool(), PlayedTool("ask_agent", kind="agent")
    hooks = Hooks(runs=runs.runs, memory=runs.sessions)
    return House(model, *tools, hooks=hooks, settings=settings, terms=terms), model, runs


async def hang_up(task: asyncio.Task[Any]) -> None:
    """Cancel whoever reads a turn."""
    task.cancel()
    await asyncio.wait([task])


async def asked_for(model: Paced, rounds: int) -> None:
    """Wait until so many rounds are asked for."""
    async with asyncio.timeout(BOUND_S):
        while len(model.asked) < rounds:  # noqa: ASYNC110 -- a task beside this one
            await asyncio.sleep(0)


async def held(model: Paced) -> None:
    """Wait until the model has said all that it says before it is let end."""
    async with asyncio.timeout(BOUND_S):
        await model.is_held.wait()


def times(count: int) -> Usage:
    """Return what so many rounds use."""
    return Usage(10 * count, 5 * count)


def is_text(words: str) -> Callable[[Event], bool]:
    return lambda event: isinstance(event, TextDelta) and event.text == words


def is_call(event: Event) -> bool:
    return isinstance(event, StepChanged) and event.kind == "tool"


async def leave_at(turn: Turn, moment: Callable[[Event], bool]) -> None:
    """Read a turn up to an event, and leave."""
    async with aclosing(turn.events()) as events:
        async for event in events:
            if moment(event):
                return
    pytest.fail("the moment never came")


async def drained(house: House) -> None:
    """Wait until the turn is settled, and see that it is once."""
    async with asyncio.timeout(BOUND_S):
        await house.turns.drains.idle()
    assert house.lease.settled == 1


@pytest.mark.req("OAI-35")
@pytest.mark.parametrize(("words", "rounds"), [("Let me look.", 1), ("Sunny.", 2)])
async def test_a_round_under_way_is_read_to_its_end_and_billed_exactly(words: str, rounds: int) -> None:
    house, model = house_of()
    model.holds_at = rounds
    turn = house.turn()
    await leave_at(turn, is_text(words))
    assert (house.lease.settled, model.closed) == (0, rounds - 1)
    model.may_end.set()
    await drained(house)
    assert (turn.outcome.status, turn.outcome.usage) == ("client_left", times(rounds))
    assert (len(model.asked), model.closed) == (rounds, rounds)
    assert len(house.tool.asked) == rounds - 1


async def test_a_client_that_leaves_before_the_model_says_anything_is_billed_what_it_then_says() -> None:
    house, model = house_of([Began("elsewhere", "m"), TextDelta("Sunny."), Finished("stop"), UsageReported(ROUND)])
    turn = house.turn()
    task = asyncio.create_task(house.play(turn))
    await asked_for(model, 1)
    await hang_up(task)
    await drained(house)
    assert (turn.outcome.usage, len(model.asked), turn.outcome.upstream) == (ROUND, 1, "elsewhere")


@pytest.mark.req("OAI-35")
@pytest.mark.parametrize("agentic", [Agentic(), SESSION], ids=["read", "pumped"])
@pytest.mark.parametrize("way", ["stream", "whole"])
async def test_a_cancellation_at_every_await_bills_all_rounds_that_were_asked_for(way: str, agentic: Agentic) -> None:
    ends: set[int] = set()
    for turns_of_loop in range(300):
        house, model, runs = with_agents()
        turn = house.turn(agentic=agentic)
        task = asyncio.create_task(turn.answer() if way == "whole" else house.play(turn))
        for _ in range(turns_of_loop):
            await asyncio.sleep(0)
        await hang_up(task)
        asked = len(model.asked)
        await house.turns.drains.idle()
        assert len(model.asked) == asked, "no round begins when the client has left"
        assert model.closed == asked
        if not task.cancelled():
            assert ends == {0, 1, 2}, "it was left before, in and behind each round"
            return
        ends.add(asked)
        if turn.outcome.status == "client_left":
            assert house.lease.settled == 1
            assert (turn.outcome.usage or Usage()) == times(asked)
        assert runs.runs.live == {}
    pytest.fail("the turn never came to its end")


async def test_a_round_that_was_not_asked_for_yet_when_the_client_leaves_is_not_asked_for() -> None:
    seen = set()
    for turns_of_loop in range(60):
        house, model = house_of()
        turn = house.turn()
        async with aclosing(turn.events()) as events:
            await anext(events)
            for _ in range(turns_of_loop):
                await asyncio.sleep(0)
            asked = len(model.asked)
        await drained(house)
        assert len(model.asked) == asked
        assert turn.outcome.usage == times(asked)
        seen.add(asked)
    assert seen == {1, 2}


async def test_a_client_that_leaves_while_a_tool_runs_is_billed_at_once() -> None:
    async def never(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        await asyncio.Event().wait()
        return await say_sunny(arguments, context)

    model = Paced(*SCRIPT)
    house = House(model, PlayedTool(do=never), terms=DRAIN)
    turn = house.turn()
    await leave_at(turn, is_call)
    assert (house.lease.settled, turn.outcome.usage, turn.outcome.status) == (1, ROUND, "client_left")
    await drained(house)
    assert len(model.asked) == 1


@pytest.mark.parametrize("policy", ["cancel", "free"])
@pytest.mark.parametrize("agentic", [Agentic(), SESSION], ids=["read", "pumped"])
async def test_other_terms_end_the_round_and_enter_an_estimate(policy: OnDisconnect, agentic: Agentic) -> None:
    house, model, _ = with_agents(terms=Terms(on_disconnect=policy))
    model.holds_at = 1
    turn = house.turn(agentic=agentic)
    task = asyncio.create_task(house.play(turn))
    await held(model)
    await hang_up(task)
    assert (house.lease.settled, model.closed, len(model.asked)) == (1, 1, 1)
    assert turn.outcome.usage is not None
    assert turn.outcome.usage.estimated
    assert turn.outcome.usage.completion_tokens > 0


async def test_a_slow_reader_who_leaves_holds_nothing_back() -> None:
    words: Said = [TextDelta(f"{n} ") for n in range(3 * AHEAD_MAX)]
    house, model = house_of([Began("up", "m"), *words, Finished("stop"), UsageReported(ROUND)])
    turn = house.turn()
    async with aclosing(turn.events()) as events:
        await anext(events)
        for _ in range(4 * AHEAD_MAX):
            await asyncio.sleep(0)
        assert model.closed == 0, "the model waits for the reader"
    await drained(house)
    assert (turn.outcome.usage, model.closed) == (ROUND, 1)


async def test_a_slow_reader_of_a_turn_that_may_be_deferred_leaves_nothing_behind_either() -> None:
    words: Said = [TextDelta(f"{n} ") for n in range(5 * AHEAD_MAX)]
    house, model, _ = with_agents([Began("up", "m"), *words, Finished("stop"), UsageReported(ROUND)])
    turn = house.turn(agentic=SESSION)
    async with aclosing(turn.events()) as events:
        await anext(events)
        for _ in range(6 * AHEAD_MAX):
            await asyncio.sleep(0)
    await drained(house)
    assert (turn.outcome.usage, model.closed) == (ROUND, 1)
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "pump"] == []


async def test_rounds_beside_each_other_are_all_read_to_their_ends() -> None:
    model = Paced(says(PLAN), says("One."), says("Two."), says("Both."), can=Capabilities(json_schema=True))
    model.holds_at = 2
    hooks = Hooks(planner=lambda loop: Planner(loop, FakeClock()))
    house = House(model, hooks=hooks, terms=DRAIN)
    turn = house.turn(agentic=Agentic(planner_mode=True))
    task = asyncio.create_task(house.play(turn))
    await asked_for(model, 3)
    await hang_up(task)
    model.may_end.set()
    await drained(house)
    assert (turn.outcome.usage, len(model.asked), model.closed) == (times(3), 3, 3)


async def test_a_run_that_goes_on_without_its_client_goes_on_under_these_terms_too() -> None:
    house, model = house_of()
    turn = house.turn(agentic=Agentic(on_disconnect="continue"))
    await leave_at(turn, is_text("Let me look."))
    await drained(house)
    assert (turn.outcome.usage, len(model.asked), len(house.tool.asked)) == (times(2), 2, 1)


async def test_a_run_that_goes_on_and_is_cut_off_hands_no_round_over() -> None:
    house, model = house_of()
    model.holds_at = 1
    turn = house.turn(agentic=Agentic(on_disconnect="continue"))
    await leave_at(turn, is_text("Let me look."))
    await house.turns.drains.aclose(0)
    assert (house.lease.settled, model.closed) == (1, 1)
    assert turn.outcome.usage is not None
    assert turn.outcome.usage.estimated


async def test_a_turn_that_was_deferred_goes_on_and_is_cut_off_as_before() -> None:
    house, model, _ = with_agents(settings=AgentSettings(wait_s=0.0, whole_s=0.0))
    model.holds_at = 1
    turn = house.turn(agentic=SESSION)
    answer = await turn.answer()
    assert isinstance(answer, Fold)
    assert answer.choice(0).text == [SENTENCE]
    assert (house.lease.settled, model.closed) == (0, 0)
    await house.turns.drains.aclose(0)
    assert (house.lease.settled, model.closed) == (1, 1)
    assert turn.outcome.usage is not None
    assert turn.outcome.usage.estimated


async def test_a_run_that_was_taken_up_again_is_cut_off_as_before() -> None:
    house, model, runs = with_agents()
    model.holds_at = 1
    turn = house.turns.resume(job(), WHO, await runs.begun(), "chatcmpl-run_1-r2")
    task = asyncio.create_task(house.play(turn))
    await held(model)
    await hang_up(task)
    assert (house.lease.settled, model.closed) == (1, 1)
    assert turn.outcome.usage is not None
    assert turn.outcome.usage.estimated


@pytest.mark.parametrize("said", ["twelve bytes", ""])
async def test_a_drain_ends_after_its_time_and_is_entered_by_estimate(said: str) -> None:
    words: Said = [Began("up", "m"), TextDelta(said)] if said else []
    house, model = house_of(
        [*words, Finished("stop"), UsageReported(ROUND)],
        terms=Terms(on_disconnect="drain", drain_s=0.01),
    )
    model.holds_at = 1
    turn = house.turn()
    task = asyncio.create_task(house.play(turn))
    await held(model)
    await hang_up(task)
    assert house.lease.settled == 0
    await drained(house)
    used = turn.outcome.usage
    assert used is not None
    assert (used.completion_tokens, used.estimated, used.prompt_tokens > 0) == (4 if said else 0, True, True)
    assert model.closed == 1


async def test_a_server_that_goes_down_cuts_a_drain_off_and_settles_it() -> None:
    house, model = house_of()
    model.holds_at = 2
    turn = house.turn()
    await leave_at(turn, is_text("Sunny."))
    await house.turns.drains.aclose(0.01)
    assert (house.lease.settled, model.closed) == (1, 2)
    assert turn.outcome.usage is not None
    assert turn.outcome.usage.prompt_tokens > ROUND.prompt_tokens
    assert turn.outcome.usage.estimated


async def test_a_fault_while_nobody_listens_enters_what_had_come() -> None:
    house, _ = house_of([Began("up", "m"), TextDelta("abc"), TextDelta("def"), Malformed("broke off")])
    turn = house.turn()
    await leave_at(turn, is_text("abc"))
    await drained(house)
    used = turn.outcome.usage
    assert used is not None
    assert (turn.outcome.status, used.completion_tokens, used.estimated) == ("client_left", 2, True)


async def test_a_model_that_refuses_when_the_client_has_left_is_owed_nothing_and_not_asked_again() -> None:
    async def tell_much(arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        return ToolResult(text=f"{arguments['city']} is sunny. " * 1_000, data={"run": context.run_id})

    too_long = BadRequest("too long", code="context_length_exceeded")
    model = Paced(says("", call()), [too_long], says("never"))
    house = House(model, PlayedTool(do=tell_much), terms=DRAIN)
    turn = house.turn()
    task = asyncio.create_task(house.play(turn))
    await asked_for(model, 2)
    await hang_up(task)
    await drained(house)
    assert (turn.outcome.usage, len(model.asked)) == (ROUND, 2)


async def test_a_run_that_its_owner_ends_is_not_read_on() -> None:
    journals = Journals()
    house, model = house_of(hooks=Hooks(runs=journals))
    model.holds_at = 1
    turn = house.turn()
    task = asyncio.create_task(house.play(turn))
    await held(model)
    assert journals.stop is not None
    journals.stop()
    with pytest.raises(Conflict):
        await task
    assert (house.lease.settled, model.closed) == (1, 1)
    assert turn.outcome.usage is not None
    assert turn.outcome.usage.estimated


async def test_the_run_is_over_for_its_readers_as_soon_as_its_client_leaves() -> None:
    house, model, runs = with_agents()
    model.holds_at = 1
    turn = house.turn()
    await leave_at(turn, is_text("Let me look."))
    run = await runs.store.get("ada", turn.run_id)
    assert run is not None
    assert (run.status, house.lease.settled) == ("cancelled", 0)
    model.may_end.set()
    await drained(house)
    assert await runs.store.get("ada", turn.run_id) == run


async def test_what_is_read_on_is_shown_to_nobody() -> None:
    journals = Journals()
    house, model = house_of([Began("up", "m"), TextDelta("a"), LAST, Finished("stop"), UsageReported(ROUND)])
    house.agent.runs = journals
    model.holds_at = 1
    turn = house.turn()
    await leave_at(turn, is_text("a"))
    seen = list(journals.seen)
    model.may_end.set()
    await drained(house)
    assert (journals.seen, turn.outcome.usage) == (seen, ROUND)


async def test_without_a_leaving_client_rounds_go_as_any_other() -> None:
    plain, _ = house_of(terms=Terms())
    house, _ = house_of()
    assert await house.play() == await plain.play()
    failing, model = house_of([Began("up", "m"), TextDelta("a"), Malformed("broke off")])
    with pytest.raises(Malformed):
        await failing.play()
    assert (failing.lease.settled, model.closed) == (1, 1)


# The parts.


async def test_of_several_rounds_all_are_waited_for_and_the_first_fault_is_told() -> None:
    ended: list[str] = []

    async def read(name: str, fault: Exception | None = None) -> None:
        await asyncio.sleep(0)
        if fault is not None:
            raise fault
        await asyncio.sleep(0)
        ended.append(name)

    unread = UnreadRounds()
    assert not unread.taking
    unread.client_left()
    assert unread.taking
    entered: list[str] = []
    for name, fault in (("a", None), ("b", Malformed("no")), ("c", None)):
        unread.take(asyncio.create_task(read(name, fault)), lambda name=name: entered.append(name))
    unread.close()
    assert unread
    assert not unread.taking
    with pytest.raises(Malformed):
        await unread.finish()
    unread.enter()
    unread.enter()
    assert (ended, entered) == (["a", "c"], ["a", "b", "c"])


async def test_a_pump_is_stopped_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD_MAX", 4)
    closed: list[str] = []

    async def generate() -> AsyncGenerator[Event]:
        try:
            for _ in range(100):
                yield TextDelta("x")
        finally:
            closed.append("closed")

    unasked = Pump(generate())
    await unasked.stop()
    for turns_of_loop in (0, 20):
        pump = Pump(generate())
        async with aclosing(pump.events()) as events:
            await anext(events)
            for _ in range(turns_of_loop):
                await asyncio.sleep(0)
        async with asyncio.timeout(BOUND_S):
            await pump.stop()
    assert closed == ["closed", "closed"]


@pytest.mark.parametrize("terms", [Terms(), DRAIN], ids=["cancel", "drain"])
async def test_rounds_beside_one_that_fails_end_with_it_and_are_entered(terms: Terms) -> None:
    broken: Said = [Began("up", "m"), Malformed("broke off")]
    model = Paced(says(PLAN), broken, says("Two."), can=Capabilities(json_schema=True))
    model.holds_at = 2
    house = House(model, hooks=Hooks(planner=lambda loop: Planner(loop, FakeClock())), terms=terms)
    turn = house.turn(agentic=Agentic(planner_mode=True))
    with pytest.raises(Malformed):
        await house.play(turn)
    assert (house.lease.settled, len(model.asked), model.closed) == (1, 3, 3)
    used = turn.outcome.usage
    assert used is not None
    assert used.completion_tokens > ROUND.completion_tokens

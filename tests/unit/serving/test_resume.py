"""Runs of the dead go on: nothing that ended is done again, nothing is billed twice, and every run ends (goal D4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from convene.errors import NotFound, RateLimited, StoreFault
from convene.events import Finished, Fold, TextDelta, UsageReported
from convene.serving import resume as resume_module
from convene.serving.base import Outcome
from convene.serving.resume import AT_ONCE, Resumption
from convene.serving.run_books import entry_id, entry_of_killed, turn_of
from convene.store.base_runs import Step
from convene.usage import Usage
from ledger_samples import ended, intent
from run_doubles import WHO, RunHouse, a_round, a_tool, job
from unit.serving.ledger_double import Pages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.serving.base import Principal
    from convene.serving.base_agentic import Job, RunJournal

ROUNDS = 5
PROMPT, COMPLETION, RESERVED = 10, 3, 500


class Played:
    """A turn of some rounds, each but the last followed by three tools at once; what each effect did is counted."""

    def __init__(self, house: Players, job: Job, journal: RunJournal, turn_id: str) -> None:
        self.id = turn_id
        self.created = 0
        self.model = job.request.model
        self.outcome = Outcome()
        self.run_id = job.run_id
        self.conversation_id = job.conversation_id
        self._house = house
        self._journal = journal

    async def events(self) -> AsyncGenerator[Event]:
        house, journal = self._house, self._journal
        if house.refusals:
            raise house.refusals.pop()
        begun = intent(id=self.id)
        await house.ledger.begin(begun)
        used, gathered = Usage(), Fold()
        try:
            for number in range(1, ROUNDS + 1):
                round_step = await journal.open(a_round(number, RESERVED))
                if round_step.recorded is None:
                    house.asked.append(self.id)
                    await asyncio.sleep(0)
                    used += Usage(PROMPT, COMPLETION)
                    await round_step.close("done", usage=Usage(PROMPT, COMPLETION))
                gathered.add(TextDelta(f"{number} "))
                if number < ROUNDS:
                    steps = [await journal.open(a_tool("look", b"%d" % (3 * number + i))) for i in range(3)]
                    await asyncio.gather(*(self._tool(step) for step in steps))
                    yield TextDelta("")
            gathered.add(Finished("stop"))
            await journal.finish("done", gathered)
            yield UsageReported(used)
        except asyncio.CancelledError:
            await journal.finish("cancelled", gathered)
            raise
        await house.ledger.finish(
            ended(begun, prompt_tokens=used.prompt_tokens, completion_tokens=used.completion_tokens)
        )

    async def _tool(self, step: Any) -> None:  # noqa: ANN401 -- an `OpenStep`
        if step.recorded is None:
            self._house.effects.append(step.idempotency_key)
            await asyncio.sleep(0)
            await step.close("done", b"{}")

    async def answer(self) -> Fold:
        raise NotImplementedError


class Players:
    """A server whose turns are played: its runs, its books, what its turns have done."""

    def __init__(self) -> None:
        self.house = RunHouse()
        self.ledger = Pages()
        self.asked: list[str] = []
        self.effects: list[str] = []
        self.refusals: list[Exception] = []
        self.who: Principal | None = WHO
        self.faults: list[StoreFault] = []
        self.resumption = Resumption(self.house.runs, self, lambda: self.ledger, self.holder)

    async def holder(self, key_id: str) -> Principal | None:
        assert key_id == "k"
        if self.faults:
            raise self.faults.pop()
        return self.who

    def resume(self, job: Job, principal: Principal, journal: RunJournal, turn_id: str) -> Played:
        assert principal == WHO
        return Played(self, job, journal, turn_id)

    async def play(self, run_id: str = "run_1") -> None:
        """Run a turn from its beginning, as one that a client has asked for."""
        asked = job(run_id)
        journal = await self.house.runs.begin(asked)
        async for _ in Played(self, asked, journal, asked.turn_id).events():
            pass

    async def killed_after(self, writes: int) -> bool:
        """Play until that many writes are done, then die; False if the turn had ended before."""
        self.house.store.left = writes
        task = asyncio.create_task(self.play())
        return await self._died(task)

    async def restart(self, writes: int | None = None) -> bool:
        """Start as another process and take up what there is, until so many writes are done; whether it died again."""
        self.house.store.kill()
        self.ledger.dead = set(self.ledger.begun)
        self.house.runs.live.clear()
        self.house.store.left = writes
        await self.resumption.look()
        (task,) = self.resumption._tasks or (None,)
        return task is not None and await self._died(task)

    @staticmethod
    async def _died(task: asyncio.Task[None]) -> bool:
        for _ in range(1000):
            await asyncio.sleep(0)
            if task.done():
                task.result()
                return False
        task.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        if not task.done():  # it waits for a store that is no more, as the killed do
            task.cancel()
        await asyncio.wait([task], timeout=1)
        return True

    def sums(self) -> tuple[int, int]:
        """Return the tokens in the books."""
        entries = self.ledger.entries_by_id.values()
        return sum(one.prompt_tokens for one in entries), sum(one.completion_tokens for one in entries)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume_module, "PAUSE_S", 0.0)
    monkeypatch.setattr(resume_module, "CLAIM_S", 0.0)


@pytest.fixture
def players() -> Players:
    return Players()


WRITES = 1 + 2 * (ROUNDS + 3 * (ROUNDS - 1)) + 1
"""A run's beginning and end, and two for each of its 17 steps."""


@pytest.mark.parametrize("writes", range(1, WRITES))
async def test_killed_at_any_write_a_run_goes_on_and_does_nothing_twice(players: Players, writes: int) -> None:
    assert await players.killed_after(writes)
    before = {row.number: row for row in players.house.store.rows.values()}
    finished = {number for number, row in before.items() if row.status == "done"}
    rounds_before, tools_before = len(players.asked), list(players.effects)
    assert not await players.restart()
    run = players.house.store.runs["run_1"]
    assert (run.status, run.fence) == ("done", 2)
    again = [key for key in players.effects[len(tools_before) :] if key in tools_before]
    assert len(again) == len(set(again)), "at most once for one kill"
    assert not {int(key.split(":")[1][1:]) for key in again} & finished
    assert len(set(players.effects)) == 3 * (ROUNDS - 1), "and always with the same key"
    under_way = [row for row in before.values() if row.kind == "model" and row.status == "running"]
    assert len(players.asked) == ROUNDS + len([row for row in under_way if rounds_before])
    reserved = RESERVED * len(under_way)
    assert players.sums() == (ROUNDS * PROMPT, ROUNDS * COMPLETION + reserved), "each token once"
    assert players.ledger.begun == set()


@pytest.mark.parametrize("step", range(4, WRITES, 3))
async def test_killed_again_and_again_a_run_ends_all_the_same(players: Players, step: int) -> None:
    players.house.runs.terms = msgspec.structs.replace(players.house.runs.terms, resumes_max=100)
    assert await players.killed_after(step)
    deaths = 1
    while await players.restart(step):
        deaths += 1
        assert deaths < 60
    assert players.house.store.runs["run_1"].status == "done"
    per_key = {key: players.effects.count(key) for key in players.effects}
    assert sum(count - 1 for count in per_key.values()) <= 3 * deaths
    assert len(per_key) == 3 * (ROUNDS - 1)
    entries = players.ledger.entries_by_id
    assert set(entries) <= {entry_id("chatcmpl-run_1", fence) for fence in range(1, deaths + 2)}
    exact = [one for one in entries.values() if not one.estimated]
    lost = len(entries) - len(exact)
    assert players.sums()[1] == ROUNDS * COMPLETION + RESERVED * lost
    assert players.sums()[0] == ROUNDS * PROMPT


async def test_a_run_that_ended_before_its_books_were_closed_is_entered_at_what_it_has_used(players: Players) -> None:
    await players.play()
    entries = players.ledger.entries_by_id
    del entries["chatcmpl-run_1"]  # killed between the two
    orphan = players.ledger.intents["chatcmpl-run_1"]
    found = await players.resumption.entries([orphan, intent(id="chatcmpl-other"), intent(id="chatcmpl-run_1-r2")])
    assert set(found) == {"chatcmpl-run_1", "chatcmpl-run_1-r2"}
    entry = found["chatcmpl-run_1"]
    assert entry is not None
    assert (entry.prompt_tokens, entry.completion_tokens, entry.estimated) == (
        ROUNDS * PROMPT, ROUNDS * COMPLETION, False,
    )  # fmt: skip
    assert (entry.tool_calls, entry.status, entry.finish) == (3 * (ROUNDS - 1), "unknown", "done")
    second = found["chatcmpl-run_1-r2"]
    assert second is not None
    assert (second.prompt_tokens, second.completion_tokens, second.tool_calls) == (0, 0, 0)


async def test_a_run_that_goes_on_is_left_to_be_entered_by_whoever_takes_it_up(players: Players) -> None:
    await players.killed_after(9)
    assert await players.resumption.entries([intent(id="chatcmpl-run_1")]) == {"chatcmpl-run_1": None}


async def test_a_run_is_taken_up_so_often_and_then_fails_and_says_why(players: Players) -> None:
    assert await players.killed_after(3)
    for _ in range(3):
        assert await players.restart(2)
    assert not await players.restart()
    state = await players.house.runs.show(WHO, "run_1")
    assert state.run.status == "failed"
    assert state.answer is not None
    assert state.answer.fault == "resumed_too_often"
    assert "4 times" in state.answer.message


async def ended_with(players: Players) -> tuple[str, str]:
    assert not await players.restart()
    state = await players.house.runs.show(WHO, "run_1")
    assert state.answer is not None
    assert state.answer.message
    assert players.house.runs.live == {}
    return state.run.status, state.answer.fault


async def test_a_run_whose_key_was_revoked_meanwhile_is_cancelled(players: Players) -> None:
    await players.killed_after(5)
    asked = len(players.asked)
    players.who = None
    assert await ended_with(players) == ("cancelled", "key_revoked")
    assert len(players.asked) == asked


async def test_a_run_whose_end_was_asked_for_is_cancelled_and_not_run(players: Players) -> None:
    await players.killed_after(5)
    await players.house.runs.cancel(WHO, "run_1")
    asked = len(players.asked)
    assert await ended_with(players) == ("cancelled", "run_cancelled")
    assert len(players.asked) == asked


@pytest.mark.parametrize("request_bytes", [b"", b'{"of":"another version"}', b"\xff"])
async def test_a_run_whose_request_cannot_be_read_fails(players: Players, request_bytes: bytes) -> None:
    await players.killed_after(5)
    runs = players.house.store.runs
    runs["run_1"] = msgspec.structs.replace(runs["run_1"], request=request_bytes)
    assert await ended_with(players) == ("failed", "not_resumable")


async def test_a_run_whose_limits_are_used_up_waits_for_them(players: Players) -> None:
    await players.killed_after(5)
    players.refusals = [RateLimited("wait", retry_after_s=1.0) for _ in range(5)]
    assert not await players.restart()
    assert players.house.store.runs["run_1"].status == "done"
    assert not players.refusals


async def test_a_run_that_waits_for_its_limits_can_be_cancelled(players: Players) -> None:
    await players.killed_after(5)
    players.refusals = [RateLimited("wait", retry_after_s=1.0) for _ in range(500)]
    resuming = asyncio.create_task(players.restart())
    while len(players.refusals) > 450:  # noqa: ASYNC110 -- it takes turns of the loop, no time
        await asyncio.sleep(0)
    await players.house.runs.cancel(WHO, "run_1")
    assert not await resuming
    assert players.house.store.runs["run_1"].status == "cancelled"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (RateLimited("never", retry_after_s=None), "rate_limit_exceeded"),
        (NotFound("no such model", code="model_not_found"), "model_not_found"),
        (ValueError("a fault of ours"), "internal_error"),
    ],
)
async def test_a_run_that_cannot_go_on_fails_with_the_reason(players: Players, fault: Exception, code: str) -> None:
    await players.killed_after(5)
    players.refusals = [fault]
    assert await ended_with(players) == ("failed", code)


async def test_limits_that_never_let_a_run_go_on_fail_it_in_the_end(
    players: Players, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume_module, "WAIT_S", 0.0)
    await players.killed_after(5)
    players.refusals = [RateLimited("wait", retry_after_s=1.0)]
    assert await ended_with(players) == ("failed", "rate_limit_exceeded")


async def test_a_store_that_fails_at_the_wrong_moment_is_asked_again(players: Players) -> None:
    await players.killed_after(5)
    players.faults = [StoreFault("not now"), StoreFault("nor now")]
    assert not await players.restart()
    assert players.house.store.runs["run_1"].status == "done"


async def test_so_many_runs_go_on_at_once_and_the_others_after_them(players: Players) -> None:
    for number in range(AT_ONCE + 3):
        await players.house.runs.begin(job(f"run_{number:02}"))
    players.house.store.kill()
    assert await players.resumption.look() == AT_ONCE
    assert await players.resumption.look() == 0
    watching = asyncio.create_task(players.resumption.watch())
    for _ in range(500):
        await asyncio.sleep(0)
    assert {run.status for run in players.house.store.runs.values()} == {"done"}
    players.house.store.broken = True
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching])
    assert watching.cancelled(), "a store that fails does not end it"


async def test_a_server_that_stops_leaves_what_it_had_taken_up_to_the_next(players: Players) -> None:
    await players.killed_after(5)
    players.house.store.kill()
    players.house.runs.live.clear()
    players.refusals = [RateLimited("wait", retry_after_s=1.0) for _ in range(10_000)]
    await players.resumption.look()
    await asyncio.sleep(0)
    players.house.going_down = True
    await players.resumption.aclose()
    assert players.house.store.runs["run_1"].status == "running"
    assert players.house.runs.live == {}


@pytest.mark.parametrize(
    ("wanted", "turn", "fence"),
    [("chatcmpl-1", "chatcmpl-1", 1), ("chatcmpl-1-r2", "chatcmpl-1", 2), ("chatcmpl-1-r20", "chatcmpl-1", 20)],
)
def test_the_names_of_entries_tell_turn_and_holder(wanted: str, turn: str, fence: int) -> None:
    assert turn_of(wanted) == (turn, fence)
    assert entry_id(turn, fence) == wanted


def row(number: int, **changes: Any) -> Step:  # noqa: ANN401 -- a field of any type
    values: dict[str, Any] = {"run_id": "r", "number": number, "seq": number, "kind": "model", "name": "m"}
    return Step(**values | {"status": "done", "fence": 1} | changes)


async def test_a_killed_holder_is_entered_at_its_own_steps_alone(players: Players) -> None:
    await players.house.begun()
    run = players.house.store.runs["run_1"]
    rows = [
        row(1, prompt_tokens=10, completion_tokens=2, cost_micros=5),
        row(2, kind="tool", status="failed", cost_micros=1),
        row(3, kind="agent"),
        row(4, kind="fetch", status="running"),
        row(5, status="running", reserved_tokens=100, reserved_micros=40),
        row(6, prompt_tokens=1000, completion_tokens=1000, cost_micros=1000, fence=2),
    ]
    begun = intent(id=run.turn_id)
    entry = entry_of_killed(begun, run, rows)
    assert (entry.prompt_tokens, entry.completion_tokens, entry.cost_micros) == (10, 102, 46)
    assert (entry.tool_calls, entry.agent_calls, entry.images) == (1, 1, 0)
    assert (entry.estimated, entry.status, entry.finish) == (True, "unknown", "resumed")
    assert (entry.id, entry.key_id, entry.at_us) == (begun.id, begun.key_id, begun.at_us)
    assert not entry_of_killed(begun, run, rows[:1]).estimated


@pytest.mark.parametrize("answers", [True, False])
async def test_runs_wait_until_it_is_known_which_tools_there_are_but_not_for_ever(
    players: Players, monkeypatch: pytest.MonkeyPatch, *, answers: bool
) -> None:
    asked, known = asyncio.Event(), asyncio.Event()

    async def ready() -> None:
        asked.set()
        await known.wait()

    if not answers:
        monkeypatch.setattr(resume_module, "READY_S", 0.0)
    resumption = Resumption(players.house.runs, players, lambda: players.ledger, players.holder, ready)
    await players.killed_after(5)
    players.house.store.kill()
    players.house.runs.live.clear()
    watching = asyncio.create_task(resumption.watch())
    await asked.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    if answers:
        assert players.house.store.runs["run_1"].fence == 1
        known.set()
    async with asyncio.timeout(5):
        while players.house.store.runs["run_1"].status != "done":  # noqa: ASYNC110 -- it takes turns of the loop
            await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait([watching])

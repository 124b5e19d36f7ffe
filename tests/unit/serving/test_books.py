"""Every request is reserved, written down, run and settled: counters and ledger say the same, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.errors import BadRequest, OverBudget, RateLimited, StoreFault
from convene.limits.allowance import Allowance
from convene.limits.limit import Amounts, Unit
from convene.moments import SECOND_US
from convene.serving.admission import Ask
from convene.serving.allowances import Allowances
from convene.serving.base import Agentic, Outcome, Principal
from convene.serving.books import Books
from convene.serving.line import Line
from convene.serving.terms import Terms
from convene.store.memory_counters import MemoryCounters
from convene.usage import Price, Usage
from fakes import FakeClock
from unit.serving.ledger_double import Pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.limits.limit import Grant, Limit, Refusal

PRICE = Price(input=1_000_000, cached=100_000, output=2_000_000, request=10, version="v1")
DEAR = Terms(price=PRICE)
WHO = Principal(key_id="k1", owner="o1", plan="lab", user_id="u1", team_id="t1")
ALLOWED = Allowance(
    requests_per_minute=3,
    tokens_per_minute=10_000,
    concurrent_requests=2,
    budget_total=100_000,
    output_tokens_per_day=900,
)


class Fixed:
    """Estimates that never learn but remember what they were told."""

    def __init__(self) -> None:
        self.learned: list[tuple[str, str, int, Usage, int]] = []

    def both(self, key_id: str, model: str, size: int, ceiling: int | None) -> tuple[int, int]:
        assert (key_id, model) == ("k1", "m")
        return size // 3, min(100, ceiling or 100)

    def learn(self, key_id: str, model: str, size: int, used: Usage, choices: int) -> None:
        self.learned.append((key_id, model, size, used, choices))


class Room:
    """Books over memory, with everything in reach."""

    def __init__(self, allowed: Allowance = ALLOWED, line: Line | None = None) -> None:
        self.clock = FakeClock()
        self.counters = MemoryCounters(self.clock)
        self.ledger = Pages()
        self.estimates = Fixed()
        self.allowances = Allowances({"lab": allowed})
        self.books = Books(self.counters, self.ledger, self.allowances, self.estimates, self.clock, line=line)
        self.asked = 0

    def ask(self, *, terms: Terms = DEAR, size: int = 300, output_max: int | None = 50, n: int = 1) -> Ask:
        self.asked += 1
        return Ask(
            id=f"chatcmpl-{self.asked}",
            request_id=f"req_{self.asked}",
            principal=WHO,
            model_asked="asked",
            model="m",
            terms=terms,
            agentic=Agentic(session_id="s1", agent_address="agent1q"),
            stream=True,
            prompt_bytes=size,
            output_max=output_max,
            choices=n,
        )

    def level(self, name: str) -> int:
        """Return the state of the key's limit of that name."""
        limits = self.allowances.of_caller(WHO)
        grant = self.counters.local.levels(limits)
        ((kind, found),) = [(x.kind, state) for x, state in zip(limits, grant.states, strict=True) if x.name == name]
        return found - grant.now_us if kind == "rate" else found

    def used(self, name: str, window_s: int = 60) -> float:
        """Return the units of a rate that are in use."""
        (limit,) = [limit for limit in self.allowances.of_caller(WHO) if limit.name == name]
        return self.level(name) * limit.amount / (window_s * SECOND_US)


@pytest.fixture
def room() -> Room:
    return Room()


async def test_a_request_is_charged_its_estimate_and_settled_at_what_it_used(room: Room) -> None:
    ask, outcome = room.ask(), Outcome(model="m")
    lease = await room.books.reserve(ask, outcome)
    assert round(room.used("tokens per minute")) == 100 + 50
    assert (round(room.used("requests per minute")), room.level("concurrent requests")) == (1, 1)
    assert room.level("budget in total") == PRICE.at_most(300 + 64, 50)
    intent = room.ledger.intents[ask.id]
    assert intent.reserved == Amounts(1, 150, 100, 50, 0, PRICE.at_most(364, 50), 1)
    room.clock.move(2)
    outcome.usage, outcome.finish, outcome.upstream = Usage(90, 30, 10, 40), "stop", "up"
    outcome.first_event_ms = 1500.0
    lease.settle()
    await lease.written()
    cost = PRICE.cost(Usage(90, 30, 10, 40))
    entry = room.ledger.entries_by_id[ask.id]
    assert (entry.prompt_tokens, entry.completion_tokens, entry.reasoning_tokens, entry.cached_tokens) == (
        90,
        30,
        10,
        40,
    )
    assert (entry.cost_micros, entry.price, entry.status, entry.finish, entry.upstream) == (
        cost,
        "v1",
        "ok",
        "stop",
        "up",
    )
    assert (entry.ttft_us, entry.duration_us, entry.stream) == (1_500_000, 2_000_000, True)
    assert (entry.key_id, entry.owner, entry.user_id, entry.team_id) == ("k1", "o1", "u1", "t1")
    assert (entry.session_id, entry.agent_address, entry.model_asked, entry.model) == ("s1", "agent1q", "asked", "m")
    assert (entry.id, entry.request_id, entry.at_us) == (ask.id, ask.request_id, intent.at_us)
    assert entry.id in room.ledger.on_disk
    assert (room.level("budget in total"), room.level("concurrent requests")) == (cost, 0)
    assert (outcome.cost_micros, room.books.live) == (cost, {})
    assert room.estimates.learned == [("k1", "m", 300, outcome.usage, 1)]


async def test_counters_that_outlive_the_process_are_moved_when_the_entry_is_written(room: Room) -> None:
    """A4: the other way round, a kill in between would leave a request as unknown that the counters know better."""
    assert not room.books.counted_last
    room.books.counted_last = True
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    reserved = room.level("budget in total")
    outcome.usage = Usage(90, 30)
    lease.settle()
    assert room.level("budget in total") == reserved
    await lease.written()
    assert room.level("budget in total") == outcome.cost_micros < reserved
    assert outcome.standing is not None
    assert room.level("concurrent requests") == 0


async def test_a_first_token_is_never_entered_as_later_than_the_end(room: Room) -> None:
    """A turn begins a moment before its lease, and a busy machine may make that moment long."""
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    room.clock.move(2)
    outcome.usage, outcome.first_event_ms = Usage(90, 30), 2003.0
    lease.settle()
    [entry] = room.ledger.entries_by_id.values()
    assert (entry.ttft_us, entry.duration_us) == (2_000_000, 2_000_000)


async def test_only_the_first_settlement_counts(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    outcome.usage = Usage(1, 1)
    lease.settle()
    outcome.usage = Usage(10_000, 10_000)
    lease.settle()
    assert room.ledger.entries_by_id["chatcmpl-1"].prompt_tokens == 1
    assert room.level("budget in total") == PRICE.cost(Usage(1, 1))


async def test_the_caller_learns_how_its_limits_stand_before_and_after(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    before = outcome.standing
    assert before is not None
    assert before.limits is room.allowances.of(WHO, "m", Terms())
    outcome.usage = Usage(1, 1)
    lease.settle()
    after = outcome.standing
    assert after is not None
    tokens = [limit.name for limit in after.limits].index("tokens per minute")
    assert after.states[tokens] < before.states[tokens]


async def test_a_refused_request_is_charged_nothing_and_leaves_no_trace(room: Room) -> None:
    for _ in range(3):
        outcome = Outcome(model="m")
        lease = await room.books.reserve(room.ask(), outcome)
        lease.settle()
    levels = [room.level(limit.name) for limit in room.allowances.of_caller(WHO)]
    outcome = Outcome(model="m")
    with pytest.raises(RateLimited, match="requests per minute") as caught:
        await room.books.reserve(room.ask(), outcome)
    assert caught.value.retry_after_s == pytest.approx(20)
    assert [room.level(limit.name) for limit in room.allowances.of_caller(WHO)] == levels
    assert len(room.ledger.intents) == 3
    assert outcome.standing is not None
    assert outcome.standing.refusal is not None
    assert outcome.standing.refusal.limit.unit is Unit.REQUESTS
    room.clock.move(20)
    await room.books.reserve(room.ask(), Outcome(model="m"))


async def test_money_is_reserved_at_its_upper_bound_so_a_budget_cannot_be_overspent() -> None:
    room = Room(Allowance(budget_total=1000))
    with pytest.raises(OverBudget):
        await room.books.reserve(room.ask(size=3000, output_max=None), Outcome(model="m"))
    lease = await room.books.reserve(room.ask(size=300, output_max=200), Outcome(model="m"))
    assert room.level("budget in total") == 10 + 364 + 400
    with pytest.raises(OverBudget):
        await room.books.reserve(room.ask(size=300, output_max=200), Outcome(model="m"))
    lease.settle()
    await room.books.reserve(room.ask(size=300, output_max=200), Outcome(model="m"))


async def test_a_request_above_a_whole_limit_is_told_so_for_good() -> None:
    room = Room(Allowance(tokens_per_minute=120))
    with pytest.raises(BadRequest, match="waiting does not help"):
        await room.books.reserve(room.ask(size=300, output_max=50), Outcome(model="m"))


@pytest.mark.parametrize(
    ("outcome", "terms", "cost", "charged"),
    [
        (Outcome(status="failed", finish="upstream_error"), Terms(price=PRICE), 0, 0),
        (Outcome(status="failed", usage=Usage(5, 1, estimated=True)), Terms(price=PRICE), 17, 6),
        (Outcome(status="client_left", usage=Usage(5, 1, estimated=True)), Terms(price=PRICE), 17, 6),
        (Outcome(status="client_left", usage=Usage(5, 1)), Terms(price=PRICE, on_disconnect="free"), 0, 6),
        (Outcome(status="ok"), Terms(price=PRICE), 10, 0),
    ],
)
async def test_what_is_billed_of_each_end(room: Room, outcome: Outcome, terms: Terms, cost: int, charged: int) -> None:
    lease = await room.books.reserve(room.ask(terms=terms), outcome)
    lease.settle()
    entry = room.ledger.entries_by_id["chatcmpl-1"]
    assert (entry.cost_micros, entry.status, entry.finish) == (cost, outcome.status, outcome.finish)
    assert round(room.used("tokens per minute")) == charged
    assert (room.level("budget in total"), round(room.used("requests per minute"))) == (cost, 1)
    assert room.estimates.learned == ([] if outcome.status != "ok" else [("k1", "m", 300, Usage(), 1)])


async def test_books_that_cannot_be_written_refuse_the_request_and_free_what_it_held(room: Room) -> None:
    room.ledger.fails = True
    with pytest.raises(StoreFault):
        await room.books.reserve(room.ask(), Outcome(model="m"))
    assert (room.level("concurrent requests"), room.level("budget in total"), room.books.live) == (0, 0, {})


async def test_an_entry_that_is_not_on_the_disk_is_said_in_the_log(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    lease = await room.books.reserve(room.ask(), Outcome(model="m"))
    room.ledger.fails = True
    lease.settle()
    await lease.written()
    assert "entry chatcmpl-1 is not on the disk: disk full" in caplog.text


async def test_a_caller_that_leaves_while_its_intent_is_written_leaves_no_lease(room: Room) -> None:
    task = asyncio.create_task(room.books.reserve(room.ask(), Outcome(model="m")))
    await asyncio.sleep(0)
    assert room.ledger.begun == {"chatcmpl-1"}
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    entry = room.ledger.entries_by_id["chatcmpl-1"]
    assert (entry.status, entry.finish, entry.cost_micros) == ("client_left", "client_left", 0)
    assert (room.level("concurrent requests"), room.books.live) == (0, {})


class Far:
    """Counters elsewhere: the same ones, never at once; they may be away."""

    local = None

    def __init__(self, near: MemoryCounters) -> None:
        self.near = near
        self.away = 0

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            self.away -= 1
            raise StoreFault("The counters are away.", detail="no route")

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        await self._reach()
        found = self.near.local.reserve(lease, limits, amounts, lease_us)
        await asyncio.sleep(0)
        return found

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        raise NotImplementedError(lease, round_number, amounts, lease_us)

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        await self._reach()
        return self.near.local.settle(lease, actual)

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        raise NotImplementedError(leases, lease_us)

    async def expire(self) -> tuple[str, ...]:
        return ()

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        return self.near.local.levels(limits)

    async def fresh(self) -> bool:
        return False

    async def replay(self, past: object) -> None:
        raise NotImplementedError(past)

    async def aclose(self) -> None:
        return


async def test_counters_elsewhere_are_settled_in_the_background_and_again_if_they_are_away(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convene.serving.books.PAUSE_S", 0.0)
    far = Far(room.counters)
    books = Books(far, room.ledger, room.allowances, room.estimates, room.clock)
    outcome = Outcome(model="m")
    lease = await books.reserve(room.ask(), outcome)
    outcome.usage, far.away = Usage(2, 1), 3
    lease.settle()
    await books.flush()
    assert (far.away, room.level("concurrent requests")) == (0, 0)
    assert room.level("budget in total") == PRICE.cost(Usage(2, 1))


async def test_a_caller_that_leaves_while_counters_elsewhere_answer_leaves_nothing_reserved(room: Room) -> None:
    for turns_of_loop in range(6):
        books = Books(Far(room.counters), room.ledger, room.allowances, room.estimates, room.clock)
        task = asyncio.create_task(books.reserve(room.ask(), Outcome(model="m")))
        for _ in range(turns_of_loop):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result().abandon("client_left")
        await books.flush()
        assert (room.level("concurrent requests"), room.level("budget in total")) == (0, 0), turns_of_loop
        room.clock.move(60)


async def test_with_a_line_a_request_waits_for_a_slot_in_its_turn() -> None:
    room = Room(Allowance(concurrent_requests=1), Line(60, 10))
    first = await room.books.reserve(room.ask(), Outcome(model="m"))
    second = asyncio.create_task(room.books.reserve(room.ask(), Outcome(model="m")))
    third = asyncio.create_task(room.books.reserve(room.ask(), Outcome(model="m")))
    await asyncio.sleep(0.01)
    assert not second.done()
    first.settle()
    async with asyncio.timeout(60):
        lease = await second
    assert not third.done()
    lease.settle()
    async with asyncio.timeout(60):
        (await third).settle()
    assert room.level("concurrent requests") == 0


# Further rounds of an agentic turn.


async def test_a_further_round_is_reserved_in_the_same_lease_without_a_request_of_its_own(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    reserved = room.level("budget in total")
    assert await lease.top_up(2, 600, 50) is None
    assert round(room.used("tokens per minute")) == 150 + 200 + 50
    assert (round(room.used("requests per minute")), room.level("concurrent requests")) == (1, 1)
    assert room.level("budget in total") == reserved + PRICE.at_most(664, 50) - PRICE.request
    outcome.usage = Usage(300, 60)
    lease.settle()
    assert round(room.used("tokens per minute")) == 360
    assert room.level("budget in total") == PRICE.cost(Usage(300, 60))
    assert room.level("concurrent requests") == 0


async def test_what_a_round_may_use_is_the_estimate_that_its_reservation_is_made_of(room: Room) -> None:
    lease = await room.books.reserve(room.ask(), Outcome(model="m"))
    assert lease.expect(600, 50) == (250, PRICE.at_most(664, 50) - PRICE.request)
    assert lease.expect(600, None) == (300, PRICE.at_most(664, 32_768) - PRICE.request)
    assert lease.expect(600, 0) == (300, PRICE.at_most(664, 0) - PRICE.request)
    lease.settle()


async def test_a_round_that_a_limit_refuses_charges_nothing_and_the_turn_can_be_settled(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    before = (room.used("tokens per minute"), room.level("budget in total"))
    refusal = await lease.top_up(2, 40_000, 50)
    assert refusal is not None
    assert refusal.limit.name == "tokens per minute"
    assert (room.used("tokens per minute"), room.level("budget in total")) == before
    outcome.usage = Usage(90, 30)
    lease.settle()
    assert round(room.used("tokens per minute")) == 120


async def test_a_round_asked_for_twice_is_charged_once(room: Room) -> None:
    lease = await room.books.reserve(room.ask(), Outcome(model="m"))
    await lease.top_up(2, 600, 50)
    await lease.top_up(2, 600, 50)
    assert round(room.used("tokens per minute")) == 400
    lease.settle()


async def test_a_lease_that_ran_out_lets_the_turn_go_on_and_is_settled_at_nothing_more(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    room.clock.move(31)
    assert await lease.top_up(2, 600, 50) is None
    outcome.usage = Usage(10, 1)
    lease.settle()
    await lease.written()


async def test_estimates_learn_from_a_turn_of_several_rounds_what_one_round_uses(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(size=300), outcome)
    await lease.top_up(1, 60, 0)
    await lease.top_up(2, 600, 50)
    await lease.top_up(3, 900, 50)
    outcome.usage = Usage(620, 90)
    lease.settle()
    assert room.estimates.learned == [("k1", "m", 300 + 60 + 600 + 900, outcome.usage, 3)]


async def test_how_the_callers_limits_stand_is_that_after_the_last_round(room: Room) -> None:
    outcome = Outcome(model="m")
    lease = await room.books.reserve(room.ask(), outcome)
    assert outcome.standing is not None
    before = outcome.standing.states
    await lease.top_up(2, 600, 50)
    assert outcome.standing.states != before
    lease.settle()

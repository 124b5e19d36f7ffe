"""Counters whose store fails: what is closed, what goes on at a share, and that the store learns all of it after.

The store is counters in memory behind a switch; time is moved by hand, except where a call has to hang (virtual time).
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import pytest

from convene.errors import NotFound, StoreFault
from convene.limits.limit import DAY_US, Amounts, Grant, Limit, Past, Refusal, Unit
from convene.serving.backlog import Backlog, Missed
from convene.serving.fallback import REST_S, Guarded
from convene.store.memory_counters import LocalMemoryCounters, MemoryCounters
from convene.store.redis_counters import STALE_US
from fakes import FakeClock
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from convene.clock import Clock
    from convene.limits.limit import Kind
    from convene.serving.shares import Choice

T = TypeVar("T")
Weather = Literal["fine", "out", "deaf", "hangs"]
"""`out`: nothing is done; `deaf`: it is done, but the answer is lost; `hangs`: no answer, ever."""

HOUR_US: Final = 3_600_000_000
WORKERS: Final = 4
RATE: Final = Limit.rate(Unit.TOKENS, 1000, DAY_US, scope="key", subject="k1", name="tokens per day")
SLOTS: Final = Limit.slots(8, scope="key", subject="k1")
MONEY: Final = Limit.budget(Unit.MICROS, 500, "total", scope="user", subject="u1", name="budget in total")
PLAIN: Final = (RATE, SLOTS)
PAID: Final = (RATE, MONEY)
COST: Final = Amounts(requests=1, tokens=100, micros=10, slots=1)


class Switched:
    """Counters in memory that fail as the weather says."""

    local = None

    def __init__(self, clock: Clock) -> None:
        self.inner = MemoryCounters(clock)
        self.weather: Weather = "fine"
        self.asked = 0
        self.closed = False
        self._clock = clock

    def lose_memory(self) -> None:
        """Come back empty."""
        self.inner = MemoryCounters(self._clock)

    async def _under(self, call: Callable[[], Awaitable[T]]) -> T:
        self.asked += 1
        if self.weather == "hangs":
            await asyncio.get_running_loop().create_future()
        if self.weather == "out":
            raise StoreFault("no", detail="switched off")
        answer = await call()
        if self.weather == "deaf":
            raise StoreFault("no", detail="the answer was lost")
        return answer

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        return await self._under(lambda: self.inner.reserve(lease, limits, amounts, lease_us))

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        return await self._under(lambda: self.inner.top_up(lease, round_number, amounts, lease_us))

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        return await self._under(lambda: self.inner.settle(lease, actual))

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        await self._under(lambda: self.inner.renew(leases, lease_us))

    async def expire(self) -> tuple[str, ...]:
        return await self._under(self.inner.expire)

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        return await self._under(lambda: self.inner.levels(limits))

    async def fresh(self) -> bool:
        return await self._under(self.inner.fresh)

    async def replay(self, past: Sequence[Past]) -> None:
        await self._under(lambda: self.inner.replay(past))

    async def aclose(self) -> None:
        self.closed = True
        await self.inner.aclose()

    async def used(self, limit: Limit) -> int:
        """Return how much of a limit is used, whatever the weather."""
        levels = await self.inner.levels((limit,))
        if limit.kind == "rate":
            return round((levels.states[0] - levels.now_us) * limit.amount / limit.window_us)
        return levels.states[0]


class Scene:
    """A guarded store and its clock."""

    def __init__(self, choices: Mapping[Kind, Choice] | None = None) -> None:
        self.clock = FakeClock()
        self.store = Switched(self.clock)
        self.own: list[LocalMemoryCounters] = []
        self.guarded = Guarded(self.store, self.make_local, self.clock, workers=WORKERS, choices=choices)

    def make_local(self) -> LocalMemoryCounters:
        self.own.append(LocalMemoryCounters(self.clock))
        return self.own[-1]

    async def grant(self, lease: str, limits: tuple[Limit, ...] = PLAIN, cost: Amounts = COST) -> Grant:
        answer = await self.guarded.reserve(lease, limits, cost, HOUR_US)
        assert isinstance(answer, Grant), answer
        return answer

    async def refusal(self, lease: str, limits: tuple[Limit, ...] = PLAIN, cost: Amounts = COST) -> Refusal:
        answer = await self.guarded.reserve(lease, limits, cost, HOUR_US)
        assert isinstance(answer, Refusal), answer
        return answer

    def break_off(self, weather: Weather = "out") -> None:
        self.store.weather = weather

    async def recover(self) -> None:
        """Let the store be there again, be tried, and be told what it missed."""
        self.store.weather = "fine"
        self.clock.move(REST_S)
        await self.guarded.levels(PLAIN)
        await self.told()

    async def told(self) -> None:
        """Wait until the telling has ended."""
        for _ in range(1000):
            if self.guarded._telling is None:
                return
            await asyncio.sleep(0)
        raise AssertionError("it never ends")


@pytest.fixture
def scene() -> Scene:
    return Scene()


# While the store is there.


async def test_a_store_that_answers_decides_alone(scene: Scene) -> None:
    granted = await scene.grant("a")
    assert granted.states[1] == 1
    assert isinstance(await scene.guarded.top_up("a", 1, COST, HOUR_US), Grant)
    await scene.guarded.renew(["a"], HOUR_US)
    assert await scene.guarded.expire() == ()
    settled = await scene.guarded.settle("a", Amounts(tokens=30))
    assert settled is not None
    assert await scene.store.used(RATE) == 30
    assert scene.own == [], "local counters are made when they are needed"
    assert not scene.guarded.down
    assert not scene.guarded._held


async def test_refusals_and_unknown_leases_are_those_of_the_store(scene: Scene) -> None:
    assert (await scene.refusal("a", cost=Amounts(tokens=1001))).reason == "never"
    assert await scene.guarded.settle("nobody", COST) is None
    with pytest.raises(NotFound):
        await scene.guarded.top_up("nobody", 1, COST, HOUR_US)
    assert await scene.guarded.fresh()
    await scene.guarded.replay([Past((RATE,), COST, 0)])
    assert await scene.store.used(RATE) == 100
    await scene.guarded.aclose()
    assert scene.store.closed


async def test_a_wrong_amount_is_no_outage(scene: Scene) -> None:
    with pytest.raises(ValueError, match="negative"):
        await scene.guarded.reserve("a", PLAIN, Amounts(tokens=-1), HOUR_US)
    assert not scene.guarded.down


# While it is out.


@pytest.mark.parametrize("weather", ["out", "deaf"])
async def test_rates_go_on_at_a_share(scene: Scene, weather: Weather) -> None:
    scene.break_off(weather)
    for number in range(2):
        granted = await scene.grant(f"l{number}")
    assert granted.states[1] == 2
    answer = await scene.refusal("l2")  # 300 of a share of 250
    assert (answer.limit, answer.reason) == (RATE, "wait")
    assert answer.wait_us is not None
    assert 0 < answer.wait_us < DAY_US


async def test_all_workers_together_admit_at_most_one_burst_more(scene: Scene) -> None:
    """A8: the shares sum to the limit."""
    workers = [Guarded(scene.store, scene.make_local, scene.clock, workers=WORKERS) for _ in range(WORKERS)]
    admitted = 0
    for weather in ("fine", "out"):
        scene.store.weather = weather
        for number in range(100):
            for place, worker in enumerate(workers):
                cost = Amounts(tokens=10 + number % 3)
                answer = await worker.reserve(f"{weather}-{place}-{number}", (RATE,), cost, HOUR_US)
                admitted += cost.tokens if isinstance(answer, Grant) else 0
    assert 2 * RATE.amount - 100 < admitted <= 2 * RATE.amount


async def test_slots_stay_local(scene: Scene) -> None:
    scene.break_off()
    few = Amounts(tokens=1, slots=1)
    assert [(await scene.grant(f"l{number}", cost=few)).states[1] for number in range(2)] == [1, 2]
    answer = await scene.refusal("l2", cost=few)
    assert (answer.limit, answer.reason) == (SLOTS, "full")
    assert await scene.guarded.settle("l0", few) is not None
    await scene.grant("l2", cost=few)


async def test_money_is_closed(scene: Scene) -> None:
    scene.break_off()
    for number in range(3):
        with pytest.raises(StoreFault) as caught:
            await scene.guarded.reserve(f"l{number}", PAID, COST, HOUR_US)
        assert caught.value.retry_after_s == REST_S
        assert "again in a moment" in caught.value.message
    assert await scene.store.used(MONEY) == 0


async def test_choices_are_made_for_each_kind() -> None:
    closed = Scene({"rate": "closed"})
    closed.break_off()
    with pytest.raises(StoreFault):
        await closed.grant("a")
    opened = Scene({"rate": "open", "budget": "open"})
    opened.break_off()
    huge = Amounts(tokens=10**6, micros=10**6)
    granted = await opened.grant("a", PAID, huge)
    assert granted.states == (granted.now_us, 0)
    kept = Scene({"budget": "local"})
    kept.break_off()
    await kept.grant("a", (MONEY,), Amounts(micros=125))
    assert (await kept.refusal("b", (MONEY,), Amounts(micros=1))).limit == MONEY


async def test_a_store_that_is_out_is_asked_once_in_a_while(scene: Scene) -> None:
    scene.break_off()
    for number in range(5):
        await scene.grant(f"l{number}", cost=Amounts(tokens=1))
    assert scene.store.asked == 1
    scene.clock.move(REST_S * 0.99)
    await scene.grant("early", cost=Amounts(tokens=1))
    assert scene.store.asked == 1
    scene.clock.move(REST_S * 0.02)
    await asyncio.gather(*(scene.grant(f"m{number}", cost=Amounts(tokens=1)) for number in range(5)))
    assert scene.store.asked == 2, "one tries, the others do not wait for it"
    assert scene.guarded.down


def test_a_store_that_hangs_is_given_up_after_the_wait() -> None:
    """A8: no decision takes longer than the wait, and after the first none takes any."""

    async def play(world: World) -> None:
        store = Switched(world.clock)
        guarded = Guarded(store, lambda: LocalMemoryCounters(world.clock), world.clock, workers=WORKERS, wait_s=0.05)
        store.weather = "hangs"
        tasks = [guarded.reserve(f"l{number}", (RATE,), Amounts(tokens=1), HOUR_US) for number in range(20)]
        answers = await asyncio.gather(*tasks)
        assert all(isinstance(answer, Grant) for answer in answers)
        assert world.loop.time() == pytest.approx(0.05)
        assert isinstance(await guarded.reserve("later", (RATE,), Amounts(tokens=1), HOUR_US), Grant)
        with pytest.raises(StoreFault):
            await guarded.reserve("paid", PAID, COST, HOUR_US)
        assert await guarded.settle("later", Amounts(tokens=1)) is not None
        assert world.loop.time() == pytest.approx(0.05)

    run(play, 1)


async def test_everything_else_goes_on_too(scene: Scene) -> None:
    await scene.grant("there")
    scene.break_off()
    await scene.grant("here")
    await scene.guarded.renew(["here", "there", "nobody"], HOUR_US)
    assert await scene.guarded.expire() == ()
    levels = await scene.guarded.levels(PAID)
    assert levels.states[0] > levels.now_us
    assert levels.states[1] == 0
    with pytest.raises(StoreFault):
        await scene.guarded.fresh()
    with pytest.raises(StoreFault):
        await scene.guarded.replay([])


@pytest.mark.parametrize("call", ["renew", "expire", "levels", "settle", "top_up"])
async def test_any_call_may_notice_the_outage(scene: Scene, call: str) -> None:
    await scene.grant("a")
    scene.break_off()
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "renew": lambda: scene.guarded.renew(["a"], HOUR_US),
        "expire": scene.guarded.expire,
        "levels": lambda: scene.guarded.levels(PLAIN),
        "settle": lambda: scene.guarded.settle("a", COST),
        "top_up": lambda: scene.guarded.top_up("a", 1, COST, HOUR_US),
    }
    await calls[call]()
    assert scene.guarded.down


async def test_a_lease_of_this_process_is_topped_up_renewed_and_ended_here(scene: Scene) -> None:
    scene.break_off()
    await scene.grant("a", cost=Amounts(tokens=50, slots=1))
    answer = await scene.guarded.top_up("a", 1, Amounts(tokens=150), HOUR_US)
    assert isinstance(answer, Grant)
    refused = await scene.guarded.top_up("a", 2, Amounts(tokens=100), HOUR_US)
    assert isinstance(refused, Refusal)
    assert refused.limit == RATE
    scene.clock.move(1800)
    await scene.guarded.renew(["a"], HOUR_US)
    scene.clock.move(3500)
    assert await scene.guarded.expire() == ()
    scene.clock.move(200)
    assert await scene.guarded.expire() == ("a",)
    assert not scene.guarded._held


async def test_a_lease_of_the_store_is_topped_up_at_a_share(scene: Scene) -> None:
    await scene.grant("a")
    scene.break_off()
    answer = await scene.guarded.top_up("a", 1, Amounts(tokens=200, slots=1), HOUR_US)
    assert isinstance(answer, Grant)
    assert answer.states[1] == 0, "the slot was taken once, there"
    refused = await scene.guarded.top_up("a", 2, Amounts(tokens=100), HOUR_US)
    assert isinstance(refused, Refusal)
    assert refused.limit == RATE
    with pytest.raises(NotFound):
        await scene.guarded.top_up("nobody", 1, Amounts(tokens=1), HOUR_US)
    scene.clock.move(3700)
    assert await scene.guarded.expire() == (), "a single round is no lease"


async def test_a_paid_lease_of_the_store_gets_no_further_round(scene: Scene) -> None:
    await scene.grant("a", PAID)
    scene.break_off()
    with pytest.raises(StoreFault):
        await scene.guarded.top_up("a", 1, COST, HOUR_US)


# When it is back.


@pytest.mark.parametrize("weather", ["out", "deaf"])
async def test_a_settlement_that_was_missed_is_made_up_for(scene: Scene, weather: Weather) -> None:
    await scene.grant("a", PAID)
    scene.break_off(weather)
    assert await scene.guarded.settle("a", Amounts(tokens=40, micros=7)) is None
    await scene.recover()
    assert not scene.guarded.down
    assert [await scene.store.used(limit) for limit in PAID] == [40, 7]
    assert scene.store.inner.local.settle("a", COST) is None


@pytest.mark.parametrize("weather", ["out", "deaf"])
async def test_what_was_admitted_meanwhile_is_charged_once(scene: Scene, weather: Weather) -> None:
    """Whether the store had heard of the first or not, as it could not say."""
    scene.break_off(weather)
    for number in range(2):
        await scene.grant(f"l{number}")
        await scene.guarded.settle(f"l{number}", Amounts(tokens=70))
    await scene.recover()
    assert await scene.store.used(RATE) == 140
    assert await scene.store.used(SLOTS) == 0


async def test_what_ends_after_the_outage_is_charged_too(scene: Scene) -> None:
    scene.break_off("deaf")
    await scene.grant("a")
    await scene.recover()
    settled = await scene.guarded.settle("a", Amounts(tokens=60))
    assert settled is not None
    await scene.told()
    assert await scene.store.used(RATE) == 60


async def test_a_paid_request_that_was_refused_here_is_given_back_there(scene: Scene) -> None:
    """The store had charged it and could not say so."""
    scene.break_off("deaf")
    with pytest.raises(StoreFault):
        await scene.guarded.reserve("a", PAID, COST, HOUR_US)
    assert await scene.store.used(MONEY) == 10
    await scene.recover()
    assert [await scene.store.used(limit) for limit in PAID] == [0, 0]


async def test_a_request_that_fits_no_share_is_given_back_there(scene: Scene) -> None:
    scene.break_off("deaf")
    answer = await scene.refusal("a", cost=Amounts(tokens=300, slots=1))
    assert (answer.reason, answer.wait_us) == ("wait", REST_S * 1e6)
    assert await scene.store.used(RATE) == 300
    await scene.recover()
    assert [await scene.store.used(limit) for limit in PLAIN] == [0, 0]


async def test_a_first_answer_during_the_rest_does_not_end_it(scene: Scene) -> None:
    """An answer that was on its way when another was lost."""
    scene.break_off()
    slow = asyncio.create_task(scene.guarded._ask(asyncio.sleep(0)))
    await scene.grant("a")
    await slow
    assert scene.guarded.down
    assert scene.guarded._telling is None


async def test_a_fault_while_it_is_told_does_not_count_as_its_return(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def settle_there(lease: str, actual: Amounts) -> Grant | None:
        scene.clock.move(0.01)
        scene.guarded._note(StoreFault("no"))  # of another call
        return await scene.store.settle(lease, actual)

    await scene.grant("a")
    scene.break_off()
    await scene.guarded.settle("a", COST)
    monkeypatch.setattr(scene.guarded, "_settle_there", settle_there)
    await scene.recover()
    assert scene.guarded.down
    assert not scene.guarded._backlog


async def test_the_store_is_not_bothered_with_leases_that_it_cannot_know(scene: Scene) -> None:
    scene.break_off()
    await scene.grant("maybe", cost=Amounts(tokens=1))
    await scene.grant("never", cost=Amounts(tokens=1))
    for lease in ("maybe", "never"):
        await scene.guarded.settle(lease, Amounts(tokens=1))
    asked = scene.store.asked
    await scene.recover()
    # levels; one settlement and both charges
    assert scene.store.asked - asked == 3


async def test_others_do_without_until_the_store_was_told(scene: Scene) -> None:
    scene.break_off()
    await scene.grant("a")
    await scene.guarded.settle("a", COST)
    scene.store.weather = "fine"
    scene.clock.move(REST_S)
    await scene.guarded.levels(PLAIN)
    assert scene.guarded.down
    asked = scene.store.asked
    await scene.grant("b", cost=Amounts(tokens=1))
    assert scene.store.asked == asked
    await scene.told()
    assert not scene.guarded.down
    await scene.grant("c", cost=Amounts(tokens=1))
    assert scene.store.asked > asked


async def test_an_outage_while_it_is_told_loses_nothing(scene: Scene) -> None:
    await scene.grant("a")
    await scene.grant("b")
    scene.break_off()
    for lease in "ab":
        await scene.guarded.settle(lease, Amounts(tokens=5))
    scene.store.weather = "fine"
    scene.clock.move(REST_S)
    await scene.guarded.levels(PLAIN)
    scene.break_off()
    await scene.told()
    assert scene.guarded.down
    assert len(scene.guarded._backlog) == 2
    await scene.recover()
    assert await scene.store.used(RATE) == 10


async def test_a_store_without_memory_is_rebuilt_before_it_is_used() -> None:
    scene = Scene()
    books = [Past((RATE,), Amounts(tokens=300), 0)]
    rebuilt: list[bool] = []

    async def rebuild() -> bool:
        rebuilt.append(await scene.store.fresh())
        if rebuilt[-1]:
            await scene.store.replay(books)
        return rebuilt[-1]

    scene.guarded._rebuild = rebuild
    await scene.store.fresh()
    scene.break_off()
    await scene.grant("a")
    await scene.guarded.settle("a", Amounts(tokens=80))
    books.append(Past((RATE,), Amounts(tokens=80), 0))
    scene.store.lose_memory()
    await scene.recover()
    assert rebuilt == [True]
    assert await scene.store.used(RATE) == 380, "the charge is in the ledger, and not made twice"
    scene.break_off()
    await scene.grant("b")
    await scene.guarded.settle("b", Amounts(tokens=20))
    await scene.recover()
    assert rebuilt == [True, False]
    assert await scene.store.used(RATE) == 400


async def test_a_round_of_a_lease_that_a_store_has_lost_is_reserved_anew(scene: Scene) -> None:
    await scene.grant("a")
    scene.store.lose_memory()
    assert isinstance(await scene.guarded.top_up("a", 1, COST, HOUR_US), Grant)
    assert await scene.store.used(SLOTS) == 1
    await scene.guarded.settle("a", Amounts(tokens=190))
    assert await scene.store.used(RATE) == 190
    assert await scene.store.used(SLOTS) == 0


@pytest.mark.parametrize("ends", ["while it is out", "after"])
async def test_a_lease_that_a_store_has_lost_is_charged_when_it_ends(scene: Scene, ends: str) -> None:
    await scene.grant("a")
    scene.break_off()
    await scene.grant("b", cost=Amounts(tokens=1))
    scene.store.lose_memory()
    if ends == "after":
        await scene.recover()
    await scene.guarded.settle("a", Amounts(tokens=90))
    if ends == "after":
        await scene.told()
    else:
        await scene.recover()
    assert await scene.store.used(RATE) == 90


@pytest.mark.parametrize("ends", ["while it is out", "after"])
async def test_a_lease_whose_time_is_up_stays_at_what_it_reserved(scene: Scene, ends: str) -> None:
    await scene.grant("a", PAID)
    scene.break_off()
    await scene.grant("b", cost=Amounts(tokens=1))
    scene.clock.move(3601)
    await scene.store.inner.expire()
    if ends == "after":
        await scene.recover()
    else:
        scene.guarded._tried_at_s = scene.clock.monotonic()
    await scene.guarded.settle("a", Amounts(tokens=90, micros=90))
    if ends == "after":
        await scene.told()
    else:
        await scene.recover()
    assert await scene.store.used(MONEY) == 10


async def test_a_lease_that_was_renewed_or_went_on_is_known_to_live_longer(scene: Scene) -> None:
    for lease in ("renewed", "went on", "neither"):
        await scene.grant(lease, (MONEY,))
    scene.clock.move(3000)
    await scene.guarded.renew(["renewed"], HOUR_US)
    await scene.guarded.top_up("went on", 1, COST, HOUR_US)
    scene.clock.move(3000)
    scene.store.lose_memory()
    for lease in ("renewed", "went on", "neither"):
        await scene.guarded.settle(lease, Amounts(micros=7))
        await scene.told()
    assert await scene.store.used(MONEY) == 14


async def test_a_rebuilding_that_breaks_is_logged_and_tried_again(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    broken = True

    async def rebuild() -> bool:
        if broken:
            raise RuntimeError("a bug")
        return False

    scene.guarded._rebuild = rebuild
    scene.break_off()
    await scene.grant("a")
    await scene.recover()
    assert scene.guarded.down
    assert "could not be brought up to date" in caplog.text
    broken = False
    await scene.recover()
    assert not scene.guarded.down


async def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    scene.break_off()
    for number in range(3):
        await scene.grant(f"l{number}", cost=Amounts(tokens=1))
        scene.clock.move(REST_S)
    await scene.recover()
    words = [record.getMessage() for record in caplog.records]
    assert words == [
        "the store of counters is out: switched off",
        "the store of counters is back; 0 of what it missed was forgotten",
    ]


async def test_closing_waits_for_the_telling(scene: Scene) -> None:
    await scene.grant("a")
    scene.break_off()
    await scene.guarded.settle("a", Amounts())
    scene.store.weather = "fine"
    scene.clock.move(REST_S)
    await scene.guarded.levels(PLAIN)
    await scene.guarded.aclose()
    assert scene.store.closed
    assert not scene.guarded._backlog
    assert scene.guarded._telling is None


async def test_closing_during_an_outage_does_not_wait_for_its_end(scene: Scene) -> None:
    await scene.grant("a")
    scene.break_off("hangs")
    scene.guarded._note(StoreFault("no"))
    await scene.guarded.settle("a", Amounts())
    await scene.guarded.aclose()
    assert scene.store.closed


def test_redis_is_left_alone_until_it_drops_what_it_was_asked_before() -> None:
    assert REST_S * 1e6 >= STALE_US


# The backlog by itself.


async def test_a_full_backlog_forgets_the_oldest_and_says_how_many() -> None:
    backlog = Backlog(FakeClock(), most=2)
    for lease in "abc":
        backlog.add(Missed(lease))
    told: list[str] = []

    async def settle(lease: str, actual: Amounts) -> Grant | None:
        del actual
        told.append(lease)
        return None

    async def charge(past: list[Past]) -> None:
        raise AssertionError(past)

    await backlog.deliver(settle, charge)
    assert told == ["b", "c"]
    assert backlog.forgotten == 1


async def test_what_is_added_or_pushed_out_while_it_is_told_keeps_the_order() -> None:
    clock = FakeClock()
    backlog = Backlog(clock, most=2)
    backlog.add(Missed("a"))
    backlog.add(Missed("", COST, PLAIN, clock.monotonic()))
    clock.move(3.0)
    told: list[object] = []

    async def settle(lease: str, actual: Amounts) -> Grant | None:
        del actual
        told.append(lease)
        if lease == "a":
            backlog.add(Missed("late"))  # pushes "a" out
        return Grant(0, ())

    async def charge(past: list[Past]) -> None:
        told.extend(past)

    await backlog.deliver(settle, charge)
    assert told == ["a", Past(PLAIN, COST, 3_000_000), "late"]
    assert not backlog


async def test_charges_are_told_together_oldest_first() -> None:
    clock = FakeClock()
    backlog = Backlog(clock)
    backlog.add(Missed("", COST, PLAIN, clock.monotonic() + 2.0))
    backlog.add(Missed("", COST, PLAIN, clock.monotonic() + 1.0))
    backlog.add(Missed("b", COST, PLAIN, clock.monotonic()))
    clock.move(3.0)
    told: list[list[int]] = []

    async def settle(lease: str, actual: Amounts) -> Grant | None:
        del lease, actual
        return None

    async def charge(past: list[Past]) -> None:
        told.append([one.age_us for one in past])
        if len(told) == 1:
            raise StoreFault("no")

    with pytest.raises(StoreFault):
        await backlog.deliver(settle, charge)
    assert len(backlog) == 3
    await backlog.deliver(settle, charge)
    assert told == [[3_000_000, 2_000_000, 1_000_000]] * 2
    assert not backlog


async def test_what_refills_during_an_outage_is_taken_off_once(scene: Scene) -> None:
    scene.break_off()
    small = Amounts(tokens=20)
    for number in range(10):
        await scene.grant(f"l{number}", cost=small)
    for number in range(10):
        await scene.guarded.settle(f"l{number}", small)
    scene.clock.move(DAY_US / 1e6 / 10)
    await scene.recover()
    assert await scene.store.used(RATE) == 100, "200, less a tenth of a day's 1000"


def test_charges_that_the_ledger_has_are_dropped_and_settlements_kept() -> None:
    backlog = Backlog(FakeClock())
    backlog.add(Missed("a", COST, PLAIN))
    backlog.add(Missed("", COST, PLAIN))
    backlog.add(Missed("b", COST))
    backlog.drop_charges()
    assert list(backlog._queue.values()) == [Missed("a", COST), Missed("b", COST)]

"""Nothing stays open after a death: leases end, orphans are entered, counters begin where the ledger left off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from convene.errors import StoreFault
from convene.limits.allowance import Allowance
from convene.limits.limit import DAY_US, Amounts
from convene.moments import SECOND_US
from convene.serving.allowances import Allowances
from convene.serving.base import Outcome
from convene.serving.bookkeeping import Bookkeeping, PastLimits, entry_of_orphan, rebuild
from convene.serving.books import Books
from convene.store.base_ledger import Bucket, Entry, Sums
from convene.store.memory_counters import MemoryCounters
from convene.usage import Usage
from fakes import FakeClock
from unit.serving.test_books import DEAR, WHO, Room

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base_ledger import Intent

ALLOWED = Allowance(
    requests_per_day=1000, tokens_per_day=100_000, budget_per_day=10**6, budget_per_month=10**7, budget_total=10**8
)
NOW = datetime(2026, 11, 26, 18, 0, tzinfo=UTC).timestamp()


def entry(name: str, at_us: int, tokens: int, key_id: str = "k1") -> Entry:
    """Return an entry of so many prompt tokens."""
    return Entry(
        id=name,
        request_id=name,
        at_us=at_us,
        kind="chat",
        key_id=key_id,
        owner="o",
        model_asked="m",
        model="m",
        prompt_tokens=tokens,
    )


def spent(day: str, micros: int, key_id: str = "k1") -> Bucket:
    """Return a day's sum of one key on the model."""
    return Bucket(group=(day, key_id, "m"), sums=Sums(requests=1, cost_micros=micros))


@pytest.fixture
def room() -> Room:
    made = Room(ALLOWED)
    made.clock.set_wall(NOW)
    return made


def known(room: Room) -> PastLimits:
    """Return the limits of the one key there is."""
    return PastLimits(room.allowances, {"m": DEAR}, {"k1": WHO})


async def again(room: Room) -> int | None:
    """Rebuild the counters of a room."""
    return await rebuild(room.counters, room.ledger, room.clock.now(), known(room))


async def test_an_orphan_is_entered_as_unknown_at_what_it_had_reserved(room: Room) -> None:
    lease = await room.books.reserve(room.ask(), Outcome(model="m"))
    del lease
    room.ledger.dead.add("chatcmpl-1")
    await Bookkeeping(room.books).adopt_orphans()
    found = room.ledger.entries_by_id["chatcmpl-1"]
    intent = room.ledger.intents["chatcmpl-1"]
    assert (found.status, found.finish, found.estimated) == ("unknown", "unknown", True)
    assert (found.prompt_tokens, found.completion_tokens) == (100, 50)
    assert (found.cost_micros, found.session_id, found.at_us) == (intent.reserved.micros, "s1", intent.at_us)
    assert room.ledger.begun == set()


async def test_leases_of_running_requests_are_prolonged_and_those_of_the_dead_end(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    work = Bookkeeping(room.books)
    await room.books.reserve(room.ask(), Outcome(model="m"))
    await room.books.reserve(room.ask(), Outcome(model="m"))
    del room.books.live["chatcmpl-2"], room.ledger.intents["chatcmpl-2"]
    for _ in range(3):
        room.clock.move(20)
        await work.prolong()
    assert "lease chatcmpl-2 had no sign of life" in caplog.text
    assert room.counters.local.settle("chatcmpl-1", Amounts()) is not None
    assert room.counters.local.settle("chatcmpl-2", Amounts()) is None


async def die(room: Room, *, entered: bool, begun: bool = True) -> int:
    """Begin a request of a process that dies; return what it had reserved, in money."""
    lease = await room.books.reserve(room.ask(), outcome := Outcome(model="m"))
    reserved = room.ledger.intents["chatcmpl-1"].reserved.micros
    assert room.level("budget in total") == reserved > 0
    if entered:
        outcome.usage = Usage(90, 30)
        room.books.counted_last = True
        lease.settle()
        await asyncio.sleep(0)  # its entry is being written; the counters would be next
    else:
        room.books.live.clear()
    if not begun:
        room.ledger.intents.clear()
    room.clock.move(60)
    return reserved


async def test_a_kill_between_entry_and_counters_leaves_both_the_same(room: Room) -> None:
    """A4: the lease is found overdue, and the books know what the request has used."""
    reserved = await die(room, entered=True)
    assert room.level("budget in total") == reserved
    await Bookkeeping(room.books).prolong()
    [entry] = room.ledger.entries_by_id.values()
    assert room.level("budget in total") == entry.cost_micros < reserved


async def test_a_kill_between_counters_and_intent_costs_nothing(room: Room) -> None:
    """A4: no model was asked before the intent was written, and no entry will ever account for the reservation."""
    await die(room, entered=False, begun=False)
    await Bookkeeping(room.books).prolong()
    assert room.level("budget in total") == 0


async def test_the_lease_of_an_open_intent_waits_for_its_entry(room: Room) -> None:
    reserved = await die(room, entered=False)
    work = Bookkeeping(room.books)
    await work.prolong()
    assert room.counters.local.overdue() == ("chatcmpl-1",)
    room.ledger.dead.add("chatcmpl-1")
    await work.adopt_orphans()
    await work.prolong()
    [entry] = room.ledger.entries_by_id.values()
    assert room.level("budget in total") == entry.cost_micros == reserved
    assert room.counters.local.overdue() == ()


async def test_a_request_that_outlasts_its_lease_because_all_stood_still_is_charged_what_it_used(room: Room) -> None:
    lease = await room.books.reserve(room.ask(), outcome := Outcome(model="m"))
    room.clock.move(3600)  # a machine that slept
    await Bookkeeping(room.books).prolong()
    outcome.usage = Usage(90, 30)
    lease.settle()
    assert room.level("budget in total") == outcome.cost_micros > 0


async def test_retention_forgets_what_is_older_and_only_if_it_is_set(room: Room) -> None:
    await Bookkeeping(room.books, retention_days=30).forget()
    assert room.ledger.forgotten == [int((NOW - 30 * 86_400) * SECOND_US)]


async def test_the_work_goes_on_after_a_fault_and_ends_when_it_is_closed(
    room: Room, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("convene.serving.bookkeeping.ORPHANS_S", 0.001)
    work, done = Bookkeeping(room.books, retention_days=1), asyncio.Event()
    faults = [StoreFault("away", detail="no route"), ZeroDivisionError("bug")]

    async def adopt() -> None:
        await asyncio.sleep(0)
        if faults:
            raise faults.pop(0)
        done.set()

    monkeypatch.setattr(work, "adopt_orphans", adopt)
    work.start()
    async with asyncio.timeout(60):
        await done.wait()
    await work.aclose()
    assert "orphans: no route" in caplog.text
    assert "orphans failed and will be tried again" in caplog.text
    assert [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_fresh_counters_begin_where_the_ledger_left_off(room: Room) -> None:
    now_us = int(NOW * SECOND_US)
    room.ledger.finish(entry("old", now_us - 2 * DAY_US, 50_000))
    room.ledger.finish(entry("half", now_us - DAY_US // 2, 60_000))
    room.ledger.finish(entry("late", now_us - 1, 7_000))
    room.ledger.finish(entry("stranger", now_us - 1, 7_000, "k9"))
    room.ledger.sums = [
        spent("2025-12-31", 1),
        spent("2026-10-31", 10),
        spent("2026-11-01", 100),
        spent("2026-11-26", 1_000),
        spent("2026-11-26", 5_000, "k9"),
    ]
    assert await again(room) == 3
    # 60,000 tokens half a day ago: 10,000 of them are left, and 7,000 just now.
    assert room.used("tokens per day", 86_400) == pytest.approx(17_000, rel=1e-4)
    assert (room.level("budget per day"), room.level("budget per month"), room.level("budget in total")) == (
        1_000,
        1_100,
        1_111,
    )
    assert await again(room) is None
    assert room.used("tokens per day", 86_400) == pytest.approx(17_000, rel=1e-4)


async def test_what_was_under_way_counts_at_what_it_had_reserved_and_is_not_counted_again_as_an_orphan(
    room: Room,
) -> None:
    await room.books.reserve(room.ask(), Outcome(model="m"))
    reserved = room.ledger.intents["chatcmpl-1"].reserved
    # Another life of the server: new counters, the same ledger.
    after = Room(ALLOWED)
    after.clock.set_wall(NOW + 1)
    books = Books(after.counters, room.ledger, after.allowances, after.estimates, after.clock)
    assert await rebuild(after.counters, room.ledger, NOW + 1, known(after)) == 1
    assert after.level("budget in total") == reserved.micros
    room.ledger.dead.add("chatcmpl-1")
    await Bookkeeping(books).adopt_orphans()
    assert room.ledger.entries_by_id["chatcmpl-1"].cost_micros == reserved.micros
    assert after.level("budget in total") == reserved.micros


async def test_many_requests_of_a_second_are_charged_together_and_never_less(room: Room) -> None:
    now_us = int(NOW * SECOND_US)
    for n in range(500):
        room.ledger.finish(entry(f"e{n:03}", now_us - 3_000_000 + n * 1_000, 10))
    assert await again(room) == 500
    assert room.used("tokens per day", 86_400) == pytest.approx(5_000, abs=5)
    assert round(room.used("requests per day", 86_400)) == 500


async def test_a_key_whose_plan_is_gone_is_passed_over(room: Room) -> None:
    now_us = int(NOW * SECOND_US)
    room.ledger.finish(entry("e", now_us - 1, 10))
    gone = PastLimits(Allowances({}), {}, {"k1": WHO})
    assert await rebuild(room.counters, room.ledger, NOW, gone) == 1
    assert round(room.used("requests per day", 86_400)) == 0


async def test_every_day_is_found_in_its_own_period() -> None:
    for day in ("1970-01-01", "2024-02-29", "2026-01-01", "2026-12-31"):
        room = Room(Allowance(budget_per_day=10**6, budget_total=10**6))
        room.clock.set_wall(datetime.fromisoformat(f"{day}T23:59:59+00:00").timestamp())
        room.ledger.sums = [spent(day, 7)]
        await again(room)
        assert (room.level("budget in total"), room.level("budget per day")) == (7, 7)


def test_an_orphans_entry_has_all_that_its_intent_knew(room: Room) -> None:
    async def begin() -> Entry:
        await room.books.reserve(room.ask(), Outcome(model="m", usage=Usage(1, 1)))
        return entry_of_orphan(room.ledger.intents["chatcmpl-1"])

    found = asyncio.run(begin())
    assert (found.key_id, found.user_id, found.team_id, found.agent_address) == ("k1", "u1", "t1", "agent1q")
    assert (found.model_asked, found.model, found.stream, found.price) == ("asked", "m", True, "v1")


def test_counters_that_are_not_fresh_are_left_alone() -> None:
    async def scene() -> None:
        clock = FakeClock()
        room = Room(ALLOWED)
        counters = MemoryCounters(clock)
        assert await counters.fresh()
        room.ledger.sums = [spent("2027-01-15", 5)]
        assert await rebuild(counters, room.ledger, NOW, known(room)) is None

    asyncio.run(scene())


class Knower:
    """Knows what some of the killed have used; of others that somebody else enters them."""

    def __init__(self, known: dict[str, Entry | None]) -> None:
        self.known = known
        self.asked: list[list[str]] = []

    async def entries(self, intents: Sequence[Intent]) -> dict[str, Entry | None]:
        self.asked.append([intent.id for intent in intents])
        return self.known


async def test_orphans_are_entered_by_whoever_knows_better_or_left_to_another(room: Room) -> None:
    for _ in range(3):
        await room.books.reserve(room.ask(), Outcome())
    room.ledger.dead = {"chatcmpl-1", "chatcmpl-2", "chatcmpl-3"}
    knower = Knower({"chatcmpl-1": entry("chatcmpl-1", 1, 12), "chatcmpl-2": None})
    keeping = Bookkeeping(room.books, known=knower)
    await keeping.adopt_orphans()
    found = room.ledger.entries_by_id
    assert knower.asked == [["chatcmpl-1", "chatcmpl-2", "chatcmpl-3"]]
    assert set(found) == {"chatcmpl-1", "chatcmpl-3"}
    assert (found["chatcmpl-1"].prompt_tokens, found["chatcmpl-1"].status) == (12, "ok")
    assert found["chatcmpl-3"].status == "unknown"
    room.ledger.dead = set()
    await keeping.adopt_orphans()
    assert len(knower.asked) == 1, "nobody is asked about nothing"

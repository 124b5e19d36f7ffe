"""The contract of `convene.store.base_ledger.Ledger`, run unchanged against every implementation."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from convene.limits.limit import DAY_US, Amounts
from convene.store.base import StoreFault
from convene.store.base_ledger import FOUND_MAX, Bucket, Entry, Filter, GroupBy, Intent, Sums, Whose
from ledger_samples import ALL, START_US, chosen, ended, entry, grouped, intent, random_entry, sees, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base import Store
    from convene.store.base_ledger import Ledger

EVERYTHING = Filter(whose=ALL)
GROUPS: tuple[GroupBy, ...] = ("day", "hour", "model", "key", "user", "team", "session", "agent")
SOMEBODY = [ALL, *(Whose("key", f"key-{one}") for one in (1, 2)), Whose("user", "user-1"), Whose("team", "team-2")]
SOMEBODY += [Whose("key", "kéy-3"), Whose("user", ""), Whose("team", ""), Whose("user", "nobody")]


@pytest.fixture
def books(store: Store) -> Ledger:
    return store.ledger


async def all_of(books: Ledger, which: Filter = EVERYTHING) -> list[Entry]:
    return [one async for one in books.entries(which)]


async def write(books: Ledger, entries: Sequence[Entry]) -> None:
    await asyncio.gather(*(books.finish(one) for one in entries))


async def test_an_entry_comes_back_as_it_was_written(books: Ledger) -> None:
    whole = Entry(
        id="chatcmpl-1",
        request_id="my request",
        at_us=START_US + 1,
        kind="image",
        key_id="k",
        owner="o",
        user_id="ü",
        team_id="t",
        session_id="s",
        agent_address="agent1q",
        model_asked="asi1",
        model="smollm2",
        stream=True,
        price="p",
        upstream="u",
        prompt_tokens=1,
        cached_tokens=2,
        completion_tokens=3,
        reasoning_tokens=4,
        images=5,
        tool_calls=6,
        agent_calls=7,
        cost_micros=10**15,
        estimated=True,
        status="client_left",
        finish="length",
        ttft_us=8,
        duration_us=9,
    )
    await write(books, [whole, entry(2, ttft_us=None)])
    assert await books.find("chatcmpl-1", ALL) == [whole]
    assert await all_of(books) == [whole, entry(2)]


async def test_an_intent_comes_back_as_it_was_written_until_it_has_ended(books: Ledger) -> None:
    odd = intent(1, stream=True, session_id="s", agent_address="a", reserved=Amounts(1, 2, 3, 4, 5, 6, 7))
    await books.begin(intent(2))
    await books.begin(odd)
    open_now = await books.open_intents()
    assert open_now == [odd, intent(2)]
    assert isinstance(open_now[0].reserved, Amounts)
    await books.finish(ended(odd))
    assert await books.open_intents() == [intent(2)]
    await books.finish(entry(2))
    assert await books.open_intents() == []


async def test_a_second_entry_of_one_id_changes_nothing(books: Ledger) -> None:
    await write(books, [entry(1), entry(1, prompt_tokens=999), entry(1)])
    await write(books, [entry(1, key_id="key-2"), entry(2)])
    assert await all_of(books) == [entry(1), entry(2)]
    assert await books.total(ALL) == summed([entry(1), entry(2)])
    assert await books.total(Whose("key", "key-2")) == Sums()


async def test_an_entry_needs_no_intent_and_an_intent_after_its_entry_is_not_open(books: Ledger) -> None:
    await books.finish(entry(1))
    await books.begin(intent(1))
    assert await books.open_intents() == []


async def test_an_intent_and_its_entry_in_one_turn_are_one_entry(books: Ledger) -> None:
    await asyncio.gather(books.begin(intent(1)), books.finish(entry(1)))
    assert await books.open_intents() == []
    assert await all_of(books) == [entry(1)]


async def test_a_caller_who_is_gone_has_lost_nothing(books: Ledger) -> None:
    for call in (books.begin(intent(1)), books.begin(intent(2)), books.finish(entry(2))):
        task = asyncio.ensure_future(call)
        task.cancel()
    await books.flush()
    assert await books.open_intents() == [intent(1)]
    assert await all_of(books) == [entry(2)]


async def test_a_caller_who_leaves_takes_nobody_along(books: Ledger) -> None:
    async def finish(number: int) -> None:
        await books.finish(entry(number))

    tasks = [asyncio.create_task(finish(number)) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks[1::2])
    await books.flush()
    assert len(await all_of(books)) == 20


async def test_entries_are_found_by_id_and_by_request_id_which_several_may_share(books: Ledger) -> None:
    shared = [entry(number, request_id="mine") for number in (3, 1)]
    await write(books, [*shared, entry(2)])
    assert await books.find("mine", ALL) == [shared[1], shared[0]]
    assert await books.find(entry(2).id, ALL) == [entry(2)]
    assert await books.find("nothing", ALL) == []


async def test_nobody_sees_what_belongs_to_others(books: Ledger) -> None:
    mine = entry(1)
    await write(books, [mine])
    await books.begin(intent(2))
    for whose in (Whose("key", "key-2"), Whose("user", "user-2"), Whose("team", "team-2"), Whose("key", "user-1")):
        which = Filter(whose=whose)
        assert await books.find(mine.id, whose) == []
        assert await books.find(mine.request_id, whose) == []
        assert await books.total(whose) == Sums()
        assert await books.report(which, ("day",), 10) == []
        assert await books.report(which, ("hour",), 10) == []
        assert await books.page(which, 10) == []
        assert await all_of(books, which) == []
        assert await all_of(books, Filter(whose=whose, key_id="key-1")) == []


async def test_nobody_is_the_user_or_team_without_a_name(books: Ledger) -> None:
    await write(books, [entry(1, user_id="", team_id="")])
    for whose in (Whose("user"), Whose("team")):
        assert await books.total(whose) == Sums()
        assert await books.find(entry(1).id, whose) == []


async def test_a_key_that_moves_to_another_team_leaves_its_past_there(books: Ledger) -> None:
    await write(books, [entry(1), entry(2, team_id="team-2"), entry(3, team_id="team-2")])
    assert (await books.total(Whose("team", "team-1"))).requests == 1
    assert (await books.total(Whose("team", "team-2"))).requests == 2
    assert (await books.total(Whose("key", "key-1"))).requests == 3


async def test_not_more_are_found_than_somebody_can_look_at(books: Ledger) -> None:
    await write(books, [entry(number, request_id="all the same") for number in range(600)])
    assert await books.find("all the same", ALL) == [entry(n, request_id="all the same") for n in range(FOUND_MAX)]


async def test_empty_books_answer_too(books: Ledger) -> None:
    assert await books.total(ALL) == Sums()
    assert await books.report(EVERYTHING, (), 10) == [Bucket(group=(), sums=Sums())]
    assert await books.report(EVERYTHING, ("day",), 10) == []
    assert await books.page(EVERYTHING, 10) == []
    assert await books.orphans(0) == []
    assert await books.forget_before(START_US) == 0
    await books.flush()


async def test_days_and_hours_are_written_in_universal_time(books: Ledger) -> None:
    await write(books, [entry(1, at_us=START_US + DAY_US - 1), entry(2, at_us=START_US + DAY_US)])
    days = await books.report(EVERYTHING, ("day",), 10)
    assert [one.group for one in days] == [("2026-11-26",), ("2026-11-27",)]
    hours = await books.report(EVERYTHING, ("hour", "key"), 10)
    assert [one.group for one in hours] == [("2026-11-26T23", "key-1"), ("2026-11-27T00", "key-1")]


async def test_a_report_begins_behind_the_group_it_is_told(books: Ledger) -> None:
    await write(books, [entry(number, at_us=START_US + number * DAY_US) for number in range(5)])
    page = await books.report(EVERYTHING, ("day", "model"), 2, ("2026-11-27", "smollm2"))
    assert [one.group for one in page] == [("2026-11-28", "smollm2"), ("2026-11-29", "smollm2")]
    with pytest.raises(ValueError, match="does not match"):
        await books.report(EVERYTHING, ("day",), 2, ("yesterday",))


async def test_what_is_forgotten_is_gone_and_its_sums_stay(books: Ledger) -> None:
    old = [entry(number, at_us=START_US + number) for number in range(7)]
    new = [entry(number, at_us=START_US + DAY_US + number) for number in range(10, 13)]
    await write(books, old + new)
    assert await books.forget_before(START_US + DAY_US) == 7
    assert await books.forget_before(START_US + DAY_US) == 0
    assert await all_of(books) == new
    assert await books.find(old[0].id, ALL) == []
    assert await books.total(ALL) == summed(old + new)
    assert await books.report(EVERYTHING, ("day",), 10) == grouped(old + new, ("day",))
    assert await books.report(EVERYTHING, ("hour",), 10) == grouped(new, ("hour",))


async def test_an_intent_whose_entry_is_forgotten_does_not_look_open_again(books: Ledger) -> None:
    await asyncio.gather(books.begin(intent(1)), books.begin(intent(2)))
    await books.finish(entry(1))
    assert await books.forget_before(START_US + DAY_US) == 1
    assert await books.open_intents() == [intent(2)]


async def test_many_entries_are_walked_through_in_order_and_forgotten_at_once(books: Ledger) -> None:
    many = [entry(number, at_us=START_US + number // 3) for number in range(1700)]
    await write(books, many[::-1])
    assert await all_of(books) == many
    assert await books.forget_before(START_US + DAY_US) == 1700


async def test_closed_books_are_a_store_fault(store: Store) -> None:
    await store.ledger.finish(entry(1))
    await store.aclose()
    await store.aclose()
    await all_calls_fail(store.ledger)


async def all_calls_fail(books: Ledger) -> None:
    with pytest.raises(StoreFault):
        await books.begin(intent(1))
    with pytest.raises(StoreFault):
        await books.finish(entry(1))
    with pytest.raises(StoreFault):
        await books.total(ALL)
    with pytest.raises(StoreFault):
        await books.find("x", ALL)
    with pytest.raises(StoreFault):
        await books.report(EVERYTHING, (), 1)
    with pytest.raises(StoreFault):
        await books.page(EVERYTHING, 1)
    with pytest.raises(StoreFault):
        await all_of(books)
    with pytest.raises(StoreFault):
        await books.open_intents()
    with pytest.raises(StoreFault):
        await books.orphans(0)
    with pytest.raises(StoreFault):
        await books.forget_before(0)
    with pytest.raises(StoreFault):
        await books.flush()


# The same as a list and loops over it, whatever is written and asked.


def random_filter(chance: random.Random) -> Filter:
    def moment() -> int | None:
        at = START_US + chance.randrange(-DAY_US, 5 * DAY_US)
        return chance.choice([None, at, at - at % DAY_US])

    def maybe(*values: str) -> str | None:
        return chance.choice([None, None, None, *values])

    return Filter(
        whose=chance.choice(SOMEBODY),
        since_us=moment(),
        until_us=moment(),
        model=maybe("asi1", "ü"),
        key_id=maybe("key-1"),
        session_id=maybe("", "s1"),
        agent_address=maybe("", "agent1q"),
    )


async def compare(books: Ledger, kept: list[Entry], chance: random.Random) -> None:
    """Ask all kinds of things and compare the answers with the list's."""
    for whose in SOMEBODY:
        assert await books.total(whose) == summed([one for one in kept if sees(whose, one)])
    for _ in range(6):
        which = random_filter(chance)
        expected = chosen(kept, which)
        assert await all_of(books, which) == expected
        by = tuple(chance.sample(GROUPS, chance.randrange(4)))
        assert await paged_report(books, which, by, chance.randrange(1, 6)) == grouped(expected, by)
        assert await paged(books, which, chance.randrange(1, 20)) == expected[::-1]
    wanted = chance.choice(kept)
    found = [one for one in kept if wanted.request_id == one.request_id]
    assert await books.find(wanted.request_id, ALL) == sorted(found, key=lambda one: (one.at_us, one.id))


async def paged_report(books: Ledger, which: Filter, by: tuple[GroupBy, ...], limit: int) -> list[Bucket]:
    found = page = await books.report(which, by, limit)
    while by and len(page) == limit:
        page = await books.report(which, by, limit, page[-1].group)
        found = found + page
    return found


async def paged(books: Ledger, which: Filter, limit: int) -> list[Entry]:
    found = page = await books.page(which, limit)
    while len(page) == limit:
        page = await books.page(which, limit, (page[-1].at_us, page[-1].id))
        found = found + page
    return found


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_is_written_the_books_say_what_a_list_says(books: Ledger, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    kept: dict[str, Entry] = {}
    begun: dict[str, Intent] = {}
    waiting: list[asyncio.Future[None]] = []
    for number in range(300):
        one = random_entry(chance, chance.randrange(200))
        what = chance.random()
        if what < 0.4 and one.id not in begun:
            begun[one.id] = intent(number, id=one.id)
            waiting.append(asyncio.ensure_future(books.begin(begun[one.id])))
        elif what < 0.9:
            kept.setdefault(one.id, one)
            waiting.append(asyncio.ensure_future(books.finish(one)))
        if chance.random() < 0.1 and waiting:
            chance.choice(waiting).cancel()
        if chance.random() < 0.1:
            await asyncio.gather(*waiting, return_exceptions=True)
            waiting.clear()
        if number % 100 == 99:
            await books.flush()
            await compare(books, list(kept.values()), chance)
            still = [one for one in begun.values() if one.id not in kept]
            assert await books.open_intents() == sorted(still, key=lambda one: (one.at_us, one.id))

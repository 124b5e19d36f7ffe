"""Several engines as one: order, failover, pace, pauses, memory, one flight for equal questions."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from convene.tools.search_base import EngineFailed, Hit, Query
from convene.tools.search_chain import EMPTY_S, KEPT_MAX, Paced, SearchChain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fakes import FakeClock

QUERY = Query(text="lighthouse")
HIT = Hit("https://example.com/", "An example")


class Engine:
    """A scripted engine: an item a question, the last one again and again."""

    def __init__(self, name: str, *script: Sequence[Hit] | Exception | asyncio.Event) -> None:
        self.name = name
        self.asked: list[Query] = []
        self._script = list(script)

    async def search(self, query: Query, timeout_s: float) -> Sequence[Hit]:
        assert timeout_s > 0
        self.asked.append(query)
        await asyncio.sleep(0)
        move = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        if isinstance(move, asyncio.Event):
            await move.wait()
            return [HIT]
        if isinstance(move, Exception):
            raise move
        return move


def chain(
    clock: FakeClock, *engines: Engine, cache_s: float = 0.0, per_second: float = 1e9, timeout_s: float = 8.0
) -> SearchChain:
    async def sleep(seconds: float) -> None:
        clock.move(seconds)

    paced = [Paced(one, per_second, clock, sleep) for one in engines]
    return SearchChain(paced, clock, timeout_s=timeout_s, cache_s=cache_s)


async def test_the_first_engine_answers_and_the_second_is_not_asked(clock: FakeClock) -> None:
    first, second = Engine("first", [HIT]), Engine("second", [HIT])

    found = await chain(clock, first, second).find(QUERY)

    assert (found.engine, found.hits) == ("first", (HIT,))
    assert second.asked == []


@pytest.mark.parametrize("fault", [EngineFailed("broken"), [], [Hit("javascript:x", "no page")]])
async def test_the_next_engine_is_asked_when_one_fails_or_has_nothing_to_show(
    fault: Exception | list[Hit], clock: FakeClock
) -> None:
    found = await chain(clock, Engine("first", fault), Engine("second", [HIT])).find(QUERY)

    assert found.engine == "second"


async def test_an_engine_that_does_not_answer_in_time_is_a_failed_one(clock: FakeClock) -> None:
    found = await chain(clock, Engine("slow", asyncio.Event()), Engine("second", [HIT]), timeout_s=0.01).find(QUERY)

    assert found.engine == "second"


async def test_when_all_fail_it_says_so_and_names_no_engine(clock: FakeClock) -> None:
    with pytest.raises(EngineFailed, match=r"^no search engine answered$"):
        await chain(clock, Engine("a", EngineFailed("x")), Engine("b", EngineFailed("y"))).find(QUERY)


async def test_when_one_had_nothing_and_the_other_failed_nothing_was_found(clock: FakeClock) -> None:
    found = await chain(clock, Engine("a", []), Engine("b", EngineFailed("y"))).find(QUERY)

    assert (found.engine, found.hits) == ("a", ())


async def test_the_log_says_which_engine_failed_why_but_not_what_was_asked(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(EngineFailed):
        await chain(clock, Engine("a", EngineFailed("it answers 502"))).find(QUERY)

    assert "search engine a: it answers 502" in caplog.text
    assert "lighthouse" not in caplog.text


async def test_an_answer_is_kept_for_its_time_and_no_longer(clock: FakeClock) -> None:
    engine = Engine("a", [HIT])
    searches = chain(clock, engine, cache_s=300)

    for moved_s, asked in ((0, 1), (299, 1), (2, 2)):
        clock.move(moved_s)
        await searches.find(QUERY)
        assert len(engine.asked) == asked


async def test_another_question_place_or_filter_is_not_answered_from_memory(clock: FakeClock) -> None:
    engine = Engine("a", [HIT])
    searches = chain(clock, engine, cache_s=300)

    await searches.find(QUERY)
    await searches.find(Query(text="lighthouse", country="DE"))
    await searches.find(Query(text="lighthouse", exclude_domains=("x.test",)))

    assert len(engine.asked) == 3


async def test_that_nothing_was_found_is_believed_for_a_short_time(clock: FakeClock) -> None:
    engine = Engine("a", [])
    searches = chain(clock, engine, cache_s=300)

    await searches.find(QUERY)
    await searches.find(QUERY)
    assert len(engine.asked) == 1
    clock.move(EMPTY_S + 1)
    await searches.find(QUERY)
    assert len(engine.asked) == 2


async def test_a_failure_is_not_kept(clock: FakeClock) -> None:
    engine = Engine("a", EngineFailed("once"), [HIT])
    searches = chain(clock, engine, cache_s=300)

    with pytest.raises(EngineFailed):
        await searches.find(QUERY)
    assert (await searches.find(QUERY)).hits == (HIT,)


async def test_memory_holds_so_many_answers_and_forgets_the_one_used_longest_ago(clock: FakeClock) -> None:
    engine = Engine("a", [HIT])
    searches = chain(clock, engine, cache_s=300)
    await searches.find(QUERY)
    for number in range(KEPT_MAX - 1):
        await searches.find(Query(text=str(number)))
    await searches.find(QUERY)  # used: now "0" is the oldest
    await searches.find(Query(text="one more"))

    before = len(engine.asked)
    await searches.find(QUERY)
    assert len(engine.asked) == before
    await searches.find(Query(text="0"))
    assert len(engine.asked) == before + 1


async def test_equal_questions_at_the_same_time_are_asked_once(clock: FakeClock) -> None:
    gate = asyncio.Event()
    engine = Engine("a", gate)
    searches = chain(clock, engine)
    asking = [asyncio.create_task(searches.find(QUERY)) for _ in range(20)]
    await asyncio.sleep(0)

    gate.set()
    found = await asyncio.gather(*asking)

    assert len(engine.asked) == 1
    assert all(one.hits == (HIT,) for one in found)


async def test_who_leaves_takes_nobody_along_and_the_last_one_ends_the_question(clock: FakeClock) -> None:
    gate = asyncio.Event()
    engine = Engine("a", gate)
    searches = chain(clock, engine)
    first, second = (asyncio.create_task(searches.find(QUERY)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    gate.set()
    assert (await second).hits == (HIT,)

    gate.clear()
    last = asyncio.create_task(searches.find(QUERY))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_failed_question_fails_for_all_who_asked_it(clock: FakeClock) -> None:
    searches = chain(clock, Engine("a", EngineFailed("x")))

    found = await asyncio.gather(*(searches.find(QUERY) for _ in range(3)), return_exceptions=True)

    assert [type(one) for one in found] == [EngineFailed] * 3


async def test_closing_ends_what_is_under_way(clock: FakeClock) -> None:
    searches = chain(clock, Engine("a", asyncio.Event()))
    asking = asyncio.create_task(searches.find(QUERY))
    await asyncio.sleep(0)

    await searches.aclose()

    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_an_engine_is_asked_at_its_own_pace(clock: FakeClock) -> None:
    began = clock.monotonic()
    engine = Engine("a", [HIT])
    searches = chain(clock, engine, per_second=2)

    times = []
    for number in range(4):
        await searches.find(Query(text=str(number)))
        times.append(clock.monotonic() - began)

    assert times == [0.0, 0.5, 1.0, 1.5]


async def test_who_would_wait_too_long_for_an_engine_goes_to_the_next(clock: FakeClock) -> None:
    slow, quick = Engine("slow", [HIT]), Engine("quick", [HIT])
    never = asyncio.Event()

    async def sleep(_: float) -> None:
        await never.wait()

    paced = [Paced(slow, 0.5, clock, sleep), Paced(quick, 1e9, clock, sleep)]
    searches = SearchChain(paced, clock, timeout_s=8, cache_s=0)

    asking = [asyncio.create_task(searches.find(Query(text=str(number)))) for number in range(4)]
    done, waiting = await asyncio.wait(asking, timeout=0.05)

    # at 0, 2 and 4 seconds it is their turn; the fourth would wait for six, more than half of the time it has
    assert sorted(task.result().engine for task in done) == ["quick", "slow"]
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_an_engine_that_says_429_is_left_alone_for_as_long_as_it_says(clock: FakeClock) -> None:
    engine = Engine("a", EngineFailed("429", pause_s=60), [HIT])
    searches = chain(clock, engine, Engine("b", [Hit("https://b.test/", "b")]))

    assert (await searches.find(QUERY)).engine == "b"
    clock.move(59)
    assert (await searches.find(QUERY)).engine == "b"
    assert len(engine.asked) == 1
    clock.move(2)
    assert (await searches.find(QUERY)).engine == "a"


async def test_no_engine_is_left_alone_for_more_than_an_hour(clock: FakeClock) -> None:
    searches = chain(clock, Engine("a", EngineFailed("429", pause_s=1e12), [HIT]))
    with pytest.raises(EngineFailed):
        await searches.find(QUERY)

    clock.move(3601)
    assert (await searches.find(QUERY)).engine == "a"


async def test_the_first_failure_is_free_and_further_ones_leave_the_engine_alone_for_longer_each_time(
    clock: FakeClock,
) -> None:
    engine = Engine("a", EngineFailed("down"))
    searches = chain(clock, engine)
    pauses = []
    for _ in range(9):
        with pytest.raises(EngineFailed):
            await searches.find(QUERY)
        asked, paused_s = len(engine.asked), 0
        while len(engine.asked) == asked:
            with pytest.raises(EngineFailed):
                await searches.find(QUERY)
            if len(engine.asked) == asked:
                clock.move(1)
                paused_s += 1
        pauses.append(paused_s)
        engine.asked.pop()
        clock.move(100)

    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert max(pauses) == 60


async def test_an_answer_ends_the_count_of_failures(clock: FakeClock) -> None:
    engine = Engine("a", EngineFailed("1"), [HIT], EngineFailed("2"), [HIT])
    searches = chain(clock, engine)

    for fails in (True, False, True, False):
        if fails:
            with pytest.raises(EngineFailed):
                await searches.find(QUERY)
        else:
            assert (await searches.find(QUERY)).hits


async def test_failures_at_the_same_time_count_as_one(clock: FakeClock) -> None:
    engine = Engine("a", *[EngineFailed("down")] * 50, [HIT])
    searches = chain(clock, engine)

    await asyncio.gather(*(searches.find(Query(text=str(number))) for number in range(50)), return_exceptions=True)

    assert (await searches.find(QUERY)).hits == (HIT,)


async def test_the_longest_search_is_that_of_all_engines(clock: FakeClock) -> None:
    assert chain(clock, Engine("a", []), Engine("b", []), timeout_s=3).longest_s == 6

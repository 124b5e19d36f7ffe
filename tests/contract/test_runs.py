"""The contract of `convene.store.base_runs.Runs`, run unchanged against every implementation."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.errors import Conflict, StoreFault
from convene.store.base_runs import Hold, Lately, Run, Step

if TYPE_CHECKING:
    from convene.store.base import Store
    from convene.store.base_runs import RunStatus
    from fakes import FakeClock
    from stores import OpenAnother

NOW_US = 1_800_000_000_000_000
SECOND_US = 1_000_000
ODD = bytes(range(256))


def run_of(number: int = 1, **fields: object) -> Run:
    """Return a run; `number` is part of its ids and of its time."""
    plain: dict[str, object] = {
        "id": f"run_{number}",
        "owner": "ann",
        "key_id": "k1",
        "session_id": "s1",
        "request_id": f"req_{number}",
        "turn_id": f"chatcmpl-{number}",
        "model": "asi1",
        "request": ODD,
        "created_us": NOW_US + number,
    }
    return Run(**(plain | fields))  # type: ignore[arg-type]  # fields of the Struct, by name


def step_of(run_id: str = "run_1", number: int = 1, **fields: object) -> Step:
    plain: dict[str, object] = {
        "run_id": run_id,
        "number": number,
        "seq": number,
        "kind": "tool",
        "name": "web_search",
        "status": "running",
        "input": b'{"q":"\xc3\xbc"}',
    }
    return Step(**(plain | fields))  # type: ignore[arg-type]  # fields of the Struct, by name


HOLD = Hold("run_1", 1)


async def end(store: Store, hold: Hold = HOLD, status: RunStatus = "done", expires_us: int = NOW_US) -> None:
    await store.runs.finish(hold, status, b"answer", NOW_US, expires_us)


async def test_a_run_comes_back_as_it_was_written(store: Store) -> None:
    run = run_of(cancel_asked=True, fence=3, expires_us=7)
    await store.runs.begin(run)
    assert await store.runs.get("ann", "run_1") == run


async def test_a_run_that_is_there_is_not_begun_again(store: Store) -> None:
    """A write whose answer was lost may come twice, and the second must not undo what came between."""
    await store.runs.begin(run_of())
    await end(store)
    await store.runs.begin(run_of(model="other"))
    found = await store.runs.get("ann", "run_1")
    assert found is not None
    assert (found.status, found.model) == ("done", "asi1")


async def test_another_owner_has_no_such_run(store: Store) -> None:
    await store.runs.begin(run_of())
    assert await store.runs.get("bob", "run_1") is None
    assert await store.runs.page("bob", 10) == []
    assert not await store.runs.ask_cancel("bob", "run_1")


async def test_a_step_replaces_the_one_of_its_number_and_comes_back_in_the_order_of_changes(store: Store) -> None:
    await store.runs.begin(run_of())
    first, second = step_of(number=1, seq=1), step_of(number=2, seq=2, kind="model", name="asi1")
    await store.runs.record(HOLD, [first, second])
    done = msgspec.structs.replace(
        first,
        seq=3,
        status="done",
        attempt=2,
        fence=1,
        output=ODD,
        shown=b"{}",
        prompt_tokens=1,
        completion_tokens=2,
        reserved_tokens=3,
        reserved_micros=4,
        cost_micros=5,
    )
    await store.runs.record(HOLD, [done])
    assert await store.runs.steps("run_1") == [second, done]
    assert await store.runs.steps("run_1", after_seq=2) == [done]
    assert await store.runs.steps("run_2") == []


async def test_writes_take_their_place_when_they_are_called_not_when_they_are_awaited(store: Store) -> None:
    begun = store.runs.begin(run_of())
    writes = [store.runs.record(HOLD, [step_of(seq=seq, name=f"n{seq}")]) for seq in range(1, 30)]
    ended = store.runs.finish(HOLD, "done", b"answer", NOW_US, NOW_US, [step_of(number=2, seq=30)])
    await asyncio.gather(ended, *reversed(writes), begun)
    assert [(step.number, step.name) for step in await store.runs.steps("run_1")] == [(1, "n29"), (2, "web_search")]


async def test_what_is_read_is_all_that_was_called_before(store: Store) -> None:
    writing = [store.runs.begin(run_of()), store.runs.record(HOLD, [step_of()])]
    assert await store.runs.get("ann", "run_1") is not None
    assert len(await store.runs.steps("run_1")) == 1
    await asyncio.gather(*writing)


async def test_a_caller_that_is_cancelled_loses_nothing(store: Store) -> None:
    await store.runs.begin(run_of())

    async def record() -> None:
        await store.runs.record(HOLD, [step_of()])

    task = asyncio.create_task(record())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert len(await store.runs.steps("run_1")) == 1


@pytest.mark.parametrize("hold", [Hold("run_1", 2), Hold("run_1", 0), Hold("run_9", 1)])
async def test_who_does_not_hold_a_run_cannot_write_to_it(store: Store, hold: Hold) -> None:
    await store.runs.begin(run_of())
    with pytest.raises(Conflict):
        await store.runs.record(hold, [step_of(hold.run_id)])
    with pytest.raises(Conflict):
        await end(store, hold)
    assert await store.runs.steps(hold.run_id) == []
    assert await store.runs.get("ann", "run_1") == run_of()


async def test_one_that_is_refused_takes_no_other_along(store: Store) -> None:
    await store.runs.begin(run_of(1))
    await store.runs.begin(run_of(2))
    writes = [
        store.runs.record(Hold("run_1", 1), [step_of("run_1")]),
        store.runs.record(Hold("run_2", 9), [step_of("run_2")]),
        store.runs.record(Hold("run_1", 1), [step_of("run_1", 2)]),
    ]
    ends = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(one) for one in ends] == [type(None), Conflict, type(None)]
    assert len(await store.runs.steps("run_1")) == 2
    assert await store.runs.steps("run_2") == []


async def test_an_ended_run_stays_as_it_ended(store: Store) -> None:
    await store.runs.begin(run_of())
    await store.runs.finish(HOLD, "done", b"answer", NOW_US + 5, NOW_US + 9, [step_of(status="done")])
    await store.runs.finish(HOLD, "failed", b"fault", NOW_US + 6, NOW_US + 10, [step_of(status="failed")])
    found = await store.runs.get("ann", "run_1")
    assert found is not None
    assert (found.status, found.outcome, found.finished_us, found.expires_us) == (
        "done",
        b"answer",
        NOW_US + 5,
        NOW_US + 9,
    )
    assert [step.status for step in await store.runs.steps("run_1")] == ["done"]


async def test_pages_are_newest_first_and_follow_each_other_without_gap(store: Store) -> None:
    for number in range(1, 6):
        await store.runs.begin(run_of(number, session_id="s1" if number % 2 else "s2"))
    await store.runs.begin(run_of(6, created_us=NOW_US + 5))
    first = await store.runs.page("ann", 2)
    assert [run.id for run in first] == ["run_6", "run_5"]
    rest = await store.runs.page("ann", 10, after=(first[-1].created_us, first[-1].id))
    assert [run.id for run in rest] == ["run_4", "run_3", "run_2", "run_1"]
    assert [run.id for run in await store.runs.page("ann", 10, "s2")] == ["run_4", "run_2"]


async def test_what_changed_last_comes_first_under_a_prefix_and_is_counted(store: Store) -> None:
    sessions = ("a2a:x", "a2a:y", "A2A:x", "a2", "a2a:x", "a2a:x")
    for number, session in enumerate(sessions, 1):
        await store.runs.begin(run_of(number, session_id=session))
    await store.runs.begin(run_of(7, owner="bob", session_id="a2a:x"))
    await store.runs.finish(Hold("run_1", 1), "done", b"answer", NOW_US + 100, 0)
    which = Lately(owner="ann", prefix="a2a:")

    async def found(which: Lately, limit: int = 10, after: tuple[int, str] | None = None) -> tuple[list[str], int]:
        runs, count = await store.runs.latest(which, limit, after)
        return [run.id for run in runs], count

    assert await found(which) == (["run_1", "run_6", "run_5", "run_2"], 4)
    assert await found(which, 2) == (["run_1", "run_6"], 4)
    assert await found(which, 2, (NOW_US + 6, "run_6")) == (["run_5", "run_2"], 4)
    assert await found(which, 2, (NOW_US + 2, "run_2")) == ([], 4)
    assert await found(msgspec.structs.replace(which, session_id="a2a:x")) == (["run_1", "run_6", "run_5"], 3)
    assert await found(msgspec.structs.replace(which, status="running")) == (["run_6", "run_5", "run_2"], 3)
    assert await found(msgspec.structs.replace(which, status="failed")) == ([], 0)
    assert await found(msgspec.structs.replace(which, since_us=NOW_US + 6)) == (["run_1", "run_6"], 2)


async def test_runs_are_found_by_their_answers_whoever_owns_them(store: Store) -> None:
    await store.runs.begin(run_of(1))
    await store.runs.begin(run_of(2, owner="bob"))
    await store.runs.begin(run_of(3))
    found = await store.runs.by_turns(["chatcmpl-2", "chatcmpl-3", "chatcmpl-9"])
    assert {run.id for run in found} == {"run_2", "run_3"}
    assert await store.runs.by_turns([]) == []


async def test_an_end_that_is_asked_for_is_seen_by_the_holder_until_the_run_is_over(store: Store) -> None:
    await store.runs.begin(run_of())
    assert await store.runs.asked_to_cancel() == set()
    assert await store.runs.ask_cancel("ann", "run_1")
    assert await store.runs.asked_to_cancel() == {"run_1"}
    await end(store, status="cancelled")
    assert await store.runs.asked_to_cancel() == set()


async def test_a_run_that_is_over_is_not_cancelled_any_more(store: Store) -> None:
    await store.runs.begin(run_of())
    await end(store)
    assert await store.runs.ask_cancel("ann", "run_1")
    found = await store.runs.get("ann", "run_1")
    assert found is not None
    assert (found.status, found.cancel_asked) == ("done", False)


async def test_runs_are_forgotten_when_they_are_over_and_their_time_is_up(store: Store) -> None:
    for number in (1, 2, 3):
        await store.runs.begin(run_of(number))
        await store.runs.record(Hold(f"run_{number}", 1), [step_of(f"run_{number}")])
    await end(store, Hold("run_1", 1), expires_us=NOW_US)
    await end(store, Hold("run_2", 1), expires_us=NOW_US + 1)
    assert await store.runs.forget(NOW_US) == 1
    assert [run.id for run in await store.runs.page("ann", 9)] == ["run_3", "run_2"]
    assert await store.runs.steps("run_1") == []
    assert len(await store.runs.steps("run_2")) == 1


async def test_of_a_session_all_runs_that_are_over_are_forgotten(store: Store) -> None:
    for number, session, owner in ((1, "s1", "ann"), (2, "s1", "ann"), (3, "s2", "ann"), (4, "s1", "bob")):
        await store.runs.begin(run_of(number, session_id=session, owner=owner))
    for number in (1, 3, 4):
        await end(store, Hold(f"run_{number}", 1), expires_us=NOW_US + 100)
    assert await store.runs.forget(NOW_US, "ann", "s1") == 1
    assert [run.id for run in await store.runs.page("ann", 9)] == ["run_3", "run_2"]
    assert [run.id for run in await store.runs.page("bob", 9)] == ["run_4"]


async def test_texts_that_a_database_dislikes_are_kept_or_refused_without_harm_to_others(store: Store) -> None:
    begun = [store.runs.begin(run_of(1)), store.runs.begin(run_of(2, session_id="nul\0and\ud800half", model="x"))]
    begun.append(store.runs.begin(run_of(3)))
    await asyncio.gather(*begun, return_exceptions=True)
    assert {"run_1", "run_3"} <= {run.id for run in await store.runs.page("ann", 9)}


async def test_a_closed_store_refuses(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreFault):
        await store.runs.begin(run_of())
    with pytest.raises(StoreFault):
        await store.runs.get("ann", "run_1")


async def test_nobody_claims_the_runs_of_the_living(shared: OpenAnother) -> None:
    first, second = await shared(), await shared()
    await first.runs.begin(run_of())
    assert await second.runs.claim(30 * SECOND_US, 10) == []
    assert await first.runs.claim(30 * SECOND_US, 10) == []


async def test_the_runs_of_a_closed_store_are_claimed_at_once_by_exactly_one(shared: OpenAnother) -> None:
    dying, first, second = await shared(), await shared(), await shared()
    for number in range(1, 21):
        await dying.runs.begin(run_of(number))
    await dying.runs.record(HOLD, [step_of(status="done")])
    await end(dying, Hold("run_20", 1))
    await dying.aclose()
    claims = await asyncio.gather(*(store.runs.claim(30 * SECOND_US, 100) for store in (first, second)))
    ids = [run.id for claimed in claims for run in claimed]
    assert sorted(ids) == sorted(f"run_{number}" for number in range(1, 20))
    assert {run.fence for claimed in claims for run in claimed} == {2}
    assert await first.runs.steps("run_1") == [step_of(status="done")]


async def test_a_former_holder_cannot_write_any_more_and_the_new_one_can(shared: OpenAnother, clock: FakeClock) -> None:
    frozen, taker = await shared(clock), await shared(clock)
    await frozen.runs.begin(run_of())
    await frozen.database.write([("DELETE FROM writers WHERE seen_at_us > ?", (0,))])  # as if it had died
    [taken] = await taker.runs.claim(30 * SECOND_US, 10)
    with pytest.raises(Conflict):
        await frozen.runs.record(HOLD, [step_of()])
    with pytest.raises(Conflict):
        await end(frozen)
    await taker.runs.record(Hold("run_1", taken.fence), [step_of()])
    await end(taker, Hold("run_1", taken.fence))
    assert [step.number for step in await taker.runs.steps("run_1")] == [1]


async def test_claims_are_oldest_first_and_bounded(shared: OpenAnother) -> None:
    dying, taker = await shared(), await shared()
    for number in (3, 1, 2):
        await dying.runs.begin(run_of(number))
    await dying.aclose()
    assert [run.id for run in await taker.runs.claim(30 * SECOND_US, 2)] == ["run_1", "run_2"]
    assert [run.id for run in await taker.runs.claim(30 * SECOND_US, 2)] == ["run_3"]


async def test_an_end_asked_for_elsewhere_reaches_the_holder_alone(shared: OpenAnother) -> None:
    holder, other = await shared(), await shared()
    await holder.runs.begin(run_of())
    assert await other.runs.ask_cancel("ann", "run_1")
    assert await holder.runs.asked_to_cancel() == {"run_1"}
    assert await other.runs.asked_to_cancel() == set()


async def test_many_writers_at_once_lose_nothing(shared: OpenAnother) -> None:
    stores = [await shared() for _ in range(3)]

    async def work(place: int, store: Store) -> None:
        for number in range(10):
            run = run_of(place * 100 + number)
            await store.runs.begin(run)
            for step in range(1, 6):
                await store.runs.record(Hold(run.id, 1), [step_of(run.id, step)])
            await end(store, Hold(run.id, 1))

    await asyncio.gather(*(work(place, store) for place, store in enumerate(stores)))
    runs = await stores[0].runs.page("ann", 100)
    assert len(runs) == 30
    assert {run.status for run in runs} == {"done"}
    for run in runs:
        assert len(await stores[0].runs.steps(run.id)) == 5

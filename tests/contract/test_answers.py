"""The contract of `convene.store.base_answers.Answers`, run unchanged against every implementation."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from convene.store.base import StoreFault
from convene.store.base_answers import SavedAnswer
from convene.store.presence import DEAD_AFTER_US
from fakes import FakeClock

if TYPE_CHECKING:
    from convene.store.base import Store
    from stores import OpenAnother

ONE, TWO = bytes(32), bytes(range(32))
ANSWER = SavedAnswer(
    status=200, headers=(("content-type", "text/event-stream"), ("x-a", "ü")), body=b"data: \xff\0\n\n"
)


async def state(store: Store, *, owner: str = "o", fingerprint: bytes = ONE, now: float = 100.0) -> str:
    return (await store.answers.claim(owner, "key", fingerprint, now + 50.0, now)).state


async def test_of_a_hundred_claims_at_once_exactly_one_is_mine(store: Store) -> None:
    states = await asyncio.gather(*(state(store) for _ in range(100)))
    assert Counter(states) == {"mine": 1, "running": 99}


async def test_a_saved_answer_comes_back_byte_for_byte_and_again(store: Store) -> None:
    await state(store)
    await store.answers.save("o", "key", ANSWER)
    for _ in range(2):
        claim = await store.answers.claim("o", "key", ONE, 150.0, 100.0)
        assert (claim.state, claim.answer) == ("done", ANSWER)


async def test_another_body_under_the_same_key_is_told_whether_running_or_done(store: Store) -> None:
    await state(store)
    assert await state(store, fingerprint=TWO) == "other"
    await store.answers.save("o", "key", ANSWER)
    claim = await store.answers.claim("o", "key", TWO, 150.0, 100.0)
    assert (claim.state, claim.answer) == ("other", None)


async def test_another_owner_has_keys_of_its_own(store: Store) -> None:
    await state(store)
    await store.answers.save("o", "key", ANSWER)
    assert await state(store, owner="p", fingerprint=TWO) == "mine"
    await store.answers.release("p", "key")
    assert await state(store) == "done"


async def test_what_is_released_may_be_claimed_anew_with_any_body(store: Store) -> None:
    await state(store)
    await store.answers.release("o", "key")
    assert await state(store, fingerprint=TWO) == "mine"


async def test_a_saved_answer_is_not_released_nor_overwritten(store: Store) -> None:
    await state(store)
    await store.answers.save("o", "key", ANSWER)
    await store.answers.release("o", "key")
    await store.answers.save("o", "key", SavedAnswer(status=500, headers=(), body=b""))
    claim = await store.answers.claim("o", "key", ONE, 150.0, 100.0)
    assert claim.answer == ANSWER


@pytest.mark.parametrize("saved", [False, True])
async def test_what_has_expired_counts_as_nothing(store: Store, *, saved: bool) -> None:
    await state(store, now=100.0)
    if saved:
        await store.answers.save("o", "key", ANSWER)
    assert await state(store, fingerprint=ONE, now=149.0) != "mine"
    assert await state(store, fingerprint=TWO, now=150.0) == "mine"
    assert await state(store, fingerprint=TWO, now=151.0) == "running"


async def test_sweeping_forgets_what_has_expired_and_nothing_else(store: Store) -> None:
    await state(store, owner="early", now=100.0)
    await state(store, owner="late", now=200.0)
    assert await store.answers.sweep(149.0) == 0
    assert await store.answers.sweep(150.0) == 1
    assert await store.answers.sweep(150.0) == 0
    assert await state(store, owner="late", now=200.0) == "running"


async def test_neither_saving_nor_releasing_what_was_never_claimed_does_anything(store: Store) -> None:
    await store.answers.save("o", "key", ANSWER)
    await store.answers.release("o", "key")
    assert await state(store) == "mine"


async def test_a_closed_store_is_a_store_fault(store: Store) -> None:
    await store.aclose()
    with pytest.raises(StoreFault):
        await state(store)
    with pytest.raises(StoreFault):
        await store.answers.save("o", "key", ANSWER)
    with pytest.raises(StoreFault):
        await store.answers.release("o", "key")
    with pytest.raises(StoreFault):
        await store.answers.sweep(1.0)


# What only several writers of one database can show.


async def test_a_claim_of_a_closed_store_may_be_claimed_anew(shared: OpenAnother, clock: FakeClock) -> None:
    first = await shared(clock)
    second = await shared(clock)
    assert await state(first) == "mine"
    assert await state(second) == "running"
    await second.answers.save("o", "key", ANSWER)  # not its claim
    await second.answers.release("o", "key")
    assert await state(second) == "running"
    await first.aclose()
    assert await state(second, fingerprint=TWO) == "mine"


async def test_a_claim_whose_writer_shows_no_life_may_be_claimed_anew(shared: OpenAnother) -> None:
    killed = await shared(FakeClock(seed=1))
    now = FakeClock(seed=2)
    living = await shared(now)
    assert await state(killed) == "mine"
    now.move(DEAD_AFTER_US / 1e6 - 1.0)
    assert await state(living) == "running"
    now.move(2.0)
    assert await state(living) == "mine"
    await killed.answers.save("o", "key", ANSWER)  # too late: the claim has passed on
    assert await state(living) == "running"
    await living.answers.save("o", "key", ANSWER)
    assert await state(killed) == "done"

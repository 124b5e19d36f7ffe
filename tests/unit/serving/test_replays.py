"""Who runs, who waits, what is given again; and that no claim is left behind, whatever is cancelled when."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.clock import SystemClock
from convene.errors import BadRequest
from convene.serving import replays as module
from convene.serving.replays import Flight, Replays
from convene.store.base import StoreFault
from convene.store.base_answers import Claim, SavedAnswer
from convene.store.memory_answers import MemoryAnswers

if TYPE_CHECKING:
    from collections.abc import Callable

ONE, OTHER = b"1" * 32, b"2" * 32
ANSWER = SavedAnswer(status=200, headers=(("content-type", "application/json"),), body=b"{}")


class PlayedAnswers(MemoryAnswers):
    """Kept answers that can be slow, break, and say what was asked of them."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.broken: set[str] = set()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def _meet(self, what: str) -> None:
        self.asked.append(what)
        await self.go_on.wait()
        if what in self.broken:
            raise StoreFault("The store cannot be used.", detail=what)

    async def claim(self, owner: str, key: str, fingerprint: bytes, expires_at: float, now: float) -> Claim:
        await self._meet("claim")
        return await super().claim(owner, key, fingerprint, expires_at, now)

    async def save(self, owner: str, key: str, answer: SavedAnswer) -> None:
        await self._meet("save")
        await super().save(owner, key, answer)

    async def release(self, owner: str, key: str) -> None:
        await self._meet("release")
        await super().release(owner, key)

    async def sweep(self, now: float) -> int:
        await self._meet("sweep")
        return await super().sweep(now)


@pytest.fixture
def answers() -> PlayedAnswers:
    return PlayedAnswers()


@pytest.fixture
def replays(answers: PlayedAnswers) -> Replays:
    return Replays(answers, SystemClock(), 60.0)


async def fly(replays: Replays, key: str = "k", fingerprint: bytes = ONE) -> Flight:
    """Begin and be the one that runs."""
    begun = await replays.begin("me", key, fingerprint)
    assert isinstance(begun, Flight)
    return begun


async def settle(turns: int = 20) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)


async def test_the_first_runs_and_later_ones_get_its_answer(replays: Replays) -> None:
    flight = await fly(replays)
    await flight.keep(ANSWER)
    assert await replays.begin("me", "k", ONE) == ANSWER


async def test_those_who_come_meanwhile_wait_and_ask_the_store_nothing(
    replays: Replays, answers: PlayedAnswers
) -> None:
    flight = await fly(replays)
    waiting = [asyncio.create_task(replays.begin("me", "k", ONE)) for _ in range(50)]
    await settle()
    assert not any(task.done() for task in waiting)
    assert answers.asked == ["claim"]
    await flight.keep(ANSWER)
    assert await asyncio.gather(*waiting) == [ANSWER] * 50
    assert answers.asked == ["claim", "save"]


async def test_after_a_release_one_of_those_who_wait_runs(replays: Replays) -> None:
    flight = await fly(replays)
    waiting = [asyncio.create_task(replays.begin("me", "k", ONE)) for _ in range(5)]
    await settle()
    await flight.release()
    await settle()
    [runs] = [task.result() for task in waiting if task.done()]
    assert isinstance(runs, Flight)
    await runs.keep(ANSWER)
    found = await asyncio.gather(*waiting)
    assert found.count(ANSWER) == 4


async def test_a_release_after_an_answer_was_kept_does_nothing(replays: Replays, answers: PlayedAnswers) -> None:
    flight = await fly(replays)
    await flight.keep(ANSWER)
    await flight.release()
    assert "release" not in answers.asked
    assert await replays.begin("me", "k", ONE) == ANSWER


@pytest.mark.parametrize("running", [True, False])
async def test_another_request_under_the_same_key_is_refused(replays: Replays, *, running: bool) -> None:
    flight = await fly(replays)
    if not running:
        await flight.keep(ANSWER)
    with pytest.raises(BadRequest, match="Idempotency-Key") as caught:
        await replays.begin("me", "k", OTHER)
    assert caught.value.code == "idempotency_key_reused"
    await flight.release()
    assert not replays._flights


async def test_owners_and_keys_are_apart(replays: Replays) -> None:
    await (await fly(replays)).keep(ANSWER)
    assert isinstance(await replays.begin("you", "k", OTHER), Flight)
    assert isinstance(await replays.begin("me", "K", OTHER), Flight)


async def test_an_answer_being_made_elsewhere_is_asked_for_until_it_is_there(
    answers: PlayedAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_FIRST_S", 0.0)
    monkeypatch.setattr(module, "LOOK_MAX_S", 0.0)
    here, there = (Replays(answers, SystemClock(), 60.0) for _ in range(2))
    flight = await fly(there)
    waiting = [asyncio.create_task(here.begin("me", "k", ONE)) for _ in range(10)]
    await settle()
    assert not any(task.done() for task in waiting)
    await flight.keep(ANSWER)
    assert await asyncio.gather(*waiting) == [ANSWER] * 10


async def test_what_is_released_elsewhere_runs_here(answers: PlayedAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_FIRST_S", 0.0)
    here, there = (Replays(answers, SystemClock(), 60.0) for _ in range(2))
    flight = await fly(there)
    waiting = asyncio.create_task(here.begin("me", "k", ONE))
    await settle()
    await flight.release()
    assert isinstance(await waiting, Flight)


@pytest.mark.parametrize("turns", range(8))
async def test_a_client_that_leaves_while_the_key_is_claimed_leaves_it_free(
    replays: Replays, answers: PlayedAnswers, turns: int
) -> None:
    """Cancelled at each turn of the loop: the store may have given the key in that very moment."""
    answers.go_on.clear()
    beginning = asyncio.create_task(replays.begin("me", "k", ONE))
    await settle(2)
    answers.go_on.set()
    await settle(turns)
    beginning.cancel()
    [done], _ = await asyncio.wait([beginning])
    if not done.cancelled():
        begun = done.result()
        assert isinstance(begun, Flight)
        await begun.release()
    await replays.aclose()
    assert isinstance(await replays.begin("me", "k", OTHER), Flight)


async def test_a_client_that_leaves_while_its_answer_is_kept_does_not_lose_it(
    replays: Replays, answers: PlayedAnswers
) -> None:
    flight = await fly(replays)
    answers.go_on.clear()
    keeping = asyncio.create_task(flight.keep(ANSWER))
    await settle()
    keeping.cancel()
    await asyncio.wait([keeping])
    waiting = asyncio.create_task(replays.begin("me", "k", ONE))
    await settle()
    assert not waiting.done(), "it is not kept yet"
    answers.go_on.set()
    assert await waiting == ANSWER


async def test_one_who_waits_and_leaves_disturbs_nobody(replays: Replays) -> None:
    flight = await fly(replays)
    waiting = [asyncio.create_task(replays.begin("me", "k", ONE)) for _ in range(3)]
    await settle()
    waiting[0].cancel()
    await settle()
    await flight.keep(ANSWER)
    assert await asyncio.gather(*waiting[1:]) == [ANSWER, ANSWER]


async def test_a_store_that_cannot_claim_fails_all_who_ask_and_nobody_waits(
    replays: Replays, answers: PlayedAnswers
) -> None:
    answers.broken.add("claim")
    results = await asyncio.gather(*(replays.begin("me", "k", ONE) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, StoreFault) for result in results)
    answers.broken.clear()
    await fly(replays)


async def test_an_answer_that_cannot_be_kept_goes_to_those_who_wait_and_later_ones_run(
    replays: Replays, answers: PlayedAnswers
) -> None:
    flight = await fly(replays)
    waiting = asyncio.create_task(replays.begin("me", "k", ONE))
    await settle()
    answers.broken.add("save")
    await flight.keep(ANSWER)
    assert await waiting == ANSWER
    await fly(replays)


async def test_a_claim_that_could_not_be_released_is_released_before_its_next_use(
    replays: Replays, answers: PlayedAnswers
) -> None:
    flight = await fly(replays)
    answers.broken.add("release")
    await flight.release()
    with pytest.raises(StoreFault):
        await replays.begin("me", "k", ONE)
    answers.broken.clear()
    await fly(replays)


@pytest.mark.parametrize("broken", [False, True])
async def test_what_has_expired_is_swept_and_a_store_that_is_down_does_not_end_that(
    replays: Replays, answers: PlayedAnswers, monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    monkeypatch.setattr(module, "SWEEP_S", 0.0)
    if broken:
        answers.broken.add("sweep")
    sweeping = asyncio.create_task(replays.sweep())
    await wait_turns(lambda: answers.asked.count("sweep") >= 3)
    assert not sweeping.done()
    sweeping.cancel()
    await asyncio.wait([sweeping])


async def wait_turns(condition: Callable[[], bool], turns: int = 1000) -> None:
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    pytest.fail("it never came to that")

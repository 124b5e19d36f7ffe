"""Listings get their vectors in the background: once, at a bounded pace, whatever the model and the store do."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent, listings
from convene.errors import StoreFault, Unavailable
from convene.registry import meaning
from convene.registry.base_search import SearchRequest
from convene.registry.follower import Follower
from convene.registry.meaning import EMBEDDED, LATER_S, LOOKED_UP, Meaning, Share
from convene.registry.search import Search
from convene.store.memory_market import MemoryMarket
from convene.store.memory_vectors import MemoryVectors
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convene.store.base_market import AgentRow

TOPICS = ("weather", "flight", "price", "music")


class Parts:
    """A marketplace in memory whose listings are embedded by a model that counts topics."""

    def __init__(self, vectors: MemoryVectors | None = None, share: Share = Share()) -> None:  # noqa: B008 -- frozen
        self.market = MemoryMarket()
        self.vectors = vectors or MemoryVectors()
        self.clock = FakeClock(NOW_US / 1_000_000)
        self.asked: list[Sequence[str]] = []
        self.fault: Exception | None = None
        self.meaning = Meaning(
            lambda: self.follower.index, lambda: self.vectors, self.clock, self.embed, "model", 600, share
        )
        self.follower = Follower(lambda: self.market, self.clock, self.meaning.want)
        self.search = Search(lambda: self.follower.index, self.clock, None, self.embed_one)

    async def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        if self.fault is not None:
            raise self.fault
        self.asked.append(texts)
        return [vector_of(text) for text in texts]

    async def embed_one(self, text: str) -> Sequence[float]:
        return (await self.embed([text]))[0]

    async def put(self, *rows: AgentRow) -> None:
        for row in rows:
            await self.market.list_agent(msgspec.structs.replace(row, version=0), NOW_US)
        await self.follower.catch_up()

    async def finish(self) -> int:
        """Do all steps that are due; return for how many texts the model was asked."""
        asked = 0
        for _ in range(50):
            asked += await self.meaning.step()
        return asked

    @property
    def known(self) -> int:
        return len(self.follower.index.vectors)


async def until(done: Callable[[], bool]) -> None:
    """Let others work until something is so; whoever calls bounds the time."""
    while not done():
        for _ in range(3):
            await asyncio.sleep(0)


def vector_of(text: str) -> list[float]:
    """Return a direction by the topics of a text, and a little by the text itself, so that no two are the same."""
    noise = hashlib.sha256(text.encode()).digest()[:12]
    return [2.0 * text.lower().count(topic) for topic in TOPICS] + [byte / 2550 for byte in noise]


async def test_every_listing_gets_its_vector_and_is_found_by_it() -> None:
    parts = Parts()
    await parts.put(agent("SkyCast", "weather weather"), agent("Tunes", "music"), agent("Fly", "flight"))
    assert parts.known == 0
    assert await parts.finish() == 3
    assert parts.known == 3
    page = await parts.search.search(SearchRequest(text="musics?", semantic=True, cutoff="balanced"))
    assert page.hits[0].row.listing.name == "Tunes"


async def test_texts_go_to_the_model_in_small_requests_and_each_once() -> None:
    parts = Parts()
    await parts.put(*listings())
    assert await parts.meaning.step() == EMBEDDED
    assert len(parts.asked[0]) == EMBEDDED
    assert await parts.finish() == len(listings()) - EMBEDDED
    texts = [text for texts in parts.asked for text in texts]
    assert len(texts) == len(set(texts)) == len(listings())
    assert max(map(len, parts.asked)) <= EMBEDDED
    assert parts.meaning.embedded == len(listings())


async def test_a_restart_embeds_nothing_again() -> None:
    first = Parts()
    await first.put(*listings())
    await first.finish()
    again = Parts(first.vectors)
    await again.put(*listings())
    assert await again.meaning.step() == 0
    assert await again.finish() == 0
    assert again.known == len(listings()) > LOOKED_UP - 4
    assert again.asked == []


async def test_another_model_has_other_vectors() -> None:
    first = Parts()
    await first.put(agent("SkyCast", "weather"))
    await first.finish()
    other = Parts(first.vectors)
    other.meaning._model = "another"
    await other.put(agent("SkyCast", "weather"))
    assert await other.finish() == 1


async def test_only_a_new_text_is_embedded_and_the_old_vector_is_gone() -> None:
    parts = Parts()
    await parts.put(agent("SkyCast", "weather"))
    await parts.finish()
    row = await parts.market.get(agent("SkyCast").id)
    assert row is not None
    await parts.market.list_agent(msgspec.structs.replace(row, owner="me"), NOW_US)
    await parts.follower.catch_up()
    assert await parts.finish() == 0
    changed = msgspec.structs.replace(row.listing, name="Tunes", profile=agent("", "music").listing.profile)
    row = await parts.market.get(row.id)
    assert row is not None
    await parts.market.list_agent(msgspec.structs.replace(row, listing=changed), NOW_US)
    await parts.follower.catch_up()
    assert parts.known == 0
    assert await parts.finish() == 1
    assert parts.known == 1


async def test_a_listing_that_changes_or_goes_while_the_model_works_gets_no_wrong_vector() -> None:
    parts = Parts()
    row = agent("SkyCast", "weather")
    await parts.put(row, agent("Tunes", "music"))
    embed = parts.embed

    async def slowly(texts: Sequence[str]) -> Sequence[Sequence[float]]:
        parts.follower.index.apply(msgspec.structs.replace(row, removed=True), NOW_US)
        parts.follower.index.apply(agent("Tunes", "flight", version=9), NOW_US)
        return await embed(texts)

    parts.meaning._embed = slowly
    await parts.meaning.step()
    assert parts.known == 0


async def test_agents_that_say_nothing_are_not_embedded() -> None:
    parts = Parts()
    await parts.put(msgspec.structs.replace(agent("x"), listing=msgspec.structs.replace(agent("x").listing, name="")))
    assert await parts.finish() == 0
    assert parts.asked == []


async def test_what_fails_is_tried_again_and_nothing_is_lost() -> None:
    parts = Parts()
    await parts.put(*listings()[:5])
    parts.fault = Unavailable("The model is loading.")
    for _ in range(3):
        with pytest.raises(Unavailable):
            await parts.meaning.step()
    parts.fault = None
    assert await parts.finish() == 5
    assert parts.known == 5


async def test_a_store_that_is_away_costs_no_vector(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    await parts.put(*listings()[:5])
    with monkeypatch.context() as patch:

        async def away(vectors: Mapping[str, bytes], now_us: int) -> None:
            raise StoreFault("away", detail=f"{len(vectors)} {now_us}")

        patch.setattr(parts.vectors, "keep", away)
        with pytest.raises(StoreFault):
            await parts.meaning.step()
    await parts.finish()
    assert parts.known == 5


async def test_processes_on_one_store_share_the_work() -> None:
    vectors = MemoryVectors()
    workers = [Parts(vectors, Share(index, 3)) for index in range(3)]
    asked = 0
    for worker in workers:
        await worker.put(*listings())
        asked += await worker.finish()
    assert asked == len(listings())
    assert all(len(worker.asked) > 0 for worker in workers)
    assert not all(worker.known == len(listings()) for worker in workers)
    for worker in workers:
        worker.clock.move(LATER_S)
        assert await worker.finish() == 0
        assert worker.known == len(listings())


async def test_an_index_that_is_made_anew_gets_its_vectors_from_the_store() -> None:
    parts = Parts()
    await parts.put(*listings()[:8])
    await parts.finish()
    await parts.follower.renew()
    assert parts.known == 0
    assert await parts.finish() == 0
    assert parts.known == 8


async def test_the_work_goes_on_by_itself_and_after_faults(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(meaning, "LATER_S", 0.001)
    monkeypatch.setattr(meaning, "TOLD_EVERY", 5)
    parts = Parts()
    parts.meaning._pause_s = 0.0
    parts.fault = Unavailable("The model is loading.")
    running = asyncio.create_task(parts.meaning.run())
    await parts.put(*listings()[:20])
    with caplog.at_level("INFO"):
        async with asyncio.timeout(10):
            await until(lambda: "get no vectors now" in caplog.text)
            parts.fault = None
            await until(lambda: parts.known == 20)
        await parts.put(agent("late", "weather"))
        async with asyncio.timeout(10):
            await until(lambda: parts.known == 21)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert "model has embedded" in caplog.text


async def test_the_pace_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    await parts.put(*listings())
    slept: list[float] = []
    done = asyncio.Event()
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 2:
            done.set()
            await asyncio.Event().wait()
        await sleep(0)

    monkeypatch.setattr("convene.registry.meaning.asyncio.sleep", note)
    running = asyncio.create_task(parts.meaning.run())
    await asyncio.wait_for(done.wait(), 5)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert slept[:2] == [pytest.approx(EMBEDDED * 60 / 600)] * 2


async def test_vectors_of_long_ago_are_forgotten() -> None:
    parts = Parts()
    await parts.vectors.keep({"old": b"1"}, NOW_US - 91 * 86_400_000_000)
    running = asyncio.create_task(parts.meaning.run())
    async with asyncio.timeout(5):
        await until(lambda: not parts.vectors._kept)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

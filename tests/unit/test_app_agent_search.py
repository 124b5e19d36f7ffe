"""The composition of searching agents: pings, who may search, and what ends with the application."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import NOW_US, agent
from convene import app_agent_search
from convene.agents.base import AgentCard
from convene.agents.base import Heard as Piece
from convene.app_agent_search import Model, SearchParts, Ties, embedding_model
from convene.config import Agents, Config, ConfigError
from convene.errors import BadRequest, Failed
from convene.providers.scripted import ScriptedEmbeddings
from convene.registry.base_search import SearchRequest
from convene.registry.directory import found_of
from convene.serving.base import ModelCard
from convene.serving.catalog import Deployment
from convene.store.memory import MemoryStore
from fakes import FakeClock
from market_doubles import Market

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from convene.api.call import Call
    from convene.providers.base import Embeddings
    from convene.registry.base import Found
    from convene.store.base_market import AgentRow
    from convene.tools.agents_base import Asking

ROW = agent("weather", handle="w")
FOUND = found_of(ROW, score=1.0, reachable=True)


async def nobody(call: Call) -> object:
    raise AssertionError(call)


async def describe(url: str) -> AgentCard:
    if not url.endswith("/card"):
        raise Failed("There is no A2A agent at this address.", detail="404")
    return AgentCard(protocol="a2a", url=url, name="Weather", description="Rain.", readme="# W", skills=("Rain",))


class Parts:
    """The parts over a store in memory, with a desk that plays."""

    def __init__(self, desk: Market | None = None) -> None:
        self.store = MemoryStore()
        self.desk = desk or Market()
        clock = FakeClock(NOW_US / 1_000_000)
        ties = Ties(nobody, lambda: self.desk, lambda: "me", describe)
        self.parts = SearchParts(Config(), clock, lambda: self.store, ties)

    async def put(self, row: AgentRow) -> None:
        await self.store.market.list_agent(msgspec.structs.replace(row, version=0), NOW_US)


@pytest.mark.req("TRAP-01")
@pytest.mark.parametrize(
    ("script", "outcome", "words"),
    [
        (("pong",), "success", "pong"),
        (("one ", "two"), "success", "one two"),
        ((), "success", ""),
        ((Piece(kind="progress", text="working"), "pong"), "success", "pong"),
        ((Piece(kind="needs_input", text="Which city?"),), "success", "Which city?"),
        ((Piece(kind="payment", text="5 coins first"),), "success", "5 coins first"),
        ((Piece(kind="error", text="It broke."),), "failed", "It broke."),
        ((Piece(kind="error", text="Too late.", metadata={"reason": "timed_out"}),), "timed_out", "Too late."),
        ((Piece(kind="error", text="It costs money.", metadata={"reason": "refused"}),), "refused", "It costs money."),
        (("x" * 999,), "success", "x" * 500),
    ],
)
async def test_a_ping_says_how_the_conversation_went(script: tuple[str | Piece, ...], outcome: str, words: str) -> None:
    parts = Parts(Market().add("weather", *script, address=ROW.id))
    heard = await parts.parts.ping(FOUND)
    assert (heard.outcome, heard.words) == (outcome, words)
    assert parts.desk.notes == [("weather", outcome)]
    (asking,) = parts.desk.asked
    assert asking.say == "ping"


async def test_a_ping_of_a_priced_agent_is_free() -> None:
    parts = Parts(Market().add("weather", "pong", address=ROW.id))
    asked: list[int] = []
    ask = parts.desk.ask

    def noting(found: Found, asking: Asking) -> AsyncGenerator[Piece]:
        asked.append(found.price_micros)
        return ask(found, asking)

    parts.desk.ask = noting  # type: ignore[assignment]  # a double that looks at the price
    assert (await parts.parts.ping(msgspec.structs.replace(FOUND, price_micros=9))).outcome == "success"
    assert asked == [0]


async def test_two_pings_are_two_conversations() -> None:
    parts = Parts(Market().add("weather", "pong", address=ROW.id))
    for _ in range(2):
        await parts.parts.ping(FOUND)
    one, other = parts.desk.asked
    assert one.conversation != other.conversation
    assert one.call_key != other.call_key


async def test_an_agent_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_agent_search, "PING_S", 0.01)
    parts = Parts(Market().add("weather", 3600.0, address=ROW.id))
    heard = await parts.parts.ping(FOUND)
    assert heard.outcome == "timed_out"
    assert parts.desk.notes == [("weather", "timed_out")]


async def test_there_is_somebody_once_the_index_has_followed_and_what_was_shown_is_kept_at_the_end() -> None:
    parts = Parts()
    parts.parts.start()
    assert not parts.parts.anybody()
    await parts.put(ROW)
    async with asyncio.timeout(5):
        while not parts.parts.anybody():
            parts.parts.follower.poke()
            await asyncio.sleep(0)
    await parts.parts.search.search(SearchRequest(text="weather"))
    await parts.parts.aclose()
    row = await parts.store.market.get(ROW.id)
    assert row is not None
    assert row.tally.impressions == 1


async def test_a_store_that_is_gone_does_not_keep_the_application_from_ending(caplog: pytest.LogCaptureFixture) -> None:
    parts = Parts()
    await parts.put(ROW)
    await parts.parts.follower.catch_up()
    parts.parts.start()
    await parts.parts.search.search(SearchRequest(text="weather"))
    await parts.store.aclose()
    await parts.parts.aclose()
    assert "is not counted" in caplog.text


async def test_where_agents_are_switched_off_none_is_pinged() -> None:
    store = MemoryStore()
    config = msgspec.structs.replace(Config(), agents=Agents(enabled=False))
    off = SearchParts(config, FakeClock(), lambda: store, Ties(nobody, Market, lambda: "", describe))
    assert off.operator._ping is None


async def test_an_operator_is_told_what_is_at_a_url_or_why_it_cannot_be_read() -> None:
    parts = Parts().parts
    card = await parts.describe("http://h/card")
    assert (card.protocol, card.url, card.name, card.skills) == ("a2a", "http://h/card", "Weather", ("Rain",))
    with pytest.raises(BadRequest) as caught:
        await parts.describe("http://h/")
    assert (caught.value.param, caught.value.code) == ("url", "agent_unreadable")
    assert caught.value.message == "There is no A2A agent at this address."


def deployed(name: str, upstream: str, *aliases: str, chats: bool = False) -> Deployment:
    card = ModelCard(id=name, created=1, owned_by=upstream, upstream=upstream, target=f"{name}-1", aliases=aliases)
    return Deployment(card=card, embedding=None if chats else ScriptedEmbeddings(dimensions=16))


CHAT = deployed("asi1", "embedded", chats=True)
LOCAL, HOSTED = deployed("minilm", "embedded"), deployed("big", "openai", "large")


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [
        ("auto", (CHAT, HOSTED, LOCAL), "embedded/minilm-1"),
        ("auto", (CHAT, HOSTED), None),
        ("off", (LOCAL, HOSTED), None),
        ("big", (LOCAL, HOSTED), "openai/big-1"),
        ("large", (LOCAL, HOSTED), "openai/big-1"),
        ("minilm", (LOCAL, HOSTED), "embedded/minilm-1"),
    ],
)
def test_the_model_that_embeds_is_the_engines_unless_another_is_named(
    wanted: str, there: tuple[Deployment, ...], chosen: str | None
) -> None:
    config = msgspec.structs.replace(Config(), agents=Agents(embedding_model=wanted))
    model = embedding_model(config, there)
    assert (None if model is None else model.name) == chosen


@pytest.mark.parametrize("wanted", ["asi1", "nothing"])
def test_a_model_that_embeds_nothing_is_a_fault_of_the_settings(wanted: str) -> None:
    config = msgspec.structs.replace(Config(), agents=Agents(embedding_model=wanted))
    with pytest.raises(ConfigError, match=r"agents\.embedding_model"):
        embedding_model(config, (CHAT, LOCAL))


async def test_listings_are_embedded_in_the_background_and_kept_over_a_restart() -> None:
    store, desk = MemoryStore(), Market()
    clock = FakeClock(NOW_US / 1_000_000)
    await store.market.list_agent(msgspec.structs.replace(ROW, version=0), NOW_US)
    for _ in range(2):
        embedding = Counted(dimensions=16)
        ties = Ties(nobody, lambda: desk, lambda: "", describe)
        parts = SearchParts(Config(), clock, lambda: store, ties, Model("m", embedding))
        parts.start()
        async with asyncio.timeout(10):
            while not len(parts.follower.index.vectors):
                parts.follower.poke()
                await asyncio.sleep(0)
        page = await parts.search.search(SearchRequest(text="anything at all", semantic=True))
        await parts.aclose()
        assert page.search_id
        texts = embedding.texts
    assert texts == ["anything at all"]


class Counted(ScriptedEmbeddings):
    """The scripted model, which remembers what it was asked."""

    texts: list[str]

    def __init__(self, dimensions: int) -> None:
        super().__init__(dimensions=dimensions)
        self.texts = []

    async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
        self.texts += [one for one in inputs if isinstance(one, str)]
        return await super().embed(inputs, dimensions)

"""What a priced agent costs: reserved before it is asked, charged for an answer, nothing for anything else."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
import pytest

from convene.agents.base import Heard
from convene.agents.faults import error
from convene.app_fees import AgentTill
from convene.config import Config, ConfigError, KnownAgent, Price, load
from convene.errors import OverBudget
from convene.registry.base import Found
from convene.serving.base import Outcome, Principal
from convene.tools.agents_base import Asking

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from convene.serving.admission import Ask

URL = "https://w.test"
FOUND = Found(protocol="a2a", name="Rain", url=f"{URL}/.well-known/agent-card.json")
FREE = Found(protocol="a2a", name="Sun", url="https://s.test")
WHO = Principal(key_id="key_1", owner="user_1")
CONFIG = msgspec.structs.replace(
    Config(),
    agent={"weather": KnownAgent(url=URL, price="cheap"), "sun": KnownAgent(url=FREE.url)},
    prices={"cheap": Price(request=0.25)},
)


class Lease:
    """Counts by the outcome, as the books do."""

    def __init__(self, books: Books, ask: Ask, outcome: Outcome) -> None:
        self.books, self.ask, self.outcome = books, ask, outcome
        self.is_settled = False

    def settle(self) -> None:
        if not self.is_settled:
            self.is_settled = True
            outcome, price = self.outcome, self.ask.terms.price
            outcome.currency = "USD"
            outcome.cost_micros = price.request if outcome.status == "ok" else 0
            self.books.entries.append((self.ask.id, self.ask.model, outcome.status, outcome.cost_micros))

    async def written(self) -> None:
        assert self.is_settled


class Books:
    """An `Admission` that remembers."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.entries: list[tuple[str, str, str, int]] = []
        self.refuses = False

    async def reserve(self, ask: Ask, outcome: Outcome) -> Lease:
        self.asks.append(ask)
        if self.refuses:
            raise OverBudget("The budget of this month is used up.")
        return Lease(self, ask, outcome)


async def holder(key_id: str) -> Principal | None:
    return WHO if key_id == "key_1" else None


def till(books: Books) -> AgentTill:
    return AgentTill(CONFIG, holder, books)  # type: ignore[arg-type]  # a double of what it uses


def asking(key_id: str = "key_1", call: str = "run:s1:1") -> Asking:
    return Asking(owner="user_1", conversation="c", call_key=call, say="hi", key_id=key_id, caller="agent1qcaller")


async def answer(*heard: Heard, asked: list[str] | None = None) -> AsyncGenerator[Heard]:
    if asked is not None:
        asked.append("asked")
    for one in heard:
        yield one


TEXT, END = Heard(kind="text", text="sunny"), Heard(kind="end")


async def test_an_answer_costs_the_price_once_and_says_so() -> None:
    books = Books()
    heard = [one async for one in till(books).charged(FOUND, asking(), answer(TEXT, END))]
    assert heard == [TEXT, Heard(kind="end", metadata={"cost": "0.25 USD"})]
    [(entry, model, status, cost)] = books.entries
    assert (model, status, cost) == ("agent/weather", "ok", 250_000)
    [ask] = books.asks
    assert (ask.kind, ask.principal, ask.agentic.agent_address) == ("agent", WHO, "agent1qcaller")
    assert entry.startswith("agent-")


async def test_a_repeat_of_a_call_has_the_same_entry_and_another_call_has_not() -> None:
    books = Books()
    for call in ("one", "one", "two"):
        _ = [one async for one in till(books).charged(FOUND, asking(call=call), answer(END))]
    first, again, other = (entry for entry, *_ in books.entries)
    assert first == again != other


@pytest.mark.parametrize(
    "last", [error("out of stock", "agent_error"), Heard(kind="needs_input", text="Where?"), Heard(kind="payment")]
)
async def test_what_is_no_answer_costs_nothing(last: Heard) -> None:
    books = Books()
    heard = [one async for one in till(books).charged(FOUND, asking(), answer(TEXT, last))]
    assert heard[-1] == last
    assert [(status, cost) for *_, status, cost in books.entries] == [("failed", 0)]


async def test_whoever_leaves_before_the_answer_pays_nothing() -> None:
    books = Books()
    async with aclosing(till(books).charged(FOUND, asking(), answer(TEXT, END))) as talk:
        await anext(talk)
    assert [cost for *_, cost in books.entries] == [0]


async def test_an_agent_that_cannot_be_paid_is_not_asked() -> None:
    books, asked = Books(), list[str]()
    books.refuses = True
    [heard] = [one async for one in till(books).charged(FOUND, asking(), answer(END, asked=asked))]
    assert heard.text == "The agent was not asked: The budget of this month is used up."
    [heard] = [one async for one in till(books).charged(FOUND, asking("nobody"), answer(END, asked=asked))]
    assert "no key" in heard.text
    assert heard.metadata == {"reason": "refused"}
    assert asked == []


async def test_an_agent_without_a_price_costs_nothing_and_is_in_no_books() -> None:
    books = Books()
    heard = [one async for one in till(books).charged(FREE, asking("nobody"), answer(TEXT, END))]
    assert heard == [TEXT, END]
    assert books.asks == []


def test_a_price_that_is_not_there_is_refused_with_the_key(tmp_path: Path) -> None:
    (tmp_path / "convene.toml").write_text("[agent.a]\nurl = 'https://a.test'\nprice = 'gold'\n")
    with pytest.raises(ConfigError, match=r"agent\.a\.price names 'gold', which is not one of: none"):
        load({}, {"HOME": str(tmp_path)}, tmp_path)


LISTED = Found(protocol="a2a", name="Moon", url="https://m.test", price_micros=1_500)


async def told(books: Books, found: Found, *heard: Heard, key_id: str = "key_1") -> list[Heard]:
    async with aclosing(till(books).charged(found, asking(key_id), answer(*heard))) as pieces:
        return [one async for one in pieces]


async def test_an_agent_of_our_marketplace_costs_what_its_listing_says() -> None:
    books = Books()
    heard = await told(books, LISTED, TEXT, END)
    assert [one.kind for one in heard] == ["text", "end"]
    assert heard[-1].metadata["cost"]
    ((_, model, status, cost),) = books.entries
    assert (model, status, cost) == ("agent/https://m.test", "ok", 1_500)
    assert books.asks[0].terms.price.version


async def test_its_question_is_free_without_an_answer_and_refused_without_a_key() -> None:
    books = Books()
    await told(books, LISTED, error("It broke.", "failed"))
    assert [cost for *_, cost in books.entries] == [0]
    refused = await told(books, LISTED, TEXT, END, key_id="nobody")
    assert [one.kind for one in refused] == ["error"]
    assert len(books.asks) == 1


async def test_what_the_operator_writes_for_an_agent_comes_before_its_listing() -> None:
    books = Books()
    await told(books, msgspec.structs.replace(FOUND, price_micros=7), TEXT, END)
    assert [cost for *_, cost in books.entries] == [250_000]


async def test_another_price_is_another_version() -> None:
    books = Books()
    await told(books, LISTED, TEXT, END)
    await told(books, msgspec.structs.replace(LISTED, price_micros=2), TEXT, END)
    one, other = books.asks
    assert one.terms.price.version != other.terms.price.version

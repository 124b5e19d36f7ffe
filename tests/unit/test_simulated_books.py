"""Real books in simulated weather: after whatever a seed does, nothing is reserved and counters and ledger agree.

The applications of `test_simulated_turn.py` with limits and a ledger behind them. Goal A4 in small: requests that
fail, clients that leave, upstreams that break off, a server that is closed in the middle.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import msgspec
import pytest

from bridge import Bridge, Lifespan
from convene.app import App
from convene.errors import NotFound
from convene.limits.allowance import Allowance
from convene.limits.limit import Amounts
from convene.serving.allowances import Allowances
from convene.serving.books import Books
from convene.serving.keyring import LOCAL
from convene.serving.line import Line
from convene.store.memory_counters import MemoryCounters
from simulation import Answer, FakeClient, World, run
from unit.serving.ledger_double import Pages
from unit.test_simulated_turn import HOSTS, ask, configured, draw_reply

if TYPE_CHECKING:
    from typing import Literal

    from convene.http.base import Request
    from convene.store.base_ledger import Entry
    from convene.usage import Usage

SEEDS = 120
ALLOWED = Allowance(
    requests_per_minute=6,
    tokens_per_day=10**6,
    concurrent_requests=3,
    budget_total=10**9,
)


class Guess:
    """Estimates that are a little wrong."""

    def both(self, key_id: str, model: str, size: int, ceiling: int | None) -> tuple[int, int]:
        del key_id, model
        return size // 2, min(20, ceiling or 20)

    def learn(self, key_id: str, model: str, size: int, used: Usage, choices: int) -> None:
        assert (key_id, model) == ("local", "far")
        assert size > 0 < choices
        assert not used.estimated


async def live(world: World, policy: Literal["cancel", "drain", "free"]) -> dict[str, int]:
    """One application's life with real books; returns how often each status was entered."""
    source = world.source("weather")

    def play(request: Request) -> Answer:
        return draw_reply(source, stream=msgspec.json.decode(request.body)["stream"])

    counters, pages = MemoryCounters(world.clock), Pages()
    allowances = Allowances({"owner": ALLOWED})
    line = Line(8, 5) if source.random() < 0.3 else None
    books = Books(counters, pages, allowances, Guess(), world.clock, line=line)
    client = FakeClient(world, {f"{host}/chat/completions": play for host in HOSTS})
    app = App(configured(source.randrange(3), policy), world.clock, lambda _: None, lambda _: client, books)
    bridge = Bridge(app.front)
    async with (
        Lifespan(app.front),
        httpx2.AsyncClient(transport=bridge, base_url="http://sim.test", timeout=None) as http,
    ):
        asking = [asyncio.create_task(ask(world, http, f"request {n}")) for n in range(source.randrange(2, 9))]
        ends = await asyncio.gather(*asking)
    assert not bridge.faults
    await books.flush()
    check_agreement(books, pages, counters, allowances)
    refused = sum(end == "status 429" for end in ends)
    # Who waited in line longer than a head waits is refused in a stream that has begun.
    unsure = ends.count("left") + (ends.count("broken stream") if line else 0)
    assert len(pages.entries_by_id) >= len(ends) - refused - unsure
    count = {"refused": refused}
    for entry in pages.entries_by_id.values():
        count[entry.status] = count.get(entry.status, 0) + 1
    return count


def check_agreement(books: Books, pages: Pages, counters: MemoryCounters, allowances: Allowances) -> None:
    """Nothing is open, and what was counted is what was entered."""
    assert pages.begun == set()
    assert books.live == {}
    entries = pages.entries_by_id.values()
    limits = allowances.of_caller(LOCAL)
    states = {limit.name: state for limit, state in zip(limits, counters.local.levels(limits).states, strict=True)}
    assert states["concurrent requests"] == 0
    assert states["budget in total"] == sum(entry.cost_micros for entry in entries)
    for entry in entries:
        assert counters.local.settle(entry.id, Amounts()) is None
        check_entry(entry)
        with pytest.raises(NotFound):
            counters.local.top_up(entry.id, 9, Amounts(), 1)


def check_entry(entry: Entry) -> None:
    """An entry is whole and plausible."""
    assert (entry.key_id, entry.model, entry.kind) == ("local", "far", "chat")
    assert entry.duration_us >= (entry.ttft_us or 0) >= 0
    if entry.status == "ok":
        assert entry.finish == "stop"
        assert entry.completion_tokens > 0
        assert entry.cost_micros > 500_000
    if entry.cost_micros == 0:
        assert entry.status in {"failed", "client_left"}


@pytest.mark.parametrize("policy", ["cancel", "drain", "free"])
def test_after_every_seed_nothing_is_reserved_and_counters_and_ledger_agree(
    policy: Literal["cancel", "drain", "free"],
) -> None:
    totals: dict[str, int] = {}
    for seed in range(SEEDS):
        for status, times in run(lambda world: live(world, policy), seed).items():
            totals[status] = totals.get(status, 0) + times
    for status in ("ok", "failed", "client_left", "refused"):
        assert totals.get(status, 0) >= 5, totals

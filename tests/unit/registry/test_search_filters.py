"""Any combination of filters leaves exactly the agents that a plain reading of them leaves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from agent_listings import NOW_US, agent
from convene.registry.base_search import Filters, SearchRequest
from convene.registry.counter import AGENTS_MAX, Counter
from convene.registry.documents import CHAT_PROTOCOL
from convene.store.base_market import Endpoint, Tally
from convene.store.memory_market import MemoryMarket
from fakes import FakeClock
from unit.registry.index_of import search_over

if TYPE_CHECKING:
    from convene.store.base_market import AgentRow

OTHER = "proto:" + "0" * 64
MAILBOX, CUSTOM = "http://h/v2/agents/mailbox/submit", "http://h/submit"


@st.composite
def rows(draw: st.DrawFn, number: int) -> AgentRow:
    down = draw(st.booleans())
    return agent(
        f"thing {number}",
        readme=draw(st.sampled_from(["", "Read me."])),
        tags=draw(st.sampled_from([(), ("x",), ("x", "y")])),
        protocols=draw(st.sampled_from([(), (CHAT_PROTOCOL,), (OTHER, CHAT_PROTOCOL)])),
        geo=draw(st.sampled_from([None, (1.0, 2.0, 3.0)])),
        endpoints=(Endpoint(draw(st.sampled_from([MAILBOX, CUSTOM]))),),
        expires_us=NOW_US + draw(st.sampled_from([-1, 1])),
        tally=Tally(calls=draw(st.integers(0, 9)), failures_in_row=5 if down else 0, failed_us=NOW_US if down else 0),
        version=number + 1,
    )


FILTERS = st.builds(
    Filters,
    state=st.lists(st.sampled_from(["active", "inactive", "responsive", "unresponsive"]), max_size=3, unique=True).map(
        tuple
    ),
    agent_type=st.sampled_from([(), ("mailbox",), ("custom", "mailbox"), ("uagent",), ("hosted",)]),
    protocol_digest=st.sampled_from([(), (CHAT_PROTOCOL,), (OTHER,), (OTHER, CHAT_PROTOCOL)]),
    has_location=st.sampled_from([None, True, False]),
    has_readme=st.sampled_from([None, True, False]),
    n_interactions=st.sampled_from([None, 0, 5]),
    tags=st.sampled_from([(), ("x",), ("y",), ("x", "z")]),
)


def may_be_shown(row: AgentRow, filters: Filters) -> bool:
    """Read the filters one by one."""
    active, down = row.expires_us > NOW_US, row.tally.failures_in_row >= 3
    located, mailbox = row.listing.geo is not None, row.endpoints[0].url == MAILBOX
    kinds = {"uagent", "mailbox" if mailbox else "custom"}
    alive = {"active", "inactive"} & set(filters.state)
    answering = {"responsive", "unresponsive"} & set(filters.state)
    return all(
        (
            ("active" if active else "inactive") in (alive or {"active"}),
            not answering or ("unresponsive" if down else "responsive") in answering,
            not filters.agent_type or kinds & set(filters.agent_type),
            not filters.protocol_digest or set(row.protocols) & set(filters.protocol_digest),
            not filters.tags or set(row.listing.tags) & set(filters.tags),
            not located if filters.has_location is None else located == filters.has_location,
            filters.has_readme is None or bool(row.listing.profile.readme) == filters.has_readme,
            row.tally.calls >= (filters.n_interactions or 0),
        )
    )


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(), count=st.integers(0, 12), filters=FILTERS, text=st.sampled_from(["", "thing"]), rerank=st.booleans()
)
def test_filters_together_leave_what_each_of_them_leaves(
    data: st.DataObject, count: int, filters: Filters, text: str, *, rerank: bool
) -> None:
    there = [data.draw(rows(number)) for number in range(count)]
    search, _, _ = search_over(there)
    page = asyncio.run(search.search(SearchRequest(text=text, filters=filters, rerank=rerank, limit=50)))
    assert {hit.row.id for hit in page.hits} == {row.id for row in there if may_be_shown(row, filters)}
    assert page.total == len(page.hits)


async def test_what_waits_to_be_counted_is_bounded() -> None:
    market, clock = MemoryMarket(), FakeClock(NOW_US / 1_000_000)
    counter = Counter(lambda: market, clock)
    for start in (0, AGENTS_MAX):
        counter.shown([f"agent{number}" for number in range(start, start + AGENTS_MAX)])
        counter.picked(f"agent{start}")
    assert len(counter._shown) == AGENTS_MAX
    await counter.flush()
    assert not counter._shown
    assert not counter._picked

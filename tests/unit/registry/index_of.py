"""An index and a search over given rows, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_listings import NOW_US
from convene.registry.agent_index import AgentIndex
from convene.registry.follower import DEFAULT_NAMES
from convene.registry.search import Search
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.registry.counter import Counter
    from convene.registry.search import Embed
    from convene.store.base_market import AgentRow


def index_of(rows: Iterable[AgentRow]) -> AgentIndex:
    index = AgentIndex()
    index.names.update(DEFAULT_NAMES)
    for row in rows:
        index.apply(row, NOW_US)
    return index


def search_over(
    rows: Iterable[AgentRow], *, counter: Counter | None = None, embed: Embed | None = None
) -> tuple[Search, AgentIndex, FakeClock]:
    index = index_of(rows)
    clock = FakeClock(NOW_US / 1_000_000)
    return Search(lambda: index, clock, counter, embed), index, clock

"""The tools that `test_tools.py` holds to the seam. A further one is an entry in `TOOLS`.

Each is opened over doubles: `good` are arguments with which it succeeds, `hangs` makes the next run wait for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from convene.config import Search
from convene.tools.page_pool import PagePool
from convene.tools.search_base import Hit, Query
from convene.tools.search_chain import Paced, SearchChain
from convene.tools.web_fetch import WebFetch
from convene.tools.web_search import WebSearch
from egress_doubles import NotedWire, Told, guarded
from fakes import FakeClock
from page_samples import ARTICLE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from convene.egress import Hop
    from convene.tools.base import Tool


class Offered(NamedTuple):
    """A tool under test."""

    tool: Tool
    good: Mapping[str, object]
    hang: Callable[[], None]
    """Makes every later run wait until it is cancelled."""
    close: Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """Nothing is open."""


def web_fetch() -> Offered:
    """Return the tool over a wire that has one page, read by a real process."""
    is_hanging = asyncio.Event()

    def tell(_: Hop) -> Told:
        waits_s = 3600.0 if is_hanging.is_set() else 0.0
        return Told(headers={"content-type": "text/html"}, pieces=(ARTICLE.encode(),), waits_s=waits_s)

    egress, _, _ = guarded(NotedWire(tell))
    pool = PagePool(processes_max=1, read_s=60.0)
    tool = WebFetch(egress, pool, chars=2000, longest_s=60.0)
    return Offered(tool, {"url": "https://vell.example/light"}, is_hanging.set, pool.aclose)


class _Engine:
    """An engine with one result, or with none for ever."""

    name = "engine"

    def __init__(self) -> None:
        self.is_hanging = asyncio.Event()

    async def search(self, query: Query, timeout_s: float) -> list[Hit]:
        del query, timeout_s
        if self.is_hanging.is_set():
            await asyncio.sleep(3600.0)
        return [Hit("https://vell.example/light", "The Light of Vell", "Lit in 1871.")]


def web_search() -> Offered:
    """Return the tool over one engine."""
    engine, clock = _Engine(), FakeClock()
    chain = SearchChain([Paced(engine, 1e9, clock)], clock, timeout_s=3600.0, cache_s=0)
    return Offered(WebSearch(chain, Search()), {"query": "vell"}, engine.is_hanging.set, chain.aclose)


TOOLS: Final[Mapping[str, Callable[[], Offered]]] = {"web_fetch": web_fetch, "web_search": web_search}
"""Called inside a running loop."""

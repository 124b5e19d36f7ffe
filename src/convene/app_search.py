"""The composition of web search: from `[search]` to engines and the tool, for `app_tools.py` and `convene doctor`.

To add an engine, write it in `tools/search_NAME.py` behind `SearchEngine`, give it a section in `config_search.py`, and
add a case to `SearchParts._engine`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.http.client import ClientOptions
from convene.tools.search_brave import BraveSearch
from convene.tools.search_chain import Paced, SearchChain
from convene.tools.search_meta import MetaSearch
from convene.tools.search_searxng import SearxngSearch
from convene.tools.search_tavily import TavilySearch
from convene.tools.web_search import SearchBox, WebSearch

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.config import Search, Secret
    from convene.http.base import Client
    from convene.tools.search_base import SearchEngine


class SearchParts:
    """The engines of one server, and their connections."""

    def __init__(self, settings: Search, clock: Clock, connect: Callable[[ClientOptions], Client]) -> None:
        """`connect` makes the client of a configured host."""
        self._settings, self._clock, self._connect = settings, clock, connect
        self._clients: list[Client] = []
        self._chain: SearchChain | None = None
        self.engines: tuple[SearchEngine, ...] = ()
        """In the order in which they are asked."""
        if settings.enabled:
            self.engines = tuple(self._engine(name) for name in settings.order)
        self.box = self._box()

    async def aclose(self) -> None:
        """End the searches under way and drop the connections."""
        if self._chain is not None:
            await self._chain.aclose()
        for client in self._clients:
            await client.aclose()

    def _box(self) -> SearchBox:
        if not self.engines:
            return SearchBox(None)
        settings = self._settings
        paced = [Paced(one, getattr(settings, one.name).per_second, self._clock) for one in self.engines]
        self._chain = SearchChain(paced, self._clock, timeout_s=settings.timeout_s, cache_s=settings.cache_s)
        return SearchBox(WebSearch(self._chain, settings))

    def _engine(self, name: str) -> SearchEngine:
        settings, clock = self._settings, self._clock
        match name:
            case "searxng":
                headers = [(header, value.reveal()) for header, value in settings.searxng.headers.items()]
                client = self._client(settings.searxng.proxy, settings.searxng.ca_file)
                return SearxngSearch(client, settings.searxng.base_url, headers, clock)
            case "brave":
                brave = settings.brave
                client = self._client(brave.proxy, brave.ca_file)
                return BraveSearch(client, brave.base_url, brave.api_key.reveal(), clock)
            case "tavily":
                tavily = settings.tavily
                client = self._client(tavily.proxy, tavily.ca_file)
                return TavilySearch(client, tavily.base_url, tavily.api_key.reveal(), clock)
            case _:
                return MetaSearch(settings.metasearch.backends, settings.metasearch.proxy.reveal() or None)

    def _client(self, proxy: Secret, ca_file: str) -> Client:
        url = proxy.reveal() or None
        client = self._connect(ClientOptions(http_proxy=url, https_proxy=url, ca_file=ca_file or None))
        self._clients.append(client)
        return client

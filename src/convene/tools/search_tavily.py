"""The Tavily API: `POST /search`.

Parameters, reply and refusals: https://docs.tavily.com/documentation/api-reference/endpoint/search. Always the depth
`basic`, one credit a search; it filters domains itself and takes a country by its English name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.http import base as http
from convene.tools.search_base import EngineFailed, Hit
from convene.tools.search_http import ask, field, items, text
from convene.tools.search_places import name_of

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.tools.search_base import Query

COUNT_MAX: Final = 20


class TavilySearch:
    """Implements `SearchEngine`."""

    name = "tavily"

    def __init__(self, client: http.Client, base_url: str, api_key: str, clock: Clock) -> None:
        """`base_url` is the root of the API; the key leaves for that host alone."""
        self._client = client
        self._url = f"{base_url.rstrip('/')}/search"
        self._headers = (
            ("accept", "application/json"),
            ("content-type", "application/json"),
            ("authorization", f"Bearer {api_key}"),
        )
        self._clock = clock

    async def search(self, query: Query, timeout_s: float) -> list[Hit]:
        """Ask. Raises `EngineFailed`."""
        asked: dict[str, object] = {
            "query": query.text,
            "search_depth": "basic",
            "topic": "general",
            "max_results": min(query.count, COUNT_MAX),
        }
        if query.include_domains:
            asked["include_domains"] = query.include_domains
        if query.exclude_domains:
            asked["exclude_domains"] = query.exclude_domains
        if query.freshness:
            asked["time_range"] = query.freshness
        if country := name_of(query.country):
            asked["country"] = country
        request = http.Request(
            "POST",
            self._url,
            self._headers,
            msgspec.json.encode(asked),
            timeouts=http.Timeouts(timeout_s, timeout_s, timeout_s, timeout_s, timeout_s),
        )
        found = field(await ask(self._client, request, self._clock), "results")
        if not isinstance(found, list):
            raise EngineFailed("its reply has no results")
        return [
            Hit(text(one.get("url")), text(one.get("title")), text(one.get("content")), text(one.get("published_date")))
            for one in items(found)
        ]

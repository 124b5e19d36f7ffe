"""A SearXNG of the operator's: `GET /search?format=json`.

The API: https://docs.searxng.org/dev/search_api.html. The reply is what `get_json_response` of its `searx/webutils.py`
writes. It answers 403 where the format json is not switched on, and takes no number of results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from convene.http import base as http
from convene.tools.search_base import EngineFailed, Hit
from convene.tools.search_http import ask, field, items, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.clock import Clock
    from convene.tools.search_base import Query

_SHOWN_MAX: Final = 5
"""Of its own engines that gave no answer, this many are named in the log."""


class SearxngSearch:
    """Implements `SearchEngine`."""

    name = "searxng"

    def __init__(self, client: http.Client, base_url: str, headers: Sequence[tuple[str, str]], clock: Clock) -> None:
        """`base_url` is the root of its pages; `headers` go with every question."""
        self._client = client
        self._url = f"{base_url.rstrip('/')}/search"
        self._headers = (("accept", "application/json"), *headers)
        self._clock = clock

    async def search(self, query: Query, timeout_s: float) -> list[Hit]:
        """Ask. Raises `EngineFailed`, also when it has nothing because its own engines failed."""
        asked = {"q": query.words(), "format": "json", "categories": "general", "pageno": "1"}
        if query.locale:
            asked["language"] = query.locale
        if query.freshness:
            asked["time_range"] = query.freshness
        request = http.Request(
            "GET",
            f"{self._url}?{urlencode(asked)}",
            self._headers,
            timeouts=http.Timeouts(timeout_s, timeout_s, timeout_s, timeout_s, timeout_s),
        )
        reply = await ask(self._client, request, self._clock)
        found = field(reply, "results")
        if not isinstance(found, list):
            raise EngineFailed("its reply has no results")
        hits = [
            Hit(text(one.get("url")), text(one.get("title")), text(one.get("content")), text(one.get("publishedDate")))
            for one in items(found)
        ]
        silent = field(reply, "unresponsive_engines")
        if not hits and isinstance(silent, list) and silent:
            names = [text(pair[0]) for pair in silent[:_SHOWN_MAX] if isinstance(pair, list) and pair]
            raise EngineFailed(f"none of its engines answered: {', '.join(names)[:200]}")
        return hits

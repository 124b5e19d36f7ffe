"""The Brave Search API: `GET /web/search`.

Parameters and reply: https://api-dashboard.search.brave.com/api-reference/web/search/get; it refuses a country or a
language that is not on its lists (422), so only those are sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from convene.http import base as http
from convene.tools.search_base import EngineFailed, Hit
from convene.tools.search_http import ask, field, items, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.clock import Clock
    from convene.tools.search_base import Freshness, Query

WORDS_MAX: Final = 50
COUNT_MAX: Final = 20
_EXTRA_MAX: Final = 5

_FRESHNESS: Final[Mapping[Freshness, str]] = {"day": "pd", "week": "pw", "month": "pm", "year": "py"}
_COUNTRIES: Final = re.compile(
    "AR|AU|AT|BE|BR|CA|CL|DK|FI|FR|DE|HK|IN|ID|IT|JP|KR|MY|MX|NL|NZ|NO|CN|PL|PT|PH|RU|SA|ZA|ES|SE|CH|TW|TR|GB|US"
)
_LANGUAGES: Final = re.compile(
    "ar|eu|bn|bg|ca|hr|cs|da|nl|en|et|fi|fr|gl|de|gu|he|hi|hu|is|it|kn|ko|lv|lt|ms|ml|mr|nb|pl|pa|ro|ru|sr|sk|sl|es|sv|"
    "ta|te|th|tr|uk|vi"
)
_RENAMED: Final[Mapping[str, str]] = {"ja": "jp", "no": "nb", "pt": "pt-pt", "zh": "zh-hans"}
_RENAMED_THERE: Final[Mapping[str, str]] = {"pt-BR": "pt-br", "zh-TW": "zh-hant", "zh-HK": "zh-hant", "en-GB": "en-gb"}


class BraveSearch:
    """Implements `SearchEngine`."""

    name = "brave"

    def __init__(self, client: http.Client, base_url: str, api_key: str, clock: Clock) -> None:
        """`base_url` is the root of the API; the key leaves for that host alone."""
        self._client = client
        self._url = f"{base_url.rstrip('/')}/web/search"
        self._headers = (("accept", "application/json"), ("x-subscription-token", api_key))
        self._clock = clock

    async def search(self, query: Query, timeout_s: float) -> list[Hit]:
        """Ask. Raises `EngineFailed`."""
        words = " ".join(query.words().split()[:WORDS_MAX])
        asked = {"q": words, "count": str(min(query.count, COUNT_MAX)), "result_filter": "web"}
        asked |= {"text_decorations": "false"}
        if _COUNTRIES.fullmatch(query.country):
            asked["country"] = query.country
        if language := _language(query):
            asked["search_lang"] = language
        if query.freshness:
            asked["freshness"] = _FRESHNESS[query.freshness]
        request = http.Request(
            "GET",
            f"{self._url}?{urlencode(asked)}",
            (*self._headers, *_location(query)),
            timeouts=http.Timeouts(timeout_s, timeout_s, timeout_s, timeout_s, timeout_s),
        )
        reply = await ask(self._client, request, self._clock)
        if text(field(reply, "type")) != "search":
            raise EngineFailed("its reply is no search")
        return [_hit(one) for one in items(field(reply, "web", "results"))]


def _hit(one: dict[str, object]) -> Hit:
    extra = one.get("extra_snippets")
    more = [text(part) for part in extra[:_EXTRA_MAX]] if isinstance(extra, list) else []
    snippet = " ".join(part for part in (text(one.get("description")), *more) if part)
    return Hit(text(one.get("url")), text(one.get("title")), snippet, text(one.get("page_age")))


def _language(query: Query) -> str:
    language = _RENAMED_THERE.get(query.locale) or _RENAMED.get(query.language)
    return language or (query.language if _LANGUAGES.fullmatch(query.language) else "")


def _location(query: Query) -> list[tuple[str, str]]:
    """Return the headers that say where the asker is; every value is printable ASCII (`web_search.py`)."""
    places = (("city", query.city), ("state-name", query.area), ("timezone", query.timezone))
    named = [(f"x-loc-{name}", value) for name, value in places if re.fullmatch(r"[ -~]+", value)]
    return [*named, ("x-loc-country", query.country)] if named and query.country else named

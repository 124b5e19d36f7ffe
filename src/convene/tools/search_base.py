"""The seam inside this room: what the search tool knows of an engine that searches the web.

    Query ──► SearchEngine.search ──► hits, as the engine gave them        `search_clean.py` makes them presentable
                                └──► EngineFailed: why, for the log, and for how long not to ask again

An engine asks its own service once: no second try, no cache, no pace (`search_chain.py` has those). Where it is and
with which key is the operator's business; nothing in a `Query` names a host that is connected to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Freshness = Literal["day", "week", "month", "year"]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What is searched for. Equal queries have equal answers for a while, so it is the key of the cache."""

    text: str
    count: int = 5
    """Results wanted; an engine may give more or fewer."""
    include_domains: tuple[str, ...] = ()
    exclude_domains: tuple[str, ...] = ()
    freshness: Freshness | None = None
    language: str = ""
    """Such as `de`; empty: not said."""
    country: str = ""
    """Such as `DE`; empty: not said."""
    area: str = ""
    city: str = ""
    timezone: str = ""
    """State or region, city and IANA time zone of whoever asks; engines that know no places ignore them."""

    @property
    def locale(self) -> str:
        """`de-DE`, `de`, or empty where no language is known."""
        return f"{self.language}-{self.country}" if self.language and self.country else self.language

    def words(self, chars_max: int = 400) -> str:
        """Return the text with the domain filters as operators that search engines know: `site:`, `-site:`, `OR`."""
        parts = [self.text]
        if self.include_domains:
            sites = " OR ".join(f"site:{domain}" for domain in self.include_domains)
            parts.append(sites if len(self.include_domains) == 1 else f"({sites})")
        parts += (f"-site:{domain}" for domain in self.exclude_domains)
        while len(parts) > 1 and len(" ".join(parts)) > chars_max:
            parts.pop()  # the filters are applied to the results in any case
        return " ".join(parts)[:chars_max]


class Hit(msgspec.Struct, frozen=True):
    """One result. From an engine: raw. From the chain: cleaned and bounded."""

    url: str
    title: str
    snippet: str = ""
    published: str = ""
    """A date as 2026-11-30; empty: not known."""


class EngineFailed(Exception):
    """An engine gave no answer."""

    def __init__(self, reason: str, *, pause_s: float | None = None) -> None:
        """Say why.

        Args:
            reason: for the log; no key, no query.
            pause_s: how long the engine does not want to be asked; None: it did not say.
        """
        super().__init__(reason)
        self.reason = reason
        self.pause_s = pause_s


class SearchEngine(Protocol):
    """One engine. May be asked by many turns at the same time."""

    @property
    def name(self) -> str:
        """Its name in the settings."""
        ...

    async def search(self, query: Query, timeout_s: float) -> Sequence[Hit]:
        """Ask. Raises `EngineFailed`; the caller ends it after `timeout_s`, which is for the engine's own waits."""
        ...

"""The settings of web search: which engines are asked, in which order, where. Read through `config.py`.

What callers ask for (a country, how much) comes with each request and is not here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from convene.config_values import About, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

SEARCH_ENGINES: Final = ("searxng", "brave", "tavily", "metasearch")
"""Every engine there is, each with its section `[search.NAME]`, in the order in which they are asked unless told."""

_REGION: Final = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
_DOMAIN: Final = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*")


class Searxng(msgspec.Struct, frozen=True, kw_only=True):
    """`[search.searxng]`: a SearXNG of yours; it must allow the format json."""

    base_url: Annotated[str, About("Its address, without /search")] = ""
    headers: Annotated[dict[str, Secret], About("Further headers sent to it")] = msgspec.field(default_factory=dict)
    proxy: Annotated[Secret, About("HTTP proxy on the way, as http://host:port")] = Secret()
    ca_file: Annotated[str, About("Certificates to trust instead of the system's", is_path=True)] = ""
    per_second: Annotated[float, About("Most questions a second", at_least=0.01)] = 10.0


class Brave(msgspec.Struct, frozen=True, kw_only=True):
    """`[search.brave]`: the Brave Search API."""

    api_key: Annotated[Secret, About("Key sent as X-Subscription-Token")] = Secret()
    base_url: Annotated[str, About("Root of its API")] = "https://api.search.brave.com/res/v1"
    proxy: Annotated[Secret, About("HTTP proxy on the way, as http://host:port")] = Secret()
    ca_file: Annotated[str, About("Certificates to trust instead of the system's", is_path=True)] = ""
    per_second: Annotated[float, About("Most questions a second", at_least=0.01)] = 1.0


class Tavily(msgspec.Struct, frozen=True, kw_only=True):
    """`[search.tavily]`: the Tavily API."""

    api_key: Annotated[Secret, About("Key sent as Authorization: Bearer")] = Secret()
    base_url: Annotated[str, About("Root of its API")] = "https://api.tavily.com"
    proxy: Annotated[Secret, About("HTTP proxy on the way, as http://host:port")] = Secret()
    ca_file: Annotated[str, About("Certificates to trust instead of the system's", is_path=True)] = ""
    per_second: Annotated[float, About("Most questions a second", at_least=0.01)] = 1.5


class Metasearch(msgspec.Struct, frozen=True, kw_only=True):
    """`[search.metasearch]`: public search engines, asked by a library without any key."""

    backends: Annotated[tuple[str, ...], About("Public engines it asks, by ddgs's names; auto: all it knows")] = (
        *("duckduckgo", "brave", "mojeek"),
        *("startpage", "yahoo", "wikipedia"),
    )
    proxy: Annotated[Secret, About("HTTP or SOCKS proxy on the way, as http://host:port")] = Secret()
    per_second: Annotated[float, About("Most questions a second", at_least=0.01)] = 1.0


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """`[search]`: whether and how the web is searched."""

    enabled: Annotated[bool, About("Let requests search the web")] = True
    engines: Annotated[
        tuple[str, ...], About("Engines in the order they are tried; empty: those set up below, else metasearch")
    ] = ()
    timeout_s: Annotated[float, About("Wait for one engine's answer", "s", at_least=0.1, at_most=60)] = 8.0
    cache_s: Annotated[float, About("Answer the same question again without asking; 0: never", "s", at_least=0)] = 300.0
    count: Annotated[int, About("Results of one search when nothing else is asked", at_least=1, at_most=20)] = 5
    region: Annotated[str, About("Language and country results are for, as de-DE, when a request names no place")] = ""
    include_domains: Annotated[tuple[str, ...], About("Only results of these sites, and their subdomains")] = ()
    exclude_domains: Annotated[tuple[str, ...], About("No results of these sites, nor their subdomains")] = ()
    searxng: Searxng = Searxng()
    brave: Brave = Brave()
    tavily: Tavily = Tavily()
    metasearch: Metasearch = Metasearch()

    @property
    def order(self) -> tuple[str, ...]:
        """The engines to ask, in this order."""
        if self.engines:
            return self.engines
        set_up = (("searxng", self.searxng.base_url), ("brave", self.brave.api_key), ("tavily", self.tavily.api_key))
        return tuple(name for name, given in set_up if given) or ("metasearch",)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Every secret of this section."""
        proxies = (self.searxng.proxy, self.brave.proxy, self.tavily.proxy, self.metasearch.proxy)
        return (self.brave.api_key, self.tavily.api_key, *self.searxng.headers.values(), *proxies)


def search_faults(search: Search) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what cannot be used: the key and what is wrong with it. Addresses are checked by `config.py`."""
    for name in search.engines:
        if name not in SEARCH_ENGINES:
            yield ("engines",), f"names {name!r}, which is not one of: {', '.join(SEARCH_ENGINES)}"
    if len(set(search.engines)) < len(search.engines):
        yield ("engines",), "names an engine twice"
    if search.enabled:
        yield from _missing(search)
    if search.region and not _REGION.fullmatch(search.region):
        yield ("region",), "must be a language as de, or a language and a country as de-DE"
    for setting in ("include_domains", "exclude_domains"):
        for domain in getattr(search, setting):
            if not _DOMAIN.fullmatch(domain):
                yield (setting,), f"must hold names as example.com, in small letters, not {domain!r}"


def _missing(search: Search) -> Iterator[tuple[tuple[str, ...], str]]:
    needed = {
        "searxng": ("base_url", search.searxng.base_url),
        "brave": ("api_key", search.brave.api_key),
        "tavily": ("api_key", search.tavily.api_key),
    }
    for name in search.order:
        setting, given = needed.get(name, ("", "nothing is needed"))
        if not given:
            yield (name, setting), f"must be set, for search.engines names {name}"

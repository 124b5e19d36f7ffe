"""Public search engines without a key, asked by the library ddgs, which reads their pages: the default.

The library blocks, so each search has a thread of its own, off the event loop. A thread cannot be ended from outside:
whoever waits is let go in time, and the thread ends by itself after the library's own time-out. While too many still
run, the engine counts as failed. The threads are daemons: they hold no process back.

The library brings its own connections (it must look like a browser), so `http/client.py` is not used here. It follows
DDGS_PROXY and the proxy variables of the environment; `search.metasearch.proxy` goes before them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import threading
from typing import TYPE_CHECKING, Final, Protocol

from ddgs import DDGS

from convene.tools.search_base import EngineFailed, Hit
from convene.tools.search_http import ITEMS_MAX, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convene.tools.search_base import Freshness, Query

THREADS_MAX: Final = 8
"""Searches under way, those that nobody waits for any more included."""
EMPTY: Final = "No results found."
"""What the library says when all were asked and gave nothing, be it that there is nothing or that all refused."""

_FRESHNESS: Final[Mapping[Freshness, str]] = {"day": "d", "week": "w", "month": "m", "year": "y"}


class Library(Protocol):
    """What is used of `ddgs.DDGS`."""

    def text(
        self, query: str, *, region: str, timelimit: str | None, max_results: int, backend: str
    ) -> Sequence[Mapping[str, object]]:
        """Search, blocking. Raises anything."""
        ...


def open_library(proxy: str | None, timeout_s: int) -> Library:
    """Return the library for one search: its engines keep cookies, which searches are not to share."""
    return DDGS(proxy=proxy, timeout=timeout_s)


class MetaSearch:
    """Implements `SearchEngine`."""

    name = "metasearch"

    def __init__(
        self,
        backends: Sequence[str],
        proxy: str | None,
        make: Callable[[str | None, int], Library] = open_library,
    ) -> None:
        """`backends` are the library's names of the engines to ask; `make` replaces the library."""
        self._backend = ",".join(backends) or "auto"
        self._proxy, self._make = proxy, make
        self._running = 0
        self._lock = threading.Lock()

    async def search(self, query: Query, timeout_s: float) -> list[Hit]:
        """Ask. Raises `EngineFailed`."""
        with self._lock:
            if self._running >= THREADS_MAX:
                raise EngineFailed("too many searches are under way")
            self._running += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Hit]] = loop.create_future()

        def work() -> None:
            found: list[Hit] = []
            fault: EngineFailed | None = EngineFailed("the library broke off")
            try:
                found = self._ask(query, timeout_s)
                fault = None
            except EngineFailed as error:
                fault = error
            finally:
                with self._lock:
                    self._running -= 1
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(_settle, done, found, fault)

        threading.Thread(target=work, name="convene-search", daemon=True).start()
        return await done

    def _ask(self, query: Query, timeout_s: float) -> list[Hit]:
        """Ask the library, in a thread. It is not ours: whatever it raises is a failed search."""
        try:
            # One of its engines may take half of the time, so that a second one can still help.
            library = self._make(self._proxy, max(1, math.ceil(timeout_s / 2)))
            found = library.text(
                query.words(),
                region=_region(query),
                timelimit=_FRESHNESS[query.freshness] if query.freshness else None,
                max_results=query.count,
                backend=self._backend,
            )
            return [
                Hit(text(one.get("href")), text(one.get("title")), text(one.get("body"))) for one in found[:ITEMS_MAX]
            ]
        except Exception as error:  # the library promises nothing about what it raises
            if str(error) == EMPTY:
                # No page in the whole web is rare, being turned away is not; and only one of them must not be hidden.
                raise EngineFailed("it found nothing, or was turned away", pause_s=0.0) from error
            raise EngineFailed(_named(error)) from error


def _named(error: Exception) -> str:
    """Return what kind of fault it was. The text is not for the log: it has the address, and so the question."""
    kind = re.match(r"\w{1,40}(?:Error|Exception)\b", str(error)[:60])
    return f"{type(error).__name__} {kind[0]}" if kind else type(error).__name__


def _settle(done: asyncio.Future[list[Hit]], found: list[Hit], fault: EngineFailed | None) -> None:
    if done.done():
        return
    if fault is None:
        done.set_result(found)
    else:
        done.set_exception(fault)


def _region(query: Query) -> str:
    """Return the library's word for a place, `de-de` or `uk-en`: DuckDuckGo's. Wikipedia's host is made of its end."""
    country = query.country.lower() or "us"
    return f"{'uk' if country == 'gb' else country}-{query.language or 'en'}"

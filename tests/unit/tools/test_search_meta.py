"""The keyless engine: the library in a thread, its results, its faults, and that it holds nobody up."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from ddgs.engines import ENGINES

from convene.config import Metasearch
from convene.tools.search_base import EngineFailed, Hit, Query
from convene.tools.search_meta import EMPTY, THREADS_MAX, MetaSearch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class Double:
    """A library that does what `act` does, and remembers how it was called."""

    def __init__(self, act: Callable[[], Sequence[Mapping[str, object]]]) -> None:
        self.act = act
        self.made: list[tuple[str | None, int]] = []
        self.called: list[dict[str, object]] = []
        self.threads: list[str] = []

    def make(self, proxy: str | None, timeout_s: int) -> Double:
        self.made.append((proxy, timeout_s))
        return self

    def text(
        self, query: str, *, region: str, timelimit: str | None, max_results: int, backend: str
    ) -> Sequence[Mapping[str, object]]:
        self.threads.append(threading.current_thread().name)
        self.called.append(
            {"query": query, "region": region, "timelimit": timelimit, "max_results": max_results, "backend": backend}
        )
        return self.act()


def fails(error: Exception) -> Callable[[], Sequence[Mapping[str, object]]]:
    def act() -> Sequence[Mapping[str, object]]:
        raise error

    return act


async def test_the_library_is_asked_in_a_thread_of_its_own_and_its_results_are_read() -> None:
    double = Double(lambda: [{"title": "T", "href": "https://x.test/", "body": "B"}, {"title": 1, "href": None}])
    engine = MetaSearch(("duckduckgo", "brave"), "socks5://p:1", double.make)

    hits = await engine.search(
        Query(text="tides", count=7, language="de", country="DE", freshness="week", exclude_domains=("a.test",)), 8.0
    )

    assert hits == [Hit("https://x.test/", "T", "B"), Hit("", "")]
    assert double.made == [("socks5://p:1", 4)]
    assert double.called == [
        {
            "query": "tides -site:a.test",
            "region": "de-de",
            "timelimit": "w",
            "max_results": 7,
            "backend": "duckduckgo,brave",
        }
    ]
    assert double.threads == ["convene-search"]


@pytest.mark.parametrize(
    ("language", "country", "region"),
    [("", "", "us-en"), ("en", "GB", "uk-en"), ("de", "", "us-de"), ("ja", "JP", "jp-ja"), ("", "XX", "xx-en")],
)
async def test_the_region_is_spelled_as_the_library_does(language: str, country: str, region: str) -> None:
    double = Double(list)
    await MetaSearch((), None, double.make).search(Query(text="x", language=language, country=country), 8.0)

    assert double.called[0]["region"] == region
    assert double.called[0]["backend"] == "auto"


async def test_nothing_at_all_is_a_failure_because_being_turned_away_looks_the_same() -> None:
    with pytest.raises(EngineFailed, match="turned away") as caught:
        await MetaSearch((), None, Double(fails(RuntimeError(EMPTY))).make).search(Query(text="x"), 8.0)
    assert caught.value.pause_s == 0


@pytest.mark.parametrize(
    "error", [RuntimeError("403 Ratelimit"), ValueError("x" * 9000), KeyError("q"), AttributeError("lxml"), OSError(5)]
)
async def test_whatever_the_library_raises_is_a_failed_search(error: Exception) -> None:
    with pytest.raises(EngineFailed) as caught:
        await MetaSearch((), None, Double(fails(error)).make).search(Query(text="x"), 8.0)

    assert caught.value.reason.startswith(type(error).__name__)
    assert len(caught.value.reason) < 100


async def test_the_reason_for_the_log_is_the_kind_of_fault_and_not_what_was_asked() -> None:
    error = RuntimeError("DNSError: DNSError('error sending request for url (https://e.test/?q=private+words)')")

    with pytest.raises(EngineFailed) as caught:
        await MetaSearch((), None, Double(fails(error)).make).search(Query(text="private words"), 8.0)

    assert caught.value.reason == "RuntimeError DNSError"


async def test_whoever_stops_waiting_is_let_go_at_once_and_the_loop_runs_on_meanwhile() -> None:
    began, gate = threading.Event(), threading.Event()

    def act() -> Sequence[Mapping[str, object]]:
        began.set()
        gate.wait()
        return []

    asking = asyncio.create_task(MetaSearch((), None, Double(act).make).search(Query(text="x"), 8.0))
    await asyncio.to_thread(began.wait)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    gate.set()


async def test_not_more_than_so_many_searches_run_at_the_same_time_and_their_ends_make_room() -> None:
    gate = threading.Event()

    def act() -> Sequence[Mapping[str, object]]:
        gate.wait()
        return []

    engine = MetaSearch((), None, Double(act).make)
    asking = [asyncio.create_task(engine.search(Query(text="x"), 8.0)) for _ in range(THREADS_MAX)]
    await asyncio.sleep(0)

    with pytest.raises(EngineFailed, match="too many"):
        await engine.search(Query(text="x"), 8.0)
    gate.set()
    assert await asyncio.gather(*asking) == [[]] * THREADS_MAX
    assert await engine.search(Query(text="x"), 8.0) == []


def test_a_search_that_ends_after_its_loop_harms_nobody() -> None:
    gate = threading.Event()

    def act() -> Sequence[Mapping[str, object]]:
        gate.wait()
        return []

    async def leave() -> None:
        asking = asyncio.create_task(MetaSearch((), None, Double(act).make).search(Query(text="x"), 8.0))
        await asyncio.sleep(0)
        asking.cancel()

    asyncio.run(leave())
    threads = [thread for thread in threading.enumerate() if thread.name == "convene-search"]
    gate.set()
    for thread in threads:
        thread.join()
    assert all(thread.daemon for thread in threads)


def test_the_default_backends_are_engines_that_the_library_has() -> None:
    assert set(Metasearch().backends) <= set(ENGINES["text"])


DUCKDUCKGO_PAGE = """<!doctype html><html><body class="body--html"><div id="links" class="results">
<div class="result results_links results_links_deep web-result"><div class="links_main links_deep result__body">
<h2 class="result__title"><a rel="nofollow" class="result__a" href="https://vell.example/light">The lighthouse of
<b>Vellmar</b></a></h2>
<a class="result__snippet" href="https://vell.example/light">Lit for the first time in <b>1871</b>.</a></div></div>
<div class="result"><div class="links_main result__body"><h2><a href="https://duckduckgo.com/y.js?ad_domain=x">An ad</a>
</h2><a class="result__snippet" href="https://duckduckgo.com/y.js?ad_domain=x">Buy</a></div></div>
</div></body></html>"""
"""Shaped after what ddgs 9.16 reads (`ddgs/engines/duckduckgo.py`): a body of each result with title, link, snippet."""


class Transport:
    """In place of `primp.Client`: answers every request with one page."""

    asked: list[tuple[str, str]]
    page: str
    status: int

    def __init__(self, **options: object) -> None:
        assert options["timeout"] == 4

    def headers_update(self, headers: object) -> None:
        del headers

    def request(self, method: str, url: str, **options: Any) -> Any:  # noqa: ANN401 -- primp's own types
        self.asked.append((method, f"{url} {options.get('data')}"))
        return type("Answer", (), {"status_code": self.status, "content": b"", "text": self.page})()


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> type[Transport]:
    fresh = type("Fresh", (Transport,), {"asked": [], "page": DUCKDUCKGO_PAGE, "status": 200})
    monkeypatch.setattr("ddgs.http_client.primp.Client", fresh)
    return fresh


async def test_the_real_library_reads_a_page_of_results_for_us(transport: type[Transport]) -> None:
    hits = await MetaSearch(("duckduckgo",), None).search(Query(text="lighthouse", freshness="day"), 8.0)

    [(method, asked)] = transport.asked
    assert method == "POST"
    assert asked.startswith("https://html.duckduckgo.com/html/ ")
    assert "'q': 'lighthouse'" in asked
    assert "'df': 'd'" in asked
    assert [(hit.url, hit.title) for hit in hits] == [("https://vell.example/light", "The lighthouse of Vellmar")]
    assert "1871" in hits[0].snippet


@pytest.mark.parametrize(
    ("status", "page"), [(202, ""), (403, "no"), (200, "<html><body>captcha</body></html>"), (200, "")]
)
async def test_a_public_engine_that_turns_us_away_has_failed(
    status: int, page: str, transport: type[Transport]
) -> None:
    transport.status, transport.page = status, page

    with pytest.raises(EngineFailed):
        await MetaSearch(("duckduckgo",), None).search(Query(text="x"), 8.0)

"""The engines with an API, over real HTTP to doubles that speak each API as it is published.

Sources of the recorded shapes:
SearXNG    https://docs.searxng.org/dev/search_api.html, `get_json_response` of searx/webutils.py: tests/searx_double.py
Brave      https://api-dashboard.search.brave.com/api-reference/web/search/get, its sample in
           https://github.com/brave/brave-search-skills/blob/main/skills/web-search/SKILL.md; X-RateLimit headers
           https://api-dashboard.search.brave.com/app/documentation/web-search/response-headers
Tavily     https://docs.tavily.com/documentation/api-reference/endpoint/search; refusals `{"detail": {"error": ...}}`
           https://github.com/tavily-ai/tavily-python/blob/master/tests/test_retry_after.py
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import pytest

from convene.http.client import HttpClient
from convene.tools.search_base import EngineFailed, Hit, Query
from convene.tools.search_brave import BraveSearch
from convene.tools.search_searxng import SearxngSearch
from convene.tools.search_tavily import TavilySearch
from fakes import FakeClock
from searx_double import PAGES, QuietServer, serving_searx

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from convene.tools.search_base import SearchEngine

BRAVE_REPLY = {
    "type": "search",
    "query": {
        "original": "python frameworks",
        "altered": "python web frameworks",
        "spellcheck_off": False,
        "more_results_available": True,
    },
    "web": {
        "type": "search",
        "results": [
            {
                "title": "Top Python Web Frameworks",
                "url": "https://example.com/python-frameworks",
                "description": "A comprehensive guide to <strong>Python</strong> web frameworks...",
                "age": "2 days ago",
                "page_age": "2023-04-12T14:22:41",
                "language": "en",
                "meta_url": {
                    "scheme": "https",
                    "netloc": "example.com",
                    "hostname": "example.com",
                    "path": "/python-frameworks",
                },
                "thumbnail": {"src": "https://...", "original": "https://original-image-url.com/img.jpg"},
                "extra_snippets": ["Additional excerpt 1...", "Additional excerpt 2..."],
            }
        ],
        "family_friendly": True,
    },
    "mixed": {"type": "mixed", "main": [{"type": "web", "index": 0, "all": False}], "top": [], "side": []},
}
TAVILY_REPLY = {
    "query": "who is Leo Messi?",
    "follow_up_questions": None,
    "answer": None,
    "images": [],
    "results": [
        {
            "title": "Lionel Messi Facts | Britannica",
            "url": "https://www.britannica.com/facts/Lionel-Messi",
            "content": "Lionel Messi, an Argentine footballer, is widely regarded as one of the greatest.",
            "score": 0.81025416,
            "raw_content": None,
        }
    ],
    "response_time": 1.67,
    "request_id": "123e4567-e89b-12d3-a456-426614174111",
}


@dataclass
class Api:
    """A service that answers everything alike and remembers what it was sent."""

    base_url: str
    status: int = 200
    reply: object = None
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    params: list[dict[str, str]] = field(default_factory=list)
    sent: list[dict[str, str]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    api: ClassVar[Api]

    def do_GET(self) -> None:
        parts, api = urlsplit(self.path), self.api
        api.paths.append(f"{self.command} {parts.path}")
        api.params.append(dict(parse_qsl(parts.query)))
        api.sent.append({name.lower(): value for name, value in self.headers.items()})
        length = int(self.headers.get("content-length", "0"))
        if length:
            api.bodies.append(json.loads(self.rfile.read(length)))
        body = api.raw if api.raw is not None else json.dumps(api.reply).encode()
        with contextlib.suppress(ConnectionError):  # whoever asked has left: the body was too large for it
            self.send_response(api.status)
            for name, value in {"content-type": "application/json", **api.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


@pytest.fixture
def api() -> Iterator[Api]:
    answer = type("Answer", (_Answer,), {})
    server = QuietServer(("127.0.0.1", 0), answer)
    found = Api(f"http://127.0.0.1:{server.server_address[1]}")
    answer.api = found  # type: ignore[attr-defined]  # of the class made above
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    yield client
    await client.aclose()


def brave(api: Api, client: HttpClient) -> BraveSearch:
    api.reply = BRAVE_REPLY if api.reply is None else api.reply
    return BraveSearch(client, f"{api.base_url}/res/v1/", "brave-key", FakeClock())


def tavily(api: Api, client: HttpClient) -> TavilySearch:
    api.reply = TAVILY_REPLY if api.reply is None else api.reply
    return TavilySearch(client, api.base_url, "tvly-key", FakeClock())


def searxng(api: Api, client: HttpClient) -> SearxngSearch:
    return SearxngSearch(client, api.base_url, (), FakeClock())


ENGINES = pytest.mark.parametrize("make", [searxng, brave, tavily], ids=["searxng", "brave", "tavily"])


async def failure(engine: SearchEngine, query: Query | None = None) -> EngineFailed:
    with pytest.raises(EngineFailed) as caught:
        await engine.search(query or Query(text="x"), 5.0)
    return caught.value


# SearXNG.


async def test_searxng_is_asked_for_json_and_its_results_are_read(client: HttpClient) -> None:
    with serving_searx() as searx:
        engine = SearxngSearch(client, f"{searx.base_url}/", [("x-team", "a")], FakeClock())
        query = Query(text="lighthouse Vellmar lit", language="de", country="DE", freshness="month")

        hits = await engine.search(query, 5.0)

        assert searx.asked == [
            {
                "q": "lighthouse Vellmar lit",
                "format": "json",
                "categories": "general",
                "pageno": "1",
                "language": "de-DE",
                "time_range": "month",
            }
        ]
        assert searx.sent[0]["x-team"] == "a"
        assert hits[0] == Hit(
            searx.url("/pages/lighthouse"), PAGES[0].title, PAGES[0].paragraphs[0], "2026-03-14T09:30:00"
        )
        assert len(hits) == 4


async def test_the_double_finds_pages_by_their_words_and_keeps_site_operators(client: HttpClient) -> None:
    with serving_searx() as searx:
        engine = SearxngSearch(client, searx.base_url, (), FakeClock())

        keeper = await engine.search(Query(text="Ada Thorsen keeper"), 5.0)
        assert keeper[0].url == searx.url("/pages/keeper")
        assert await engine.search(Query(text="zzz"), 5.0) == []
        assert await engine.search(Query(text="lighthouse", include_domains=("other.test",)), 5.0) == []
        assert await engine.search(Query(text="lighthouse", exclude_domains=("127.0.0.1",)), 5.0) == []


async def test_a_searxng_with_its_json_format_off_is_left_alone_and_the_log_says_why(client: HttpClient) -> None:
    with serving_searx() as searx:
        searx.formats = ("html",)
        error = await failure(SearxngSearch(client, searx.base_url, (), FakeClock()))

    assert "403" in error.reason
    assert "json" in error.reason
    assert error.pause_s == 300


async def test_a_searxng_whose_own_engines_all_failed_has_failed(client: HttpClient) -> None:
    with serving_searx() as searx:
        searx.unresponsive = (("brave", "too many requests"), ("duckduckgo", "CAPTCHA"))
        error = await failure(SearxngSearch(client, searx.base_url, (), FakeClock()), Query(text="lighthouse"))

    assert "brave, duckduckgo" in error.reason


async def test_a_silent_searxng_is_given_up(client: HttpClient) -> None:
    with serving_searx() as searx:
        searx.silent = True
        bound = asyncio.timeout(60)
        with pytest.raises((EngineFailed, TimeoutError)):
            async with bound:
                await SearxngSearch(client, searx.base_url, (), FakeClock()).search(Query(text="x"), 0.05)
        assert not bound.expired(), "by itself"


async def test_an_engine_that_is_not_there_has_failed(client: HttpClient) -> None:
    error = await failure(SearxngSearch(client, "http://127.0.0.1:1", (), FakeClock()))

    assert "ConnectFailed" in error.reason
    assert error.pause_s is None


# Brave.


async def test_brave_is_asked_as_it_documents_and_its_results_are_read(api: Api, client: HttpClient) -> None:
    query = Query(
        text="python frameworks",
        count=7,
        language="pt",
        country="BR",
        freshness="week",
        include_domains=("example.com",),
        city="Recife",
        area="Pernambuco",
        timezone="America/Recife",
    )
    hits = await brave(api, client).search(query, 5.0)

    assert api.paths == ["GET /res/v1/web/search"]
    assert api.params == [
        {
            "q": "python frameworks site:example.com",
            "count": "7",
            "result_filter": "web",
            "text_decorations": "false",
            "country": "BR",
            "search_lang": "pt-br",
            "freshness": "pw",
        }
    ]
    sent = api.sent[0]
    assert sent["x-subscription-token"] == "brave-key"
    assert (sent["x-loc-city"], sent["x-loc-state-name"]) == ("Recife", "Pernambuco")
    assert (sent["x-loc-timezone"], sent["x-loc-country"]) == ("America/Recife", "BR")
    snippet = (
        "A comprehensive guide to <strong>Python</strong> web frameworks... "
        "Additional excerpt 1... Additional excerpt 2..."
    )
    assert hits == [
        Hit("https://example.com/python-frameworks", "Top Python Web Frameworks", snippet, "2023-04-12T14:22:41")
    ]


@pytest.mark.parametrize(
    ("language", "country", "expected"),
    [
        ("ja", "JP", {"country": "JP", "search_lang": "jp"}),
        ("no", "NO", {"country": "NO", "search_lang": "nb"}),
        ("en", "GB", {"country": "GB", "search_lang": "en-gb"}),
        ("zh", "TW", {"country": "TW", "search_lang": "zh-hant"}),
        ("is", "", {"search_lang": "is"}),
        ("xx", "XX", {}),
        ("", "", {}),
    ],
)
async def test_brave_is_sent_only_countries_and_languages_that_it_knows(
    language: str, country: str, expected: dict[str, str], api: Api, client: HttpClient
) -> None:
    await brave(api, client).search(Query(text="x", language=language, country=country), 5.0)

    assert {name: value for name, value in api.params[0].items() if name in {"country", "search_lang"}} == expected
    assert not any(name.startswith("x-loc") for name in api.sent[0])


async def test_brave_gets_no_more_words_than_it_takes(api: Api, client: HttpClient) -> None:
    await brave(api, client).search(Query(text="a " * 199), 5.0)

    assert len(api.params[0]["q"].split()) == 50


async def test_a_brave_reply_without_web_results_has_none(api: Api, client: HttpClient) -> None:
    api.reply = {"type": "search", "query": {"original": "x"}}

    assert await brave(api, client).search(Query(text="x"), 5.0) == []


@pytest.mark.parametrize(
    ("remaining", "reset", "pause_s"),
    [("0, 1000", "1, 1419704", 1.0), ("0, 0", "1, 1419704", 1419704.0), ("1, 1000", "1, 9", 30.0), ("x", "y", 30.0)],
)
async def test_brave_says_in_its_own_headers_when_to_come_back(
    remaining: str, reset: str, pause_s: float, api: Api, client: HttpClient
) -> None:
    api.status, api.reply = 429, {"type": "ErrorResponse", "error": {"code": "RATE_LIMITED", "status": 429}}
    api.headers = {"X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": reset}

    assert (await failure(brave(api, client))).pause_s == pause_s


# Tavily.


async def test_tavily_is_asked_as_it_documents_and_its_results_are_read(api: Api, client: HttpClient) -> None:
    query = Query(
        text="who is Leo Messi?",
        count=3,
        country="AR",
        language="es",
        freshness="year",
        include_domains=("britannica.com",),
        exclude_domains=("x.test",),
    )
    hits = await tavily(api, client).search(query, 5.0)

    assert api.paths == ["POST /search"]
    assert api.sent[0]["authorization"] == "Bearer tvly-key"
    assert api.bodies == [
        {
            "query": "who is Leo Messi?",
            "search_depth": "basic",
            "topic": "general",
            "max_results": 3,
            "include_domains": ["britannica.com"],
            "exclude_domains": ["x.test"],
            "time_range": "year",
            "country": "argentina",
        }
    ]
    url, title = "https://www.britannica.com/facts/Lionel-Messi", "Lionel Messi Facts | Britannica"
    words = "Lionel Messi, an Argentine footballer, is widely regarded as one of the greatest."
    assert hits == [Hit(url, title, words)]


@pytest.mark.parametrize(("status", "pause_s"), [(432, 3600.0), (433, 3600.0), (401, 300.0), (400, None), (500, None)])
async def test_tavilys_refusals_say_how_long_to_leave_it_alone(
    status: int, pause_s: float | None, api: Api, client: HttpClient
) -> None:
    api.status, api.reply = status, {"detail": {"error": "This request exceeds your plan's set usage limit."}}

    assert (await failure(tavily(api, client))).pause_s == pause_s


# All of them.


@ENGINES
@pytest.mark.parametrize(
    ("sent", "pause_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({}, 30.0),
        ({"Retry-After": "soon"}, 30.0),
        ({"Retry-After": "-3"}, 30.0),
        ({"Retry-After": formatdate(1_800_000_090.0, usegmt=True)}, 90.0),
        ({"Retry-After": "9" * 50}, 999_999_999.0),
    ],
)
async def test_a_429_is_heeded(make: Any, sent: dict[str, str], pause_s: float, api: Api, client: HttpClient) -> None:  # noqa: ANN401 -- one of three makers
    api.status, api.headers, api.reply = 429, sent, {}

    assert (await failure(make(api, client))).pause_s == pytest.approx(pause_s)


@ENGINES
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b"<html><title>Verifying your browser</title></html>",
        b'{"results": [{"url": "https://x.test"',
        b"[" * 100_000,
        b'{"results": "none", "type": "no"}',
        b"null",
        b"42",
        b'["results"]',
        b'{"results": {"a": 1}, "type": []}',
        b"\xff\xfe{}",
    ],
)
async def test_a_reply_that_is_not_what_it_should_be_is_a_failure_and_nothing_worse(
    make: Any,  # noqa: ANN401 -- one of three makers
    raw: bytes,
    api: Api,
    client: HttpClient,
) -> None:
    api.raw = raw
    await failure(make(api, client))


@ENGINES
async def test_a_huge_reply_is_not_read_to_its_end(make: Any, api: Api, client: HttpClient) -> None:  # noqa: ANN401 -- one of three makers
    api.raw = b'{"type": "search", "results": [' + b" " * 3_000_000 + b"]}"

    assert "Oversized" in (await failure(make(api, client))).reason


@ENGINES
async def test_results_of_wrong_types_are_borne(make: Any, api: Api, client: HttpClient) -> None:  # noqa: ANN401 -- one of three makers
    odd: list[object] = [
        None,
        "text",
        {"url": 5, "title": ["x"], "content": {}, "description": 1, "extra_snippets": "no", "page_age": 3},
        {"url": "https://good.test/", "title": None, "extra_snippets": [1, None, "x"]},
    ]
    api.reply = {"type": "search", "results": odd * 100, "web": {"results": odd * 100}}

    hits = await make(api, client).search(Query(text="x"), 5.0)

    assert len(hits) <= 100
    assert {hit.url for hit in hits} == {"", "https://good.test/"}


@ENGINES
async def test_no_reason_for_the_log_has_the_key_or_the_question(make: Any, api: Api, client: HttpClient) -> None:  # noqa: ANN401 -- one of three makers
    engine = make(api, client)
    for status in (400, 401, 403, 404, 422, 429, 432, 500, 503):
        api.status = status
        reason = (await failure(engine, Query(text="private words"))).reason
        assert "key" not in reason.replace("the key,", "")
        assert "private" not in reason

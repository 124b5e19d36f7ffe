"""The tool `web_search`: from arguments, options and settings to a query, and from results to what a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jsonschema_rs
import msgspec
import pytest

from convene.config import Search
from convene.errors import Retry
from convene.tools.base import Source, ToolContext, ToolResult
from convene.tools.search_base import EngineFailed, Hit, Query
from convene.tools.search_chain import Paced, SearchChain
from convene.tools.web_search import FAILED, OFF, PARAMETERS, SearchBox, WebSearch
from fakes import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

HITS = [
    Hit(
        "https://vell.example/light?a=1",
        "The <b>lighthouse</b>",
        "Lit in <em>1871</em>. " + "Long. " * 400,
        "2026-03-14",
    ),
    Hit("https://odd.example/", "Odd", ""),
]


class Engine:
    """Answers always the same and remembers the questions."""

    name = "engine"

    def __init__(self, found: list[Hit] | EngineFailed) -> None:
        self.found = found
        self.asked: list[Query] = []

    async def search(self, query: Query, timeout_s: float) -> list[Hit]:
        assert timeout_s == 8.0
        self.asked.append(query)
        if isinstance(self.found, EngineFailed):
            raise self.found
        return self.found


def tool(engine: Engine, settings: Search | None = None) -> WebSearch:
    clock = FakeClock()
    chain = SearchChain([Paced(engine, 1e9, clock)], clock, timeout_s=8.0, cache_s=0)
    return WebSearch(chain, settings or Search())


def context(options: Mapping[str, object] | None = None, said: list[str] | None = None) -> ToolContext:
    return ToolContext(
        owner="o",
        run_id="run_1",
        call_id="c1",
        idempotency_key="run_1:s1:0",
        options=options or {},
        progress=(said if said is not None else []).append,
    )


async def asked(
    arguments: Mapping[str, object], options: Mapping[str, object] | None = None, settings: Search | None = None
) -> Query:
    engine = Engine(HITS)
    await tool(engine, settings).run({"query": "x"} | dict(arguments), context(options))
    return engine.asked[0]


async def test_a_model_reads_title_address_date_and_text_of_each_page_without_numbers() -> None:
    result = await tool(Engine(HITS)).run({"query": "light"}, context())

    first, second = result.text.split("\n\n")
    assert first.splitlines()[:3] == ["The lighthouse", "https://vell.example/light?a=1", "(2026-03-14)"]
    assert first.splitlines()[3].startswith("Lit in 1871. Long.")
    assert second == "Odd\nhttps://odd.example/"


async def test_sources_and_data_have_the_same_pages_as_the_text() -> None:
    result = await tool(Engine(HITS)).run({"query": " light \n house "}, context())

    [first, second] = result.sources
    assert second == Source("https://odd.example/", "Odd", "")
    assert result.data == {
        "query": "light house",
        "engine": "engine",
        "results": [
            {"title": first.title, "url": first.url, "snippet": first.text, "published": "2026-03-14"},
            {"title": "Odd", "url": "https://odd.example/", "snippet": ""},
        ],
    }
    assert result.notices == ()


async def test_a_result_can_be_written_to_a_journal_and_read_back() -> None:
    result = await tool(Engine(HITS)).run({"query": "light"}, context())

    assert msgspec.json.decode(msgspec.json.encode(result), type=ToolResult) == result


async def test_when_no_engine_answers_the_model_is_told_to_answer_without_and_the_caller_is_told_why() -> None:
    broken = Engine(EngineFailed("http://searx.internal:8080 with key tvly-1 is down"))

    result = await tool(broken).run({"query": "light"}, context())

    assert result.notices == (FAILED,)
    assert FAILED.code == "search_unavailable"
    assert "cannot be searched" in result.text
    assert result.sources == ()
    assert "searx.internal" not in repr(result)
    assert "tvly" not in repr(result)


async def test_when_nothing_is_found_the_model_is_told_so_and_that_is_no_fault() -> None:
    result = await tool(Engine([])).run({"query": "light"}, context())

    assert "found no pages" in result.text
    assert result.notices == ()


async def test_the_caller_sees_what_is_searched_for() -> None:
    said: list[str] = []
    await tool(Engine(HITS)).run({"query": "the light " + "x" * 300}, context(said=said))

    assert len(said) == 1
    assert said[0].startswith("Searching for \u201cthe light")
    assert len(said[0]) < 120


@pytest.mark.parametrize(
    ("size", "count", "excerpt"),
    [("low", 3, 300), ("medium", 5, 600), (None, 5, 600), ("high", 10, 1200), ("huge", 5, 600)],
)
async def test_the_context_size_says_how_many_results_and_how_much_of_each(
    size: str | None, count: int, excerpt: int
) -> None:
    engine = Engine(HITS)
    result = await tool(engine).run({"query": "x"}, context({"search_context_size": size} if size else {}))

    assert engine.asked[0].count == count
    assert excerpt - 20 < len(result.sources[0].text) <= excerpt


async def test_the_number_that_a_call_names_goes_before_the_context_size() -> None:
    assert (await asked({"count": 7}, {"search_context_size": "low"})).count == 7
    assert (await asked({}, settings=Search(count=15))).count == 15
    assert (await asked({}, {"search_context_size": "high"}, Search(count=15))).count == 20


@pytest.mark.parametrize("nested", ["nested", ""])
async def test_the_place_of_the_asker_reaches_the_engine_in_both_spellings(nested: str) -> None:
    place = {"country": "de", "region": "Hesse", "city": "Kassel", "timezone": "Europe/Berlin"}
    location = {"type": "approximate", "approximate": place} if nested else {"type": "approximate", **place}

    query = await asked({}, {"user_location": location})

    assert (query.country, query.language, query.locale) == ("DE", "de", "de-DE")
    assert (query.area, query.city, query.timezone) == ("Hesse", "Kassel", "Europe/Berlin")


@pytest.mark.parametrize(
    ("region", "country", "expected"),
    [
        ("", None, ("", "")),
        ("de-AT", None, ("de", "AT")),
        ("de", None, ("de", "")),
        ("en-US", "FR", ("en", "FR")),
        ("", "JP", ("ja", "JP")),
        ("", "XX", ("", "XX")),
    ],
)
async def test_language_and_country_come_from_the_request_else_from_the_settings(
    region: str, country: str | None, expected: tuple[str, str]
) -> None:
    options = {"user_location": {"approximate": {"country": country}}} if country else {}
    query = await asked({}, options, Search(region=region))

    assert (query.language, query.country) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"user_location": "Kassel"},
        {"user_location": {"approximate": ["DE"]}},
        {"user_location": {"approximate": {"country": "Germany", "city": "M\u00fcnchen\r\nx-evil: 1"}}},
        {"user_location": {"approximate": {"country": {"a": 1}, "city": 5, "region": "x" * 500}}},
        {"search_context_size": ["low"], "filters": "no", "unknown": 1},
        {"filters": {"allowed_domains": [1, None, "a b"], "blocked_domains": {"x": 1}}},
    ],
)
async def test_options_of_any_shape_are_borne_and_what_cannot_be_used_is_left_out(options: dict[str, object]) -> None:
    assert await asked({}, options) == Query(text="x", count=5)


async def test_domains_freshness_and_query_reach_the_engine() -> None:
    query = await asked(
        {
            "query": "tides",
            "include_domains": ["https://www.vell.example/x"],
            "exclude_domains": ["b.test", "A.test"],
            "freshness": "week",
        }
    )

    assert query == Query(
        text="tides",
        include_domains=("vell.example",),
        exclude_domains=("a.test", "b.test"),
        freshness="week",
    )


async def test_no_call_widens_the_domains_of_the_operator_or_of_the_request() -> None:
    settings = Search(include_domains=("example.com", "test.org"), exclude_domains=("ads.example.com",))
    options = {
        "filters": {"allowed_domains": ["docs.example.com", "other.net"], "blocked_domains": ["old.example.com"]}
    }

    query = await asked({"exclude_domains": ["x.test"]}, options, settings)

    assert query.include_domains == ("docs.example.com",)
    assert query.exclude_domains == ("ads.example.com", "old.example.com", "x.test")
    narrow = await asked({"include_domains": ["api.docs.example.com"]}, options, settings)
    assert narrow.include_domains == ("api.docs.example.com",)
    with pytest.raises(Retry, match="None of these sites may be searched"):
        await asked({"include_domains": ["evil.test"]}, options, settings)


async def test_filters_hold_even_if_the_engine_does_not_keep_them() -> None:
    result = await tool(Engine(HITS)).run({"query": "x", "exclude_domains": ["vell.example"]}, context())

    assert [one.url for one in result.sources] == ["https://odd.example/"]


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"query": ""},
        {"query": "  "},
        {"query": 5},
        {"query": "x", "count": 0},
        {"query": "x", "count": 21},
        {"query": "x", "count": "5"},
        {"query": "x", "freshness": "hour"},
        {"query": "x", "include_domains": "a.test"},
        {"query": "x", "include_domains": ["not a domain"]},
        {"query": "x", "exclude_domains": ["a.test"] * 21},
    ],
)
async def test_arguments_that_cannot_be_used_are_explained_to_the_model(arguments: dict[str, object]) -> None:
    engine = Engine(HITS)
    with pytest.raises(Retry):
        await tool(engine).run(arguments, context())
    assert engine.asked == []


async def test_a_long_query_is_cut_to_what_engines_take() -> None:
    assert len((await asked({"query": "word " * 500})).text) <= 400


def test_the_tool_says_what_it_is() -> None:
    spec = tool(Engine(HITS)).spec

    assert (spec.name, spec.kind, spec.source) == ("web_search", "search", "convene")
    assert spec.labels == {"untrusted"}
    assert spec.timeout_s > 8.0


def test_its_schema_is_one_and_refuses_what_it_does_not_know() -> None:
    validator = jsonschema_rs.validator_for(dict(PARAMETERS))

    assert validator.is_valid({"query": "x", "count": 3, "freshness": "day", "include_domains": ["a.test"]})
    assert not validator.is_valid({"query": "x", "endpoint": "http://evil.test"})
    assert not validator.is_valid({"count": 3})


def test_a_switched_off_search_is_no_tool_and_says_so() -> None:
    off = SearchBox(None)

    assert list(off.tools()) == []
    assert list(off.notices()) == [OFF]
    assert OFF.code == "search_unavailable"


def test_a_search_that_is_there_has_no_notice() -> None:
    box = SearchBox(tool(Engine(HITS)))

    assert [one.spec.name for one in box.tools()] == ["web_search"]
    assert list(box.notices()) == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(text="a b"), "a b"),
        (Query(text="a", include_domains=("x.test",)), "a site:x.test"),
        (Query(text="a", include_domains=("x.test", "y.test")), "a (site:x.test OR site:y.test)"),
        (Query(text="a", exclude_domains=("x.test", "y.test")), "a -site:x.test -site:y.test"),
    ],
)
def test_domain_filters_are_told_to_engines_in_the_query(query: Query, words: str) -> None:
    assert query.words() == words


def test_filters_that_do_not_fit_into_a_query_are_left_to_us() -> None:
    many = Query(text="a", exclude_domains=tuple(f"{number}.some-long-name.example" for number in range(20)))

    assert len(many.words(100)) <= 100
    assert all(part.endswith(".example") for part in many.words(100).split()[1:])

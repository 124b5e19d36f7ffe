"""Who is found, and in which order: filters, sorts, cutoffs, direct questions, pages, places, meaning."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import msgspec
import pytest

from agent_listings import DAY_US, NOW_US, address, agent, listings
from convene.errors import Unavailable
from convene.registry import search as search_module
from convene.registry.base_search import PAGED_MAX, Circle, Filters, SearchRequest
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.ranking import score
from convene.registry.vectors import pack
from convene.store.base_market import Endpoint, Tally, Terms
from unit.registry.index_of import search_over

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.registry.base_search import Page
    from convene.store.base_market import AgentRow

OTHER_PROTOCOL = "proto:" + "ab" * 32


async def names(rows: Iterable[AgentRow], **asked: object) -> list[str]:
    search, _, _ = search_over(rows)
    return listed(await search.search(SearchRequest(**asked)))  # type: ignore[arg-type]  # tests name real fields


def listed(page: Page) -> list[str]:
    return [hit.row.listing.name for hit in page.hits]


def asking(**filters: object) -> Filters:
    return Filters(**filters)  # type: ignore[arg-type]  # tests name real fields


GONE = agent("gone weather", active=False)
EXPIRED = agent("expired weather", expires_us=NOW_US - 1)
DOWN = agent("down weather", tally=Tally(calls=4, failures_in_row=4, failed_us=NOW_US))
BUSY = agent("busy weather", tally=Tally(calls=40, successes=40), tags=("Rain",), readme="All about it.")
NEARBY = agent("local weather", geo=(48.1, 11.6, 5.0))
POSTED = agent("posted weather", endpoints=(Endpoint("http://h/v2/agents/mailbox/submit"),))
SILENT = agent("silent weather", protocols=(OTHER_PROTOCOL,))
CARD = agent("card weather", protocol="a2a", id="http://127.0.0.1:9/card", protocols=(), expires_us=0)
ALL = (GONE, EXPIRED, DOWN, BUSY, NEARBY, POSTED, SILENT, CARD)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, {"down", "busy", "posted", "silent", "card"}),
        ({"state": ("active",)}, {"down", "busy", "posted", "silent", "card"}),
        ({"state": ("inactive",)}, {"gone", "expired"}),
        ({"state": ("active", "inactive")}, {"gone", "expired", "down", "busy", "posted", "silent", "card"}),
        ({"state": ("unresponsive",)}, {"down"}),
        ({"state": ("active", "responsive")}, {"busy", "posted", "silent", "card"}),
        ({"category": ("community",)}, {"down", "busy", "posted", "silent", "card"}),
        ({"category": ("fetch-ai",)}, set()),
        ({"agent_type": ("mailbox",)}, {"posted"}),
        ({"agent_type": ("mailbox", "a2a")}, {"posted", "card"}),
        ({"agent_type": ("uagent",)}, {"down", "busy", "posted", "silent", "card"}),
        ({"agent_type": ("hosted",)}, set()),
        ({"protocol_digest": (CHAT_PROTOCOL,)}, {"down", "busy", "posted"}),
        ({"protocol_digest": (OTHER_PROTOCOL.removeprefix("proto:"),)}, {"silent"}),
        ({"has_location": True}, {"local"}),
        ({"has_location": False}, {"down", "busy", "posted", "silent", "card"}),
        ({"has_readme": True}, {"busy"}),
        ({"has_readme": False}, {"down", "posted", "silent", "card"}),
        ({"n_interactions": 10}, {"busy"}),
        ({"tags": ("rain",)}, {"busy"}),
        ({"tags": ("rain",), "has_readme": False}, set()),
    ],
)
@pytest.mark.parametrize("text", ["weather", ""])
async def test_each_filter_leaves_those_that_pass_it(filters: dict[str, object], found: set[str], text: str) -> None:
    got = await names(ALL, text=text, filters=asking(**filters))
    assert {name.removesuffix(" weather") for name in got} == found


async def test_agents_of_a_place_are_left_out_unless_they_are_asked_for() -> None:
    assert "local weather" not in await names(ALL, text="weather")
    assert "local weather" in await names(ALL, text="weather", exclude_geo=False)


@pytest.mark.req("PICK-07")
@pytest.mark.parametrize("row", [GONE, EXPIRED])
async def test_an_inactive_agent_is_found_only_when_it_is_named(row: AgentRow) -> None:
    assert row.listing.name not in await names(ALL, text=row.listing.name)
    for text in (row.id, f"address:{row.id}", f"agent://{row.id}"):
        assert await names(ALL, text=text) == [row.listing.name]
    assert await names(ALL, text=row.listing.name.upper(), exact_match=True) == [row.listing.name]


@pytest.mark.req("SEARCH-06")
async def test_an_address_finds_one_agent_and_nobody_if_it_is_unknown() -> None:
    assert await names(listings(), text=f"address:{address('SkyCast')}", exact_match=True) == ["SkyCast"]
    assert await names(listings(), text=f"address:{address('Nobody')}", exact_match=True) == []


async def test_a_handle_a_name_and_a_url_find_one_agent() -> None:
    assert await names(listings(), text="@skycast") == ["SkyCast"]
    assert await names(listings(), text="@nobody") == []
    assert await names(listings(), text="skycast", exact_match=True) == ["SkyCast"]
    assert await names(listings(), text="sky", exact_match=True) == []
    assert await names(ALL, text=CARD.id) == ["card weather"]
    assert (await names(listings(), text="FilmFan"))[0] == "FilmFan"


async def test_an_agent_that_the_operator_has_switched_off_is_not_found_even_by_its_address() -> None:
    off = agent("off", terms=Terms(enabled=False))
    assert await names([off], text=off.id) == []
    assert await names([off]) == []


@pytest.mark.parametrize("text", ["", "thing"])
async def test_each_sort_goes_both_ways(text: str) -> None:
    rows = [
        agent(f"{name} thing", created_us=NOW_US - made, changed_us=NOW_US - changed, tally=Tally(calls=calls))
        for name, made, changed, calls in (("a", 3, 1, 5), ("b", 1, 2, 9), ("c", 2, 3, 7))
    ]
    orders = {"created-at": "bca", "last-modified": "abc", "interactions": "bca"}
    for sort, expected in orders.items():
        down = await names(rows, text=text, sort=sort)
        assert "".join(name[0] for name in down) == expected
        assert await names(rows, text=text, sort=sort, ascending=True) == down[::-1]
    best = await names(rows, text=text)
    assert sorted(best) == sorted(await names(rows, text=text, ascending=True))


async def test_each_cutoff_leaves_fewer_of_those_that_fit_less() -> None:
    question = "bedtime stories for children about a football match in the weather"
    counts = [
        len(await names(listings(), text=question, cutoff=cutoff, limit=50))
        for cutoff in ("none", "permissive", "balanced", "strict")
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2] >= 1
    assert (await names(listings(), text=question, cutoff="balanced"))[0] == "StoryLoom"


@pytest.mark.req("SEARCH-11", "PICK-06")
async def test_an_agent_that_fails_sinks_below_its_equal_and_is_said_to_be_unreachable() -> None:
    broken = agent("weather one", tally=Tally(calls=3, failures_in_row=3, failed_us=NOW_US))
    search, _, clock = search_over([broken, agent("weather two", version=2)])
    page = await search.search(SearchRequest(text="weather"))
    assert listed(page) == ["weather two", "weather one"]
    assert [(hit.reachable, hit.health) for hit in page.hits] == [(True, "new"), (False, "unreachable")]
    first = page.hits[1].score.health
    clock.move(3600)
    page = await search.search(SearchRequest(text="weather"))
    assert page.hits[1].score.health > first + 0.5
    assert not page.hits[1].reachable


@pytest.mark.req("PICK-06")
async def test_success_lifts_above_an_equal_unless_no_reranking_is_wanted() -> None:
    proven = agent("weather two", tally=Tally(calls=50, successes=50, judged=50, useful=50), version=2)
    rows = [agent("weather one", tally=Tally(calls=50, successes=50, judged=50, useful=10)), proven]
    assert await names(rows, text="weather") == ["weather two", "weather one"]
    assert await names(rows, text="weather", rerank=False) == ["weather one", "weather two"]


async def test_the_pages_of_one_search_id_fit_together_though_the_ranking_moves_meanwhile() -> None:
    rows = [agent(f"thing {number}", version=number) for number in range(1, 26)]
    search, index, _ = search_over(rows)
    first = await search.search(SearchRequest(text="thing", limit=10))
    assert uuid.UUID(first.search_id).version == 4
    assert (first.offset, first.limit, first.total, len(first.hits)) == (0, 10, 25, 10)
    last = first.hits[0].row
    index.apply(
        msgspec.structs.replace(last, tally=Tally(calls=9, failures_in_row=6, failed_us=NOW_US), version=99), NOW_US
    )
    seen = [hit.row.id for hit in first.hits]
    for offset in (10, 20):
        page = await search.search(
            SearchRequest(text="thing", limit=10, offset=offset, search_id=first.search_id, source="else")
        )
        assert page.search_id == first.search_id
        seen += [hit.row.id for hit in page.hits]
    assert sorted(seen) == sorted(row.id for row in rows)
    other = await search.search(SearchRequest(text="thing 7", search_id=first.search_id))
    assert listed(other)[0] == "thing 7"


async def test_a_search_id_is_forgotten_in_time_and_a_made_up_one_is_replaced() -> None:
    search, index, clock = search_over([agent("thing")])
    page = await search.search(SearchRequest(text="thing", search_id="not a uuid"))
    assert uuid.UUID(page.search_id).version == 4
    index.apply(agent("thing two", version=2), NOW_US)
    again = SearchRequest(text="thing", search_id=page.search_id)
    assert (await search.search(again)).total == 1
    clock.move(601)
    assert (await search.search(again)).total == 2


async def test_an_agent_that_goes_between_two_pages_is_left_out() -> None:
    rows = [agent(f"thing {number}", version=number) for number in range(4)]
    search, index, _ = search_over(rows)
    page = await search.search(SearchRequest(text="thing", limit=2))
    index.apply(msgspec.structs.replace(rows[3], removed=True), NOW_US)
    index.apply(msgspec.structs.replace(rows[2], removed=True), NOW_US)
    rest = await search.search(SearchRequest(text="thing", limit=4, offset=0, search_id=page.search_id))
    assert {hit.row.id for hit in rest.hits} == {rows[0].id, rows[1].id}


async def test_a_search_without_a_text_shows_the_best_of_all() -> None:
    rows = [agent(f"thing {number}", version=number) for number in range(20)]
    rows.append(agent("proven", "Does it.", readme="x" * 500, handle="p", tally=Tally(calls=99, successes=99)))
    assert (await names(rows))[0] == "proven"
    assert len(await names(rows, limit=50)) == 21


async def test_no_more_than_the_most_are_ranked() -> None:
    rows = [agent(f"thing {number}", version=number) for number in range(PAGED_MAX + 20)]
    search, _, _ = search_over(rows)
    assert (await search.search(SearchRequest(text="thing"))).total == PAGED_MAX
    assert (await search.search(SearchRequest())).total == PAGED_MAX


async def test_of_very_many_agents_of_one_name_the_best_are_found() -> None:
    rows = [agent("twin", version=number, id=f"agent1q{number:058d}") for number in range(1, PAGED_MAX + 20)]
    rows.append(agent("twin", "Does it.", handle="best", tally=Tally(calls=9, successes=9)))
    search, _, _ = search_over(rows)
    for exact in (False, True):
        page = await search.search(SearchRequest(text="Twin", exact_match=exact, limit=1))
        assert (page.hits[0].row.listing.handle, page.total) == ("best", PAGED_MAX)


async def test_a_hit_has_the_score_that_ranking_its_row_alone_gives() -> None:
    failed = Tally(calls=9, successes=2, failures_in_row=2, failed_us=NOW_US - 60_000_000)
    tallies = (Tally(), Tally(calls=9, successes=8, answered_us=NOW_US - DAY_US), failed)
    rows = [agent(f"thing {number}", tally=tally, version=number) for number, tally in enumerate(tallies)]
    search, index, _ = search_over(rows)
    hits = (await search.search(SearchRequest(text="thing"))).hits
    assert len(hits) == 3
    for hit in hits:
        facts = index.facts[index.place_of(hit.row.id) or 0]
        assert facts is not None
        assert hit.score == score(hit.score.relevance, facts.standing, NOW_US)
    plain = (await search.search(SearchRequest(text="thing", rerank=False))).hits
    assert all(hit.score.value == hit.score.relevance for hit in plain)


MUNICH = Circle(48.14, 11.58, 20.0)


async def test_a_search_near_a_place_finds_those_whose_circles_meet_it() -> None:
    rows = [
        agent("in town", geo=(48.2, 11.6, 1.0)),
        agent("from afar", geo=(48.4, 11.0, 60.0)),
        agent("elsewhere", geo=(52.5, 13.4, 10.0)),
        agent("nowhere"),
        agent("by registration", metadata={"geolocation": {"latitude": "48.1", "longitude": "11.5", "radius": "2"}}),
    ]
    assert set(await names(rows, near=MUNICH)) == {"in town", "from afar", "by registration"}
    assert await names(rows, near=MUNICH, text="town") == ["in town"]
    assert (await names(rows, near=MUNICH, geo_relevancy=True))[-1] == "from afar"


async def test_only_agents_that_can_be_asked_are_found_when_that_is_wanted() -> None:
    got = await names(ALL, text="weather", callable_only=True)
    assert "silent weather" not in got
    assert {"card weather", "busy weather"} <= set(got)


def vector(*parts: float) -> list[float]:
    return [*parts, *([0.05] * 8)]


MEANINGS = {"pluie demain": vector(1, 0, 0), "unheard": vector(0, 0, 1)}


async def embed(text: str) -> Sequence[float]:
    if text not in MEANINGS:
        raise Unavailable("The model is loading.")
    return MEANINGS[text]


async def test_meaning_finds_what_no_word_does_and_only_when_it_is_asked_for() -> None:
    search, index, _ = search_over([agent("SkyCast", "Weather"), agent("CoinWatch", "Bitcoin")], embed=embed)
    for name, meaning in (("SkyCast", vector(0.9, 0.1, 0)), ("CoinWatch", vector(0, 1, 0))):
        place = index.place_of(address(name))
        assert place is not None
        index.vectors.put(place, pack(meaning))
    question = SearchRequest(text="pluie demain", semantic=True, cutoff="balanced")
    assert listed(await search.search(question)) == ["SkyCast"]
    assert listed(await search.search(SearchRequest(text="pluie demain"))) == []


async def test_by_meaning_a_filter_of_few_agents_is_not_lost_among_many_nearer_ones() -> None:
    rows = [agent(f"near {number}", version=number) for number in range(search_module.NEAREST + 350)]
    rows += [agent("rare", tags=("few",)), agent("other", tags=("few",))]
    search, index, _ = search_over(rows, embed=embed)
    for place in range(len(rows) - 2):
        near = place <= search_module.NEAREST + 50
        index.vectors.put(place, pack(vector(1, 0.01 * (place % 9), 0) if near else vector(-1, 0.5 * (-1) ** place, 0)))
    index.vectors.put(len(rows) - 2, pack(vector(0.8, 0.5, 0)))
    index.vectors.put(len(rows) - 1, pack(vector(-1, 0, 1)))
    question = SearchRequest(text="pluie demain", semantic=True, cutoff="permissive", filters=asking(tags=("few",)))
    assert listed(await search.search(question)) == ["rare"]


async def test_without_its_model_a_question_is_answered_by_its_words(caplog: pytest.LogCaptureFixture) -> None:
    search, index, _ = search_over([agent("SkyCast", "Weather")], embed=embed)
    index.vectors.put(0, pack(vector(1, 0, 0)))
    assert listed(await search.search(SearchRequest(text="weather", semantic=True))) == ["SkyCast"]
    assert "loading" in caplog.text


async def test_a_model_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(text: str) -> Sequence[float]:
        await asyncio.Event().wait()
        return [float(len(text))]

    monkeypatch.setattr(search_module, "EMBED_S", 0.01)
    search, index, _ = search_over([agent("SkyCast", "Weather")], embed=never)
    index.vectors.put(0, pack(vector(1, 0, 0)))
    assert listed(await search.search(SearchRequest(text="weather", semantic=True))) == ["SkyCast"]


async def test_a_question_is_embedded_once() -> None:
    asked = []

    async def counted(text: str) -> Sequence[float]:
        asked.append(text)
        return vector(1, 0, 0)

    search, index, _ = search_over([agent("SkyCast", "Weather")], embed=counted)
    index.vectors.put(0, pack(vector(1, 0, 0)))
    for _ in range(3):
        await search.search(SearchRequest(text="weather", semantic=True))
    assert asked == ["weather"]


async def test_one_agent_is_shown_by_its_id() -> None:
    search, _, _ = search_over([GONE, CARD])
    shown = search.show(GONE.id)
    assert shown is not None
    assert (shown.health, shown.kind) == ("inactive", "custom")
    assert search.show("agent1qnobody") is None
    assert not search.click("agent1qnobody", "")
    assert search.click(CARD.id, "")


async def test_a_search_during_changes_harms_nothing() -> None:
    rows = [agent(f"thing {number}", version=number) for number in range(300)]
    search, index, _ = search_over(rows)

    async def remove() -> None:
        for row in rows:
            index.apply(msgspec.structs.replace(row, removed=True), NOW_US + DAY_US)
            await asyncio.sleep(0)

    removing = asyncio.create_task(remove())
    while not removing.done():
        await search.search(SearchRequest(text="thing", limit=50))
        await asyncio.sleep(0)
    assert (await search.search(SearchRequest(text="thing"))).total == 0


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("sky", "SkyCast"),
        ("skycst", "SkyCast"),
        ("recip", "ChefMate"),
        ("cryptocurrencies", "CoinWatch"),
        ("translating", "LingoFlip"),
        ("天气预报", "天气助手"),
        ("REZEPTE", "Kochfreund"),
        ("nahrwerte", "Kochfreund"),
        ("kubernets", "DeployPilot"),
        ("agent chat protocol vertex parking", "ParkSpot"),
    ],
)
async def test_beginnings_slips_endings_and_other_scripts_find_their_agent(text: str, first: str) -> None:
    assert (await names(listings(), text=text))[0] == first


async def test_a_text_that_no_listing_has_finds_nobody() -> None:
    assert await names(listings(), text="zzzyx qqqpt") == []
    assert await names([], text="weather") == []
    assert await names([]) == []


async def test_the_words_of_a_question_that_matter_are_what_is_found() -> None:
    rows = [agent("Chat", "What is the agent that can do a thing for you, and who are you?"), agent("Rain", "Weather")]
    assert await names(rows, text="what is the weather for you", limit=1) == ["Rain"]


async def test_a_filter_of_few_agents_is_not_lost_among_many_better_ones() -> None:
    rows = [agent(f"weather {number}", version=number) for number in range(PAGED_MAX + 50)]
    rows.append(agent("something", "It knows a little of the weather too, beside much else.", tags=("rare",)))
    assert await names(rows, text="weather", filters=asking(tags=("rare",))) == ["something"]


async def test_near_agents_are_not_lost_among_many_better_ones_elsewhere() -> None:
    rows = [agent(f"weather {number}", version=number) for number in range(PAGED_MAX + 50)]
    rows.append(agent("something", "It knows a little of the weather too.", geo=(48.1, 11.5, 1.0)))
    assert await names(rows, text="weather", near=MUNICH) == ["something"]


async def test_a_hit_says_why_it_is_where_it_is() -> None:
    search, _, _ = search_over([agent("weather", "All of it.", handle="w", tally=Tally(calls=4, successes=4))])
    hit = (await search.search(SearchRequest(text="weather"))).hits[0]
    score = hit.score
    assert (score.relevance, score.health, hit.health) == (1.0, 1.0, "good")
    assert 0 < score.quality < 1
    assert 0.8 < score.success < 1
    assert 0 < score.value < 1
    assert [one.name for one in hit.protocols] == ["AgentChatProtocol"]

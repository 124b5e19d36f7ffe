"""Agents over HTTP: Agentverse's search as its clients send it, our own list, and what operators do."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_listings import NOW_US, address, agent, listings
from api.people import ask, someone
from convene.agents.base import Heard as Piece
from convene.errors import BadRequest
from convene.registry.base_operator import Card
from convene.registry.documents import CHAT_PROTOCOL
from convene.store.base_market import Endpoint, Seen, Tally, Terms
from market_doubles import Market

if TYPE_CHECKING:
    from api.conftest import Served
    from convene.store.base_market import AgentRow

FAR_US = 4_000_000_000_000_000
"""The application runs on the machine's clock, so these agents stay registered for long."""
CARD_URL = "http://127.0.0.1:9/.well-known/agent-card.json"
HIT_FIELDS = {
    *("address", "prefix", "name", "description", "readme", "protocols", "avatar_href", "banner_href"),
    *("total_interactions", "recent_interactions", "rating", "status", "unresponsive", "type", "featured", "category"),
    *("system_wide_tags", "geo_location", "handle", "domain", "metadata", "last_updated", "created_at", "owner"),
    *("recent_success_rate", "recent_eval_success_rate", "recent_verified_interactions"),
    "recent_success_verified_interactions",
}
HERE = {"host": "127.0.0.1:8000"}
"""A request of this machine, to which the registry is open by default (decision 17)."""
BERLIN = {"latitude": 52.52, "longitude": 13.4, "radius": 30}


async def put(served: Served, *rows: AgentRow) -> None:
    """List agents and let the index follow."""
    market = served.app._store.market
    for row in rows:
        listed = msgspec.structs.replace(row, version=0, expires_us=FAR_US if row.expires_us else 0)
        await market.list_agent(listed, NOW_US)
    await served.app.found.follower.catch_up()


async def saw(served: Served, name: str, **seen: object) -> None:
    one = Seen(id=agent(name).id, at_us=int(served.app._clock.now() * 1e6), **seen)  # type: ignore[arg-type]  # tests name real fields
    await served.app._store.market.see([one])
    await served.app.found.follower.catch_up()


async def search(served: Served, path: str = "/v1/search/agents", **body: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    answer = await served.http.post(path, json=body, headers=HERE)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def names(found: dict[str, Any]) -> list[str]:
    return [one["name"] for one in found.get("agents", found.get("data", []))]


@pytest.fixture
async def market(served: Served) -> Served:
    """An application with the marketplace of the quality test."""
    await put(served, *listings())
    return served


@pytest.mark.req("SEARCH-01", "SEARCH-03", "SEARCH-04")
async def test_a_search_needs_no_key_and_answers_in_agentverses_shape(market: Served) -> None:
    found = await search(market, search_text="What is the weather in Rome?", limit=3)
    assert set(found) == {"agents", "offset", "limit", "num_hits", "total", "search_id"}
    assert (found["offset"], found["limit"], found["num_hits"]) == (0, 3, len(found["agents"]))
    assert uuid.UUID(found["search_id"]).version == 4
    hit = found["agents"][0]
    assert set(hit) == HIT_FIELDS
    assert hit["name"] == "SkyCast"
    assert hit["address"] == address("SkyCast")
    assert hit["protocols"] == [{"name": "AgentChatProtocol", "version": "0.3.0", "digest": CHAT_PROTOCOL}]
    assert (hit["status"], hit["unresponsive"], hit["type"], hit["prefix"]) == ("active", False, "custom", "agent")
    assert (hit["handle"], hit["system_wide_tags"]) == ("skycast", ["weather", "climate"])
    assert hit["readme"].startswith("# SkyCast")
    assert hit["recent_success_rate"] is None
    assert hit["created_at"].endswith("Z")


@pytest.mark.req("SEARCH-02")
async def test_everything_may_be_left_out_or_null(market: Served) -> None:
    everything = {
        *("search_text", "filters", "sort", "direction", "cutoff", "exact_match", "semantic_search", "rerank"),
        *("offset", "limit", "exclude_geo_agents", "source", "search_id"),
    }
    bare = await market.http.post("/v1/search/agents", headers=HERE)
    assert bare.status_code == 200
    assert bare.json()["limit"] == 30
    assert len(bare.json()["agents"]) == 30
    nulled = dict.fromkeys(everything) | {"unknown": {"field": 1}}
    nulls = (await market.http.post("/v1/search/agents", json=nulled, headers=HERE)).json()
    assert names(nulls) == names(bare.json())
    inner = ("state", "category", "agent_type", "protocol_digest", "has_location", "has_readme", "n_interactions")
    assert names(await search(market, filters=dict.fromkeys((*inner, "tags")))) == names(nulls)


@pytest.mark.req("SEARCH-02")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"filters": {"state": ["inactive"]}}, {"gone"}),
        ({"filters": {"state": ["unresponsive"]}}, {"down"}),
        ({"filters": {"category": ["fetch-ai"]}}, set()),
        ({"filters": {"agent_type": ["mailbox"]}}, {"posted"}),
        ({"filters": {"protocol_digest": [CHAT_PROTOCOL], "state": ["active"]}}, {"down", "posted", "plain"}),
        ({"filters": {"has_location": True}}, {"local"}),
        ({"filters": {"has_readme": True}}, {"plain"}),
        ({"filters": {"n_interactions": 3}}, {"down"}),
        ({"filters": {"tags": ["Rain"]}}, {"plain"}),
        ({"exclude_geo_agents": False}, {"down", "posted", "plain", "local"}),
        ({"search_text": "posted", "exact_match": True}, {"posted"}),
        ({"search_text": "rain", "rerank": False, "cutoff": "strict"}, {"plain"}),
        ({"search_text": "rain at sea in zanzibar tomorrow evening", "cutoff": "strict"}, set()),
    ],
)
async def test_every_filter_counts(served: Served, body: dict[str, Any], expected: set[str]) -> None:
    await put(
        served,
        agent("gone", active=False),
        agent("down"),
        agent("posted", endpoints=(Endpoint("http://h/v2/agents/mailbox/submit"),)),
        agent("plain", readme="Read me: rain.", tags=("rain",)),
        agent("local", geo=(52.5, 13.4, 5.0)),
    )
    for _ in range(4):
        await saw(served, "down", outcome="failed")
    assert set(names(await search(served, **body))) == expected


@pytest.mark.req("SEARCH-02")
async def test_sorts_and_directions_count(served: Served) -> None:
    for name, calls in (("one", 1), ("two", 3), ("three", 2)):
        await put(served, agent(name))
        for _ in range(calls):
            await saw(served, name, outcome="success", seconds=1.0)
    down = names(await search(served, sort="interactions"))
    assert down == ["two", "three", "one"]
    assert names(await search(served, sort="interactions", direction="asc")) == down[::-1]
    made = names(await search(served, sort="created-at", direction="asc"))
    assert sorted(made) == sorted(down)


@pytest.mark.req("SEARCH-02")
async def test_pages_of_one_search_fit_together(market: Served) -> None:
    first = await search(market, search_text="find the best prices", limit=4)
    second = await search(market, search_text="find the best prices", limit=4, offset=4, search_id=first["search_id"])
    assert second["search_id"] == first["search_id"]
    assert second["total"] == first["total"] > 8
    assert not set(names(first)) & set(names(second))


@pytest.mark.req("SEARCH-05")
async def test_metadata_is_made_of_texts_whatever_it_was(served: Served) -> None:
    metadata = {
        "geolocation": {"latitude": 52.2, "longitude": 0.12, "radius": 5},
        "count": 7,
        "flag": True,
        "nothing": None,
        "list": [1, "two", {"three": 3}],
        "deep": {"a": {"b": [1]}, "c": "text"},
        "text": "as it is",
    }
    await put(served, agent("a", metadata=metadata))
    (hit,) = (await search(served, search_text="a", exclude_geo_agents=False))["agents"]
    for value in hit["metadata"].values():
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        assert all(isinstance(one, str) for one in inner)
    assert hit["metadata"]["geolocation"]["latitude"] == "52.2"
    assert hit["metadata"]["deep"] == {"a": '{"b":[1]}', "c": "text"}
    assert hit["metadata"]["text"] == "as it is"
    assert hit["geo_location"] == {"latitude": 52.2, "longitude": 0.12, "radius": 5.0}


@pytest.mark.req("SEARCH-06", "PICK-07")
async def test_an_address_finds_one_agent_even_if_it_is_inactive(served: Served) -> None:
    await put(served, agent("gone", active=False), agent("there"))
    found = await search(served, search_text=f"address:{agent('gone').id}", exact_match=True)
    assert names(found) == ["gone"]
    assert found["agents"][0]["status"] == "inactive"
    assert names(await search(served, search_text="gone")) == []


@pytest.mark.req("SEARCH-07")
async def test_a_search_near_a_place_needs_the_place_and_finds_what_is_near(served: Served) -> None:
    await put(served, agent("berlin taxi", geo=(52.5, 13.4, 5.0)), agent("paris taxi", geo=(48.85, 2.35, 5.0)))
    path = "/v1/search/agents/geo"
    assert names(await search(served, path, search_text="taxi", geo_filter=BERLIN)) == ["berlin taxi"]
    body: dict[str, Any] = {"search_text": "taxi", "geo_filter": BERLIN, "include_geo_in_relevancy": True}
    assert names(await search(served, path, **body)) == ["berlin taxi"]
    refused = await served.http.post(path, json={"search_text": "taxi"}, headers=HERE)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "geo_filter"


@pytest.mark.req("SEARCH-08")
async def test_the_older_names_of_the_paths_do_the_same(market: Served) -> None:
    body: dict[str, Any] = {"search_text": "weather", "limit": 5}
    assert names(await search(market, "/v1/search", **body)) == names(await search(market, **body))
    near = {"geo_filter": BERLIN}
    assert names(await search(market, "/v1/search/geo", **near)) == []


@pytest.mark.req("SEARCH-07")
async def test_one_agent_is_shown_as_a_hit_and_an_unknown_one_is_404_with_a_detail(market: Served) -> None:
    shown = await market.http.get(f"/v1/search/agents/{address('SkyCast')}", headers=HERE)
    assert shown.status_code == 200
    assert set(shown.json()) == HIT_FIELDS
    missing = await market.http.get("/v1/search/agents/agent1qnobody", headers=HERE)
    assert missing.status_code == 404
    assert missing.json()["detail"] == missing.json()["error"]["message"]


@pytest.mark.req("SEARCH-07", "PICK-08")
async def test_a_click_is_counted_and_the_owner_sees_the_share_of_searches_that_led_to_one(served: Served) -> None:
    bob = await someone(served, "bob")
    me = (await ask(served, "GET", "/v1/keys", bob.key)).json()["data"][0]["owner"]
    await put(served, agent("weather", owner=me))
    found = await search(served, search_text="weather")
    for _ in range(3):
        await search(served, search_text="weather", source="asi1")
    body = {"address": agent("weather").id, "search_id": found["search_id"], "page_index": 0}
    clicked = await served.http.post("/v1/search/agents/click", json=body, headers=HERE)
    assert clicked.json() == {"success": True}
    await served.app.found._counter.flush()
    await served.app.found.follower.catch_up()
    own = (await ask(served, "GET", f"/v1/agents/{agent('weather').id}", bob.key)).json()
    assert own["seen"] == {"impressions": 4, "picks": 1, "selection_rate": 0.25}
    other = await someone(served, "eve")
    assert "seen" not in (await ask(served, "GET", f"/v1/agents/{agent('weather').id}", other.key)).json()
    nobody = await served.http.post("/v1/search/agents/click", json={"address": "agent1qnobody"}, headers=HERE)
    assert nobody.status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"limit": 51}, "limit"),
        ({"limit": 0}, "limit"),
        ({"offset": -1}, "offset"),
        ({"sort": "best"}, "sort"),
        ({"filters": {"state": ["asleep"]}}, "filters.state[0]"),
        ({"search_text": "x" * 4001}, "search_text"),
        ({"geo_filter": {"latitude": 91, "longitude": 0, "radius": 1}}, "geo_filter.latitude"),
        ({"filters": 7}, "filters"),
    ],
)
async def test_what_is_wrong_is_named_in_both_error_shapes(served: Served, body: dict[str, Any], param: str) -> None:
    answer = await served.http.post("/v1/search/agents", json=body, headers=HERE)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["detail"]


async def test_a_browser_page_of_somebody_else_needs_a_key(served: Served) -> None:
    headers = HERE | {"origin": "https://elsewhere.test"}
    assert (await served.http.post("/v1/search/agents", json={}, headers=headers)).status_code == 401
    assert (await served.http.post("/v1/search/agents", json={}, headers=headers | served.auth)).status_code == 200


async def test_a_server_that_others_reach_is_searched_with_a_key(serve: Any) -> None:  # noqa: ANN401 - a fixture's factory
    async with serve(host="0.0.0.0") as served:  # noqa: S104 -- nothing is bound here
        assert (await served.http.post("/v1/search/agents", json={}, headers=HERE)).status_code == 401
        assert (await served.http.post("/v1/search/agents", json={}, headers=served.auth)).status_code == 200


@pytest.mark.req("SEARCH-11", "PICK-06")
async def test_users_find_agents_with_their_health_and_the_reason_of_their_rank(market: Served) -> None:
    for _ in range(3):
        await saw(market, "SkyCast", outcome="failed")
    found = (await ask(market, "GET", "/v1/agents?query=weather+in+Rome&limit=2")).json()
    assert found["object"] == "list"
    item = next(one for one in found["data"] if one["name"] == "SkyCast")
    assert (item["object"], item["protocol"], item["handle"]) == ("agent", "acp", "skycast")
    assert (item["health"], item["reachable"]) == ("unreachable", False)
    assert item["health_words"] == "It has not answered for some time."
    assert "does not answer now" in item["why"]
    assert "answered 0 of 3 calls" in item["why"]
    assert set(item["score"]) == {"value", "relevance", "quality", "success", "health"}
    assert item["price"] == {"currency": "USD", "micros": 0}
    assert "readme" not in item


async def test_the_list_has_pages_and_filters(market: Served) -> None:
    first = (await ask(market, "GET", "/v1/agents?query=price&limit=3")).json()
    assert first["has_more"]
    more = f"/v1/agents?query=price&limit=3&offset=3&search_id={first['search_id']}"
    assert not set(names(first)) & set(names((await ask(market, "GET", more)).json()))
    await put(market, agent("weather card", protocol="a2a", id=CARD_URL, protocols=(), endpoints=(), expires_us=0))
    card = (await ask(market, "GET", "/v1/agents?query=weather&protocol=a2a")).json()
    assert [(one["id"], one["address"], one["url"]) for one in card["data"]] == [(CARD_URL, None, CARD_URL)]
    assert names((await ask(market, "GET", "/v1/agents?tag=crypto")).json()) == ["CoinWatch"]
    assert names((await ask(market, "GET", "/v1/agents?query=weather&state=inactive")).json()) == []
    await put(market, agent("gone weather", handle="gone", active=False))
    assert names((await ask(market, "GET", "/v1/agents?query=gone")).json()) == []
    assert names((await ask(market, "GET", "/v1/agents?query=@gone")).json()) == ["gone weather"]
    best = (await ask(market, "GET", "/v1/agents")).json()
    assert len(best["data"]) == 10
    assert "score" not in best["data"][0]


async def test_one_agent_is_shown_with_its_readme_by_its_address_or_url(market: Served) -> None:
    await put(market, agent("card", protocol="a2a", id=CARD_URL, protocols=(), expires_us=0, readme="# Card"))
    sky = (await ask(market, "GET", f"/v1/agents/{address('SkyCast')}")).json()
    assert sky["readme"].startswith("# SkyCast")
    card = await ask(market, "GET", f"/v1/agents/{CARD_URL}")
    assert card.json()["readme"] == "# Card"
    assert (await ask(market, "GET", "/v1/agents/agent1qnobody")).status_code == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=51", "protocol=smtp", "state=asleep", "offset=x"])
async def test_a_wrong_parameter_is_named(served: Served, query: str) -> None:
    answer = await ask(served, "GET", f"/v1/agents?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]


async def test_users_need_a_key_and_operators_the_scope(served: Served) -> None:
    bob = await someone(served, "bob")
    assert (await served.http.get("/v1/agents")).status_code == 401
    for method, path in (
        ("GET", "/v1/admin/agents"),
        ("POST", "/v1/admin/agents"),
        ("POST", "/v1/admin/agents/ping"),
        ("PATCH", "/v1/admin/agents/x"),
        ("DELETE", "/v1/admin/agents/x"),
    ):
        assert (await ask(served, method, path, bob.key, {})).status_code == 403


def described(served: Served, *cards: Card) -> None:
    """Let these be the cards that are found."""

    async def describe(url: str) -> Card:
        for card in cards:
            if card.url.startswith(url):
                return card
        raise BadRequest("There is no agent at this address.", code="agent_unreadable", param="url")

    served.app.found.operator._describe = describe


CARD = Card(protocol="a2a", url=CARD_URL, name="Weather Card", description="Rain.", readme="# W", skills=("Rain",))


async def test_an_operator_adds_an_agent_by_its_url_prices_it_switches_it_off_and_takes_it_away(served: Served) -> None:
    described(served, CARD)
    body = {"url": "http://127.0.0.1:9", "handle": "Wetter", "tags": ["weather"], "price_micros": 5000}
    made = (await ask(served, "POST", "/v1/admin/agents", body=body)).json()
    assert (made["id"], made["protocol"], made["name"], made["handle"]) == (CARD_URL, "a2a", "Weather Card", "wetter")
    assert (made["price"]["micros"], made["enabled"], made["skills"]) == (5000, True, ["Rain"])
    await served.app.found.follower.catch_up()
    found = (await ask(served, "GET", "/v1/agents?query=rain")).json()
    assert found["data"][0]["price"]["micros"] == 5000
    path = f"/v1/admin/agents/{CARD_URL}"
    off = (await ask(served, "PATCH", path, body={"enabled": False})).json()
    assert (off["enabled"], off["price"]["micros"]) == (False, 5000)
    await served.app.found.follower.catch_up()
    assert names((await ask(served, "GET", "/v1/agents?query=rain")).json()) == []
    listed = (await ask(served, "GET", "/v1/admin/agents")).json()
    assert [(one["id"], one["enabled"]) for one in listed["data"]] == [(CARD_URL, False)]
    by_handle = await ask(served, "PATCH", "/v1/admin/agents/@wetter", body={"price_micros": 0, "enabled": True})
    assert (by_handle.json()["enabled"], by_handle.json()["price"]["micros"]) == (True, 0)
    gone = (await ask(served, "DELETE", path)).json()
    assert gone == {"id": CARD_URL, "object": "agent", "deleted": True}
    assert (await ask(served, "DELETE", path)).status_code == 404


async def test_adding_again_reads_the_card_anew_and_keeps_what_the_operator_said(served: Served) -> None:
    described(served, CARD)
    await ask(served, "POST", "/v1/admin/agents", body={"url": CARD_URL, "handle": "w", "tags": ["t"]})
    described(served, msgspec.structs.replace(CARD, name="Newer", description="Snow."))
    again = (await ask(served, "POST", "/v1/admin/agents", body={"url": CARD_URL})).json()
    assert (again["name"], again["description"]) == ("Newer", "Snow.")
    assert (again["handle"], again["tags"]) == ("w", ["t"])
    assert len((await ask(served, "GET", "/v1/admin/agents")).json()["data"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "url"),
        ({"url": "ftp://host/x"}, 400, "url"),
        ({"url": "http://127.0.0.1:1/nothing"}, 400, "url"),
        ({"url": CARD_URL, "handle": "no spaces please"}, 400, "handle"),
        ({"url": CARD_URL, "price_micros": -1}, 400, "price_micros"),
    ],
)
async def test_what_cannot_be_added_is_refused_with_the_reason(
    served: Served, body: dict[str, Any], status: int, param: str
) -> None:
    described(served, CARD)
    answer = await ask(served, "POST", "/v1/admin/agents", body=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_a_handle_that_somebody_has_is_a_conflict(market: Served) -> None:
    described(market, CARD)
    answer = await ask(market, "POST", "/v1/admin/agents", body={"url": CARD_URL, "handle": "skycast"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "handle_taken")


async def test_all_agents_are_paged_through_once(market: Served) -> None:
    await market.app._store.market.set_terms(address("FilmFan"), Terms(enabled=False), NOW_US)
    await market.app._store.market.remove(address("GameScore"), NOW_US)
    seen: list[str] = []
    after = ""
    while True:
        page = (await ask(market, "GET", f"/v1/admin/agents?limit=25&after={after}")).json()
        seen += names(page)
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    assert sorted(seen) == sorted(row.listing.name for row in listings() if row.listing.name != "GameScore")


@pytest.mark.req("TRAP-01", "SEARCH-11")
async def test_a_ping_is_a_conversation_and_moves_the_agents_health(served: Served) -> None:
    await put(served, agent("weather", handle="w"))
    row = agent("weather")
    desk = Market().add("weather", "Sunny.", address=row.id)
    ties = served.app.found._ties
    served.app.found._ties = msgspec.structs.replace(ties, desk=lambda: desk)

    async def note(agent_: object, outcome: str, seconds: float) -> None:
        del agent_
        await saw(served, "weather", outcome=outcome, seconds=seconds)

    desk.note = note  # type: ignore[assignment]  # a double that keeps it in the store
    good = (await ask(served, "POST", "/v1/admin/agents/ping", body={"agent": "@w"})).json()
    assert (good["id"], good["outcome"], good["words"], good["health"]) == (row.id, "success", "Sunny.", "good")
    assert [asking.say for asking in desk.asked] == ["ping"]
    failing = Market().add("weather", Piece(kind="error", text="It does not answer."), address=row.id)
    failing.note = note  # type: ignore[assignment]  # as above
    served.app.found._ties = msgspec.structs.replace(ties, desk=lambda: failing)
    for _ in range(3):
        bad = (await ask(served, "POST", "/v1/admin/agents/ping", body={"agent": row.id})).json()
    assert (bad["outcome"], bad["words"], bad["health"]) == ("failed", "It does not answer.", "unreachable")
    assert (await ask(served, "POST", "/v1/admin/agents/ping", body={"agent": "@nobody"})).status_code == 404


async def test_what_is_shown_is_written_when_the_application_stops(serve: Any) -> None:  # noqa: ANN401 - a fixture's factory
    async with serve() as served:
        await put(served, agent("weather", tally=Tally()))
        await search(served, search_text="weather")
    async with serve() as served:
        row = await served.app._store.market.get(agent("weather").id)
        assert row.tally.impressions == 1


async def test_a_model_is_offered_agents_as_soon_as_there_is_one(served: Served) -> None:
    assert not served.app.agents.anybody()
    await put(served, agent("weather", handle="w"))
    assert served.app.agents.anybody()
    (found,) = await served.app.agents.search("what is the weather", 5)
    assert (found.name, found.directory) == ("weather", "local")
    named = await served.app.agents.find("@w")
    assert named is not None
    assert named.endpoints == ("http://127.0.0.1:8001/submit",)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [
        *(
            "search_text",
            "filters",
            "sort",
            "direction",
            "cutoff",
            "exact_match",
            "semantic_search",
            "rerank",
            "offset",
        ),
        *("limit", "exclude_geo_agents", "source", "search_id", "geo_filter", "include_geo_in_relevancy"),
    ]
)
TEXTS = st.text(max_size=60) | st.sampled_from(
    [
        "@",
        "@skycast",
        "address:",
        "address:agent1q",
        "agent://agent1qqqqqqqqqqqqqqqqqqqqqqqq",
        "http://",
        "\U0001f600",
        "\x00",
    ]
)


async def test_no_body_whatever_it_holds_breaks_a_search(market: Served) -> None:
    """Every answer is a page or a refusal that names what is wrong; texts of any kind are searched for."""
    bodies: list[dict[str, Any]] = []

    @settings(max_examples=120, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(FIELDS, JSON, max_size=4), TEXTS)
    def gather(fields: dict[str, Any], text: str) -> None:
        bodies.append(fields)
        bodies.append({"search_text": text, "exact_match": len(text) % 2 == 0, "semantic_search": True})

    gather()
    for body in bodies:
        for path in ("/v1/search/agents", "/v1/search/agents/geo"):
            answer = await market.http.post(path, json=body, headers=HERE)
            assert answer.status_code in {200, 400}, (body, answer.text)
            if answer.status_code == 200:
                found = answer.json()
                assert found["num_hits"] == len(found["agents"]) <= found["total"]
            else:
                assert answer.json()["detail"]

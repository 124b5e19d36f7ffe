"""Agents on the wire: metadata that clients can read, rates, reasons, and requests with their defaults."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_listings import NOW_US, agent
from convene.api.agent_search import named, request_of
from convene.api.agent_words import admin_item_of, hit_of, item_of, plain, rate, seen_of, text, why
from convene.api.json_body import read_shape
from convene.api.shapes_agents import AgentSearchBody
from convene.registry import search
from convene.registry.base_search import Circle, Filters, Hit, SearchRequest
from convene.store.base_market import Tally, Terms

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def hit(name: str = "weather", **fields: Any) -> Hit:  # noqa: ANN401 - fields of a row, each of its own type
    return search.hit_of(agent(name, **fields), NOW_US)


class Official(msgspec.Struct):
    """A hit as strictly as the official client reads it (SEARCH-05)."""

    metadata: dict[str, str | list[str] | dict[str, str]]
    protocols: list[dict[str, str]]
    total_interactions: int
    rating: float
    unresponsive: bool
    status: str
    last_updated: str


@pytest.mark.req("SEARCH-05")
@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_any_metadata_becomes_what_clients_can_read(metadata: dict[str, object]) -> None:
    shown = msgspec.json.encode(hit_of(hit(metadata=metadata)))
    read = msgspec.json.decode(shown, type=Official)
    assert set(read.metadata) == set(metadata)
    for name, value in metadata.items():
        if isinstance(value, str):
            assert read.metadata[name] == value


def test_texts_stay_and_the_rest_is_json() -> None:
    assert [text(value) for value in ("a", 1, 1.5, True, None, ["x"])] == ["a", "1", "1.5", "true", "null", '["x"]']
    assert plain({"a": ("x", 1)}) == {"a": ["x", "1"]}


def test_a_share_of_nothing_is_not_told_and_none_is_above_1() -> None:
    assert rate(0, 0) is None
    assert rate(1, 4) == 0.25
    assert rate(5, 4) == 1.0
    assert seen_of(Tally(impressions=8, picks=2)).selection_rate == 0.25
    assert seen_of(Tally()).selection_rate is None


@pytest.mark.req("SEARCH-04")
@pytest.mark.parametrize(("protocol", "kind"), [("a2a", "a2a"), ("mcp", "custom"), ("acp", "custom")])
def test_kinds_that_clients_do_not_know_are_custom(protocol: str, kind: str) -> None:
    assert hit_of(hit(protocol=protocol)).type == kind


@pytest.mark.req("SEARCH-04", "PICK-08")
def test_figures_of_a_hit_are_those_of_its_tally() -> None:
    tally = Tally(calls=10, successes=8, judged=4, useful=3, answered_us=NOW_US, seconds=2.5)
    shown = hit_of(hit(tally=tally))
    assert (shown.total_interactions, shown.recent_interactions) == (10, 10)
    assert (shown.recent_success_rate, shown.recent_eval_success_rate) == (0.8, 0.75)
    assert (shown.recent_verified_interactions, shown.recent_success_verified_interactions) == (4, 3)
    assert 0 < shown.rating < 5
    assert shown.owner is None


@pytest.mark.parametrize(
    ("tally", "words"),
    [
        (Tally(), "has not been asked yet"),
        (Tally(calls=3, successes=2), "answered 2 of 3 calls"),
        (Tally(calls=3, successes=3, judged=2, useful=1), "did what was asked in 1 of 2 judged answers"),
        (Tally(calls=3, failures_in_row=3, failed_us=NOW_US), "does not answer now"),
    ],
)
def test_the_reason_of_a_rank_is_told_in_words(tally: Tally, words: str) -> None:
    told = why(hit(tally=tally))
    assert words in told
    assert told.startswith("It fits the question")
    assert told.endswith(".")


def test_an_item_says_where_an_agent_is_and_what_it_costs() -> None:
    item = item_of(hit(terms=Terms(price_micros=5)), "EUR", "me")
    assert (item.price.currency, item.price.micros) == ("EUR", 5)
    assert (item.url, item.answer_seconds, item.success_rate) == (None, None, None)
    assert item.seen is msgspec.UNSET
    assert item.readme is msgspec.UNSET
    card = item_of(hit(protocol="a2a", id="http://h/card"), "EUR", "", readme=True)
    assert (card.address, card.url, card.readme) == (None, "http://h/card", "")
    assert card.seen is msgspec.UNSET
    mine = item_of(hit(owner="me"), "EUR", "me", query="q")
    assert mine.seen == seen_of(Tally())
    assert isinstance(mine.why, str)


def test_an_operator_sees_terms_endpoints_and_times() -> None:
    item = admin_item_of(hit(owner="me", terms=Terms(enabled=False)), "USD")
    assert (item.enabled, item.owner, item.listed) == (False, "me", True)
    assert item.endpoints == ["http://127.0.0.1:8001/submit"]
    assert item.registered_at is not None
    assert item.registered_at < NOW_US / 1e6
    never = admin_item_of(hit(stamp=0, expires_us=0), "USD")
    assert (never.registered_at, never.expires_at) == (None, None)


@pytest.mark.req("SEARCH-02")
def test_a_body_of_nothing_is_a_search_with_the_defaults() -> None:
    asked = request_of(read_shape({}, AgentSearchBody), near=False)
    assert asked == SearchRequest()
    assert (asked.limit, asked.rerank, asked.exclude_geo, asked.semantic, asked.exact_match) == (
        30,
        True,
        True,
        False,
        False,
    )
    assert (asked.sort, asked.ascending, asked.cutoff) == ("relevancy", False, "none")


@pytest.mark.req("SEARCH-02")
def test_every_field_of_a_body_reaches_the_search() -> None:
    body = {
        "search_text": "t",
        "filters": {"state": ["active"], "tags": ["x"], "n_interactions": 3, "has_readme": False},
        "sort": "created-at",
        "direction": "asc",
        "cutoff": "strict",
        "exact_match": True,
        "semantic_search": True,
        "rerank": False,
        "offset": 5,
        "limit": 7,
        "exclude_geo_agents": False,
        "source": "s",
        "search_id": "i",
        "geo_filter": {"latitude": 1, "longitude": 2, "radius": 3},
        "include_geo_in_relevancy": True,
    }
    asked = request_of(read_shape(body, AgentSearchBody), near=True)
    assert asked == SearchRequest(
        text="t",
        filters=Filters(state=("active",), tags=("x",), n_interactions=3, has_readme=False),
        sort="created-at",
        ascending=True,
        cutoff="strict",
        exact_match=True,
        semantic=True,
        rerank=False,
        offset=5,
        limit=7,
        exclude_geo=False,
        source="s",
        search_id="i",
        near=Circle(1, 2, 3),
        geo_relevancy=True,
    )


@pytest.mark.parametrize(
    ("path", "agent_id"),
    [
        ("http:/h/card", "http://h/card"),
        ("https:/h", "https://h"),
        ("agent1q", "agent1q"),
        ("agent:/agent1q", "agent1q"),
    ],
)
def test_an_id_survives_a_path_that_has_lost_a_slash(path: str, agent_id: str) -> None:
    assert named(path) == agent_id

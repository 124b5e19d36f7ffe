"""What the index takes from a row."""

from __future__ import annotations

import msgspec
import pytest

from agent_listings import NOW_US, agent
from convene.registry.base_names import bare
from convene.registry.base_search import ProtocolName
from convene.registry.documents import (
    CHAT_PROTOCOL,
    EMBEDDED_CHARS,
    facts_of,
    fields_of,
    geo_of,
    key_of,
    text_of,
)
from convene.store.base_market import Endpoint, Listing, Tally

ROW = agent("Sky Cast", "Weather.", handle="sky", readme="# Sky\n" + "rain " * 2000, tags=("Météo",), skills=("Rain",))
NAMES = {bare(CHAT_PROTOCOL): ProtocolName(bare(CHAT_PROTOCOL), "AgentChatProtocol", "0.3.0")}


def test_a_row_comes_back_whole() -> None:
    facts = facts_of(ROW, b"k")
    assert facts.row() == ROW
    assert len(facts.packed) < 2500
    assert (facts.name, facts.handle, facts.tags) == ("sky cast", "sky", ("meteo",))


def test_every_part_of_a_listing_is_searched_the_name_above_all() -> None:
    fields = fields_of(ROW, NAMES)
    weights = {word: field.weight for field in fields for word in field.words}
    assert {"sky", "cast", "weather", "rain", "meteo", "agent", "chat", "protocol"} <= set(weights)
    assert weights["cast"] == max(weights.values())
    assert all(len(field.words) <= 600 for field in fields)


def test_the_embedded_text_is_short_and_empty_for_an_agent_that_says_nothing() -> None:
    assert text_of(ROW).startswith("Sky Cast\nWeather.\nRain\nMétéo\n# Sky")
    assert len(text_of(ROW)) == EMBEDDED_CHARS
    assert text_of(msgspec.structs.replace(ROW, listing=Listing())) == ""


def test_the_key_changes_with_what_is_indexed_and_with_nothing_else() -> None:
    key = key_of(ROW, NAMES)
    assert key_of(msgspec.structs.replace(ROW, tally=Tally(calls=9), stamp=99, version=7), NAMES) == key
    assert key_of(agent("Sky Cast", "Other."), NAMES) != key
    assert key_of(ROW, {}) != key


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://h/v2/agents/mailbox/submit", "mailbox"),
        ("http://h/v1/submit", "mailbox"),
        ("http://h/v2/agents/proxy/submit", "proxy"),
        ("http://h/submit", "custom"),
    ],
)
def test_the_index_takes_an_agent_for_what_the_registry_does(url: str, kind: str) -> None:
    assert facts_of(agent("a", endpoints=(Endpoint(url),)), b"k").kind == kind
    assert facts_of(agent("a", protocol="a2a"), b"k").kind == "a2a"


def test_where_it_belongs_is_read_from_listing_or_registration_whose_figures_are_texts() -> None:
    said = {"geolocation": {"latitude": "52.2", "longitude": "0.12", "radius": "5.0"}}
    assert geo_of(agent("a", metadata=said)) == (52.2, 0.12, 5.0)
    assert geo_of(agent("a", geo=(1.0, 2.0, 3.0), metadata=said)) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"geolocation": "here"},
        {"geolocation": {"latitude": "91", "longitude": "0", "radius": "1"}},
        {"geolocation": {"latitude": "nan", "longitude": "0", "radius": "1"}},
        {"geolocation": {"latitude": "1", "longitude": "0"}},
        {"geolocation": {"latitude": [], "longitude": "0", "radius": "1"}},
        {"geolocation": {"latitude": "1", "longitude": "0", "radius": "inf"}},
    ],
)
def test_a_place_that_is_none_is_left_out(given: dict[str, object]) -> None:
    assert geo_of(agent("a", metadata=given)) is None


def test_an_agent_is_active_until_its_registration_expires_or_it_signs_off() -> None:
    assert facts_of(agent("a"), b"").is_active(NOW_US)
    assert not facts_of(agent("a", expires_us=NOW_US), b"").is_active(NOW_US)
    assert not facts_of(agent("a", active=False), b"").is_active(NOW_US)
    assert facts_of(agent("a", expires_us=0), b"").is_active(NOW_US)

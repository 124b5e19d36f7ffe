"""Listings: what came, merged into what is there, within limits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from convene.errors import BadRequest
from convene.registry.listing import NEVER_US, fresh, merge, read_change, unlist
from convene.store.base_market import AgentRow, Endpoint, Listing, Profile
from signed_agents import CHAT

NOW = 1_000
KEEP = 100
ADDRESS = "agent1q" + "w" * 58
FULL: dict[str, Any] = {
    "address": ADDRESS,
    "name": "echo",
    "handle": "@Echo.1",
    "url": None,
    "agent_type": "uagent",
    "profile": {
        "description": "says it again",
        "readme": "# Echo",
        "avatar_url": "",
        "banner_url": "",
        "starter_prompts": ["Say hello", {"title": "x"}],
    },
    "endpoints": [{"url": "http://127.0.0.1:18899/v2/agents/mailbox/submit", "weight": 1}],
    "protocols": [CHAT],
    "metadata": {
        "geolocation": {"latitude": 52.2, "longitude": "0.12", "radius": 5.0},
        "tags": ["a", "b", 5],
        "categories": ["b", "c"],
    },
}


def merged(body: dict[str, Any], row: AgentRow | None = None, **more: Any) -> AgentRow:  # noqa: ANN401 -- arguments
    return merge(row or fresh(ADDRESS), read_change(body), NOW, KEEP, **more)


@pytest.mark.req("LIST-07")
def test_a_whole_listing_is_taken() -> None:
    row = merged(FULL)
    assert row.listed
    assert row.endpoints == (Endpoint("http://127.0.0.1:18899/v2/agents/mailbox/submit", 1),)
    assert (row.protocols, row.registered_us, row.expires_us) == ((CHAT,), NOW, NEVER_US)
    assert row.listing == Listing(
        name="echo",
        handle="echo.1",
        agent_type="uagent",
        profile=Profile(description="says it again", readme="# Echo", starter_prompts=("Say hello", {"title": "x"})),
        tags=("a", "b", "c"),
        geo=(52.2, 0.12, 5.0),
        metadata=FULL["metadata"],
    )


@pytest.mark.req("LIST-08")
@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"name": "other"}, "name", "other"),
        ({"handle": "new"}, "handle", "new"),
        ({"handle": ""}, "handle", ""),
        ({"url": "https://a.test/x"}, "url", "https://a.test/x"),
        ({"agent_type": "a2a"}, "agent_type", "a2a"),
        ({"metadata": {"tags": ["z"]}}, "tags", ("z",)),
    ],
)
def test_what_comes_replaces_and_the_rest_stays(change: dict[str, Any], field: str, value: object) -> None:
    before = merged(FULL).listing
    after = merged({"address": ADDRESS} | change, merged(FULL)).listing
    assert getattr(after, field) == value
    for name in ("name", "handle", "url", "agent_type", "profile"):
        if name not in change:
            assert getattr(after, name) == getattr(before, name)


@pytest.mark.req("LIST-08")
def test_a_profile_is_merged_inside() -> None:
    after = merged({"profile": {"readme": "# New", "avatar_url": None}}, merged(FULL)).listing.profile
    assert after == msgspec.structs.replace(merged(FULL).listing.profile, readme="# New")
    assert merged({"profile": None}, merged(FULL)).listing == merged(FULL).listing
    assert merged({"profile": {"readme": "", "starter_prompts": []}}, merged(FULL)).listing.profile.readme == ""


@pytest.mark.req("LIST-08")
def test_a_listing_without_a_name_is_taken_and_no_endpoints_leave_the_old_ones() -> None:
    row = merged({"address": ADDRESS, "endpoints": [], "protocols": [], "name": None})
    assert (row.listing.name, row.endpoints, row.expires_us, row.listed) == ("", (), 0, True)
    again = merged({"endpoints": [], "protocols": None}, merged(FULL))
    assert (again.endpoints, again.protocols) == (merged(FULL).endpoints, (CHAT,))


def test_an_agent_that_registers_itself_goes_on_expiring() -> None:
    here = msgspec.structs.replace(merged(FULL), stamp=5, expires_us=NOW + 1)
    assert merged(FULL, here).expires_us == NOW + KEEP
    assert merged(FULL, msgspec.structs.replace(here, expires_us=NOW)).expires_us == NEVER_US
    assert merged({"name": "x"}, here).expires_us == NOW + 1


@pytest.mark.req("LIST-11")
@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": "x" * 33}, "name"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"handle": "x" * 41}, "handle"),
        ({"handle": "-x"}, "handle"),
        ({"handle": "no spaces"}, "handle"),
        ({"handle": ADDRESS}, "handle"),
        ({"url": "http://a.test/" + "x" * 4000}, "url"),
        ({"url": "javascript:alert(1)"}, "url"),
        ({"agent_type": "x" * 41}, "agent_type"),
        ({"profile": {"description": "x" * 301}}, "profile.description"),
        ({"profile": {"readme": "x" * 80_001}}, "profile.readme"),
        ({"profile": {"avatar_url": "x" * 4001}}, "profile.avatar_url"),
        ({"profile": {"banner_url": "x" * 4001}}, "profile.banner_url"),
        ({"profile": {"starter_prompts": ["x"] * 21}}, "profile.starter_prompts"),
        ({"profile": {"starter_prompts": ["x" * 3000]}}, "profile.starter_prompts"),
        ({"endpoints": [{"url": "http://a.test/", "weight": 0}]}, "endpoints"),
        ({"protocols": ["x"]}, "protocols"),
        ({"metadata": {"x": "y" * 20_000}}, "metadata"),
        ({"name": 5}, None),
        ({"endpoints": [{"url": 5}]}, None),
    ],
)
def test_what_is_beyond_a_limit_is_refused_by_its_name(change: dict[str, Any], param: str | None) -> None:
    with pytest.raises(BadRequest) as refused:
        merged(change)
    assert refused.value.param == param


@pytest.mark.req("LIST-11")
def test_what_is_at_its_limit_is_taken() -> None:
    profile = {"description": "x" * 300, "readme": "x" * 80_000, "avatar_url": "x" * 4000}
    assert merged({"name": "x" * 32, "handle": "x" * 40, "profile": profile}).listing.name == "x" * 32
    assert merged({"name": "x" * 80}, name_max=80).listing.name == "x" * 80


@pytest.mark.parametrize(
    "place",
    [
        None,
        5,
        {},
        {"latitude": "north", "longitude": 1},
        {"latitude": 91, "longitude": 0},
        {"latitude": 0, "longitude": 181},
        {"latitude": 0, "longitude": 0, "radius": -1},
        {"latitude": float("nan"), "longitude": 0},
        {"latitude": [1], "longitude": 0},
    ],
)
def test_a_place_that_is_none_is_none(place: object) -> None:
    assert merged({"metadata": {"geolocation": place}}).listing.geo is None


def test_what_is_unlisted_keeps_what_the_agent_has_registered() -> None:
    row = unlist(msgspec.structs.replace(merged(FULL), owner="u"))
    assert (row.owner, row.listed, row.listing, row.protocols) == ("", False, Listing(), (CHAT,))

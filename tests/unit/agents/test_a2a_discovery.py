"""Cards: where they are looked for, what is read of them, and which door is taken."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2a_doubles import A2aHouse, ToldReply
from convene.agents.a2a_codec import Door, NotA2aError, read_card
from convene.agents.a2a_discovery import as_agent, places_of
from convene.agents.credentials import Credentials, key_of
from convene.agents.faults import TalkFault
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Callable

CARD: dict[str, Any] = {
    "name": "weather",
    "description": "Knows the weather.",
    "capabilities": {"streaming": True},
    "skills": [{"id": "now", "name": "Now", "description": "The weather now"}, {"id": "x"}, 5, {}],
}


def card(**fields: object) -> bytes:
    return json.dumps(CARD | fields).encode()


def interface(url: str, binding: str, version: str | None) -> dict[str, str]:
    return {"url": url, "protocolBinding": binding} | ({"protocolVersion": version} if version is not None else {})


@pytest.mark.req("A2A-01", "A2A-02")
def test_a_card_is_the_index_entry_with_its_skills_as_readme() -> None:
    async def scene(world: World) -> None:
        house = A2aHouse(world.clock)
        agent = house.agent("weather")
        found = as_agent(await house.discovery.find(agent.url))
        assert found.url == "https://weather.test/.well-known/agent-card.json"
        assert (found.name, found.description) == ("weather", "Plays weather.")
        assert found.skills == ("talking: says things",)
        assert "- talking: says things" in found.readme

    run(scene, 1)


@pytest.mark.parametrize(
    ("interfaces", "door"),
    [
        ([interface("https://a", "JSONRPC", "1.0")], Door(url="https://a", binding="JSONRPC", streams=True)),
        (
            [interface("https://g", "GRPC", "1.0"), interface("https://r", "HTTP+JSON", "1.0")],
            Door(url="https://r", binding="HTTP+JSON", streams=True),
        ),
        (
            [interface("https://o", "JSONRPC", "0.3"), interface("https://n", "HTTP+JSON", "1.0.2")],
            Door(url="https://n", binding="HTTP+JSON", streams=True),
        ),
        (
            [interface("https://o", "JSONRPC", "0.3.0")],
            Door(url="https://o", binding="JSONRPC", legacy=True, streams=True),
        ),
        ([interface("https://u", "JSONRPC", None)], Door(url="https://u", binding="JSONRPC", streams=True)),
        (
            [interface("https://t", "JSONRPC", "1.0") | {"tenant": "us"}],
            Door(url="https://t", binding="JSONRPC", tenant="us", streams=True),
        ),
    ],
)
@pytest.mark.req("A2A-01")
def test_the_best_door_that_we_can_use_is_taken(interfaces: list[object], door: Door) -> None:
    assert read_card(card(supportedInterfaces=interfaces)).doors[0] == door


def test_a_card_of_the_old_wire_has_its_doors_elsewhere() -> None:
    more = [{"url": "https://b", "transport": "HTTP+JSON"}, {"url": "https://a", "transport": "JSONRPC"}, "x"]
    doors = read_card(card(url="https://a", protocolVersion="0.3.0", additionalInterfaces=more)).doors
    assert [(door.url, door.binding, door.legacy) for door in doors] == [
        ("https://a", "JSONRPC", True),
        ("https://b", "HTTP+JSON", True),
    ]
    assert read_card(card(url="https://a")).doors[0].legacy


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"name": "x"}', card(name=""), card(supportedInterfaces=[{}])])
def test_what_is_no_card_or_has_no_door_for_us_is_refused(body: bytes) -> None:
    with pytest.raises(NotA2aError):
        read_card(body)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["name", "url", "transport", "skills", "capabilities", "streaming", "x"]), inner),
)  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["name", "url", "supportedInterfaces", "skills", "capabilities", "additionalInterfaces"]),
        JSON_VALUES,
    )
)
def test_whatever_a_card_holds_it_is_read_or_refused(value: dict[str, object]) -> None:
    try:
        found = read_card(json.dumps(value).encode())
    except NotA2aError:
        return
    assert found.name
    assert found.doors


@pytest.mark.parametrize(
    ("url", "first"),
    [
        ("https://a.test", "https://a.test/.well-known/agent-card.json"),
        ("https://a.test/one/?x=1", "https://a.test/one/.well-known/agent-card.json"),
        ("https://a.test/cards/one.json", "https://a.test/cards/one.json"),
    ],
)
def test_a_card_is_looked_for_under_the_url_first(url: str, first: str) -> None:
    assert places_of(url)[0] == first


def test_the_places_of_a_card_are_few_and_all_at_the_same_host() -> None:
    assert places_of("https://a.test/one") == (
        "https://a.test/one/.well-known/agent-card.json",
        "https://a.test/.well-known/agent-card.json",
        "https://a.test/one/.well-known/agent.json",
        "https://a.test/.well-known/agent.json",
    )
    assert places_of("not a url") == ()


def looked_at(change: Callable[[A2aHouse], None]) -> str:
    async def scene(world: World) -> str:
        house = A2aHouse(world.clock)
        change(house)
        with pytest.raises(TalkFault) as fault:
            await house.discovery.find("https://weather.test")
        return fault.value.words

    found: str = run(scene, 1)
    return found


def test_why_there_is_no_agent_is_said() -> None:
    def closed(house: A2aHouse) -> None:
        agent = house.agent("weather")

        async def serve(hop: object) -> ToldReply:
            del hop
            return ToldReply(403)

        agent.serve = serve  # type: ignore[method-assign]  # a scene of its own

    def nameless(house: A2aHouse) -> None:
        house.agent("weather").card = lambda: {"description": "x"}  # type: ignore[method-assign]  # a scene of its own

    assert "no connection" in looked_at(lambda _: None)
    assert "without credentials (403)" in looked_at(closed)
    assert "it answers 404" in looked_at(nameless)


def test_a_card_is_kept_for_a_while_and_forgotten_on_demand() -> None:
    async def scene(world: World) -> list[int]:
        house = A2aHouse(world.clock)
        agent = house.agent("weather")
        counts = []
        for wait_s in (0.0, 299.0, 2.0):
            await asyncio.sleep(wait_s)
            await house.discovery.find(agent.url)
            counts.append(len(house.network.hops))
        house.discovery.forget(agent.url)
        await house.discovery.find(agent.url)
        return [*counts, len(house.network.hops)]

    assert run(scene, 1) == [1, 1, 2, 3]


# Keys.


def test_a_key_is_found_by_the_agent_or_its_card_and_stays_at_its_origin() -> None:
    keys = Credentials({"https://a.test/one/": (("x-key", "secret"),), "https://b.test": ()})
    card_url = "https://a.test/one/.well-known/agent-card.json"
    assert keys.of(card_url, "https://a.test/elsewhere") == (("x-key", "secret"),)
    assert keys.of("https://a.test/one", "https://a.test:443/") == (("x-key", "secret"),)
    for target in ("http://a.test/one", "https://a.test:444/one", "https://evil.test/https://a.test/one", "x"):
        assert keys.of(card_url, target) == ()
    assert keys.of("https://a.test/two", "https://a.test/two") == ()
    assert "secret" not in repr(keys)
    assert key_of(card_url) == "https://a.test/one"

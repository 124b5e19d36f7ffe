"""Agents that the operator names: found by what they say of themselves, priced and switched off by his word."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from convene.agents.base import AgentCard
from convene.app_agents import Desk
from convene.app_callers import Callers, HouseRules, Named, headers_of
from convene.config import Agents, ConfigError, KnownAgent, Secret, load
from convene.egress import WireFault
from convene.errors import Failed
from convene.registry.base import Found
from egress_doubles import Names, NotedWire, Told, guarded
from market_doubles import ADDRESS
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convene.app_callers import Spoken
    from convene.egress import Hop
    from fakes import FakeClock

WEATHER = AgentCard(
    protocol="a2a", url="https://w.test/.well-known/agent-card.json", name="Rain", description="Forecasts for cities"
)
AGENTS: Mapping[str, KnownAgent] = {
    "weather": KnownAgent(url="https://w.test"),
    "down": KnownAgent(url="https://down.test", description="Books hotels"),
    "off": KnownAgent(url="https://off.test", enabled=False),
    "chat": KnownAgent(address=ADDRESS),
}


class Describing:
    """Describes agents by a table; the others are down."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.wait_s = 0.0

    async def __call__(self, url: str, protocol: Spoken = "auto") -> AgentCard:
        assert protocol == "auto"
        self.asked.append(url)
        await asyncio.sleep(self.wait_s)
        if url == "https://w.test":
            return WEATHER
        raise Failed("nobody there")


def test_named_agents_are_found_by_what_they_say_and_by_name_and_url() -> None:
    async def scene(world: World) -> None:
        describing = Describing()
        named = Named(AGENTS, describing, world.clock)
        [found] = await named.search("the forecast for my city", 5)
        assert (found.name, found.handle, found.url, found.reachable) == ("Rain", "weather", WEATHER.url, True)
        assert found.directory == "named"
        assert await named.search("quantum physics", 5) == []
        for name in ("@weather", "Weather", "https://w.test/", WEATHER.url):
            again = await named.find(name)
            assert again is not None
            assert again.name == "Rain"
        assert await named.find("@nobody") is None
        assert await named.find("@off") is None
        assert describing.asked == ["https://w.test", "https://down.test"]
        await asyncio.sleep(301)
        await named.search("forecast", 5)
        assert len(describing.asked) == 4
        await named.aclose()

    run(scene, 1)


def test_an_agent_that_is_down_is_found_by_the_operators_words_and_shown_as_such() -> None:
    async def scene(world: World) -> None:
        named = Named(AGENTS, Describing(), world.clock)
        [found] = await named.search("book a hotel", 5)
        assert (found.name, found.reachable, found.description) == ("down", False, "Books hotels")

    run(scene, 1)


def test_a_search_does_not_wait_long_for_agents_that_do_not_answer() -> None:
    async def scene(world: World) -> None:
        describing = Describing()
        describing.wait_s = 60.0
        named = Named(AGENTS, describing, world.clock)
        began = world.clock.monotonic()
        assert await named.search("forecast", 5) == []
        assert world.clock.monotonic() - began == pytest.approx(3.0)
        await asyncio.sleep(60)
        assert len(await named.search("forecast", 5)) == 1
        assert len(describing.asked) == 2
        await named.find("@down")
        await named.aclose()

    run(scene, 1)


async def test_an_agent_that_is_switched_off_is_in_no_directory(clock: FakeClock) -> None:
    rules = HouseRules({"off": KnownAgent(url="https://w.test", enabled=False)})
    assert rules.admit(None) is None
    assert rules.admit(Found(protocol="a2a", name="x", url="https://w.test/.well-known/agent-card.json")) is None
    other = Found(protocol="a2a", name="x", url="https://x.test")
    assert rules.admit(other) == other
    named = Named({"weather": KnownAgent(url="https://w.test")}, Describing(), clock)
    desk = Desk((named,), (), rules=rules)
    assert await desk.find("@weather") is None
    assert await desk.search("forecast", 5) == []


def test_a_key_is_a_bearer_unless_a_header_says_otherwise() -> None:
    assert headers_of(KnownAgent(api_key=Secret("k"))) == (("authorization", "Bearer k"),)
    both = KnownAgent(api_key=Secret("k"), headers={"Authorization": Secret("Basic x"), "x-team": Secret("t")})
    assert headers_of(both) == (("Authorization", "Basic x"), ("x-team", "t"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[agent.a]\nenabled = true\n", "agent.a.url"),
        (f"[agent.a]\nurl = 'https://x'\naddress = '{ADDRESS}'\n", "one of them"),
        ("[agent.a]\naddress = 'agent1qshort'\n", "agent.a.address"),
        ("[agent.a]\nurl = 'ftp://x'\n", "agent.a.url must be absolute"),
        ("[agent.'a b']\nurl = 'https://x'\n", "needs a name"),
    ],
)
def test_settings_that_name_no_agent_are_refused_with_the_key(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "convene.toml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load({}, {"HOME": str(tmp_path)}, tmp_path)


# What is spoken at a URL.


def rpc(hop: Hop, result: object) -> Told:
    body = json.dumps({"jsonrpc": "2.0", "id": json.loads(hop.body)["id"], "result": result}).encode()
    return Told(headers={"content-type": "application/json"}, pieces=(body,))


def both(hop: Hop) -> Told:
    """Serve a card at a.test, and MCP at m.test."""
    if hop.place.url == "https://a.test/.well-known/agent-card.json":
        door = {"url": "https://a.test/", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        return Told(pieces=(json.dumps({"name": "A", "supportedInterfaces": [door]}).encode(),))
    if hop.place.host == "m.test" and hop.method == "POST":
        method = json.loads(hop.body)["method"]
        if method == "server/discover":
            return rpc(hop, {"supportedVersions": ["2026-07-28"], "serverInfo": {"name": "M"}})
        return rpc(hop, {"tools": []})
    if hop.place.host == "gone.test":
        return Told(fault=WireFault("connect", ""))
    return Told(status=404)


def callers(wire: NotedWire, clock: FakeClock) -> Callers:
    return Callers(Agents(), {}, guarded(wire)[0], clock)


@pytest.mark.parametrize(
    ("url", "protocol", "name", "asked"),
    [
        ("https://a.test", "a2a", "A", 1),
        ("https://m.test/", "mcp", "M", 6),
        ("https://m.test/mcp", "mcp", "M", 2),
    ],
)
async def test_what_is_spoken_at_a_url_is_found_out(
    clock: FakeClock, url: str, protocol: str, name: str, asked: int
) -> None:
    wire = NotedWire(both)
    card = await callers(wire, clock).describe(url)
    assert (card.protocol, card.name) == (protocol, name)
    assert len(wire.hops) <= asked


async def test_what_is_nothing_says_so_for_both_and_what_is_down_once(clock: FakeClock) -> None:
    wire = NotedWire(both)
    with pytest.raises(Failed, match=r"no A2A agent at this address.* There is no MCP server"):
        await callers(wire, clock).describe("https://nothing.test/")
    with pytest.raises(Failed, match=r"^There is no MCP server at this address"):
        await callers(wire, clock).describe("https://a.test/mcp", "mcp")
    wire.hops.clear()
    with pytest.raises(Failed, match="no connection"):
        await callers(wire, clock).describe("https://gone.test/")
    assert len(wire.hops) == 1


async def test_an_address_inside_is_not_described(clock: FakeClock) -> None:
    wire = NotedWire(both)
    made = Callers(Agents(), {}, guarded(wire, Names({"inside.test": ["10.0.0.1"]}))[0], clock)
    with pytest.raises(Failed, match="cannot be reached"):
        await made.describe("https://inside.test/")
    assert wire.hops == []

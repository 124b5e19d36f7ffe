"""Agents that the operator names: found by what they say of themselves, priced and switched off by his word."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from convene.agents.base import AgentCard
from convene.app_agents import Desk
from convene.app_callers import HouseRules, Named, headers_of
from convene.config import ConfigError, KnownAgent, Secret, load
from convene.errors import Failed
from convene.registry.base import Found
from market_doubles import ADDRESS
from simulation import World, run

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convene.app_callers import Spoken
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

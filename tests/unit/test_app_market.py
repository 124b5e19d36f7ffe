"""The parts of the marketplace, put together: they follow the settings, the store that is opened, and who we are."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from convene.app_agents import AgentParts, Home
from convene.app_market import MarketParts
from convene.app_place import Place
from convene.config import Agents, Config, Registry
from convene.errors import NotFound
from convene.registry.listing import NEVER_US
from convene.serving.gates import LocalGate
from convene.store.memory import MemoryStore
from fakes import FakeClock
from market_desks import OPEN
from signed_agents import CHAT, SignedAgent

ANN = SignedAgent("ann")


class Room:
    """The parts, over a store in memory."""

    def __init__(self, **fields: object) -> None:
        self.config = msgspec.structs.replace(Config(), **fields)
        self.clock, self.store = FakeClock(), MemoryStore()
        self.place = Place(self.config)
        self.agents = AgentParts(self.config, self.clock, lambda: self.store.sessions, home=Home(self.place))
        self.parts = MarketParts(
            self.config, self.clock, lambda: self.store, LocalGate, lambda: self.agents, self.place
        )

    async def close(self) -> None:
        await self.parts.aclose()
        await self.agents.aclose()
        await self.store.aclose()


def test_all_paths_are_open_begin_at_the_root_and_stay_out_of_the_description() -> None:
    routes = Room().parts.routes()
    assert len(routes) > 40
    assert all(route.open and not route.described for route in routes)
    assert {route.path.split("/")[1] for route in routes} == {"v1", "v2", "inspect"}
    named = [(route.method, route.path) for route in routes]
    assert len(set(named)) == len(named)


def test_a_registry_that_is_off_has_no_paths() -> None:
    assert Room(registry=Registry(enabled=False)).parts.routes() == ()


@pytest.mark.req("RES-05")
async def test_we_are_an_agent_once_we_have_started() -> None:
    room = Room()
    assert room.parts.own() is None
    await room.agents.start()
    own = room.parts.own()
    assert own is not None
    assert (own.id, own.protocols, own.expires_us) == (room.agents.address, (CHAT,), NEVER_US)
    assert own.endpoints[0].url == "http://127.0.0.1:8000/agents/inbox"
    await room.close()


async def test_what_we_call_ours_follows_the_port_that_the_system_has_chosen() -> None:
    room = Room(port=0)
    await room.agents.start()
    room.place.listen_at(4711)
    own = room.parts.own()
    assert own is not None
    assert own.endpoints[0].url == "http://127.0.0.1:4711/agents/inbox"
    body = ANN.registration(room.clock.now(), ("http://127.0.0.1:4711/v2/agents/mailbox/submit",))
    await room.parts.almanac.register([body], OPEN)
    letter = json.dumps(SignedAgent("bob").envelope(ANN.address)).encode()
    assert await room.parts.near("http://localhost:4711/v2/agents/mailbox/submit", letter) is True
    assert await room.parts.near("http://localhost:8000/v2/agents/mailbox/submit", letter) is None
    await room.close()


async def test_without_agents_we_are_nobody_and_the_registry_serves_others() -> None:
    room = Room(agents=Agents(enabled=False))
    await room.agents.start()
    await room.parts.start()
    assert room.parts.own() is None
    body = ANN.registration(room.clock.now())
    await room.parts.almanac.register([body], OPEN)
    assert await room.parts.almanac.resolve(ANN.address) is not None
    await room.close()


@pytest.mark.req("REG-09")
async def test_the_start_names_known_protocols_and_begins_the_upkeep() -> None:
    room = Room()
    await room.parts.start()
    assert CHAT in {one.digest for one in await room.store.market.manifests()}
    assert "marketplace upkeep" in {task.get_name() for task in asyncio.all_tasks()}
    await room.close()
    assert "marketplace upkeep" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_registry_that_is_off_keeps_nothing() -> None:
    room = Room(registry=Registry(enabled=False))
    await room.parts.start()
    assert await room.store.market.manifests() == []
    await room.close()


async def test_our_own_envelopes_for_mailboxes_here_go_over_no_network() -> None:
    """Its own address may be one in a private network, to which the guarded way out does not lead."""
    room = Room(public_url="http://10.1.2.3:8080")
    here = "http://10.1.2.3:8080/v2/agents/mailbox/submit"
    body = ANN.registration(room.clock.now(), (here,))
    await room.parts.almanac.register([body], OPEN)
    letter = json.dumps(SignedAgent("bob").envelope(ANN.address)).encode()
    for endpoint in (here, "http://127.0.0.1:8000/v1/submit", "http://localhost:8000/v2/agents/mailbox/submit"):
        assert await room.parts.near(endpoint, letter) is True
    assert len(await room.parts.mailboxes.waiting(ANN.address) or ()) == 3
    for other in (
        "http://10.1.2.3:8081/v2/agents/mailbox/submit",
        "https://agentverse.ai/v2/agents/mailbox/submit",
        "http://10.1.2.3:8080/submit",
        "http://127.0.0.1:9000/submit",
    ):
        assert await room.parts.near(other, letter) is None
    with pytest.raises(NotFound):
        await room.parts.near("http://10.1.2.3:8080/v2/agents/proxy/submit", letter)
    off = Room(registry=Registry(enabled=False))
    assert await off.parts.near("http://127.0.0.1:8000/v1/submit", letter) is None
    await room.close()
    await off.close()


async def test_records_stand_as_long_as_the_settings_say() -> None:
    room = Room(registry=Registry(keep_hours=3))
    await room.parts.almanac.register([ANN.registration(room.clock.now())], OPEN)
    room.clock.move(3 * 3600 - 1)
    assert await room.parts.almanac.resolve(ANN.address) is not None
    room.clock.move(1)
    assert await room.parts.almanac.resolve(ANN.address) is None
    await room.close()

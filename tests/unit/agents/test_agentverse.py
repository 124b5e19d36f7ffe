"""An Agentverse elsewhere as a directory: what it is asked, what is made of what it answers, or does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from uagents_core.registration import AgentRegistrationAttestation

from agent_doubles import FakeFetched
from convene.agent_identity import Identity
from convene.agents import agentverse
from convene.agents.agentverse import Agentverse
from convene.agents.chat_codec import CHAT_PROTOCOL
from convene.egress import EgressFailed
from convene.errors import UpstreamFault

if TYPE_CHECKING:
    from convene.egress import Request
    from fakes import FakeClock

ADDRESS = Identity.from_seed("somebody").address


class Wire:
    """Answers in order, and remembers what it was asked."""

    def __init__(self, *answers: FakeFetched | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    async def fetch(self, request: Request) -> FakeFetched:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def answer(body: object, status: int = 200) -> FakeFetched:
    return FakeFetched(status, json.dumps(body).encode())


def open_one(wire: Wire, clock: FakeClock, key: str = "") -> Agentverse:
    return Agentverse("http://market.test/", wire, clock, key)  # type: ignore[arg-type]  # a double of what it uses


async def test_we_announce_ourselves_with_an_attestation_that_the_library_accepts(clock: FakeClock) -> None:
    wire, me = Wire(answer({})), Identity.from_seed("us")
    await open_one(wire, clock).announce(me, "http://us.test/agents/inbox")
    [asked] = wire.asked
    assert (asked.method, asked.url) == ("POST", "http://market.test/v1/almanac/agents")
    attestation = AgentRegistrationAttestation.model_validate(json.loads(asked.body))
    assert attestation.verify()
    assert attestation.agent_identifier == f"agent://{me.address}"
    assert attestation.protocols == [CHAT_PROTOCOL]
    assert [(one.url, one.weight) for one in attestation.endpoints] == [("http://us.test/agents/inbox", 1)]
    assert attestation.timestamp == int(clock.now())


@pytest.mark.req("SEARCH-10")
async def test_a_search_asks_for_active_agents_that_chat(clock: FakeClock) -> None:
    hits = [
        {"address": ADDRESS, "name": "rome", "handle": "@rome", "description": None, "readme": "Knows.", "rating": 4},
        {"address": "agent1qx", "name": "", "status": "inactive"},
        {"address": "agent1qy", "unresponsive": True},
        {"address": "user1q", "name": "nobody"},
    ]
    wire = Wire(answer({"agents": hits, "total": 3}))
    found = await open_one(wire, clock, "secret").search("weather", 7)
    assert json.loads(wire.asked[0].body) == {
        "search_text": "weather",
        "semantic_search": True,
        "filters": {"state": ["active"], "protocol_digest": [CHAT_PROTOCOL]},
        "cutoff": "balanced",
        "limit": 7,
        "source": "convene",
    }
    assert ("authorization", "Bearer secret") in wire.asked[0].headers
    assert [(one.card.address, one.card.name, one.card.handle, one.reachable) for one in found] == [
        (ADDRESS, "rome", "rome", True),
        ("agent1qx", "agent1qx", "", False),
        ("agent1qy", "agent1qy", "", False),
    ]


@pytest.mark.parametrize("name", [ADDRESS, "@rome", "rome"])
async def test_an_agent_is_found_by_address_and_by_handle(clock: FakeClock, name: str) -> None:
    hits = [{"address": "agent1qx", "name": "rome"}, {"address": ADDRESS, "name": "Rome", "handle": "rome"}]
    found = await open_one(Wire(answer({"agents": hits})), clock).find(name)
    assert found is not None
    assert found.address == ADDRESS


async def test_an_address_without_a_listing_is_found_if_it_can_be_resolved(clock: FakeClock) -> None:
    record = {"address": ADDRESS, "endpoints": [{"url": "http://a.test/submit", "weight": 1}]}
    wire = Wire(answer({"agents": []}), answer(record))
    found = await open_one(wire, clock).find(ADDRESS)
    assert found is not None
    assert (found.address, found.endpoints) == (ADDRESS, ("http://a.test/submit",))
    unknown = Wire(answer({"agents": []}), answer({"detail": "no"}, 404))
    assert await open_one(unknown, clock).find(ADDRESS) is None
    assert await open_one(Wire(answer({"agents": []})), clock).find("@nobody") is None


@pytest.mark.parametrize(
    "broken",
    [answer({}, 500), answer({"detail": "no"}, 404), EgressFailed("no", "connect")],
    ids=["500", "404", "unreachable"],
)
async def test_a_directory_that_fails_is_a_fault(clock: FakeClock, broken: Any) -> None:  # noqa: ANN401 -- an answer or a fault
    with pytest.raises(UpstreamFault):
        await open_one(Wire(*[broken] * 3), clock).search("x", 1)


async def test_a_network_that_fails_twice_is_tried_a_third_time(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agentverse, "PAUSES_S", (0, 0))
    wire = Wire(EgressFailed("no", "connect"), EgressFailed("no", "broken"), answer({"agents": []}))
    assert await open_one(wire, clock).search("x", 1) == []
    assert len(wire.asked) == 3


@pytest.mark.parametrize("body", [b"", b"no", b"[]", b'{"agents": 5}', b"\xff", b"[" * 9999])
async def test_an_answer_without_shape_is_no_agents(clock: FakeClock, body: bytes) -> None:
    assert await open_one(Wire(FakeFetched(200, body)), clock).search("x", 1) == []
    assert await open_one(Wire(FakeFetched(200, body)), clock).resolve(ADDRESS) == []


@pytest.mark.req("HOSTED-01")
@pytest.mark.parametrize("base", ["https://agentverse.ai", "http://127.0.0.1:8000/"])
async def test_the_hosted_agentverse_is_searched_and_resolves_as_any_other(clock: FakeClock, base: str) -> None:
    record = {"address": ADDRESS, "endpoints": [{"url": "https://a.test/submit", "weight": 1}]}
    wire = Wire(answer({"agents": [{"address": ADDRESS, "name": "rome"}]}), answer(record))
    one = Agentverse(base, wire, clock)  # type: ignore[arg-type]  # a double of what it uses
    assert [hit.card.name for hit in await one.search("weather", 5)] == ["rome"]
    assert await one.resolve(ADDRESS) == ["https://a.test/submit"]
    assert [(asked.method, asked.url.removeprefix(base.rstrip("/"))) for asked in wire.asked] == [
        ("POST", "/v1/search/agents"),
        ("GET", f"/v1/almanac/agents/{ADDRESS}"),
    ]

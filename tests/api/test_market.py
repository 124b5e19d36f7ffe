"""The marketplace's routes as agents' libraries ask them: registrations, listings, mailboxes, the proxy, files."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from convene.config import Registry
from signed_agents import CHAT, SUBMIT, SignedAgent

if TYPE_CHECKING:
    import httpx2

    from api.conftest import Served

LOCAL = {"host": "127.0.0.1:8000"}
MAILBOX = "http://127.0.0.1:8000/v2/agents/mailbox/submit"
PROXY = "http://127.0.0.1:8000/v2/agents/proxy/submit"
EMPTY: dict[str, Any] = {}


class Visit:
    """One application, and a way to ask it as an agent or an owner does."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.headers = LOCAL

    async def ask(self, method: str, path: str, body: object = None, auth: str = "", **headers: str) -> httpx2.Response:
        sent = self.headers | ({"authorization": auth} if auth else {}) | headers
        content = None if body is None else json.dumps(body)
        return await self.served.http.request(method, path, content=content, headers=sent)

    async def register(self, agent: SignedAgent, age_s: int = 0, **fields: object) -> httpx2.Response:
        return await self.ask("POST", "/v1/almanac/agents", agent.registration(time.time() - age_s, **fields))  # type: ignore[arg-type]  # tests name real fields

    async def status(self, agent: SignedAgent, *, active: bool, age_s: int = 0) -> httpx2.Response:
        body = agent.status(time.time() - age_s, active=active)
        return await self.ask("POST", f"/v1/almanac/agents/{agent.address}/status", body)

    async def record(self, name: str) -> Any:  # noqa: ANN401 -- JSON
        answer = await self.ask("GET", f"/v1/almanac/agents/{name}")
        return None if answer.status_code == 404 else answer.json()

    @property
    def bearer(self) -> str:
        return f"Bearer {self.served.key}"

    async def own(self, agent: SignedAgent, bearer: str = "") -> httpx2.Response:
        """Prove that an agent is a key's (LIST-04)."""
        bearer = bearer or self.bearer
        challenge = await self.ask("GET", f"/v2/identity/{agent.address}/challenge", auth=bearer)
        text = challenge.json()["challenge"]
        proof = {"address": agent.address, "challenge": text, "challenge_response": agent.answer(text)}
        return await self.ask("POST", "/v2/identity", proof, bearer)

    async def list(self, agent: SignedAgent, **fields: object) -> httpx2.Response:
        return await self.ask("POST", "/v2/agents", {"address": agent.address} | fields, self.bearer)


@pytest.fixture
def visit(served: Served) -> Visit:
    return Visit(served)


@pytest.fixture
def ann() -> SignedAgent:
    return SignedAgent("ann")


@pytest.fixture
def bob() -> SignedAgent:
    return SignedAgent("bob")


def says(answer: httpx2.Response, status: int, code: str) -> bool:
    """Whether it is an error in the words of decision 11."""
    body = answer.json()
    assert body["detail"] == body["error"]["message"]
    assert (answer.status_code, body["error"]["code"]) == (status, code), answer.text
    return True


@pytest.mark.req("REG-01", "REG-17", "RES-01", "RES-02", "ENVL-09")
async def test_a_registered_agent_resolves(visit: Visit, ann: SignedAgent) -> None:
    answer = await visit.register(ann)
    assert (answer.status_code, answer.json()) == (200, {})
    record = await visit.record(ann.address)
    expiry = record.pop("expiry")
    assert record == {
        "status": "active",
        "type": "custom",
        "address": ann.address,
        "prefix": "agent",
        "domain_name": None,
        "endpoints": [{"url": SUBMIT, "weight": 1}],
        "metadata": {"geolocation": {"latitude": "52.2", "longitude": "0.12"}},
        "protocols": [CHAT.removeprefix("proto:")],
    }
    assert expiry.startswith("20")
    assert await visit.record(SignedAgent("nobody").address) is None
    assert (await visit.ask("GET", f"/v1/almanac/agents/{ann.address}?prefix=agent")).status_code == 200


@pytest.mark.req("REG-18")
async def test_doubled_slashes_are_as_one(visit: Visit, ann: SignedAgent) -> None:
    assert (await visit.ask("POST", "//v1/almanac/agents", ann.registration(time.time()))).status_code == 200
    assert (await visit.ask("GET", f"//v1//almanac/agents/{ann.address}")).status_code == 200


@pytest.mark.req("REG-12")
async def test_nothing_old_and_nothing_forged_is_taken(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    await visit.register(ann)
    assert says(await visit.register(ann, age_s=10, protocols=[]), 409, "stale_registration")
    forged = bob.registration(time.time()) | {"agent_identifier": f"agent://{ann.address}"}
    assert says(await visit.ask("POST", "/v1/almanac/agents", forged), 400, "invalid_signature")
    assert says(await visit.ask("POST", "/v1/almanac/agents", {}), 400, "invalid_attestation")
    assert says(await visit.ask("POST", "/v1/almanac/agents", [1]), 400, "invalid_json")
    assert (await visit.record(ann.address))["protocols"] == [CHAT.removeprefix("proto:")]
    assert await visit.record(bob.address) is None


async def test_the_same_registration_again_is_no_error(visit: Visit, ann: SignedAgent) -> None:
    """A library repeats what took longer than its second; a Bureau what it signed at its start (REG-02)."""
    body = ann.registration(time.time() - 3_600)
    for _ in range(3):
        assert (await visit.ask("POST", "/v1/almanac/agents", body)).status_code == 200


@pytest.mark.req("REG-05")
async def test_a_bureau_registers_all_of_its_agents(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    now = time.time()
    both = [ann.registration(now), bob.registration(now)]
    path = "/v1/almanac/agents/batch"
    assert (await visit.ask("POST", path, {"attestations": both})).status_code == 200
    assert await visit.record(ann.address)
    assert await visit.record(bob.address)
    eve = SignedAgent("eve")
    again = [ann.registration(now - 9, protocols=[]), eve.registration(now)]
    assert (await visit.ask("POST", path, {"attestations": again})).status_code == 200, "old ones are passed over"
    assert await visit.record(eve.address)
    forged = [SignedAgent("dan").registration(now), ann.registration(now) | {"protocols": []}]
    assert says(await visit.ask("POST", path, {"attestations": forged}), 400, "invalid_signature")
    assert await visit.record(SignedAgent("dan").address) is None
    assert (await visit.ask("POST", path, {"attestations": []})).status_code == 200
    for wrong in ({}, {"attestations": [1]}, {"attestations": both * 251}):
        assert (await visit.ask("POST", path, wrong)).status_code == 400


@pytest.mark.req("REG-06")
async def test_an_agent_says_that_it_has_stopped(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    assert (await visit.status(ann, active=True)).status_code == 200, "unknown yet (REG-06)"
    await visit.register(ann, age_s=9)
    assert (await visit.status(ann, active=False, age_s=5)).status_code == 200
    assert (await visit.record(ann.address))["status"] == "inactive"
    assert (await visit.status(ann, active=True, age_s=7)).status_code == 200, "an old one changes nothing"
    assert (await visit.record(ann.address))["status"] == "inactive"
    forged = bob.status(time.time(), active=True) | {"agent_identifier": f"agent://{ann.address}"}
    path = f"/v1/almanac/agents/{ann.address}/status"
    assert says(await visit.ask("POST", path, forged), 400, "invalid_signature")
    other = bob.status(time.time(), active=True)
    assert (await visit.ask("POST", path, other)).status_code == 400
    assert (await visit.record(ann.address))["status"] == "inactive"
    await visit.register(ann)
    assert (await visit.record(ann.address))["status"] == "active"


@pytest.mark.req("REG-04")
async def test_a_registration_stands_for_two_days(visit: Visit, ann: SignedAgent) -> None:
    await visit.register(ann)
    row = await visit.served.app.market.almanac.resolve(ann.address)
    assert row is not None
    assert 47.9 < (row.expires_us / 1e6 - time.time()) / 3600 <= 48


@pytest.mark.req("RES-05", "TRAP-03")
async def test_this_server_resolves_like_any_agent_and_for_ever(visit: Visit) -> None:
    address = visit.served.app.agents.address
    record = await visit.record(address)
    assert record["status"] == "active"
    assert record["endpoints"][0]["url"].endswith("/agents/inbox")
    assert record["expiry"].startswith("9999-")
    assert (await visit.ask("GET", f"/v2/almanac/resolve/{address}")).json() == record


@pytest.mark.req("RES-06")
async def test_names_resolve(visit: Visit, ann: SignedAgent) -> None:
    await visit.register(ann)
    await visit.own(ann)
    assert (await visit.list(ann, name="Ann", handle="best-ann")).json() == {"success": True}
    for name in ("best-ann", "@best-ann", "Best-Ann", ann.address, f"agent://{ann.address}"):
        assert (await visit.ask("GET", f"/v2/almanac/resolve/{name}")).json()["address"] == ann.address
    domain = (await visit.ask("GET", "/v1/almanac/domains/best-ann")).json()
    assert domain.pop("expiry")
    expected = {"name": "best-ann", "status": "Registered"}
    assert domain == expected | {"assigned_agents": [{"address": ann.address, "weight": 1}]}
    assert says(await visit.ask("GET", "/v1/almanac/domains/nobody"), 404, "agent_not_found")
    assert says(await visit.ask("GET", "/v2/almanac/resolve/nobody"), 404, "agent_not_found")
    assert says(await visit.ask("GET", "/v2/almanac/resolve/no%20name"), 400, "invalid_identifier")


@pytest.mark.req("RES-07", "RES-08")
async def test_agents_are_listed_by_the_protocol_they_speak(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    await visit.register(ann)
    await visit.register(bob, protocols=["proto:" + "1" * 64])
    bare = CHAT.removeprefix("proto:")
    for text in (bare, CHAT):
        found = await visit.ask("POST", "/v1/almanac/search", {"text": text})
        assert found.json() == [{"address": ann.address, "status": "active"}]
    assert (await visit.ask("POST", "/v1/almanac/search", {"text": "2" * 64})).json() == []
    assert (await visit.ask("POST", "/v1/almanac/search", {})).status_code == 400
    recent = (await visit.ask("GET", "/v1/almanac/recent?limit=1")).json()
    assert [one["address"] for one in recent] == [bob.address]


def manifest(name: str = "Sums", models: tuple[str, ...] = ("b", "a")) -> dict[str, Any]:
    return {
        "version": "1.0",
        "metadata": {"name": name, "version": "2.1"},
        "models": [{"digest": f"model:{one}", "schema": {"title": one}} for one in models],
        "interactions": [{"type": "normal", "request": "model:b", "responses": ["model:a"]}],
    }


@pytest.mark.req("REG-08", "RES-08")
async def test_a_protocol_is_published_under_its_digest(visit: Visit) -> None:
    from uagents_core.protocol import ProtocolSpecification  # noqa: PLC0415 -- only this test asks the library

    body = manifest()
    digest = ProtocolSpecification.compute_digest(body)
    assert (await visit.ask("POST", "/v1/almanac/manifests", body)).status_code == 200
    body["metadata"]["digest"] = digest
    assert (await visit.ask("POST", "/v1/almanac/manifests", body)).status_code == 200
    shown = await visit.ask("GET", f"/v1/almanac/manifests/protocols/{digest.removeprefix('proto:')}")
    assert shown.json()["interactions"] == body["interactions"]
    assert (await visit.ask("GET", f"/v2/almanac/manifest/{digest}")).json()["metadata"]["name"] == "Sums"
    wrong = manifest() | {"metadata": {"name": "x", "version": "1", "digest": "proto:" + "0" * 64}}
    assert says(await visit.ask("POST", "/v1/almanac/manifests", wrong), 400, "invalid_digest")
    for none in ({}, manifest() | {"models": [5]}, manifest() | {"metadata": 5}, manifest() | {"interactions": {}}):
        assert says(await visit.ask("POST", "/v1/almanac/manifests", none), 400, "invalid_manifest")


@pytest.mark.req("REG-09")
async def test_the_protocols_of_the_libraries_are_named_from_the_start_and_by_nobody_else(visit: Visit) -> None:
    from uagents_core.contrib.protocols.chat import chat_protocol_spec  # noqa: PLC0415 -- only this test asks it

    async def names() -> dict[str, str]:
        known = (await visit.ask("GET", "/v1/almanac/manifests/digests")).json()
        return {one["digest"]: one["name"] for one in known}

    before = await names()
    assert before[CHAT] == "AgentChatProtocol"
    assert set(before.values()) == {
        *("AgentChatProtocol", "AgentPaymentProtocol", "AgentSubscriptionProtocol", "MCPProtocol")
    }
    assert (await visit.ask("GET", f"/v2/almanac/manifest/{CHAT}")).status_code == 404
    chat = chat_protocol_spec.manifest()
    chat["metadata"]["name"] = "Evil"
    assert (await visit.ask("POST", "/v1/almanac/manifests", chat)).status_code == 200
    assert await names() == before
    assert (await visit.ask("GET", f"/v2/almanac/manifest/{CHAT}")).json()["models"] == chat["models"]


@pytest.mark.req("LIST-01", "LIST-04", "LIST-05", "LIST-07")
async def test_an_owner_proves_an_agent_and_lists_it(visit: Visit, ann: SignedAgent) -> None:
    assert (await visit.own(ann)).json() == {"address": ann.address}
    body = {"name": "Ann", "handle": "ann", "profile": {"readme": "# Ann"}, "protocols": [CHAT]}
    answer = await visit.list(ann, endpoints=[{"url": SUBMIT, "weight": 1}], **body)
    assert (answer.status_code, answer.json()) == (200, {"success": True})
    shown = (await visit.ask("GET", f"/v2/agents/{ann.address}", auth=visit.bearer)).json()
    assert (shown["name"], shown["handle"], shown["profile"]["readme"]) == ("Ann", "ann", "# Ann")
    record = await visit.record(ann.address)
    assert (record["endpoints"], record["expiry"][:5]) == ([{"url": SUBMIT, "weight": 1}], "9999-")
    page = (await visit.ask("GET", "/v2/agents?limit=1&offset=0", auth=visit.bearer)).json()
    assert [one["address"] for one in page["items"]] == [ann.address]
    assert (await visit.ask("GET", "/v2/agents?limit=30&offset=1", auth=visit.bearer)).json()["items"] == []


@pytest.mark.req("LIST-05")
async def test_a_challenge_is_answered_once_with_the_right_key(
    visit: Visit, ann: SignedAgent, bob: SignedAgent
) -> None:
    path = f"/v2/identity/{ann.address}/challenge"
    text = (await visit.ask("GET", path, auth=visit.bearer)).json()["challenge"]
    proof = {"address": ann.address, "challenge": text, "challenge_response": bob.answer(text)}
    assert says(await visit.ask("POST", "/v2/identity", proof, visit.bearer), 400, "invalid_challenge")
    other = proof | {"challenge": "mine", "challenge_response": ann.answer("mine")}
    assert says(await visit.ask("POST", "/v2/identity", other, visit.bearer), 400, "invalid_challenge")
    proof["challenge_response"] = ann.answer(text)
    assert (await visit.ask("POST", "/v2/identity", proof, visit.bearer)).status_code == 200
    assert says(await visit.ask("POST", "/v2/identity", proof, visit.bearer), 400, "invalid_challenge")
    assert (await visit.ask("GET", path)).status_code == 401
    assert (await visit.ask("GET", "/v2/identity/agent1q/challenge", auth=visit.bearer)).status_code == 400


@pytest.mark.req("LIST-06", "LIST-10")
async def test_what_is_another_owners_looks_like_nothing(visit: Visit, ann: SignedAgent) -> None:
    await visit.own(ann)
    await visit.list(ann, name="Ann")
    key, _ = await visit.served.app.accounts.ring.create("other", owner="other")
    other = f"Bearer {key}"
    address = f"/v2/agents/{ann.address}"
    assert says(await visit.ask("GET", address, auth=other), 404, "agent_not_found")
    assert says(await visit.ask("DELETE", address, auth=other), 404, "agent_not_found")
    body = {"address": ann.address, "name": "Mine"}
    assert says(await visit.ask("POST", "/v2/agents", body, other), 403, "agent_not_proven")
    assert says(await visit.own(ann, other), 409, "agent_owned")
    assert (await visit.ask("GET", "/v2/agents", auth=other)).json()["items"] == []
    assert says(await visit.ask("GET", address, auth="Bearer wrong"), 401, "invalid_api_key")
    assert says(await visit.ask("GET", address), 401, "invalid_api_key")


@pytest.mark.req("LIST-01")
async def test_a_team_is_the_keys_own(visit: Visit, ann: SignedAgent) -> None:
    path = f"/v2/identity/{ann.address}/challenge"
    answer = await visit.ask("GET", path, auth=visit.bearer, **{"x-team": "team_1"})
    assert says(answer, 403, "permission_denied")


@pytest.mark.req("LIST-02", "LIST-09", "REG-16")
async def test_an_agent_shows_and_lists_itself_by_its_attestation(visit: Visit, ann: SignedAgent) -> None:
    auth = ann.attestation(time.time())
    path = f"/v2/agents/{ann.address}"
    unknown = await visit.ask("GET", path, auth=auth)
    assert (unknown.status_code, unknown.json()["name"]) == (200, None), "an open registry (LIST-09)"
    listing = {"address": ann.address, "profile": {"readme": "# A2A"}, "endpoints": [{"url": PROXY, "weight": 1}]}
    assert (await visit.ask("POST", "/v2/agents", listing, auth)).status_code == 200
    assert (await visit.ask("POST", "/v2/agents", {"address": ann.address, "name": "Ann"}, auth)).status_code == 200
    shown = (await visit.ask("GET", path, auth=auth)).json()
    assert (shown["name"], shown["profile"]["readme"]) == ("Ann", "# A2A")
    other = SignedAgent("bob").attestation(time.time())
    assert (await visit.ask("GET", path, auth=other)).status_code == 404
    assert says(await visit.ask("POST", "/v2/agents", listing, other), 403, "agent_not_proven")
    assert says(await visit.ask("GET", path, auth=ann.attestation(time.time() - 9999)), 401, "invalid_attestation")


@pytest.mark.req("LIST-10", "LIST-11")
async def test_a_handle_is_one_agents_and_limits_are_told(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    await visit.own(ann)
    await visit.own(bob)
    await visit.list(ann, handle="best")
    assert says(await visit.list(bob, handle="BEST"), 409, "handle_taken")
    refused = await visit.list(bob, name="x" * 33)
    assert refused.status_code == 400
    assert "at most 32" in refused.json()["detail"]


@pytest.mark.req("LIST-13")
async def test_listings_are_changed_and_taken_away(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    for agent in (ann, bob):
        await visit.own(agent)
    agents = [{"address": one.address, "name": name} for one, name in ((ann, "Ann"), (bob, "Bob"))]
    assert (await visit.ask("POST", "/v2/agents/batch", {"agents": agents}, visit.bearer)).status_code == 200
    assert (await visit.ask("POST", "/v2/agents/batch", {"agents": 5}, visit.bearer)).status_code == 400
    change = {"address": ann.address, "name": "New", "redirect_url": "https://a.test/", "readme": "# R"}
    path = f"/v2/agents/{ann.address}"
    assert (await visit.ask("PUT", path, change, visit.bearer)).status_code == 200
    shown = (await visit.ask("GET", path, auth=visit.bearer)).json()
    assert (shown["name"], shown["url"], shown["profile"]["readme"]) == ("New", "https://a.test/", "# R")
    assert (await visit.ask("DELETE", path, auth=visit.bearer)).json() == {"success": True}
    assert (await visit.ask("GET", path, auth=visit.bearer)).status_code == 404
    await visit.register(bob)
    assert (await visit.ask("DELETE", f"/v2/agents/{bob.address}", auth=visit.bearer)).status_code == 200
    assert await visit.record(bob.address), "what it registers itself stays"
    told = {"target": bob.address, "session_id": "s", "source": ann.address}
    auth = ann.attestation(time.time())
    assert (await visit.ask("POST", "/v2/agents/interactions", told, auth)).status_code == 200
    assert (await visit.ask("POST", "/v2/agents/interactions", told)).status_code == 401


@pytest.mark.req("LIST-14", "LIST-15")
async def test_telemetry_is_always_welcome_and_never_kept(visit: Visit, ann: SignedAgent) -> None:
    for auth in ("", "Bearer wrong", ann.attestation(0), ann.attestation(time.time())):
        for body in (None, {}, {"events": [{"traceback": "secret"}]}, {"events": "x" * 2_000_000}):
            answer = await visit.ask("POST", "/v1/events", body, auth)
            assert 200 <= answer.status_code < 300


@pytest.mark.req("MBOX-01", "MBOX-02", "MBOX-03", "PROBE-01")
async def test_a_mailbox_agent_fetches_its_envelopes(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    path = "/v2/agents/mailbox/submit"
    mailbox = f"/v2/agents/{ann.address}/mailbox"
    auth = ann.attestation(time.time())
    letter = bob.envelope(ann.address)
    assert says(await visit.ask("POST", path, letter), 404, "mailbox_not_found")
    assert says(await visit.ask("GET", mailbox, auth=auth), 404, "mailbox_not_found")
    await visit.register(ann, endpoints=(MAILBOX,))
    assert (await visit.record(ann.address))["type"] == "mailbox"
    assert (await visit.ask("GET", mailbox, auth=auth)).json() == []
    answer = await visit.ask("POST", path, letter)
    assert (answer.status_code, answer.json()) == (200, {})
    [waiting] = (await visit.ask("GET", mailbox, auth=auth)).json()
    assert set(waiting) == {"uuid", "envelope", "received_at", "expires_at"}
    assert waiting["envelope"] == letter
    assert UUID(waiting["uuid"]).version == 4
    for stranger in (bob.attestation(time.time()), visit.bearer):
        assert (await visit.ask("GET", mailbox, auth=stranger)).status_code == 403
        assert (await visit.ask("DELETE", f"{mailbox}/{waiting['uuid']}", auth=stranger)).status_code == 403
    assert (await visit.ask("DELETE", f"{mailbox}/{waiting['uuid']}", auth=auth)).status_code == 200
    assert says(await visit.ask("DELETE", f"{mailbox}/{waiting['uuid']}", auth=auth), 404, "envelope_not_found")
    assert (await visit.ask("GET", mailbox, auth=auth)).json() == []
    for agent, said in ((ann.address, "ready"), (bob.address, "not-ready")):
        probe = await visit.ask("HEAD", path, **{"x-uagents-address": agent})
        assert (probe.status_code, probe.headers["x-uagents-status"]) == (200, said)
    assert (await visit.ask("HEAD", path)).headers["x-uagents-status"] == "indeterminate"


@pytest.mark.parametrize(
    "change",
    [
        {"signature": None},
        {"signature": "sig1qq"},
        {"sender": SignedAgent("eve").address},
        {"payload": base64.b64encode(b"changed").decode()},
        {"expires": 5},
        {"nonce": -1},
        {"session": "not a uuid"},
        {"session": "00000000-0000-1000-8000-000000000000"},
        {"schema_digest": 5},
        {"target": "agent1q"},
        {"sender": "user1" + "q" * 60},
    ],
)
async def test_no_mailbox_takes_what_its_sender_has_not_signed(
    visit: Visit, ann: SignedAgent, bob: SignedAgent, change: dict[str, Any]
) -> None:
    await visit.register(ann, endpoints=(MAILBOX,))
    answer = await visit.ask("POST", "/v2/agents/mailbox/submit", bob.envelope(ann.address) | change)
    assert answer.status_code == 400
    assert (await visit.ask("GET", f"/v2/agents/{ann.address}/mailbox", auth=ann.attestation(time.time()))).json() == []


async def test_a_full_mailbox_says_so(serve: Any, ann: SignedAgent, bob: SignedAgent) -> None:  # noqa: ANN401 -- a factory
    async with serve(registry=Registry(letters_max=1)) as served:
        visit = Visit(served)
        await visit.register(ann, endpoints=(MAILBOX,))
        path = "/v2/agents/mailbox/submit"
        assert (await visit.ask("POST", path, bob.envelope(ann.address))).status_code == 200
        assert says(await visit.ask("POST", path, bob.envelope(ann.address)), 503, "server_busy")


async def test_where_keys_are_asked_for_a_stranger_registers_nothing(serve: Any, ann: SignedAgent) -> None:  # noqa: ANN401 -- a factory
    async with serve(registry=Registry(access="keys", allow=(SignedAgent("bob").address,))) as served:
        visit = Visit(served)
        assert says(await visit.register(ann), 403, "registration_closed")
        auth = ann.attestation(time.time())
        assert (await visit.ask("GET", f"/v2/agents/{ann.address}", auth=auth)).status_code == 404
        assert says(await visit.ask("POST", "/v2/agents", {"address": ann.address}, auth), 403, "registration_closed")
        assert (await visit.register(SignedAgent("bob"))).status_code == 200, "allowed"
        await visit.own(ann)
        assert (await visit.register(ann)).status_code == 200, "proven with a key"
        body = SignedAgent("eve").registration(time.time())
        assert (await visit.ask("POST", "/v1/almanac/agents", body, visit.bearer)).status_code == 200, "with a key"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "convene.test"},
        {"x-forwarded-for": "203.0.113.9"},
        {"origin": "https://evil.test"},
        {"origin": "http://127.0.0.1:8000"},
        {"sec-fetch-site": "cross-site"},
    ],
)
async def test_open_on_loopback_is_not_open_to_pages_and_proxies(
    visit: Visit, ann: SignedAgent, headers: dict[str, str]
) -> None:
    body = ann.registration(time.time())
    answer = await visit.ask("POST", "/v1/almanac/agents", body, **headers)
    assert says(answer, 403, "registration_closed")
    assert (await visit.ask("POST", "/v1/almanac/agents", body)).status_code == 200


async def test_a_full_registry_takes_those_it_knows_and_no_more(serve: Any, ann: SignedAgent, bob: SignedAgent) -> None:  # noqa: ANN401 -- a factory
    async with serve(registry=Registry(agents_max=1)) as served:
        visit = Visit(served)
        assert (await visit.register(ann, age_s=5)).status_code == 200
        assert says(await visit.register(bob), 503, "server_busy")
        assert (await visit.register(ann)).status_code == 200


async def test_a_registry_that_is_switched_off_is_not_there(serve: Any, ann: SignedAgent) -> None:  # noqa: ANN401 -- a factory
    async with serve(registry=Registry(enabled=False)) as served:
        assert (await Visit(served).register(ann)).status_code == 404


@pytest.mark.req("STORE-01")
async def test_files_are_left_and_fetched_by_those_who_may(visit: Visit, ann: SignedAgent, bob: SignedAgent) -> None:
    picture = base64.b64encode(b"\x89PNG").decode()
    body = {"name": "a", "mime_type": "image/png", "contents": picture, "lifetime_hours": 1}
    made = await visit.ask("POST", "/v1/storage/assets/", body, visit.bearer)
    assert made.status_code == 201
    path = f"/v1/storage/assets/{made.json()['asset_id']}"
    auth = ann.attestation(time.time())
    assert says(await visit.ask("GET", f"{path}/contents/", auth=auth), 404, "asset_not_found")
    permission = {"agent_address": ann.address, "read": True, "write": False}
    assert says(await visit.ask("PUT", f"{path}/permissions/", permission, auth), 401, "invalid_api_key")
    assert (await visit.ask("PUT", f"{path}/permissions/", permission, visit.bearer)).status_code == 200
    shown = (await visit.ask("GET", f"{path}/contents/", auth=auth)).json()
    assert (shown["contents"], shown["mime_type"]) == (picture, "image/png")
    new = {"contents": base64.b64encode(b"new").decode(), "mime_type": "text/plain"}
    assert (await visit.ask("PUT", f"{path}/contents/", new, auth)).status_code == 404, "read only"
    await visit.ask("PUT", f"{path}/permissions/", permission | {"write": True}, visit.bearer)
    assert (await visit.ask("PUT", f"{path}/contents/", new, auth)).status_code == 200
    assert (await visit.ask("GET", f"{path}/contents/", auth=visit.bearer)).json()["contents"] == new["contents"]
    assert (await visit.ask("GET", f"{path}/contents/", auth=bob.attestation(time.time()))).status_code == 404
    assert (await visit.ask("GET", f"{path}/contents/")).status_code == 404
    await visit.ask("PUT", f"{path}/permissions/", {"agent_address": "*"}, visit.bearer)
    assert (await visit.ask("GET", f"{path}/contents/")).status_code == 200
    for wrong in ({"lifetime_hours": 0}, {"lifetime_hours": 25}, {"contents": "?"}, {"mime_type": "x"}, {"name": 5}):
        assert (await visit.ask("POST", "/v1/storage/assets/", body | wrong, visit.bearer)).status_code == 400
    assert (await visit.ask("POST", "/v1/storage/assets/", body, auth)).status_code == 401


@pytest.mark.req("LIST-17")
async def test_an_old_library_lists_itself_and_polls_with_a_token(
    visit: Visit, ann: SignedAgent, bob: SignedAgent
) -> None:
    asked = await visit.ask("POST", "/v1/auth/challenge", {"address": ann.address}, visit.bearer)
    text = asked.json()["challenge"]
    proof = {"address": ann.address, "challenge": text, "challenge_response": ann.answer(text)}
    old = proof | {"prefix": "test-agent", "endpoint": None, "agent_type": "mailbox"}
    assert (await visit.ask("POST", "/v1/agents", old, visit.bearer)).status_code == 200
    details = {"name": "Old Ann " + "x" * 60, "readme": "# Old", "avatar_url": "", "short_description": "still here"}
    assert (await visit.ask("PUT", f"/v1/agents/{ann.address}", details, visit.bearer)).status_code == 200
    shown = (await visit.ask("GET", f"/v2/agents/{ann.address}", auth=visit.bearer)).json()
    assert (shown["profile"]["readme"], shown["profile"]["description"]) == ("# Old", "still here")
    assert (shown["prefix"], (await visit.record(ann.address))["type"]) == ("test-agent", "mailbox")

    text = (await visit.ask("POST", "/v1/auth/challenge", {"address": ann.address})).json()["challenge"]
    proof = {"address": ann.address, "challenge": text, "challenge_response": ann.answer(text)}
    token = (await visit.ask("POST", "/v1/auth/prove", proof)).json()["access_token"]
    assert says(await visit.ask("POST", "/v1/auth/prove", proof), 400, "invalid_challenge")
    auth = f"token {token}"
    assert (await visit.ask("GET", "/v1/mailbox", auth=auth)).json()["items"] == []
    assert (await visit.ask("POST", "/v1/submit", bob.envelope(ann.address))).status_code == 200
    [item] = (await visit.ask("GET", "/v1/mailbox", auth=auth)).json()["items"]
    assert (await visit.ask("DELETE", f"/v1/mailbox/{item['uuid']}", auth=auth)).status_code == 200
    for wrong in (f"{auth}q", auth.replace(ann.address, bob.address), "token x", "token a.9.b", visit.bearer):
        assert (await visit.ask("GET", "/v1/mailbox", auth=wrong)).status_code == 401
    assert (await visit.ask("DELETE", f"/v1/agents/{ann.address}", auth=visit.bearer)).status_code == 200


@pytest.mark.req("LIST-16")
async def test_the_inspector_reaches_this_machine_alone(visit: Visit) -> None:
    page = await visit.ask("GET", "/inspect/?uri=http%3A//127.0.0.1%3A8001&address=%3Cb%3E")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src http://127.0.0.1:* http://localhost:*;" in policy
    assert "unsafe" not in policy
    assert 'data-uri="http://127.0.0.1:8001"' in page.text
    assert "[hidden]{display:none!important}" in page.text  # a label is a block, whatever is hidden
    assert "&lt;b&gt;" in page.text
    assert "<b>" not in page.text
    for uri in ("", "https://evil.test", "http://evil.test:80", "http://127.0.0.1", "http://a@127.0.0.1:1", "x:y"):
        assert (await visit.ask("GET", f"/inspect/?uri={uri}")).status_code == 400
    for path in ("http://127.0.0.1:1/x", "http://127.0.0.1:1?x", "http://127.0.0.1:x", "javascript://127.0.0.1:1"):
        assert (await visit.ask("GET", "/inspect/?uri=" + path.replace("?", "%3F"))).status_code == 400


@pytest.mark.req("HOST-01")
async def test_no_code_of_agents_is_hosted(visit: Visit) -> None:
    for path in ("/v1/hosting/agents", "/v2/hosting/agents"):
        assert (await visit.ask("GET", path, auth=visit.bearer)).status_code == 404


@pytest.mark.req("PROXY-01")
async def test_the_proxy_hands_on_body_and_connection_and_gives_the_answer_back(
    visit: Visit, ann: SignedAgent, bob: SignedAgent
) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        seen.append(head + await reader.readexactly(length))
        writer.write(
            b'HTTP/1.1 202 Ok\r\ncontent-type: text/html\r\nset-cookie: a=b\r\ncontent-length: 8\r\n\r\n{"a": 1}'
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = "/v2/agents/proxy/submit"
    body = bob.envelope(ann.address)
    async with server:
        assert says(await visit.ask("POST", path, body), 404, "agent_not_found")
        await visit.own(ann)
        await visit.list(ann, name="Web", url=f"http://127.0.0.1:{port}/hook", endpoints=[{"url": PROXY, "weight": 1}])
        assert (await visit.record(ann.address))["type"] == "proxy"
        answer = await visit.ask("POST", path, body, **{"x-uagents-connection": "sync", "x-secret": "s", "cookie": "c"})
        assert (answer.status_code, answer.content) == (202, b'{"a": 1}')
        assert answer.headers["content-type"] == "application/json", "no page of a stranger's is shown as ours"
        assert "set-cookie" not in answer.headers
        probe = await visit.ask("HEAD", path, **{"x-uagents-address": ann.address})
        assert probe.headers["x-uagents-status"] == "ready"
    [got] = seen
    head, _, sent = got.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /hook HTTP/1.1\r\n")
    assert b"x-uagents-connection: sync" in head.lower()
    assert b"secret" not in head.lower()
    assert b"cookie" not in head.lower()
    assert sent == json.dumps(body).encode()
    gone = await visit.ask("POST", path, body)
    assert says(gone, 503, "model_unavailable")
    assert says(await visit.ask("POST", path, body, **{"x-convene-proxied": "1"}), 400, "proxy_loop")
    assert says(await visit.ask("POST", path, {"target": 5}), 400, "invalid_envelope")
    assert says(await visit.ask("POST", path, body, **{"x-uagents-connection": "other"}), 400, "invalid_header")


@pytest.mark.req("PROXY-02")
@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://169.254.169.254/latest", PROXY])
async def test_the_proxy_leads_to_no_network_that_is_not_allowed(
    visit: Visit, ann: SignedAgent, bob: SignedAgent, url: str
) -> None:
    await visit.own(ann)
    await visit.list(ann, url=url, endpoints=[{"url": PROXY, "weight": 1}])
    answer = await visit.ask("POST", "/v2/agents/proxy/submit", bob.envelope(ann.address))
    assert answer.status_code in {404, 503}
    assert "169.254" not in answer.text

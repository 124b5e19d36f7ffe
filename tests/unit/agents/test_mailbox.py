"""A mailbox elsewhere: how it is opened, emptied and looked at, against a double of the published API."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from uagents_core.identity import Identity as LibraryIdentity

from agent_doubles import FakeFetched
from convene.agent_identity import Identity
from convene.agents.base import Verdict
from convene.agents.mailbox import Mailbox, MailboxTerms, attestation_of
from convene.egress import EgressFailed
from convene.errors import UpstreamFault
from simulation import World, run

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.egress import Request

ME = Identity.from_seed("us")
KEY = "Bearer the key"


class Agentverse:
    """The other side. `fault` is raised by the next requests, `statuses` overrules answers by method and path."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.requests: list[Request] = []
        self.known = False
        self.proved = False
        self.stored: dict[str, object] | None = None
        self.statuses: dict[str, int] = {}
        self.fault: Exception | None = None

    async def fetch(self, request: Request) -> FakeFetched:
        path = request.url.removeprefix("https://av.test").replace(ME.address, "ME")
        self.asked.append((request.method, path))
        self.requests.append(request)
        if self.fault is not None:
            raise self.fault
        name = f"{request.method} {path}"
        if name in self.statuses:
            return FakeFetched(self.statuses[name], b'{"detail": "no"}')
        body = json.loads(request.body) if request.body else {}
        return self._answer(name, body)

    def _answer(self, name: str, body: Any) -> FakeFetched:  # noqa: ANN401 -- JSON
        if name == "GET /v2/agents/ME":
            return said({"address": ME.address}) if self.known else said({"detail": "unknown"}, 404)
        if name == "GET /v2/identity/ME/challenge":
            return said({"challenge": "prove it"})
        if name == "POST /v2/identity":
            digest = hashlib.sha256(b"prove it").digest()
            self.proved = LibraryIdentity.verify_digest(body["address"], digest, body["challenge_response"])
            return said({"address": body["address"]})
        if name == "POST /v2/agents":
            self.known = True
            return said({"success": True})
        if name == "GET /v2/agents/ME/mailbox":
            if self.stored is None:
                return said({"detail": "no mailbox"}, 404)
            return said([{"uuid": one, "envelope": body} for one, body in self.stored.items()])
        assert name.startswith("DELETE /v2/agents/ME/mailbox/")
        assert self.stored is not None
        del self.stored[name.rpartition("/")[2]]
        return said({})


def said(body: object, status: int = 200) -> FakeFetched:
    return FakeFetched(status, json.dumps(body).encode())


class Inbox:
    """Takes envelopes in, or says why not."""

    def __init__(self) -> None:
        self.taken: list[object] = []
        self.verdict = Verdict()
        self.waits = False

    async def receive(self, body: bytes) -> Verdict:
        self.taken.append(json.loads(body))
        return self.verdict


def opened(clock: Clock) -> tuple[Mailbox, Agentverse, Inbox]:
    there, inbox = Agentverse(), Inbox()
    terms = MailboxTerms(base_url="https://av.test/", key="the key")
    made = Mailbox(terms, ME, there, clock, inbox.receive, lambda: inbox.waits)  # type: ignore[arg-type]  # a double
    return made, there, inbox


@pytest.mark.req("CALL-04")
def test_it_is_opened_with_the_operators_key_and_a_proof_of_our_own_once() -> None:
    async def scene(world: World) -> None:
        mailbox, there, _ = opened(world.clock)
        await mailbox.open()
        assert there.proved
        assert there.asked == [
            ("GET", "/v2/agents/ME"),
            ("GET", "/v2/identity/ME/challenge"),
            ("POST", "/v2/identity"),
            ("POST", "/v2/agents"),
        ]
        assert all(dict(one.headers)["authorization"] == KEY for one in there.requests)
        listing = json.loads(there.requests[-1].body)
        assert listing["endpoints"] == [{"url": "https://av.test/v2/agents/mailbox/submit", "weight": 1}]
        assert listing["protocols"] == ["proto:30a801ed3a83f9a0ff0a9f1e6fe958cb91da1fc2218b153df7b6cbf87bd33d62"]
        await mailbox.open()
        assert there.asked[4:] == [("GET", "/v2/agents/ME"), ("POST", "/v2/agents")]

    run(scene, 1)


@pytest.mark.req("CALL-04")
def test_envelopes_are_taken_in_and_deleted() -> None:
    async def scene(world: World) -> None:
        mailbox, there, inbox = opened(world.clock)
        assert await mailbox.poll() == 0
        there.stored = {"a": {"n": 1}, "b": {"n": 2}}
        assert await mailbox.poll() == 2
        assert sorted(inbox.taken, key=str) == [{"n": 1}, {"n": 2}]
        assert there.stored == {}
        assert mailbox.endpoint == "https://av.test/v2/agents/mailbox/submit"

    run(scene, 1)


@pytest.mark.parametrize(("status", "left"), [(200, 0), (400, 0), (413, 0), (503, 1)])
def test_what_our_store_could_not_keep_stays_in_the_mailbox(status: int, left: int) -> None:
    async def scene(world: World) -> None:
        mailbox, there, inbox = opened(world.clock)
        there.stored = {"a": {"n": 1}}
        inbox.verdict = Verdict(status, "why")
        await mailbox.poll()
        assert len(there.stored) == left

    run(scene, 1)


@pytest.mark.req("CALL-04")
def test_the_mailbox_is_read_with_a_proof_that_is_made_anew_in_time() -> None:
    async def scene(world: World) -> list[str]:
        mailbox, there, _ = opened(world.clock)
        for _ in range(3):
            await mailbox.poll()
            await asyncio.sleep(1000)
        return [dict(one.headers)["authorization"] for one in there.requests]

    first, second, third = run(scene, 1)
    assert first.startswith("Agent attr:")
    assert first == second != third


def test_the_proof_is_one_that_the_library_would_make() -> None:
    made = attestation_of(ME, 1_800_000_000, b"n" * 32)
    scheme, encoded, signature = made.split(":")
    payload = base64.b64decode(encoded)
    library = LibraryIdentity.from_seed("us", 0)
    assert (scheme, len(payload)) == ("attr", 81)
    assert payload[:33].hex() == library.pub_key
    assert struct.unpack(">QQ", payload[33:49]) == (1_800_000_000, 1_800_003_600)
    assert LibraryIdentity.verify_digest(ME.address, hashlib.sha256(payload).digest(), signature)


def looks(world: World, seconds: float, *, waits: bool, fault: Exception | None = None) -> Any:  # noqa: ANN401 -- a coroutine
    async def play() -> int:
        mailbox, there, inbox = opened(world.clock)
        there.known, inbox.waits, there.fault = True, waits, fault
        task = asyncio.ensure_future(mailbox.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])
        return len([one for one in there.asked if fault is not None or one == ("GET", "/v2/agents/ME/mailbox")])

    return play()


def test_it_is_looked_at_every_second_while_an_answer_is_waited_for_else_seldom_and_after_faults_more_so() -> None:
    assert run(lambda world: looks(world, 59.5, waits=True), 1) == 60
    assert run(lambda world: looks(world, 59.5, waits=False), 1) == 12
    broken = EgressFailed("gone", "connect")
    assert run(lambda world: looks(world, 600.0, waits=True, fault=broken), 1) < 20


def test_a_look_comes_at_once_when_somebody_begins_to_wait() -> None:
    async def scene(world: World) -> list[object]:
        mailbox, there, inbox = opened(world.clock)
        there.known, there.stored = True, {}
        task = asyncio.ensure_future(mailbox.run())
        await asyncio.sleep(0.5)
        inbox.waits, there.stored = True, {"a": {"n": 1}}
        await asyncio.sleep(1.0)
        task.cancel()
        await asyncio.wait([task])
        return inbox.taken

    assert run(scene, 1) == [{"n": 1}]


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("POST /v2/agents", 500, "does not do what it should"),
        ("POST /v2/agents", 401, "agents.directory_key"),
        ("GET /v2/identity/ME/challenge", 403, "agents.directory_key"),
        ("POST /v2/identity", 400, "does not do what it should"),
    ],
)
def test_why_it_cannot_be_opened_is_said(name: str, status: int, words: str) -> None:
    async def scene(world: World) -> None:
        mailbox, there, _ = opened(world.clock)
        there.statuses[name] = status
        with pytest.raises(UpstreamFault, match=words):
            await mailbox.open()

    run(scene, 1)


@pytest.mark.parametrize("name", ["GET /v2/agents/ME/mailbox", "DELETE /v2/agents/ME/mailbox/a"])
def test_a_mailbox_that_cannot_be_read_or_emptied_is_a_fault(name: str) -> None:
    async def scene(world: World) -> None:
        mailbox, there, _ = opened(world.clock)
        there.stored = {"a": {"n": 1}}
        there.statuses[name] = 500
        with pytest.raises(UpstreamFault):
            await mailbox.poll()

    run(scene, 1)


@pytest.mark.parametrize("body", [b"not json", b"{}", b'[{"uuid": 5}]'])
def test_what_is_no_list_of_envelopes_is_a_fault(body: bytes) -> None:
    async def scene(world: World) -> None:
        mailbox, there, _ = opened(world.clock)

        async def fetch(request: Request) -> FakeFetched:
            del request
            return FakeFetched(200, body)

        there.fetch = fetch  # type: ignore[method-assign]  # a scene of its own
        with pytest.raises(UpstreamFault):
            await mailbox.poll()

    run(scene, 1)

"""A mailbox at an Agentverse elsewhere, for a server that agents cannot reach: registered, emptied, deleted (CALL-04).

    open   GET /v2/agents/{me} ─► 404: challenge, proof ─► POST /v2/agents     with the operator's key, once a start
    poll   GET /v2/agents/{me}/mailbox ─► each envelope to the inbox ─► DELETE   with a proof of our own key (LIST-02)

An envelope is deleted once the inbox has taken or refused it, and kept where our store could not keep it. Whatever
comes twice is known by the inbox. While answers are waited for the mailbox is looked at every second, else every few.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import struct
from typing import TYPE_CHECKING, Final, Protocol, TypeVar
from urllib.parse import quote

import msgspec

from convene.agent_identity import decode_bech32
from convene.agents.chat_codec import CHAT_PROTOCOL
from convene.egress import EgressBusy, EgressFailed, EgressRefused, Request
from convene.errors import UpstreamFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.agents.base import Verdict
    from convene.agents.courier import Sender
    from convene.clock import Clock

T = TypeVar("T")
log = logging.getLogger("convene.agents")

SUBMIT: Final = "/v2/agents/mailbox/submit"
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
WAIT_S: Final = 10.0
BUSY_S: Final = 1.0
"""Between looks while answers are waited for: 60 a minute, as agents themselves look (MBOX-04, HOSTED-05)."""
IDLE_LOOKS: Final = 5
"""Of that length each is the pause while nobody waits."""
FAULT_S_MAX: Final = 60.0
VALID_S: Final = 3_600
NONCE_BYTES: Final = 32
AT_ONCE: Final = 8
OK: Final = 200
NOT_FOUND: Final = 404
UNAVAILABLE: Final = 503
JSON: Final = ("content-type", "application/json")


class Prover(Protocol):
    """Our identity."""

    @property
    def address(self) -> str:
        """`agent1q...`."""
        ...

    def sign(self, data: bytes) -> str:
        """Return the signature of the hash of these bytes."""
        ...


class _Challenge(msgspec.Struct):
    challenge: str


class _Stored(msgspec.Struct):
    uuid: str
    envelope: msgspec.Raw


class MailboxTerms(msgspec.Struct, frozen=True, kw_only=True):
    """Where the mailbox is and how we are listed."""

    base_url: str
    key: str
    name: str = "Convene"


class Mailbox:
    """One mailbox."""

    def __init__(
        self,
        terms: MailboxTerms,
        me: Prover,
        egress: Sender,
        clock: Clock,
        receive: Callable[[bytes], Awaitable[Verdict]],
        waits: Callable[[], bool],
    ) -> None:
        """Take what is needed.

        Args:
            terms: where it is, and the operator's key there.
            me: whose it is.
            egress: the guarded way out.
            clock: the time, and nonces.
            receive: takes an envelope in (`base.Inbox.receive`).
            waits: whether an answer is waited for now.
        """
        self._base = terms.base_url.rstrip("/")
        self._terms = terms
        self._me = me
        self._egress = egress
        self._clock = clock
        self._receive = receive
        self._waits = waits
        self._proof = ("", 0.0)

    @property
    def endpoint(self) -> str:
        """Where agents send what is for us."""
        return self._base + SUBMIT

    async def run(self) -> None:
        """Open it and empty it until cancelled; what fails is tried again, more and more seldom."""
        tries, is_open = 0, False
        while True:
            try:
                if not is_open:
                    await self.open()
                    is_open = True
                taken = await self.poll()
            except UpstreamFault as fault:
                log.warning("the mailbox cannot be used: %s %s", fault.message, fault.detail)
                tries += 1
                await asyncio.sleep(min(FAULT_S_MAX, BUSY_S * 2 ** min(tries, 6)))
                continue
            tries = 0
            if not taken:
                await self._rest()

    async def _rest(self) -> None:
        """Wait for the next look, which comes sooner once an answer is waited for."""
        for _ in range(IDLE_LOOKS):
            await asyncio.sleep(BUSY_S)
            if self._waits():
                return

    async def open(self) -> None:
        """Register, if need be with a proof of our key, and list ourselves (LIST-04, -06). Raises `UpstreamFault`."""
        me = quote(self._me.address, safe="")
        status, _ = await self._ask("GET", f"/v2/agents/{me}", self._bearer())
        if status == NOT_FOUND:
            body = await self._done("GET", f"/v2/identity/{me}/challenge", self._bearer())
            challenge = _read(body, _Challenge).challenge
            proof = {
                "address": self._me.address,
                "challenge": challenge,
                "challenge_response": self._me.sign(challenge.encode()),
            }
            await self._done("POST", "/v2/identity", self._bearer(), proof)
        listing = {
            "address": self._me.address,
            "name": self._terms.name,
            "agent_type": "mailbox",
            "endpoints": [{"url": self.endpoint, "weight": 1}],
            "protocols": [CHAT_PROTOCOL],
        }
        await self._done("POST", "/v2/agents", self._bearer(), listing)

    async def poll(self) -> int:
        """Take in what is there and return how many envelopes that were. Raises `UpstreamFault`."""
        path = f"/v2/agents/{quote(self._me.address, safe='')}/mailbox"
        status, body = await self._ask("GET", path, self._proven())
        if status == NOT_FOUND:
            return 0  # nothing was ever sent to it (MBOX-02)
        if status != OK:
            raise self._fault("GET", path, status, body)
        found = _read(body, list[_Stored])
        slots = asyncio.Semaphore(AT_ONCE)

        async def take(one: _Stored) -> int:
            async with slots:
                verdict = await self._receive(bytes(one.envelope))
                if verdict.status == UNAVAILABLE:
                    return 0
                if verdict.status != OK:
                    log.warning("an envelope in the mailbox was not taken: %s", verdict.error)
                status, body = await self._ask("DELETE", f"{path}/{quote(one.uuid, safe='')}", self._proven())
                if status not in {OK, 204, NOT_FOUND}:
                    raise self._fault("DELETE", path, status, body)
                return 1

        taken = await asyncio.gather(*(take(one) for one in found), return_exceptions=True)
        for one in taken:
            if isinstance(one, BaseException):
                raise one
        return sum(one for one in taken if isinstance(one, int))

    def _bearer(self) -> tuple[str, str]:
        return ("authorization", f"Bearer {self._terms.key}")

    def _proven(self) -> tuple[str, str]:
        """Return the header that proves our key for an hour; made anew after half of it."""
        proof, made_at = self._proof
        now = self._clock.now()
        if not proof or now - made_at > VALID_S / 2:
            proof = attestation_of(self._me, int(now), self._clock.token(NONCE_BYTES))
            self._proof = (proof, now)
        return ("authorization", f"Agent {proof}")

    async def _done(self, method: str, path: str, proof: tuple[str, str], body: object = None) -> bytes:
        status, found = await self._ask(method, path, proof, body)
        if status != OK:
            raise self._fault(method, path, status, found)
        return found

    async def _ask(self, method: str, path: str, proof: tuple[str, str], body: object = None) -> tuple[int, bytes]:
        request = Request(
            url=self._base + path,
            method=method,
            headers=(("accept", "application/json"), proof, *(() if body is None else (JSON,))),
            body=b"" if body is None else msgspec.json.encode(body),
            redirects_max=0,
            body_bytes_max=ANSWER_BYTES_MAX,
            total_s=WAIT_S,
        )
        try:
            async with await self._egress.fetch(request) as answer:
                return answer.status, await answer.read()
        except (EgressRefused, EgressBusy, EgressFailed) as fault:
            raise UpstreamFault("The mailbox cannot be reached now.", detail=fault.message) from fault

    @staticmethod
    def _fault(method: str, path: str, status: int, body: bytes) -> UpstreamFault:
        detail = f"{method} {path}: {status} {body[:200]!r}"
        if status in {401, 403}:
            return UpstreamFault("The mailbox does not take our key; is agents.directory_key right?", detail=detail)
        return UpstreamFault("The mailbox does not do what it should.", detail=detail)


def attestation_of(me: Prover, now: int, nonce: bytes) -> str:
    """Return what proves for an hour from `now` (Unix time) that we have the key of our address (LIST-02)."""
    _, public_key = decode_bech32(me.address)
    payload = public_key + struct.pack(">QQ", now, now + VALID_S) + nonce
    return f"attr:{base64.b64encode(payload).decode()}:{me.sign(payload)}"


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as fault:
        raise UpstreamFault("The mailbox does not do what it should.", detail=str(fault)) from fault

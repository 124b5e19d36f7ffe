"""Our inbox: what agents post to us, verified, kept, handed to whoever listens, and acknowledged (CALL-03, TRAP-04).

    bytes ──► envelope ──► for us? signed by its sender? ──► message by its schema digest
                                                              ├─► known already: said again that it has arrived
                                                              └─► kept, handed to the listener of its session ──► 200

An agent sends to all its partners one after another, so nothing here waits for anybody but the store: acknowledgements
go out afterwards. A valid signature proves who sent something and not when, nor that it was asked for, so a session
belongs to one agent, and what belongs to none is dropped.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agent_hops import ACP_KEY, read_hops
from convene.agents import chat_codec as codec
from convene.agents.answer_rules import Said, Unreadable
from convene.agents.base import Verdict
from convene.agents.envelope import BadEnvelopeError, Envelope, read_envelope
from convene.agents.letters import Letter
from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.agents.courier import Courier
    from convene.agents.letters import Letters
    from convene.clock import Clock

log = logging.getLogger("convene.agents")

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one envelope; agents themselves have no limit (ENVL-07)."""
ACKNOWLEDGING_MAX: Final = 512
"""Acknowledgements under way; above it the oldest senders have to do without."""


class Incoming(msgspec.Struct, frozen=True, kw_only=True):
    """One message for a listener."""

    key: str
    letter: Letter
    said: Said


class Mailslot:
    """Where messages of one session are put while somebody listens. Belongs to one event loop."""

    def __init__(self, session: str, agent: str) -> None:
        self.session = session
        self.agent = agent
        self._queue: deque[Incoming] = deque()
        self._news = asyncio.Event()

    def put(self, incoming: Incoming) -> None:
        """Put one in."""
        self._queue.append(incoming)
        self._news.set()

    async def get(self, timeout_s: float) -> Incoming | None:
        """Take the next one out; None: there was none in that time."""
        if not self._queue:
            self._news.clear()
            try:
                async with asyncio.timeout(max(0.0, timeout_s)):
                    await self._news.wait()
            except TimeoutError:
                pass
        return self._queue.popleft() if self._queue else None


class Inbox:
    """The inbox of one server."""

    def __init__(
        self,
        courier: Courier,
        letters: Letters,
        clock: Clock,
        verify: Callable[[str, bytes, str], bool],
        strangers: Callable[[Envelope, codec.ChatMessage], Awaitable[Verdict]] | None = None,
    ) -> None:
        """Take what is needed.

        Args:
            courier: takes acknowledgements out, under the identities that envelopes are to be for.
            letters: keeps what comes.
            clock: the time.
            verify: whether (address, digest, signature) fit; never raises.
            strangers: gets messages of conversations that we did not begin, and says how they are answered; without it
                they are dropped.
        """
        self._courier = courier
        self._letters = letters
        self._clock = clock
        self._verify = verify
        self._strangers = strangers
        self._slots: dict[str, Mailslot] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing: set[tuple[str, str]] = set()

    def listen(self, session: str, agent: str) -> Mailslot:
        """Open the slot of a session; what comes from now on is put there."""
        slot = self._slots[session] = Mailslot(session, agent)
        return slot

    def leave(self, slot: Mailslot) -> None:
        """Close a slot; what comes later is kept for the next one."""
        if self._slots.get(slot.session) is slot:
            del self._slots[slot.session]

    @property
    def awaited(self) -> bool:
        """Whether anybody listens for something now."""
        return bool(self._slots)

    async def receive(self, body: bytes) -> Verdict:
        """Take in what was posted; whatever it is, that is all that happens."""
        if len(body) > BODY_BYTES_MAX:
            return Verdict(413, f"an envelope has at most {BODY_BYTES_MAX} bytes")
        try:
            envelope = read_envelope(body)
            payload = envelope.body()
        except BadEnvelopeError as fault:
            return Verdict(400, str(fault))
        if not self._courier.is_us(envelope.target):
            return Verdict(400, "unable to route envelope")
        signature = envelope.signature
        if not signature or not self._verify(envelope.sender, envelope.digest(), signature):
            return Verdict(400, "the signature is missing or not the sender's")
        said = self._read(envelope, payload)
        if said is None:
            return Verdict()
        try:
            return await self._take(envelope, payload, said)
        except StoreFault as fault:
            log.warning("a message of an agent's cannot be kept: %s", fault.detail or fault.message)
            return Verdict(503, "the message cannot be kept now; send it again")

    async def aclose(self) -> None:
        """Give what is to be acknowledged a moment, then let go of it."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @staticmethod
    def _read(envelope: Envelope, payload: bytes) -> Said | None:
        """Return the message; None for one of a protocol that nobody here speaks, which is reported (ACP-15)."""
        try:
            said = codec.read_message(envelope.schema_digest, payload)
        except codec.BadMessageError as fault:
            log.warning("%s sent a message that cannot be read: %s", envelope.sender, fault)
            return Unreadable()
        if isinstance(said, codec.Unknown):
            log.warning("%s sent a message of an unknown schema %s", envelope.sender, said.schema_digest)
            return None
        return said

    async def _take(self, envelope: Envelope, payload: bytes, said: Said) -> Verdict:
        key = said.msg_id if isinstance(said, codec.ChatMessage) else _key_of(envelope)
        session = await self._session_of(envelope, said)
        if session is None:
            verdict = await self._take_strange(envelope, said)
            if verdict.error:
                return verdict
        elif (session, key) not in self._writing:
            letter = Letter(schema_digest=envelope.schema_digest, body=payload, at=self._clock.now())
            self._writing.add((session, key))
            try:
                await self._deliver(session, Incoming(key=key, letter=letter, said=said))
            finally:
                self._writing.discard((session, key))
        if isinstance(said, codec.ChatMessage):
            self._acknowledge(envelope, said.msg_id)
        return Verdict()

    async def _deliver(self, session: str, incoming: Incoming) -> None:
        """Keep a message and put it before whoever listens. An acknowledgement need not be kept for one who does."""
        slot = self._slots.get(session)
        if slot is not None and isinstance(incoming.said, codec.Acknowledgement):
            slot.put(incoming)
        elif await self._letters.keep(session, incoming.key, incoming.letter):
            slot = self._slots.get(session)
            if slot is not None:
                slot.put(incoming)

    async def _session_of(self, envelope: Envelope, said: Said) -> str | None:
        """Return the conversation that a message belongs to: its session's, or the only one with its sender.

        Where agents may ask us, a message in a session of the sender's own is an answer only while one is waited for,
        and not if it says that it has come from somewhere (END-06).
        """
        sender, session = envelope.sender, envelope.session
        slot = self._slots.get(session)
        partner = await self._letters.partner(session) if slot is None else slot.agent
        if partner is not None:
            if partner != sender:
                log.warning("%s wrote into a session of %s; it was dropped", sender, partner)
            return session if partner == sender else None
        recent = await self._letters.recent(sender)
        if len(recent) != 1:
            return None
        if self._strangers is not None and isinstance(said, codec.ChatMessage):
            return recent[0] if not hops_of(said) and await self._letters.awaits(recent[0]) else None
        return recent[0]

    async def _take_strange(self, envelope: Envelope, said: Said) -> Verdict:
        if self._strangers is not None and isinstance(said, codec.ChatMessage):
            return await self._strangers(envelope, said)
        if not isinstance(said, codec.Acknowledgement):
            log.info("%s wrote in a session that is none of ours; it was dropped", envelope.sender)
        return Verdict()

    def _acknowledge(self, envelope: Envelope, msg_id: str) -> None:
        """Say that a message has arrived, in the session that it came in, without keeping anybody waiting (ACP-04)."""
        if len(self._tasks) >= ACKNOWLEDGING_MAX:
            log.warning("%d messages wait to be acknowledged; one more is not", len(self._tasks))
            return
        draft = codec.write_acknowledgement(msg_id, at=self._clock.now())

        async def send() -> None:
            delivery = await self._courier.send(draft, envelope.sender, envelope.session, sender=envelope.target)
            if delivery.outcome != "delivered":
                log.info("%s could not be told that its message arrived: %s", envelope.sender, delivery.words)

        task = asyncio.get_running_loop().create_task(send(), name="acknowledgement")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def hops_of(said: codec.ChatMessage) -> tuple[str, ...]:
    """Return the agents that a message says it has been through (`agent_hops.py`)."""
    found = (one.metadata.get(ACP_KEY) for one in said.content if isinstance(one, codec.Meta))
    return next((read_hops(text) for text in found if text), ())


def _key_of(envelope: Envelope) -> str:
    """Return what makes a message without an id of its own this one and no other."""
    return hashlib.sha256(f"{envelope.schema_digest}\0{envelope.payload}\0{envelope.nonce}".encode()).hexdigest()[:32]

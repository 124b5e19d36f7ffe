"""The talker of the Agent Chat Protocol: asks an agent, and listens to what comes to our inbox (ACP, CALL, END).

    talk ──► late letters of the conversation ──► the question, once ──► letters as they come ──► end, or why not
                                                    │                      `answer_rules.py` says when
                                                    └─ written down before: a repeat after a crash only listens

One conversation of an owner's with one agent is one envelope session over all its turns, and one question at a time is
asked in it: an answer names no question (ACP-03).
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.agent_hops import ACP_KEY, write_hops
from convene.agents import chat_codec as codec
from convene.agents.answer_rules import Listening, Patience, Unreadable, attachments_of, is_answer, text_of
from convene.agents.base import Heard
from convene.agents.faults import STORE, error, why_not
from convene.agents.letters import Sent, uuid_of
from convene.agents.one_at_a_time import OneAtATime
from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.agents.answer_rules import Said
    from convene.agents.base import AgentCard, Conversation
    from convene.agents.breaker import Breaker
    from convene.agents.courier import Courier, Delivery
    from convene.agents.inbox import Inbox, Incoming, Mailslot
    from convene.agents.letters import Letter, Letters
    from convene.clock import Clock

log = logging.getLogger("convene.agents")

LATE: Final = "late"
"""In the metadata of what was heard: it came after the turn that had asked for it."""
LOOK_S: Final = 0.25
"""How often the store is asked for letters that reached another process."""
NO_PAYMENT: Final = "This server does not pay agents."
OPEN: Final = "The agent has not answered {faults}; it is left alone for {seconds:.0f} more seconds."
OURSELVES: Final = "This is the address of the server itself."


class TalkTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How agents are talked to."""

    patience: Patience = Patience()
    openers: frozenset[str] = frozenset()
    """Agents that want a start of the session before the first message (ACP-07)."""
    shared: bool = False
    """Answers may reach another process of this server, so the store is asked for them too."""


class ChatTalker:
    """Speaks the Agent Chat Protocol (`base.Talker`). Belongs to one event loop."""

    protocol: Literal["acp"] = "acp"

    def __init__(
        self,
        courier: Courier,
        inbox: Inbox,
        letters: Letters,
        breaker: Breaker,
        clock: Clock,
        secret: bytes,
        terms: TalkTerms = TalkTerms(),  # noqa: B008 -- frozen
    ) -> None:
        """Take what is needed.

        Args:
            courier: takes messages out under our identity.
            inbox: where answers come in.
            letters: keeps what was sent and what came.
            breaker: knows which agents are left alone.
            clock: the time.
            secret: what sessions and ids of messages are computed with; the same in every process and after a restart.
            terms: what the operator says.
        """
        self._courier = courier
        self._inbox = inbox
        self._letters = letters
        self._breaker = breaker
        self._clock = clock
        self._secret = secret
        self._terms = terms
        self._turns = OneAtATime()

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        """Ask and yield what is heard (`base.Talker`)."""
        fault = self._check(card, conversation)
        if fault:
            yield error(fault, "refused")
            return
        wait_s = self._breaker.admit(card.address)
        if wait_s is not None:
            yield error(OPEN.format(faults="several times in a row", seconds=wait_s), "left_alone")
            return
        reason = ""
        try:
            async with aclosing(self._talk(card, conversation, say)) as talk:
                async for heard in talk:
                    if heard.kind in {"end", "error", "needs_input", "payment"}:
                        reason = heard.metadata.get("reason", "well")
                    yield heard
        except StoreFault as broken:
            log.warning("an agent cannot be asked: %s", broken.detail or broken.message)
            yield error(STORE, "store")
        finally:
            self._judge(card.address, reason)

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        """Do nothing: the protocol cannot say it, and what comes later is told in the next turn (END-04)."""

    def _judge(self, agent: str, reason: str) -> None:
        if reason in {"timed_out", "unreachable"}:
            self._breaker.fault(agent)
        elif reason in {"well", "agent_error", "unreadable", "refused"}:
            self._breaker.well(agent)
        else:
            self._breaker.undecided(agent)

    def _check(self, card: AgentCard, conversation: Conversation) -> str:
        return OURSELVES if self._courier.is_us(card.address) else why_not(card.address, conversation)

    async def _talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        agent, call = card.address, conversation.call_key
        session = uuid_of(self._secret, "session", conversation.owner, conversation.key, agent)
        async with self._turns.alone(session):
            await self._letters.open(session, agent)
            slot = self._inbox.listen(session, agent)
            try:
                sent = await self._letters.sent(session, call)
                waiting = await self._letters.waiting(session, call)
                before = [found for found in waiting if sent is None or found[1].at < sent.at]
                for _, letter in before:
                    for heard in _late(_read(letter)):
                        yield heard
                if sent is None:
                    await self._letters.take(session, call, before)
                    sent = Sent(msg_id=uuid_of(self._secret, "message", session, call), at=self._clock.now())
                    delivery = await self._ask(card, session, call, sent, say, conversation.hops)
                    if delivery.outcome in {"unreachable", "refused"}:
                        await self._letters.take_back(session, call)
                        yield error(delivery.words, delivery.outcome)
                        return
                told = {key for key, _ in before}
                async with aclosing(self._listen(slot, call, sent, told)) as listened:
                    async for heard in listened:
                        yield heard
            finally:
                self._inbox.leave(slot)

    async def _ask(
        self, card: AgentCard, session: str, call: str, sent: Sent, say: str, hops: tuple[str, ...]
    ) -> Delivery:
        """Write down that the question goes out, and send it."""
        starts = card.address in self._terms.openers and not await self._letters.has_spoken(session)
        shown = await self._letters.card(session)
        words = codec.Text(say) if shown is None else codec.card_answer(shown, say)
        opening = (codec.StartSession(),) if starts else ()
        # The last content, since some agents read the first one alone.
        travelled = (codec.Meta({ACP_KEY: write_hops(hops)}),) if hops else ()
        content = (*opening, words, *travelled)
        await self._letters.note_sent(session, call, sent)
        draft = codec.write_chat(content, msg_id=sent.msg_id, at=sent.at)
        return await self._courier.send(draft, card.address, session, card.endpoints)

    async def _listen(self, slot: Mailslot, call: str, sent: Sent, told: set[str]) -> AsyncGenerator[Heard]:
        """Pass on what comes, until the answer is complete or is waited for no longer."""
        clock = self._clock
        passed_s = max(0.0, clock.now() - sent.at)
        listening = Listening(self._terms.patience, sent.msg_id, clock.monotonic() - passed_s)
        kept: list[tuple[str, Letter]] = []
        async with aclosing(self._incoming(slot, call, sent, listening)) as letters:
            async for incoming in letters:
                if incoming is None:
                    heard = listening.wake(clock.monotonic())
                elif incoming[0] in told:
                    continue
                else:
                    told.add(incoming[0])
                    kept.append(incoming)
                    said = _read(incoming[1])
                    heard = listening.hear(said, clock.monotonic())
                    if isinstance(said, codec.PaymentAsked):
                        await self._courier.send(codec.write_rejection(NO_PAYMENT), slot.agent, slot.session)
                for one in heard:
                    if one.kind == "needs_input":
                        await self._letters.note_card(slot.session, one.metadata.get("card_id", ""))
                if listening.over:
                    # Before the end is told: whoever is told twice after a crash is told the same.
                    await self._letters.take(slot.session, call, kept)
                for one in heard:
                    yield one
                if listening.over:
                    return

    async def _incoming(
        self, slot: Mailslot, call: str, sent: Sent, listening: Listening
    ) -> AsyncGenerator[tuple[str, Letter] | None]:
        """Yield letters as they come, first those that came while nobody listened; None: it is time to wake."""
        clock = self._clock
        for found in await self._letters.waiting(slot.session, call):
            if found[1].at >= sent.at:
                yield found
        while True:
            left_s = listening.wake_at() - clock.monotonic()
            if left_s <= 0:
                yield None
                continue
            incoming: Incoming | None = await slot.get(min(left_s, LOOK_S) if self._terms.shared else left_s)
            if incoming is not None:
                yield incoming.key, incoming.letter
            elif self._terms.shared:
                for found in await self._letters.waiting(slot.session, call):
                    if found[1].at >= sent.at:
                        yield found


def _read(letter: Letter) -> Said:
    try:
        return codec.read_message(letter.schema_digest, letter.body)
    except codec.BadMessageError:
        return Unreadable()


def _late(said: Said) -> list[Heard]:
    """Return what is told of a message that came too late for its own turn."""
    if not is_answer(said):
        return []
    attachments = attachments_of(said)
    found = [Heard(kind="text", text=text_of(said), metadata={LATE: "true"})] if text_of(said).strip() else []
    if attachments:
        found.append(Heard(kind="resource", attachments=attachments, metadata={LATE: "true"}))
    return found

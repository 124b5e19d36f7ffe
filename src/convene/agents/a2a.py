"""The talker of A2A: asks an agent by its card, and stays with the task until it ends or waits for the user.

    card ──► door ──► the message, once ──► events as they come ──► end, a question back, or why not
                         │                     └─ the stream broke: how does the task stand? hear on, or ask again
                         └─ written down before: a repeat after a crash asks for the task and not again (A2A-06)

One conversation of an owner's with one agent is one context of the agent's over all its turns. A task that waits for
the user is gone on with by the next message of the conversation (A2A-05).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.agents import a2a_codec as codec
from convene.agents.a2a_answer import Telling
from convene.agents.faults import STORE, TalkFault, error, why_not
from convene.agents.letters import uuid_of
from convene.agents.one_at_a_time import OneAtATime
from convene.agents.talk_notes import Place, Sent
from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from convene.agents.a2a_codec import Door, Event, Outgoing
    from convene.agents.a2a_discovery import Discovery
    from convene.agents.a2a_wire import A2aWire
    from convene.agents.answer_rules import Patience
    from convene.agents.base import AgentCard, Conversation, Heard
    from convene.agents.talk_notes import TalkNotes
    from convene.clock import Clock

log = logging.getLogger("convene.agents")

LOOK_S: Final = 10.0
"""For one look at a task."""
PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Between looks at a task; the last one again and again."""
HEAR_ON_MAX: Final = 8
"""Times that a broken stream is taken up again; after that the task is looked at."""
FAULTS_MAX: Final = 4
"""Looks in a row that may fail."""
CANCEL_S: Final = 5.0

LATE: Final = "The agent took the question and did not answer within {seconds:g} seconds."
LOST: Final = (
    "Whether the agent has the question is not known, and it keeps no list of what it was asked. It is not asked twice."
)
REFUSED: Final = "The agent refused: {words}"
NO_REASON: Final = "it gives no reason."


class A2aTalker:
    """Speaks A2A (`base.Talker`). Belongs to one event loop."""

    protocol: Literal["a2a"] = "a2a"

    def __init__(
        self,
        wire: A2aWire,
        discovery: Discovery,
        notes: TalkNotes,
        clock: Clock,
        secret: bytes,
        patience: Patience,
    ) -> None:
        """Take what is needed; ids of messages are computed with `secret`, the same in every process."""
        self.wire = wire
        self.discovery = discovery
        self.notes = notes
        self.clock = clock
        self.secret = secret
        self.patience = patience
        self._turns = OneAtATime()

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        """Ask and yield what is heard (`base.Talker`)."""
        if words := why_not(card.url, conversation):
            yield error(words, "refused")
            return
        session = self.session_of(card, conversation)
        try:
            async with self._turns.alone(session):
                question = _Question(self, card.url, session, conversation, say)
                async with aclosing(question.ask()) as answer:
                    async for heard in answer:
                        yield heard
        except TalkFault as fault:
            if fault.reason == "timed_out":
                await self.give_up(card, conversation)
            yield fault.heard()
        except codec.RefusedError as refused:
            yield error(REFUSED.format(words=str(refused) or NO_REASON), "agent_error")
        except StoreFault as broken:
            log.warning("an A2A agent cannot be asked: %s", broken.detail or broken.message)
            yield error(STORE, "store")

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        """Tell the agent that nobody waits for the answer of this call any more; never raises."""
        try:
            session = self.session_of(card, conversation)
            sent = await self.notes.sent(session, conversation.call_key)
            if sent is not None and sent.task_id:
                shown = await self.discovery.find(card.url)
                outgoing = codec.write_cancel(shown.card.doors[0], sent.task_id)
                await self.wire.ask(card.url, outgoing, CANCEL_S)
        except (TalkFault, codec.RefusedError, StoreFault) as fault:
            log.info("a task of an A2A agent's could not be cancelled: %s", fault)

    def session_of(self, card: AgentCard, conversation: Conversation) -> str:
        """Return what a conversation is kept under."""
        return uuid_of(self.secret, "a2a", conversation.owner, conversation.key, card.url)


class _Question:
    """One question, from the first look at the card to the end of the answer."""

    def __init__(self, talker: A2aTalker, agent: str, session: str, conversation: Conversation, say: str) -> None:
        call = conversation.call_key
        self._talker = talker
        self._agent = agent
        self._session = session
        self._call = call
        self._hops = conversation.hops
        self._say = say
        self._telling = Telling()
        self._place = Place()
        self._broke: TalkFault | None = None
        self._sent = Sent(
            msg_id=uuid_of(talker.secret, "message", session, call),
            at=talker.clock.now(),
        )
        self._end_at = talker.clock.monotonic() + talker.patience.total_s

    async def ask(self) -> AsyncGenerator[Heard]:
        """Ask, or go on, and yield what is heard. Raises `TalkFault`, `RefusedError` and `StoreFault`."""
        talker, telling = self._talker, self._telling
        self._place = await talker.notes.open(self._session)
        known = await talker.notes.sent(self._session, self._call)
        if known is not None:
            self._sent = known
            self._end_at -= max(0.0, talker.clock.now() - known.at)
        door = await self._door(is_patient=known is not None)
        async with aclosing(self._events(door, is_new=known is None)) as events:
            async for event in events:
                heard = telling.taken() if event is None else telling.hear(event)
                if event is not None:
                    await self._keep(event)
                if telling.over:
                    # Before the end is told: whoever is told twice after a crash is told the same.
                    waiting = telling.task_id if telling.waits else ""
                    await talker.notes.keep_place(
                        self._session, Place(context_id=telling.context_id or self._place.context_id, task_id=waiting)
                    )
                for one in heard:
                    yield one
                if telling.over:
                    return

    async def _door(self, *, is_patient: bool) -> Door:
        """Return the way in; an agent that has a question of ours already is not given up at the first fault."""
        for pause_s in PAUSES_S if is_patient else ():
            try:
                return (await self._talker.discovery.find(self._agent)).card.doors[0]
            except TalkFault as fault:
                if fault.reason not in {"unreachable", "timed_out"}:
                    raise
            await asyncio.sleep(min(pause_s, self._left_s()))
        return (await self._talker.discovery.find(self._agent)).card.doors[0]

    async def _keep(self, event: Event) -> None:
        """Write down the task once it is known, or the answer of an agent that has made no task of the question."""
        sent = self._sent
        if isinstance(event, codec.Message):
            sent = msgspec.structs.replace(sent, answer=msgspec.json.encode(event))
        elif self._telling.task_id != sent.task_id:
            sent = msgspec.structs.replace(sent, task_id=self._telling.task_id)
        if sent is not self._sent:
            self._sent = sent
            await self._talker.notes.keep_sent(self._session, self._call, sent)

    async def _events(self, door: Door, *, is_new: bool) -> AsyncGenerator[Event | None]:
        """Yield events until the answer is complete; the reader leaves then. None: the agent has the question."""
        if is_new:
            async with aclosing(self._first(door)) as events:
                async for event in events:
                    yield event
        elif self._sent.answer:
            yield msgspec.json.decode(self._sent.answer, type=codec.Message)
        if not self._sent.task_id:
            yield await self._look_for(door)
        async with aclosing(self._stay(door)) as events:
            async for event in events:
                yield event

    async def _first(self, door: Door) -> AsyncGenerator[Event | None]:
        """Send the question and yield what comes with the answer to it; a stream that breaks off just ends."""
        talker = self._talker
        await talker.notes.keep_sent(self._session, self._call, self._sent)
        refused: codec.RefusedError | None = None
        for outgoing in self._attempts(door):
            came = False
            try:
                async with aclosing(self._exchange(outgoing)) as events:
                    async for event in events:
                        came = True
                        yield event
            except codec.RefusedError as fault:
                if came or fault.kind == "other":
                    await talker.notes.take_back(self._session, self._call)
                    raise
                refused = fault
                continue
            except TalkFault as fault:
                await self._bear(fault)
            return
        await talker.notes.take_back(self._session, self._call)
        if refused is not None:
            raise refused

    async def _bear(self, fault: TalkFault) -> None:
        """Raise a fault, unless the agent may have the question and be at work on it."""
        if not fault.sent or fault.reason == "refused":
            await self._talker.notes.take_back(self._session, self._call)
            self._talker.discovery.forget(self._agent)
            raise fault
        if fault.reason not in {"unreachable", "timed_out"}:
            raise fault
        log.info("an A2A agent's answer broke off: %s", fault.words)
        self._broke = fault

    def _attempts(self, door: Door) -> Iterator[Outgoing]:
        """Yield the question as it is asked, then other forms of it, each for an agent that has refused the one before.

        A refusal means that the agent has not looked at the message, so that no question is asked twice.
        """
        place = self._place
        places = dict.fromkeys(((place.context_id, place.task_id), (place.context_id, ""), ("", "")))
        for context_id, task_id in places:
            for streams in (True, False) if door.streams else (False,):
                yield codec.write_message(
                    door, self._say, self._sent.msg_id, context_id, task_id, streams=streams, hops=self._hops
                )

    async def _exchange(self, outgoing: Outgoing) -> AsyncGenerator[Event | None]:
        wire, wait_s = self._talker.wire, self._left_s()
        if not outgoing.streams:
            yield self._read(await wire.ask(self._agent, outgoing, wait_s))
            return
        async with aclosing(wire.stream(self._agent, outgoing, wait_s, self._talker.patience.first_s)) as results:
            async for result in results:
                yield None if result is None else self._read(result)

    @staticmethod
    def _read(result: dict[str, object]) -> Event:
        try:
            return codec.read_event(result)
        except codec.NotA2aError as fault:
            raise TalkFault(f"The agent does not answer as its protocol demands: {fault}.", "unreadable") from fault

    async def _look_for(self, door: Door) -> Event:
        """Return the task that our message began, where nothing says which it is. Raises `TalkFault`."""
        if not door.legacy:
            try:
                outgoing = codec.write_list(door, self._place.context_id)
                tasks = codec.read_tasks(await self._talker.wire.ask(self._agent, outgoing, self._look_s()))
            except (TalkFault, codec.RefusedError, codec.NotA2aError) as fault:
                log.info("an A2A agent does not list its tasks: %s", fault)
                tasks = []
            for task in tasks:
                if any(one.msg_id == self._sent.msg_id for one in task.history):
                    return task
        raise self._broke or TalkFault(LOST, "lost")

    async def _stay(self, door: Door) -> AsyncGenerator[Event | None]:
        """Stay with a task: look how it stands, hear on while that works, else look again after a while."""
        hear_on, turn, faults = HEAR_ON_MAX if door.streams else 0, 0, 0
        while True:
            try:
                outgoing = codec.write_get(door, self._sent.task_id)
                yield self._read(await self._talker.wire.ask(self._agent, outgoing, self._look_s()))
                faults = 0
            except TalkFault as fault:
                faults += 1
                if faults >= FAULTS_MAX or fault.reason not in {"unreachable", "timed_out"}:
                    raise
            if hear_on and not faults:
                hear_on -= 1
                try:
                    async with aclosing(self._exchange(codec.write_subscribe(door, self._sent.task_id))) as events:
                        async for event in events:
                            yield event
                    continue
                except codec.RefusedError:
                    hear_on = 0
                except TalkFault as fault:
                    if fault.reason not in {"unreachable", "timed_out"}:
                        raise
            await asyncio.sleep(min(PAUSES_S[min(turn, len(PAUSES_S) - 1)], max(0.0, self._left_s())))
            turn += 1

    def _left_s(self) -> float:
        """Return how much longer the answer is waited for. Raises `TalkFault` if no longer."""
        left_s = self._end_at - self._talker.clock.monotonic()
        if left_s <= 0:
            raise TalkFault(LATE.format(seconds=self._talker.patience.total_s), "timed_out")
        return left_s

    def _look_s(self) -> float:
        return min(LOOK_S, self._left_s())

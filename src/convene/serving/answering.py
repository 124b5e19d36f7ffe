"""Agents ask this server: a question to a turn like any other, with what the conversation has said before.

    Question ──► earlier turns of (owner, conversation) ──► ChatRequest, kept as a run ──► Turns.start ──► events
                       ▲                                                                                   │
                       └── said and answered, within bounds ◄──────────────────────────────────────────────┘

An agent sends its last message alone, where a client of the chat API sends all of them, so the messages are kept here:
as notes of a session of its own, which goes like any session when it is not used. Admission, limits, ledger and journal
are the turn's. Who calls: `base_answering.py`. Not here: the protocols.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agent_hops import DEPTH, TOO_FAR
from convene.errors import BadRequest, StoreFault
from convene.events import Finished, TextDelta
from convene.messages import Message
from convene.providers.base import Generation
from convene.serving.base import Agentic, ChatRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.serving.base import Catalog, Outcome, Turn, Turns
    from convene.serving.base_answering import Question
    from convene.serving.base_sessions import Memory

log = logging.getLogger("convene.answering")

SAID: Final = "said:"
PREFERRED: Final = "asi1"
"""The model that answers where nobody says which, if there is one of this name."""
KEPT_MAX: Final = 32_768
"""Bytes of one message that are kept; of a longer one the beginning."""
BYTES_PER_TOKEN: Final = 3
WINDOW_SHARE: Final = 0.5
"""Of the model's window, for what was said before."""


class AnsweringTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How agents are answered, from `[agents.answering]`."""

    model: str = ""
    history_turns: int = 20
    history_bytes: int = 32_768
    depth: int = DEPTH
    """A question that has passed through more agents is not answered."""


class Exchange(msgspec.Struct, frozen=True):
    """One turn of a conversation, as it is kept."""

    said: str
    answered: str

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.said.encode("utf-8", "replace")) + len(self.answered.encode("utf-8", "replace"))


_encode = msgspec.json.Encoder().encode
_exchange = msgspec.json.Decoder(Exchange).decode


class AgentAnswering:
    """Implements `base_answering.Answering`."""

    def __init__(
        self,
        turns: Turns,
        catalog: Catalog,
        memory: Memory,
        terms: AnsweringTerms = AnsweringTerms(),  # noqa: B008 -- frozen
    ) -> None:
        """`memory` keeps what was said."""
        self._turns = turns
        self._catalog = catalog
        self._memory = memory
        self._terms = terms

    async def ask(self, question: Question) -> Asked:
        """Accept a question (`base_answering.Answering`)."""
        if not question.text.strip():
            raise BadRequest("The message has no text; there is nothing to answer.")
        if len(question.hops) > self._terms.depth:
            raise BadRequest(TOO_FAR.format(hops=len(question.hops)))
        model = question.model or self._model(question)
        owner = question.who.owner
        before = () if question.agent else await self._before(question, model)
        turn = self._turns.start(
            ChatRequest(
                model=model,
                generation=Generation(
                    messages=(*before, Message(role="user", content=question.text)),
                    stream=True,
                ),
                agentic=Agentic(
                    agent_address=question.caller or None,
                    session_id=question.conversation or None,
                    hops=question.hops,
                    agent=question.agent,
                    kept=True,
                    patient=True,
                    on_disconnect="continue" if question.outlives else "cancel",
                ),
            ),
            question.who,
            question.request_id,
        )
        return Asked(self, turn, owner, question.conversation, question.text)

    async def remember(self, owner: str, conversation: str, key: str, said: str, answered: str) -> None:
        """Keep a turn (`base_answering.Answering`)."""
        if not conversation or not self._terms.history_turns:
            return
        kept = Exchange(_cut(said), _cut(answered))
        try:
            await self._memory.enter(owner, conversation)
            noted = await self._memory.recall(owner, conversation)
            names = [name for name in noted if name.startswith(SAID)]
            if f"{SAID}{key}" in names:
                return
            await self._memory.remember(owner, conversation, {f"{SAID}{key}": _encode(kept)})
            old = names[: max(0, len(names) + 1 - self._terms.history_turns)]
            if old:
                await self._memory.forget_notes(owner, conversation, old)
        except StoreFault as fault:
            log.warning("what an agent said is not kept: %s", fault.detail or fault.message)

    def _model(self, question: Question) -> str:
        """Return the model that answers where the question names none."""
        if self._terms.model:
            return self._terms.model
        chats = [card.id for card in self._catalog.cards(question.who) if card.kind == "chat"]
        return PREFERRED if PREFERRED in chats or not chats else chats[0]

    async def _before(self, question: Question, model: str) -> tuple[Message, ...]:
        """Return what the conversation has said so far, as much of its end as there is room for."""
        if not question.conversation:
            return ()
        try:
            notes = await self._memory.recall(question.who.owner, question.conversation)
        except StoreFault as fault:
            log.warning("what an agent said before cannot be read: %s", fault.detail or fault.message)
            return ()
        room = self._room(question, model)
        found: list[Message] = []
        for name, body in reversed(notes.items()):
            if not name.startswith(SAID):
                continue
            one = _exchange(body)
            room -= one.size
            if room < 0:
                break
            found += (Message(role="assistant", content=one.answered), Message(role="user", content=one.said))
        return tuple(reversed(found))

    def _room(self, question: Question, model: str) -> int:
        can = self._catalog.card(model, question.who).capabilities
        window = None if can is None else can.context_window
        room = self._terms.history_bytes
        return room if window is None else min(room, int(window * WINDOW_SHARE) * BYTES_PER_TOKEN)


class Asked:
    """Implements `base_answering.AskedTurn`."""

    def __init__(self, answering: AgentAnswering, turn: Turn, owner: str, conversation: str, said: str) -> None:
        self._answering = answering
        self._turn = turn
        self._owner = owner
        self._conversation = conversation
        self._said = said

    @property
    def run_id(self) -> str:
        """See `AskedTurn.run_id`."""
        return self._turn.run_id

    @property
    def model(self) -> str:
        """See `AskedTurn.model`."""
        return self._turn.model

    @property
    def outcome(self) -> Outcome:
        """See `AskedTurn.outcome`."""
        return self._turn.outcome

    async def events(self) -> AsyncGenerator[Event]:
        """See `AskedTurn.events`."""
        texts: list[str] = []
        is_whole = False
        async with aclosing(self._turn.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    texts.append(event.text)
                elif isinstance(event, Finished):
                    is_whole = True
                yield event
        if is_whole and texts:
            await self._answering.remember(
                self._owner, self._conversation, self.run_id or self._turn.id, self._said, "".join(texts)
            )


def _cut(text: str) -> str:
    """Return a message as it is kept."""
    whole = text.encode("utf-8", "replace")
    return whole[:KEPT_MAX].decode("utf-8", "ignore")

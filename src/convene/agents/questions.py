"""Questions that agents have put to us, kept until they are answered, so that a crash loses none and repeats none.

    chat message ──► add: noted as open, then claimed ──► it is new, and ours to answer
                                         └──► claimed already: a repeat (ENVL-06), or another process has it
    start        ──► left: those of processes that have ended ──► claimed again, under the next number

Kept as notes of sessions that belong to nobody's key, like `letters.py`. A claim is a session whose name only one can
be the first to use, which every store decides alike.
"""

from __future__ import annotations

import hashlib
from itertools import count
from typing import TYPE_CHECKING, Final

import msgspec

from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.store.base_sessions import Sessions

OWNER: Final = "\x1facp-asked"
"""Whose sessions these are. No owner's name begins so."""
OPEN: Final = "open"
CLAIM: Final = "claim"
HELD: Final = "held:"
TALK: Final = "talk"
BYTES_MAX: Final = 256 * 1024 * 1024
"""Of all open questions together; the oldest go."""
TOKEN_BYTES: Final = 12
HELD_S: Final = 30.0
"""A question whose holder does not say so long that it is there is left to others."""


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One question. Times are Unix seconds."""

    sender: str
    session: str
    msg_id: str
    text: str
    hops: tuple[str, ...] = ()
    asked: str = ""
    """Which of our addresses it was sent to, and is answered from."""
    at: float
    run_id: str = ""
    """The run that answers it, once there is one."""
    reply: str = ""
    """What is sent, once that is known: a crash after this may have sent it, or not."""
    turn: int = 0
    """How often it has been taken up."""

    @property
    def key(self) -> str:
        """What makes it this one and no other (ENVL-06)."""
        return hashlib.sha256(f"{self.sender}\0{self.session}\0{self.msg_id}".encode()).hexdigest()[:40]

    @property
    def talk(self) -> str:
        """Its conversation: nobody else can write into it, as the sender is proved."""
        return f"{self.sender}/{self.session}"


_encode = msgspec.json.Encoder().encode
_question = msgspec.json.Decoder(Question).decode
_until = msgspec.json.Decoder(float).decode


class Questions:
    """The open questions of one server. Every call raises `StoreFault` if the store cannot be used."""

    def __init__(self, sessions: Callable[[], Sessions], clock: Clock) -> None:
        """`sessions` gives those of the store that is open now."""
        self._sessions = sessions
        self._clock = clock

    async def begins(self, talk: str) -> bool:
        """Enter a conversation and say whether that is its beginning."""
        return await self._is_first(f"{TALK}:{talk}")

    async def add(self, question: Question) -> Question | None:
        """Note a question as open and return it as it is held; None: it is known already."""
        sessions, claim = self._sessions(), f"{CLAIM}:{question.key}"
        if await sessions.get(OWNER, claim) is not None or await sessions.notes(OWNER, OPEN, (question.key,)):
            return None
        await sessions.touch(OWNER, OPEN, OPEN, self._now_us())
        await self.keep(question)
        if not await self._is_first(claim):
            await self.close(question)
            return None
        return question

    async def keep(self, question: Question) -> None:
        """Write down how far a question is, and go on holding it."""
        await self._put({question.key: _encode(question), HELD + question.key: self._until()})

    async def hold(self, question: Question) -> None:
        """Go on holding a question."""
        await self._put({HELD + question.key: self._until()})

    async def close(self, question: Question) -> None:
        """Forget an open question: it is answered, or never will be."""
        await self._sessions().take(OWNER, OPEN, (question.key, HELD + question.key))

    async def left(self, *, alone: bool) -> list[Question]:
        """Take up what others have left, and return it; `alone`: there are no others, so all that is open is left."""
        notes = await self._sessions().notes(OWNER, OPEN)
        held = {note.name: _until(note.body) for note in notes if note.name.startswith(HELD)}
        found: list[Question] = []
        for one in (_question(note.body) for note in notes if note.name not in held):
            if not alone and held.get(HELD + one.key, 0.0) > self._clock.now():
                continue
            turn = await self._claim_again(one, alone=alone)
            if turn is not None:
                await self._is_first(f"{CLAIM}:{one.key}")  # where a crash came before the first claim
                taken = msgspec.structs.replace(one, turn=turn)
                await self.keep(taken)
                found.append(taken)
        return found

    async def _claim_again(self, question: Question, *, alone: bool) -> int | None:
        """Return the number under which a question is taken up now; None: somebody else has just done so.

        Whoever has claimed a number and not kept the question since has ended in between.
        """
        for turn in count(question.turn + 1):
            mine, since_us = await self._touch(f"{CLAIM}:{question.key}:{turn}")
            if mine:
                return turn
            if not alone and self._now_us() - since_us < HELD_S * SECOND_US:
                return None
        raise AssertionError("numbers do not end")

    async def _is_first(self, name: str) -> bool:
        """Whether this is the first to use a name."""
        return (await self._touch(name))[0]

    async def _touch(self, name: str) -> tuple[bool, int]:
        """Use a name; return whether this is the first to do so, and when the first did, in Unix microseconds."""
        mine = self._clock.token(TOKEN_BYTES).hex()
        record = await self._sessions().touch(OWNER, name, mine, self._now_us())
        return record.conversation_id == mine, record.created_us

    async def _put(self, notes: dict[str, bytes]) -> None:
        await self._sessions().put(OWNER, OPEN, notes, self._now_us(), BYTES_MAX)

    def _until(self) -> bytes:
        return _encode(self._clock.now() + HELD_S)

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)

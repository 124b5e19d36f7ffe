"""What is kept of talks over HTTP (A2A, MCP), so that a question is asked once, whatever crashes between.

    keep_sent before it goes out ──► keep_sent again with the task's id, or with the answer ──► a repeat finds it
    keep_place at the end ──► where the conversation stands: the agent's context, and a task that waits for the user

Kept as notes of sessions that belong to nobody's key, as `letters.py` does for the Agent Chat Protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents.letters import sent_name
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.clock import Clock
    from convene.store.base_sessions import Sessions

PLACE: Final = "place"
BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one conversation; the oldest go."""
ANSWER_BYTES_MAX: Final = 1024 * 1024


class Sent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A question that went out, or was about to."""

    msg_id: str
    at: float
    """Unix time."""
    task_id: str = ""
    answer: bytes = b""
    """The whole answer of an agent that keeps none itself."""


class Place(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a conversation stands."""

    context_id: str = ""
    task_id: str = ""
    """The task that waits for the user; empty: none does."""


_encode = msgspec.json.Encoder().encode
_sent = msgspec.json.Decoder(Sent).decode
_place = msgspec.json.Decoder(Place).decode


class TalkNotes:
    """The notes of one protocol. Every call raises `StoreFault` if the store cannot be used."""

    def __init__(self, sessions: Callable[[], Sessions], clock: Clock, protocol: str) -> None:
        """`sessions` gives those of the store that is open now."""
        self._sessions = sessions
        self._clock = clock
        self._owner = f"\x1f{protocol}"  # no owner's name begins so

    async def open(self, session: str) -> Place:
        """Begin or go on with a conversation, and return where it stands."""
        await self._sessions().touch(self._owner, session, session, self._now_us())
        found = await self._sessions().notes(self._owner, session, (PLACE,))
        return _place(found[0].body) if found else Place()

    async def keep_place(self, session: str, place: Place) -> None:
        """Write down where a conversation stands."""
        await self._put(session, PLACE, _encode(place))

    async def sent(self, session: str, call: str) -> Sent | None:
        """Return what is known of the question of a call; None: it has not gone out."""
        found = await self._sessions().notes(self._owner, session, (sent_name(call),))
        return _sent(found[0].body) if found else None

    async def keep_sent(self, session: str, call: str, sent: Sent) -> None:
        """Write down what is known of the question of a call."""
        if len(sent.answer) > ANSWER_BYTES_MAX:
            sent = msgspec.structs.replace(sent, answer=b"")
        await self._put(session, sent_name(call), _encode(sent))

    async def take_back(self, session: str, call: str) -> None:
        """Note that the question of a call did not go out after all."""
        await self._sessions().take(self._owner, session, (sent_name(call),))

    async def _put(self, session: str, name: str, body: bytes) -> None:
        await self._sessions().put(self._owner, session, {name: body}, self._now_us(), BYTES_MAX)

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)

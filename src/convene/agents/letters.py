"""What agents have sent and what was sent to them, kept until it is told, so that a crash loses no answer.

    conversation ──► session_of ──► a version 4 UUID that only this server can compute (ENVL-02, ACP-06)
    question     ──► note_sent before it goes out ──► a repeat after a crash listens and does not ask again (CALL-06)
    answer       ──► keep before the inbox says 200 ──► waiting(call) ──► take(call); a repeat is known (ENVL-06)

Kept as notes of sessions (`store.base_sessions`) that belong to nobody's key. Whatever was told to a turn stays, marked
with that turn's call, until the next question of the conversation: the turn may be repeated.
"""

from __future__ import annotations

import hashlib
import hmac
import uuid
from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents.chat_codec import ACKNOWLEDGEMENT
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.clock import Clock
    from convene.store.base_sessions import Sessions

OWNER: Final = "\x1facp"
"""Whose sessions these are. No owner's name begins so."""
PARTNER: Final = "with"
LETTER: Final = "in:"
SENT: Final = "sent:"
CARD: Final = "card"
BYTES_MAX: Final = 8 * 1024 * 1024
"""Of one conversation; the oldest go."""
RECENT_US: Final = 900 * SECOND_US
"""How long an agent that was asked is expected to answer in a session of its own."""
RECENT_BYTES_MAX: Final = 2_048
"""Of two bytes each: so many conversations of one agent are told apart."""


class Letter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message of an agent's."""

    schema_digest: str
    body: bytes = b""
    at: float = 0.0
    """When it came."""
    taken: str = ""
    """Which call has told it."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A question that went out, or was about to."""

    msg_id: str
    at: float


_encode = msgspec.json.Encoder().encode
_letter = msgspec.json.Decoder(Letter).decode
_sent = msgspec.json.Decoder(Sent).decode


def uuid_of(secret: bytes, *parts: str) -> str:
    """Return the version 4 UUID of these parts, which nobody can compute or guess who has not the secret."""
    whole = "\0".join(f"{len(part)}:{part}" for part in parts)
    digest = hmac.new(secret, whole.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return str(uuid.UUID(bytes=digest[:16], version=4))


class Letters:
    """The conversations of one server with agents. Every call raises `StoreFault` if the store cannot be used."""

    def __init__(self, sessions: Callable[[], Sessions], clock: Clock) -> None:
        """`sessions` gives those of the store that is open now."""
        self._sessions = sessions
        self._clock = clock

    async def open(self, session: str, agent: str, *, elsewhere: bool = True) -> None:
        """Begin or go on with a conversation; `elsewhere`: answers in sessions of the agent's own may belong to it."""
        now_us = self._now_us()
        await self._sessions().touch(OWNER, session, session, now_us)
        if await self.partner(session) != agent:
            await self._put(session, {PARTNER: agent.encode()})
        if elsewhere:
            await self._sessions().touch(OWNER, agent, agent, now_us)
            await self._sessions().put(OWNER, agent, {session: b"{}"}, now_us, RECENT_BYTES_MAX)

    async def recent(self, agent: str) -> list[str]:
        """Return the conversations in which an agent was asked lately (END-06)."""
        since_us = self._now_us() - RECENT_US
        return [note.name for note in await self._sessions().notes(OWNER, agent) if note.at_us >= since_us]

    async def awaits(self, session: str) -> bool:
        """Whether the last question of a conversation has got no answer yet, of those that are one."""
        notes = await self._sessions().notes(OWNER, session)
        asked = max((_sent(note.body).at for note in notes if note.name.startswith(SENT)), default=None)
        if asked is None:
            return False
        letters = (_letter(note.body) for note in notes if note.name.startswith(LETTER))
        return all(letter.at < asked or letter.schema_digest in {"", ACKNOWLEDGEMENT} for letter in letters)

    async def partner(self, session: str) -> str | None:
        """Return whom a conversation is with; None: it is none of ours."""
        found = await self._sessions().notes(OWNER, session, (PARTNER,))
        return found[0].body.decode() if found else None

    async def note_sent(self, session: str, call: str, sent: Sent) -> None:
        """Write down that a question goes out now; what the one before has told is forgotten, all but its name."""
        known = await self._sessions().notes(OWNER, session)
        notes = {
            note.name: _encode(Letter(schema_digest="", taken="-"))
            for note in known
            if note.name.startswith(LETTER) and _letter(note.body).taken not in {"", "-"}
        }
        await self._put(session, notes | {sent_name(call): _encode(sent), CARD: b""})

    async def note_card(self, session: str, card_id: str) -> None:
        """Note that the agent waits for an answer to a card; the next question is that answer."""
        await self._put(session, {CARD: f"{CARD}:{card_id}".encode()})

    async def card(self, session: str) -> str | None:
        """Return the id of the card that waits for an answer, which may be empty; None: there is none."""
        found = await self._sessions().notes(OWNER, session, (CARD,))
        return found[0].body.decode().partition(":")[2] if found and found[0].body else None

    async def sent(self, session: str, call: str) -> Sent | None:
        """Return when the question of a call went out; None: it has not."""
        found = await self._sessions().notes(OWNER, session, (sent_name(call),))
        return _sent(found[0].body) if found else None

    async def take_back(self, session: str, call: str) -> None:
        """Note that the question of a call did not go out after all."""
        await self._sessions().take(OWNER, session, (sent_name(call),))

    async def has_spoken(self, session: str) -> bool:
        """Whether anything was ever asked in this conversation."""
        return any(note.name.startswith(SENT) for note in await self._sessions().notes(OWNER, session))

    async def keep(self, session: str, key: str, letter: Letter) -> bool:
        """Keep a message; False: it is here already."""
        name = f"{LETTER}{key}"
        if await self._sessions().notes(OWNER, session, (name,)):
            return False
        await self._put(session, {name: _encode(letter)})
        return True

    async def waiting(self, session: str, call: str) -> list[tuple[str, Letter]]:
        """Return what nobody has told yet and what this very call has told, oldest first."""
        notes = await self._sessions().notes(OWNER, session)
        found = [(note.name.removeprefix(LETTER), _letter(note.body)) for note in notes if note.name.startswith(LETTER)]
        return sorted(((key, one) for key, one in found if one.taken in {"", call}), key=lambda pair: pair[1].at)

    async def take(self, session: str, call: str, letters: Sequence[tuple[str, Letter]]) -> None:
        """Note that a call has told these."""
        notes = {
            f"{LETTER}{key}": _encode(msgspec.structs.replace(letter, taken=call))
            for key, letter in letters
            if letter.taken != call
        }
        if notes:
            await self._put(session, notes)

    async def _put(self, session: str, notes: dict[str, bytes]) -> None:
        await self._sessions().put(OWNER, session, notes, self._now_us(), BYTES_MAX)

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)


def sent_name(call: str) -> str:
    """Return the name of the note that says what is known of the question of a call."""
    return f"{SENT}{hashlib.sha256(call.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"

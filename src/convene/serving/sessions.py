"""Sessions: what is remembered between the requests of one conversation (SESSION-01 to 06, decisions 9).

    x-session-id ──► stored_id ──► (owner, id) ──► conversation_id, made once
                                       └──► notes: the last plan, results of tools worth keeping; of agents, messages
    a client's calls ──► (owner's shelf, first call id) ──► what the server had done in the same round

Bounded in size (the oldest notes go) and in life (what was not used for a stated time goes). The id is the caller's own
text: it proves nothing and is only ever looked up together with the owner.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, NotFound, StoreFault
from convene.moments import SECOND_US

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from convene.clock import Clock
    from convene.serving.base import Principal
    from convene.store.base_runs import Runs
    from convene.store.base_sessions import Note, SessionRecord, Sessions

log = logging.getLogger("convene.sessions")

ID_MAX: Final = 256
"""Longer ids are kept as a hash (decisions 9)."""
SHELF: Final = "\x1fcalls:"
"""Before an owner's name: whose sessions hold what belongs to client calls. No owner's name begins so."""
CALLS: Final = "calls"
SWEEP_S: Final = 600.0
_HASHED: Final = re.compile(r"sha256:[0-9a-f]{64}").fullmatch


class SessionTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much is remembered, from `[sessions]`."""

    keep_us: int = 30 * 86_400 * SECOND_US
    bytes_max: int = 262_144


def stored_id(session_id: str) -> str:
    """Return a caller's session id as it is kept: as it is, or hashed if it is long; a hash stays what it is."""
    if len(session_id) <= ID_MAX and "\0" not in session_id:
        return session_id
    digest = hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()
    return f"sha256:{digest}"


class Conversations:
    """The sessions of one server (`base_sessions.Memory`, `base_sessions.SessionDesk`)."""

    def __init__(
        self,
        sessions: Callable[[], Sessions],
        runs: Callable[[], Runs],
        clock: Clock,
        terms: SessionTerms = SessionTerms(),  # noqa: B008 -- frozen
    ) -> None:
        """`sessions` and `runs` give those of the store that is open now."""
        self._sessions = sessions
        self._runs = runs
        self._clock = clock
        self._terms = terms

    async def enter(self, owner: str, session_id: str) -> str:
        """Use a session (`base_sessions.Memory`)."""
        record = await self._sessions().touch(
            owner, stored_id(session_id), self._clock.stamped_id("conv_"), self._now_us()
        )
        return record.conversation_id

    async def remember(self, owner: str, session_id: str, notes: Mapping[str, bytes]) -> None:
        """Keep notes; one that alone is larger than a session is left out."""
        fitting = {name: body for name, body in notes.items() if len(body) <= self._terms.bytes_max}
        if len(fitting) < len(notes):
            log.info("%d notes of a session were too large to be kept", len(notes) - len(fitting))
        if fitting:
            await self._sessions().put(owner, stored_id(session_id), fitting, self._now_us(), self._terms.bytes_max)

    async def recall(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return notes (`base_sessions.Memory`)."""
        return {note.name: note.body for note in await self._sessions().notes(owner, stored_id(session_id), names)}

    async def forget_notes(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        """Delete notes (`base_sessions.Memory`)."""
        await self._sessions().take(owner, stored_id(session_id), names)

    async def keep_calls(self, owner: str, call_id: str, body: bytes) -> None:
        """Keep what belongs to a client's calls (`base_sessions.Memory`)."""
        await self.enter(SHELF + owner, call_id)
        await self.remember(SHELF + owner, call_id, {CALLS: body})

    async def recall_calls(self, owner: str, call_id: str) -> bytes | None:
        """Return what was kept with a client's calls (`base_sessions.Memory`)."""
        return (await self.recall(SHELF + owner, call_id, (CALLS,))).get(CALLS)

    async def page(self, who: Principal, limit: int, after: str) -> tuple[list[SessionRecord], bool]:
        """Return a page of the caller's sessions (`base_sessions.SessionDesk`)."""
        behind = None
        if after:
            last = await self._sessions().get(who.owner, stored_id(after))
            if last is None:
                raise BadRequest("after is the id of the last one of the page before.", param="after")
            behind = (last.used_us, last.id)
        found = await self._sessions().page(who.owner, limit + 1, behind)
        return found[:limit], len(found) > limit

    async def known(self, who: Principal, session_id: str) -> bool:
        """Whether the caller has such a session."""
        return await self._sessions().get(who.owner, stored_id(session_id)) is not None

    async def show(self, who: Principal, session_id: str) -> tuple[SessionRecord, list[Note]]:
        """Return one (`base_sessions.SessionDesk`)."""
        record = await self._sessions().get(who.owner, stored_id(session_id))
        if record is None:
            raise _missing()
        return record, await self._sessions().notes(who.owner, record.id)

    async def forget(self, who: Principal, session_id: str) -> str:
        """Delete one, and its runs that are over (`base_sessions.SessionDesk`)."""
        kept = stored_id(session_id)
        if not await self._sessions().delete(who.owner, kept):
            raise _missing()
        await self._runs().forget(self._now_us(), who.owner, kept)
        return kept

    async def sweep(self) -> None:
        """Forget what was not used for its time, every ten minutes, until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                gone = await self._sessions().forget(self._now_us() - self._terms.keep_us)
            except StoreFault as fault:
                log.warning("sessions that have expired could not be removed: %s", fault.detail)
            else:
                if gone:
                    log.info("%d sessions have expired", gone)

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)


def _missing() -> NotFound:
    return NotFound("You have no session with this id.", code="session_not_found")

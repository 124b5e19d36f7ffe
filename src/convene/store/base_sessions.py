"""The seam of sessions: what is remembered between the requests of one conversation (SESSION-01 to 06).

A session is found by (owner, id): the id is chosen by the caller and proves nothing (invariant 9). It holds named notes
of JSON: what an agent has said, work outstanding, results of tools worth keeping, the last plan. Not the messages,
which clients send again each time; only agents that ask us do not (`serving/answering.py`). `serving/sessions.py`
decides what is kept. Every implementation passes `tests/contract/test_sessions.py` unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SessionRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One session. Times are Unix microseconds."""

    owner: str
    id: str
    conversation_id: str
    """What answers call it: made by the server, the same for the session's whole life."""
    created_us: int
    used_us: int
    """Last use; it may be forgotten a stated time after."""
    size: int
    """Bytes of its notes."""


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a session remembers."""

    name: str
    """`kind:key`, as `result:call_abc` or `plan`."""
    body: bytes
    """JSON."""
    at_us: int


class Sessions(Protocol):
    """The sessions of one store. Every call raises `StoreFault` if it cannot be used."""

    async def touch(self, owner: str, session_id: str, conversation_id: str, now_us: int) -> SessionRecord:
        """Return the session, made with this conversation id if there is none, used now."""
        ...

    async def get(self, owner: str, session_id: str) -> SessionRecord | None:
        """Return the owner's session, or None."""
        ...

    async def page(self, owner: str, limit: int, after: tuple[int, str] | None = None) -> list[SessionRecord]:
        """Return the owner's sessions, last used first, at most `limit` of those behind `after` (used_us, id)."""
        ...

    async def put(self, owner: str, session_id: str, notes: Mapping[str, bytes], now_us: int, size_max: int) -> None:
        """Write notes, in the place of those of the same name; the oldest others go until `size_max` bytes are kept.

        A session that does not exist (any more) is left so.
        """
        ...

    async def notes(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> list[Note]:
        """Return the session's notes, oldest first; of these names only, if any are given."""
        ...

    async def take(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        """Delete notes; names that are not there are ignored."""
        ...

    async def delete(self, owner: str, session_id: str) -> bool:
        """Delete a session and its notes; False: the owner has none of this id."""
        ...

    async def forget(self, used_before_us: int) -> int:
        """Delete sessions that were last used before that, and return how many."""
        ...

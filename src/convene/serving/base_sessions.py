"""The face of sessions: what `api/` and a turn know of what is remembered between requests (`sessions.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from convene.store.base_sessions import Note, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.serving.base import Principal

__all__ = ["Memory", "Note", "SessionDesk", "SessionRecord"]


class Memory(Protocol):
    """What a turn remembers and recalls. Every call raises `StoreFault` if the store cannot be used.

    A session id is the caller's own text, of any length; the owner is part of every look-up (invariant 9).
    """

    async def enter(self, owner: str, session_id: str) -> str:
        """Use a session, made if there is none, and return its `conversation_id`, the same for its whole life."""
        ...

    async def remember(self, owner: str, session_id: str, notes: Mapping[str, bytes]) -> None:
        """Keep notes (`kind:key` to JSON) in a session that was entered; too old and too many ones go."""
        ...

    async def recall(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the session's notes, oldest first; of these names only, if any are given."""
        ...

    async def forget_notes(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        """Delete notes; names that are not there are ignored."""
        ...

    async def keep_calls(self, owner: str, call_id: str, body: bytes) -> None:
        """Keep what belongs to client calls whose first has this id, until the client comes back with their results.

        That needs no session. JSON, at most as large as a session.
        """
        ...

    async def recall_calls(self, owner: str, call_id: str) -> bytes | None:
        """Return what was kept with client calls whose first has this id; again, if asked again."""
        ...


class SessionDesk(Protocol):
    """The sessions as their owners see them. A foreign id answers like a missing one (invariant 9)."""

    async def page(self, who: Principal, limit: int, after: str) -> tuple[list[SessionRecord], bool]:
        """Return the caller's sessions, last used first, those behind the id `after`; and whether there are more.

        Raises `BadRequest` if there is no session `after`.
        """
        ...

    async def show(self, who: Principal, session_id: str) -> tuple[SessionRecord, list[Note]]:
        """Return a session and what it remembers. Raises `NotFound`."""
        ...

    async def forget(self, who: Principal, session_id: str) -> str:
        """Delete a session with its notes and its runs that are over; return its id. Raises `NotFound`."""
        ...

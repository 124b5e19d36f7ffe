"""Sessions in dictionaries: gone at exit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.store.base_sessions import Note, SessionRecord
from convene.store.memory_part import MemoryPart

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Whose = tuple[str, str]


class MemorySessions(MemoryPart):
    """The sessions of this process."""

    def __init__(self) -> None:
        self._sessions: dict[Whose, SessionRecord] = {}
        self._notes: dict[Whose, dict[str, Note]] = {}

    async def touch(self, owner: str, session_id: str, conversation_id: str, now_us: int) -> SessionRecord:
        """Return the session, used now (`base_sessions.Sessions`)."""
        self._check_open()
        whose = owner, session_id
        found = self._sessions.get(whose)
        if found is None:
            found = SessionRecord(
                owner=owner,
                id=session_id,
                conversation_id=conversation_id,
                created_us=now_us,
                used_us=now_us,
                size=0,
            )
            self._notes[whose] = {}
        self._sessions[whose] = found = msgspec.structs.replace(found, used_us=now_us)
        return found

    async def get(self, owner: str, session_id: str) -> SessionRecord | None:
        """Return the owner's session (`base_sessions.Sessions`)."""
        self._check_open()
        return self._sessions.get((owner, session_id))

    async def page(self, owner: str, limit: int, after: tuple[int, str] | None = None) -> list[SessionRecord]:
        """Return the owner's sessions, last used first (`base_sessions.Sessions`)."""
        self._check_open()
        mine = [
            one
            for one in self._sessions.values()
            if one.owner == owner and (after is None or (one.used_us, one.id) < after)
        ]
        return sorted(mine, key=lambda one: (one.used_us, one.id), reverse=True)[:limit]

    async def put(self, owner: str, session_id: str, notes: Mapping[str, bytes], now_us: int, size_max: int) -> None:
        """Write notes (`base_sessions.Sessions`)."""
        self._check_open()
        kept = self._notes.get((owner, session_id))
        if kept is None:
            return
        for name, body in notes.items():
            kept[name] = Note(name=name, body=body, at_us=now_us)
        total = 0
        for note in sorted(kept.values(), key=lambda one: (one.at_us, one.name), reverse=True):
            total += len(note.body)
            if total > size_max:
                del kept[note.name]
        self._measure(owner, session_id)

    async def notes(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> list[Note]:
        """Return the session's notes, oldest first (`base_sessions.Sessions`)."""
        self._check_open()
        kept = self._notes.get((owner, session_id), {}).values()
        return sorted(
            (note for note in kept if names is None or note.name in names), key=lambda note: (note.at_us, note.name)
        )

    async def take(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        """Delete notes (`base_sessions.Sessions`)."""
        self._check_open()
        kept = self._notes.get((owner, session_id))
        if kept is not None:
            for name in names:
                kept.pop(name, None)
            self._measure(owner, session_id)

    async def delete(self, owner: str, session_id: str) -> bool:
        """Delete a session (`base_sessions.Sessions`)."""
        self._check_open()
        self._notes.pop((owner, session_id), None)
        return self._sessions.pop((owner, session_id), None) is not None

    async def forget(self, used_before_us: int) -> int:
        """Delete sessions that nobody uses any more (`base_sessions.Sessions`)."""
        self._check_open()
        gone = [whose for whose, one in self._sessions.items() if one.used_us < used_before_us]
        for whose in gone:
            del self._sessions[whose], self._notes[whose]
        return len(gone)

    def close(self) -> None:
        """Forget everything."""
        super().close()
        self._sessions.clear()
        self._notes.clear()

    def _measure(self, owner: str, session_id: str) -> None:
        whose = owner, session_id
        size = sum(len(note.body) for note in self._notes[whose].values())
        self._sessions[whose] = msgspec.structs.replace(self._sessions[whose], size=size)

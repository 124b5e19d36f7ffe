"""A store of sessions for tests of what stands above it: dictionaries, and a switch that breaks it.

Not here: what every store must do (`tests/contract/test_sessions.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.errors import StoreFault
from convene.store.base_sessions import Note, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class SessionsDouble:
    """Sessions in dictionaries."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], SessionRecord] = {}
        self.kept: dict[tuple[str, str], dict[str, Note]] = {}
        self.broken = False

    async def touch(self, owner: str, session_id: str, conversation_id: str, now_us: int) -> SessionRecord:
        self._check()
        name = (owner, session_id)
        found = self.records.get(name)
        if found is None:
            found = SessionRecord(
                owner=owner, id=session_id, conversation_id=conversation_id, created_us=now_us, used_us=now_us, size=0
            )
        self.records[name] = msgspec.structs.replace(found, used_us=now_us)
        self.kept.setdefault(name, {})
        return self.records[name]

    async def get(self, owner: str, session_id: str) -> SessionRecord | None:
        self._check()
        return self.records.get((owner, session_id))

    async def page(self, owner: str, limit: int, after: tuple[int, str] | None = None) -> list[SessionRecord]:
        self._check()
        found = [one for one in self.records.values() if one.owner == owner]
        found.sort(key=lambda one: (one.used_us, one.id), reverse=True)
        return [one for one in found if after is None or (one.used_us, one.id) < after][:limit]

    async def put(self, owner: str, session_id: str, notes: Mapping[str, bytes], now_us: int, size_max: int) -> None:
        self._check()
        name = (owner, session_id)
        if name not in self.records:
            return
        kept = self.kept[name]
        for note, body in notes.items():
            kept.pop(note, None)
            kept[note] = Note(name=note, body=body, at_us=now_us)
        while sum(len(note.body) for note in kept.values()) > size_max:
            del kept[next(iter(kept))]
        size = sum(len(note.body) for note in kept.values())
        self.records[name] = msgspec.structs.replace(self.records[name], size=size)

    async def notes(self, owner: str, session_id: str, names: Sequence[str] | None = None) -> list[Note]:
        self._check()
        kept = self.kept.get((owner, session_id), {}).values()
        return [note for note in kept if names is None or note.name in names]

    async def take(self, owner: str, session_id: str, names: Sequence[str]) -> None:
        self._check()
        for name in names:
            self.kept.get((owner, session_id), {}).pop(name, None)

    async def delete(self, owner: str, session_id: str) -> bool:
        self._check()
        self.kept.pop((owner, session_id), None)
        return self.records.pop((owner, session_id), None) is not None

    async def forget(self, used_before_us: int) -> int:
        self._check()
        gone = [name for name, one in self.records.items() if one.used_us < used_before_us]
        for name in gone:
            del self.records[name], self.kept[name]
        return len(gone)

    def _check(self) -> None:
        if self.broken:
            raise StoreFault("The store cannot be used.", detail="broken by the test")

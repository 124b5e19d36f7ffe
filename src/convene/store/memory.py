"""The store that forgets at exit: for tests, and for a server that is to leave nothing on the disk."""

from __future__ import annotations

import msgspec

from convene.errors import Conflict
from convene.store.base import KeyRecord, StoreFault
from convene.store.memory_answers import MemoryAnswers


class MemoryKeys:
    """Keys in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._version = 0
        self._open = True

    async def add(self, record: KeyRecord) -> None:
        """Keep a new key. Raises `Conflict` if the id is taken."""
        self._check_open()
        if record.id in self._records:
            raise Conflict(f"There is already a key with the id {record.id}.")
        self._put(record)

    async def add_first(self, record: KeyRecord) -> bool:
        """Keep a key if there is none yet."""
        self._check_open()
        if self._records:
            return False
        self._put(record)
        return True

    async def get(self, key_id: str) -> KeyRecord | None:
        """Return the key with this id, or None."""
        self._check_open()
        return self._records.get(key_id)

    async def list_all(self) -> tuple[KeyRecord, ...]:
        """Return all keys, oldest first."""
        self._check_open()
        return tuple(sorted(self._records.values(), key=lambda record: (record.created_at, record.id)))

    async def revoke(self, key_id: str, at: float) -> bool:
        """Mark the key revoked; the first time stays."""
        self._check_open()
        record = self._records.get(key_id)
        if record is not None and record.revoked_at is None:
            self._put(msgspec.structs.replace(record, revoked_at=at))
        return record is not None

    async def replace_secret(self, key_id: str, digest: bytes, last4: str) -> bool:
        """Give the key another secret, unless it is revoked."""
        self._check_open()
        record = self._records.get(key_id)
        if record is None or record.revoked_at is not None:
            return False
        self._put(msgspec.structs.replace(record, digest=digest, last4=last4))
        return True

    async def version(self) -> int:
        """Return the number of changes."""
        self._check_open()
        return self._version

    def close(self) -> None:
        """Forget everything."""
        self._open = False
        self._records.clear()

    def _put(self, record: KeyRecord) -> None:
        self._records[record.id] = record
        self._version += 1

    def _check_open(self) -> None:
        if not self._open:
            raise StoreFault("The store is closed.")


class MemoryStore:
    """All of it in this process's memory."""

    def __init__(self) -> None:
        self._keys = MemoryKeys()
        self._answers = MemoryAnswers()

    @property
    def keys(self) -> MemoryKeys:
        """The API keys."""
        return self._keys

    @property
    def answers(self) -> MemoryAnswers:
        """The kept answers of idempotent requests."""
        return self._answers

    async def aclose(self) -> None:
        """Forget everything."""
        self._keys.close()
        self._answers.close()

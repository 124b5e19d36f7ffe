"""The store that forgets at exit: for tests, and for a server that is to leave nothing on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.errors import Conflict
from convene.store.memory_accounts import MemoryAccounts
from convene.store.memory_answers import MemoryAnswers
from convene.store.memory_ledger import MemoryLedger
from convene.store.memory_market import MemoryMarket
from convene.store.memory_part import MemoryPart
from convene.store.memory_runs import MemoryRuns
from convene.store.memory_sessions import MemorySessions
from convene.store.memory_vectors import MemoryVectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.store.base import KeyChange, KeyRecord


class MemoryKeys(MemoryPart):
    """Keys in a dictionary."""

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._version = 0

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

    async def list_of(self, user_id: str, team_ids: Sequence[str] = ()) -> tuple[KeyRecord, ...]:
        """Return the keys of a user and of these teams, oldest first."""
        everything = await self.list_all()
        return tuple(one for one in everything if (user_id and one.user_id == user_id) or one.team_id in team_ids)

    async def change(self, key_id: str, change: KeyChange) -> KeyRecord | None:
        """Change a key."""
        self._check_open()
        record = self._records.get(key_id)
        if record is None:
            return None
        said = {name: new for name in change.__struct_fields__ if (new := getattr(change, name)) is not msgspec.UNSET}
        self._put(msgspec.structs.replace(record, **said))
        return self._records[key_id]

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

    def revise(self) -> None:
        """Count a change of the accounts, which decide what keys may do."""
        self._version += 1

    def close(self) -> None:
        """Forget everything."""
        super().close()
        self._records.clear()

    def _put(self, record: KeyRecord) -> None:
        self._records[record.id] = record
        self._version += 1


class MemoryStore:
    """All of it in this process's memory."""

    def __init__(self) -> None:
        self._keys = MemoryKeys()
        self._answers = MemoryAnswers()
        self._accounts = MemoryAccounts(self._keys.revise)
        self._ledger = MemoryLedger()
        self._runs = MemoryRuns()
        self._sessions = MemorySessions()
        self._market = MemoryMarket()
        self._vectors = MemoryVectors()

    @property
    def keys(self) -> MemoryKeys:
        """The API keys."""
        return self._keys

    @property
    def answers(self) -> MemoryAnswers:
        """The kept answers of idempotent requests."""
        return self._answers

    @property
    def accounts(self) -> MemoryAccounts:
        """The users, teams, links and browser sessions."""
        return self._accounts

    @property
    def ledger(self) -> MemoryLedger:
        """The books."""
        return self._ledger

    @property
    def runs(self) -> MemoryRuns:
        """The journal of agentic turns."""
        return self._runs

    @property
    def sessions(self) -> MemorySessions:
        """What is remembered between the requests of a conversation."""
        return self._sessions

    @property
    def market(self) -> MemoryMarket:
        """The agents that have registered or were listed."""
        return self._market

    @property
    def vectors(self) -> MemoryVectors:
        """What listings mean."""
        return self._vectors

    async def aclose(self) -> None:
        """Forget everything."""
        self._keys.close()
        self._answers.close()
        self._accounts.close()
        self._ledger.close()
        self._runs.close()
        self._sessions.close()
        self._market.close()
        self._vectors.close()

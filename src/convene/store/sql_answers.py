"""Kept answers in the table `answers`, of SQLite or Postgres.

A claim is one statement, so that of a hundred at once exactly one is `mine`: it inserts, or takes over a row that has
expired or whose writer died before it answered, and says by the number of rows it touched whether it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene.store.base import StoreFault
from convene.store.base_answers import Claim, SavedAnswer
from convene.store.presence import DEAD_AFTER_US

if TYPE_CHECKING:
    from convene.store.presence import Presence
    from convene.store.sql import Database

_CLAIM = (
    "INSERT INTO answers (owner, key, fingerprint, writer, expires_at) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (owner, key) DO UPDATE SET fingerprint = excluded.fingerprint, writer = excluded.writer, "
    "expires_at = excluded.expires_at, status = NULL, headers = NULL, body = NULL "
    "WHERE answers.expires_at <= ? OR (answers.status IS NULL AND answers.writer <> excluded.writer AND NOT EXISTS "
    "(SELECT 1 FROM writers WHERE writers.id = answers.writer AND writers.seen_at_us >= ?))"
)
_LOOK = "SELECT fingerprint, status, headers, body FROM answers WHERE owner = ? AND key = ?"
_SAVE = (
    "UPDATE answers SET status = ?, headers = ?, body = ? WHERE owner = ? AND key = ? AND writer = ? AND status IS NULL"
)
_RELEASE = "DELETE FROM answers WHERE owner = ? AND key = ? AND writer = ? AND status IS NULL"
_SWEEP = "DELETE FROM answers WHERE expires_at <= ?"
_TRIES = 5
"""How often a claim is tried whose row keeps vanishing between the two statements; each is another's release."""


class SqlAnswers:
    """Kept answers in a database, claimed as the writer `presence`."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence

    async def claim(self, owner: str, key: str, fingerprint: bytes, expires_at: float, now: float) -> Claim:
        """Claim a key (`base_answers.Answers`). Raises `StoreFault`."""
        alive_us = self._presence.now_us() - DEAD_AFTER_US
        values = (owner, key, fingerprint, self._presence.id, expires_at, now, alive_us)
        for _ in range(_TRIES):
            [claimed] = await self._database.write([(_CLAIM, values)])
            if claimed:
                return Claim(state="mine")
            for found, status, headers, body in await self._database.rows(_LOOK, (owner, key)):
                if found != fingerprint:
                    return Claim(state="other")
                if status is None:
                    return Claim(state="running")
                pairs = msgspec.json.decode(headers, type=tuple[tuple[str, str], ...])
                return Claim(state="done", answer=SavedAnswer(status=status, headers=pairs, body=body))
        raise StoreFault("The idempotency key is being claimed by too many requests at once.")

    async def save(self, owner: str, key: str, answer: SavedAnswer) -> None:
        """Keep the answer of a claim of ours; nothing happens if the claim is no longer ours. Raises `StoreFault`."""
        headers = msgspec.json.encode(answer.headers).decode()
        values = (answer.status, headers, answer.body, owner, key, self._presence.id)
        await self._database.write([(_SAVE, values)])

    async def release(self, owner: str, key: str) -> None:
        """Give up a claim of ours that has no answer. Raises `StoreFault`."""
        await self._database.write([(_RELEASE, (owner, key, self._presence.id))])

    async def sweep(self, now: float) -> int:
        """Forget what has expired and return how many. Raises `StoreFault`."""
        [gone] = await self._database.write([(_SWEEP, (now,))])
        return gone

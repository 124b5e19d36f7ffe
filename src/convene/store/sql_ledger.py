"""Reading the books, of SQLite or Postgres, and forgetting what is old; `sqlite_ledger` and the like write them.

A report is answered from `day_sums`, and from `entries` only for what days do not tell: hours, sessions, agents, and
the rests of a stretch of time that begins or ends within a day. Whose entries may be seen is part of every statement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from convene.limits.limit import DAY_US
from convene.store.base_ledger import FOUND_MAX, Bucket, Sums
from convene.store.ledger_groups import COLUMN, needs_entries, read, shown
from convene.store.ledger_rows import (
    ENTRY_FIELDS,
    FIGURES,
    HOUR_US,
    SUM_FIELDS,
    entry_of,
    packed_intents,
    spans,
    sums_of,
    unpacked_intents,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from convene.store.base_ledger import Entry, Filter, GroupBy, Intent, Whose
    from convene.store.presence import Presence
    from convene.store.sql import Change, Database

PAGE: Final = 500
"""Rows a statement, where many are walked through: a few milliseconds each."""

_COLUMNS: Final = ", ".join(ENTRY_FIELDS)
_FIGURES: Final = ", ".join(FIGURES)
_SUMS: Final = ", ".join(f"CAST(coalesce(sum({name}), 0) AS BIGINT)" for name in SUM_FIELDS)
_OF_DAYS: Final = f"SELECT key_id, model, user_id, team_id, day, requests, {_FIGURES} FROM day_sums WHERE "  # noqa: S608 -- constants, here and below
_OF_RESTS: Final = (
    f"SELECT key_id, model, user_id, team_id, at_us / {DAY_US} AS day, 1 AS requests, {_FIGURES} FROM entries WHERE "  # noqa: S608
)
_OF_ENTRIES: Final = (
    f"SELECT key_id, model, user_id, team_id, session_id, agent_address, at_us / {DAY_US} AS day, "  # noqa: S608
    f"at_us / {HOUR_US} AS hour, 1 AS requests, {_FIGURES} FROM entries WHERE "
)
_FORGET: Final = "DELETE FROM entries WHERE id IN (SELECT id FROM entries WHERE at_us < ? ORDER BY at_us LIMIT ?)"
_DEAD: Final = (
    "SELECT number, body FROM intents WHERE writer <> ? "
    "AND writer NOT IN (SELECT id FROM writers WHERE seen_at_us >= ?) ORDER BY number"
)

Clause = tuple[str, list[object]]


class SqlLedger:
    """The reading side of the books."""

    def __init__(self, database: Database, presence: Presence) -> None:
        self._database = database
        self._presence = presence

    async def settle(self) -> None:
        """Bring into the tables whatever was acknowledged and is still on its way there. Raises `StoreFault`."""

    async def find(self, wanted: str, whose: Whose) -> list[Entry]:
        """Return the entries with this id or request id (`base_ledger.Ledger`)."""
        await self.settle()
        where, values = _seen_by(whose)
        where = where.replace("_id =", "_id || '' =")  # so that it is looked up by the id, not by the key, who has many
        statement = (
            f"SELECT {_COLUMNS} FROM entries WHERE (id = ? OR request_id = ?) AND {where} "  # noqa: S608
            "ORDER BY at_us, id LIMIT ?"
        )
        values = [wanted, wanted, *values, FOUND_MAX]
        return [entry_of(row) for row in await self._database.rows(statement, values)]

    async def total(self, whose: Whose) -> Sums:
        """Return the sums over all time, from one row for each key, model and day (`base_ledger.Ledger`)."""
        await self.settle()
        where, values = _seen_by(whose)
        [row] = await self._database.rows(f"SELECT {_SUMS} FROM day_sums WHERE {where}", values)  # noqa: S608
        return sums_of(row)

    async def report(
        self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> list[Bucket]:
        """Return sums by group (`base_ledger.Ledger`). Raises ValueError for an `after` that is no group of these."""
        await self.settle()
        source, values = _entries_source(which) if needs_entries(which, by) else _days_source(which)
        groups = ", ".join(COLUMN[one] for one in by)
        behind = ""
        if after:
            behind = f" WHERE ({groups}) > ({', '.join('?' * len(by))})"
            values += read(by, after)
        statement = f"SELECT {_SUMS}{', ' if by else ''}{groups} FROM ({source}) AS part{behind}"  # noqa: S608
        if by:
            statement += f" GROUP BY {groups} ORDER BY {groups} LIMIT ?"
            values.append(limit)
        rows = await self._database.rows(statement, values)
        width = len(SUM_FIELDS)
        return [Bucket(group=shown(by, row[width:]), sums=sums_of(row[:width])) for row in rows]

    async def page(self, which: Filter, limit: int, after: tuple[int, str] | None = None) -> list[Entry]:
        """Return entries, newest first (`base_ledger.Ledger`)."""
        await self.settle()
        where, values = _clause(which)
        if after is not None:
            where += " AND (at_us, id) < (?, ?)"
            values += after
        statement = f"SELECT {_COLUMNS} FROM entries WHERE {where} ORDER BY at_us DESC, id DESC LIMIT ?"  # noqa: S608
        return [entry_of(row) for row in await self._database.rows(statement, [*values, limit])]

    async def entries(self, which: Filter) -> AsyncIterator[Entry]:
        """Yield entries, oldest admission first (`base_ledger.Ledger`)."""
        await self.settle()
        where, values = _clause(which)
        after: list[object] = []
        while True:
            behind = " AND (at_us, id) > (?, ?)" if after else ""
            statement = f"SELECT {_COLUMNS} FROM entries WHERE {where}{behind} ORDER BY at_us, id LIMIT ?"  # noqa: S608
            rows = await self._database.rows(statement, [*values, *after, PAGE])
            found = [entry_of(row) for row in rows]
            for entry in found:
                yield entry
            if len(rows) < PAGE:
                return
            after = [found[-1].at_us, found[-1].id]

    async def forget_before(self, at_us: int) -> int:
        """Delete old entries, some at a time, so that nobody waits for it long (`base_ledger.Ledger`)."""
        await self.settle()
        await self._tidy_intents(await self._database.rows("SELECT number, body FROM intents"), at_us)
        forgotten = 0
        while True:
            [gone] = await self._database.write([(_FORGET, (at_us, PAGE))])
            forgotten += gone
            if gone < PAGE:
                return forgotten

    async def orphans(self, dead_after_us: int) -> list[Intent]:
        """Return what dead writers left open (`base_ledger.Ledger`), and forget what of theirs has ended."""
        await self._presence.wake(dead_after_us)
        await self.settle()
        seen_us = self._presence.now_us() - dead_after_us
        rows = await self._database.rows(_DEAD, (self._presence.id, seen_us))
        return await self._tidy_intents(rows, None)

    async def open_intents(self) -> list[Intent]:
        """Return all intents without an entry (`base_ledger.Ledger`)."""
        await self.settle()
        intents = [
            intent
            for (body,) in await self._database.rows("SELECT body FROM intents")
            for intent in unpacked_intents(body)
        ]
        ended = await self._ended(intents)
        return sorted((intent for intent in intents if intent.id not in ended), key=_age)

    async def _tidy_intents(self, rows: Iterable[Sequence[Any]], before_us: int | None) -> list[Intent]:
        """Forget in these rows what has ended (and was admitted before a time), and return what has not.

        Else an intent whose entry is forgotten would look open again, and be billed twice.
        """
        unpacked = [(number, unpacked_intents(body)) for number, body in rows]
        ended = await self._ended([intent for _, intents in unpacked for intent in intents])
        changes: list[Change] = []
        left: list[Intent] = []
        for number, intents in unpacked:
            stay = [one for one in intents if one.id not in ended or (before_us is not None and one.at_us >= before_us)]
            left += (one for one in intents if one.id not in ended)
            if not stay:
                changes.append(("DELETE FROM intents WHERE number = ?", (number,)))
            elif len(stay) < len(intents):
                changes.append(("UPDATE intents SET body = ? WHERE number = ?", (packed_intents(stay), number)))
        if changes:
            await self._database.write(changes)
        return sorted(left, key=_age)

    async def _ended(self, intents: Sequence[Intent]) -> set[str]:
        """Return the ids of those that have an entry."""
        found: set[str] = set()
        for start in range(0, len(intents), PAGE):
            ids = [intent.id for intent in intents[start : start + PAGE]]
            statement = f"SELECT id FROM entries WHERE id IN ({', '.join('?' * len(ids))})"  # noqa: S608
            found.update(found_id for (found_id,) in await self._database.rows(statement, ids))
        return found


def _age(intent: Intent) -> tuple[int, str]:
    return intent.at_us, intent.id


def _seen_by(whose: Whose) -> Clause:
    """Return the condition that a row is theirs. Nobody is a user or a team without an id."""
    if whose.kind == "all":
        return "1 = 1", []
    if whose.kind == "key":
        return "key_id = ?", [whose.id]
    if not whose.id:
        return "1 = 0", []
    return f"{whose.kind}_id = ?", [whose.id]


def _clause(which: Filter, columns: Sequence[str] = ("model", "key_id", "session_id", "agent_address")) -> Clause:
    where, values = _seen_by(which.whose)
    pairs = [(f"{name} = ?", getattr(which, name)) for name in columns]
    pairs += [("at_us >= ?", which.since_us), ("at_us < ?", which.until_us)]
    for condition, value in pairs:
        if value is not None:
            where += f" AND {condition}"
            values.append(value)
    return where, values


def _entries_source(which: Filter) -> Clause:
    where, values = _clause(which)
    return _OF_ENTRIES + where, values


def _days_source(which: Filter) -> Clause:
    """Return the sums of the whole days, and the entries of the rests as if they were days."""
    where, values = _seen_by(which.whose)
    for name, value in (("model", which.model), ("key_id", which.key_id)):
        if value is not None:
            where += f" AND {name} = ?"
            values.append(value)
    (first, last), rests = spans(which.since_us, which.until_us)
    parts, all_values = [_OF_DAYS + where], [*values]
    for condition, day in (("day >= ?", first), ("day < ?", last)):
        if day is not None:
            parts[0] += f" AND {condition}"
            all_values.append(day)
    for since_us, until_us in rests:
        parts.append(f"{_OF_RESTS}{where} AND at_us >= ? AND at_us < ?")
        all_values += [*values, since_us, until_us]
    return " UNION ALL ".join(parts), all_values

"""The books in this process's memory: for tests, and for a server that is to leave nothing on the disk.

They are as exact as the others while the process lives, and gone with it: no intent is ever an orphan.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import defaultdict
from typing import TYPE_CHECKING

from convene.limits.limit import DAY_US
from convene.store.base_ledger import FOUND_MAX, Bucket, Sums
from convene.store.ledger_groups import needs_entries, read, shown
from convene.store.ledger_rows import FIGURES, HOUR_US, SUM_FIELDS, spans
from convene.store.memory_part import MemoryPart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from convene.store.base_ledger import Entry, Filter, GroupBy, Intent, Whose

Day = tuple[str, str, int, str, str]
"""Key, model, day since 1970, user, team."""


class MemoryLedger(MemoryPart):
    """Entries in the order of their admission, and the sums of their days."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._order: list[tuple[int, str]] = []
        self._days: dict[Day, list[int]] = {}
        self._intents: dict[str, Intent] = {}

    def begin(self, intent: Intent) -> asyncio.Future[None]:
        """Note an intent (`base_ledger.Ledger`)."""
        self._check_open()
        if intent.id not in self._entries:
            self._intents[intent.id] = intent
        return _done()

    def finish(self, entry: Entry) -> asyncio.Future[None]:
        """Note an entry and end its intent (`base_ledger.Ledger`)."""
        self._check_open()
        self._intents.pop(entry.id, None)
        if entry.id not in self._entries:
            self._entries[entry.id] = entry
            insort(self._order, (entry.at_us, entry.id))
            day = (entry.key_id, entry.model, entry.at_us // DAY_US, entry.user_id, entry.team_id)
            _add(self._days.setdefault(day, [0] * len(SUM_FIELDS)), _figures(entry))
        return _done()

    async def orphans(self, dead_after_us: int) -> list[Intent]:
        """Return nothing: whoever began an intent here is alive (`base_ledger.Ledger`)."""
        del dead_after_us
        self._check_open()
        return []

    async def open_intents(self) -> list[Intent]:
        """Return the intents without an entry (`base_ledger.Ledger`)."""
        self._check_open()
        return sorted(self._intents.values(), key=lambda intent: (intent.at_us, intent.id))

    async def find(self, wanted: str, whose: Whose) -> list[Entry]:
        """Return the entries with this id or request id (`base_ledger.Ledger`)."""
        self._check_open()
        named = [entry for entry in self._entries.values() if wanted in {entry.id, entry.request_id}]
        seen = sorted((entry for entry in named if _sees(whose, entry)), key=lambda entry: (entry.at_us, entry.id))
        return seen[:FOUND_MAX]

    async def total(self, whose: Whose) -> Sums:
        """Return the sums over all time (`base_ledger.Ledger`)."""
        self._check_open()
        sums = [0] * len(SUM_FIELDS)
        for (key_id, _, _, user_id, team_id), figures in self._days.items():
            if _is_of(whose, key_id, user_id, team_id):
                _add(sums, figures)
        return _sums(sums)

    async def report(
        self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> list[Bucket]:
        """Return sums by group (`base_ledger.Ledger`). Raises ValueError for an `after` that is no group of these."""
        self._check_open()
        behind = read(by, after) if after else ()
        groups: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0] * len(SUM_FIELDS))
        if not by:
            _add(groups[()], [0] * len(SUM_FIELDS))  # the sums of nothing are sums too
        parts = self._parts_of_entries(which) if needs_entries(which, by) else self._parts_of_days(which)
        for names, figures in parts:
            _add(groups[tuple(names[one] for one in by)], figures)
        found = sorted(item for item in groups.items() if not behind or item[0] > behind)
        return [Bucket(group=shown(by, group), sums=_sums(figures)) for group, figures in found[:limit]]

    async def page(self, which: Filter, limit: int, after: tuple[int, str] | None = None) -> list[Entry]:
        """Return entries, newest first (`base_ledger.Ledger`)."""
        self._check_open()
        found = [entry for entry in self._chosen(which) if after is None or (entry.at_us, entry.id) < after]
        return found[::-1][:limit]

    async def entries(self, which: Filter) -> AsyncIterator[Entry]:
        """Yield entries, oldest admission first (`base_ledger.Ledger`)."""
        self._check_open()
        for entry in list(self._chosen(which)):
            yield entry

    async def forget_before(self, at_us: int) -> int:
        """Delete old entries; their sums stay (`base_ledger.Ledger`)."""
        self._check_open()
        gone = bisect_left(self._order, (at_us, ""))
        for _, entry_id in self._order[:gone]:
            del self._entries[entry_id]
        del self._order[:gone]
        return gone

    async def flush(self) -> None:
        """Return at once: there is nothing to wait for (`base_ledger.Ledger`)."""
        self._check_open()

    def close(self) -> None:
        """Forget everything."""
        super().close()
        for kept in (self._entries, self._order, self._days, self._intents):
            kept.clear()

    def _chosen(self, which: Filter) -> Iterator[Entry]:
        since, until = which.since_us, which.until_us
        for at_us, entry_id in self._order:
            if (since is None or at_us >= since) and (until is None or at_us < until):
                entry = self._entries[entry_id]
                if _sees(which.whose, entry) and _matches(which, entry):
                    yield entry

    def _parts_of_entries(self, which: Filter) -> Iterator[tuple[dict[GroupBy, object], list[int]]]:
        for entry in self._chosen(which):
            names = _names(entry.key_id, entry.model, entry.at_us // DAY_US, entry.user_id, entry.team_id)
            names |= {
                "hour": entry.at_us // HOUR_US,
                "session": entry.session_id,
                "agent": entry.agent_address,
            }
            yield names, _figures(entry)

    def _parts_of_days(self, which: Filter) -> Iterator[tuple[dict[GroupBy, object], list[int]]]:
        (first, last), rests = spans(which.since_us, which.until_us)
        for day, figures in self._days.items():
            key_id, model, number, user_id, team_id = day
            if (
                _is_of(which.whose, key_id, user_id, team_id)
                and which.model in {None, model}
                and which.key_id in {None, key_id}
                and (first is None or number >= first)
                and (last is None or number < last)
            ):
                yield _names(*day), figures
        for entry in self._chosen(which):
            if any(since <= entry.at_us < until for since, until in rests):
                day = (entry.key_id, entry.model, entry.at_us // DAY_US, entry.user_id, entry.team_id)
                yield _names(*day), _figures(entry)


def _done() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_result(None)
    return future


def _names(key_id: str, model: str, day: int, user_id: str, team_id: str) -> dict[GroupBy, object]:
    return {"key": key_id, "model": model, "day": day, "user": user_id, "team": team_id}


def _figures(entry: Entry) -> list[int]:
    return [1, *(getattr(entry, name) for name in FIGURES)]


def _add(sums: list[int], figures: list[int]) -> None:
    for place, figure in enumerate(figures):
        sums[place] += figure


def _sums(figures: list[int]) -> Sums:
    return Sums(**dict(zip(SUM_FIELDS, figures, strict=True)))


def _is_of(whose: Whose, key_id: str, user_id: str, team_id: str) -> bool:
    if whose.kind == "all":
        return True
    if whose.kind == "key":
        return key_id == whose.id
    return whose.id != "" and whose.id == (user_id if whose.kind == "user" else team_id)


def _sees(whose: Whose, entry: Entry) -> bool:
    return _is_of(whose, entry.key_id, entry.user_id, entry.team_id)


def _matches(which: Filter, entry: Entry) -> bool:
    return (
        which.model in {None, entry.model}
        and which.key_id in {None, entry.key_id}
        and which.session_id in {None, entry.session_id}
        and which.agent_address in {None, entry.agent_address}
    )

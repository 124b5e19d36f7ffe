"""A ledger in a list, for tests of those who read it: the seam's words and nothing more."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from convene.errors import StoreFault
from convene.store.base_ledger import Bucket, Entry, Sums

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from convene.store.base_ledger import Filter, GroupBy, Intent, Whose

SECOND_US = 1_000_000
_TEXTS: dict[GroupBy, Callable[[Entry], str]] = {
    "day": lambda entry: _utc(entry).strftime("%Y-%m-%d"),
    "hour": lambda entry: _utc(entry).strftime("%Y-%m-%dT%H"),
    "model": lambda entry: entry.model,
    "key": lambda entry: entry.key_id,
    "user": lambda entry: entry.user_id,
    "team": lambda entry: entry.team_id,
    "session": lambda entry: entry.session_id,
    "agent": lambda entry: entry.agent_address,
}


class ListLedger:
    """A `Ledger` over a list of entries; `broken` makes every call raise `StoreFault`."""

    def __init__(self, kept: Iterable[Entry] = ()) -> None:
        self.kept = list(kept)
        self.intents: list[Intent] = []
        self.broken = False

    def begin(self, intent: Intent) -> Awaitable[None]:
        self.intents.append(intent)
        return self.flush()

    def finish(self, entry: Entry) -> Awaitable[None]:
        if all(kept.id != entry.id for kept in self.kept):
            self.kept.append(entry)
        self.intents = [intent for intent in self.intents if intent.id != entry.id]
        return self.flush()

    async def orphans(self, dead_after_us: int) -> Sequence[Intent]:
        del dead_after_us
        return []

    async def open_intents(self) -> Sequence[Intent]:
        self._check()
        return list(self.intents)

    async def find(self, wanted: str, whose: Whose) -> Sequence[Entry]:
        self._check()
        return [entry for entry in self.kept if wanted in {entry.id, entry.request_id} and _is_of(entry, whose)]

    async def total(self, whose: Whose) -> Sums:
        self._check()
        return sums_of(entry for entry in self.kept if _is_of(entry, whose))

    async def report(
        self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> list[Bucket]:
        groups: dict[tuple[str, ...], list[Entry]] = {}
        for entry in self._matching(which):
            groups.setdefault(tuple(_TEXTS[one](entry) for one in by), []).append(entry)
        rows = [Bucket(group=group, sums=sums_of(groups[group])) for group in sorted(groups)]
        return [row for row in rows if not after or row.group > after][:limit]

    async def page(self, which: Filter, limit: int, after: tuple[int, str] | None = None) -> list[Entry]:
        newest = sorted(self._matching(which), key=lambda entry: (entry.at_us, entry.id), reverse=True)
        return [entry for entry in newest if after is None or (entry.at_us, entry.id) < after][:limit]

    async def entries(self, which: Filter) -> AsyncIterator[Entry]:
        for entry in sorted(self._matching(which), key=lambda entry: (entry.at_us, entry.id)):
            yield entry

    async def forget_before(self, at_us: int) -> int:
        before = len(self.kept)
        self.kept = [entry for entry in self.kept if entry.at_us >= at_us]
        return before - len(self.kept)

    async def flush(self) -> None:
        self._check()

    def _matching(self, which: Filter) -> list[Entry]:
        self._check()
        pairs = (("model", "model"), ("key_id", "key_id"), ("session_id", "session_id"), ("agent_address",) * 2)
        return [
            entry
            for entry in self.kept
            if _is_of(entry, which.whose)
            and (which.since_us is None or entry.at_us >= which.since_us)
            and (which.until_us is None or entry.at_us < which.until_us)
            and all(getattr(which, mine) in {None, getattr(entry, theirs)} for mine, theirs in pairs)
        ]

    def _check(self) -> None:
        if self.broken:
            raise StoreFault("The store cannot be used now.")


def entry(number: int, **fields: object) -> Entry:
    """Return entry `e<number>` of key k1, admitted `number` seconds after 2026-11-26T00:00:00Z; fields replace."""
    given: dict[str, object] = {
        "id": f"e{number}",
        "request_id": f"req_{number}",
        "at_us": (1_795_651_200 + number) * SECOND_US,
        "kind": "chat",
        "key_id": "k1",
        "owner": "k1",
        "model_asked": "asi1",
        "model": "small",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost_micros": 100,
    }
    return Entry(**(given | fields))  # type: ignore[arg-type]  # fields of an entry, each of its own type


def sums_of(entries: Iterable[Entry]) -> Sums:
    """Return what entries come to."""
    kept = list(entries)
    names = [name for name in Sums.__struct_fields__ if name != "requests"]
    return Sums(requests=len(kept), **{name: sum(getattr(one, name) for one in kept) for name in names})


def _is_of(entry: Entry, whose: Whose) -> bool:
    return whose.kind == "all" or getattr(entry, f"{whose.kind}_id") == whose.id


def _utc(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.at_us // SECOND_US, UTC)

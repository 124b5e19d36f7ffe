"""A ledger for tests of whoever keeps the books: what was begun and finished, and when it fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.errors import StoreFault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Sequence

    from convene.store.base_ledger import Bucket, Entry, Filter, GroupBy, Intent, Sums, Whose


class Pages:
    """A `Ledger` whose writing can be tested; it reads back what the background work needs."""

    def __init__(self) -> None:
        self.intents: dict[str, Intent] = {}
        self.entries_by_id: dict[str, Entry] = {}
        self.dead: set[str] = set()
        """Ids of intents whose writer is dead."""
        self.sums: list[Bucket] = []
        self.fails = False
        self.on_disk: set[str] = set()
        self.forgotten: list[int] = []

    def begin(self, intent: Intent) -> Awaitable[None]:
        self.intents[intent.id] = intent
        return self._written("")

    def finish(self, entry: Entry) -> Awaitable[None]:
        self.entries_by_id.setdefault(entry.id, entry)
        return self._written(entry.id)

    def _written(self, entry_id: str) -> asyncio.Task[None]:
        async def write() -> None:
            await asyncio.sleep(0)
            if self.fails:
                raise StoreFault("The books cannot be written.", detail="disk full")
            self.on_disk.add(entry_id)

        task = asyncio.get_running_loop().create_task(write())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    @property
    def begun(self) -> set[str]:
        """The ids of intents without an entry."""
        return self.intents.keys() - self.entries_by_id.keys()

    async def orphans(self, dead_after_us: int) -> Sequence[Intent]:
        assert dead_after_us > 0
        return [self.intents[one] for one in sorted(self.begun & self.dead)]

    async def open_intents(self) -> Sequence[Intent]:
        return [self.intents[one] for one in sorted(self.begun)]

    async def find(self, wanted: str, whose: Whose) -> Sequence[Entry]:
        assert whose.kind == "all"
        return [self.entries_by_id[wanted]] if wanted in self.entries_by_id else []

    async def total(self, whose: Whose) -> Sums:
        raise NotImplementedError(whose)

    async def report(
        self, which: Filter, by: Sequence[GroupBy], limit: int, after: tuple[str, ...] = ()
    ) -> list[Bucket]:
        assert (which.whose.kind, tuple(by)) == ("all", ("day", "key", "model"))
        return [bucket for bucket in self.sums if bucket.group > after][:limit]

    async def page(self, which: Filter, limit: int, after: tuple[int, str] | None = None) -> list[Entry]:
        raise NotImplementedError(which, limit, after)

    async def entries(self, which: Filter) -> AsyncIterator[Entry]:
        for entry in sorted(self.entries_by_id.values(), key=lambda one: one.at_us):
            if which.since_us is None or entry.at_us >= which.since_us:
                yield entry

    async def forget_before(self, at_us: int) -> int:
        self.forgotten.append(at_us)
        return 3

    async def flush(self) -> None:
        await asyncio.sleep(0)

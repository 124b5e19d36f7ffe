"""The background work of the books: life signs, what the dead left behind, retention, and rebuilding at start.

    every third of a lease    leases of running requests are prolonged; leases of the dead end at what the books say
    every few seconds         intents of dead writers become entries with status `unknown` (reliability 2.1, rule 1),
                              those of agentic runs by whoever takes the run up, or at what its journal says
    every hour                entries older than the retention go; their sums stay
    at start                  counters that are empty are charged with what the ledger knows of the past

A kill therefore leaves no phantom: what it had reserved is free again after a lease, and what it may have used is in
the books, at the figure that was reserved for it (a journaled run: what its rounds have used) and marked as estimated
where nobody knows. Built and stopped by `app.py`.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import date
from operator import add
from typing import TYPE_CHECKING, Final, Protocol

from convene.errors import ConveneError, StoreFault
from convene.limits.limit import DAY_US, Amounts
from convene.moments import SECOND_US
from convene.serving.terms import PLAIN
from convene.store.base_counters import Past
from convene.store.base_ledger import Entry, Filter, Intent, Whose

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from convene.limits.limit import Limit
    from convene.serving.allowances import Allowances
    from convene.serving.base import Principal
    from convene.serving.books import Books
    from convene.serving.terms import Terms
    from convene.store.base_counters import Counters, LocalCounters
    from convene.store.base_ledger import Ledger

log = logging.getLogger("convene.bookkeeping")

ORPHANS_S: Final = 2.0
"""How often orphans are looked for."""
LIFE_US: Final = 10 * SECOND_US
"""The least silence of a writer that counts as death, however short leases are: it shows life every 3 s."""
RETENTION_S: Final = 3600.0
PAGE: Final = 5_000
_DAY_S: Final = 86_400


class KnownKilled(Protocol):
    """Knows what some of the killed have really used (`resume.py`)."""

    async def entries(self, intents: Sequence[Intent]) -> Mapping[str, Entry | None]:
        """Return the entries of those it knows; None for one that somebody else enters. Raises `StoreFault`."""
        ...


class Bookkeeping:
    """The tasks that keep one server's books in order."""

    def __init__(self, books: Books, *, retention_days: int = 0, known: KnownKilled | None = None) -> None:
        """`retention_days`: forget entries older than that; 0 keeps them for ever. `known`: who knows better."""
        self._books = books
        self._retention_days = retention_days
        self._known = known
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin the background work."""
        lease_s = self._books.terms.lease_us / SECOND_US
        self._repeat("leases", self.prolong, lease_s / 3)
        self._repeat("orphans", self.adopt_orphans, ORPHANS_S)
        if self._retention_days:
            self._repeat("retention", self.forget, RETENTION_S)

    async def aclose(self) -> None:
        """End the background work, then wait for what was settled."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._books.flush()

    async def prolong(self) -> None:
        """Prolong the leases of running requests and end those of the dead."""
        books = self._books
        if books.live:
            await books.counters.renew(list(books.live), books.terms.lease_us)
        if books.counters.local is not None:
            await self._end_overdue(books.counters.local)
            return
        for lease in await books.counters.expire():
            log.warning("lease %s had no sign of life and ended at what it had reserved", lease)

    async def _end_overdue(self, counters: LocalCounters) -> None:
        """End the leases whose time is up at what the books say of them, so that both stay the same (goal A4).

        Killed before its intent was written, a request never ran and owes nothing. One whose intent is open is left
        until it ends or is entered as unknown: its process may live and only have been held up.
        """
        overdue = counters.overdue()
        if not overdue:
            return
        ledger = self._books.ledger
        under_way = {intent.id for intent in await ledger.open_intents()}  # first: what ends meanwhile is found below
        for lease in overdue:
            if lease in under_way or lease in self._books.live:
                continue
            found = await ledger.find(lease, Whose("all"))
            used = next((used_of(entry) for entry in found if entry.id == lease), Amounts())
            if counters.settle(lease, used) is not None:
                log.warning("lease %s had no sign of life and ended at what the books say of it", lease)

    async def adopt_orphans(self) -> None:
        """Enter what the dead had begun: at what was reserved for it, unless a journal knows better."""
        intents = await self._books.ledger.orphans(max(self._books.terms.lease_us, LIFE_US))
        known = {} if self._known is None or not intents else await self._known.entries(intents)
        for intent in intents:
            if intent.id not in known:
                await self._books.ledger.finish(entry_of_orphan(intent))
                log.warning("request %s of a dead process is entered as unknown, at what it had reserved", intent.id)
                continue
            entry = known[intent.id]
            if entry is not None:
                await self._books.ledger.finish(entry)
                log.warning("request %s of a dead process is entered at what its journal says", intent.id)

    async def forget(self) -> None:
        """Delete entries older than the retention."""
        before = self._books.clock.now() - self._retention_days * _DAY_S
        count = await self._books.ledger.forget_before(int(before * SECOND_US))
        if count:
            log.info("%s entries older than %s days are deleted; their sums stay", count, self._retention_days)

    def _repeat(self, name: str, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(_forever(name, work, every_s), name=name))


async def _forever(name: str, work: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await work()
        except StoreFault as fault:
            log.warning("%s: %s", name, fault.detail or fault.message)
        except Exception:  # a fault of our own must not end the books' care for good; it is logged whole
            log.exception("%s failed and will be tried again", name)


def used_of(entry: Entry) -> Amounts:
    """Return what an entry says was used, as counters count it."""
    prompt, completion = entry.prompt_tokens, entry.completion_tokens
    return Amounts(1, prompt + completion, prompt, completion, entry.images, entry.cost_micros)


def entry_of_orphan(intent: Intent) -> Entry:
    """Return the entry of a request whose end nobody saw."""
    fields = {name: getattr(intent, name) for name in _SHARED}
    return Entry(
        **fields,
        prompt_tokens=intent.reserved.input_tokens,
        completion_tokens=intent.reserved.output_tokens,
        images=intent.reserved.images,
        cost_micros=intent.reserved.micros,
        estimated=True,
        status="unknown",
        finish="unknown",
    )


_SHARED: Final = tuple(name for name in Intent.__struct_fields__ if name in Entry.__struct_fields__)


class PastLimits:
    """Says which limits a request of the past counts against today."""

    def __init__(self, allowances: Allowances, terms: Mapping[str, Terms], principals: Mapping[str, Principal]) -> None:
        """`terms` are by deployment, `principals` by key id, of revoked keys too: their user and team have limits."""
        self._allowances = allowances
        self._terms = terms
        self._principals = principals

    def limits_of(self, key_id: str, model: str) -> tuple[Limit, ...]:
        """Return the limits of a key on a model today; none for a key that is unknown or whose plan is gone."""
        principal = self._principals.get(key_id)
        if principal is None:
            return ()
        try:
            return self._allowances.of(principal, model, self._terms.get(model, PLAIN))
        except ConveneError:
            return ()


async def rebuild(counters: Counters, ledger: Ledger, now: float, known: PastLimits) -> int | None:
    """Charge empty counters with what was used before, and return how many requests were counted; None if not empty.

    Rates: the entries and open intents of the last day, one by one. Budgets: the sums of every day, as they outlive
    retention, and the open intents. `now` is in Unix seconds. Nothing happens unless the counters say that they are
    fresh. Raises `StoreFault`.
    """
    if not await counters.fresh():
        return None
    now_us = int(now * SECOND_US)
    past = _PastCharges(known, now_us)
    everybody = Whose("all")
    last: tuple[str, ...] = ()
    while buckets := await ledger.report(Filter(whose=everybody), ("day", "key", "model"), PAGE, last):
        last = buckets[-1].group
        for bucket in buckets:
            day, key_id, model = bucket.group
            if bucket.sums.cost_micros:
                past.add(key_id, model, Amounts(micros=bucket.sums.cost_micros), min(_noon_us(day), now_us))
    async for entry in ledger.entries(Filter(whose=everybody, since_us=now_us - DAY_US)):
        # money was charged by the sums above
        past.add(entry.key_id, entry.model, used_of(entry)._replace(micros=0), entry.at_us)
    for intent in await ledger.open_intents():
        past.add(intent.key_id, intent.model, intent.reserved._replace(slots=0), intent.at_us)
    await counters.replay(past.all())
    return past.count


class _PastCharges:
    """Gathers the past by key, model and second, so that a day of a million requests fits into memory.

    A second's charges count at its last request: never less than they were, and at most a second of refill more.
    """

    def __init__(self, known: PastLimits, now_us: int) -> None:
        self._known = known
        self._now_us = now_us
        self._gathered: dict[tuple[int, str, str], tuple[int, Amounts]] = {}
        self.count = 0

    def add(self, key_id: str, model: str, amounts: Amounts, at_us: int) -> None:
        self.count += amounts.requests
        place = (at_us // SECOND_US, key_id, model)
        found = self._gathered.get(place)
        if found is not None:
            at_us = max(at_us, found[0])
            amounts = Amounts(*map(add, amounts, found[1]))
        self._gathered[place] = (at_us, amounts)

    def all(self) -> list[Past]:
        """Return the charges on limits that exist today, oldest first."""
        charges = sorted(
            (at_us, key_id, model, amounts) for (_, key_id, model), (at_us, amounts) in self._gathered.items()
        )
        found: list[Past] = []
        for at_us, key_id, model, amounts in charges:
            limits = self._known.limits_of(key_id, model)
            if limits:
                found.append(Past(limits, amounts, max(0, self._now_us - at_us)))
        return found


def _moment(charge: tuple[object, tuple[int, Amounts]]) -> int:
    return charge[1][0]


def _noon_us(day: str) -> int:
    """Return the middle of a day of UTC in Unix microseconds."""
    return (date.fromisoformat(day) - _EPOCH).days * DAY_US + DAY_US // 2


_EPOCH: Final = date(1970, 1, 1)

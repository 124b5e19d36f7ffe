"""Checking the books against themselves and against the world outside; reports every difference, mends none (goal B4).

    sums       what is kept by key, model and day, against the entries that made it
    entries    impossible figures; the same request twice; the cost against the price of its version
    intents    begun by a process that is dead, and never entered
    budgets    what the counters say is used, against the entries (where counters can be asked)
    upstream   what an upstream says it was asked for, against the entries (where there is such a file)

Never computed from what is being checked: sums come from entries here, budgets from entries, costs from prices. Two
passes are made and only what both find is reported, because a server may be writing beside it.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from convene.limits.limit import DAY_US
from convene.limits.periods import number_of
from convene.moments import iso
from convene.store.base_ledger import Entry, Filter, Sums, Whose
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from convene.limits.limit import Grant, Limit
    from convene.store.base_ledger import Ledger
    from convene.usage import Price

PAGE: Final = 1000
AHEAD_US: Final = DAY_US
"""An entry may lie so far in the future (clocks differ) before it is impossible."""
TOKENS_MAX: Final = 1_000_000_000
"""Most tokens one request can have; above it a figure is not a count."""

Check = Literal["sums", "figures", "twice", "cost", "intent", "budget", "upstream"]
_FIGURES: Final = tuple(name for name in Sums.__struct_fields__ if name != "requests")
_figures_of = attrgetter(*_FIGURES)
_BUT_ID: Final = tuple(name for name in Entry.__struct_fields__ if name != "id")
_likeness_of = attrgetter(*_BUT_ID)

Group = tuple[str, str, str]
"""Key, model, day."""


class Difference(msgspec.Struct, frozen=True, order=True):
    """One thing that is not as it should be."""

    check: Check
    where: str
    """The entry's or intent's id, a group of sums, a counter."""
    says: str


class Truth(msgspec.Struct, frozen=True):
    """What an upstream says of one request; a line of a truth file. `id` is the entry's id or its request id."""

    id: str
    prompt_tokens: int
    completion_tokens: int


class Report(msgspec.Struct, kw_only=True):
    """What was compared, and what differs."""

    entries: int = 0
    requests: int = 0
    """By the sums."""
    groups: int = 0
    open_intents: int = 0
    budgets: int = 0
    upstream: int = 0
    unpriced: int = 0
    """Entries whose price version is not configured any more, so that their cost cannot be checked."""
    skipped: list[str] = []
    """What was not compared, and why."""
    differences: list[Difference] = []


class Reconciler:
    """Compares the books of one store."""

    def __init__(
        self,
        ledger: Ledger,
        prices: Mapping[str, Price],
        now_us: int,
        *,
        since_us: int | None = None,
        dead_after_us: int = 60_000_000,
    ) -> None:
        """Prepare a comparison.

        Args:
            ledger: the books.
            prices: by version, as configured now.
            now_us: the wall clock.
            since_us: compare nothing admitted before; must begin a day, as sums are kept by day. None: everything.
            dead_after_us: a process without a sign of life for so long is dead, and its intents are open for good.
        """
        self._ledger = ledger
        self._prices = prices
        self._now_us = now_us
        self._which = Filter(whose=Whose("all"), since_us=since_us)
        self._dead_after_us = dead_after_us

    async def run(
        self,
        *,
        budgets: Sequence[tuple[Limit, str]] = (),
        levels: Callable[[tuple[Limit, ...]], Awaitable[Grant]] | None = None,
        truth: Iterable[Truth] | None = None,
    ) -> Report:
        """Compare everything twice and return what differed both times. Raises `StoreFault`.

        Args:
            budgets: limits on money, and the id of whom each binds (a key's, user's or team's).
            levels: `Counters.levels`; without it budgets are not compared.
            truth: what an upstream says; without it nothing is compared with one.
        """
        known = None if truth is None else {one.id: one for one in truth}
        first = await self._pass(budgets, levels, known)
        if not first.differences:
            return first
        second = await self._pass(budgets, levels, known)
        both = set(first.differences)
        second.differences = [one for one in second.differences if one in both]
        return second

    async def _pass(
        self,
        budgets: Sequence[tuple[Limit, str]],
        levels: Callable[[tuple[Limit, ...]], Awaitable[Grant]] | None,
        truth: Mapping[str, Truth] | None,
    ) -> Report:
        report = Report(skipped=[], differences=[])
        sums = await self._kept_sums(report)
        tally = _Tally(report, self._prices, self._now_us, budgets, truth)
        async for entry in self._ledger.entries(self._which):
            tally.take(entry)
        tally.compare_sums(sums)
        tally.compare_truth()
        await self._look_at_intents(report)
        if levels is None:
            report.skipped.append("budgets: the counters live in the server's memory and are rebuilt from the books")
        elif budgets:
            limits = tuple(limit for limit, _ in budgets)
            tally.compare_budgets(await levels(limits), limits)
        if truth is None:
            report.skipped.append("upstream: no file with an upstream's own figures was given")
        report.differences.sort()
        return report

    async def _kept_sums(self, report: Report) -> dict[Group, Sums]:
        kept: dict[Group, Sums] = {}
        after: tuple[str, ...] = ()
        while rows := await self._ledger.report(self._which, ("key", "model", "day"), PAGE, after):
            for row in rows:
                key, model, day = row.group
                kept[key, model, day] = row.sums
                report.requests += row.sums.requests
            after = rows[-1].group
        report.groups = len(kept)
        return kept

    async def _look_at_intents(self, report: Report) -> None:
        report.open_intents = len(await self._ledger.open_intents())
        for intent in await self._ledger.orphans(self._dead_after_us):
            says = f"begun at {iso(intent.at_us)} by a process that is dead, never entered; a server's start enters it"
            report.differences.append(Difference("intent", intent.id, says))


class _Tally:
    """What one walk over the entries gathers."""

    def __init__(
        self,
        report: Report,
        prices: Mapping[str, Price],
        now_us: int,
        budgets: Sequence[tuple[Limit, str]],
        truth: Mapping[str, Truth] | None,
    ) -> None:
        self._report = report
        self._prices = prices
        self._now_us = now_us
        self._budgets = [(limit, subject, number_of(limit.period, now_us)) for limit, subject in budgets]
        self._spent = [0] * len(budgets)
        self._truth = truth
        self._met: set[str] = set()
        self._sums: dict[Group, list[int]] = {}
        self._likeness: dict[tuple[object, ...], str] = {}
        self._second_us = -1

    def take(self, entry: Entry) -> None:
        """Look at one entry; they come oldest first."""
        self._report.entries += 1
        group = (entry.key_id, entry.model, iso(entry.at_us)[:10])
        sums = self._sums.setdefault(group, [0] * (len(_FIGURES) + 1))
        sums[0] += 1
        for place, figure in enumerate(_figures_of(entry), 1):
            sums[place] += figure
        for says in impossible(entry, self._now_us):
            self._differ("figures", entry.id, says)
        self._look_for_twin(entry)
        self._check_cost(entry)
        if self._truth is not None:
            self._check_truth(entry, self._truth)
        for place, (limit, subject, period) in enumerate(self._budgets):
            if getattr(entry, f"{limit.scope}_id", None) == subject and number_of(limit.period, entry.at_us) == period:
                self._spent[place] += entry.cost_micros

    def compare_sums(self, kept: Mapping[Group, Sums]) -> None:
        """Hold what is kept by key, model and day to the entries."""
        for group in sorted(kept.keys() | self._sums.keys()):
            mine = self._sums.get(group, [0] * (len(_FIGURES) + 1))
            sums = kept.get(group, Sums())
            theirs = [sums.requests, *_figures_of(sums)]
            names = ("requests", *_FIGURES)
            wrong = [
                f"{name} {said} is kept, the entries make {is_}"
                for name, said, is_ in zip(names, theirs, mine, strict=True)
                if said != is_
            ]
            if wrong:
                self._differ("sums", "/".join(group), "; ".join(wrong))

    def compare_budgets(self, grant: Grant, limits: tuple[Limit, ...]) -> None:
        """Hold what the counters say is used of budgets to the entries."""
        for limit, used, spent in zip(limits, grant.states, self._spent, strict=True):
            self._report.budgets += 1
            if used != spent:
                self._differ("budget", limit.counter, f"the counter says {used} micro-units, the entries make {spent}")

    def compare_truth(self) -> None:
        """Find what an upstream knows of and the books do not."""
        for known in (self._truth or {}).keys() - self._met:
            self._differ("upstream", known, "the upstream answered it, the books do not have it")

    def _look_for_twin(self, entry: Entry) -> None:
        """Find an entry that is the same in everything but its id; twins are admitted in the same microsecond."""
        if entry.at_us != self._second_us:
            self._second_us = entry.at_us
            self._likeness.clear()
        twin = self._likeness.setdefault(_likeness_of(entry), entry.id)
        if twin != entry.id:
            self._differ("twice", entry.id, f"the same as {twin} in everything but its id")

    def _check_cost(self, entry: Entry) -> None:
        price = self._prices.get(entry.price)
        if price is None:
            self._report.unpriced += bool(entry.price)
            if not entry.price and entry.cost_micros:
                self._differ("cost", entry.id, f"costs {entry.cost_micros} micro-units without a price")
            return
        allowed = costs_of(entry, price)
        if allowed is not None and entry.cost_micros not in allowed:
            wanted = " or ".join(str(one) for one in sorted(allowed))
            self._differ("cost", entry.id, f"costs {entry.cost_micros} micro-units, its price makes {wanted}")

    def _check_truth(self, entry: Entry, truth: Mapping[str, Truth]) -> None:
        told = truth.get(entry.id) or truth.get(entry.request_id)
        if told is None:
            return
        self._met.add(told.id)
        self._report.upstream += 1
        mine = (entry.prompt_tokens, entry.completion_tokens)
        theirs = (told.prompt_tokens, told.completion_tokens)
        if mine != theirs:
            says = f"the books have {mine[0]} + {mine[1]} tokens, the upstream {theirs[0]} + {theirs[1]}"
            self._differ("upstream", entry.id, says)

    def _differ(self, check: Check, where: str, says: str) -> None:
        self._report.differences.append(Difference(check, where, says))


def impossible(entry: Entry, now_us: int) -> list[str]:
    """Return what cannot be true of an entry, in words; nothing if all can."""
    found = [f"{name} is {getattr(entry, name)}" for name in _FIGURES if getattr(entry, name) < 0]
    tokens = ("prompt_tokens", "completion_tokens")
    found += [f"{name} is {getattr(entry, name)}" for name in tokens if getattr(entry, name) > TOKENS_MAX]
    if entry.cached_tokens > entry.prompt_tokens:
        found.append(f"{entry.cached_tokens} of {entry.prompt_tokens} prompt tokens came from a cache")
    if entry.reasoning_tokens > entry.completion_tokens:
        found.append(f"{entry.reasoning_tokens} of {entry.completion_tokens} completion tokens were reasoning")
    if entry.ttft_us is not None and not 0 <= entry.ttft_us <= max(entry.duration_us, 0) + 1000:
        found.append(f"its first token came after {entry.ttft_us} us of {entry.duration_us}")
    if entry.duration_us < 0:
        found.append(f"it took {entry.duration_us} us")
    if not 0 < entry.at_us <= now_us + AHEAD_US:
        found.append(f"it was admitted at {entry.at_us} us since 1970")
    if not entry.key_id or not entry.model:
        found.append("it has no key or no model")
    return found


def costs_of(entry: Entry, price: Price) -> set[int] | None:
    """Return what an entry may cost by its price; None if nobody can say (a request whose end nobody saw).

    The outcomes are those of the page on limits: what was generated is billed, an answer that never began is not, and
    a client's leaving costs nothing where the model's terms say so.
    """
    if entry.status == "unknown":
        return None
    used = Usage(
        prompt_tokens=entry.prompt_tokens,
        completion_tokens=entry.completion_tokens,
        cached_tokens=entry.cached_tokens,
        reasoning_tokens=entry.reasoning_tokens,
    )
    full = price.cost(used, images=entry.images)
    may_be_free = entry.status == "client_left" or (entry.status == "failed" and not used.total_tokens)
    return {0, full} if may_be_free else {full}

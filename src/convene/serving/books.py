"""The books: every request is reserved against its limits and written down before it runs, and settled when it ends.

    reserve   limits of the caller and the model ── counters.reserve ──► Refusal: an error, nothing was charged
                                                                    └──► ledger.begin (survives kill -9) ──► a lease
    top_up    a further round of an agentic turn, in the same lease ── counters.top_up ──► Refusal: the turn ends there
    settle    counters.settle(actual)   ledger.finish(entry)        never blocks, cannot be cancelled
    written   the entry is on the disk: the last byte of the answer may leave

What of a request is billed is a table in `pages/limits.md`. Background work (renewal of leases, orphans, retention) is
`bookkeeping.py`'s; what a Refusal says to people `refusals.py`'s; the arithmetic is in `limits/`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from math import floor
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from convene.errors import NotFound, StoreFault
from convene.limits.limit import Amounts, Grant, Limit, Refusal
from convene.moments import SECOND_US
from convene.serving.admission import Ask
from convene.serving.base import Outcome, Standing
from convene.serving.refusals import refusal_fault
from convene.store.base_ledger import Entry, Intent
from convene.usage import FREE, Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.clock import Clock
    from convene.serving.allowances import Allowances
    from convene.serving.line import Line
    from convene.store.base_counters import Counters
    from convene.store.base_ledger import Ledger

log = logging.getLogger("convene.books")

TEMPLATE_TOKENS: Final = 64
"""What a chat template may add to the texts, for the upper bound of a cost; templates known to us add under 40."""
SETTLE_TRIES: Final = 5
"""Tries to settle a lease in counters elsewhere; after that it expires there at what it had reserved."""
PAUSE_S: Final = 0.05
"""Before the second of these tries; four times as long before each further one."""
_NOTHING = Usage()
_new_tuple: Final = tuple.__new__
"""Makes `Amounts` of a tuple, without the call of Python code that `Amounts(...)` is."""


class Estimates(Protocol):
    """What a request will use, learned from those that were settled (`limits/estimate.py`)."""

    def both(self, key_id: str, model: str, size: int, ceiling: int | None) -> tuple[int, int]:
        """Return the tokens of a prompt of `size` bytes, and of one answer, at most `ceiling`."""
        ...

    def learn(self, key_id: str, model: str, size: int, used: Usage, choices: int) -> None:
        """Take in what a request has used."""
        ...


class BookTerms(msgspec.Struct, frozen=True, kw_only=True):
    """How these books are kept, from `[limits]`."""

    lease_us: int = 30 * SECOND_US
    output_ceiling: int = 32_768
    """Longest answer of a model that states none, in tokens, for the upper bound of a cost."""
    currency: str = "USD"


class Books:
    """Admission with limits and a ledger behind it. Belongs to one event loop."""

    def __init__(
        self,
        counters: Counters,
        ledger: Ledger,
        allowances: Allowances,
        estimates: Estimates,
        clock: Clock,
        terms: BookTerms = BookTerms(),  # noqa: B008 -- frozen
        line: Line | None = None,
    ) -> None:
        """`line` is where requests wait for their limits; without one they are refused at once."""
        self.counters = counters
        self.ledger = ledger
        self.terms = terms
        self.live: dict[str, BookedLease] = {}
        self._local = counters.local
        self.counted_last = self._local is not None and self._local.outlives
        self._allowances = allowances
        self.line = line
        self._settling: set[asyncio.Task[None]] = set()
        self.estimates = estimates
        self.clock = clock
        self.now, self.monotonic = clock.now, clock.monotonic

    async def reserve(self, ask: Ask, outcome: Outcome) -> BookedLease:
        """Return the request's lease. Raises as `Admission.reserve` says."""
        now, monotonic = self.now, self.monotonic
        began_at = monotonic()
        limits = self._allowances.of(ask.principal, ask.model, ask.terms)
        amounts = self._amounts(ask)
        local = self._local
        ahead = None if self.line is None else self.line.ahead(limits)
        answer: Grant | Refusal
        if ahead is not None:
            answer = ahead
        elif local is not None:
            answer = local.reserve(ask.id, limits, amounts, self.terms.lease_us)
        else:
            answer = await self._ask_counters(ask.id, limits, amounts)
        if type(answer) is Refusal:  # an eighth of what `isinstance` takes to say no to a `Struct`
            answer = await self._wait(ask, outcome, limits, amounts, answer)
        outcome.standing = Standing(limits, answer.states, answer.now_us)
        at_us = floor(now() * SECOND_US)
        lease = BookedLease(self, ask, outcome, limits, at_us, began_at, ask.choices, ask.prompt_bytes)
        self.live[ask.id] = lease
        try:
            await self.ledger.begin(_intent_of(ask, at_us, amounts))
        except BaseException as fault:  # a cancelled caller too must not leave a lease or an intent; raised on
            lease.abandon("store_unavailable" if isinstance(fault, StoreFault) else "client_left")
            raise
        return lease

    def settle_counters(self, lease_id: str, actual: Sequence[int]) -> Grant | None:
        """Move the counters to what was used: at once where they are near, else by a task of its own.

        `actual` has the places of `Amounts`.
        """
        if self._local is not None:
            return self._local.settle(lease_id, actual)
        far = self._settle_far(lease_id, Amounts._make(actual))
        task = asyncio.get_running_loop().create_task(far, name="settle")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return None

    async def flush(self) -> None:
        """Wait until all that was settled is counted and written."""
        if self._settling:
            await asyncio.wait(self._settling)
        await self.ledger.flush()

    def _amounts(self, ask: Ask) -> Amounts:
        """Return what the request will cost by estimate; money by an upper bound (reliability 1.1)."""
        key_id, model = ask.principal.key_id, ask.model
        prompt, output = self.estimates.both(key_id, model, ask.prompt_bytes, ask.output_max)
        output = output * ask.choices if ask.kind == "chat" else 0
        price = ask.terms.price
        micros = 0
        if price is not FREE and not price.free:
            ceiling = (ask.output_max or self.terms.output_ceiling) * ask.choices if ask.kind == "chat" else 0
            micros = price.at_most(ask.prompt_bytes + TEMPLATE_TOKENS, ceiling, images=ask.images)
        return _new_tuple(Amounts, (1, prompt + output, prompt, output, ask.images, micros, 1))

    def round_amounts(self, ask: Ask, size: int, output_max: int | None) -> Amounts:
        """Return what a further round of a turn will cost by estimate: no request and no place of its own."""
        key_id, model = ask.principal.key_id, ask.model
        prompt, output = self.estimates.both(key_id, model, size, output_max)
        price = ask.terms.price
        micros = 0
        if price is not FREE and not price.free:
            ceiling = self.terms.output_ceiling if output_max is None else output_max
            micros = price.at_most(size + TEMPLATE_TOKENS, ceiling) - price.request
        return _new_tuple(Amounts, (0, prompt + output, prompt, output, 0, micros, 0))

    async def top_up(self, lease_id: str, round_number: int, amounts: Amounts) -> Grant | Refusal | None:
        """Charge a further round; None: the lease has run out here, and nothing was charged. Raises `StoreFault`."""
        local, lease_us = self._local, self.terms.lease_us
        try:
            if local is not None:
                return local.top_up(lease_id, round_number, amounts, lease_us)
            return await self.counters.top_up(lease_id, round_number, amounts, lease_us)
        except NotFound:
            log.warning("lease %s has run out; round %s of its turn goes on uncharged", lease_id, round_number)
            return None

    async def _ask_counters(self, lease_id: str, limits: tuple[Limit, ...], amounts: Amounts) -> Grant | Refusal:
        """Ask counters elsewhere; a caller that leaves while they answer may hold a lease without knowing it."""
        try:
            return await self.counters.reserve(lease_id, limits, amounts, self.terms.lease_us)
        except asyncio.CancelledError:
            self.settle_counters(lease_id, Amounts())
            raise

    async def _wait(
        self, ask: Ask, outcome: Outcome, limits: tuple[Limit, ...], amounts: Amounts, refusal: Refusal
    ) -> Grant:
        """Wait in line, where there is one, else raise what the refusal says."""
        if self.line is not None:

            async def again() -> Grant | Refusal:
                return await self._ask_counters(ask.id, limits, amounts)

            def undo() -> None:
                self.settle_counters(ask.id, Amounts())

            answer = await self.line.wait(ask.principal.key_id, refusal, again, undo)
            if isinstance(answer, Grant):
                return answer
            refusal = answer
        outcome.standing = Standing(limits, refusal.states, refusal.now_us, refusal)
        raise refusal_fault(refusal, self.terms.currency)

    async def _settle_far(self, lease_id: str, actual: Amounts) -> None:
        for attempt in range(SETTLE_TRIES):
            try:
                await self.counters.settle(lease_id, actual)
            except StoreFault as fault:
                log.warning("lease %s is not settled yet: %s", lease_id, fault.detail or fault.message)
                await asyncio.sleep(PAUSE_S * 4**attempt)
            else:
                return
        log.error("lease %s was not settled; it expires at what it had reserved", lease_id)


class BookedLease(msgspec.Struct, eq=False):
    """What an admitted request holds: charged counters and an intent in the ledger.

    A `Struct`, which is made in half the time of a class: one is made for every request, and little of it is set again.
    """

    _books: Books
    _ask: Ask
    _outcome: Outcome
    _limits: tuple[Limit, ...]
    at_us: int
    """When it was admitted, Unix microseconds."""
    began_at: float
    """When the request asked to be admitted, before any wait, on the monotonic clock."""
    _rounds: int
    _size: int
    _written: Awaitable[None] | None = None

    def expect(self, prompt_bytes: int, output_max: int | None) -> tuple[int, int]:
        """See `Lease.expect`."""
        amounts = self._books.round_amounts(self._ask, prompt_bytes, output_max)
        return amounts.tokens, amounts.micros

    async def top_up(self, round_number: int, prompt_bytes: int, output_max: int | None) -> Refusal | None:
        """See `Lease.top_up`."""
        books = self._books
        amounts = books.round_amounts(self._ask, prompt_bytes, output_max)
        answer = await books.top_up(self._ask.id, round_number, amounts)
        if isinstance(answer, Refusal):
            return answer
        if answer is not None:
            self._outcome.standing = Standing(self._limits, answer.states, answer.now_us)
        self._size += prompt_bytes
        self._rounds += output_max != 0
        return None

    def settle(self) -> None:
        """Move counters from the estimate to what was used and write the entry; the first call counts."""
        if self._written is not None:
            return
        books, ask, outcome = self._books, self._ask, self._outcome
        used = outcome.usage or _NOTHING
        price, cost = ask.terms.price, 0
        if price is not FREE and not price.free:
            outcome.currency = books.terms.currency
            free = outcome.status == "client_left" and ask.terms.on_disconnect == "free"
            # nothing generated, nothing owed: the price of a request is for an answer
            if not free and (outcome.usage is not None or outcome.status == "ok"):
                cost = price.cost(used, images=outcome.images)
        outcome.cost_micros = cost
        self._close(used, cost)
        if outcome.status == "ok" and not used.estimated:
            books.estimates.learn(ask.principal.key_id, ask.model, self._size, used, self._rounds)

    def abandon(self, reason: str) -> None:
        """End a lease whose request never ran: nothing is charged but the attempt, and the books say why."""
        if self._written is None:
            self._outcome.finish = reason
            self._outcome.status = "client_left" if reason == "client_left" else "failed"
            self._close(_NOTHING, 0)

    async def written(self) -> None:
        """Wait until the entry is on the disk; not for one whose tokens are still being counted (`Turn._settle`)."""
        if self._written is None:
            return
        try:
            await self._written
        except StoreFault as fault:
            log.error("entry %s is not on the disk: %s", self._ask.id, fault.detail or fault.message)  # noqa: TRY400

    def _close(self, used: Usage, cost: int) -> None:
        books, ask, outcome = self._books, self._ask, self._outcome
        del books.live[ask.id]
        prompt, completion = used.prompt_tokens, used.completion_tokens
        # The entry first: if the counters fail now, they are mended from the books, never the other way round.
        self._written = written = books.ledger.finish(_entry_of(ask, self, outcome, used, cost))
        actual = (1, prompt + completion, prompt, completion, outcome.images, cost, 0)
        if books.counted_last:  # killed in between, the lease is found overdue, and the books know what it has used
            self._count_after(written, actual)
        else:
            self._count(actual)

    def _count_after(self, written: Awaitable[None], actual: Sequence[int]) -> None:
        """Move the counters once the entry is written; a closure in `_close` would cost every request its cells."""
        self._written = done = asyncio.ensure_future(written)
        done.add_done_callback(lambda _: self._count(actual))

    def _count(self, actual: Sequence[int]) -> None:
        """Move the counters to what was used."""
        books, ask, outcome = self._books, self._ask, self._outcome
        try:
            grant = books.settle_counters(ask.id, actual)
        except StoreFault as fault:
            log.error("lease %s is not settled and will expire: %s", ask.id, fault.detail)  # noqa: TRY400
            return
        finally:
            if books.line is not None:
                books.line.freed(self._limits)
        if grant is not None:
            outcome.standing = Standing(self._limits, grant.states, grant.now_us)


def _intent_of(ask: Ask, at_us: int, reserved: Amounts) -> Intent:
    who, agentic = ask.principal, ask.agentic
    return Intent(
        id=ask.id,
        request_id=ask.request_id,
        at_us=at_us,
        kind=ask.kind,
        key_id=who.key_id,
        owner=who.owner,
        user_id=who.user_id,
        team_id=who.team_id,
        session_id=agentic.session_id or "",
        agent_address=agentic.agent_address or "",
        model_asked=ask.model_asked,
        model=ask.model,
        stream=ask.stream,
        reserved=reserved,
        price=ask.terms.price.version,
    )


def _entry_of(ask: Ask, lease: BookedLease, outcome: Outcome, used: Usage, cost: int) -> Entry:
    who, agentic = ask.principal, ask.agentic
    first_ms = outcome.first_event_ms
    monotonic = lease._books.monotonic  # noqa: SLF001 -- its own
    duration_us = floor((monotonic() - lease.began_at) * SECOND_US)
    ttft_us = None if first_ms is None else floor(first_ms * 1000)
    if ttft_us is not None and ttft_us > duration_us:
        # counted from a moment earlier than the duration: a first byte is never later than the end
        ttft_us = duration_us
    return Entry(  # in the order of its fields: see there
        ask.id,
        ask.request_id,
        lease.at_us,
        ask.kind,
        who.key_id,
        who.owner,
        who.user_id,
        who.team_id,
        agentic.session_id or "",
        agentic.agent_address or "",
        ask.model_asked,
        ask.model,
        ask.stream,
        ask.terms.price.version,
        outcome.upstream,
        used.prompt_tokens,
        used.cached_tokens,
        used.completion_tokens,
        used.reasoning_tokens,
        outcome.images,
        outcome.tool_calls,
        outcome.agent_calls,
        cost,
        used.estimated,
        outcome.status,
        outcome.finish,
        ttft_us,
        duration_us,
    )

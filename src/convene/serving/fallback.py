"""Counters that go on when their store does not (reliability 1.6, A8).

    the store answers       its answer counts
    it is out               kinds that are `closed` (budgets) refuse everything: `StoreFault`, no money goes uncounted;
                            kinds that are `local` (rates, slots) are kept by this worker for its share of the limit
    it is back              it is told in the background what it missed (backlog.py), and then used again

After a fault the store is left alone for `rest_s`; then one caller tries it while the others still do without, so an
outage costs a request nothing but the share. Counters bound their own waits (Redis: 50 ms); `wait_s` bounds others.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import msgspec

from convene.errors import NotFound, StoreFault
from convene.limits.limit import Amounts, Grant, Limit, Refusal
from convene.serving.backlog import Backlog, Missed
from convene.serving.shares import Divided, Shares

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from convene.clock import Clock
    from convene.limits.limit import Kind, Past
    from convene.serving.shares import Choice
    from convene.store.base_counters import Counters, LocalCounters

T = TypeVar("T")

REST_S: Final = 1.0
"""How long a store that failed is left alone; long enough that Redis drops what it was asked before (STALE_US)."""

_OUT: Final = "The limits of this key cannot be checked now; try again in a moment."

log = logging.getLogger("convene.counters")


class _Held(msgspec.Struct):
    """A lease of this process."""

    limits: tuple[Limit, ...]
    since_s: float
    here: bool = False
    """Whether it was admitted without the store."""
    there: bool = True
    """Whether the store has it, or may have it."""
    slots: int = 0
    ends_s: float = 0.0
    """Until when the store does not end it by itself."""


class Guarded:
    """`Counters` over others that may fail. For one process; `local` counters are this process's own."""

    local = None

    def __init__(
        self,
        counters: Counters,
        make_local: Callable[[], LocalCounters],
        clock: Clock,
        *,
        workers: int,
        choices: Mapping[Kind, Choice] | None = None,
        wait_s: float | None = None,
        rest_s: float = REST_S,
        rebuild: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Guard counters.

        Args:
            counters: the shared ones.
            make_local: makes empty counters of this process, when they are first needed.
            clock: for durations.
            workers: how many processes share the limits, in all.
            choices: what limits of a kind do without their store; see `CHOICES` for those that are not named.
            wait_s: how long a call may take; None if the counters see to it.
            rest_s: how long a store that failed is left alone.
            rebuild: asked when the store is back, before it is told what it missed: claims and makes the rebuilding of
                counters that came back empty (`fresh`, `replay`), and returns whether it did. May raise `StoreFault`.
        """
        self._counters = counters
        self._make_local = make_local
        self._own: LocalCounters | None = None
        self._monotonic = clock.monotonic
        self._shares = Shares(workers, choices or {}, int(rest_s * 1e6))
        self._wait_s = wait_s
        self._rest_s = rest_s
        self._rebuild = rebuild
        self._held: dict[str, _Held] = {}
        self._backlog = Backlog(clock)
        self._down = False
        self._failed_at_s = 0.0
        self._tried_at_s = 0.0
        self._telling: asyncio.Task[None] | None = None

    @property
    def down(self) -> bool:
        """Whether the store is out: it failed, and has not yet been told what it missed."""
        return self._down

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`. Raises `StoreFault` for limits that are closed while the store is out."""
        asked = self._may_ask()
        if asked:
            try:
                answer = await self._ask(self._counters.reserve(lease, limits, amounts, lease_us))
            except StoreFault as fault:
                self._note(fault)
            else:
                if isinstance(answer, Grant):
                    now_s = self._monotonic()
                    self._held[lease] = _Held(limits, now_s, slots=amounts.slots, ends_s=now_s + lease_us / 1e6)
                return answer
        return self._admit(lease, limits, amounts, lease_us, asked=asked)

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`. Raises `StoreFault` for limits that are closed while the store is out."""
        held = self._held.get(lease)
        if held is not None and held.here:
            divided = self._shares.divide(held.limits)
            answer = self._near().top_up(lease, round_number, amounts, lease_us)
            return self._told(divided, answer, amounts)
        if self._may_ask():
            try:
                return await self._further(held, lease, round_number, amounts, lease_us)
            except StoreFault as fault:
                self._note(fault)
        if held is None:
            raise NotFound("There is no such lease: it was settled, or its time is up.", detail=lease)
        # The store has the lease and learns at its settlement what was used; here the round counts for itself.
        divided = self._open_part(held.limits)
        further = amounts._replace(slots=0)
        answer = self._near().reserve(f"{lease}/{round_number}", divided.shares, further, lease_us)
        return self._told(divided, answer, further)

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        """See `LocalCounters.settle`. None also if the store is out: it is settled there when it is back."""
        held = self._held.pop(lease, None)
        if held is not None and held.here:
            answer = self._near().settle(lease, actual)
            self._owe(Missed(lease if held.there else "", actual, held.limits, held.since_s))
            return None if answer is None else self._shares.grant(self._shares.divide(held.limits), answer)
        if self._may_ask():
            try:
                answer = await self._ask(self._counters.settle(lease, actual))
            except StoreFault as fault:
                self._note(fault)
                self._owe(Missed(lease, actual))
                return None
            if answer is None and held is not None and self._monotonic() < held.ends_s:
                # It lost its memory since it granted the lease: what the lease cost is still to be counted.
                self._owe(Missed("", actual, held.limits, held.since_s))
            return answer
        self._owe(Missed(lease, actual, held.limits, held.since_s, held.ends_s) if held else Missed(lease, actual))
        return None

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`. A renewal that the store misses is not made up for: the next one comes soon."""
        here = [lease for lease in leases if (held := self._held.get(lease)) is not None and held.here]
        if here:
            self._near().renew(here, lease_us)
        there = [lease for lease in leases if (held := self._held.get(lease)) is None or not held.here]
        if there and self._may_ask():
            try:
                await self._ask(self._counters.renew(there, lease_us))
            except StoreFault as fault:
                self._note(fault)
            else:
                self._prolong(there, lease_us)

    async def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`."""
        over = self._own.expire() if self._own is not None else ()
        ended = tuple(lease for lease in over if lease in self._held)  # the others are single rounds
        if self._may_ask():
            try:
                ended += await self._ask(self._counters.expire())
            except StoreFault as fault:
                self._note(fault)
        for lease in ended:
            self._held.pop(lease, None)
        return ended

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`; while the store is out, what this worker counts."""
        if self._may_ask():
            try:
                return await self._ask(self._counters.levels(limits))
            except StoreFault as fault:
                self._note(fault)
        divided = self._shares.divide(limits)
        return self._shares.grant(divided, self._near().levels(divided.shares))

    async def fresh(self) -> bool:
        """See `Counters.fresh`. Raises `StoreFault`."""
        return await self._counters.fresh()

    async def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`. Raises `StoreFault`."""
        await self._counters.replay(past)

    async def aclose(self) -> None:
        """Close the store, once it was told what it missed; what it cannot be told now is forgotten."""
        if self._telling is not None:
            await asyncio.wait([self._telling])
        await self._counters.aclose()

    def _may_ask(self) -> bool:
        """Whether this call may go to the store: while it is out, one in each `rest_s`."""
        if not self._down:
            return True
        now_s = self._monotonic()
        if now_s < self._tried_at_s + self._rest_s:
            return False
        self._tried_at_s = now_s
        return True

    async def _ask(self, call: Awaitable[T]) -> T:
        """Wait for the store's answer. An answer after a rest means that it is back."""
        answer = await self._bound(call)
        if self._down and self._monotonic() >= self._failed_at_s + self._rest_s:
            self._start_telling()
        return answer

    async def _bound(self, call: Awaitable[T]) -> T:
        if self._wait_s is None:
            return await call
        try:
            async with asyncio.timeout(self._wait_s):
                return await call
        except TimeoutError:
            raise StoreFault(_OUT, detail="counters: no answer in time") from None

    async def _further(
        self, held: _Held | None, lease: str, round_number: int, amounts: Amounts, lease_us: int
    ) -> Grant | Refusal:
        """Ask the store for one more round. One that lost its memory gets the lease anew, to be settled in full."""
        try:
            answer = await self._ask(self._counters.top_up(lease, round_number, amounts, lease_us))
        except NotFound:
            if held is None:
                raise
            again = amounts._replace(slots=held.slots)
            answer = await self._ask(self._counters.reserve(lease, held.limits, again, lease_us))
        if isinstance(answer, Grant):
            self._prolong([lease], lease_us)
        return answer

    def _prolong(self, leases: Sequence[str], lease_us: int) -> None:
        ends_s = self._monotonic() + lease_us / 1e6
        for lease in leases:
            if (held := self._held.get(lease)) is not None:
                held.ends_s = ends_s

    def _admit(
        self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int, *, asked: bool
    ) -> Grant | Refusal:
        """Decide without the store. If it was `asked`, it may have charged what it could not confirm."""
        divided = self._shares.divide(limits)
        answer = None if divided.closed else self._near().reserve(lease, divided.shares, amounts, lease_us)
        if isinstance(answer, Grant):
            self._held[lease] = _Held(limits, self._monotonic(), here=True, there=asked, slots=amounts.slots)
        elif asked:
            self._owe(Missed(lease))
        return self._told(divided, answer, amounts) if answer is not None else self._refuse()

    def _open_part(self, limits: tuple[Limit, ...]) -> Divided:
        """Return limits as this worker keeps them; raises `StoreFault` if one of them is closed."""
        divided = self._shares.divide(limits)
        return self._refuse() if divided.closed else divided

    def _refuse(self) -> NoReturn:
        raise StoreFault(_OUT, detail="counters: a closed limit, and no store", retry_after_s=self._rest_s)

    def _told(self, divided: Divided, answer: Grant | Refusal, amounts: Amounts) -> Grant | Refusal:
        if isinstance(answer, Grant):
            return self._shares.grant(divided, answer)
        return self._shares.refusal(divided, answer, amounts)

    def _near(self) -> LocalCounters:
        if self._own is None:
            self._own = self._make_local()
        return self._own

    def _owe(self, missed: Missed) -> None:
        """Remember what the store has to be told; at once, if it is there."""
        self._backlog.add(missed)
        if not self._down:
            self._start_telling()

    def _note(self, fault: StoreFault) -> None:
        """Leave the store alone for a while."""
        if not self._down:
            log.warning("the store of counters is out: %s", fault.detail or fault.message)
        self._down = True
        self._failed_at_s = self._tried_at_s = self._monotonic()

    def _start_telling(self) -> None:
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell())
            self._telling.add_done_callback(self._ended_telling)

    def _ended_telling(self, task: asyncio.Task[None]) -> None:
        self._telling = None
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("the counters could not be brought up to date", exc_info=fault)

    async def _tell(self) -> None:
        """Bring the store up to date. Until that is done, everybody else does without it."""
        failed_at_s = self._failed_at_s
        try:
            if self._down and self._rebuild is not None and await self._rebuild():
                self._backlog.drop_charges()
            await self._backlog.deliver(self._settle_there, self._charge_there)
        except StoreFault as fault:
            self._note(fault)
            return
        if self._down and failed_at_s == self._failed_at_s:
            log.warning("the store of counters is back; %d of what it missed was forgotten", self._backlog.forgotten)
            self._down = False

    async def _settle_there(self, lease: str, actual: Amounts) -> Grant | None:
        return await self._bound(self._counters.settle(lease, actual))

    async def _charge_there(self, past: list[Past]) -> None:
        await self._bound(self._counters.replay(past))

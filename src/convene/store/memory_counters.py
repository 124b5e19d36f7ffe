"""Counters in this process's memory: exact for one process, forgotten at its end and rebuilt from the ledger.

The arithmetic is that of `limits/gcra.py`, written out in three loops because every request passes here (issue 3: six
limits in 3 us). A charge is made limit by limit and taken back exactly if a later limit refuses: one thread, no waits,
so nobody sees the middle, and the carried remainder makes a refund the exact inverse of a charge.

    _states  counter -> [tat | period | under way, rest | used, kind]   dropped only when it means nothing any more
    _leases  lease -> what it holds              _ends  a heap of (when, lease); stale for renewed and settled leases
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from math import floor
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import NotFound
from convene.limits import gcra
from convene.limits.gcra import MOST_US, Moment
from convene.limits.limit import DAY_US, Amounts, Grant, Limit, Refusal
from convene.limits.periods import Calendar, number_of
from convene.limits.steps import RATE, SLOTS, kind_of
from convene.store.near_counters import NearCounters

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.limits.gcra import State
    from convene.store.base_counters import Past

_PLANS_MOST: Final = 16_384
_ENDS_LEAST: Final = 1_024
_SWEPT_LEAST: Final = 256
_MARGIN_US: Final = 2 * DAY_US
"""How long a budget's period must be over before it is forgotten: a wall clock that was ahead may be set back."""

_State = list[int]
_Rate = tuple[int, _State, int, int, int, int]
"""Its place among the limits, state, unit, step, per, window."""
_Other = tuple[int, int, _State, int, int]
"""Of a budget or slots: its place among the limits, kind, state, unit, amount."""


class _Plan(msgspec.Struct, gc=False):
    """A tuple of limits made ready for the loops, with the states themselves, as long as none was forgotten."""

    limits: tuple[Limit, ...]
    blank: list[int]
    """A zero for each limit."""
    generation: int = -1
    """Of the states; another number means that some may have been forgotten since."""
    rates: tuple[_Rate, ...] = ()
    others: tuple[_Other, ...] = ()
    budgets: bool = False
    """Whether any of `others` is one: only then the calendar is asked."""


class _Lease(msgspec.Struct, gc=False):
    plan: _Plan
    reserved: Sequence[int]
    grant: Grant
    ends_us: int
    periods: Sequence[int]
    """The period that each of the plan's `others` was charged in last; 0 of slots."""
    charged: Sequence[int] | None = None
    """What each was charged in it; None: all that is reserved."""
    round_number: int = 0
    over: bool = False
    """Its time is up: its slots were given back, and `expire` will end it."""


class LocalMemoryCounters:
    """`LocalCounters` over an injected clock. Not for several threads."""

    outlives = False

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._wall = clock.now
        self._states: dict[str, _State] = {}
        self._generation = 0
        self._leases: dict[str, _Lease] = {}
        self._ends: list[tuple[int, str]] = []
        self._ends_most = _ENDS_LEAST
        self._over: list[str] = []
        self._unswept: list[str] = []
        self._plans: dict[int, _Plan] = {}
        self._calendar = Calendar()
        self._fresh = True

    def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`."""
        held = self._leases.get(lease)
        if held is not None:
            return held.grant
        monotonic = self._monotonic
        now_us = floor(monotonic() * 1e6 + 0.5)
        ends = self._ends
        if ends and ends[0][0] <= now_us:
            self._retire(now_us)
        plan = self._plans.get(id(limits)) or self._plan(limits)
        if plan.generation != self._generation:
            self._make_ready(plan)
        shown = plan.blank.copy()
        figures = amounts[:]  # a plain tuple: a named one is read several times more slowly
        periods = self._charge(plan, figures, now_us, shown)
        if periods is None:
            return self._refusal(plan, amounts, now_us)
        grant = Grant(now_us, tuple(shown))
        self._leases[lease] = _Lease(plan, figures, grant, now_us + lease_us, periods)
        heappush(ends, (now_us + lease_us, lease))
        if len(ends) > self._ends_most:
            self._compact()
        return grant

    def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`."""
        now_us = self._present_us()
        held = self._leases.get(lease)
        if held is None or held.over:
            raise NotFound("There is no such lease: it was settled, or its time is up.", detail=lease)
        if round_number <= held.round_number:
            return self.levels(held.plan.limits)
        plan, further, shown = held.plan, amounts._replace(slots=0), held.plan.blank.copy()
        if plan.generation != self._generation:
            self._make_ready(plan)
        periods = self._charge(plan, further, now_us, shown)
        if periods is None:
            return self._refusal(plan, further, now_us)
        before = held.charged or [held.reserved[unit] for _, _, _, unit, _ in plan.others]
        held.charged = [
            further[unit] + (charged if period == last else 0)
            for (_, _, _, unit, _), charged, period, last in zip(
                plan.others, before, periods, held.periods, strict=True
            )
        ]
        held.periods = periods
        held.reserved = [one + other for one, other in zip(held.reserved, further, strict=True)]
        held.round_number = round_number
        self._prolong(lease, held, now_us + lease_us)
        return Grant(now_us, tuple(shown))

    def settle(self, lease: str, actual: Sequence[int]) -> Grant | None:
        """See `LocalCounters.settle`."""
        figures = actual[:]  # as in `reserve`
        requests, tokens, given, written, images, micros, slots = figures
        if requests < 0 or tokens < 0 or given < 0 or written < 0 or images < 0 or micros < 0 or slots < 0:
            gcra.check(actual)
        held = self._leases.pop(lease, None)
        if held is None:
            return None
        monotonic = self._monotonic
        now_us = floor(monotonic() * 1e6 + 0.5)
        plan, reserved = held.plan, held.reserved
        if plan.generation != self._generation:
            self._make_ready(plan)
        shown = plan.blank.copy()
        for place, state, unit, step, per, _ in plan.rates:
            tat, rest, _ = state
            if tat < now_us:
                tat = now_us
                rest = 0
            elif rest >= per:
                tat += 1
                rest = 0
            difference = figures[unit] - reserved[unit]
            if difference:
                rest += difference * step
                whole = rest // per
                tat += whole if whole < MOST_US else MOST_US  # noqa: FURB136 -- `min` takes ten times as long
                state[0] = tat
                state[1] = rest % per
            shown[place] = tat
        if plan.others:
            self._settle_others(held, figures, shown)
        return Grant(now_us, tuple(shown))

    def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`."""
        now_us = self._present_us()
        for lease in leases:
            held = self._leases.get(lease)
            if held is not None and not held.over:
                self._prolong(lease, held, now_us + lease_us)

    def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`; also forgets some of the counters that mean nothing any more."""
        now_us = self._present_us()
        ended: list[str] = []
        for lease in self._over:
            held = self._leases.get(lease)
            if held is not None and held.over:
                del self._leases[lease]
                ended.append(lease)
        self._over.clear()
        self._sweep(now_us)
        return tuple(ended)

    def overdue(self) -> tuple[str, ...]:
        """See `LocalCounters.overdue`; also forgets some of the counters that mean nothing any more."""
        now_us = self._present_us()
        self._over = [lease for lease in self._over if (held := self._leases.get(lease)) is not None and held.over]
        self._sweep(now_us)
        return tuple(self._over)

    def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`."""
        moment = Moment(self._present_us(), int(self._wall() * 1e6))
        states = [gcra.lift(limit, self._state(limit), moment) for limit in limits]
        return Grant(moment.now_us, gcra.shown(limits, states))

    def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`."""
        moment = Moment(self._present_us(), int(self._wall() * 1e6))
        for counter, (limit, remainder) in gcra.remains(past, moment.wall_us).items():
            kept = self._states.get(counter) or self._begin(limit)
            kept[:2] = gcra.add(limit, gcra.lift(limit, self._state(limit), moment), remainder)

    def fresh(self) -> bool:
        """Return True the first time: a process begins with empty counters."""
        fresh, self._fresh = self._fresh, False
        return fresh

    def close(self) -> None:
        """Forget everything."""
        for part in (self._states, self._leases, self._ends, self._over, self._unswept, self._plans):
            part.clear()

    def _charge(self, plan: _Plan, amounts: Sequence[int], now_us: int, shown: list[int]) -> Sequence[int] | None:
        """Charge every limit, fill in what is to be shown and return the periods charged; or charge none: None."""
        for place, state, unit, step, per, window_us in plan.rates:
            tat, rest, _ = state
            if tat < now_us:
                tat = now_us
                rest = 0
            elif rest >= per:  # the limit was changed, see gcra.lift
                tat += 1
                rest = 0
            cost = amounts[unit]
            if cost > 0:
                rest += cost * step
                tat += rest // per
                rest %= per
                ahead_us = tat - now_us
                if ahead_us >= window_us and (rest or ahead_us > window_us):
                    self._take_back(plan, amounts, place)
                    return None
                state[0] = tat
                state[1] = rest
            elif cost:
                self._take_back(plan, amounts, place)
                return None
            shown[place] = tat
        if not plan.others:
            return ()
        periods = self._charge_others(plan, amounts, shown)
        if periods is None:
            self._take_back(plan, amounts, -1)
        return periods

    def _charge_others(self, plan: _Plan, amounts: Sequence[int], shown: list[int]) -> Sequence[int] | None:
        """Charge budgets and slots, or none of them."""
        numbers = self._calendar.numbers(self._wall()) if plan.budgets else ()
        periods: list[int] = []
        for place, kind, state, unit, most in plan.others:
            cost = amounts[unit]
            if kind == SLOTS:
                level = state[0] + cost
                if (level > most and cost) or cost < 0:
                    break
                state[0] = level
                periods.append(0)
            else:
                period = numbers[kind]
                if state[0] < period:
                    state[0] = period
                    state[1] = 0
                level = state[1] + cost
                if (level > most and cost) or cost < 0:
                    break
                state[1] = level
                periods.append(state[0])
            shown[place] = level
        else:
            return periods
        for _, kind, state, unit, _ in plan.others[: len(periods)]:
            state[0 if kind == SLOTS else 1] -= amounts[unit]
        return None

    def _take_back(self, plan: _Plan, amounts: Sequence[int], refused: int) -> None:
        """Undo the charges on the rates before the place that refused, which have just been made."""
        for place, state, unit, step, per, _ in plan.rates:
            if place == refused:
                break
            if amounts[unit]:
                carry, state[1] = divmod(state[1] - amounts[unit] * step, per)
                state[0] += carry

    def _refusal(self, plan: _Plan, amounts: Sequence[int], now_us: int) -> Refusal:
        """Return why a charge that has just failed was refused. Raises ValueError if it was a negative amount."""
        gcra.check(amounts)
        moment = Moment(now_us, int(self._wall() * 1e6))
        lifted = [gcra.lift(limit, self._state(limit), moment) for limit in plan.limits]
        refusal = gcra.refuse(plan.limits, lifted, moment, amounts)
        assert refusal is not None, "the loop and the arithmetic disagree"  # noqa: S101 - two writings of one rule
        return refusal

    def _settle_others(self, held: _Lease, actual: Sequence[int], shown: list[int]) -> None:
        """Settle budgets and slots, and fill in what is to be shown."""
        plan, charged = held.plan, held.charged
        numbers = self._calendar.numbers(self._wall()) if plan.budgets else ()
        index = -1  # counted here: `enumerate` takes as long as all of the rest
        for place, kind, state, unit, _ in plan.others:
            index += 1
            if kind == SLOTS:
                if not held.over:
                    state[0] -= held.reserved[unit]
                shown[place] = state[0]
                continue
            if state[0] < numbers[kind]:
                state[0] = numbers[kind]
                state[1] = 0
            if state[0] == held.periods[index]:
                units = actual[unit] - held.reserved[unit]
                state[1] += units if charged is None else max(units, -charged[index])
            shown[place] = state[1]

    def _retire(self, now_us: int) -> None:
        """Give back the slots of the leases whose time is up; `expire` ends them."""
        ends = self._ends
        while ends and ends[0][0] <= now_us:
            _, lease = heappop(ends)
            held = self._leases.get(lease)
            if held is None or held.over:
                continue
            if held.ends_us > now_us:
                heappush(ends, (held.ends_us, lease))
                continue
            held.over = True
            self._over.append(lease)
            for limit in held.plan.limits:
                if limit.kind == "slots" and limit.counter in self._states:
                    self._states[limit.counter][0] -= held.reserved[limit.unit]

    def _prolong(self, lease: str, held: _Lease, ends_us: int) -> None:
        """Let a lease end at another time; a later one is found when the heap comes to the old one."""
        if ends_us < held.ends_us:
            heappush(self._ends, (ends_us, lease))
        held.ends_us = ends_us

    def _compact(self) -> None:
        """Make the heap anew without the leases that were settled: work in proportion to what was settled since."""
        self._ends[:] = [(held.ends_us, lease) for lease, held in self._leases.items() if not held.over]
        heapify(self._ends)
        self._ends_most = max(_ENDS_LEAST, 3 * len(self._ends))

    def _sweep(self, now_us: int) -> None:
        """Forget what means nothing any more among a part of the counters; all of them are seen in about 64 calls."""
        if not self._unswept:
            self._unswept = list(self._states)
        old_us = int(self._wall() * 1e6) - _MARGIN_US
        old = (number_of("day", old_us), number_of("month", old_us), 0)
        for _ in range(min(len(self._unswept), _SWEPT_LEAST + len(self._states) // 64)):
            counter = self._unswept.pop()
            state = self._states.get(counter)
            if state is None:
                continue
            first, _, kind = state
            idle = not first if kind == SLOTS else first < (now_us if kind == RATE else old[kind])
            if idle:
                del self._states[counter]
                self._generation += 1

    def _plan(self, limits: tuple[Limit, ...]) -> _Plan:
        """Make limits ready and remember them by identity, which the plan keeps from being used again."""
        if len(self._plans) >= _PLANS_MOST:
            self._plans.clear()
        plan = self._plans[id(limits)] = _Plan(limits, [0] * len(limits))
        return plan

    def _make_ready(self, plan: _Plan) -> None:
        """Look the states of a plan up, beginning those that are not there."""
        found = [
            (place, limit, self._states.get(limit.counter) or self._begin(limit))
            for place, limit in enumerate(plan.limits)
        ]
        plan.rates = tuple(
            (place, state, int(limit.unit), limit.step, limit.per, limit.window_us)
            for place, limit, state in found
            if limit.kind == "rate"
        )
        plan.others = tuple(
            (place, kind_of(limit), state, int(limit.unit), limit.amount)
            for place, limit, state in found
            if limit.kind != "rate"
        )
        plan.budgets = any(kind != SLOTS for _, kind, _, _, _ in plan.others)
        plan.generation = self._generation

    def _begin(self, limit: Limit) -> _State:
        state = self._states[limit.counter] = [*gcra.unused(limit), kind_of(limit)]
        return state

    def _state(self, limit: Limit) -> State:
        state = self._states.get(limit.counter)
        return (state[0], state[1]) if state is not None else gcra.unused(limit)

    def _present_us(self) -> int:
        """Return the time on the clock of rates, having given back the slots of leases that are over."""
        now_us = int(self._monotonic() * 1e6 + 0.5)
        self._retire(now_us)
        return now_us


class MemoryCounters(NearCounters):
    """`Counters` in this process's memory."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(LocalMemoryCounters(clock))

"""The oracle of every store of counters: the same calls, written as plainly as possible over `convene.limits.gcra`.

Its time is handed in with every call, so it can follow a store whose clock nobody can move: `follow` takes the time
from the store's own answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from convene.limits import gcra
from convene.limits.limit import Amounts, Grant, Limit, Refusal

if TYPE_CHECKING:
    from convene.limits.gcra import Moment, State
    from convene.store.base_counters import Past


@dataclass
class Held:
    """A lease of the model."""

    limits: tuple[Limit, ...]
    reserved: tuple[int, ...]
    grant: Grant
    ends_us: int
    charged: dict[str, tuple[int, int]]
    """By the counter of a budget: the period charged last, and the units charged in it."""
    round_number: int = 0


@dataclass
class Model:
    """Counters without a store. A lease whose time is up counts no slot, and is there until `expire` or `settle`."""

    states: dict[str, State] = field(default_factory=dict)
    leases: dict[str, Held] = field(default_factory=dict)

    def state(self, limit: Limit, now_us: int) -> State:
        """Return a limit's state, slots counted from the leases."""
        if limit.kind != "slots":
            return self.states.get(limit.counter, gcra.unused(limit))
        alive = [held for held in self.leases.values() if held.ends_us > now_us]
        mine = [held for held in alive if any(one.counter == limit.counter for one in held.limits)]
        return sum(held.reserved[limit.unit] for held in mine), 0

    def keep(self, limits: tuple[Limit, ...], states: tuple[State, ...]) -> None:
        """Write states back."""
        self.states.update(
            (limit.counter, state) for limit, state in zip(limits, states, strict=True) if limit.kind != "slots"
        )

    def reserve(
        self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int, moment: Moment
    ) -> Grant | Refusal:
        """See `LocalCounters.reserve`."""
        if lease in self.leases:
            return self.leases[lease].grant
        before = [self.state(limit, moment.now_us) for limit in limits]
        answer, after = gcra.decide(before, moment, limits, amounts)
        if isinstance(answer, Grant):
            self.keep(limits, after)
            charged = {
                limit.counter: (state[0], amounts[limit.unit])
                for limit, state in zip(limits, after, strict=True)
                if limit.kind == "budget"
            }
            self.leases[lease] = Held(limits, tuple(amounts), answer, moment.now_us + lease_us, charged)
        return answer

    def top_up(
        self, lease: str, round_number: int, amounts: Amounts, lease_us: int, moment: Moment
    ) -> Grant | Refusal | None:
        """See `LocalCounters.top_up`; None stands for `NotFound`."""
        held = self.leases.get(lease)
        if held is None or held.ends_us <= moment.now_us:
            return None
        if round_number <= held.round_number:
            return self.levels(held.limits, moment)
        further = amounts._replace(slots=0)
        before = [self.state(limit, moment.now_us) for limit in held.limits]
        answer, after = gcra.decide(before, moment, held.limits, further)
        if isinstance(answer, Grant):
            self.keep(held.limits, after)
            held.reserved = tuple(map(sum, zip(held.reserved, further, strict=True)))
            held.round_number, held.ends_us = round_number, moment.now_us + lease_us
            for limit, (period, _) in zip(held.limits, after, strict=True):
                if limit.kind == "budget":
                    last, charged = held.charged[limit.counter]
                    held.charged[limit.counter] = period, further[limit.unit] + (charged if last == period else 0)
        return answer

    def settle(self, lease: str, actual: Amounts, moment: Moment) -> Grant | None:
        """See `LocalCounters.settle`."""
        held = self.leases.pop(lease, None)
        if held is None:
            return None
        for limit in held.limits:
            state = gcra.lift(limit, self.state(limit, moment.now_us), moment)
            reserved, used = held.reserved[limit.unit], actual[limit.unit]
            if limit.kind == "rate":
                self.states[limit.counter] = gcra.settle(limit, state, moment, reserved, used)
            elif limit.kind == "budget":
                period, charged = held.charged[limit.counter]
                self.states[limit.counter] = gcra.settle_budget(state, period, charged, used - reserved)
        return self.levels(held.limits, moment)

    def renew(self, lease: str, lease_us: int, now_us: int) -> None:
        """See `LocalCounters.renew`, for one lease."""
        held = self.leases.get(lease)
        if held is not None and held.ends_us > now_us:
            held.ends_us = now_us + lease_us

    def expire(self, now_us: int) -> set[str]:
        """See `LocalCounters.expire`."""
        ended = {lease for lease, held in self.leases.items() if held.ends_us <= now_us}
        for lease in ended:
            del self.leases[lease]
        return ended

    def levels(self, limits: tuple[Limit, ...], moment: Moment) -> Grant:
        """See `LocalCounters.levels`."""
        states = [gcra.lift(limit, self.state(limit, moment.now_us), moment) for limit in limits]
        return Grant(moment.now_us, gcra.shown(limits, states))

    def replay(self, past: Past, moment: Moment) -> None:
        """See `LocalCounters.replay`, for one request."""
        for counter, (limit, remainder) in gcra.remains([past], moment.wall_us).items():
            state = gcra.lift(limit, self.state(limit, moment.now_us), moment)
            self.states[counter] = gcra.add(limit, state, remainder)

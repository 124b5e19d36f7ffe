"""Counters in Postgres, for replicas without Redis: exact for all of them, one round trip a decision.

The steps are functions in the server (`postgres_counters.sql`), which lock the rows of a request in one order and read
the server's clock. Commits do not wait for the disk: counters may lose the last second at a power cut, the books none.
A tuple of limits is told to the server once and named by its hash from then on. A call whose connection was lost is
repeated once, which is safe because each step of a lease is done once, whoever asks again.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import msgspec

from convene.errors import NotFound
from convene.limits import gcra
from convene.limits.gcra import Moment
from convene.limits.limit import DAY_US, Amounts, Grant, Limit, Refusal
from convene.store.base import StoreFault
from convene.store.postgres_pool import PostgresPool
from convene.store.postgres_wire import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.limits.gcra import State
    from convene.store.base_counters import Past

_GRANTED: Final = 0
_REASONS: Final[Mapping[int, Literal["wait", "spent", "full", "never"]]] = {
    1: "wait",
    2: "spent",
    3: "full",
    4: "never",
}
_MISSING: Final = -1
_NO_LEASE: Final = -2
_KINDS: Final = {"day": 0, "month": 1, "total": 2, "": 3}
_SLOTS: Final = 4
_PLANS_MOST: Final = 16_384
_TRIES: Final = 5
"""How often a step is asked whose counters are forgotten, or whose lease appears, between two calls."""

_RESERVE: Final = "SELECT * FROM counters_reserve($1, $2, $3, $4)"
_TOP_UP: Final = "SELECT * FROM counters_top_up($1, $2, $3, $4)"
_SETTLE: Final = "SELECT * FROM counters_settle($1, $2)"
_RENEW: Final = "SELECT counters_renew($1, $2)"
_EXPIRE: Final = "SELECT r_ended FROM counters_expire()"
_LEVELS: Final = "SELECT * FROM counters_levels($1)"
_WALL: Final = "SELECT counters_wall_us(counters_now_us())"
_ADD: Final = "SELECT * FROM counters_add($1, $2, $3, $4, $5)"
_MAKE: Final = "SELECT counters_make($1, $2)"
_KNOW: Final = "SELECT counters_know($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_CLAIM: Final = "INSERT INTO counters_claimed (number) VALUES (1) ON CONFLICT DO NOTHING RETURNING number"


class _Plan(msgspec.Struct):
    """A tuple of limits, and the name under which the server knows it."""

    limits: tuple[Limit, ...]
    body: bytes
    """The limits themselves, as JSON."""
    set_id: bytes
    """The hash of the body."""
    known_us: int = -DAY_US
    """When the server was told last, by its own clock."""


class PostgresCounters:
    """`Counters` in a database that any number of processes share."""

    def __init__(self, pool: PostgresPool) -> None:
        self._pool = pool
        self._plans: dict[int, _Plan] = {}

    @classmethod
    async def open(cls, url: str) -> Self:
        """Connect, with sessions of its own, and bring the tables up to date. Raises `StoreFault`."""
        return cls(await PostgresPool.open(url, durable=False))

    @property
    def local(self) -> None:
        """None: every step is a round trip."""
        return

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`."""
        gcra.check(amounts)
        plan = self._plans.get(id(limits)) or self._plan(limits)
        for _ in range(_TRIES):
            try:
                [[code, now_us, place, wait_us, states]] = await self._ask(
                    _RESERVE, lease, lease_us, plan.set_id, amounts
                )
            except StoreFault as fault:
                if self._pool.wire.is_taken(fault.__cause__):
                    continue  # a rival's lease of this id has appeared meanwhile; the next answer is its grant
                raise
            if code >= _GRANTED:
                if now_us - plan.known_us > DAY_US:
                    await self._tell(plan)
                return _answer(limits, code, now_us, place, wait_us, states)
            await (self._make(limits) if code == _MISSING else self._tell(plan))
        raise _vanishing(lease)

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`."""
        gcra.check(amounts)
        for _ in range(_TRIES):
            [[code, now_us, place, wait_us, states, body]] = await self._ask(
                _TOP_UP, lease, round_number, lease_us, amounts
            )
            if code == _NO_LEASE:
                raise NotFound("There is no such lease: it was settled, or its time is up.", detail=lease)
            limits = () if body is None else _limits_of(body)
            if code != _MISSING:
                return _answer(limits, code, now_us, place, wait_us, states)
            await self._make(limits)
        raise _vanishing(lease)

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        """See `LocalCounters.settle`."""
        gcra.check(actual)
        for _ in range(_TRIES):
            [[code, now_us, states, body]] = await self._ask(_SETTLE, lease, actual)
            if code != _MISSING:
                return None if code == _NO_LEASE else Grant(now_us, tuple(states))
            await self._make(_limits_of(body))
        raise _vanishing(lease)

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`."""
        await self._ask(_RENEW, list(leases), lease_us)

    async def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`; also forgets some of the counters that mean nothing any more."""
        [[ended]] = await self._ask(_EXPIRE)
        return tuple(ended)

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`."""
        names = [clean(one.counter) for one in limits]
        [[now_us, wall_us, firsts, seconds, slots]] = await self._ask(_LEVELS, names)
        states: list[State] = []
        for place, limit in enumerate(limits):
            state = gcra.unused(limit) if firsts[place] is None else (firsts[place], seconds[place])
            state = (slots[place], 0) if limit.kind == "slots" else state
            states.append(gcra.lift(limit, state, Moment(now_us, wall_us)))
        return Grant(now_us, gcra.shown(limits, states))

    async def fresh(self) -> bool:
        """See `Counters.fresh`: True once in the life of the database, whose counters outlive every restart."""
        return bool(await self._ask(_CLAIM))

    async def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`."""
        [[wall_us]] = await self._ask(_WALL)
        found = sorted(gcra.remains(past, wall_us).values(), key=lambda one: clean(one[0].counter))
        limits = tuple(limit for limit, _ in found)
        names, kinds = [clean(one.counter) for one in limits], [_kind(one) for one in limits]
        remains = ([one.per for one in limits], [state[0] for _, state in found], [state[1] for _, state in found])
        for _ in range(_TRIES):
            [[code]] = await self._ask(_ADD, names, kinds, *remains)
            if code != _MISSING:
                return
            await self._make(limits)
        raise _vanishing("replay")

    async def aclose(self) -> None:
        """Let go of the connections; idempotent."""
        await self._pool.aclose()

    async def _ask(self, statement: str, *values: object) -> list[Any]:
        """Return the rows of a statement, asked once more on another connection if the first is lost."""
        try:
            async with self._pool.session() as session:
                return await session.fetch(statement, *values)
        except StoreFault as fault:
            if not self._pool.wire.is_lost(fault.__cause__):
                raise
        async with self._pool.session() as session:
            return await session.fetch(statement, *values)

    async def _make(self, limits: tuple[Limit, ...]) -> None:
        """Make the counters that are missing, unused, in a transaction of their own."""
        await self._ask(_MAKE, [clean(one.counter) for one in limits], [_kind(one) for one in limits])

    async def _tell(self, plan: _Plan) -> None:
        """Let the server know a tuple of limits, or that it is still in use."""
        order = sorted(enumerate(plan.limits, 1), key=lambda one: clean(one[1].counter))
        limits = [limit for _, limit in order]
        [[plan.known_us]] = await self._ask(
            _KNOW,
            plan.set_id,
            [clean(one.counter) for one in limits],
            [place for place, _ in order],
            [_kind(one) for one in limits],
            [int(one.unit) for one in limits],
            [one.amount for one in limits],
            [one.window_us for one in limits],
            [one.step for one in limits],
            [one.per for one in limits],
            plan.body.decode(),
        )

    def _plan(self, limits: tuple[Limit, ...]) -> _Plan:
        """Name a tuple of limits and remember it by identity, which the plan keeps from being used again."""
        if len(self._plans) >= _PLANS_MOST:
            self._plans.clear()
        body = msgspec.json.encode(limits)
        plan = self._plans[id(limits)] = _Plan(limits, body, hashlib.blake2b(body, digest_size=16).digest())
        return plan


def _kind(limit: Limit) -> int:
    return _SLOTS if limit.kind == "slots" else _KINDS[limit.period]


def _limits_of(body: str) -> tuple[Limit, ...]:
    return msgspec.json.decode(body, type=tuple[Limit, ...])


def _vanishing(what: str) -> StoreFault:
    return StoreFault("The counters keep vanishing.", detail=what)


def _answer(
    limits: tuple[Limit, ...], code: int, now_us: int, place: int | None, wait_us: int | None, states: list[int]
) -> Grant | Refusal:
    if code == _GRANTED or place is None:
        return Grant(now_us, tuple(states))
    return Refusal(limits[place - 1], _REASONS[code], wait_us, now_us, tuple(states))

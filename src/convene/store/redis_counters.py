"""Counters in a Redis that replicas share: one decision is one command, and so one round trip (LIMIT-01, A5).

The scripts decide with the server's clock; a refusal brings back the states, and `limits/gcra.py` says here which limit
refuses and for how long. Every failure is a `StoreFault`; what then happens is the choice of `serving/fallback.py`.

    a caller is cancelled in `reserve`      its lease is given back behind it, on the same connection
    a `reserve` is late (`wait_s`)          the caller is told so; executed more than a second later, it does nothing
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Final, cast

import msgspec

from convene.errors import NotFound
from convene.limits import gcra
from convene.limits.gcra import Moment
from convene.limits.limit import Amounts, Grant, Limit, Refusal
from convene.store.redis_connection import Line, Reply, Word, address_of, failed
from convene.store.redis_scripts import (
    AMOUNT_MOST,
    EXPIRE,
    LEVELS,
    RENEW,
    REPLAY,
    RESERVE,
    SERVER_CLOCK,
    SETTLE,
    TOP_UP,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.clock import Clock
    from convene.store.base_counters import Past

WAIT_S: Final = 0.05
"""How long a decision may take (A8)."""
STALE_US: Final = 1_000_000
"""A reservation that the server comes to so much later than it was asked is not made: its caller is long gone."""
SET_US: Final = 10_000_000
"""A difference to our own clock that changes by more is reported; what a busy machine makes of it stays below."""

_PLANS_MOST: Final = 16_384
_AT_ONCE: Final = 128
"""Leases or requests of the past in one command: about a millisecond of the server's time."""
_KINDS: Final = {"": 0, "day": 2, "month": 3, "total": 4}
_SLOTS: Final = 1
_LOST: Final = ("READONLY", "LOADING", "MASTERDOWN")
"""Errors of a server that another one may have replaced: the name is to be looked up again."""

_GRANTED, _REFUSED, _LATE = 1, 0, 2


log = logging.getLogger(__name__)


class Script:
    """A text and the digest that Redis knows it by."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class _Plan(msgspec.Struct, frozen=True):
    """Limits made ready to be sent."""

    limits: tuple[Limit, ...]
    steps: bytes
    """What the scripts compute with (redis_scripts.py)."""
    whole: bytes
    """The limits themselves, for whoever meets the lease later."""


class RedisCounters:
    """`Counters` in Redis, under the keys of one hash tag. For one event loop."""

    local = None

    def __init__(
        self, url: str, clock: Clock, *, tag: str = "convene", wait_s: float = WAIT_S, server_clock: str = SERVER_CLOCK
    ) -> None:
        """Take the URL of a Redis; nothing is connected before the first call.

        Args:
            url: `redis://`, `rediss://` or `unix://` (redis_connection.py).
            clock: measures how long ago the server told its time.
            tag: those who count together have the same.
            wait_s: how long a call may take.
            server_clock: how the scripts learn the time; tests move it.

        Raises:
            ValueError: not a URL of a Redis, or a tag that Redis would cut short.
        """
        if not tag or "}" in tag or "{" in tag:
            raise ValueError("a hash tag is not empty and has no braces")
        self._line = Line(address_of(url), wait_s)
        self._monotonic = clock.monotonic
        self._base = f"{{{tag}}}:"
        self._keys = (f"{self._base}leases", f"{self._base}held")
        self._plans: dict[int, _Plan] = {}
        self._pack = msgspec.msgpack.Encoder().encode
        self._ahead_us: float | None = None
        """The server's time less ours, as of the last answer."""
        texts = (RESERVE, TOP_UP, SETTLE, RENEW, EXPIRE, LEVELS, REPLAY)
        self._reserve, self._top_up, self._settle, *others = (Script(server_clock + text) for text in texts)
        self._renew, self._expire, self._levels, self._replay = others

    async def reserve(self, lease: str, limits: tuple[Limit, ...], amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.reserve`. Also raises ValueError for what a double cannot count (`AMOUNT_MOST`)."""
        plan = self._plans.get(id(limits)) or self._plan(limits)
        _check(amounts)
        packed = self._pack(amounts)
        try:
            answer = await self._decide(lease, plan, packed, lease_us)
            if answer[0] == _LATE:  # our idea of the server's time is wrong, as it was set; now it is right
                answer = await self._decide(lease, plan, packed, lease_us)
        except asyncio.CancelledError:
            # Nobody will use it. On the same connection this comes behind the reservation, if that was sent at all.
            nothing = self._pack(Amounts())
            self._line.tell(("EVAL", self._settle.text, 2, *self._keys, lease, nothing))
            raise
        if answer[0] == _GRANTED:
            return self._grant(answer, 1)
        if answer[0] == _REFUSED:
            return _refusal(limits, amounts, answer)
        raise failed("the server's clock does not go")

    async def top_up(self, lease: str, round_number: int, amounts: Amounts, lease_us: int) -> Grant | Refusal:
        """See `LocalCounters.top_up`."""
        _check(amounts)
        further = amounts._replace(slots=0)
        reply = await self._run(self._top_up, lease, round_number, self._pack(further), lease_us)
        if reply is None:
            raise NotFound("There is no such lease: it was settled, or its time is up.", detail=lease)
        answer = cast("list[int]", reply)
        if answer[0] == _GRANTED:
            return self._grant(answer, 1)
        whole = cast("bytes", answer.pop())
        return _refusal(_read(whole), further, answer)

    async def settle(self, lease: str, actual: Amounts) -> Grant | None:
        """See `LocalCounters.settle`."""
        _check(actual)
        reply = await self._run(self._settle, lease, self._pack(actual))
        return None if reply is None else self._grant(cast("list[int]", reply), 0)

    async def renew(self, leases: Sequence[str], lease_us: int) -> None:
        """See `LocalCounters.renew`."""
        for start in range(0, len(leases), _AT_ONCE):
            await self._run(self._renew, lease_us, *leases[start : start + _AT_ONCE])

    async def expire(self) -> tuple[str, ...]:
        """See `LocalCounters.expire`. Every process may call it: a lease is ended by one of them."""
        ended: list[str] = []
        while True:
            leases = cast("list[bytes]", await self._run(self._expire, _AT_ONCE))
            ended += (lease.decode() for lease in leases)
            if len(leases) < _AT_ONCE:
                return tuple(ended)

    async def levels(self, limits: tuple[Limit, ...]) -> Grant:
        """See `LocalCounters.levels`."""
        plan = self._plans.get(id(limits)) or self._plan(limits)
        return self._grant(cast("list[int]", await self._run(self._levels, plan.steps)), 1)

    async def fresh(self) -> bool:
        """See `Counters.fresh`: a Redis that lost its memory has lost the mark of the last claim as well."""
        reply = await self._line.ask(("SET", f"{self._base}fresh", 1, "NX"))
        if isinstance(reply, Exception):
            raise self._fault(reply)
        return reply is not None

    async def replay(self, past: Sequence[Past]) -> None:
        """See `LocalCounters.replay`; several commands, so that no other caller waits long."""
        for one in past:
            _check(one.amounts)
        wall_us = cast("list[int]", await self._run(self._levels, self._pack([])))[0]
        remains = list(gcra.remains(past, wall_us).values())
        for start in range(0, len(remains), _AT_ONCE):
            words: list[Word] = []
            for limit, (first, second) in remains[start : start + _AT_ONCE]:
                kind, key = self._place(limit)
                words += (kind, limit.per, key, min(first, AMOUNT_MOST), min(second, AMOUNT_MOST))
            await self._run(self._replay, *words)

    async def aclose(self) -> None:
        """See `Counters.aclose`."""
        await self._line.aclose()

    async def _decide(self, lease: str, plan: _Plan, amounts: bytes, lease_us: int) -> list[int]:
        latest = 0 if self._ahead_us is None else int(self._monotonic() * 1e6 + self._ahead_us) + STALE_US
        reply = await self._run(self._reserve, lease, plan.steps, amounts, lease_us, latest, plan.whole)
        answer = cast("list[int]", reply)
        self._compare_clocks(answer[1])
        return answer

    def _compare_clocks(self, server_us: int) -> None:
        """Remember how far the server's clock is ahead of ours, and say so if it was set: limits move with it."""
        ahead_us = server_us - self._monotonic() * 1e6
        if self._ahead_us is not None and abs(ahead_us - self._ahead_us) > SET_US:
            log.warning("the clock of Redis was set by %.1f s: limits go by it", (ahead_us - self._ahead_us) / 1e6)
        self._ahead_us = ahead_us

    async def _run(self, script: Script, *words: Word) -> Reply:
        """Run a script by its digest, or by its text where the server does not know it (yet, or any more)."""
        reply = await self._line.ask(("EVALSHA", script.digest, 2, *self._keys, *words))
        if isinstance(reply, Exception) and str(reply).startswith("NOSCRIPT"):
            reply = await self._line.ask(("EVAL", script.text, 2, *self._keys, *words))
        if isinstance(reply, Exception):
            raise self._fault(reply)
        return reply

    def _fault(self, reply: Exception) -> Exception:
        """Return what to raise for an error of Redis; leave a server that is not (or no longer) the one to ask."""
        if str(reply).startswith(_LOST):
            self._line.drop(str(reply))
        return failed(str(reply))

    def _grant(self, answer: list[int], start: int) -> Grant:
        return Grant(answer[start], tuple(answer[start + 1 :]))

    def _plan(self, limits: tuple[Limit, ...]) -> _Plan:
        """Make limits ready and remember them by identity, which the plan keeps from being used again."""
        steps: list[int | str] = []
        for limit in limits:
            if limit.amount > AMOUNT_MOST:
                raise ValueError(f"{limit.counter}: the most that Redis counts exactly is {AMOUNT_MOST}")
            most = limit.amount if limit.kind != "rate" else limit.window_us if limit.amount else -1
            kind, key = self._place(limit)
            steps += (kind, int(limit.unit), limit.step, limit.per, most, key)
        if len(self._plans) >= _PLANS_MOST:
            self._plans.clear()
        whole = self._pack([_Row(**msgspec.structs.asdict(limit)) for limit in limits])
        plan = self._plans[id(limits)] = _Plan(limits, self._pack(steps), whole)
        return plan

    def _place(self, limit: Limit) -> tuple[int, str]:
        """Return what the scripts call the kind of a limit, and the key of its counter."""
        if limit.kind == "slots":
            return _SLOTS, f"{self._base}slots:{limit.counter}"
        return _KINDS[limit.period], f"{self._base}{'rate' if limit.kind == 'rate' else 'used'}:{limit.counter}"


class _Row(Limit, frozen=True, kw_only=True, array_like=True):
    """A limit without the names of its fields."""


def _read(whole: bytes) -> tuple[Limit, ...]:
    """Return the limits of a lease, as `_Plan.whole` has them."""
    rows = msgspec.msgpack.decode(whole, type=list[_Row])
    return tuple(Limit(**msgspec.structs.asdict(row)) for row in rows)


def _check(amounts: Amounts) -> None:
    gcra.check(amounts)
    if max(amounts) > AMOUNT_MOST or amounts.slots > 1:
        raise ValueError(f"amounts are at most {AMOUNT_MOST} and slots at most one: {amounts}")


def _refusal(limits: tuple[Limit, ...], amounts: Amounts, answer: list[int]) -> Refusal:
    """Work out from the states who refuses and for how long."""
    _, now_us, wall_us, *states = answer
    lifted = list(zip(states[::2], states[1::2], strict=True))
    refusal = gcra.refuse(limits, lifted, Moment(now_us, wall_us), amounts)
    assert refusal is not None, "the script and the arithmetic disagree"  # noqa: S101 - two writings of one rule
    return refusal

"""What the race draws, what it logs, and the checker that replays the logs (goals A1, A2). Pure but for reading files.

An attempt follows from the seed of its worker, so a record is only an attempt's number, what came of it, and when:

    GRANTED, REFUSED, FAULT (the store could not be asked; nothing is charged), SETTLED, GONE (its time was up before)

A worker that is killed may have been granted or have settled something without logging it. A charge of this kind (its
lease is among those that `expire` ended) is no part of the bound, which is checked on what somebody was told, but was
used. What was given back so is counted at the earliest moment it may have happened.
"""

from __future__ import annotations

import random
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from convene.limits import gcra
from convene.limits.gcra import Moment
from convene.limits.limit import MINUTE_US, Amounts, Limit, Unit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

RECORD: Final = struct.Struct("<BIq")
LEASE_US: Final = 500_000
HELD: Final = 4
"""So many leases a worker holds before it settles the oldest."""
KEYS: Final = 8
FULL_IN: Final = 50
"""Of so many last admissions on a counter the fullest is what was used."""
TIGHT: Final = ("key:k0", "user:u1", "team:t1", "model:m1")
"""The subjects whose tokens run out, one on each level; what the other limits allow is never reached."""


class What(IntEnum):
    """What came of an attempt."""

    GRANTED = 0
    REFUSED = 1
    FAULT = 2
    SETTLED = 3
    GONE = 4


class Attempt(NamedTuple):
    """One request."""

    limits: tuple[Limit, ...]
    cost: Amounts
    actual: Amounts
    forgotten: bool
    """Never settled: `expire` has to end it."""


class Record(NamedTuple):
    """One line of a log."""

    what: What
    number: int
    at_us: int


class Log(NamedTuple):
    """What one worker has done."""

    name: str
    seed: str
    records: list[Record]
    killed: bool


class Race(NamedTuple):
    """The size of a race."""

    processes: int
    attempts: int
    """Of all processes together."""
    kill_every: int
    """A process is killed when it has logged so many records, give or take half, unless fewer attempts are left."""
    rate: int
    """Tokens in a window of the tightest subject; the others have two to four times as much."""
    window_us: int = MINUTE_US


class Figures(NamedTuple):
    """What the checker has found."""

    attempts: int
    granted: int
    refused: int
    faults: int
    kills: int
    excess: Mapping[str, int]
    """By counter: units (of a rate, rounded up) that were admitted above the bound."""
    used: Mapping[str, float]
    """By tight subject: the share of burst + rate x time that was used."""
    span_s: float


def limit_sets(rate: int, window_us: int = MINUTE_US) -> dict[tuple[int, int], tuple[Limit, ...]]:
    """Return the limits of each key on each model: tokens on four levels, requests, slots of the team, and a total."""
    plenty = 1_000_000_000
    tight = {"key:k0": rate, "user:u1": 2 * rate, "team:t1": 4 * rate, "model:m1": 3 * rate}
    found = {}
    for key in range(KEYS):
        user, team = key // 2, key // 4
        for model in range(2):
            subjects = (("key", f"k{key}"), ("user", f"u{user}"), ("team", f"t{team}"), ("model", f"m{model}"))
            tokens = tuple(
                Limit.rate(
                    Unit.TOKENS,
                    tight.get(f"{scope}:{subject}", plenty),
                    window_us,
                    scope=scope,  # type: ignore[arg-type]  # the four words above
                    subject=subject,
                    name="tokens",
                )
                for scope, subject in subjects
            )
            others = (
                Limit.rate(Unit.REQUESTS, 999_983, MINUTE_US, scope="key", subject=f"k{key}", name="requests"),
                Limit.slots(16, scope="team", subject=f"t{team}"),
                Limit.budget(Unit.MICROS, rate // 100, "total", scope="key", subject=f"k{key}", name="in total"),
            )
            found[key, model] = tokens + others
    return found


def attempts(seed: str, rate: int, window_us: int = MINUTE_US) -> Iterator[Attempt]:
    """Yield what a worker tries, without end. Small costs are frequent, so that what is left over is small."""
    source = random.Random(seed)  # noqa: S311 - repeatable on purpose
    sets = limit_sets(rate, window_us)
    most = max(2, rate // 40)
    while True:
        key, model = source.randrange(KEYS), source.randrange(2)
        tokens = source.choice((1, 1, 2, 7, most // 10 + 1, most // 3 + 1, most))
        used = tokens if source.random() < 0.5 else source.randint(0, tokens)
        micros = source.randint(0, 9) if key == KEYS - 1 else 0
        cost = Amounts(1, tokens, micros=micros, slots=1)
        actual = Amounts(1, used, micros=micros // 2)
        yield Attempt(sets[key, model], cost, actual, source.random() < 0.0005)


def read_log(path: Path, name: str, seed: str, *, killed: bool) -> Log:
    """Read what a worker has logged; a record that a kill cut short is left out."""
    whole = path.read_bytes() if path.exists() else b""
    whole = whole[: len(whole) - len(whole) % RECORD.size]
    records = [Record(What(what), number, at_us) for what, number, at_us in RECORD.iter_unpack(whole)]
    return Log(name, seed, records, killed)


class Event(NamedTuple):
    """A charge on one counter, or what was given back."""

    at_us: int
    order: int
    """At the same moment what is given back comes first."""
    units: int
    limit: Limit
    told: bool = True
    """Whether anybody knew: the worker may have been killed before it could say so."""


def events_of(log: Log, rate: int, ended: Collection[str], window_us: int = MINUTE_US) -> Iterator[Event]:
    """Yield what a worker's log means for every counter: charges, and what was given back, when it was."""
    drawn = attempts(log.seed, rate, window_us)
    waiting: dict[int, tuple[Attempt, int]] = {}
    seen = -1
    last_us = 0
    for what, number, at_us in log.records:
        last_us = max(last_us, at_us)
        if what in (What.GRANTED, What.REFUSED, What.FAULT):
            attempt = next(drawn)
            seen += 1
            assert number == seen, "attempts are logged in their order"
            if what == What.GRANTED:
                waiting[number] = attempt, at_us
                for limit in attempt.limits:
                    yield Event(at_us, 1, attempt.cost[limit.unit], limit)
        elif what == What.SETTLED:
            attempt, began_us = waiting.pop(number)
            yield from _settled(attempt, at_us, began_us)
        else:
            attempt, began_us = waiting.pop(number)
            yield from _over(attempt, began_us)
    for number, (attempt, began_us) in waiting.items():
        if f"{log.name}-{number}" in ended:
            yield from _over(attempt, began_us)
        else:
            # By the worker, which was killed before it could say so.
            yield from _settled(attempt, last_us, began_us)
    if last_us and f"{log.name}-{seen + 1}" in ended:
        attempt = next(drawn)
        for limit in attempt.limits:
            yield Event(last_us, 1, attempt.cost[limit.unit], limit, told=False)


def _settled(attempt: Attempt, at_us: int, began_us: int) -> Iterator[Event]:
    """What a lease gives back at its settlement; its slot already when its time was up, if that was before."""
    for limit in attempt.limits:
        moment_us = min(at_us, began_us + LEASE_US) if limit.kind == "slots" else at_us
        yield Event(moment_us, 0, attempt.actual[limit.unit] - attempt.cost[limit.unit], limit)


def _over(attempt: Attempt, began_us: int) -> Iterator[Event]:
    """A lease whose time was up keeps its charge and gives back its slot."""
    for limit in attempt.limits:
        if limit.kind == "slots":
            yield Event(began_us + LEASE_US, 0, -attempt.cost.slots, limit)


def check(logs: Sequence[Log], rate: int, ended: Collection[str], window_us: int = MINUTE_US) -> Figures:
    """Replay all logs against the arithmetic and return the figures."""
    counters: dict[str, list[Event]] = {}
    for log in logs:
        for event in events_of(log, rate, ended, window_us):
            if event.units:
                counters.setdefault(event.limit.counter, []).append(event)
    excess: dict[str, int] = {}
    used: dict[str, float] = {}
    first_us, last_us = [], []
    for counter, events in counters.items():
        events.sort(key=lambda event: event[:2])
        first_us.append(events[0].at_us)
        last_us.append(events[-1].at_us)
        excess[counter] = excess_of(events)
        scope, subject, _ = counter.split(":")
        if f"{scope}:{subject}" in TIGHT and events[0].limit.unit == Unit.TOKENS:
            used[f"{scope}:{subject}"] = used_of(events)
    kinds = [record.what for log in logs for record in log.records]
    granted, refused, faults = (kinds.count(kind) for kind in (What.GRANTED, What.REFUSED, What.FAULT))
    span_s = (max(last_us) - min(first_us)) / 1e6 if last_us else 0.0
    kills = sum(log.killed for log in logs)
    return Figures(granted + refused + faults, granted, refused, faults, kills, excess, used, span_s)


def excess_of(events: Sequence[Event]) -> int:
    """Return by how many units any admission went above what the arithmetic allows; 0 is right."""
    limit = events[0].limit
    state = gcra.unused(limit)
    worst = 0
    for at_us, _, units, _, told in events:
        if not told:
            continue
        moment = Moment(at_us, 0)
        state = gcra.move(limit, gcra.lift(limit, state, moment), units)
        if units > 0:
            worst = max(worst, _above(limit, state, at_us))
    return worst


def _above(limit: Limit, state: gcra.State, at_us: int) -> int:
    if limit.kind == "rate":
        over_us = state[0] + (state[1] > 0) - at_us - limit.window_us
        return -(-over_us * limit.per // limit.step) if over_us > 0 else 0
    return max(0, (state[1] if limit.kind == "budget" else state[0]) - limit.amount)


def used_of(events: Sequence[Event]) -> float:
    """Return the share of burst + rate x time that was used from the first admission to one of the last `FULL_IN`.

    To the fullest of them: at a single moment a lease that was settled just before leaves a hole, and on a slow machine
    nobody has asked for it yet. What a store keeps from its callers for good is missing at all of them.
    """
    limit = events[0].limit
    first_us = next(event.at_us for event in events if event.units > 0)
    used, shares = 0, []
    for event in events:
        used += event.units
        if event.units > 0:
            shares.append(used / (limit.amount * (1 + (event.at_us - first_us) / limit.window_us)))
    return max(shares[-FULL_IN:])

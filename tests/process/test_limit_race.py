"""The race for limits that processes share (goals A1, A2), and that its checker would notice.

The long race, 8 processes and a million attempts, is `make soak`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from convene.limits.limit import MINUTE_US, Limit, Unit
from process import limit_race
from process.limit_race_check import (
    FULL_IN,
    LEASE_US,
    RECORD,
    TIGHT,
    Attempt,
    Event,
    Figures,
    Log,
    Race,
    Record,
    What,
    attempts,
    check,
    events_of,
    excess_of,
    limit_sets,
    read_log,
    used_of,
)
from servers import own_schema, own_space, shared_postgres, shared_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RATE: Final = 60_000
START_US: Final = 1_000_000_000


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of empty counters of each kind that processes can share."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/data"
    elif request.param == "redis":
        with own_space(shared_redis()) as space:
            yield f"{space.url}#{space.tag}"
    else:
        with own_schema(shared_postgres()) as schema:
            yield schema


async def test_processes_that_race_and_are_killed_get_all_there_is_and_not_a_unit_more(
    url: str, tmp_path: Path
) -> None:
    size = Race(processes=3, attempts=6_000, kill_every=1_000, rate=RATE, window_us=15 * MINUTE_US)
    figures = await limit_race.run(url, size, tmp_path)
    assert limit_race.verdict(figures) == []
    assert set(figures.used) == set(TIGHT)
    assert figures.granted + figures.refused + figures.faults == figures.attempts
    assert figures.granted > 0
    assert figures.refused > 0
    assert figures.kills >= size.processes
    tokens, requests, slots, totals = 8 + 4 + 2 + 2, 8, 2, 1
    assert len(figures.excess) == tokens + requests + slots + totals


def tokens(amount: int = 100) -> Limit:
    return Limit.rate(Unit.TOKENS, amount, MINUTE_US, scope="key", subject="k0", name="tokens per minute")


def admitted(limit: Limit, *charges: tuple[int, int]) -> list[Event]:
    """Return admissions of so many units, so many microseconds after the start."""
    return [Event(START_US + after_us, 1, units, limit) for after_us, units in charges]


def test_the_checker_allows_burst_and_rate_and_no_unit_more() -> None:
    limit = tokens()
    assert excess_of(admitted(limit, (0, 100), (MINUTE_US // 100, 1), (MINUTE_US // 2, 49))) == 0
    assert excess_of(admitted(limit, (0, 100), (MINUTE_US // 100 - 1, 1))) == 1
    assert excess_of(admitted(limit, (0, 60), (0, 60))) == 20
    assert excess_of(admitted(limit, (0, 100), (9 * MINUTE_US, 103))) == 3


def test_the_checker_counts_what_was_given_back_when_it_was() -> None:
    limit = tokens()
    back = Event(START_US + 5, 0, -40, limit)
    assert excess_of([*admitted(limit, (0, 100)), back, *admitted(limit, (5, 40))]) == 0
    assert excess_of([*admitted(limit, (0, 100)), *admitted(limit, (4, 40)), back]) == 40


def test_the_checker_knows_slots_and_totals() -> None:
    slots = Limit.slots(2, scope="team", subject="t0")
    assert excess_of(admitted(slots, (0, 1), (1, 1))) == 0
    assert excess_of(admitted(slots, (0, 1), (1, 1), (9 * MINUTE_US, 1))) == 1
    total = Limit.budget(Unit.MICROS, 10, "total", scope="key", subject="k0", name="in total")
    assert excess_of(admitted(total, (0, 10))) == 0
    assert excess_of(admitted(total, (0, 10), (9 * MINUTE_US, 2))) == 2


def test_the_checker_measures_what_was_used_at_the_fullest_of_the_last_admissions() -> None:
    limit = tokens()
    back = Event(MINUTE_US + START_US + 1, 0, -50, limit)
    assert used_of([*admitted(limit, (0, 100), (MINUTE_US, 100)), back]) == 1.0
    hole = admitted(limit, (MINUTE_US + 2, 1))
    assert used_of([*admitted(limit, (0, 100), (MINUTE_US, 100)), back, *hole]) == 1.0
    short = admitted(limit, *((MINUTE_US, 1) for _ in range(FULL_IN)))
    assert used_of([*admitted(limit, (0, 100)), *short]) == (100 + FULL_IN) / 200


def log(*records: tuple[What, int, int], killed: bool = False) -> Log:
    return Log(
        "w0.0", "w0.0", [Record(what, number, START_US + after_us) for what, number, after_us in records], killed
    )


def first_attempt() -> Attempt:
    return next(attempts("w0.0", RATE))


def moved(events: list[Event], unit: Unit) -> list[tuple[int, int]]:
    return [(event.at_us - START_US, event.units) for event in events if event.limit.unit == unit]


def test_a_log_charges_every_limit_and_gives_back_what_was_not_used() -> None:
    attempt = first_attempt()
    events = list(events_of(log((What.GRANTED, 0, 0), (What.REFUSED, 1, 5), (What.SETTLED, 0, 9)), RATE, ()))
    assert len(events) == 2 * len(attempt.limits)
    assert moved(events, Unit.SLOTS) == [(0, 1), (9, -1)]
    difference = attempt.actual.tokens - attempt.cost.tokens
    assert moved(events, Unit.TOKENS) == [(0, attempt.cost.tokens)] * 4 + [(9, difference)] * 4


def test_a_lease_whose_time_was_up_keeps_its_charge() -> None:
    cost = first_attempt().cost.tokens
    gone = [log((What.GRANTED, 0, 0), (What.GONE, 0, 9)), log((What.GRANTED, 0, 0), killed=True)]
    for one in gone:
        events = list(events_of(one, RATE, {"w0.0-0"}))
        assert moved(events, Unit.SLOTS) == [(0, 1), (LEASE_US, -1)]
        assert moved(events, Unit.TOKENS) == [(0, cost)] * 4


def test_a_slot_is_free_when_its_time_was_up_however_late_it_is_settled() -> None:
    late = log((What.GRANTED, 0, 0), (What.SETTLED, 0, LEASE_US + 9))
    events = list(events_of(late, RATE, ()))
    assert moved(events, Unit.SLOTS) == [(0, 1), (LEASE_US, -1)]
    assert moved(events, Unit.TOKENS)[-1][0] == LEASE_US + 9


def test_what_a_killed_worker_settled_unsaid_counts_from_its_last_word() -> None:
    records = ((What.GRANTED, 0, 0), (What.REFUSED, 1, 7), (What.FAULT, 2, -START_US))
    events = list(events_of(log(*records, killed=True), RATE, ()))
    assert moved(events, Unit.SLOTS) == [(0, 1), (7, -1)]


def test_what_a_killed_worker_was_granted_unsaid_is_used_but_no_part_of_the_bound() -> None:
    limit = tokens()
    untold = Event(START_US, 1, 70, limit, told=False)
    assert excess_of([*admitted(limit, (0, 100)), untold]) == 0
    assert used_of([*admitted(limit, (0, 30)), untold]) == 1.0
    drawn = attempts("w0.0", RATE)
    next(drawn)
    cost = next(drawn).cost
    events = list(events_of(log((What.REFUSED, 0, 3), killed=True), RATE, {"w0.0-1"}))
    assert moved(events, Unit.TOKENS) == [(3, cost.tokens)] * 4
    assert not any(event.told for event in events)


def test_a_log_that_skips_an_attempt_is_no_log() -> None:
    with pytest.raises(AssertionError, match="order"):
        list(events_of(log((What.GRANTED, 1, 0)), RATE, ()))


def test_a_record_that_a_kill_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(RECORD.pack(What.GRANTED, 0, 5) + RECORD.pack(What.REFUSED, 1, 6)[:-1])
    assert read_log(path, "w", "seed", killed=True) == Log("w", "seed", [Record(What.GRANTED, 0, 5)], killed=True)
    assert read_log(tmp_path / "none", "w", "seed", killed=False).records == []


def test_the_same_seed_draws_the_same_attempts() -> None:
    one, other, third = (attempts(seed, RATE) for seed in ("a", "a", "b"))
    drawn = [next(one) for _ in range(200)]
    assert drawn == [next(other) for _ in range(200)]
    assert drawn != [next(third) for _ in range(200)]
    assert all(attempt.actual.tokens <= attempt.cost.tokens <= RATE // 40 for attempt in drawn)
    assert {attempt.limits for attempt in drawn} == set(limit_sets(RATE).values())


def test_a_store_that_gives_too_much_is_found() -> None:
    """Two workers that a broken store grants everything."""
    count = 20_000
    records = [(What.GRANTED, number, number * 40) for number in range(count)]
    settled = [(What.SETTLED, number, number * 40 + 1) for number in range(count)]
    both = sorted([*records, *settled], key=lambda record: record[2])
    figures = check([log(*both)], RATE, ())
    assert any("units over the bound of key:k0:tokens" in line for line in limit_race.verdict(figures))
    assert figures.granted == count
    assert figures.span_s == pytest.approx(count * 40 / 1e6, rel=0.01)


def test_a_store_that_gives_too_little_is_found() -> None:
    used = dict.fromkeys(TIGHT, 0.999)
    figures = Figures(1, 1, 0, 0, 0, {}, used, 1.0)
    assert limit_race.verdict(figures) == []
    assert limit_race.verdict(figures._replace(used=used | {"key:k0": 0.99})) == ["only 0.9900 of key:k0 used"]
    assert limit_race.verdict(figures._replace(used={})) == [f"{who} was never used" for who in TIGHT]

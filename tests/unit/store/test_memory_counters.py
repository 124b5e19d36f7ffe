"""How counters in memory stay small and fast, which the contract (`test_counters.py`) cannot see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from convene.limits.allowance import Allowance, limits_of
from convene.limits.limit import DAY_US, MINUTE_US, Amounts, Grant, Limit, Refusal, Unit
from convene.store import memory_counters
from convene.store.memory_counters import LocalMemoryCounters, MemoryCounters

if TYPE_CHECKING:
    from fakes import FakeClock

HOUR_US: Final = 3_600_000_000
COST: Final = Amounts(requests=1, micros=30, slots=1)


def idle(number: int) -> tuple[Limit, ...]:
    """Return limits of every kind on a subject of its own."""
    allowance = Allowance(
        requests_per_minute=9, concurrent_requests=2, budget_per_day=100, budget_per_month=100, budget_total=100
    )
    return limits_of(allowance, "key", f"idle{number}")


@pytest.fixture
def counters(clock: FakeClock) -> LocalMemoryCounters:
    return LocalMemoryCounters(clock)


def reserve(counters: LocalMemoryCounters, lease: str, limits: tuple[Limit, ...], lease_us: int = HOUR_US) -> None:
    assert isinstance(counters.reserve(lease, limits, COST, lease_us), Grant)


def sweep(counters: LocalMemoryCounters) -> None:
    """Call `expire` as often as it takes to see every counter."""
    for _ in range(70):
        counters.expire()


def test_what_means_nothing_any_more_is_forgotten_and_the_rest_is_kept(
    clock: FakeClock, counters: LocalMemoryCounters
) -> None:
    for number in range(1_000):
        reserve(counters, f"l{number}", idle(number))
        counters.settle(f"l{number}", COST)
    reserve(counters, "kept", idle(1_000), 90 * DAY_US)
    assert len(counters._states) == 5 * 1_001
    sweep(counters)
    assert len(counters._states) == 4 * 1_000 + 5  # slots that were given back
    clock.move(3 * 86_400)
    sweep(counters)
    assert len(counters._states) == 2 * 1_001 + 1  # months, totals, and the slot that is taken
    clock.move(40 * 86_400)
    sweep(counters)
    assert len(counters._states) == 1_001 + 1
    assert counters.levels(idle(1_000)).states[1:] == (1, 0, 0, 30)


def test_forgetting_is_done_in_small_portions(counters: LocalMemoryCounters) -> None:
    for number in range(1_000):
        reserve(counters, f"l{number}", idle(number))
        counters.settle(f"l{number}", COST)
    before = len(counters._states)
    counters.expire()
    assert before - 256 - 5_000 // 64 <= len(counters._states) < before


def test_a_rate_in_debt_is_never_forgotten(clock: FakeClock, counters: LocalMemoryCounters) -> None:
    limits = (Limit.rate(Unit.TOKENS, 10, MINUTE_US, scope="key", subject="k", name="tokens per minute"),)
    assert isinstance(counters.reserve("a", limits, Amounts(tokens=1), HOUR_US), Grant)
    counters.settle("a", Amounts(tokens=10_000))
    for _ in range(16):
        clock.move(3_600)
        sweep(counters)
        assert isinstance(counters.reserve("b", limits, Amounts(tokens=1), HOUR_US), Refusal)
    clock.move(3_600)
    assert isinstance(counters.reserve("b", limits, Amounts(tokens=1), HOUR_US), Grant)


def test_a_wall_clock_that_was_ahead_for_an_hour_makes_no_budget_forgotten(
    clock: FakeClock, counters: LocalMemoryCounters
) -> None:
    limits = (Limit.budget(Unit.MICROS, 100, "day", scope="key", subject="k", name="budget per day"),)
    clock.set_wall(1_800_057_000.0)  # half an hour before midnight
    assert isinstance(counters.reserve("a", limits, Amounts(micros=100), HOUR_US), Grant)
    clock.set_wall(1_800_057_000.0 + 3_600)
    sweep(counters)
    clock.set_wall(1_800_057_000.0)
    assert isinstance(counters.reserve("b", limits, Amounts(micros=1), HOUR_US), Refusal)


def test_leases_that_are_settled_do_not_pile_up(counters: LocalMemoryCounters) -> None:
    limits = idle(1)[2:3]
    free = Amounts()
    for number in range(20_000):
        assert isinstance(counters.reserve(f"l{number}", limits, free, HOUR_US), Grant)
        counters.settle(f"l{number}", free)
    assert not counters._leases
    assert len(counters._ends) <= 1_025


def test_many_leases_at_once_are_all_ended_after_the_heap_was_made_anew(
    clock: FakeClock, counters: LocalMemoryCounters
) -> None:
    limits = idle(1)[2:3]
    for number in range(5_000):
        assert isinstance(counters.reserve(f"l{number}", limits, Amounts(), HOUR_US + number), Grant)
        if number % 5:
            counters.settle(f"l{number}", Amounts())
    assert len(counters._leases) == 1_000
    assert len(counters._ends) <= 3_001
    clock.move(3_601)
    assert set(counters.expire()) == {f"l{number}" for number in range(0, 5_000, 5)}
    assert not counters._leases
    assert not counters._ends


def test_a_lease_that_is_over_is_left_out_when_the_heap_is_made_anew(
    clock: FakeClock, counters: LocalMemoryCounters
) -> None:
    limits = idle(1)
    reserve(counters, "over", limits, MINUTE_US)
    clock.move(61)
    for number in range(1_100):
        assert isinstance(counters.reserve(f"l{number}", limits, Amounts(), HOUR_US), Grant)
    assert counters.levels(limits).states[1] == 0
    assert counters.expire() == ("over",)


def test_limits_are_made_ready_once_and_found_by_identity(counters: LocalMemoryCounters) -> None:
    limits = idle(1)
    for number in range(2):
        reserve(counters, f"l{number}", limits)
    assert len(counters._plans) == 1
    counters.settle("l0", COST)
    reserve(counters, "equal", idle(1))
    assert len(counters._plans) == 2
    assert counters.levels(limits).states[1:] == (2, 90, 90, 90)


def test_more_kinds_of_callers_than_are_kept_ready_are_served(
    counters: LocalMemoryCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_counters, "_PLANS_MOST", 4)
    kinds = [idle(number) for number in range(10)]
    for _ in range(2):
        for number, limits in enumerate(kinds):
            reserve(counters, f"l{number}", limits)
            assert len(counters._plans) <= 4
        for number in range(10):
            settled = counters.settle(f"l{number}", COST)
            assert settled is not None
            assert settled.states[1] == 0


def test_an_identity_that_is_used_again_is_not_mistaken(
    counters: LocalMemoryCounters, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan keeps its tuple alive, so no other can have its place in memory while it is remembered."""
    monkeypatch.setattr(memory_counters, "_PLANS_MOST", 3)
    for number in range(200):
        reserve(counters, f"l{number}", idle(number))
        assert counters.levels(idle(number)).states[1] == 1


def test_closing_forgets_everything(clock: FakeClock) -> None:
    counters = LocalMemoryCounters(clock)
    reserve(counters, "a", idle(1))
    counters.close()
    assert not counters._states
    assert not counters._leases
    assert counters.settle("a", COST) is None


def test_both_faces_are_of_the_same_counters(clock: FakeClock) -> None:
    counters = MemoryCounters(clock)
    assert isinstance(counters.local, LocalMemoryCounters)
    assert counters.local is counters.local

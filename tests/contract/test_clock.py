"""What every `Clock` does, the machine's and the tests' own alike, and what only the latter can do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from convene.clock import SystemClock
from fakes import FakeClock

if TYPE_CHECKING:
    from convene.clock import Clock


@pytest.fixture(params=[SystemClock, FakeClock], ids=["system", "fake"])
def any_clock(request: pytest.FixtureRequest) -> Clock:
    made: Clock = request.param()
    return made


def test_an_id_is_the_prefix_and_24_hexadecimal_digits(any_clock: Clock) -> None:
    assert re.fullmatch(r"run_[0-9a-f]{24}", any_clock.new_id("run_"))


def test_a_stamped_id_begins_with_the_milliseconds_and_so_sorts_by_time(any_clock: Clock) -> None:
    before = int(any_clock.now() * 1000)
    ids = [any_clock.stamped_id("e_") for _ in range(500)]
    after = int(any_clock.now() * 1000)
    assert all(re.fullmatch(r"e_[0-9a-f]{24}", one) for one in ids)
    stamps = [int(one[2:13], 16) for one in ids]
    assert stamps == sorted(stamps)
    assert before <= stamps[0] <= stamps[-1] <= after
    assert len(set(ids)) == 500


def test_ids_do_not_repeat(any_clock: Clock) -> None:
    assert len({any_clock.new_id("") for _ in range(1000)}) == 1000


def test_a_token_has_the_length_asked_for_and_does_not_repeat(any_clock: Clock) -> None:
    first, second = any_clock.token(32), any_clock.token(32)
    assert len(first) == len(second) == 32
    assert first != second


def test_a_fraction_lies_between_nought_and_one(any_clock: Clock) -> None:
    drawn = [any_clock.fraction() for _ in range(1000)]
    assert all(0 <= number < 1 for number in drawn)
    assert len(set(drawn)) > 900


def test_monotonic_time_never_steps_back(any_clock: Clock) -> None:
    read = [any_clock.monotonic() for _ in range(100)]
    assert read == sorted(read)


def test_wall_time_is_in_unix_seconds(any_clock: Clock) -> None:
    assert 1_700_000_000 < any_clock.now() < 4_000_000_000


def test_the_fake_stands_still_until_moved_and_then_moves_both_scales(clock: FakeClock) -> None:
    before = clock.now(), clock.monotonic()
    assert (clock.now(), clock.monotonic()) == before
    clock.move(2.5)
    assert (clock.now(), clock.monotonic()) == (before[0] + 2.5, before[1] + 2.5)


def test_the_fake_refuses_to_go_back(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        clock.move(-1)


def test_setting_the_fakes_wall_clock_leaves_durations_alone(clock: FakeClock) -> None:
    before = clock.monotonic()
    clock.set_wall(1.0)
    assert (clock.now(), clock.monotonic()) == (1.0, before)


def test_fakes_of_one_seed_agree_and_of_two_do_not() -> None:
    one, same, other = FakeClock(seed=1), FakeClock(seed=1), FakeClock(seed=2)
    drawn = one.new_id("a"), one.token(8), one.fraction()
    assert drawn == (same.new_id("a"), same.token(8), same.fraction())
    assert drawn != (other.new_id("a"), other.token(8), other.fraction())

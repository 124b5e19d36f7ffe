"""When an agent is left alone, and who tries it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.agents import breaker as breakers
from convene.agents.breaker import Breaker

if TYPE_CHECKING:
    from fakes import FakeClock


def broken(clock: FakeClock, times: int = 3) -> Breaker:
    breaker = Breaker(clock.monotonic)
    for _ in range(times):
        breaker.fault("a")
    return breaker


def test_two_faults_are_forgiven_and_the_third_opens(clock: FakeClock) -> None:
    assert broken(clock, 2).admit("a") is None
    assert broken(clock, 3).admit("a") == breakers.OPEN_S


def test_an_answer_between_faults_closes_the_account(clock: FakeClock) -> None:
    breaker = broken(clock, 2)
    breaker.well("a")
    breaker.fault("a")
    assert breaker.admit("a") is None


def test_after_its_time_one_call_may_try_and_no_second(clock: FakeClock) -> None:
    breaker = broken(clock)
    clock.move(breakers.OPEN_S)
    assert breaker.admit("a") is None
    assert breaker.admit("a") == 1.0
    breaker.undecided("a")
    assert breaker.admit("a") is None
    breaker.well("a")
    assert breaker.admit("a") is None


def test_each_further_fault_doubles_the_wait_up_to_a_bound(clock: FakeClock) -> None:
    breaker = broken(clock)
    waits = []
    for _ in range(8):
        wait_s = breaker.admit("a")
        assert wait_s is not None
        waits.append(wait_s)
        clock.move(wait_s)
        assert breaker.admit("a") is None
        breaker.fault("a")
    assert waits == [15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 300.0, 300.0]


def test_agents_do_not_share_a_breaker_and_the_oldest_is_forgotten(clock: FakeClock) -> None:
    breaker = broken(clock)
    assert breaker.admit("b") is None
    for number in range(breakers.KNOWN_MAX):
        breaker.fault(f"x{number}")
    assert breaker.admit("a") is None

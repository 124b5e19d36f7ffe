"""The throttle: how many tries, how long to wait, and how little it remembers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.serving import throttle as module
from convene.serving.throttle import Throttle, network_of

if TYPE_CHECKING:
    from fakes import FakeClock


def test_one_try_each_interval_and_the_wait_is_exact(clock: FakeClock) -> None:
    throttle = Throttle(clock, 2.0, 1)
    assert throttle.take("a") == 0
    assert throttle.take("a") == pytest.approx(2.0)
    clock.move(1.5)
    assert throttle.take("a") == pytest.approx(0.5)
    clock.move(0.5)
    assert throttle.take("a") == 0
    assert throttle.take("a") > 0


def test_a_burst_and_then_one_each_interval(clock: FakeClock) -> None:
    throttle = Throttle(clock, 30.0, 10)
    assert [throttle.take("a") for _ in range(10)] == [0] * 10
    assert throttle.take("a") == pytest.approx(30.0)
    clock.move(30.0)
    assert throttle.take("a") == 0
    assert throttle.take("a") == pytest.approx(30.0)
    clock.move(10_000.0)
    assert [throttle.take("a") for _ in range(11)].count(0) == 10


def test_a_refused_try_costs_nothing(clock: FakeClock) -> None:
    throttle = Throttle(clock, 2.0, 1)
    throttle.take("a")
    for _ in range(100):
        throttle.take("a")
    clock.move(2.0)
    assert throttle.take("a") == 0


def test_names_do_not_know_each_other(clock: FakeClock) -> None:
    throttle = Throttle(clock, 2.0, 1)
    assert throttle.take("a") == 0
    assert throttle.take("b") == 0


def test_a_good_try_is_given_back(clock: FakeClock) -> None:
    throttle = Throttle(clock, 30.0, 2)
    for _ in range(20):
        assert throttle.take("a") == 0
        throttle.give_back("a")
    throttle.give_back("nobody")
    assert throttle.take("nobody") == 0


def test_its_memory_is_bounded_and_the_busiest_stay(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 4)
    throttle = Throttle(clock, 10.0, 3)
    for _ in range(3):
        throttle.take("guesser")
    for number in range(50):
        throttle.take(f"other {number}")
    assert len(throttle._due) <= 4
    assert throttle.take("guesser") > 0


def test_names_that_are_done_make_room_first(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 2)
    throttle = Throttle(clock, 10.0, 1)
    throttle.take("a")
    throttle.take("b")
    clock.move(10.0)
    throttle.take("c")
    assert list(throttle._due) == ["c"]


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_whoever_has_one_address_of_a_network_has_all(address: str, network: str) -> None:
    assert network_of(address) == network

"""Circuit breakers, the weighted choice and the retry budget, over simulated time."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.providers.hosts import (
    PROBE_WAIT_MAX_S,
    RETRIES_AT_START,
    RETRIES_MAX,
    RETRY_SHARE,
    Breaker,
    Hosts,
    Pick,
    RetryBudget,
)

if TYPE_CHECKING:
    from fakes import FakeClock

URLS = ("http://a/v1/", "http://b/v1")


def pick_of(hosts: Hosts) -> Pick:
    pick = hosts.choose()
    assert pick is not None
    return pick


def break_host(hosts: Hosts) -> None:
    for _ in range(5):
        hosts.failed(Pick(0, hosts.base_urls[0], probe=False))


def test_base_urls_lose_their_closing_slash(clock: FakeClock) -> None:
    assert Hosts(URLS, (), clock).base_urls == ("http://a/v1", "http://b/v1")


@pytest.mark.parametrize(("urls", "weights"), [((), ()), (URLS, (1.0,)), (URLS, (1.0, 0.0)), (URLS, (1.0, -2.0))])
def test_hosts_that_make_no_sense_are_refused(
    urls: tuple[str, ...], weights: tuple[float, ...], clock: FakeClock
) -> None:
    with pytest.raises(ValueError, match="weight"):
        Hosts(urls, weights, clock)


def test_traffic_follows_the_weights(clock: FakeClock) -> None:
    hosts = Hosts(URLS, (3.0, 1.0), clock)
    counts = Counter(pick_of(hosts).number for _ in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)


def test_five_failures_in_a_row_open_a_breaker_four_do_not(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    pick = pick_of(hosts)
    for _ in range(4):
        hosts.failed(pick)
    hosts.succeeded(pick)
    for _ in range(4):
        hosts.failed(pick)
    assert hosts.choose() is not None
    hosts.failed(pick)
    assert hosts.choose() is None
    assert hosts.wait_s() == pytest.approx(1.0)


def fail_three_of_four(hosts: Hosts) -> None:
    pick = Pick(0, hosts.base_urls[0], probe=False)
    for _ in range(3):
        hosts.failed(pick)
    hosts.succeeded(pick)


def test_mostly_failing_opens_a_breaker_even_with_successes_between(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    for _ in range(3):
        fail_three_of_four(hosts)
    assert hosts.choose() is not None
    hosts.failed(pick_of(hosts))
    assert hosts.choose() is None


def test_old_failures_fade(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    for _ in range(30):
        for _ in range(3):
            hosts.failed(pick_of(hosts))
        assert hosts.wait_s() is None
        hosts.succeeded(pick_of(hosts))
        clock.move(60)


def test_an_open_breaker_gets_one_probe_when_it_is_due(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    clock.move(1.0)
    assert pick_of(hosts).probe
    assert hosts.choose() is None


def test_a_probe_that_hangs_does_not_keep_the_next_one_from_going(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    clock.move(1.0)
    assert pick_of(hosts).probe
    clock.move(PROBE_WAIT_MAX_S)
    assert pick_of(hosts).probe


def test_a_probe_whose_caller_left_may_be_repeated_at_once(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    clock.move(1.0)
    hosts.gave_up(pick_of(hosts))
    assert pick_of(hosts).probe


def test_a_probe_that_works_closes_the_breaker(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    clock.move(1.0)
    hosts.succeeded(pick_of(hosts))
    assert not pick_of(hosts).probe
    assert hosts.wait_s() is None


def test_waits_between_failing_probes_grow_up_to_five_seconds(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    waits: list[float] = []
    for _ in range(5):
        wait_s = hosts.wait_s()
        assert wait_s is not None
        waits.append(wait_s)
        clock.move(wait_s)
        hosts.failed(pick_of(hosts))
    assert waits == pytest.approx([1.0, 2.0, 4.0, 5.0, 5.0])


def test_failures_of_requests_sent_before_do_not_lengthen_the_wait(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    break_host(hosts)
    assert hosts.wait_s() == pytest.approx(1.0)


def test_just_after_a_recovery_two_failures_are_enough_and_the_wait_is_longer(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    clock.move(1.0)
    hosts.succeeded(pick_of(hosts))
    hosts.failed(pick_of(hosts))
    hosts.failed(pick_of(hosts))
    assert hosts.wait_s() == pytest.approx(2.0)


def test_a_host_whose_probe_is_due_counts_as_askable(clock: FakeClock) -> None:
    hosts = Hosts(("http://a",), (), clock)
    break_host(hosts)
    assert hosts.wait_s() is not None
    clock.move(1.0)
    assert hosts.wait_s() is None


def test_a_retry_prefers_an_untried_host_and_is_never_a_probe(clock: FakeClock) -> None:
    hosts = Hosts(URLS, (), clock)
    again = hosts.choose_again([1])
    assert again is not None
    assert again.number == 0
    break_host(hosts)
    clock.move(1.0)
    again = hosts.choose_again([1])
    assert again is not None
    assert (again.number, again.probe) == (1, False)
    assert hosts.choose_other([1]) is None


def test_a_dead_host_gets_at_most_one_percent_of_the_traffic_after_two_seconds(clock: FakeClock) -> None:
    hosts = Hosts(URLS, (), clock)
    sent: Counter[int] = Counter()
    for step in range(60 * 50):  # 50 requests a second for a minute
        pick = pick_of(hosts)
        (hosts.failed if pick.number == 0 else hosts.succeeded)(pick)
        if step >= 2 * 50:
            sent[pick.number] += 1
        clock.move(1 / 50)
    assert sent[0] / sent.total() <= 0.01


@pytest.mark.parametrize("dead_for_s", [0.5, 3.0, 10.0, 31.7, 120.0])
def test_a_host_is_back_within_ten_seconds_of_its_recovery(dead_for_s: float, clock: FakeClock) -> None:
    hosts = Hosts(URLS, (), clock)
    alive_at = clock.monotonic() + dead_for_s
    while clock.monotonic() < alive_at + 10:
        pick = pick_of(hosts)
        (hosts.failed if pick.number == 0 and clock.monotonic() < alive_at else hosts.succeeded)(pick)
        clock.move(1 / 20)
    share = Counter(pick_of(hosts).number for _ in range(1000))[0] / 1000
    assert share == pytest.approx(0.5, abs=0.06)


def test_a_flapping_host_gets_less_and_less_patience(clock: FakeClock) -> None:
    hosts = Hosts(URLS, (), clock)
    failed = 0
    for step in range(60 * 50):
        pick = pick_of(hosts)
        dead = pick.number == 0 and (step // 25) % 2 == 0  # half a second dead, half a second alive
        failed += dead
        (hosts.failed if dead else hosts.succeeded)(pick)
        clock.move(1 / 50)
    assert failed / (60 * 50) <= 0.05


def test_the_budget_starts_with_a_few_and_has_a_ceiling() -> None:
    budget = RetryBudget()
    assert sum(budget.spend() for _ in range(100)) == RETRIES_AT_START
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == RETRIES_MAX


@pytest.mark.parametrize(("requests", "most"), [(100, 1.10), (500, 1.05), (10_000, 1.05)])
def test_retries_stay_within_the_amplification_bar(requests: int, most: float) -> None:
    budget = RetryBudget()
    sent = 0
    for _ in range(requests):
        budget.earn()
        sent += 1 + sum(budget.spend() for _ in range(2))
    assert sent / requests <= most


class SlowBreaker(Breaker):
    """Notes a success as a failure is noted, with `_fade`, which `Breaker.succeed` has written out."""

    def succeed(self, now: float) -> None:
        if self.open:
            self.answer(now)
        self._fade(now)
        self._good += 1.0
        self._in_a_row = 0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 20)), max_size=60))
def test_a_success_fades_what_was_before_it_as_a_failure_does(outcomes: list[tuple[bool, float]]) -> None:
    short, long, now = Breaker(), SlowBreaker(), 0.0
    for worked, after_s in outcomes:
        now += after_s
        for breaker in (short, long):
            if worked:
                breaker.succeed(now)
            else:
                breaker.fail(now, probe=False)
        assert (short.open, short.probe_at, short._bad, short._in_a_row) == (
            long.open,
            long.probe_at,
            long._bad,
            long._in_a_row,
        )
        assert short._good == pytest.approx(long._good)


def test_a_budget_earns_its_share_up_to_its_most() -> None:
    budget, expected = RetryBudget(), RETRIES_AT_START
    for _ in range(600):
        budget.earn()
        expected = min(RETRIES_MAX, expected + RETRY_SHARE)
        assert budget._tokens == expected

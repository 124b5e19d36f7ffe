"""Which host of an upstream a request goes to: circuit breakers, weighted choice, retry budget.

Pure arithmetic over an injected clock; no I/O and no waiting. One `Hosts` is shared by all models of one upstream.
`exchange.py` asks it and tells it how each request went.

    closed --5 failures in a row, or most of >= 10 recent ones--> open --probe due--> one request as probe
      ^                                                            ^                     |        |
      +------------------------- it worked ------------------------|---------------------+        |
                                                                   +---- it failed: wait longer --+

Bars (reliability D1, D2): retries <= 1.05x at 100 % failure; a dead host gets <= 1 % of traffic after 2 s and is back
within 10 s of its recovery, for which probes are never more than `PROBE_WAIT_MAX_S` apart while requests come.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from convene.clock import Clock

FAILURES_IN_A_ROW = 5
FAILURES_RECENT = 10.0
RECENT_HALF_LIFE_S = 5.0
PROBE_WAIT_S = 1.0
PROBE_WAIT_MAX_S = 5.0
TRIAL_S = 10.0
"""After a recovery two failures in a row open the breaker again, and the next wait is longer: a flapping host."""
FAILURES_IN_TRIAL = 2

RETRY_SHARE = 0.04
RETRIES_AT_START = 5.0
RETRIES_MAX = 20.0


class RetryBudget:
    """A token bucket that requests fill and retries empty.

    Every request earns 0.04 retries, so over N requests at most 1 + 0.04 + `saved`/N are sent for each: 1.05x from 500
    requests on after a start. The stock covers the burst of one dying host.
    """

    __slots__ = ("_tokens",)

    def __init__(self) -> None:
        self._tokens = RETRIES_AT_START

    def earn(self) -> None:
        """Count a request, not a retry."""
        tokens = self._tokens + RETRY_SHARE
        self._tokens = tokens if tokens < RETRIES_MAX else RETRIES_MAX  # noqa: FURB136 -- `min` takes ten times as long

    def spend(self) -> bool:
        """Take one retry out if there is one."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Breaker:
    """The circuit breaker of one host."""

    __slots__ = ("_bad", "_good", "_in_a_row", "_recent_at", "_trial_until", "_wait_s", "open", "probe_at")

    def __init__(self) -> None:
        self.open = False
        self.probe_at = 0.0  # when open: the monotonic time from which the next probe may go
        self._in_a_row = 0
        self._good = 0.0  # recent outcomes, each halved every RECENT_HALF_LIFE_S
        self._bad = 0.0
        self._recent_at = 0.0
        self._wait_s = PROBE_WAIT_S
        self._trial_until = -math.inf

    def take_probe(self, now: float) -> None:
        """Count a request as the probe; if it hangs, the next one may go after the longest wait."""
        self.probe_at = now + PROBE_WAIT_MAX_S

    def answer(self, now: float) -> None:
        """Note the beginning of an answer: the host lives, though it may yet break off."""
        if self.open:
            self.open = False
            self._bad = 0.0
            self._in_a_row = 0
            self._trial_until = now + TRIAL_S

    def succeed(self, now: float) -> None:
        """Note a whole answer."""
        if self.open:
            self.answer(now)
        # `_fade` written out, as every request passes here
        factor = 0.5 ** ((now - self._recent_at) / RECENT_HALF_LIFE_S)
        self._recent_at = now
        self._good = self._good * factor + 1.0
        self._bad *= factor
        self._in_a_row = 0

    def fail(self, now: float, *, probe: bool) -> None:
        """Note an error or time-out."""
        self._fade(now)
        self._bad += 1.0
        self._in_a_row += 1
        if self.open:
            if probe:  # requests sent before it opened do not lengthen the wait
                self._wait(now)
            return
        in_trial = now < self._trial_until
        if not in_trial:
            self._wait_s = PROBE_WAIT_S
        mostly_bad = self._bad >= FAILURES_RECENT and self._bad > self._good
        if mostly_bad or self._in_a_row >= (FAILURES_IN_TRIAL if in_trial else FAILURES_IN_A_ROW):
            self.open = True
            self._wait(now)

    def _wait(self, now: float) -> None:
        self.probe_at = now + self._wait_s
        self._wait_s = min(PROBE_WAIT_MAX_S, 2.0 * self._wait_s)

    def _fade(self, now: float) -> None:
        factor = 0.5 ** ((now - self._recent_at) / RECENT_HALF_LIFE_S)
        self._recent_at = now
        self._good *= factor
        self._bad *= factor


class Pick(msgspec.Struct, frozen=True):
    """The choice for one try: the host's number, its base URL without a closing slash, and whether it is a probe.

    No named tuple: every request reads the number three times, and a `Struct` gives it in a fifth of the time.
    """

    number: int
    base_url: str
    probe: bool


class Hosts:
    """The hosts of one upstream, all serving the same models."""

    __slots__ = ("_base_urls", "_breakers", "_clock", "_now", "_picks", "_weights", "budget")

    def __init__(self, base_urls: Sequence[str], weights: Sequence[float], clock: Clock) -> None:
        """Name the hosts.

        Args:
            base_urls: each up to and including its version, such as `http://gpu-1:8000/v1`.
            weights: shares of the traffic, one a host and above 0; empty for equal shares.
            clock: monotonic time and the randomness of the choice.

        Raises:
            ValueError: no host, or weights that do not fit.
        """
        if not base_urls or (weights and len(weights) != len(base_urls)) or any(weight <= 0 for weight in weights):
            raise ValueError("an upstream needs at least one base URL, and one weight above 0 for each or none")
        self._base_urls = tuple(url.rstrip("/") for url in base_urls)
        self._weights = tuple(weights) or (1.0,) * len(base_urls)
        self._breakers = tuple(Breaker() for _ in base_urls)
        self._picks = tuple(Pick(number, url, probe=False) for number, url in enumerate(self._base_urls))
        self._clock = clock
        self._now = clock.monotonic
        self.budget = RetryBudget()

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The hosts, by number."""
        return self._base_urls

    def choose(self) -> Pick | None:
        """Choose for a first try: a host whose probe is due, else by weight among closed breakers, else None."""
        if len(self._picks) == 1 and not self._breakers[0].open:
            return self._picks[0]
        now = self._now()
        for number, breaker in enumerate(self._breakers):
            if breaker.open and now >= breaker.probe_at:
                breaker.take_probe(now)
                return Pick(number, self._base_urls[number], probe=True)
        return self._draw(())

    def choose_again(self, tried: Collection[int]) -> Pick | None:
        """Choose for a retry: by weight among closed breakers, an untried host if there is one; never a probe."""
        return self._draw(tried) or self._draw(())

    def choose_other(self, tried: Collection[int]) -> Pick | None:
        """Choose for a retry that makes sense only elsewhere (429): an untried host with a closed breaker, or None."""
        return self._draw(tried)

    def _draw(self, avoided: Collection[int]) -> Pick | None:
        numbers = [
            number for number, breaker in enumerate(self._breakers) if not breaker.open and number not in avoided
        ]
        if not numbers:
            return None
        chosen = numbers[-1]
        if len(numbers) > 1:
            left = self._clock.fraction() * sum(self._weights[number] for number in numbers)
            for number in numbers:
                left -= self._weights[number]
                if left < 0:
                    chosen = number
                    break
        return self._picks[chosen]

    def answered(self, pick: Pick) -> None:
        """Say that an answer has begun; `succeeded` or `failed` follow unless the caller leaves."""
        self._breakers[pick.number].answer(self._now())

    def succeeded(self, pick: Pick) -> None:
        """Say that the host gave a whole answer, if only to refuse the request."""
        now = self._now
        self._breakers[pick.number].succeed(now())

    def failed(self, pick: Pick) -> None:
        """Say that the host failed: no connection, a 5xx, a time-out, a broken answer."""
        self._breakers[pick.number].fail(self._now(), probe=pick.probe)

    def gave_up(self, pick: Pick) -> None:
        """Say that the request ended without a verdict (the caller left): a probe may be repeated at once."""
        breaker = self._breakers[pick.number]
        if pick.probe and breaker.open:
            breaker.probe_at = self._now()

    def wait_s(self) -> float | None:
        """Return None if some host may be asked now, else the seconds until the next probe may go.

        A host whose probe is due counts as askable, else a server that takes no traffic while it is not ready would
        never send the probe that makes it ready again.
        """
        now = self._now()
        shortest = math.inf
        for breaker in self._breakers:
            if not breaker.open or now >= breaker.probe_at:
                return None
            shortest = min(shortest, breaker.probe_at - now)
        return shortest

"""Doubles that the whole suite shares: for now the clock. Each is held to its seam's contract like the real thing.

Not here: a scripted model (`convene.providers.scripted` ships with the product) and the store (`convene.store.memory`).
"""

from __future__ import annotations

import random


class FakeClock:
    """A `convene.clock.Clock` whose time stands still until moved, and whose randomness follows from a seed.

    Two clocks of one seed give the same ids, tokens and fractions in the same order of calls.
    """

    def __init__(self, now: float = 1_800_000_000.0, *, seed: int = 0) -> None:
        """Start at `now` Unix seconds."""
        self._now = now
        self._monotonic = 1_000.0
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose

    def now(self) -> float:
        """Return the wall-clock time in Unix seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds for durations; unrelated to `now`, as on a machine."""
        return self._monotonic

    def new_id(self, prefix: str) -> str:
        """Return `prefix` plus 24 hexadecimal digits."""
        return f"{prefix}{self._random.getrandbits(96):024x}"

    def stamped_id(self, prefix: str) -> str:
        """Return `prefix`, 11 digits of the time in milliseconds and 13 that look random."""
        return f"{prefix}{int(self._now * 1000):011x}{self._random.getrandbits(52):013x}"

    def token(self, n_bytes: int) -> bytes:
        """Return `n_bytes` that look random."""
        return self._random.randbytes(n_bytes)

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()

    def move(self, seconds: float) -> None:
        """Let time pass on both scales. Raises ValueError for a step back, which `monotonic` never takes."""
        if seconds < 0:
            raise ValueError("time does not go back; set_wall() is for a wall clock that somebody put back")
        self._now += seconds
        self._monotonic += seconds

    def set_wall(self, now: float) -> None:
        """Set the wall clock alone, as an operator or NTP may, backwards too."""
        self._now = now

"""Time and randomness, and nothing else: the only place that reads either (invariant 2).

A `Clock` is handed to whoever needs it. `SystemClock` is the real one; tests and the simulation hand in a seeded one
whose time they move.
"""

from __future__ import annotations

import secrets
import struct
import time
from math import floor
from typing import Final, Protocol

ID_DIGITS: Final = 24
TIME_DIGITS: Final = 11
"""Milliseconds since 1970 in hexadecimal: enough until 2527."""
IDS_AT_ONCE: Final = 128


class Clock(Protocol):
    """Where time and fresh ids come from."""

    def now(self) -> float:
        """Wall-clock time in Unix seconds: for stamps that people and clients read."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for durations and deadlines."""
        ...

    def new_id(self, prefix: str) -> str:
        """Return `prefix` plus 24 hexadecimal digits (96 random bits)."""
        ...

    def stamped_id(self, prefix: str) -> str:
        """Return `prefix` plus 24 hexadecimal digits: 11 of the wall clock's milliseconds, then 52 random bits.

        Such ids sort by time, so that a table keyed by them grows at one end.
        """
        ...

    def token(self, n_bytes: int) -> bytes:
        """Return `n_bytes` of secret randomness, for keys."""
        ...

    def fraction(self) -> float:
        """Return a random number in [0, 1), for jitter and weighted choice."""
        ...


class SystemClock:
    """The machine's own clock and randomness. Make one in each process: ids are cut from a stock of random digits."""

    __slots__ = ("_millis", "_stamp", "_stock", "_tails")

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self._stock: list[bytes] = []
        self._tails: list[bytes] = []
        """The random ends of stamped ids."""
        self._millis = -1
        self._stamp = ""
        """These milliseconds as digits: under load many ids have the same."""

    def new_id(self, prefix: str) -> str:
        """Return `prefix` plus 24 hexadecimal digits; the secure source is asked once for many ids (2 us each else)."""
        if not self._stock:
            self._stock = _cut(ID_DIGITS)
        return prefix + self._stock.pop().decode()

    def stamped_id(self, prefix: str) -> str:
        """Return `prefix`, 11 digits of the time in milliseconds and 13 random ones."""
        millis = floor(time.time() * 1000)  # a third of what `int` takes for a float
        if millis != self._millis:
            self._millis = millis
            self._stamp = "%011x" % millis  # noqa: UP031 - TIME_DIGITS; a third of what a format string takes
        if not self._tails:
            self._tails = _cut(ID_DIGITS - TIME_DIGITS)
        return f"{prefix}{self._stamp}{self._tails.pop().decode()}"

    def token(self, n_bytes: int) -> bytes:
        """Return `n_bytes` from the system's secure source."""
        return secrets.token_bytes(n_bytes)

    def fraction(self) -> float:
        """Return a random number in [0, 1)."""
        return secrets.randbelow(1 << 53) / (1 << 53)


def _cut(digits: int) -> list[bytes]:
    """Return random texts of so many hexadecimal digits each, as ASCII: cut at once, a sixth of what slices take."""
    found = secrets.token_hex((digits * IDS_AT_ONCE + 1) // 2).encode()
    return list(struct.unpack_from(f"{digits}s" * IDS_AT_ONCE, found))

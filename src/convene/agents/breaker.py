"""A circuit breaker for each agent: one that does not answer is left alone for a while, then tried by one caller.

closed ──(3 faults in a row)──► open for 15 s, then 30 s ... 300 s ──► one call may try ──► closed, or open again
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FAULTS_MAX: Final = 3
OPEN_S: Final = 15.0
OPEN_MAX_S: Final = 300.0
KNOWN_MAX: Final = 10_000


class _State:
    __slots__ = ("faults", "open_s", "open_until", "trying")

    def __init__(self) -> None:
        self.faults = 0
        self.open_s = OPEN_S
        self.open_until = 0.0
        self.trying = False


class Breaker:
    """The breakers of all agents."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` gives seconds that only grow."""
        self._now = now
        self._states: dict[str, _State] = {}

    def admit(self, agent: str) -> float | None:
        """Return None if the agent may be called, else the seconds until it may be tried again."""
        state = self._states.get(agent)
        if state is None or state.faults < FAULTS_MAX:
            return None
        left = state.open_until - self._now()
        if left > 0 or state.trying:
            return max(left, 1.0)
        state.trying = True
        return None

    def well(self, agent: str) -> None:
        """The agent has answered."""
        self._states.pop(agent, None)

    def fault(self, agent: str) -> None:
        """The agent could not be reached, or did not react."""
        state = self._states.get(agent)
        if state is None:
            if len(self._states) >= KNOWN_MAX:
                del self._states[next(iter(self._states))]
            state = self._states[agent] = _State()
        state.faults += 1
        state.trying = False
        if state.faults >= FAULTS_MAX:
            if state.faults > FAULTS_MAX:
                state.open_s = min(OPEN_MAX_S, state.open_s * 2)
            state.open_until = self._now() + state.open_s

    def undecided(self, agent: str) -> None:
        """A call ended and says nothing of the agent: its caller left."""
        state = self._states.get(agent)
        if state is not None:
            state.trying = False

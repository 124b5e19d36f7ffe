"""What one of several workers may admit by itself while the store they share is out (reliability 1.6).

A limit is divided by the number of workers, so that all of them together admit no more than it allows. Its counter in
the worker keeps the name; answers are put back into the words of the whole limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from convene.limits.limit import Grant, Limit, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.limits.limit import Amounts, Kind

Choice: TypeAlias = Literal["closed", "local", "open"]
"""What a limit does without its store: refuse everything, be kept by each worker for its share, or allow everything."""

CHOICES: Final[Mapping[Kind, Choice]] = {"rate": "local", "budget": "closed", "slots": "local"}
_REASONS: Final[Mapping[Kind, Literal["wait", "spent", "full"]]] = {"rate": "wait", "budget": "spent", "slots": "full"}
_KNOWN_MOST: Final = 16_384


class Divided(msgspec.Struct, frozen=True):
    """The limits of a request as one worker keeps them."""

    whole: tuple[Limit, ...]
    closed: bool
    """Whether one of them allows nothing without the store."""
    shares: tuple[Limit, ...]
    """Those that the worker keeps."""
    places: tuple[int, ...]
    """Where each of them is in `whole`; of those that are not here, nothing is counted."""


class Shares:
    """Divides limits and translates the answers of local counters."""

    def __init__(self, workers: int, choices: Mapping[Kind, Choice], wait_us: int) -> None:
        """Take the number of workers, a choice for each kind, and the wait of a cost that fits no share."""
        self._workers = max(1, workers)
        self._choices = {**CHOICES, **choices}
        self._wait_us = wait_us
        self._known: dict[int, Divided] = {}

    def divide(self, limits: tuple[Limit, ...]) -> Divided:
        """Return what one worker keeps of limits; remembered by identity, which the answer keeps from being reused."""
        known = self._known.get(id(limits))
        if known is not None:
            return known
        if len(self._known) >= _KNOWN_MOST:
            self._known.clear()
        choices = [self._choices[limit.kind] for limit in limits]
        places = tuple(place for place, choice in enumerate(choices) if choice == "local")
        divided = self._known[id(limits)] = Divided(
            limits, "closed" in choices, tuple(self._share(limits[place]) for place in places), places
        )
        return divided

    def grant(self, divided: Divided, answer: Grant) -> Grant:
        """Return a local grant with a state for every limit."""
        return Grant(answer.now_us, self._states(divided, answer.states, answer.now_us))

    def refusal(self, divided: Divided, answer: Refusal, amounts: Amounts) -> Refusal:
        """Return a local refusal in the words of the whole limit.

        A cost above the share, but not above the limit, fits again when the store is back: that is a wait, and a guess.
        """
        limit = divided.whole[divided.places[divided.shares.index(answer.limit)]]
        reason, wait_us = answer.reason, answer.wait_us
        if reason == "never" and amounts[limit.unit] <= limit.amount:
            reason, wait_us = _REASONS[limit.kind], self._wait_us
        return Refusal(limit, reason, wait_us, answer.now_us, self._states(divided, answer.states, answer.now_us))

    def _share(self, limit: Limit) -> Limit:
        """Return a worker's part: rounded down for what adds up over time, up for what is under way; at least one."""
        amount = limit.amount
        part = -(-amount // self._workers) if limit.kind == "slots" else amount // self._workers
        part = max(1, part) if amount else 0
        if limit.kind != "rate":
            return msgspec.structs.replace(limit, amount=part)
        divided = Limit.rate(
            limit.unit, part, limit.window_us, scope=limit.scope, subject=limit.subject, name=limit.name
        )
        return msgspec.structs.replace(divided, counter=limit.counter)

    def _states(self, divided: Divided, states: Sequence[int], now_us: int) -> tuple[int, ...]:
        """Return one state a limit; one that is not counted looks unused."""
        whole = [now_us if limit.kind == "rate" else 0 for limit in divided.whole]
        for place, state in zip(divided.places, states, strict=True):
            whole[place] = state
        return tuple(whole)

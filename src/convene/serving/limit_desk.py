"""The limits of a caller and where they stand: the use case behind `GET /v1/limits` and `convene limits`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.limits.levels import room_of
from convene.moments import SECOND_US
from convene.serving.base_usage import Level
from convene.serving.terms import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.limits.limit import Limit
    from convene.serving.allowances import Allowances
    from convene.serving.base import Catalog, Principal
    from convene.serving.terms import Terms
    from convene.store.base_counters import Counters


class LimitReader:
    """A `LimitDesk` over counters."""

    def __init__(
        self,
        allowances: Allowances,
        catalog: Catalog,
        terms: Callable[[], dict[str, Terms]],
        counters: Callable[[], Counters | None],
        now: Callable[[], float],
    ) -> None:
        """Take what is needed to know limits and levels.

        Args:
            allowances: the limits of everybody.
            catalog: finds the model behind a name, for who may use it.
            terms: the terms of each deployment by name.
            counters: where counting happens; None while nothing is counted.
            now: the wall clock in Unix seconds, for the ends of budgets' periods.
        """
        self._allowances = allowances
        self._catalog = catalog
        self._terms = terms
        self._counters = counters
        self._now = now

    async def limits(self, caller: Principal, model: str | None) -> list[Level]:
        """See `LimitDesk.limits`."""
        limits = self.limits_for(caller, model)
        counters = self._counters()
        if counters is None or not limits:
            return []
        grant = await counters.levels(limits)
        wall_us = int(self._now() * SECOND_US)
        return [
            level_of(limit, state, grant.now_us, wall_us) for limit, state in zip(limits, grant.states, strict=True)
        ]

    def limits_for(self, caller: Principal, model: str | None) -> tuple[Limit, ...]:
        """Return every limit that binds the caller, on one model or whatever the model. Raises `NotFound`."""
        if model is None:
            return self._allowances.of_caller(caller)
        card = self._catalog.card(model, caller)
        deployment = card.alias_of or card.id
        return self._allowances.of(caller, deployment, self._terms().get(deployment, PLAIN))


def level_of(limit: Limit, state: int, now_us: int, wall_us: int) -> Level:
    """Return how one limit stands; `state` and `now_us` as in `limits.limit.Grant`, `wall_us` since 1970."""
    room = room_of(limit, state, now_us, wall_us)
    return Level(limit=limit, used=room.used, remaining=room.remaining, whole_after_us=room.whole_after_us)

"""Which limits apply to a caller on a model: plan, key, user, team, model and model-per-key, as one tuple of limits.

    plan ── inherited ──► key's own ──► limits on the key          (LIMIT-04, KEY-04)
                          user's, team's ──► limits on each
                          model's shared ──► limits on the model
                          model's per key + the key's on it ──► limits on key/model

The tuple of a caller and a model is the same object as long as nothing about it changed, so that counters can
remember what they have prepared for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.errors import Forbidden
from convene.limits.allowance import limits_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.limits.allowance import Allowance
    from convene.limits.limit import Limit
    from convene.serving.base import Principal
    from convene.serving.terms import Terms

REMEMBERED_MAX: Final = 10_000
"""Most (key, model) pairs remembered, some hundred bytes each."""


class Allowances:
    """The limits of everybody, by plan and by name. Belongs to one event loop."""

    def __init__(self, plans: Mapping[str, Allowance]) -> None:
        self._plans = plans
        self._found: dict[str, dict[str, tuple[Principal, tuple[Limit, ...]]]] = {}
        """By key and model: two look-ups by text take half as long as one by a pair."""
        self._remembered = 0

    def of(self, principal: Principal, model: str, terms: Terms) -> tuple[Limit, ...]:
        """Return the limits of one caller on one model (its deployment's name).

        Raises:
            Forbidden: the key's plan is not configured any more.
        """
        of_key = self._found.get(principal.key_id)
        found = None if of_key is None else of_key.get(model)
        if found is not None and found[0] is principal:
            return found[1]
        limits = (*self.of_caller(principal), *_of_model(principal, model, terms))
        if found is not None and found[1] == limits:
            limits = found[1]
        if self._remembered >= REMEMBERED_MAX:
            self._found.clear()
            self._remembered, found = 0, None
        self._found.setdefault(principal.key_id, {})[model] = (principal, limits)
        self._remembered += found is None
        return limits

    def of_caller(self, principal: Principal) -> tuple[Limit, ...]:
        """Return the limits of one caller whatever the model. Raises `Forbidden` as `of` does."""
        plan = self._plans.get(principal.plan)
        if plan is None:
            raise Forbidden(
                f"The plan '{principal.plan}' of this key is not configured here. Ask the operator for another plan.",
                code="plan_not_found",
            )
        own = plan if principal.limits is None else principal.limits.over(plan)
        limits = limits_of(own, "key", principal.key_id)
        if principal.user_limits is not None:
            limits += limits_of(principal.user_limits, "user", principal.user_id)
        if principal.team_limits is not None:
            limits += limits_of(principal.team_limits, "team", principal.team_id)
        return limits


def _of_model(principal: Principal, model: str, terms: Terms) -> tuple[Limit, ...]:
    limits = () if terms.shared is None else limits_of(terms.shared, "model", model)
    mine = principal.model_limits.get(model)
    if mine is not None and terms.per_key is not None:
        mine = mine.over(terms.per_key)
    on_model = mine or terms.per_key
    if on_model is not None:
        limits += limits_of(on_model, "key_model", f"{principal.key_id}/{model}")
    return limits

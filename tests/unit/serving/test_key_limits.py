"""No row of changes by a member ever loosens a key: a property over random limits and plans (LIMIT-04)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.errors import BadRequest
from convene.limits.allowance import FIELDS, Allowance
from convene.serving.base_accounts import KeyChange, KeyDraft
from convene.serving.key_desk import KeyDesk
from unit.serving.account_doubles import House, as_browser

if TYPE_CHECKING:
    from collections.abc import Sequence

AMOUNT: Final = st.one_of(st.none(), st.integers(0, 5))
ALLOWANCES: Final = st.builds(
    Allowance,
    requests_per_minute=AMOUNT,
    tokens_per_day=AMOUNT,
    concurrent_requests=AMOUNT,
    budget_total=AMOUNT,
)


def effective(limits: Allowance | None, plan: Allowance) -> dict[str, float]:
    """Return what really binds, an open limit as infinite."""
    whole = (limits or Allowance()).over(plan)
    found = {name: getattr(whole, name) for name in FIELDS}
    return {name: float("inf") if amount is None else float(amount) for name, amount in found.items()}


def is_looser(new: dict[str, float], old: dict[str, float]) -> bool:
    return any(new[name] > old[name] for name in FIELDS)


async def walked(plan: Allowance, first: Allowance | None, changes: Sequence[Allowance | None]) -> None:
    """Make a key with `first` under `plan` and try each change: what passes tightens, and what tightens passes."""
    house = House()
    await house.settle()
    desk = KeyDesk(lambda: house.ring, lambda: house.accounts, {"pro": plan}.get, "free")
    bob = as_browser(house.bob)
    try:
        _, record = await desk.create(bob, KeyDraft(name="k", limits=first))
    except BadRequest:
        assert is_looser(effective(first, plan), effective(None, plan))
        return
    assert not is_looser(effective(first, plan), effective(None, plan))
    for limits in changes:
        before = effective(record.limits, plan)
        wanted = Allowance() if limits is None else limits.over(record.limits or Allowance())
        try:
            record = await desk.change(bob, record.id, KeyChange(limits=limits))
        except BadRequest:
            assert is_looser(effective(wanted, plan), before)
            continue
        assert effective(record.limits, plan) == effective(wanted, plan)
        assert not is_looser(effective(record.limits, plan), before)


@settings(max_examples=150, deadline=None)
@given(plan=ALLOWANCES, first=st.one_of(st.none(), ALLOWANCES), changes=st.lists(ALLOWANCES, max_size=4))
async def test_a_member_only_ever_tightens(plan: Allowance, first: Allowance | None, changes: list[Allowance]) -> None:
    await walked(plan, first, changes)


@pytest.mark.parametrize(
    ("plan", "first", "changes"),
    [
        (Allowance(requests_per_minute=5), None, [None]),
        (Allowance(requests_per_minute=5), Allowance(requests_per_minute=3), [None]),
        (Allowance(), Allowance(requests_per_minute=3), [None, Allowance(requests_per_minute=4)]),
        (Allowance(budget_total=0), Allowance(budget_total=0), [Allowance(budget_total=0)]),
    ],
)
async def test_the_edges_of_it(plan: Allowance, first: Allowance | None, changes: list[Allowance | None]) -> None:
    await walked(plan, first, changes)


def test_what_is_open_everywhere_is_infinite() -> None:
    assert effective(None, Allowance()) == dict.fromkeys(FIELDS, float("inf"))
    assert not is_looser(effective(None, Allowance()), effective(None, Allowance()))
    assert msgspec.structs.asdict(Allowance()).keys() == set(FIELDS)

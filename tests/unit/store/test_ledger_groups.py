"""How groups of a report are written and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.store.base_ledger import Filter, GroupBy, Whose
from convene.store.ledger_groups import COLUMN, needs_entries, read, shown

ALL = Whose("all")


@given(st.integers(0, 3_000_000), st.integers(0, 60_000_000), st.text())
def test_what_is_shown_is_read_back(day: int, hour: int, text: str) -> None:
    by: tuple[GroupBy, ...] = ("day", "hour", "model")
    group = (day % 20_000, hour % 1_000_000, text)
    assert read(by, shown(by, group)) == group


@given(st.lists(st.integers(0, 30_000), min_size=2, max_size=2))
def test_days_as_texts_are_in_the_order_of_days(days: list[int]) -> None:
    texts = [shown(("day",), [day]) for day in days]
    assert (texts[0] < texts[1]) == (days[0] < days[1])


@pytest.mark.parametrize("text", ["", "today", "2026-13-01", "2026-11-26T19", "20783"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"match|remains"):
        read(("day",), [text])


def test_a_group_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        read(("day", "model"), ["2026-11-26"])


@pytest.mark.parametrize("by", COLUMN)
def test_hours_sessions_and_agents_are_told_by_entries_alone(by: GroupBy) -> None:
    assert needs_entries(Filter(whose=ALL), (by,)) == (by in {"hour", "session", "agent"})


def test_so_are_filters_by_session_and_agent_even_by_none() -> None:
    assert needs_entries(Filter(whose=ALL, session_id=""), ())
    assert needs_entries(Filter(whose=ALL, agent_address="agent1q"), ("day",))
    assert not needs_entries(Filter(whose=ALL, model="m", key_id="k", since_us=1), ("day",))

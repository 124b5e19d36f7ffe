"""Token counts are plain sums, and the estimate is the stated one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.usage import BYTES_PER_TOKEN, FREE, Price, Usage, count_bytes, estimate_tokens

COUNTS = st.integers(0, 10**9)
USAGES = st.builds(Usage, COUNTS, COUNTS, COUNTS, COUNTS, st.booleans())


@pytest.mark.req("CHAT-07")
def test_the_total_is_prompt_plus_completion_with_reasoning_and_cache_inside_them() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=5, reasoning_tokens=4, cached_tokens=8)
    assert usage.total_tokens == 15


def test_nothing_used_is_zero_and_reported() -> None:
    assert (Usage().total_tokens, Usage().estimated) == (0, False)


def test_a_sum_adds_each_figure_to_its_own() -> None:
    assert Usage(1, 20, 300, 4000) + Usage(5, 60, 700, 8000) == Usage(6, 80, 1000, 12000)


@given(USAGES, USAGES, USAGES)
def test_sums_do_not_depend_on_order_or_grouping(a: Usage, b: Usage, c: Usage) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a
    assert (a + b).total_tokens == a.total_tokens + b.total_tokens


@given(USAGES, USAGES)
def test_one_estimated_part_makes_the_sum_estimated(a: Usage, b: Usage) -> None:
    assert (a + b).estimated == (a.estimated or b.estimated)


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abc", 1), ("abcd", 2), ("äöü", 2), ("🙂", 2)])
def test_the_estimate_is_one_token_for_three_bytes_rounded_up(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@given(st.text(), st.text())
def test_the_estimate_never_falls_below_the_bytes_and_joining_never_costs_more(a: str, b: str) -> None:
    assert estimate_tokens(a) * BYTES_PER_TOKEN >= len(a.encode("utf-8", "replace"))
    assert estimate_tokens(a + b) <= estimate_tokens(a) + estimate_tokens(b)


def test_half_a_surrogate_pair_does_not_break_the_estimate() -> None:
    assert estimate_tokens("\ud800") == 1


def test_a_price_counts_in_whole_micro_units_rounded_up_once() -> None:
    price = Price(input=500_000, cached=100_000, output=1_900_000, request=3, image=40_000, version="1")
    assert price.cost(Usage(1, 0)) == 3 + 1
    assert price.cost(Usage(10, 10)) == 3 + 24
    assert price.cost(Usage(10, 10, cached_tokens=10)) == 3 + 20
    assert price.cost(Usage(), images=2) == 3 + 80_000
    assert FREE.cost(Usage(10**6, 10**6), images=9) == 0
    assert (FREE.free, price.free) == (True, False)


@given(
    st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**8), st.integers(0, 10**8)
)
def test_the_bound_of_a_cost_is_never_below_the_cost(
    prompt: int, completion: int, cached: int, dear: int, cheap: int
) -> None:
    price = Price(input=dear, cached=cheap, output=cheap, request=7)
    used = Usage(prompt, completion, cached_tokens=min(prompt, cached))
    assert price.at_most(prompt, completion) >= price.cost(used)


@pytest.mark.parametrize("text", ["", "plain", "naïve", "日本語", "\ud800"])
def test_bytes_are_counted_as_utf_8_spells_them(text: str) -> None:
    assert count_bytes(text) == len(text.encode("utf-8", "replace"))

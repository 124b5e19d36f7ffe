"""How far a turn may go, and what it says when it may go no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convene.limits.limit import MINUTE_US, Limit, Refusal, Unit
from convene.serving.ceilings import Ceilings, Spent, ended_by, reach, reach_limit, told

if TYPE_CHECKING:
    from convene.serving.ceilings import Which

CEILINGS = Ceilings(rounds=3, calls=2, seconds=1.5, tokens=1_000, micros=2_500_000)


@pytest.mark.parametrize(
    ("spent", "which"),
    [
        (Spent(), None),
        (Spent(tokens=999, micros=2_499_999), None),
        (Spent(tokens=1_000), "tokens"),
        (Spent(micros=2_500_000), "money"),
        (Spent(rounds=99, calls=99), None),
    ],
)
def test_tokens_and_money_end_a_turn_when_they_are_used_up(spent: Spent, which: Which | None) -> None:
    assert ended_by(CEILINGS, spent) == which


def test_a_ceiling_of_zero_is_none() -> None:
    assert ended_by(Ceilings(tokens=0, micros=0), Spent(tokens=10**9, micros=10**9)) is None


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("rounds", "3 rounds of the model"),
        ("calls", "2 tool calls"),
        ("seconds", "1.5 seconds"),
        ("tokens", "1,000 tokens"),
        ("money", "2.5 EUR"),
    ],
)
def test_whoever_reaches_a_ceiling_is_told_which_and_how_high_it_is(which: Which, words: str) -> None:
    reached = reach(which, CEILINGS, "EUR")
    assert (reached.which, reached.code) == (which, "ceiling_reached")
    assert reached.sentence == f"I stopped here: this turn has reached its ceiling of {words}."


def test_one_is_told_as_one_and_a_notice_names_the_ceiling() -> None:
    reached = reach("calls", Ceilings(calls=1))
    assert reached.sentence == "I stopped here: this turn has reached its ceiling of 1 tool call."
    assert told(reached) == "This turn has reached its ceiling of 1 tool call (calls)."
    assert (
        told(reach("rounds", Ceilings(rounds=1)))
        == "This turn has reached its ceiling of 1 round of the model (rounds)."
    )


def test_a_limit_that_refuses_a_round_is_told_in_the_words_of_a_refusal() -> None:
    limit = Limit.rate(Unit.TOKENS, 100, MINUTE_US, scope="key", subject="k", name="tokens per minute")
    reached = reach_limit(Refusal(limit, "wait", 2_000_000, 0, (0,)))
    assert (reached.which, reached.code) == ("limit", "limit_reached")
    assert "Rate limit reached for this key: 100 tokens per minute" in reached.sentence

"""Words that look alike find each other, within reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.registry.vocabulary import Vocabulary, one_slip

KNOWN = ("translation", "translator", "transport", "weather", "whether", "leather", "forecast", "cat", "car", "gpt4o")


def vocabulary() -> Vocabulary:
    known = Vocabulary()
    for word in KNOWN:
        known.add(word)
    return known


def words_of(pairs: list[tuple[int, float]]) -> list[str]:
    return [KNOWN[number] for number, _ in pairs]


def test_a_word_has_one_number_however_often_it_comes() -> None:
    known = vocabulary()
    assert [known.add(word) for word in KNOWN] == list(range(len(KNOWN)))
    assert len(known) == len(KNOWN)
    assert known.number("weather") == 3
    assert known.number("nobody") is None


def test_words_with_the_same_beginning_stand_for_each_other_but_not_as_well() -> None:
    found = vocabulary().like("translate", 9)
    assert set(words_of(found)) == {"translation", "translator"}
    assert all(0.5 < factor < 1.0 for _, factor in found)


def test_what_is_being_typed_finds_what_it_may_become() -> None:
    assert "forecast" in words_of(vocabulary().like("fore", 9))
    assert words_of(vocabulary().like("trans", 9))[0] == "transport"


def test_short_words_and_numbers_have_no_likes() -> None:
    assert vocabulary().like("ca", 9) == []
    assert vocabulary().like("gpt4", 9) == []
    assert vocabulary().near("caz", 9) == []


@pytest.mark.parametrize("typed", ["weathr", "wheather", "waether", "wearher", "weatherr"])
def test_one_slip_of_the_keyboard_is_forgiven(typed: str) -> None:
    assert "weather" in words_of(vocabulary().near(typed, 9))


def test_two_slips_are_another_word() -> None:
    assert "weather" not in words_of(vocabulary().near("waethr", 9))


def test_likes_are_bounded_and_the_best() -> None:
    known = Vocabulary()
    for number in range(100):
        known.add("begin" + "abcdefghij"[number // 10] + "abcdefghij"[number % 10])
    best = known.add("begins")
    assert known.like("begin", 5)[0][0] == best
    assert len(known.like("begin", 5)) == 5


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_one_slip_is_one_edit_whichever_way_it_is_looked_at(one: str, other: str) -> None:
    edits = {one[:at] + one[at + 1 :] for at in range(len(one))}
    edits |= {one[:at] + letter + one[at:] for at in range(len(one) + 1) for letter in "ab"}
    edits |= {one[:at] + letter + one[at + 1 :] for at in range(len(one)) for letter in "ab"}
    edits |= {one[:at] + one[at + 1] + one[at] + one[at + 2 :] for at in range(len(one) - 1)}
    assert one_slip(one, other) == (other in edits - {one})
    assert one_slip(one, other) == one_slip(other, one)

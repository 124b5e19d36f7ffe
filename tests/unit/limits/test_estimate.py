"""Guesses follow what was used, never exceed what may be used, and are forgotten one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.limits import estimate
from convene.limits.estimate import LEAST, Estimates
from convene.usage import Usage

TOKENS = st.integers(0, 200_000)


def taught(*answers: int, size: int = 300, prompt: int = 100) -> Estimates:
    """Return estimates that have seen these answers."""
    found = Estimates()
    for tokens in answers:
        found.learn("k", "m", size, Usage(prompt, tokens), 1)
    return found


def test_without_experience_the_stated_figures_count() -> None:
    found = Estimates(512)
    assert (found.completion("k", "m", None), found.completion("k", "m", 10_000)) == (512, 512)
    assert found.completion("k", "m", 20) == 20
    assert (found.prompt("k", "m", 0), found.prompt("k", "m", 1), found.prompt("k", "m", 301)) == (0, 1, 101)


@pytest.mark.parametrize("usual", [1, 80, 1500, 20_000])
def test_a_steady_key_is_soon_guessed_closely_and_never_below(usual: int) -> None:
    found = taught(*[usual] * 40)
    guess = found.completion("k", "m", None)
    assert max(usual, LEAST) <= guess <= max(usual * 1.05 + 2, LEAST)


def test_a_restless_key_keeps_a_margin() -> None:
    found = taught(*[10, 2000] * 30)
    assert 1500 <= found.completion("k", "m", None) <= 4000


def test_a_change_of_habit_is_followed() -> None:
    found = taught(*[1000] * 40, *[20] * 60)
    assert found.completion("k", "m", None) < 100


def test_keys_and_models_do_not_teach_each_other() -> None:
    found = taught(*[5000] * 10)
    assert found.completion("other", "m", None) == 1024
    assert found.completion("k", "other", None) == 1024


def test_several_choices_are_guessed_each() -> None:
    found = Estimates()
    for _ in range(40):
        found.learn("k", "m", 300, Usage(100, 400), 4)
    assert 100 <= found.completion("k", "m", None) <= 110


@pytest.mark.parametrize(("size", "tokens"), [(3000, 750), (3000, 2900), (30_000, 900)])
def test_the_density_of_a_keys_prompts_is_learned_within_bounds(size: int, tokens: int) -> None:
    found = taught(*[10] * 60, size=size, prompt=tokens)
    low, high = max(tokens, size / 16), min(size, max(tokens, size / 16))
    assert low * 1.0 <= found.prompt("k", "m", size) <= high * 1.15 + 1


@given(st.lists(st.tuples(TOKENS, TOKENS, st.integers(0, 10**6)), max_size=30), st.integers(1, 10**6))
def test_a_guess_is_never_above_the_ceiling_nor_absurd(seen: list[tuple[int, int, int]], ceiling: int) -> None:
    found = Estimates()
    for prompt, completion, size in seen:
        found.learn("k", "m", size, Usage(prompt, completion), 1)
    assert 1 <= found.completion("k", "m", ceiling) <= ceiling
    assert found.completion("k", "m", None) >= LEAST
    assert 0 < found.prompt("k", "m", 3000) <= 3000 * 1.1 + 1


def test_who_has_been_silent_longest_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "REMEMBERED_MAX", 3)
    found = Estimates()
    for key in ("a", "b", "c", "a", "d"):
        found.learn(key, "m", 300, Usage(100, 50), 1)
    assert [found.completion(key, "m", None) == 1024 for key in ("a", "b", "c", "d")] == [False, True, False, False]


@given(st.lists(st.sampled_from("abcde"), max_size=30))
def test_who_is_forgotten_is_the_same_as_if_every_lesson_put_its_key_last(keys: list[str]) -> None:
    found, order = Estimates(512), dict[str, None]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimate, "REMEMBERED_MAX", 3)
        for key in keys:
            found.learn(key, "m", 300, Usage(100, 4000), 1)
            if key not in order and len(order) >= 3:
                del order[next(iter(order))]
            order.pop(key, None)
            order[key] = None
    assert {key for key in "abcde" if found.completion(key, "m", None) > 512} == set(order)

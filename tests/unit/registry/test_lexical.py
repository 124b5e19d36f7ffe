"""The index of words gives what scoring every listing would give."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.registry import lexical
from convene.registry.lexical import Field, LexicalIndex, best_bytes, places_of, weigh
from convene.registry.pace import Pace
from fakes import FakeClock


def pace() -> Pace:
    return Pace(FakeClock().monotonic)


def text(words: str, weight: float = 1.0, usual: int = 10) -> list[Field]:
    return [Field(weight, usual, words.split())]


async def found(index: LexicalIndex, question: str, keep: int = 10) -> list[int]:
    return [place for place, _ in (await index.search(question.split(), keep, pace())).best]


async def test_the_listing_with_more_of_the_question_comes_first() -> None:
    index = LexicalIndex()
    for words in ("red apple", "red car fast", "green apple pie", "blue sky"):
        index.add(text(words))
    assert (await found(index, "red apple"))[0] == 0
    assert set(await found(index, "red apple")) == {0, 1, 2}
    assert await found(index, "unheard") == []


async def test_a_rare_word_says_more_than_a_common_one() -> None:
    index = LexicalIndex()
    for number in range(20):
        index.add(text("common" + (" rare" if number == 7 else " other")))
    assert (await found(index, "common rare"))[0] == 7


async def test_a_word_in_the_name_says_more_than_one_in_the_readme() -> None:
    index = LexicalIndex()
    index.add([Field(0.7, 200, ["weather", "and", "more"])])
    index.add([Field(5.0, 3, ["weather"])])
    assert await found(index, "weather") == [1, 0]


async def test_a_word_once_in_a_short_text_says_more_than_once_in_a_long_one() -> None:
    index = LexicalIndex()
    index.add(text("weather " + "filler " * 100))
    index.add(text("weather now"))
    assert await found(index, "weather") == [1, 0]


async def test_a_word_of_the_question_counts_once_though_several_stand_for_it() -> None:
    index = LexicalIndex()
    index.add(text("translation translator translated translating"))
    index.add(text("translate letter"))
    assert (await found(index, "translate letter"))[0] == 1


async def test_a_common_word_and_a_rare_one_that_stands_for_it_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "DENSE_MIN", 20)
    index = LexicalIndex()
    for number in range(60):
        index.add(
            text("translation " + ("translator " if number == 7 else "other ") + ("letter" if number == 9 else "a"))
        )
    scores = dict((await index.search(["translation"], 60, pace())).best)
    expected = dict.fromkeys(range(60), 0.0)
    for weight, impacts in index.weights("translation"):
        for place, impact in impacts:
            expected[place] = max(expected[place], weight * impact)
    assert len(scores) == 60
    assert scores[7] / scores[9] == pytest.approx(expected[7] / expected[9])


async def test_relevance_is_from_0_to_1_and_less_where_a_word_is_unknown() -> None:
    index = LexicalIndex()
    index.add(text("weather forecast", 5.0, 3))
    index.add(text("something else"))
    whole = (await index.search(["weather"], 5, pace())).best[0][1]
    part = (await index.search(["weather", "atlantis"], 5, pace())).best[0][1]
    assert 0 < part < whole <= 1


async def test_only_asked_places_are_searched() -> None:
    index = LexicalIndex()
    for _ in range(5):
        index.add(text("weather"))
    matches = await index.search(["weather"], 10, pace(), {1, 3})
    assert {place for place, _ in matches.best} == {1, 3}
    assert matches.total == 2


def corpus(count: int, seed: int) -> list[list[str]]:
    draw = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    return [[f"w{min(int(draw.paretovariate(0.6)), 400)}q" for _ in range(12)] for _ in range(count)]


def scored(weighed: list[dict[str, float]], question: list[str]) -> list[tuple[float, int]]:
    """Score every listing by the formula itself, impacts in a byte included; such words have no likes."""
    rarities = {}
    for word in question:
        count = sum(word in words for words in weighed)
        rarities[word] = math.log(1 + (len(weighed) - count + 0.5) / (count + 0.5))
    scores = []
    for place, words in enumerate(weighed):
        score = 0.0
        for word in question:
            if word in words:
                score += rarities[word] * max(1, round(255 * words[word] / (words[word] + lexical.SATURATION)))
        scores.append((-score, place))
    return sorted(scores)


@pytest.mark.parametrize("seed", range(2))
async def test_common_words_find_what_scoring_every_listing_finds(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "DENSE_MIN", 50)
    monkeypatch.setattr(lexical, "ROUGH_BEST", 60)
    monkeypatch.setattr(lexical, "CHUNK", 300)
    texts = corpus(800, seed)
    weighed = [weigh([Field(1.0, 10, words)]) for words in texts]
    index = LexicalIndex()
    for words in texts:
        index.add([Field(1.0, 10, words)])
    draw = random.Random(seed + 100)  # noqa: S311 -- repeatable on purpose
    overlap = asked = 0
    for _ in range(12):
        question = list(dict.fromkeys(f"w{min(int(draw.paretovariate(0.6)), 400)}q" for _ in range(3)))
        scores = scored(weighed, question)
        best = [place for score, place in scores[:10] if score < 0]
        got = await found(index, " ".join(question))
        floor = scores[len(best) - 1][0] if best else 0.0
        as_good = {place for score, place in scores if score <= floor + 1e-9}
        overlap += len(as_good.intersection(got[: len(best)]))
        asked += len(best)
    assert overlap == asked


async def test_a_listing_that_is_gone_makes_words_no_rarer_than_they_are() -> None:
    index = LexicalIndex()
    for _ in range(4):
        index.add(text("weather"))
    for _ in range(4):
        index.drop()
    matches = await index.search(["weather"], 5, pace())
    assert index.live == 0
    assert all(relevance >= 0 for _, relevance in matches.best)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_the_highest_bytes_are_found(values: bytes, most: int) -> None:
    got = list(best_bytes(values, most))
    expected = sorted((-value, at) for at, value in enumerate(values) if value)[:most]
    assert sorted(values[at] for at in got) == sorted(-value for value, _ in expected)
    assert len(set(got)) == len(got) == len(expected)


@given(st.lists(st.integers(0, 1)))
def test_places_of_ones_are_found(marks: list[int]) -> None:
    there = [at for at, mark in enumerate(marks) if mark]
    assert list(places_of(bytes(marks), len(marks))) == there
    assert list(places_of(bytes(marks), 2)) == there[:2]

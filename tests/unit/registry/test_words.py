"""Text becomes the words it is searched by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.registry.words import WORD_CHARS_MAX, fold, question_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Weather in Zürich", ["weather", "in", "zurich"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("flights, cities & boxes", ["flight", "city", "box"]),
        ("Paris analysis status gas class news", ["paris", "analysis", "status", "gas", "class", "news"]),
        ("getCurrentWeather get_current_weather", ["get", "current", "weather"] * 2),
        ("e-mail to bob@example.com", ["e", "mail", "to", "bob", "example", "com"]),
        ("东京天气", ["东京", "京天", "天气"]),
        ("水", ["水"]),
        ("погода в Москве", ["погода", "в", "москве"]),
        ("मौसम कैसा है", ["मौसम", "कैसा", "है"]),
        ("GPT4o 3.5", ["gpt4o", "3", "5"]),
        ("\uff37\uff25\uff21\uff34\uff28\uff25\uff32", ["weather"]),
        ("", []),
        (" \n!?", []),
    ],
)
def test_a_text_falls_into_its_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_korean_is_found_whatever_form_it_came_in() -> None:
    composed, apart = "날씨", "날씨"
    assert words(composed) == words(apart) != []


def test_a_digest_is_cut_and_the_number_of_words_is_bounded() -> None:
    assert words("x" * 500) == ["x" * WORD_CHARS_MAX]
    assert len(words("word " * 500, 20)) == 20
    assert len(words("字" * 500, 20)) == 20


def test_a_question_is_about_its_telling_words() -> None:
    assert question_words("What will the weather be in Rome?", 8) == ["weather", "rome"]
    assert question_words("Was ist das Wetter in Rom?", 8) == ["wetter", "rom"]
    assert question_words("the weather, the Weather, weathers", 8) == ["weather"]


def test_a_question_of_function_words_alone_keeps_them() -> None:
    assert question_words("the who", 8) == ["the", "who"]


@given(st.text())
def test_words_are_the_same_when_folded_before(text: str) -> None:
    assert all(word and word == fold(word) for word in words(text))
    assert len(words(text, 5)) <= 5


@given(st.text(st.characters(max_codepoint=127), max_size=200), st.integers(1, 9))
def test_plain_texts_fall_into_the_same_words_as_texts_of_other_scripts(text: str, most: int) -> None:
    assert words(text) == words(text + " 水")[:-1]
    assert words(text, most) == words(text + " 水", most)[: len(words(text, most))]

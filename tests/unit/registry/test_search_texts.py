"""Texts of any kind, in listings and in questions: nothing breaks, and what was said is found again."""

from __future__ import annotations

import asyncio
import string

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agent_listings import NOW_US, agent, listings
from convene.registry.base_search import SearchRequest
from convene.registry.words import FUNCTION_WORDS, words
from unit.registry.index_of import search_over

LETTERS = st.characters(codec="utf-8", exclude_categories=["Cs"])
TEXTS = st.text(LETTERS, max_size=80)
NAMES = st.text(LETTERS, min_size=1, max_size=32)
WORDS = st.text(string.ascii_lowercase, min_size=4, max_size=12).filter(lambda word: word not in FUNCTION_WORDS)


def first_of(rows: list[object], text: str) -> list[str]:
    search, _, _ = search_over(rows)  # type: ignore[arg-type]  # rows of agents
    page = asyncio.run(search.search(SearchRequest(text=text, limit=50)))
    return [hit.row.id for hit in page.hits]


@settings(max_examples=60, deadline=None)
@given(NAMES, TEXTS, st.lists(TEXTS, max_size=3), TEXTS)
def test_a_listing_of_any_texts_is_indexed_and_comes_back_whole(
    name: str, description: str, tags: list[str], question: str
) -> None:
    row = agent(name, description, readme=question, tags=tuple(tags), skills=tuple(tags))
    search, index, _ = search_over([row])
    asyncio.run(search.search(SearchRequest(text=question, semantic=True)))
    shown = search.show(row.id)
    assert shown is not None
    assert shown.row == row
    index.apply(msgspec.structs.replace(row, removed=True), NOW_US)
    assert search.show(row.id) is None


@settings(max_examples=60, deadline=None)
@given(NAMES)
def test_an_agent_is_found_by_its_name_if_that_has_a_word(name: str) -> None:
    assume(words(name))
    assume(not name.strip().startswith(("@", "http://", "https://", "address:")))
    row = agent(name)
    assert first_of([*listings(), row], name)[0] in {
        row.id,
        *(one.id for one in listings() if one.listing.name == name),
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, min_size=3, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_the_order_of_the_words_of_a_question_does_not_matter(question: list[str], draw: object) -> None:
    rows: list[object] = [agent(f"a{number}", " ".join(question[number:])) for number in range(len(question))]
    shuffled = list(question)
    draw.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random
    assert set(first_of(rows, " ".join(question))) == set(first_of(rows, " ".join(shuffled)))


@settings(max_examples=60, deadline=None)
@given(WORDS, st.lists(WORDS, max_size=6))
def test_more_agents_that_say_something_else_never_hide_the_one_that_says_it(word: str, others: list[str]) -> None:
    apart = [other for other in others if other[:3] != word[:3] and other[-3:] != word[-3:]]
    row = agent("the one", word)
    rows: list[object] = [row, *(agent(f"other {number}", other) for number, other in enumerate(apart))]
    assert first_of(rows, word)[0] == row.id


@pytest.mark.parametrize(
    "text",
    [
        "a" * 4000,
        " ".join(["weather"] * 900),
        "weather " * 3 + "\u0000\u200d\ufeff",
        "\U0001f327\ufe0f rain",
        "SELECT * FROM agents; --",
        "<script>alert(1)</script>",
        "%00%ff",
        "天" * 2000,
        "\u0915\u094d\u0937" * 500,
        "e\u0301" * 500,
        "@" * 50,
        "address:" + "x" * 100,
        "agent://" + "agent1q" * 20,
    ],
)
async def test_no_text_breaks_a_search(text: str) -> None:
    search, _, _ = search_over(listings())
    page = await search.search(SearchRequest(text=text, semantic=True))
    assert page.total <= len(listings())
    exact = await search.search(SearchRequest(text=text, exact_match=True))
    assert exact.total <= 1


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title, str.swapcase])
async def test_case_says_nothing(case: object) -> None:
    search, _, _ = search_over(listings())
    changed = case("currency conversion of dollars")  # type: ignore[operator]  # a method of str
    assert (await search.search(SearchRequest(text=changed))).hits[0].row.listing.name == "FxRates"


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("Zürich", "zurich"),
        ("São Paulo", "sao paulo"),
        ("Škoda", "skoda"),
        ("naïve café", "naive cafe"),
        ("Ελλάδα", "ελλαδα"),
        ("Ёлка", "елка"),
        ("ﬁnesse", "finesse"),
        ("①", "1"),
        ("İstanbul", "istanbul"),
        ("groß", "gross"),
    ],
)
def test_accents_and_forms_of_letters_say_nothing(written: str, asked: str) -> None:
    row = agent("place", written)
    assert first_of([*listings(), row], asked)[0] == row.id
    assert first_of([*listings(), agent("place", asked)], written)[0] == row.id

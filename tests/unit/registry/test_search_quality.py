"""The right agent is among the first: a fixed set of questions over a fixed marketplace, by words alone."""

from __future__ import annotations

from agent_listings import EVERYDAY, QUESTIONS, listings
from convene.registry.base_search import SearchRequest
from unit.registry.index_of import search_over

FIRST = 3
SHARE = 0.9


async def test_nine_of_ten_questions_find_the_right_agent_among_the_first_three() -> None:
    search, _, _ = search_over(listings())
    missed = []
    for question, wanted in QUESTIONS:
        page = await search.search(SearchRequest(text=question, limit=FIRST))
        names = [hit.row.listing.name for hit in page.hits]
        if wanted not in names:
            missed.append((question, wanted, names))
    assert len(missed) <= len(QUESTIONS) * (1 - SHARE), missed


async def test_the_first_answer_is_right_for_most_questions() -> None:
    search, _, _ = search_over(listings())
    first = 0
    for question, wanted in QUESTIONS:
        page = await search.search(SearchRequest(text=question, limit=1))
        first += bool(page.hits) and page.hits[0].row.listing.name == wanted
    assert first >= len(QUESTIONS) * 0.8


async def test_a_directory_of_three_agents_answers_as_well_as_one_of_many() -> None:
    few = [row for row in listings() if row.listing.name in {"SkyCast", "ChefMate", "CoinWatch"}]
    search, _, _ = search_over(few)
    names = {row.listing.name for row in few}
    for question, wanted in QUESTIONS:
        if wanted in names:
            page = await search.search(SearchRequest(text=question, cutoff="permissive"))
            assert page.hits[0].row.listing.name == wanted, question


async def test_further_questions_that_the_search_was_not_made_for_find_their_agent_too() -> None:
    search, _, _ = search_over(listings())
    missed = []
    for question, wanted in EVERYDAY:
        page = await search.search(SearchRequest(text=question, limit=FIRST))
        if wanted not in [hit.row.listing.name for hit in page.hits]:
            missed.append((question, wanted))
    assert len(missed) <= len(EVERYDAY) * (1 - SHARE), missed


async def test_the_cutoff_of_models_keeps_the_right_agents() -> None:
    """`directory.py` searches with `permissive`: what is left out there can never be asked."""
    search, _, _ = search_over(listings())
    for question, wanted in (*QUESTIONS, *EVERYDAY):
        every = await search.search(SearchRequest(text=question, limit=FIRST))
        some = await search.search(SearchRequest(text=question, limit=FIRST, cutoff="permissive"))
        if wanted in [hit.row.listing.name for hit in every.hits]:
            assert wanted in [hit.row.listing.name for hit in some.hits], question

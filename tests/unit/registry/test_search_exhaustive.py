"""What a search leaves out for speed changes nothing: it finds what ranking every listing finds."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from agent_listings import DAY_US, NOW_US, address, agent
from convene.registry import lexical, vectors
from convene.registry import search as search_module
from convene.registry.base_search import SearchRequest
from convene.registry.pace import Pace
from convene.registry.ranking import score
from convene.registry.search import MEANING_MAX, MEANING_SPAN, QUESTION_WORDS_MAX
from convene.registry.vectors import pack
from convene.registry.words import question_words
from convene.store.base_market import Tally
from fakes import FakeClock
from unit.registry.index_of import search_over

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.registry.agent_index import AgentIndex
    from convene.registry.search import Search
    from convene.store.base_market import AgentRow

COUNT, PARTS = 400, 24
STEMS = ("rout", "translat", "forecast", "invoic", "garden", "compil", "reserv", "diagnos")
ENDINGS = ("e", "ing", "ion", "or", "ed", "al", "ive", "ery")


def said(draw: random.Random, count: int) -> str:
    """Return words of which the first are common, and of which many look like others."""
    return " ".join(
        STEMS[min(int(draw.paretovariate(0.8)), len(STEMS)) - 1] + draw.choice(ENDINGS) for _ in range(count)
    )


def rows_of(draw: random.Random) -> list[AgentRow]:
    rows = []
    for number in range(COUNT):
        calls = draw.randrange(20)
        tally = Tally(
            calls=calls,
            successes=draw.randint(0, calls),
            answered_us=NOW_US - draw.randrange(9) * DAY_US,
            failures_in_row=draw.choice([0, 0, 0, 1, 4]),
            failed_us=NOW_US - draw.randrange(60) * 60_000_000,
        )
        rows.append(agent(f"n{number}", said(draw, 4), readme=said(draw, 9), tally=tally, version=number + 1))
    return rows


def direction(draw: random.Random) -> list[float]:
    return [draw.gauss(0, 1) for _ in range(PARTS)]


def relevance_by_words(index: AgentIndex, question: str) -> dict[int, float]:
    """Score every listing by every word of a question, without what a search leaves out."""
    total: dict[int, float] = {}
    ideal = 0.0
    for word in question_words(question, QUESTION_WORDS_MAX):
        best: dict[int, float] = {}
        heaviest = 0.0
        for weight, impacts in index.words.weights(word):
            heaviest = max(heaviest, weight)
            for place, impact in impacts:
                best[place] = max(best.get(place, 0.0), weight * impact)
        ideal += heaviest * lexical.IMPACT_MAX
        for place, one in best.items():
            total[place] = total.get(place, 0.0) + one
    return {place: min(1.0, one / ideal) for place, one in total.items()}


async def cosines(index: AgentIndex, question: Sequence[float]) -> dict[int, float]:
    found = await index.vectors.search(question, COUNT, Pace(FakeClock().monotonic))
    assert len(found) == COUNT
    return dict(found)


def values_of(index: AgentIndex, relevances: dict[int, float]) -> dict[str, float]:
    """Rank every listing."""
    found = {}
    for place, relevance in relevances.items():
        facts = index.facts[place]
        assert facts is not None
        found[facts.id] = score(relevance, facts.standing, NOW_US).value
    return found


def made(seed: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Search, AgentIndex, dict[str, list[float]]]:
    """Return a search over listings that are so many by the sizes of the parts of the index."""
    monkeypatch.setattr(lexical, "DENSE_MIN", 40)
    monkeypatch.setattr(lexical, "CHUNK", 128)
    monkeypatch.setattr(vectors, "BLOCK", 64)
    monkeypatch.setattr(vectors, "BATCH", 16)
    draw = random.Random(seed)  # noqa: S311 -- repeatable on purpose
    asked = {said(draw, draw.randint(1, 3)): direction(draw) for _ in range(8)}

    async def embed(text: str) -> Sequence[float]:
        return asked[text]

    search, index, _ = search_over(rows_of(draw), embed=embed)
    for number in range(COUNT):
        place = index.place_of(address(f"n{number}"))
        assert place is not None
        index.vectors.put(place, pack(direction(draw)))
    return search, index, asked


def established(index: AgentIndex, every: dict[str, float]) -> dict[str, float]:
    """Return the values of those that are no newcomers."""
    calls = {facts.id: facts.standing.tally.calls for facts in index.facts if facts is not None}
    return {one: value for one, value in every.items() if calls[one] >= 3}


def in_agreement(search_values: dict[str, float], every: dict[str, float]) -> None:
    """Check that the hits have the values that they have among all, and that no other has a higher one."""
    assert search_values
    for agent_id, value in search_values.items():
        assert value == pytest.approx(every[agent_id], rel=1e-6)
    best = sorted(every.values(), reverse=True)[: len(search_values)]
    assert sorted(search_values.values(), reverse=True) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
async def test_by_words_the_fifty_first_are_those_of_a_ranking_of_every_listing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, index, asked = made(seed, monkeypatch)
    for question in asked:
        page = await search.search(SearchRequest(text=question, limit=50))
        every = values_of(index, relevance_by_words(index, question))
        # a newcomer may be among the first for its newness
        values = {hit.row.id: hit.score.value for hit in page.hits if hit.row.tally.calls >= 3}
        in_agreement(values, established(index, every))


async def by_both(index: AgentIndex, question: str, vector: Sequence[float]) -> dict[str, float]:
    """Rank every listing by words and meaning."""
    usual = await index.vectors.baseline(Pace(FakeClock().monotonic))
    relevances = relevance_by_words(index, question)
    for place, cosine in (await cosines(index, vector)).items():
        alike = min(1.0, max(0.0, (cosine - usual) / ((1.0 - usual) * MEANING_SPAN + 1e-9)))
        relevances[place] = 1.0 - (1.0 - relevances.get(place, 0.0)) * (1.0 - MEANING_MAX * alike)
    return values_of(index, relevances)


@pytest.mark.parametrize("seed", range(4))
async def test_by_words_and_meaning_the_first_are_those_of_a_ranking_of_every_listing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, index, asked = made(seed, monkeypatch)
    for question, vector in asked.items():
        every = await by_both(index, question, vector)
        page = await search.search(SearchRequest(text=question, limit=20, semantic=True))
        values = {hit.row.id: hit.score.value for hit in page.hits if hit.row.tally.calls >= 3}
        in_agreement(values, established(index, every))


async def test_where_few_are_looked_at_closely_hits_have_their_true_values_and_nearly_all_of_the_best_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(vectors, "RESCORED", 100)
    monkeypatch.setattr(search_module, "NEAREST", 100)
    found = wanted = 0
    for seed in range(3):
        search, index, asked = made(seed, monkeypatch)
        for question, vector in asked.items():
            every = await by_both(index, question, vector)
            page = await search.search(SearchRequest(text=question, limit=20, semantic=True))
            assert all(hit.score.value == pytest.approx(every[hit.row.id], rel=1e-6) for hit in page.hits)
            tenth = sorted(every.values(), reverse=True)[9]
            found += sum(hit.score.value >= tenth for hit in page.hits)
            wanted += 10
    assert found / wanted >= 0.9


@pytest.mark.parametrize("ascending", [False, True])
async def test_pages_of_one_search_keep_its_order_and_values_though_agents_are_asked_between(
    ascending: bool,  # noqa: FBT001 -- a case
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search, index, asked = made(9, monkeypatch)
    question = next(iter(asked))
    whole = (await search.search(SearchRequest(text=question, limit=50, ascending=ascending))).hits
    first = await search.search(SearchRequest(text=question, limit=10, ascending=ascending))
    for hit in whole[10:30]:
        row = hit.row
        index.apply(agent(row.listing.name, row.listing.profile.description, readme=row.listing.profile.readme), NOW_US)
    pages = list(first.hits)
    for offset in (10, 20, 30, 40):
        request = SearchRequest(text=question, limit=10, offset=offset, search_id=first.search_id, ascending=ascending)
        pages += (await search.search(request)).hits
    assert [hit.row.id for hit in pages] == [hit.row.id for hit in whole]
    assert [hit.score.value for hit in pages] == [hit.score.value for hit in whole]

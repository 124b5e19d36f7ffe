"""The use case of a search: what was asked to agents in an order (SEARCH-01 to 11, PICK-06 to 08).

    directly named?  -> that agent, active or not
    else candidates: by words, by meaning, by name, near a place, or all of them
    -> filters -> cutoff -> ranking -> order -> a page, remembered for further pages of the same search id

It works on the index in this process, in short pieces, and waits for nobody but, within `EMBED_S`, an embedding model.
"""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from array import array
from collections import OrderedDict
from heapq import nlargest
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import ConveneError
from convene.registry.base_search import PAGED_MAX, TEXT_MAX, Hit, Page, ProtocolName, SearchRequest
from convene.registry.columns import FAILING
from convene.registry.documents import facts_of
from convene.registry.globe import distance_km
from convene.registry.pace import Pace
from convene.registry.ranking import Ranked, Score, freshness, health, health_word, is_reachable, order, score, scored
from convene.registry.sieve import Sieve, smallest
from convene.registry.words import fold, question_words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from convene.clock import Clock
    from convene.registry.agent_index import AgentIndex
    from convene.registry.base_search import Circle, Cutoff, Sort
    from convene.registry.counter import Counter
    from convene.registry.documents import Facts
    from convene.store.base_market import AgentRow

    Embed = Callable[[str], Awaitable[Sequence[float]]]

log = logging.getLogger("convene.registry")

QUESTION_WORDS_MAX: Final = 16
NEAREST: Final = 200
EMBED_S: Final = 0.5
"""A question is embedded within this time, or found by its words alone."""
VECTORS_KEPT: Final = 512
"""Questions whose vectors are remembered: pages, and users who ask again."""
MEANING_MAX: Final = 0.9
"""Relevance of the same meaning in other words."""
MEANING_SPAN: Final = 0.55
"""How far above the usual cosine of two listings the cosine of a question and its answer lies, as a share of what is
left to 1. Questions are shorter than listings, so it is well below 1 for every model."""
SORTED_BY: Final[dict[Sort, str]] = {
    "relevancy": "prior",
    "created-at": "created",
    "last-modified": "changed",
    "interactions": "calls",
}
"""The column of each order, for `relevancy` without a text."""
CUTOFFS: Final[dict[Cutoff, float]] = {"none": 0.0, "permissive": 0.05, "balanced": 0.15, "strict": 0.35}
"""Least relevance."""
PAGES_KEPT: Final = 256
PAGES_S: Final = 600.0
STRIDE: Final = 32
_DIRECT: Final = re.compile(
    r"(?:address:)?\s*(?:(?:test-)?agent://)?(?:[\w.-]+/)?((?:agent|test-agent)1[02-9a-z]{20,90})"
)


class _Order(msgspec.Struct, frozen=True):
    """A search as it was, for its further pages."""

    asked: SearchRequest
    agents: list[str]
    """By their ids, which outlive a new index."""
    values: array[float]
    """Their scores, and of these the relevance."""
    relevances: array[float]
    now_us: int
    until: float


class Search:
    """Implements `base_search.AgentSearch`."""

    def __init__(
        self, index: Callable[[], AgentIndex], clock: Clock, counter: Counter | None = None, embed: Embed | None = None
    ) -> None:
        """Take what is needed.

        Args:
            index: gives the index as it is now.
            clock: the time, and search ids.
            counter: counts what is shown and chosen; None: nothing is counted.
            embed: turns a question into a vector. Raises `ConveneError` if it cannot.
        """
        self._index = index
        self._clock = clock
        self._counter = counter
        self._embed = embed
        self._orders: OrderedDict[str, _Order] = OrderedDict()
        self._vectors: OrderedDict[str, Sequence[float]] = OrderedDict()

    async def search(self, request: SearchRequest) -> Page:
        """See `AgentSearch.search`."""
        now, pace = self._clock.monotonic(), Pace(self._clock.monotonic)
        search_id = _own_id(request.search_id) or str(uuid.UUID(bytes=self._clock.token(16), version=4))
        asked = msgspec.structs.replace(request, offset=0, limit=0, search_id="", source="")
        known = self._orders.get(search_id)
        if known is None or known.asked != asked or known.until < now:
            known = await self._find(request, asked, now + PAGES_S, pace)
            self._orders[search_id] = known
            while len(self._orders) > PAGES_KEPT:
                self._orders.popitem(last=False)
        hits = await self._hits(known, request, pace)
        if self._counter is not None:
            self._counter.shown([hit.row.id for hit in hits])
        return Page(
            hits=tuple(hits),
            offset=request.offset,
            limit=request.limit,
            total=len(known.agents),
            search_id=search_id,
        )

    def show(self, agent: str) -> Hit | None:
        """See `AgentSearch.show`."""
        index = self._index()
        place = index.place_of(agent)
        facts = None if place is None else index.facts[place]
        if facts is None:
            return None
        return _hit(index.names, facts, score(1.0, facts.standing, self._now_us()), self._now_us())

    def click(self, agent: str, search_id: str) -> bool:
        """See `AgentSearch.click`."""
        del search_id
        if self._index().place_of(agent) is None:
            return False
        if self._counter is not None:
            self._counter.picked(agent)
        return True

    async def _hits(self, order: _Order, request: SearchRequest, pace: Pace) -> list[Hit]:
        """Return a page of an order; who is gone by now is left out."""
        index = self._index()
        hits = []
        for number in range(request.offset, min(request.offset + request.limit, len(order.agents))):
            place = index.place_of(order.agents[number])
            facts = None if place is None else index.facts[place]
            if facts is not None:
                its = scored(order.relevances[number], facts.standing, facts.quality, facts.success, order.now_us)
                its = msgspec.structs.replace(its, value=order.values[number])
                hits.append(_hit(index.names, facts, its, self._now_us()))
                await pace.breathe()
        return hits

    async def _find(self, request: SearchRequest, asked: SearchRequest, until: float, pace: Pace) -> _Order:
        """Return who is found, in the order in which it is shown."""
        index, now_us = self._index(), self._now_us()
        text = request.text.strip()[:TEXT_MAX]
        direct = _direct(index, text, exact=request.exact_match)
        if direct is not None:
            relevant = dict.fromkeys(direct, 1.0)
        elif text:
            relevant = await self._relevant(index, text, request, pace)
        else:
            relevant = dict.fromkeys(await self._all(index, request, pace), 1.0)
        await pace.breathe()
        sieve = Sieve(index, request, now_us, directly=direct is not None)
        members = sieve.members(relevant)
        relevant = {place: relevance for place, relevance in relevant.items() if place in members}
        if request.near is not None and direct is None:
            relevant = await _near(index, request.near, relevant, pace, weigh=request.geo_relevancy)
        await pace.breathe()
        ranked = _sorted(index, request, await _ranked(index, request, relevant, sieve, now_us, pace))
        await pace.breathe()
        there = [(facts.id, one) for one in ranked[:PAGED_MAX] if (facts := index.facts[one.place]) is not None]
        values, relevances = array("d"), array("d")
        for _, one in there:
            values.append(one.value)
            relevances.append(one.relevance)
        return _Order(asked, [agent for agent, _ in there], values, relevances, now_us, until)

    async def _relevant(self, index: AgentIndex, text: str, request: SearchRequest, pace: Pace) -> dict[int, float]:
        """Return the places that fit a text with their relevance."""
        only = smallest(index, request)
        vector = await self._vector(text) if request.semantic and len(index.vectors) else None
        matches = await index.words.search(question_words(text, QUESTION_WORDS_MAX), PAGED_MAX, pace, only)
        found = dict(matches.best)
        await pace.breathe()
        if vector is not None:
            usual = await index.vectors.baseline(pace)
            for place, cosine in await index.vectors.search(vector, NEAREST, pace, only, found.keys()):
                alike = min(1.0, max(0.0, (cosine - usual) / ((1.0 - usual) * MEANING_SPAN + 1e-9)))
                found[place] = 1.0 - (1.0 - found.get(place, 0.0)) * (1.0 - MEANING_MAX * alike)
        for place in _named(index, " ".join(fold(text).split())):
            found[place] = 1.0
        return {place: relevance for place, relevance in found.items() if relevance > 0.0}

    async def _all(self, index: AgentIndex, request: SearchRequest, pace: Pace) -> Iterable[int]:
        """Return the places for a search without a text: the smallest group that is asked for, else the best of all."""
        only = smallest(index, request)
        if only is not None:
            return only
        return await index.top(SORTED_BY[request.sort], PAGED_MAX * 2, pace, ascending=request.ascending)

    async def _vector(self, text: str) -> Sequence[float] | None:
        """Return a question's vector, if there is a model that gives one in time."""
        if self._embed is None:
            return None
        known = self._vectors.get(text)
        if known is not None:
            self._vectors.move_to_end(text)
            return known
        try:
            vector = await asyncio.wait_for(self._embed(text), EMBED_S)
        except TimeoutError:
            log.warning("a question for agents was not embedded in %s s and is answered by its words", EMBED_S)
            return None
        except ConveneError as fault:
            log.warning("a question for agents is answered by its words: %s %s", fault.message, fault.detail)
            return None
        self._vectors[text] = vector
        while len(self._vectors) > VECTORS_KEPT:
            self._vectors.popitem(last=False)
        return vector

    def _now_us(self) -> int:
        return int(self._clock.now() * 1_000_000)


def _direct(index: AgentIndex, text: str, *, exact: bool) -> Collection[int] | None:
    """Return who a text names directly, or None if it is a question."""
    address = _DIRECT.fullmatch(text)
    if address is not None:
        return _one(index.place_of(address[1]))
    if text.startswith("@") and " " not in text:
        return _one(index.by_handle(fold(text[1:])))
    if text.startswith(("http://", "https://")) and index.place_of(text) is not None:
        return _one(index.place_of(text))
    if not exact or not text:
        return None
    plain = " ".join(fold(text.removeprefix("address:")).split())
    return list(dict.fromkeys((*_one(index.by_handle(plain)), *_one(index.place_of(text)), *_named(index, plain))))


def _named(index: AgentIndex, name: str) -> Collection[int]:
    """Return the places of a name, of very many the best: anybody may give an agent any name."""
    there = index.named(name)
    return there if len(there) <= PAGED_MAX else nlargest(PAGED_MAX, there, index.columns.rows["prior"].__getitem__)


def _one(place: int | None) -> list[int]:
    return [] if place is None else [place]


async def _near(
    index: AgentIndex, circle: Circle, relevant: dict[int, float], pace: Pace, *, weigh: bool
) -> dict[int, float]:
    """Return those whose own circle meets another, nearer ones with more relevance if that is asked for."""
    found = {}
    for place, relevance in relevant.items():
        facts = index.facts[place]
        if facts is None or facts.geo is None:
            continue
        latitude, longitude, radius = facts.geo
        away = distance_km(circle.latitude, circle.longitude, latitude, longitude)
        if away <= circle.radius + radius:
            closeness = 1.0 / (1.0 + away / max(circle.radius, 1.0)) if weigh else 1.0
            found[place] = relevance * closeness
        await pace.breathe()
    return found


async def _ranked(
    index: AgentIndex, request: SearchRequest, relevant: Mapping[int, float], sieve: Sieve, now_us: int, pace: Pace
) -> list[Ranked]:
    """Return those that the sieve lets through, with their scores."""
    floor, rerank = CUTOFFS[request.cutoff], request.rerank
    flags, rows = index.columns.flags, index.columns.rows
    fit, answered, calls, impressions = rows["fitness"], rows["answered"], rows["calls"], rows["impressions"]
    found = []
    for number, (place, relevance) in enumerate(relevant.items()):
        if relevance >= floor and sieve.passes(place):
            facts = index.facts[place] if flags[place] & FAILING else None
            well = 1.0 if facts is None else health(facts.standing, now_us)
            value = relevance * (fit[place] * well) * freshness(answered[place], now_us) if rerank else relevance
            found.append(Ranked(place, value, relevance, well, calls[place], impressions[place]))
        if number % STRIDE == 0:
            await pace.breathe()
    return found


def _sorted(index: AgentIndex, request: SearchRequest, ranked: list[Ranked]) -> list[Ranked]:
    """Return hits in the order that is asked for."""
    if request.sort == "relevancy":
        if request.rerank and not request.ascending:
            return order(ranked)
        return sorted(ranked, key=lambda one: (one.value if request.ascending else -one.value, one.place))
    column = index.columns.rows[SORTED_BY[request.sort]]
    turn = 1 if request.ascending else -1
    return sorted(ranked, key=lambda one: (turn * column[one.place], one.place))


def hit_of(row: AgentRow, now_us: int) -> Hit:
    """Return a row as a hit that was not searched for; its protocols have no names."""
    facts = facts_of(row, b"")
    return _hit({}, facts, score(1.0, facts.standing, now_us), now_us)


def _hit(names: Mapping[str, ProtocolName], facts: Facts, its: Score, now_us: int) -> Hit:
    standing = msgspec.structs.replace(facts.standing, active=facts.is_active(now_us))
    return Hit(
        row=facts.row(),
        score=its,
        health=health_word(standing),
        reachable=is_reachable(standing),
        kind=facts.kind,
        geo=facts.geo,
        protocols=tuple(names.get(digest, ProtocolName(digest)) for digest in facts.digests),
    )


def _own_id(text: str) -> str:
    """Return a search id in its plain form; empty if it is none (SEARCH-02)."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return ""

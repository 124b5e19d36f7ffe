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
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import ConveneError
from convene.registry.base_search import PAGED_MAX, TEXT_MAX, Hit, Page, ProtocolName, SearchRequest
from convene.registry.documents import bare, facts_of
from convene.registry.globe import distance_km
from convene.registry.pace import Pace
from convene.registry.ranking import Ranked, Score, health_word, is_reachable, order, score, scored
from convene.registry.words import fold, question_words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from convene.clock import Clock
    from convene.registry.agent_index import AgentIndex
    from convene.registry.base_search import Circle, Cutoff, Filters
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
CUTOFFS: Final[dict[Cutoff, float]] = {"none": 0.0, "permissive": 0.05, "balanced": 0.15, "strict": 0.35}
"""Least relevance."""
PAGES_KEPT: Final = 256
PAGES_S: Final = 600.0
STRIDE: Final = 32
SMALL: Final = 4_096
"""A group of at most so many is looked through whole."""
_DIRECT: Final = re.compile(
    r"(?:address:)?\s*(?:(?:test-)?agent://)?(?:[\w.-]+/)?((?:agent|test-agent)1[02-9a-z]{20,90})"
)


class _Order(msgspec.Struct, frozen=True):
    """A search as it was, for its further pages."""

    asked: SearchRequest
    agents: list[tuple[str, Score]]
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
        now = self._clock.monotonic()
        search_id = _own_id(request.search_id) or str(uuid.UUID(bytes=self._clock.token(16), version=4))
        asked = msgspec.structs.replace(request, offset=0, limit=0, search_id="", source="")
        known = self._orders.get(search_id)
        if known is None or known.asked != asked or known.until < now:
            known = _Order(asked, await self._find(request), now + PAGES_S)
            self._orders[search_id] = known
            while len(self._orders) > PAGES_KEPT:
                self._orders.popitem(last=False)
        index = self._index()
        hits = []
        for agent, its in known.agents[request.offset : request.offset + request.limit]:
            place = index.place_of(agent)
            facts = None if place is None else index.facts[place]
            if facts is not None:
                hits.append(_hit(index.names, facts, its, self._now_us()))
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

    async def _find(self, request: SearchRequest) -> list[tuple[str, Score]]:
        """Return who is found, in the order in which it is shown."""
        index, now_us = self._index(), self._now_us()
        pace = Pace(self._clock.monotonic)
        text = request.text.strip()[:TEXT_MAX]
        direct = _direct(index, text, exact=request.exact_match)
        if direct is not None:
            relevant = dict.fromkeys(direct, 1.0)
        elif text:
            relevant = await self._relevant(index, text, request, pace)
        else:
            relevant = dict.fromkeys(await self._all(index, request, pace), 1.0)
        sieve = _Sieve(index, request, now_us, directly=direct is not None)
        if request.near is not None and direct is None:
            relevant = await _near(index, request.near, relevant, pace, weigh=request.geo_relevancy)
        floor = CUTOFFS[request.cutoff]
        ranked: list[Ranked] = []
        for number, (place, relevance) in enumerate(relevant.items()):
            facts = sieve.passes(place)
            if facts is None or relevance < floor:
                continue
            standing = facts.standing
            its = scored(relevance, standing, facts.quality, facts.success, now_us)
            if not request.rerank:
                its = msgspec.structs.replace(its, value=relevance)
            ranked.append(Ranked(place, its, standing.tally.calls, standing.tally.impressions))
            if number % STRIDE == 0:
                await pace.breathe()
        return _named(index, _sorted(index, request, ranked))

    async def _relevant(self, index: AgentIndex, text: str, request: SearchRequest, pace: Pace) -> dict[int, float]:
        """Return the places that fit a text with their relevance."""
        only = _smallest(index, request)
        vector = await self._vector(text) if request.semantic and len(index.vectors) else None
        matches = await index.words.search(question_words(text, QUESTION_WORDS_MAX), PAGED_MAX, pace, only)
        found = dict(matches.best)
        if vector is not None:
            usual = index.vectors.baseline()
            for place, cosine in await index.vectors.search(vector, NEAREST, pace):
                alike = min(1.0, max(0.0, (cosine - usual) / ((1.0 - usual) * MEANING_SPAN + 1e-9)))
                found[place] = 1.0 - (1.0 - found.get(place, 0.0)) * (1.0 - MEANING_MAX * alike)
        for place in index.named(" ".join(fold(text).split())):
            found[place] = 1.0
        return {place: relevance for place, relevance in found.items() if relevance > 0.0}

    async def _all(self, index: AgentIndex, request: SearchRequest, pace: Pace) -> Iterable[int]:
        """Return the places for a search without a text: the smallest group that is asked for, else the best of all."""
        only = _smallest(index, request)
        if only is not None:
            return only
        column = {"created-at": "created", "last-modified": "changed", "interactions": "calls"}.get(
            request.sort, "prior"
        )
        return await index.top(column, PAGED_MAX * 2, pace, ascending=request.ascending)

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


class _Sieve:
    """What a hit must be."""

    def __init__(self, index: AgentIndex, request: SearchRequest, now_us: int, *, directly: bool) -> None:
        filters = request.filters
        self._facts = index.facts
        self._now_us = now_us
        self._groups = _groups(index, filters)
        self._alive = {"active", "inactive"}.intersection(filters.state)
        self._answering = {"responsive", "unresponsive"}.intersection(filters.state)
        self._dead_too = directly or "inactive" in filters.state
        self._calls_min = filters.n_interactions or 0
        self._nobody = bool(filters.category) and "community" not in filters.category
        self._no_geo = request.exclude_geo and request.near is None and filters.has_location is None and not directly
        self._without = {
            name for name, wanted in (("readme", filters.has_readme), ("geo", filters.has_location)) if wanted is False
        }
        self._callable = request.callable_only

    def passes(self, place: int) -> Facts | None:
        """Return what is known of an agent if it may be a hit."""
        facts = self._facts[place]
        if facts is None or self._nobody:
            return None
        for group in self._groups:
            for one in group:
                if place in one:
                    break
            else:
                return None
        active = facts.is_active(self._now_us)
        if (not active and not self._dead_too) or not self._in_state(facts, active=active):
            return None
        return facts if self._suits(facts) else None

    def _suits(self, facts: Facts) -> bool:
        """Whether what it is and has is as asked."""
        standing, without = facts.standing, self._without
        if facts.geo is not None and (self._no_geo or "geo" in without):
            return False
        if standing.readme_chars and "readme" in without:
            return False
        return standing.tally.calls >= self._calls_min and (standing.callable or not self._callable)

    def _in_state(self, facts: Facts, *, active: bool) -> bool:
        """Whether it is in one of the states of each pair that something is asked of."""
        if self._alive and ("active" if active else "inactive") not in self._alive:
            return False
        answering = self._answering
        return not answering or ("responsive" if is_reachable(facts.standing) else "unresponsive") in answering


def _groups(index: AgentIndex, filters: Filters) -> list[list[set[int]]]:
    """Return the groups that a hit must be in: in one of each list."""
    asked: list[list[set[int]]] = []
    if filters.agent_type:
        asked.append([index.group(f"kind:{kind}") for kind in _kinds(filters.agent_type)])
    if filters.protocol_digest:
        asked.append([index.group(f"proto:{bare(digest)}") for digest in filters.protocol_digest])
    if filters.tags:
        asked.append([index.group(f"tag:{fold(tag)}") for tag in filters.tags])
    if filters.has_readme:
        asked.append([index.group("readme")])
    if filters.has_location:
        asked.append([index.group("geo")])
    return asked


def _kinds(asked: Sequence[str]) -> Sequence[str]:
    """Return the kinds that an asked one means: a `uagent` is reached in one of three ways."""
    found: list[str] = []
    for kind in asked:
        found += ("uagent", "mailbox", "proxy", "custom") if kind == "uagent" else (kind,)
    return found


def _smallest(index: AgentIndex, request: SearchRequest) -> set[int] | None:
    """Return the smallest group that all hits are in, if it is small enough to be looked through."""
    small = [
        set[int]().union(*group) for group in _groups(index, request.filters) if sum(len(one) for one in group) <= SMALL
    ]
    if request.near is not None:
        small.append(set(index.globe.around(request.near)))
    return min(small, key=len) if small else None


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
    return list(dict.fromkeys((*_one(index.by_handle(plain)), *_one(index.place_of(text)), *index.named(plain))))


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


def _sorted(index: AgentIndex, request: SearchRequest, ranked: list[Ranked]) -> list[Ranked]:
    """Return hits in the order that is asked for."""
    if request.sort == "relevancy":
        if request.rerank and not request.ascending:
            return order(ranked)
        return sorted(ranked, key=lambda one: (one.score.value if request.ascending else -one.score.value, one.place))
    column = {"created-at": "created", "last-modified": "changed", "interactions": "calls"}[request.sort]
    turn = 1 if request.ascending else -1
    return sorted(ranked, key=lambda one: (turn * index.value(column, one.place), one.place))


def _named(index: AgentIndex, ranked: list[Ranked]) -> list[tuple[str, Score]]:
    """Return the hits by their ids, which outlive a new index."""
    return [(facts.id, one.score) for one in ranked[:PAGED_MAX] if (facts := index.facts[one.place]) is not None]


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

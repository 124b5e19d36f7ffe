"""Search over many agents: latency by words, and by words and meaning; recall; how long the loop is held; memory.

    .venv/bin/python bench/run.py search
    .venv/bin/python bench/agent_search.py [--agents 100000] [--searches 400] [--no-recall]

Listings are synthetic: words drawn by Zipf's law from a vocabulary of made-up words, vectors of 384 parts around 2,000
topics. Questions are asked one after the other, filtered by state and protocol, ten hits each. Recall is the share of
the exhaustive ten best that are given: by words and by meaning of the index alone (every listing scored, every cosine
computed), and of whole searches by both (every listing ranked). The bars are for processor time, which other programs
disturb less than the clock's; a search waits for nothing, so on a quiet machine the two are the same. How long the
loop is held is seen by a second task that asks for it all the time, in processor time too. The collector of cycles
works as it does in the server. Not measured: the store, and the model that embeds a question.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import gc
import heapq
import itertools
import math
import random
import statistics
import sys
import time
from array import array
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Final

from convene.clock import SystemClock
from convene.registry.agent_index import AgentIndex
from convene.registry.base_search import Filters, SearchRequest
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.pace import Pace
from convene.registry.ranking import Ranked, freshness, order
from convene.registry.search import MEANING_MAX, MEANING_SPAN, QUESTION_WORDS_MAX, Search
from convene.registry.vectors import pack
from convene.registry.words import question_words
from convene.store.base_market import AgentRow, Endpoint, Listing, Profile, Tally
from parts import result, say

if TYPE_CHECKING:
    from collections.abc import Sequence

AGENTS, SEARCHES = 100_000, 400
WORDS_MS_BAR, HYBRID_MS_BAR, HELD_MS_BAR, RECALL_BAR = 20.0, 40.0, 10.0, 0.95
PARTS: Final = 384
TOPICS: Final = 2_000
VOCABULARY: Final = 60_000
NOW_US: Final = 1_795_000_000_000_000
SYLLABLES: Final = [one + two for one in "bcdfghjklmnprstvwz" for two in ("a", "e", "i", "o", "u", "an", "el", "or")]
RECALLED: Final = 20


class Made:
    """Everything that is drawn from one seed."""

    def __init__(self, agents: int) -> None:
        self.random = random.Random(7)  # noqa: S311 -- repeatable on purpose
        chosen: dict[str, None] = {}
        while len(chosen) < VOCABULARY:
            chosen["".join(self.random.choices(SYLLABLES, k=self.random.randint(2, 5)))] = None
        self.words = list(chosen)
        self.weights = list(itertools.accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))
        self.topics = [[self.random.gauss(0, 1) for _ in range(PARTS)] for _ in range(TOPICS)]
        self.topic_words = [self.random.sample(range(300, VOCABULARY), 12) for _ in range(TOPICS)]
        self.topic_of = [self.random.randrange(TOPICS) for _ in range(agents)]

    def prose(self, count: int, topic: int) -> str:
        """Return words, one in six of them of a topic."""
        found = []
        for _ in range(count):
            if self.random.random() < 1 / 6:
                found.append(self.words[self.random.choice(self.topic_words[topic])])
            else:
                found.append(self.words[bisect.bisect(self.weights, self.random.random() * self.weights[-1])])
        return " ".join(found)

    def vector(self, topic: int) -> list[float]:
        """Return a vector near a topic's."""
        return [part + self.random.gauss(0, 0.9) for part in self.topics[topic]]

    def row(self, number: int) -> AgentRow:
        """Return an agent."""
        topic = self.topic_of[number]
        calls = int(self.random.paretovariate(0.8)) % 500
        return AgentRow(
            id=f"agent1q{number:058d}",
            endpoints=(Endpoint("http://127.0.0.1:8001/submit"),),
            protocols=(CHAT_PROTOCOL,),
            listed=True,
            expires_us=NOW_US * 2,
            version=number + 1,
            tally=Tally(calls=calls, successes=int(calls * self.random.random())),
            listing=Listing(
                name=self.prose(2, topic).title(),
                handle=f"h{number}",
                profile=Profile(
                    description=self.prose(14, topic), readme=self.prose(self.random.randint(20, 140), topic)
                ),
                tags=(self.words[topic % 50], self.words[self.random.randrange(2000)]),
            ),
        )

    def question(self) -> tuple[str, list[float]]:
        """Return a question of two to seven words and its vector."""
        topic = self.random.randrange(TOPICS)
        return self.prose(self.random.randint(2, 7), topic), self.vector(topic)


class Held:
    """Sees how long the loop is held by others, in processor time."""

    def __init__(self) -> None:
        self.spans_s = array("d")

    async def watch(self) -> None:
        """Ask for the loop again and again."""
        before = time.process_time()
        while True:
            await asyncio.sleep(0)
            now = time.process_time()
            self.spans_s.append(now - before)
            before = now


def memory_mib() -> float:
    """Return the memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


async def fill(index: AgentIndex, made: Made, agents: int) -> list[bytes]:
    """Take all agents in, print what that takes, and return their vectors, as floats of four bytes."""
    pace = Pace(time.perf_counter)
    spent_s, vectors = 0.0, []
    before = memory_mib()
    for number in range(agents):
        row, vector = made.row(number), made.vector(made.topic_of[number])
        began_s = time.process_time()
        place = index.apply(row, NOW_US)
        assert place == number
        index.vectors.put(place, pack(vector))
        spent_s += time.process_time() - began_s
        vectors.append(array("f", vector).tobytes())
        await pace.breathe()
    own = sum(map(sys.getsizeof, vectors)) / 2**20
    say(
        f"     {agents} agents, {len(index.words.vocabulary)} words, {spent_s / agents * 1e6:.0f} us to index a listing"
    )
    say(f"     memory of the index: {memory_mib() - before - own:.0f} MiB")
    return vectors


def p99_ms(name: str, measured: tuple[list[float], list[float]]) -> float:
    """Print what searches took, and return what one in a hundred took more of the processor."""
    for kind, taken_s in zip(("clock", "processor"), measured, strict=True):
        cuts = statistics.quantiles(taken_s, n=100)
        shown = ", ".join(f"p{number} {cuts[number - 1] * 1e3:.1f}" for number in (50, 95, 99))
        say(f"     {name}, {kind}: {shown}, max {max(taken_s) * 1e3:.1f} ms (n={len(taken_s)})")
    return statistics.quantiles(measured[1], n=100)[98] * 1e3


async def timed(search: Search, requests: Sequence[SearchRequest]) -> tuple[list[float], list[float]]:
    """Return what each search takes, by the clock and of the processor."""
    taken, worked = [], []
    for request in requests:
        began, before = time.perf_counter(), time.process_time()
        page = await search.search(request)
        taken.append(time.perf_counter() - began)
        worked.append(time.process_time() - before)
        assert page.hits or not request.text
        await asyncio.sleep(0)
    return taken, worked


def every_score(index: AgentIndex, question: str) -> array[float]:
    """Return what each listing scores by words: every listing by every word, without what the search leaves out."""
    lexical = index.words
    total = array("d", bytes(8 * lexical.places))
    for word in question_words(question, QUESTION_WORDS_MAX):
        best = array("d", bytes(8 * lexical.places))
        for weight, impacts in lexical.weights(word):
            for place, impact in impacts:
                best[place] = max(best[place], weight * impact)
        for place, score in enumerate(best):
            if score:
                total[place] += score
    return total


def highest(values: Sequence[float]) -> set[int]:
    """Return where the ten highest are, and all that are as high as the tenth but for the rounding of sums."""
    tenth = heapq.nlargest(10, values)[-1] * (1 - 1e-9)
    return {place for place, value in enumerate(values) if value >= tenth}


def every_rank(index: AgentIndex, relevances: Sequence[float]) -> list[int]:
    """Return the ten first when every listing is ranked."""
    rows = index.columns.rows
    ranked = []
    for place, relevance in enumerate(relevances):
        if relevance > 0:
            value = relevance * rows["fitness"][place] * freshness(rows["answered"][place], NOW_US)
            ranked.append(Ranked(place, value, relevance, 1.0, rows["calls"][place], rows["impressions"][place]))
    return [one.place for one in order(ranked)[:10]]


async def recall(index: AgentIndex, made: Made, vectors: Sequence[bytes]) -> tuple[float, float, float]:
    """Return the share of the exhaustive ten best that is given, by words, by meaning, and by both after ranking."""
    norms = [math.sqrt(sum(map(mul, one, one))) for one in (memoryview(vector).cast("f") for vector in vectors)]
    pace, found = Pace(time.perf_counter), [0, 0, 0]
    usual = await index.vectors.baseline(pace)
    for _ in range(RECALLED):
        question, vector = made.question()
        scores = every_score(index, question)
        matches = await index.words.search(question_words(question, QUESTION_WORDS_MAX), 10, pace)
        found[0] += len({place for place, _ in matches.best} & highest(scores))
        length = math.sqrt(sum(map(mul, vector, vector)))
        cosines = [
            sum(map(mul, vector, memoryview(one).cast("f"))) / (norm * length)
            for one, norm in zip(vectors, norms, strict=True)
        ]
        near = {place for place, _ in await index.vectors.search(vector, 10, pace)}
        found[1] += len(near & highest(cosines))
        place, relevance = matches.best[0]
        scale = relevance / scores[place]
        alike = [min(1.0, max(0.0, (cosine - usual) / ((1.0 - usual) * MEANING_SPAN))) for cosine in cosines]
        both = [
            1.0 - (1.0 - min(1.0, score * scale)) * (1.0 - MEANING_MAX * one)
            for score, one in zip(scores, alike, strict=True)
        ]

        async def embed(_: str, vector: Sequence[float] = vector) -> Sequence[float]:
            return vector

        page = await Search(lambda: index, SystemClock(), None, embed).search(
            SearchRequest(text=question, limit=10, semantic=True)
        )
        hits = {index.place_of(hit.row.id) for hit in page.hits}
        found[2] += len(hits.intersection(every_rank(index, both)))
    words, meaning, whole = (count / RECALLED / 10 for count in found)
    return words, meaning, whole


async def measure_all(agents: int, searches: int, *, recalled: bool) -> bool:
    """Print the figures; return whether all bars hold."""
    made, index = Made(agents), AgentIndex()
    vectors = await fill(index, made, agents)
    known: dict[str, list[float]] = {}

    async def embed(text: str) -> Sequence[float]:
        return known[text]

    search = Search(lambda: index, SystemClock(), None, embed)
    questions = [made.question() for _ in range(searches)]
    known.update(questions)
    filters = Filters(state=("active",), protocol_digest=(CHAT_PROTOCOL,))
    by_words = [SearchRequest(text=text, filters=filters, limit=10) for text, _ in questions]
    hybrid = [SearchRequest(text=text, filters=filters, limit=10, semantic=True) for text, _ in questions]
    await timed(search, hybrid[:5])
    by_words_ms = p99_ms("by words", await timed(search, by_words))
    hybrid_ms = p99_ms("by words and meaning", await timed(search, hybrid))
    p99_ms("without a text", await timed(search, [SearchRequest(filters=filters, limit=10)] * (searches // 4)))
    held = Held()
    watching = asyncio.create_task(held.watch())
    await timed(search, hybrid)
    watching.cancel()
    spans_s = sorted(held.spans_s)
    holds = [
        result("search of agents by words, p99", by_words_ms, WORDS_MS_BAR, unit="ms", most=True),
        result("search by words and meaning, p99", hybrid_ms, HYBRID_MS_BAR, unit="ms", most=True),
        result(
            "a search holds the loop at most",
            spans_s[-1] * 1e3,
            HELD_MS_BAR,
            unit="ms",
            most=True,
            p99=f"{spans_s[len(spans_s) * 99 // 100] * 1e3:.2f}",
        ),
    ]
    began_s = time.process_time()
    gc.collect()
    say(f"     a pass of the collector of cycles over everything: {(time.process_time() - began_s) * 1e3:.0f} ms")
    if recalled:
        names = ("by words", "by meaning", "by both, ranked")
        shares = await recall(index, made, vectors)
        holds += [
            result(f"recall@10 of exhaustive, {name}", share, RECALL_BAR, unit="")
            for name, share in zip(names, shares, strict=True)
        ]
    return all(holds)


def measure() -> bool:
    """Print the figures of `bench/run.py search`; return whether all bars hold."""
    return run(AGENTS, SEARCHES, recalled=True)


def run(agents: int, searches: int, *, recalled: bool) -> bool:
    """Measure with the collector of cycles as in the server (`http/server.py`)."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    try:
        return asyncio.run(measure_all(agents, searches, recalled=recalled))
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def main() -> int:
    """Run it alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--searches", type=int, default=SEARCHES)
    parser.add_argument("--no-recall", action="store_true")
    given = parser.parse_args()
    return 0 if run(given.agents, given.searches, recalled=not given.no_recall) else 1


if __name__ == "__main__":
    sys.exit(main())

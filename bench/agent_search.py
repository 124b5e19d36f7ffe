"""Search over many agents: latency by words, and by words and meaning; recall; how long the loop is held.

    .venv/bin/python bench/agent_search.py [--agents 100000] [--searches 400]

Listings are synthetic: words drawn by Zipf's law from a vocabulary of made-up words, vectors of 384 parts around 2,000
topics. Recall is the share of the exhaustive ten best (every listing scored, every cosine computed) that the index
gives. How long the loop is held is seen by a second task that asks for it all the time. Beside the time on the clock
the processor time is printed, which says more on a machine that others use too. Not measured: the store, and the model
that embeds a question.
"""

from __future__ import annotations

import argparse
import asyncio
import bisect
import heapq
import itertools
import math
import random
import resource
import statistics
import time
from array import array
from operator import mul
from typing import TYPE_CHECKING, Final

from convene.clock import SystemClock
from convene.registry.agent_index import AgentIndex
from convene.registry.base_search import Filters, SearchRequest
from convene.registry.documents import CHAT_PROTOCOL
from convene.registry.pace import Pace
from convene.registry.search import QUESTION_WORDS_MAX, Search
from convene.registry.vectors import pack
from convene.registry.words import question_words
from convene.store.base_market import AgentRow, Endpoint, Listing, Profile, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """Sees how long the loop is held by others."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def watch(self) -> None:
        """Ask for the loop again and again."""
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.longest_s = max(self.longest_s, now - before)
            before = now


async def fill(index: AgentIndex, made: Made, agents: int) -> list[list[float]]:
    """Take all agents in, and print what that takes."""
    pace = Pace(time.perf_counter)
    spent, vectors = 0.0, []
    for number in range(agents):
        row, vector = made.row(number), made.vector(made.topic_of[number])
        began = time.perf_counter()
        place = index.apply(row, NOW_US)
        assert place == number
        index.vectors.put(place, pack(vector))
        spent += time.perf_counter() - began
        vectors.append(vector)
        await pace.breathe()
    print(f"indexing: {agents} agents, {spent:.1f} s of work, {spent / agents * 1e6:.0f} us each (vector included)")
    print(f"words known: {len(index.words.vocabulary)}")
    return vectors


def percentiles(name: str, measured: tuple[list[float], list[float]]) -> None:
    """Print what searches took."""
    for kind, taken_s in zip(("clock", "processor"), measured, strict=True):
        cuts = statistics.quantiles(taken_s, n=100)
        shown = ", ".join(f"p{number} {cuts[number - 1] * 1e3:.1f}" for number in (50, 95, 99))
        print(f"{name}, {kind}: {shown}, max {max(taken_s) * 1e3:.1f} ms (n={len(taken_s)})")


async def timed(search: Search, requests: Sequence[SearchRequest]) -> tuple[list[float], list[float]]:
    """Return what each search takes, by the clock and of the processor."""
    taken, worked = [], []
    for request in requests:
        began, before = time.perf_counter(), time.process_time()
        page = await search.search(request)
        taken.append(time.perf_counter() - began)
        worked.append(time.process_time() - before)
        assert page.hits or not request.text
    return taken, worked


def exhaustive_words(index: AgentIndex, question: str) -> list[int]:
    """Return the ten best by words: every listing scored by every word, without what the search leaves out."""
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
    return heapq.nlargest(10, range(len(total)), key=lambda place: (total[place], -place))


async def recall(index: AgentIndex, made: Made, vectors: Sequence[list[float]]) -> None:
    """Print the share of the exhaustive ten best that the index gives."""
    norms = [math.sqrt(sum(map(mul, one, one))) for one in vectors]
    words_found, near_found = 0, 0
    pace = Pace(time.perf_counter)
    for _ in range(RECALLED):
        question, vector = made.question()
        matches = await index.words.search(question_words(question, QUESTION_WORDS_MAX), 10, pace)
        words_found += len({place for place, _ in matches.best} & set(exhaustive_words(index, question)))
        near = {place for place, _ in await index.vectors.search(vector, 10, pace)}
        cosines = [sum(map(mul, vector, one)) / norm for one, norm in zip(vectors, norms, strict=True)]
        near_found += len(near & {place for _, place in heapq.nlargest(10, zip(cosines, itertools.count()))})
    print(f"recall@10 of exhaustive: words {words_found / RECALLED / 10:.3f}, meaning {near_found / RECALLED / 10:.3f}")


async def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=100_000)
    parser.add_argument("--searches", type=int, default=400)
    parser.add_argument("--no-recall", action="store_true")
    given = parser.parse_args()
    made, index = Made(given.agents), AgentIndex()
    vectors = await fill(index, made, given.agents)
    known: dict[str, list[float]] = {}

    async def embed(text: str) -> Sequence[float]:
        return known[text]

    search = Search(lambda: index, SystemClock(), None, embed)
    questions = [made.question() for _ in range(given.searches)]
    known.update(questions)
    filters = Filters(state=("active",), protocol_digest=(CHAT_PROTOCOL,))
    by_words = [SearchRequest(text=text, filters=filters, limit=10) for text, _ in questions]
    hybrid = [SearchRequest(text=text, filters=filters, limit=10, semantic=True) for text, _ in questions]
    await timed(search, by_words[:20])
    percentiles("words", await timed(search, by_words))
    percentiles("words and meaning", await timed(search, hybrid))
    held = Held()
    watching = asyncio.create_task(held.watch())
    await timed(search, hybrid)
    watching.cancel()
    print(f"longest that a search held the loop: {held.longest_s * 1e3:.1f} ms")
    print(f"memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if not given.no_recall:
        await recall(index, made, vectors)


if __name__ == "__main__":
    asyncio.run(main())

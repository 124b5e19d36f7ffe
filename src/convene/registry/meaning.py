"""Gives listings their vectors, in the background: from the store, else from an embedding model, at a bounded pace.

Each process of several asks the model for its share of what is missing and finds the rest in the store a little later,
so that no text is embedded twice but by processes on several machines. What the model cannot do now is tried again;
meanwhile search works by words. `follower.py` says which agents have a new text.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import ConveneError, StoreFault
from convene.registry.documents import text_of
from convene.registry.pace import Pace
from convene.registry.vectors import pack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from convene.clock import Clock
    from convene.registry.agent_index import AgentIndex
    from convene.store.base_vectors import Vectors

    EmbedMany = Callable[[Sequence[str]], Awaitable[Sequence[Sequence[float]]]]

log = logging.getLogger("convene.registry")

LOOKED_UP: Final = 64
EMBEDDED: Final = 16
"""Texts of one request to the model."""
MINUTE_S: Final = 60.0
LATER_S: Final = 30.0
"""When the share of another process is looked for again, and a model that has failed is asked again at first."""
LATEST_S: Final = 600.0
KEPT_US: Final = 90 * 86_400_000_000
"""Vectors that no process has used for so long are forgotten."""
SWEEP_S: Final = 86_400.0
TOLD_EVERY: Final = 1_000


class Share(msgspec.Struct, frozen=True):
    """Which of several processes this is."""

    index: int = 0
    count: int = 1


class _Wanted(msgspec.Struct, frozen=True):
    """A listing that needs a vector: its agent, what its text was, its key and its text."""

    agent: str
    text_key: bytes
    key: str
    text: str


class Meaning:
    """The background work."""

    def __init__(
        self,
        index: Callable[[], AgentIndex],
        vectors: Callable[[], Vectors],
        clock: Clock,
        embed: EmbedMany,
        model: str,
        per_minute: int,
        share: Share = Share(),  # noqa: B008 -- frozen
    ) -> None:
        """Take what is needed.

        Args:
            index: gives the index as it is now.
            vectors: those of the store that is open.
            clock: the time.
            embed: gives a vector for each text. Raises `ConveneError`.
            model: its name: another model's vectors are others.
            per_minute: most texts that it is asked for.
            share: of several processes on one store.
        """
        self._index = index
        self._vectors = vectors
        self._clock = clock
        self._embed = embed
        self._model = model
        self._pause_s = MINUTE_S / per_minute
        self._share = share
        self._waiting: deque[str] = deque()
        self._later: deque[tuple[float, str]] = deque()
        self._woken = asyncio.Event()
        self.embedded = 0
        """Texts that this process has asked the model for."""

    def want(self, agents: Iterable[str]) -> None:
        """Say that these agents have a new text."""
        self._waiting.extend(agents)
        self._woken.set()

    async def run(self) -> None:
        """Work for ever."""
        failed_s, sweep_at = 0.0, 0.0
        while True:
            wait_s = LATER_S
            try:
                now = self._clock.monotonic()
                if now >= sweep_at:
                    sweep_at = now + SWEEP_S
                    await self._vectors().forget(self._now_us() - KEPT_US)
                asked = await self.step()
                failed_s = 0.0
                wait_s = self._pause_s * asked if self._waiting else min(LATER_S, self._due_s())
            except ConveneError as fault:
                failed_s = min(LATEST_S, failed_s * 2 or LATER_S)
                wait_s = failed_s
                what = "the store" if isinstance(fault, StoreFault) else self._model
                log.warning("listings get no vectors now, by %s: %s %s", what, fault.message, fault.detail)
            self._woken.clear()
            if failed_s or self._waiting:
                await asyncio.sleep(wait_s)
                continue
            try:
                await asyncio.wait_for(self._woken.wait(), wait_s)
            except TimeoutError:
                continue

    async def step(self) -> int:
        """Give some listings their vectors; return for how many the model was asked.

        Raises `ConveneError`; nothing of what was wanted is lost.
        """
        self._take_up()
        some = [self._waiting.popleft() for _ in range(min(LOOKED_UP, len(self._waiting)))]
        try:
            return await self._serve(some)
        except BaseException:  # cancelled or failed: nothing of what was wanted is lost, and nothing is swallowed
            self._waiting.extendleft(reversed(some))
            raise

    async def _serve(self, agents: Sequence[str]) -> int:
        pace = Pace(self._clock.monotonic)
        wanted = []
        for agent in dict.fromkeys(agents):
            one = self._wanted(agent)
            if one is not None:
                wanted.append(one)
            await pace.breathe()
        if not wanted:
            return 0
        kept = await self._vectors().get([one.key for one in wanted], self._now_us())
        for one in wanted:
            if one.key in kept:
                self._put(one, kept[one.key])
                await pace.breathe()
        missing = [one for one in wanted if one.key not in kept]
        mine = [one for one in missing if int(one.key[:8], 16) % self._share.count == self._share.index]
        later = self._clock.monotonic() + LATER_S
        self._later.extend((later, one.agent) for one in missing if one not in mine)
        now, rest = mine[:EMBEDDED], mine[EMBEDDED:]
        if now:
            given = await self._embed([one.text for one in now])
            packed = {one.key: pack(vector) for one, vector in zip(now, given, strict=True)}
            await self._vectors().keep(packed, self._now_us())
            for one in now:
                self._put(one, packed[one.key])
            self._told(len(now))
        self._waiting.extendleft(one.agent for one in reversed(rest))
        return len(now)

    def _wanted(self, agent: str) -> _Wanted | None:
        """Return what an agent needs a vector for, if it is there and says anything."""
        index = self._index()
        place = index.place_of(agent)
        facts = None if place is None else index.facts[place]
        text = "" if facts is None else text_of(facts.row())
        if facts is None or not text:
            return None
        key = hashlib.blake2b(f"{self._model}\0{text}".encode(), digest_size=16).hexdigest()
        return _Wanted(agent, facts.text_key, key, text)

    def _put(self, one: _Wanted, packed: bytes) -> None:
        """Give a listing its vector, unless it says something else by now."""
        index = self._index()
        place = index.place_of(one.agent)
        facts = None if place is None else index.facts[place]
        if place is not None and facts is not None and facts.text_key == one.text_key:
            index.vectors.put(place, packed)

    def _take_up(self) -> None:
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            self._waiting.append(self._later.popleft()[1])

    def _due_s(self) -> float:
        """Return in how many seconds something is to be looked for again."""
        return max(0.0, self._later[0][0] - self._clock.monotonic()) if self._later else LATER_S

    def _told(self, count: int) -> None:
        before, self.embedded = self.embedded, self.embedded + count
        if self.embedded // TOLD_EVERY != before // TOLD_EVERY:
            log.info("%s has embedded %d listings, %d wait", self._model, self.embedded, len(self._waiting))

    def _now_us(self) -> int:
        return int(self._clock.now() * 1_000_000)

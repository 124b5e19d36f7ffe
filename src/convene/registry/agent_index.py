"""The index of agents in this process: words, vectors, facts, and sets to filter by. No I/O; `follower.py` fills it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from convene.registry.base_names import bare
from convene.registry.columns import Columns
from convene.registry.documents import facts_of, fields_of, key_of
from convene.registry.globe import Globe
from convene.registry.lexical import LexicalIndex
from convene.registry.vectors import VectorIndex

if TYPE_CHECKING:
    from collections.abc import Collection

    from convene.registry.base_search import ProtocolName
    from convene.registry.documents import Facts
    from convene.registry.pace import Pace
    from convene.store.base_market import AgentRow

STALE_MIN: Final = 1000
CHUNK: Final = 1024


class AgentIndex:
    """All agents that may be found, each at a place."""

    def __init__(self) -> None:
        self.words = LexicalIndex()
        self.vectors = VectorIndex()
        self.globe = Globe()
        self.names: dict[str, ProtocolName] = {}
        """Protocols by their bare digest."""
        self.facts: list[Facts | None] = []
        self.columns = Columns()
        self._places: dict[str, int] = {}
        self._handles: dict[str, int] = {}
        self._named: dict[str, int | set[int]] = {}
        """One place, as for nearly all names, or several."""
        self._groups: dict[str, set[int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    @property
    def is_stale(self) -> bool:
        """Whether more of it is gone than is there, so that a new one is worth making."""
        return self.words.places > STALE_MIN + 2 * len(self._places)

    def apply(self, row: AgentRow, now_us: int) -> int | None:
        """Take in how an agent is now; return its place if its text is new here, so that it needs a vector."""
        place = self._places.get(row.id)
        if row.removed or not row.terms.enabled:
            if place is not None:
                self._remove(place)
            return None
        key = key_of(row, self.names)
        facts = facts_of(row, key)
        before = None if place is None else self.facts[place]
        if place is None or before is None or before.text_key != key:
            if place is not None:
                self._remove(place)
            place = self.words.add(fields_of(row, self.names))
            self.facts.append(None)
            self.columns.add()
            is_new = True
        else:
            self._ungroup(place, before)
            is_new = False
        self._put(place, facts, now_us)
        return place if is_new else None

    def place_of(self, agent: str) -> int | None:
        """Return where the agent of this id is."""
        return self._places.get(agent)

    def by_handle(self, handle: str) -> int | None:
        """Return where the agent of this handle is."""
        return self._handles.get(handle)

    def named(self, name: str) -> Collection[int]:
        """Return where the agents of this folded name are."""
        there = self._named.get(name, set[int]())
        return there if isinstance(there, set) else {there}

    def group(self, name: str) -> set[int]:
        """Return the places of a group: `tag:x`, `proto:x`, `kind:x`, `readme`, `geo`."""
        return self._groups.get(name, set())

    async def top(self, column: str, most: int, pace: Pace, *, ascending: bool = False) -> list[int]:
        """Return the places with the most, or the least, in a column (`columns.NAMES`)."""
        values = self.columns.rows[column]
        turn = 1 if ascending else -1
        best: list[tuple[float, int]] = []
        limit = math.inf
        for start in range(0, len(values), CHUNK):
            some = enumerate(values[start : start + CHUNK], start)
            best += [(turn * value, at) for at, value in some if value >= 0 and turn * value < limit]
            if len(best) >= 2 * most:
                best.sort()
                del best[most:]
                limit = best[-1][0]
            await pace.breathe()
        return [at for _, at in sorted(best)[:most]]

    def _put(self, place: int, facts: Facts, now_us: int) -> None:
        self.facts[place] = facts
        self._places[facts.id] = place
        if facts.handle:
            self._handles[facts.handle] = place
        if facts.name:
            there = self._named.get(facts.name)
            if isinstance(there, set):
                there.add(place)
            else:
                self._named[facts.name] = place if there is None else {there, place}
        for group in _groups_of(facts):
            self._groups.setdefault(group, set()).add(place)
        if facts.geo is not None:
            self.globe.put(place, facts.geo)
        self.columns.put(place, facts, now_us)

    def _ungroup(self, place: int, facts: Facts) -> None:
        if self._handles.get(facts.handle) == place:
            del self._handles[facts.handle]
        there = self._named.get(facts.name)
        if isinstance(there, set):
            there.discard(place)
        if there in (place, set()):
            del self._named[facts.name]
        for group in _groups_of(facts):
            if group in self._groups:
                self._groups[group].discard(place)
                if not self._groups[group]:
                    del self._groups[group]
        if facts.geo is not None:
            self.globe.take(place, facts.geo)

    def _remove(self, place: int) -> None:
        facts = self.facts[place]
        if facts is None:
            return
        self._ungroup(place, facts)
        self._places.pop(facts.id, None)
        self.facts[place] = None
        self.columns.clear(place)
        self.vectors.take(place)
        self.words.drop()


def _groups_of(facts: Facts) -> list[str]:
    groups = [f"kind:{facts.kind}"]
    if facts.agent_type and facts.agent_type != facts.kind:
        groups.append(f"kind:{facts.agent_type}")
    if facts.standing.readme_chars:
        groups.append("readme")
    if facts.geo is not None:
        groups.append("geo")
    groups += [f"tag:{tag}" for tag in facts.tags]
    groups += [f"proto:{bare(digest)}" for digest in facts.digests]
    return groups

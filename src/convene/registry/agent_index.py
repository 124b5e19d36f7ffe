"""The index of agents in this process: words, vectors, facts, and sets to filter by. No I/O; `follower.py` fills it."""

from __future__ import annotations

import heapq
from array import array
from typing import TYPE_CHECKING, Final

from convene.registry.documents import bare, facts_of, fields_of, key_of
from convene.registry.globe import Globe
from convene.registry.lexical import LexicalIndex
from convene.registry.ranking import score
from convene.registry.vectors import VectorIndex

if TYPE_CHECKING:
    from collections.abc import Iterable

    from convene.registry.base_search import ProtocolName
    from convene.registry.documents import Facts
    from convene.registry.pace import Pace
    from convene.store.base_market import AgentRow

STALE_MIN: Final = 1000
CHUNK: Final = 8192
COLUMNS: Final = ("prior", "created", "changed", "calls")


class AgentIndex:
    """All agents that may be found, each at a place."""

    def __init__(self) -> None:
        self.words = LexicalIndex()
        self.vectors = VectorIndex()
        self.globe = Globe()
        self.names: dict[str, ProtocolName] = {}
        """Protocols by their bare digest."""
        self.facts: list[Facts | None] = []
        self._places: dict[str, int] = {}
        self._handles: dict[str, int] = {}
        self._named: dict[str, set[int]] = {}
        self._groups: dict[str, set[int]] = {}
        self._columns = {name: array("d") for name in COLUMNS}

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
            for column in self._columns.values():
                column.append(-1.0)
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

    def named(self, name: str) -> Iterable[int]:
        """Return where the agents of this folded name are."""
        return self._named.get(name, ())

    def group(self, name: str) -> set[int]:
        """Return the places of a group: `tag:x`, `proto:x`, `kind:x`, `readme`, `geo`."""
        return self._groups.get(name, set())

    async def top(self, column: str, most: int, pace: Pace, *, ascending: bool = False) -> list[int]:
        """Return the places with the most, or the least, in a column; `COLUMNS` names them."""
        values = self._columns[column]
        best: list[tuple[float, int]] = []
        for start in range(0, len(values), CHUNK):
            some = ((value, -at) for at, value in enumerate(values[start : start + CHUNK], start) if value >= 0)
            pick = heapq.nsmallest if ascending else heapq.nlargest
            best = pick(most, [*best, *some])
            await pace.breathe()
        return [-at for _, at in best]

    def value(self, column: str, place: int) -> float:
        """Return what a column says of a place."""
        return self._columns[column][place]

    def _put(self, place: int, facts: Facts, now_us: int) -> None:
        self.facts[place] = facts
        self._places[facts.id] = place
        if facts.handle:
            self._handles[facts.handle] = place
        if facts.name:
            self._named.setdefault(facts.name, set()).add(place)
        for group in _groups_of(facts):
            self._groups.setdefault(group, set()).add(place)
        if facts.geo is not None:
            self.globe.put(place, facts.geo)
        self._columns["prior"][place] = score(1.0, facts.standing, now_us).value
        self._columns["created"][place] = facts.created_us
        self._columns["changed"][place] = facts.changed_us
        self._columns["calls"][place] = facts.standing.tally.calls

    def _ungroup(self, place: int, facts: Facts) -> None:
        if self._handles.get(facts.handle) == place:
            del self._handles[facts.handle]
        for groups, group in ((self._named, facts.name), *((self._groups, group) for group in _groups_of(facts))):
            if group in groups:
                groups[group].discard(place)
                if not groups[group]:
                    del groups[group]
        if facts.geo is not None:
            self.globe.take(place, facts.geo)

    def _remove(self, place: int) -> None:
        facts = self.facts[place]
        if facts is None:
            return
        self._ungroup(place, facts)
        self._places.pop(facts.id, None)
        self.facts[place] = None
        for column in self._columns.values():
            column[place] = -1.0
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

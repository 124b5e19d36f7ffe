"""What filters and ranking read of every agent that comes into question, a row of numbers for each fact. Pure.

Facts of one agent are a dozen objects all over the memory; a search looks at five hundred agents, and reading these
objects took longer than all its arithmetic. Here a fact is one look into an array. `agent_index.py` keeps it.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from convene.registry.ranking import failures, fitness, is_reachable, score

if TYPE_CHECKING:
    from convene.registry.documents import Facts

NAMES: Final = ("prior", "created", "changed", "calls", "impressions", "fitness", "answered", "expires")
HERE: Final = 1
SAID_ACTIVE: Final = 2
CALLABLE: Final = 4
README: Final = 8
GEO: Final = 16
FAILING: Final = 32
"""It has failures that still count, so its health depends on the time."""
REACHABLE: Final = 64
NOBODY: Final = -1.0


class Columns:
    """Facts by the places of the index."""

    __slots__ = ("flags", "rows")

    def __init__(self) -> None:
        self.flags = bytearray()
        """For each place those of the bits above that are true of it; 0: nobody is there."""
        self.rows = {name: array("d") for name in NAMES}
        """For each place `NOBODY`, or: its score for a question that it fits wholly (`prior`), microseconds (`expires`:
        infinite if it never does), counts."""

    def add(self) -> None:
        """Have one more place, with nobody there."""
        self.flags.append(0)
        for row in self.rows.values():
            row.append(NOBODY)

    def clear(self, place: int) -> None:
        """Say that nobody is at a place any more."""
        self.flags[place] = 0
        for row in self.rows.values():
            row[place] = NOBODY

    def put(self, place: int, facts: Facts, now_us: int) -> None:
        """Say who is at a place."""
        standing, tally, rows = facts.standing, facts.standing.tally, self.rows
        rows["prior"][place] = score(1.0, standing, now_us).value
        rows["created"][place] = facts.created_us
        rows["changed"][place] = facts.changed_us
        rows["calls"][place] = tally.calls
        rows["impressions"][place] = tally.impressions
        rows["fitness"][place] = fitness(facts.quality, facts.success)
        rows["answered"][place] = tally.answered_us
        rows["expires"][place] = facts.expires_us or float("inf")
        self.flags[place] = (
            HERE
            | SAID_ACTIVE * facts.said_active
            | CALLABLE * standing.callable
            | README * bool(standing.readme_chars)
            | GEO * (facts.geo is not None)
            | FAILING * bool(failures(standing))
            | REACHABLE * is_reachable(standing)
        )

"""What a hit must be, by the filters of a search (SEARCH-02, PICK-07). Pure; `search.py` calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.registry.base_names import bare
from convene.registry.columns import CALLABLE, GEO, HERE, REACHABLE, README, SAID_ACTIVE
from convene.registry.words import fold

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convene.registry.agent_index import AgentIndex
    from convene.registry.base_search import Filters, SearchRequest

SMALL: Final = 4_096
"""A group of at most so many is looked through whole."""


class Sieve:
    """Lets those agents through that are as a search asks."""

    def __init__(self, index: AgentIndex, request: SearchRequest, now_us: int, *, directly: bool) -> None:
        """`directly`: agents that the text names pass whether they are active or not, and wherever they are."""
        filters = request.filters
        self._flags = index.columns.flags
        self._expires = index.columns.rows["expires"]
        self._calls = index.columns.rows["calls"]
        self._now_us = now_us
        self._groups = _groups(index, filters)
        self._alive = {state == "active" for state in filters.state if state in ("active", "inactive")}
        answering = {state == "responsive" for state in filters.state if state in ("responsive", "unresponsive")}
        self._dead_too = directly or "inactive" in filters.state
        self._calls_min = filters.n_interactions or 0
        self._nobody = bool(filters.category) and "community" not in filters.category
        self._looked_at = self._wanted = HERE
        no_geo = request.exclude_geo and request.near is None and filters.has_location is None and not directly
        self._ask(GEO, here=False if no_geo or filters.has_location is False else None)
        self._ask(README, here=False if filters.has_readme is False else None)
        self._ask(CALLABLE, here=True if request.callable_only else None)
        self._ask(REACHABLE, here=answering.pop() if len(answering) == 1 else None)

    def _ask(self, flag: int, *, here: bool | None) -> None:
        """Ask for a flag, or that it is not there; None: it does not matter."""
        if here is not None:
            self._looked_at |= flag
            self._wanted |= flag * here

    def members(self, places: Iterable[int]) -> set[int]:
        """Return those of some places that are in the groups that are asked for."""
        if self._nobody:
            return set()
        found = set(places)
        for groups in self._groups:
            found = set[int]().union(*(group.intersection(found) for group in groups))
        return found

    def passes(self, place: int) -> bool:
        """Whether a member is as asked in all else."""
        flags = self._flags[place]
        if flags & self._looked_at != self._wanted or self._calls[place] < self._calls_min:
            return False
        active = flags & SAID_ACTIVE != 0 and self._expires[place] > self._now_us
        return (active or self._dead_too) and (not self._alive or active in self._alive)


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


def smallest(index: AgentIndex, request: SearchRequest) -> set[int] | None:
    """Return the smallest group that all hits are in, if it is small enough to be looked through."""
    small = [
        set[int]().union(*group) for group in _groups(index, request.filters) if sum(len(one) for one in group) <= SMALL
    ]
    if request.near is not None:
        small.append(set(index.globe.around(request.near)))
    return min(small, key=len) if small else None

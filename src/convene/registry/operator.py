"""What the operator does with agents (`base_operator.OperatorDesk`), over the store."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest, NotFound
from convene.registry.base_names import whole_url
from convene.registry.directory import found_of
from convene.registry.search import hit_of
from convene.registry.words import fold
from convene.store.base_market import AgentRow, Listing, Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.clock import Clock
    from convene.registry.base_operator import Card, Describe, Draft, Heard, Ping
    from convene.registry.base_search import Hit
    from convene.store.base_market import Market, Terms

NAME_MAX: Final = 32
DESCRIPTION_MAX: Final = 300
README_MAX: Final = 80_000
SKILLS_MAX: Final = 100
SKILL_MAX: Final = 500
_URL: Final = re.compile(r"https?://[^\s/]+\S*")
_HANDLE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")


class Operator:
    """Implements `OperatorDesk`."""

    def __init__(
        self,
        market: Callable[[], Market],
        clock: Clock,
        describe: Describe | None = None,
        ping: Ping | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is told that a row is new, so that the index follows at once."""
        self._market = market
        self._clock = clock
        self._describe = describe
        self._ping = ping
        self._changed = changed

    async def page(self, limit: int, after: str = "") -> tuple[Sequence[Hit], bool]:
        """See `OperatorDesk.page`."""
        version = (await self._row(after)).version if after else 0
        found: list[AgentRow] = []
        while len(found) <= limit:
            rows = await self._market().newer(version, limit + 1)
            if not rows:
                break
            version = rows[-1].version
            found += (row for row in rows if not row.removed)
        return [hit_of(row, self._now_us()) for row in found[:limit]], len(found) > limit

    async def show(self, agent: str) -> Hit:
        """See `OperatorDesk.show`."""
        return hit_of(await self._row(agent), self._now_us())

    async def _row(self, agent: str) -> AgentRow:
        market = self._market()
        name = whole_url(agent.strip())
        row = await (market.by_handle(fold(name[1:])) if name.startswith("@") else market.get(name))
        if row is None:
            raise NotFound(
                f"There is no agent {agent[:200]!r} here. It is named by its address, its URL or its @handle.",
                code="agent_not_found",
            )
        return row

    async def add(self, draft: Draft, terms: Terms) -> Hit:
        """See `OperatorDesk.add`."""
        if _URL.fullmatch(draft.url) is None:
            raise BadRequest("url must be where an A2A agent or an MCP server is: http(s)://...", param="url")
        handle = fold(draft.handle)
        if handle and _HANDLE.fullmatch(handle) is None:
            raise BadRequest("handle must be 1 to 40 letters, digits, dots, hyphens or underscores.", param="handle")
        if self._describe is None:
            raise BadRequest("Agents cannot be asked here: [agents] enabled is false.", param="url")
        card = await self._describe(draft.url)
        market, now_us = self._market(), self._now_us()
        known = await market.get(card.url)
        row = AgentRow(
            id=card.url,
            protocol=card.protocol,
            owner=draft.owner if known is None else known.owner,
            listed=True,
            listing=_listing(card, draft, handle, known),
            version=0 if known is None else known.version,
        )
        row = await market.list_agent(row, now_us)
        if row.terms != terms:
            await market.set_terms(row.id, terms, now_us)
        self._changed()
        return await self.show(row.id)

    async def set_terms(self, agent: str, terms: Terms) -> Hit:
        """See `OperatorDesk.set_terms`."""
        row = await self._row(agent)
        await self._market().set_terms(row.id, terms, self._now_us())
        self._changed()
        return await self.show(row.id)

    async def remove(self, agent: str) -> str:
        """See `OperatorDesk.remove`."""
        row = await self._row(agent)
        await self._market().remove(row.id, self._now_us())
        self._changed()
        return row.id

    async def ping(self, agent: str) -> tuple[Hit, Heard]:
        """See `OperatorDesk.ping`."""
        row = await self._row(agent)
        if self._ping is None:
            raise BadRequest("Agents cannot be asked here: [agents] enabled is false.")
        heard = await self._ping(found_of(row, score=1.0, reachable=True))
        self._changed()
        return await self.show(row.id), heard

    def _now_us(self) -> int:
        return int(self._clock.now() * 1_000_000)


def _listing(card: Card, draft: Draft, handle: str, known: AgentRow | None) -> Listing:
    """Return a card as a listing: what the operator says comes first, then the card, then what was there."""
    before = Listing() if known is None else known.listing
    profile = msgspec.structs.replace(
        before.profile,
        description=(draft.description or card.description)[:DESCRIPTION_MAX],
        readme=card.readme[:README_MAX],
    )
    return Listing(
        name=(draft.name or card.name)[:NAME_MAX],
        handle=handle or before.handle,
        url=card.url,
        agent_type=card.protocol,
        profile=profile if known is not None else Profile(description=profile.description, readme=profile.readme),
        skills=tuple(skill[:SKILL_MAX] for skill in card.skills[:SKILLS_MAX]),
        tags=draft.tags or before.tags,
        geo=before.geo,
        metadata=before.metadata,
    )

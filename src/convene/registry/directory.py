"""This server's own marketplace as a `base.Directory`: what a model searches in and what it learns from."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from convene.registry.base import Found
from convene.registry.base_search import LIMIT_MAX, Filters, SearchRequest
from convene.registry.documents import facts_of
from convene.registry.ranking import is_reachable
from convene.registry.words import fold
from convene.store.base_market import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.clock import Clock
    from convene.registry.base import Interaction
    from convene.registry.base_search import AgentSearch
    from convene.store.base_market import AgentRow, Market

SHOWN_KEPT: Final = 4096
SHOWN_S: Final = 3_600.0
"""A call of an agent that was shown within this time was chosen from a search; another was called by its name."""
ACTIVE: Final = Filters(state=("active",))


class LocalDirectory:
    """Implements `base.Directory`."""

    def __init__(
        self,
        search: AgentSearch,
        market: Callable[[], Market],
        clock: Clock,
        own: Callable[[], str] = lambda: "",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Take what is needed.

        Args:
            search: finds.
            market: the rows behind it.
            clock: the time.
            own: our own address, which is not found: this server would ask itself.
            changed: is told that a row is new, so that the index follows at once.
        """
        self._search = search
        self._market = market
        self._clock = clock
        self._own = own
        self._changed = changed
        self._shown: OrderedDict[str, float] = OrderedDict()

    async def search(self, query: str, limit: int, *, source: str = "") -> Sequence[Found]:
        """See `Directory.search`. Those that cannot be asked are left out, those that do not answer come last."""
        request = SearchRequest(
            text=query,
            filters=ACTIVE,
            cutoff="permissive",
            semantic=True,
            limit=min(limit + 1, LIMIT_MAX),
            exclude_geo=False,
            callable_only=True,
            source=source,
        )
        own = self._own()
        hits = [hit for hit in (await self._search.search(request)).hits if hit.row.id != own][:limit]
        now = self._clock.monotonic()
        for hit in hits:
            self._shown[hit.row.id] = now
            self._shown.move_to_end(hit.row.id)
        while len(self._shown) > SHOWN_KEPT:
            self._shown.popitem(last=False)
        return [found_of(hit.row, score=hit.score.value, reachable=hit.reachable) for hit in hits]

    async def find(self, name: str) -> Found | None:
        """See `Directory.find`. It asks the store, so that an agent is there as soon as it has registered."""
        market = self._market()
        handle = fold(name.removeprefix("@"))
        row = None if name.startswith("@") else await market.get(name) or await market.by_url(name)
        row = row or (await market.by_handle(handle) if handle else None)
        if row is None or not row.terms.enabled:
            return None
        return found_of(row, score=1.0, reachable=is_reachable(facts_of(row, b"").standing))

    async def note(self, interaction: Interaction) -> None:
        """See `Directory.note`."""
        agent = interaction.agent
        shown = self._shown.get(agent)
        called = interaction.outcome is not None  # else the judge speaks of a call that was counted when it ended
        picked = called and shown is not None and self._clock.monotonic() - shown <= SHOWN_S
        seen = Seen(
            id=agent,
            at_us=int(self._clock.now() * 1_000_000),
            outcome=None if interaction.outcome == "late" else interaction.outcome,
            seconds=interaction.seconds,
            useful=interaction.useful,
            picked=int(picked),
        )
        await self._market().see([seen])
        self._changed()


def found_of(row: AgentRow, *, score: float, reachable: bool) -> Found:
    """Return a row as `serving/` and its tools know agents."""
    listing = row.listing
    is_acp = row.protocol == "acp"
    return Found(
        protocol=row.protocol,
        name=listing.name or row.id,
        address=row.id if is_acp else "",
        url="" if is_acp else listing.url or row.id,
        handle=listing.handle,
        description=listing.profile.description,
        readme=listing.profile.readme,
        skills=listing.skills,
        endpoints=tuple(endpoint.url for endpoint in row.endpoints),
        protocols=tuple(row.protocols) if is_acp else (),
        price_micros=row.terms.price_micros,
        score=score,
        reachable=reachable,
    )

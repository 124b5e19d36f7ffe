"""Cards of A2A agents, found from whatever URL a user or a directory has of them (A2A-01, A2A-02). Kept for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.agents.a2a_codec import Card, NotA2aError, read_card
from convene.agents.base import AgentCard
from convene.agents.credentials import CARD_PATHS, origin_of
from convene.agents.faults import TalkFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.agents.a2a_wire import A2aWire
    from convene.clock import Clock

KEPT_S: Final = 300.0
KEPT_MAX: Final = 512
OK: Final = 200
KEYS: Final = frozenset({401, 403})

NO_CARD: Final = "There is no A2A agent at this address: {why}."
CLOSED: Final = "The agent's card is not shown without credentials ({status}); the operator can set them."


class Shown(msgspec.Struct, frozen=True):
    """A card and where it was."""

    url: str
    card: Card


class Discovery:
    """All cards of one process."""

    def __init__(self, wire: A2aWire, clock: Clock) -> None:
        """`wire` fetches them."""
        self._wire = wire
        self._clock = clock
        self._kept: dict[str, tuple[float, Shown]] = {}

    async def find(self, url: str, agent: str = "") -> Shown:
        """Return the card of the agent at a URL. Raises `TalkFault`; `agent` is what credentials go by."""
        kept = self._kept.get(url)
        if kept is not None and self._clock.monotonic() - kept[0] < KEPT_S:
            return kept[1]
        shown = await self._fetch(url, agent or url)
        self._kept.pop(url, None)
        if len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[url] = (self._clock.monotonic(), shown)
        return shown

    def forget(self, url: str) -> None:
        """Look at a card anew next time: what it says was not right."""
        self._kept.pop(url, None)

    async def _fetch(self, url: str, agent: str) -> Shown:
        why = "no address of it can be read"
        for place in places_of(url):
            status, body = await self._wire.card(agent, place)
            if status in KEYS:
                raise TalkFault(CLOSED.format(status=status), "refused")
            if status != OK:
                why = f"it answers {status} where a card should be"
                continue
            try:
                return Shown(place, read_card(body))
            except NotA2aError as fault:
                why = str(fault)
        raise TalkFault(NO_CARD.format(why=why), "unreadable")


def places_of(url: str) -> Sequence[str]:
    """Return where the card of the agent at a URL may be, the likeliest place first."""
    if url.partition("?")[0].endswith(".json"):
        return (url,)
    origin = origin_of(url)
    if origin is None:
        return ()
    base = url.partition("?")[0].rstrip("/")
    scheme, _, rest = base.partition("://")
    root = f"{scheme}://{rest.partition('/')[0]}"
    return tuple(dict.fromkeys(f"{start}{path}" for path in CARD_PATHS for start in (base, root)))


def as_agent(shown: Shown) -> AgentCard:
    """Return a card as the rest of the house knows agents: the skills are its README (A2A-02)."""
    card = shown.card
    skills = tuple(f"{one.name}: {one.description}" if one.description else one.name for one in card.skills)
    readme = "\n".join((f"# {card.name}", "", card.description, *(["", "## Skills", ""] if skills else [])))
    readme += "".join(f"- {skill}\n" for skill in skills)
    return AgentCard(
        protocol="a2a", url=shown.url, name=card.name, description=card.description, readme=readme, skills=skills
    )

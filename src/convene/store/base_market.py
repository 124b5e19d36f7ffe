"""The seam of the marketplace: agents that have registered or were listed, and what is kept for them.

One row an agent, whatever it speaks, found by its id: the address of an ACP agent, else the URL of an A2A card or an
MCP server. A row has three parts with a writer each: the *record* (the agent itself, by its signature), the *listing*
(its owner, or the agent itself) and the *tally* (this server, of what it has seen). Every change gives the row a new
version, so that an index of any process follows by asking for what is newer. Who may write what is decided in
`registry/`, not here. Every implementation passes `tests/contract/test_market.py` unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

AgentProtocol = Literal["acp", "a2a", "mcp"]
Outcome = Literal["success", "failed", "timed_out", "refused"]

FORGET_MAX: Final = 1_000
"""Rows that one call of `forget` removes: each has a version of its own."""
NEWEST: Final = 0.2
"""Weight of the newest answer in the moving mean of seconds."""


class Endpoint(msgspec.Struct, frozen=True):
    """Where an agent takes messages. `weight` is above 0 (RES-03)."""

    url: str
    weight: int = 1


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent says of itself and has signed: the record part of a row (REG-01, REG-14)."""

    id: str
    prefix: str = "agent"
    protocol: AgentProtocol = "acp"
    endpoints: tuple[Endpoint, ...] = ()
    protocols: tuple[str, ...] = ()
    """Digests, `proto:...`."""
    metadata: dict[str, object] = {}
    stamp: int
    """Its own time, Unix seconds; one that is not newer than the stored one is a replay (REG-12)."""
    expires_us: int


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an agent presents itself."""

    description: str = ""
    readme: str = ""
    avatar_url: str = ""
    banner_url: str = ""
    starter_prompts: tuple[object, ...] = ()


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The listing part of a row, whole. Merging of what came with what is there is done in `registry/` (LIST-08)."""

    name: str = ""
    handle: str = ""
    """Small letters, unique among all agents unless empty."""
    url: str = ""
    """Where a proxied agent really is, or the card of an A2A agent, or an MCP server."""
    agent_type: str = ""
    profile: Profile = Profile()
    skills: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    geo: tuple[float, float, float] | None = None
    """Latitude and longitude in degrees, radius in kilometres."""
    metadata: dict[str, object] = {}


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator says of an agent."""

    enabled: bool = True
    """False: it is neither found nor asked."""
    price_micros: int = 0
    """What a call costs the caller, in millionths of the currency."""


class Tally(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What this server has seen of an agent; ranking and health follow from it (SEARCH-11, PICK-06)."""

    calls: int = 0
    """All that have ended; one that was refused is neither a success nor a failure."""
    successes: int = 0
    judged: int = 0
    """Answers that somebody has judged, and of them those that did what was asked."""
    useful: int = 0
    failures_in_row: int = 0
    answered_us: int = 0
    """Last good answer, Unix microseconds; 0: never."""
    failed_us: int = 0
    seconds: float = 0.0
    """Of an answer, as a moving mean."""
    impressions: int = 0
    """How often it was shown in a search, and chosen from one (PICK-08)."""
    picks: int = 0


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One agent. Times are Unix microseconds."""

    id: str
    protocol: AgentProtocol = "acp"
    prefix: str = "agent"
    owner: str = ""
    """Whose listing it is; empty: the agent's own."""
    endpoints: tuple[Endpoint, ...] = ()
    protocols: tuple[str, ...] = ()
    metadata: dict[str, object] = {}
    """Of its registration (geolocation)."""
    stamp: int = 0
    """Of its newest registration; 0: it has never registered."""
    registered_us: int = 0
    expires_us: int = 0
    active: bool = True
    """What it has said itself of its state (REG-07)."""
    status_stamp: int = 0
    listed: bool = False
    listing: Listing = Listing()
    terms: Terms = Terms()
    tally: Tally = Tally()
    created_us: int = 0
    changed_us: int = 0
    """Of record or listing, not of the tally."""
    version: int = 0
    """Grows with every change; of all rows of a store no two have the same."""
    removed: bool = False
    """Kept for a while so that indexes learn of it; `get` and `by_handle` do not give it."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to be counted in a tally."""

    id: str
    at_us: int
    outcome: Outcome | None = None
    """How a call went; None: there was none."""
    seconds: float = 0.0
    useful: bool | None = None
    """What the judge said of the answer (PICK-04)."""
    shown: int = 0
    picked: int = 0


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope that waits for a mailbox agent (MBOX-02)."""

    uuid: str
    """Version 4."""
    address: str
    envelope: bytes
    """JSON, as it was posted."""
    received_us: int
    expires_us: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A protocol that somebody has published (REG-08)."""

    digest: str
    """`proto:...`."""
    name: str
    version: str
    body: bytes = b""
    """JSON; empty where only the name is known."""


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody is to sign with an agent's key, once (LIST-05)."""

    address: str
    owner: str
    text: str
    expires_us: int


class Asset(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an agent has left for others to fetch (STORE-01)."""

    id: str
    owner: str
    """Address of the agent, or owner of the key, that has left it."""
    name: str
    media_type: str
    contents: bytes
    expires_us: int
    readers: tuple[str, ...] = ()
    """Addresses that may read it beside the owner; `*`: anybody."""
    writers: tuple[str, ...] = ()


class Market(Protocol):
    """The marketplace of one store. Every call raises `StoreFault` if it cannot be used."""

    async def register(self, registrations: Sequence[Registration], now_us: int) -> list[bool]:
        """Write records, and say of each whether it stands now. All in one transaction.

        One stands if it is newer than what was there; or if it is that very one again, which then lasts longer and
        changes nothing else (a Bureau posts what it signed at its start every hour). Registering makes active, unless
        the agent has said something of its state since. A row that is removed comes back without its listing.
        """
        ...

    async def set_status(self, agent_id: str, stamp: int, now_us: int, *, active: bool) -> bool:
        """Write what an agent says of its state; False: it is unknown, or has said or registered something newer.

        Of two that it has said in one second the one that comes later stands.
        """
        ...

    async def list_agent(self, row: AgentRow, now_us: int) -> AgentRow:
        """Write a row of which the caller has read the version, and return it as it is then.

        All of it is written but its stamps, state, terms, tally and times of making; a row that does not exist (or is
        removed) is made with all of `row` but its tally, and with the stamps of the removed one if they are newer.

        Raises `convene.errors.Conflict`: code `handle_taken` if another agent has the handle, `agent_changed` if
        `row.version` is not the stored one, so that two who merge at once do not lose each other's.
        """
        ...

    async def set_terms(self, agent_id: str, terms: Terms, now_us: int) -> bool:
        """Write the operator's terms; False: it is unknown."""
        ...

    async def remove(self, agent_id: str, now_us: int) -> bool:
        """Take an agent away, with what waits for it; False: it is unknown.

        Its stamps and the operator's terms stay, so that nothing old is taken for new if it comes back.
        """
        ...

    async def get(self, agent_id: str) -> AgentRow | None:
        """Return an agent, active or not."""
        ...

    async def by_handle(self, handle: str) -> AgentRow | None:
        """Return the agent of a handle."""
        ...

    async def by_url(self, url: str) -> AgentRow | None:
        """Return an agent whose listing has this URL, the oldest of several."""
        ...

    async def page(self, owner: str, limit: int, offset: int = 0) -> list[AgentRow]:
        """Return the listed agents of an owner, newest first."""
        ...

    async def count(self) -> int:
        """Return how many agents there are."""
        ...

    async def newer(self, version: int, limit: int) -> list[AgentRow]:
        """Return rows of a greater version, smallest first, removed ones too."""
        ...

    async def speakers(self, protocol: str, now_us: int, limit: int) -> list[AgentRow]:
        """Return active, unexpired agents that have registered this protocol's digest, newest registration first.

        Of any protocol, if it is empty.
        """
        ...

    async def see(self, seen: Sequence[Seen]) -> None:
        """Count; what is said of unknown agents is ignored."""
        ...

    async def drop(self, letter: Letter, letters_max: int) -> bool:
        """Keep an envelope; False: that many wait for this address already."""
        ...

    async def letters(self, address: str, now_us: int, limit: int) -> list[Letter]:
        """Return what waits, oldest first."""
        ...

    async def take(self, address: str, uuid: str) -> bool:
        """Delete an envelope; False: none of this address has this id."""
        ...

    async def publish(self, manifest: Manifest, manifests_max: int) -> bool:
        """Keep a protocol; one that is known already stays as it is, but gets its body if it has none.

        False: there are that many already.
        """
        ...

    async def manifests(self, digests: Sequence[str] | None = None) -> list[Manifest]:
        """Return protocols, all of them or these."""
        ...

    async def challenge(self, challenge: Challenge) -> None:
        """Keep a challenge, in the place of an older one for the same address and owner."""
        ...

    async def answered(self, address: str, owner: str, text: str, now_us: int) -> bool:
        """Use a challenge up; False: there is none like this, or it has expired."""
        ...

    async def keep_asset(self, asset: Asset, assets_max: int) -> bool:
        """Keep a file, in the place of one of the same id and owner.

        False: the owner has that many already, or the id is somebody else's.
        """
        ...

    async def asset(self, asset_id: str, now_us: int) -> Asset | None:
        """Return a file that has not expired."""
        ...

    async def forget(self, now_us: int, removed_before_us: int) -> int:
        """Delete what has expired (letters, challenges, files) and rows removed before; return how many.

        Records that have expired stay, as unregistered: a listing outlives the agent's absence (REG-04). Those without
        a listing that expired before `removed_before_us` are removed, at most `FORGET_MAX` of them by one call.
        """
        ...

"""What `api/` knows of the marketplace: who asks, and the desks that answer. All may raise `StoreFault` besides.

Implementations are `almanac.py`, `listings.py`, `mailbox.py`, `proxy.py` and `assets.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.store.base_market import AgentRow, Asset, Letter, Manifest


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, as far as it is proven; all empty for a stranger."""

    owner: str = ""
    """Of the key that came."""
    agent: str = ""
    """Address that an attestation proves."""
    trusted: bool = False
    """The registry is open to whoever asks from where this one does (decision 17)."""


NOBODY = Asker()


class Forwarded(msgspec.Struct, frozen=True):
    """What an agent behind the proxy has answered."""

    status: int
    body: bytes
    media_type: str


class AlmanacDesk(Protocol):
    """Where agents are, by their own word."""

    async def register(self, bodies: Sequence[Mapping[str, object]], asker: Asker) -> None:
        """Take in what agents have signed; all of it or, if a signature does not fit, nothing.

        One that is not newer than what stands is refused if it comes alone (`Conflict`), and in a batch passed over.
        Raises `BadRequest`, `Forbidden` and `Busy`.
        """
        ...

    async def set_status(self, address: str, body: Mapping[str, object]) -> None:
        """Take in what an agent has signed of its state; of one that is unknown nothing is kept (REG-06).

        Raises `BadRequest`.
        """
        ...

    async def resolve(self, name: str) -> AgentRow | None:
        """Return the agent of an address, a handle or `[prefix://][name/]address`, if it is registered now.

        Raises `BadRequest` for what cannot be a name.
        """
        ...

    async def speakers(self, digest: str, limit: int) -> Sequence[AgentRow]:
        """Return agents that speak a protocol (of any, if empty), newest registration first."""
        ...

    async def publish(self, body: Mapping[str, object]) -> None:
        """Keep a protocol whose digest fits. Raises `BadRequest` and `Busy`."""
        ...

    async def manifests(self, digests: Sequence[str] | None = None) -> Sequence[Manifest]:
        """Return protocols, all or these."""
        ...


class ListingDesk(Protocol):
    """How agents present themselves, and whose they are."""

    async def challenge(self, address: str, owner: str) -> str:
        """Return a text to sign with the agent's key, once. Raises `BadRequest`."""
        ...

    async def prove(self, address: str, owner: str, challenge: str, response: str) -> None:
        """Note that an owner has an agent's key. Raises `BadRequest`, `Conflict` if it is another owner's."""
        ...

    async def login(self, address: str, challenge: str, response: str) -> tuple[str, int]:
        """Return a token that proves the agent, and when it ends (Unix seconds). Raises `BadRequest`."""
        ...

    def logged_in(self, token: str) -> str:
        """Return the address that a token proves. Raises `Unauthorized`."""
        ...

    async def save(self, body: Mapping[str, object], asker: Asker, *, old: bool = False) -> AgentRow:
        """Merge a listing; `old`: by the limits of old libraries.

        Raises `BadRequest`, `Forbidden`, `Conflict` and `Busy`.
        """
        ...

    async def show(self, address: str, asker: Asker) -> AgentRow | None:
        """Return an agent to its owner or to itself; an open registry gives an agent of its own even if unknown."""
        ...

    async def page(self, asker: Asker, limit: int, offset: int) -> Sequence[AgentRow]:
        """Return the listings of a key's owner, newest first."""
        ...

    async def delete(self, address: str, asker: Asker) -> None:
        """Take a listing away; what the agent registers stays. Raises `NotFound`."""
        ...


class MailDesk(Protocol):
    """What waits for agents that are not reached."""

    async def submit(self, body: bytes) -> None:
        """Keep an envelope. Raises `BadRequest`, `NotFound` (there is no such mailbox), `Busy` (it is full)."""
        ...

    async def waiting(self, address: str) -> Sequence[Letter] | None:
        """Return what waits, oldest first; None: the agent has no mailbox here."""
        ...

    async def take(self, address: str, uuid: str) -> bool:
        """Delete an envelope; False: there is none of this id."""
        ...

    async def is_ready(self, address: str) -> bool:
        """Whether envelopes are taken for this agent."""
        ...


class ProxyDesk(Protocol):
    """Agents that hide their own address behind this server's."""

    async def submit(self, body: bytes, connection: str, *, proxied: bool) -> Forwarded:
        """Hand an envelope on and return the answer; `connection`: the header x-uagents-connection.

        `proxied`: it has come through a proxy like this one already. Raises `BadRequest`, `NotFound`, `UpstreamFault`.
        """
        ...

    async def is_ready(self, address: str) -> bool:
        """Whether there is an address to hand on to."""
        ...


class AssetDesk(Protocol):
    """Files that agents leave for each other."""

    async def keep(self, body: Mapping[str, object], asker: Asker) -> str:
        """Keep a file and return its id. Raises `BadRequest`, `Unauthorized`, `TooLarge`, `Busy`."""
        ...

    async def change(self, asset_id: str, body: Mapping[str, object], asker: Asker) -> None:
        """Write a file anew. Raises `BadRequest`, `NotFound`, `TooLarge`."""
        ...

    async def permit(self, asset_id: str, body: Mapping[str, object], asker: Asker) -> None:
        """Say who may read and write it. Raises `BadRequest`, `NotFound`."""
        ...

    async def show(self, asset_id: str, asker: Asker) -> Asset:
        """Return a file to who may read it. Raises `NotFound`."""
        ...

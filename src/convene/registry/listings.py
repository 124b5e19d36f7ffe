"""Listings: whose an agent is, and how it presents itself (LIST). Called by `api/agentverse.py`.

Two may write a listing: the owner of a key who has signed a challenge with the agent's key, and the agent itself by an
attestation. What belongs to another owner looks like what is not there (invariant 9).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from convene.agent_identity import verify_digest
from convene.errors import BadRequest, Busy, Conflict, ConveneError, Forbidden, NotFound, Unauthorized
from convene.moments import SECOND_US
from convene.registry.base_names import ADDRESS
from convene.registry.listing import NAME_MAX, OLD_NAME_MAX, fresh, merge, read_change, unlist
from convene.store.base_market import Challenge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from convene.clock import Clock
    from convene.registry.base_desks import Asker
    from convene.store.base_market import AgentRow, Market

CHALLENGE_S: Final = 300
TOKEN_S: Final = 86_400
OWNED_MAX: Final = 1_000
"""Listings of one owner."""
TRIES: Final = 5
"""A listing is merged again if somebody else has written the row meanwhile, a registration for instance."""
PAGE_MAX: Final = 100
_TOKEN_OWNER: Final = ""
"""Nobody's key: the challenges of agents that log in with their own."""


class Signer(Protocol):
    """Our identity."""

    @property
    def address(self) -> str:
        """`agent1q...`."""
        ...

    def sign(self, data: bytes) -> str:
        """Return the signature of the hash of these bytes."""
        ...


class Listings:
    """A `ListingDesk`."""

    def __init__(
        self,
        market: Callable[[], Market],
        clock: Clock,
        keep_us: int,
        admit: Callable[[Sequence[str], Asker], Awaitable[None]],
        me: Callable[[], Signer | None],
    ) -> None:
        """`admit` refuses agents that may not come in; tokens of old libraries are signed with our key (`me`)."""
        self._market = market
        self._clock = clock
        self._keep_us = keep_us
        self._admit = admit
        self._me = me

    async def challenge(self, address: str, owner: str) -> str:
        """Return a text to sign (`base_desks.ListingDesk`)."""
        _check_address(address)
        text = f"convene-{self._clock.token(32).hex()}"
        expires_us = self._now_us() + CHALLENGE_S * SECOND_US
        await self._market().challenge(Challenge(address=address, owner=owner, text=text, expires_us=expires_us))
        return text

    async def prove(self, address: str, owner: str, challenge: str, response: str) -> None:
        """Note that an owner has an agent's key (`base_desks.ListingDesk`)."""
        await self._check_answer(address, owner, challenge, response)
        await self._change(address, lambda row: _owned(row, owner))

    async def login(self, address: str, challenge: str, response: str) -> tuple[str, int]:
        """Return a token that proves the agent (`base_desks.ListingDesk`)."""
        await self._check_answer(address, _TOKEN_OWNER, challenge, response)
        ends = int(self._clock.now()) + TOKEN_S
        return f"{address}.{ends}.{self._signer().sign(_token(address, ends))}", ends

    def logged_in(self, token: str) -> str:
        """Return the address that a token proves (`base_desks.ListingDesk`)."""
        address, _, rest = token.partition(".")
        ends, _, signature = rest.partition(".")
        good = ADDRESS.fullmatch(address) and ends.isdecimal() and len(ends) < len("99999999999")
        if good and int(ends) > self._clock.now():
            digest = hashlib.sha256(_token(address, int(ends))).digest()
            if verify_digest(self._signer().address, digest, signature):
                return address
        raise Unauthorized("The token is not valid, or has expired; prove the agent again.", code="invalid_token")

    async def save(self, body: Mapping[str, object], asker: Asker, *, old: bool = False) -> AgentRow:
        """Merge a listing (`base_desks.ListingDesk`)."""
        change = read_change(body)
        address = change.address or asker.agent
        _check_address(address)
        if not (asker.agent == address or asker.owner):
            raise _not_proven()
        if asker.agent == address:
            await self._admit([address], asker)

        def merged(row: AgentRow) -> AgentRow:
            if asker.agent != address and (not row.owner or row.owner != asker.owner):
                raise _not_proven()
            return merge(row, change, self._now_us(), self._keep_us, OLD_NAME_MAX if old else NAME_MAX)

        return await self._change(address, merged)

    async def show(self, address: str, asker: Asker) -> AgentRow | None:
        """Return an agent to its owner or to itself (`base_desks.ListingDesk`)."""
        row = await self._market().get(address)
        if asker.agent == address:
            return row if row is not None or not asker.trusted else fresh(address)
        return row if row is not None and row.owner and row.owner == asker.owner else None

    async def page(self, asker: Asker, limit: int, offset: int) -> Sequence[AgentRow]:
        """Return the listings of an owner (`base_desks.ListingDesk`)."""
        return await self._market().page(asker.owner, min(limit, PAGE_MAX), offset)

    async def delete(self, address: str, asker: Asker) -> None:
        """Take a listing away (`base_desks.ListingDesk`)."""
        row = await self.show(address, asker)
        if row is None or not row.version:
            raise NotFound("You have no agent of this address.", code="agent_not_found")
        if row.stamp and row.expires_us > self._now_us():
            await self._change(address, unlist)
        else:
            await self._market().remove(address, self._now_us())

    async def _change(self, address: str, change: Callable[[AgentRow], AgentRow]) -> AgentRow:
        """Write what a change makes of the row, again if somebody else has written it meanwhile."""
        for _ in range(TRIES):
            row = await self._market().get(address) or fresh(address)
            try:
                changed = change(row)
                if changed.owner and changed.owner != row.owner:
                    await self._check_room(changed.owner)
                return await self._market().list_agent(changed, self._now_us())
            except Conflict as fault:
                if fault.code != "agent_changed":
                    raise
        raise Busy("The agent changes too fast; try again.", retry_after_s=1)

    async def _check_room(self, owner: str) -> None:
        if await self._market().page(owner, 1, OWNED_MAX - 1):
            raise Busy(f"One owner lists at most {OWNED_MAX} agents.")

    async def _check_answer(self, address: str, owner: str, challenge: str, response: str) -> None:
        _check_address(address)
        fits = verify_digest(address, hashlib.sha256(challenge.encode()).digest(), response)
        if not fits or not await self._market().answered(address, owner, challenge, self._now_us()):
            raise BadRequest(
                "The challenge is used or expired, or its signature does not fit the address; ask for a new one.",
                code="invalid_challenge",
                param="challenge_response",
            )

    def _signer(self) -> Signer:
        me = self._me()
        if me is None:
            raise ConveneError("This server has no identity of its own (agents.enabled), so it signs no tokens.")
        return me

    def _now_us(self) -> int:
        return int(self._clock.now() * SECOND_US)


def _owned(row: AgentRow, owner: str) -> AgentRow:
    if row.owner and not hmac.compare_digest(row.owner.encode(), owner.encode()):
        raise Conflict("The agent belongs to another account, which must delete its listing first.", code="agent_owned")
    return msgspec.structs.replace(row, owner=owner)


def _token(address: str, ends: int) -> bytes:
    return f"convene agent token {address} {ends}".encode()


def _check_address(address: str) -> None:
    if not ADDRESS.fullmatch(address):
        raise BadRequest("Invalid 'address': wanted an agent's address, agent1q...", param="address")


def _not_proven() -> Forbidden:
    return Forbidden(
        "Prove first that the agent is yours: GET /v2/identity/ADDRESS/challenge, POST /v2/identity.",
        code="agent_not_proven",
    )

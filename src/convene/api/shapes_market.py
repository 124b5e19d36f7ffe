"""What the marketplace says of agents, in the field names that their libraries read (RES-01, RES-06, LIST-07)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from convene.moments import LATEST_US, iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.store.base_market import AgentRow, Letter

FARTHEST_US: Final = LATEST_US - 1
"""What is said of what never expires: `expiry` is never null (RES-02)."""


class Place(msgspec.Struct):
    """An endpoint."""

    url: str
    weight: int


class Record(msgspec.Struct):
    """An agent in the Almanac."""

    status: str
    type: str
    address: str
    prefix: str
    domain_name: str | None
    endpoints: list[Place]
    metadata: dict[str, Any]
    protocols: list[str]
    expiry: str


class Brief(msgspec.Struct):
    """An agent in a list of the Almanac (RES-07)."""

    address: str
    status: str


class Assigned(msgspec.Struct):
    """An agent of a name."""

    address: str
    weight: int = 1


class Named(msgspec.Struct):
    """A name and who has it."""

    name: str
    status: str
    expiry: str
    assigned_agents: list[Assigned]


class Look(msgspec.Struct):
    """How an agent presents itself."""

    description: str
    readme: str
    avatar_url: str
    banner_url: str
    starter_prompts: list[Any]


class Listed(msgspec.Struct):
    """A listing, as its owner sees it."""

    address: str
    name: str | None
    handle: str | None
    url: str | None
    agent_type: str
    prefix: str
    profile: Look
    endpoints: list[Place]
    protocols: list[str]
    metadata: dict[str, Any]
    status: str
    created_at: str
    updated_at: str


class Waiting(msgspec.Struct):
    """An envelope in a mailbox (MBOX-02)."""

    uuid: str
    envelope: msgspec.Raw
    received_at: str
    expires_at: str


def record_of(row: AgentRow, kind: str, bare: Callable[[str], str]) -> Record:
    """Return an agent as the Almanac tells of it; `bare` takes `proto:` away (ENVL-09)."""
    return Record(
        status=status_of_agent(row),
        type=kind,
        address=row.id,
        prefix=row.prefix,
        domain_name=None,
        endpoints=_places(row),
        metadata=row.metadata,
        protocols=[bare(digest) for digest in row.protocols],
        expiry=_iso(row.expires_us),
    )


def listed_of(row: AgentRow) -> Listed:
    """Return a listing."""
    listing, profile = row.listing, row.listing.profile
    return Listed(
        address=row.id,
        name=listing.name or None,
        handle=listing.handle or None,
        url=listing.url or None,
        agent_type=listing.agent_type or "uagent",
        prefix=row.prefix,
        profile=Look(
            description=profile.description,
            readme=profile.readme,
            avatar_url=profile.avatar_url,
            banner_url=profile.banner_url,
            starter_prompts=list(profile.starter_prompts),
        ),
        endpoints=_places(row),
        protocols=list(row.protocols),
        metadata=listing.metadata,
        status=status_of_agent(row),
        created_at=_iso(row.created_us),
        updated_at=_iso(row.changed_us),
    )


def waiting_of(letter: Letter) -> Waiting:
    """Return an envelope that waits."""
    return Waiting(
        uuid=letter.uuid,
        envelope=msgspec.Raw(letter.envelope),
        received_at=_iso(letter.received_us),
        expires_at=_iso(letter.expires_us),
    )


def named_of(name: str, row: AgentRow) -> Named:
    """Return a name that an agent has."""
    return Named(name=name, status="Registered", expiry=_iso(FARTHEST_US), assigned_agents=[Assigned(row.id)])


def status_of_agent(row: AgentRow) -> str:
    """Return what an agent has said of itself."""
    return "active" if row.active else "inactive"


def _places(row: AgentRow) -> list[Place]:
    return [Place(one.url, one.weight) for one in row.endpoints]


def _iso(at_us: int) -> str:
    return iso(min(at_us, FARTHEST_US))

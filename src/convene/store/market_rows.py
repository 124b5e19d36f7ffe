"""Agents as rows of the table `agents`, and what counting does to a tally: pure, for the stores of the marketplace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import Conflict
from convene.store.base_market import NEWEST, AgentRow, Endpoint, Listing, Tally, Terms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.store.base_market import Seen
    from convene.store.schema import Type
    from convene.store.sql import Row

KINDS: Final[Mapping[str, Type]] = {
    "id": "text",
    "protocol": "text",
    "prefix": "text",
    "owner": "text",
    "endpoints": "blob",
    "protocols": "blob",
    "metadata": "blob",
    "stamp": "int",
    "registered_us": "int",
    "expires_us": "int",
    "active": "bool",
    "status_stamp": "int",
    "listed": "bool",
    "handle": "text",
    "url": "text",
    "listing": "blob",
    "terms": "blob",
    "calls": "int",
    "successes": "int",
    "judged": "int",
    "useful": "int",
    "failures_in_row": "int",
    "answered_us": "int",
    "failed_us": "int",
    "seconds": "real",
    "impressions": "int",
    "picks": "int",
    "created_us": "int",
    "changed_us": "int",
    "version": "int",
    "removed": "bool",
}
"""The columns, in their order."""

_TALLY: Final = Tally.__struct_fields__
_FIRST: Final = tuple(KINDS).index(_TALLY[0])
_AFTER: Final = _FIRST + len(_TALLY)
_ENDPOINTS: Final = msgspec.json.Decoder(tuple[Endpoint, ...])
_PROTOCOLS: Final = msgspec.json.Decoder(tuple[str, ...])
_METADATA: Final = msgspec.json.Decoder(dict[str, object])
_LISTING: Final = msgspec.json.Decoder(Listing)
_TERMS: Final = msgspec.json.Decoder(Terms)


def columns_of(row: AgentRow) -> dict[str, object]:
    """Return the values of all columns but `version`, which the database knows."""
    encode = msgspec.json.encode
    return {
        "id": row.id,
        "protocol": row.protocol,
        "prefix": row.prefix,
        "owner": row.owner,
        "endpoints": encode(row.endpoints),
        "protocols": encode(row.protocols),
        "metadata": encode(row.metadata),
        "stamp": row.stamp,
        "registered_us": row.registered_us,
        "expires_us": row.expires_us,
        "active": int(row.active),
        "status_stamp": row.status_stamp,
        "listed": int(row.listed),
        "handle": row.listing.handle,
        "url": row.listing.url,
        "listing": encode(row.listing),
        "terms": encode(row.terms),
        **{name: getattr(row.tally, name) for name in _TALLY},
        "created_us": row.created_us,
        "changed_us": row.changed_us,
        "removed": int(row.removed),
    }


def row_of(columns: Row) -> AgentRow:
    """Return the agent of a row with all columns."""
    created_us, changed_us, version, removed = columns[_AFTER:]
    return AgentRow(
        id=columns[0],
        protocol=columns[1],
        prefix=columns[2],
        owner=columns[3],
        endpoints=_ENDPOINTS.decode(columns[4]),
        protocols=_PROTOCOLS.decode(columns[5]),
        metadata=_METADATA.decode(columns[6]),
        stamp=columns[7],
        registered_us=columns[8],
        expires_us=columns[9],
        active=bool(columns[10]),
        status_stamp=columns[11],
        listed=bool(columns[12]),
        listing=_LISTING.decode(columns[15]),
        terms=_TERMS.decode(columns[16]),
        tally=Tally(**dict(zip(_TALLY, columns[_FIRST:_AFTER], strict=True))),
        created_us=created_us,
        changed_us=changed_us,
        version=version,
        removed=bool(removed),
    )


def tallied(tally: Tally, seen: Seen) -> Tally:
    """Return a tally with one thing more counted."""
    good = seen.outcome == "success"
    bad = seen.outcome in {"failed", "timed_out"}
    first = tally.answered_us == 0
    mean = seen.seconds if first else tally.seconds + (seen.seconds - tally.seconds) * NEWEST
    return Tally(
        calls=tally.calls + (seen.outcome is not None),
        successes=tally.successes + good,
        judged=tally.judged + (seen.useful is not None),
        useful=tally.useful + (seen.useful is True),
        failures_in_row=0 if good else tally.failures_in_row + bad,
        answered_us=max(tally.answered_us, seen.at_us) if good else tally.answered_us,
        failed_us=max(tally.failed_us, seen.at_us) if bad else tally.failed_us,
        seconds=mean if good else tally.seconds,
        impressions=tally.impressions + seen.shown,
        picks=tally.picks + seen.picked,
    )


def handle_taken(handle: str) -> Conflict:
    """Return what a handle of somebody else's is."""
    return Conflict(f"The handle {handle} is taken; choose another one.", code="handle_taken", param="handle")


def agent_changed() -> Conflict:
    """Return what it is if somebody else has written a row meanwhile."""
    return Conflict("The agent has changed meanwhile; read it again.", code="agent_changed")

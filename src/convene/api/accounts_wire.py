"""Between the shapes on the wire and the values behind them: keys, users, teams, links. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import UNSET

from convene.api.json_body import read_object, read_shape
from convene.api.origins import is_loopback_host
from convene.api.query import Parameter, Query
from convene.api.shapes_accounts import Account, ApiKey, Invitation, LimitsBody, TeamReply
from convene.errors import BadRequest
from convene.limits.allowance import Allowance

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeVar

    from msgspec import UnsetType

    from convene.api.call import Call
    from convene.serving.base_accounts import KeyRecord, Link, Team, User

    Shape = TypeVar("Shape")
    Kept = TypeVar("Kept", User, Team, KeyRecord, Link)

BODY_MAX: Final = 65_536
"""Bytes of any body here; those of chats are larger."""
PAGE_DEFAULT, PAGE_MAX = 100, 1000
PAGED: Final = (
    Parameter(name="limit", about="At most so many; 100 by default.", least=1, most=PAGE_MAX),
    Parameter(name="after", about="The id of the last one of the page before."),
)
"""What `read_page` reads."""
MICROS: Final = 1_000_000
NO_STORE: Final = ((b"cache-control", b"no-store"),)
_encode = msgspec.json.Encoder().encode


async def read_body(call: Call, shape: type[Shape]) -> Shape:
    """Return the body as a shape. Raises `BadRequest` naming the field, `TooLarge`."""
    call.body_bytes_max = min(call.body_bytes_max, BODY_MAX)
    return read_shape(read_object(await call.body()), shape)


async def reply(call: Call, value: object) -> None:
    """Send a value that no cache may keep."""
    await call.reply(200, _encode(value), headers=list(NO_STORE))


def read_page(call: Call) -> tuple[int, str]:
    """Return `limit` and `after` of the address. Raises `BadRequest`."""
    query = Query.of(call)
    return query.number("limit", PAGE_DEFAULT, 1, PAGE_MAX), query.text("after") or ""


def page_of(kept: Sequence[Kept], limit: int, after: str) -> tuple[Sequence[Kept], bool]:
    """Return at most `limit` of what follows the id `after`, and whether there is more. Raises `BadRequest`."""
    start = 0
    if after:
        start = next((place + 1 for place, one in enumerate(kept) if one.id == after), -1)
        if start < 0:
            raise BadRequest("after is the id of the last one of the page before.", param="after")
    return kept[start : start + limit], len(kept) > start + limit


def allowance_of(body: LimitsBody | None) -> Allowance | None:
    """Return limits as they are kept: money in micro-units; None for null."""
    if body is None:
        return None
    said = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not None}
    return msgspec.structs.replace(Allowance(), **{name: _kept(name, value) for name, value in said.items()})


def changed_limits(body: LimitsBody | UnsetType | None) -> Allowance | UnsetType | None:
    """Return the same for a change: unset stays unset."""
    return UNSET if body is UNSET else allowance_of(body)


def limits_of(allowance: Allowance | None) -> LimitsBody | None:
    """Return limits as they are shown."""
    if allowance is None:
        return None
    body = LimitsBody()
    for name in body.__struct_fields__:
        value = getattr(allowance, name)
        if value is not None:
            setattr(body, name, value / MICROS if name.startswith("budget") else value)
    return body


def key_of(record: KeyRecord, now: float, text: str | UnsetType = UNSET) -> ApiKey:
    """Return a key as it is shown; `text` only when it was just made."""
    expired = record.expires_at is not None and record.expires_at <= now
    return ApiKey(
        id=record.id,
        name=record.name,
        state="revoked" if record.revoked_at is not None else "expired" if expired else "active",
        owner=record.owner,
        user_id=record.user_id or None,
        team_id=record.team_id or None,
        plan=record.plan or None,
        last4=record.last4,
        created_at=record.created_at,
        expires_at=record.expires_at,
        revoked_at=record.revoked_at,
        models=None if record.models is None else list(record.models),
        scopes=list(record.scopes),
        limits=limits_of(record.limits),
        model_limits={name: limits_of(limits) or LimitsBody() for name, limits in record.model_limits.items()},
        key=text,
    )


def account_of(user: User, link: str | UnsetType = UNSET) -> Account:
    """Return a user as it is shown: never its password's hash."""
    return Account(
        id=user.id,
        name=user.name,
        email=user.email,
        role=user.role,
        plan=user.plan or None,
        limits=limits_of(user.limits),
        has_password=user.password is not None,
        created_at=user.created_at,
        disabled_at=user.disabled_at,
        link=link,
    )


def team_of(team: Team) -> TeamReply:
    """Return a team as it is shown."""
    return TeamReply(
        id=team.id, name=team.name, plan=team.plan or None, limits=limits_of(team.limits), created_at=team.created_at
    )


def invitation_of(link: Link, text: str | UnsetType = UNSET) -> Invitation:
    """Return a link as it is shown: never its digest."""
    return Invitation(
        id=link.id,
        purpose=link.purpose,
        email=link.email or None,
        role=link.role,
        plan=link.plan or None,
        team_id=link.team_id or None,
        user_id=link.user_id or None,
        created_by=link.created_by,
        created_at=link.created_at,
        expires_at=link.expires_at,
        link=text,
    )


def address_of_link(call: Call, public_url: str, text: str) -> str:
    """Return a link as somebody can click on it: under `public_url`, else under the host that was asked."""
    host = (call.header(b"host") or "localhost").lower()
    base = public_url or f"{'http' if is_loopback_host(host) else 'https'}://{host}"
    return f"{base.rstrip('/')}/signup?link={text}"


def _kept(name: str, value: float) -> int:
    return round(value * MICROS) if name.startswith("budget") else int(value)

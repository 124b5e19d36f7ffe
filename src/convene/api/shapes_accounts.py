"""The wire shapes of keys, users, teams and links: what `/v1/keys`, `/v1/me` and `/v1/admin` take and give.

Times are Unix seconds, money is in the configured currency. In a change, a field that is left out stays as it is.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Text = Annotated[str, Meta(max_length=256)]
Amount = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Price = Annotated[float, Meta(ge=0, le=1_000_000_000)]
Time = Annotated[float, Meta(ge=0, le=1e11)]
ModelNames = Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=256)]
Scopes = Annotated[list[Literal["api", "admin"]], Meta(max_length=2)]


class LimitsBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Limits on one key, user or team; what is null or left out is not limited here (but may be by its plan)."""

    requests_per_minute: Amount | None = None
    requests_per_day: Amount | None = None
    tokens_per_minute: Amount | None = None
    tokens_per_day: Amount | None = None
    input_tokens_per_minute: Amount | None = None
    input_tokens_per_day: Amount | None = None
    output_tokens_per_minute: Amount | None = None
    output_tokens_per_day: Amount | None = None
    images_per_minute: Amount | None = None
    images_per_day: Amount | None = None
    concurrent_requests: Amount | None = None
    budget_per_day: Price | None = None
    budget_per_month: Price | None = None
    budget_total: Price | None = None


class KeyBody(msgspec.Struct, kw_only=True):
    """A key that a user asks for."""

    name: Text
    expires_at: Time | None = None
    models: ModelNames | None = None
    limits: LimitsBody | None = None
    team_id: Text | None = None
    scopes: Scopes | None = None


class AdminKeyBody(msgspec.Struct, kw_only=True):
    """A key that an admin makes for anybody."""

    name: Text
    expires_at: Time | None = None
    models: ModelNames | None = None
    limits: LimitsBody | None = None
    model_limits: Annotated[dict[Text, LimitsBody], Meta(max_length=256)] | None = None
    plan: Text | None = None
    user_id: Text | None = None
    team_id: Text | None = None
    scopes: Scopes | None = None


class KeyChangeBody(msgspec.Struct, kw_only=True):
    """What is to change of a key."""

    name: Text | UnsetType = UNSET
    limits: LimitsBody | UnsetType | None = UNSET
    plan: Text | UnsetType = UNSET
    models: ModelNames | UnsetType | None = UNSET
    expires_at: Time | UnsetType | None = UNSET


class ApiKey(msgspec.Struct, kw_only=True):
    """A key, without its text."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    state: Literal["active", "expired", "revoked"]
    owner: str
    user_id: str | None
    team_id: str | None
    plan: str | None
    last4: str
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    models: list[str] | None
    scopes: list[str]
    limits: LimitsBody | None
    model_limits: dict[str, LimitsBody]
    key: str | UnsetType = UNSET


class ApiKeyList(msgspec.Struct, kw_only=True):
    """Keys, oldest first."""

    object: Literal["list"] = "list"
    data: list[ApiKey]
    has_more: bool = False


class UserBody(msgspec.Struct, kw_only=True):
    """A user that an admin makes."""

    email: Text
    name: Text | None = None
    role: Literal["admin", "member"] | None = None
    plan: Text | None = None
    limits: LimitsBody | None = None


class UserChangeBody(msgspec.Struct, kw_only=True):
    """What is to change of a user."""

    name: Text | UnsetType = UNSET
    role: Literal["admin", "member"] | UnsetType = UNSET
    plan: Text | UnsetType = UNSET
    limits: LimitsBody | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET


class Account(msgspec.Struct, kw_only=True):
    """A user."""

    id: str
    object: Literal["user"] = "user"
    name: str
    email: str
    role: Literal["admin", "member"]
    plan: str | None
    limits: LimitsBody | None
    has_password: bool
    created_at: float
    disabled_at: float | None
    link: str | UnsetType = UNSET


class AccountList(msgspec.Struct, kw_only=True):
    """Users, by id."""

    object: Literal["list"] = "list"
    data: list[Account]
    has_more: bool = False


class TeamBody(msgspec.Struct, kw_only=True):
    """A team that an admin makes."""

    name: Text
    plan: Text | None = None
    limits: LimitsBody | None = None


class TeamChangeBody(msgspec.Struct, kw_only=True):
    """What is to change of a team."""

    name: Text | UnsetType = UNSET
    plan: Text | UnsetType = UNSET
    limits: LimitsBody | UnsetType | None = UNSET


class TeamReply(msgspec.Struct, kw_only=True):
    """A team."""

    id: str
    object: Literal["team"] = "team"
    name: str
    plan: str | None
    limits: LimitsBody | None
    created_at: float


class TeamList(msgspec.Struct, kw_only=True):
    """Teams, by id."""

    object: Literal["list"] = "list"
    data: list[TeamReply]
    has_more: bool = False


class MemberBody(msgspec.Struct, kw_only=True):
    """Who becomes a member, or what a member becomes."""

    user_id: Text
    role: Literal["owner", "member"] | None = None


class MemberReply(msgspec.Struct, kw_only=True):
    """A member of a team."""

    object: Literal["team_member"] = "team_member"
    team_id: str
    user_id: str
    role: Literal["owner", "member"]


class MemberList(msgspec.Struct, kw_only=True):
    """A team's members, by user."""

    object: Literal["list"] = "list"
    data: list[MemberReply]
    has_more: bool = False


class InvitationBody(msgspec.Struct, kw_only=True):
    """An invitation that an admin makes."""

    email: Text | None = None
    role: Literal["admin", "member"] | None = None
    plan: Text | None = None
    team_id: Text | None = None
    expires_in: Annotated[float, Meta(gt=0, le=7_776_000)] | None = None


class Invitation(msgspec.Struct, kw_only=True):
    """A one-time link that was not used; its text is shown once."""

    id: str
    object: Literal["invitation"] = "invitation"
    purpose: Literal["signup", "password"]
    email: str | None
    role: Literal["admin", "member"]
    plan: str | None
    team_id: str | None
    user_id: str | None
    created_by: str
    created_at: float
    expires_at: float
    link: str | UnsetType = UNSET


class InvitationList(msgspec.Struct, kw_only=True):
    """One-time links that were not used, oldest first."""

    object: Literal["list"] = "list"
    data: list[Invitation]
    has_more: bool = False


class Deleted(msgspec.Struct, kw_only=True):
    """What is no more."""

    id: str
    object: Literal["api_key", "user", "team_member", "invitation"]
    deleted: Literal[True] = True


class OwnTeam(msgspec.Struct, kw_only=True):
    """A team that the caller is in."""

    id: str
    name: str
    role: Literal["owner", "member"]


class Me(msgspec.Struct, kw_only=True):
    """Who is calling."""

    object: Literal["me"] = "me"
    key_id: str | None
    key_name: str | None
    owner: str
    plan: str
    scopes: list[str]
    models: list[str] | None
    user: Account | None
    teams: list[OwnTeam]

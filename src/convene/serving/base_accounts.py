"""The face of accounts to `api/`: who comes in by browser, and what may be done with keys, users and teams.

    Doors    the ways in: log in, sign up, one-time links, browser sessions
    KeyDesk  keys, of the caller or, with the scope "admin", of all
    People   users, teams, members, links; only for the scope "admin"

Every call takes the `Principal` who asks; what it may not see is not there (`NotFound`), like what is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from convene.limits.allowance import Allowance
from convene.serving.base import Principal
from convene.store.base import KeyChange, KeyRecord
from convene.store.base_accounts import (
    Link,
    Member,
    Purpose,
    Role,
    Team,
    TeamChange,
    TeamRole,
    User,
    UserChange,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ADMIN",
    "API",
    "Doors",
    "KeyChange",
    "KeyDesk",
    "KeyDraft",
    "KeyRecord",
    "Link",
    "LinkDraft",
    "Member",
    "People",
    "Purpose",
    "Role",
    "Self",
    "Team",
    "TeamChange",
    "TeamRole",
    "User",
    "UserChange",
    "UserDraft",
    "Visitor",
]

API: Final = "api"
ADMIN: Final = "admin"
PAGE_MAX: Final = 1000
PASSWORD_MIN, PASSWORD_MAX = 12, 256
"""Characters of a password."""


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Who is logged in with a browser."""

    principal: Principal
    user: User
    session: str
    """The text of the session, which the cookie holds."""


class KeyDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is asked for. None and empty: not said."""

    name: str
    plan: str = ""
    """Empty: the user's, else the team's, else the default."""
    owner: str = ""
    """Who owns sessions and runs: by default the team, else the user, else the key itself (decisions 9)."""
    expires_at: float | None = None
    models: tuple[str, ...] | None = None
    scopes: tuple[str, ...] = (API,)
    limits: Allowance | None = None
    model_limits: dict[str, Allowance] = {}
    user_id: str = ""
    team_id: str = ""


class UserDraft(msgspec.Struct, frozen=True, kw_only=True):
    """A user as an admin makes it; the password is set by the link that comes back."""

    email: str
    name: str = ""
    role: Role = "member"
    plan: str = ""
    limits: Allowance | None = None


class LinkDraft(msgspec.Struct, frozen=True, kw_only=True):
    """An invitation as it is asked for."""

    email: str = ""
    role: Role = "member"
    plan: str = ""
    team_id: str = ""
    lifetime_s: float | None = None


class Self(msgspec.Struct, frozen=True, kw_only=True):
    """What `GET /v1/me` knows of the caller."""

    principal: Principal
    user: User | None
    teams: tuple[tuple[Team, Member], ...]


class Doors(Protocol):
    """The ways in without a key. `address` is the client's, for the throttle. All raise `StoreFault`."""

    async def log_in(self, email: str, password: str, address: str) -> str:
        """Return a new session's text. Raises `Unauthorized` (one message for every cause), `RateLimited`, `Busy`."""
        ...

    async def admit(self, session: str) -> Visitor | None:
        """Return who holds this session, or None: unknown, too old, or the user is disabled."""
        ...

    async def log_out(self, session: str) -> None:
        """End a session; unknown ones are ignored."""
        ...

    async def look_at(self, link: str) -> Link | None:
        """Return a live link without using it up, or None."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether anybody may sign up without a link."""
        ...

    async def sign_up(self, link: str, name: str, email: str, password: str, address: str) -> None:
        """Make an account; if the email has one already, make none and say nothing of it.

        Raises `BadRequest`, `Forbidden` (a link is needed, or it opens nothing), `RateLimited`, `Busy`.
        """
        ...

    async def set_password(self, link: str, password: str, address: str) -> None:
        """Set the password a link is for. Raises `BadRequest`, `Forbidden`, `RateLimited`, `Busy`."""
        ...

    async def change_password(self, visitor: Visitor, old: str, new: str, address: str) -> str:
        """Change the password, end all sessions and return a new one. Raises `Unauthorized`, `BadRequest` and so on."""
        ...


class KeyDesk(Protocol):
    """API keys. Raises `Forbidden` for a caller that is no user, and `StoreFault`."""

    async def mine(self, caller: Principal) -> Sequence[KeyRecord]:
        """Return the caller's keys, and those of teams it owns, oldest first."""
        ...

    async def all(self, caller: Principal) -> Sequence[KeyRecord]:
        """Return every key, oldest first. Admins only."""
        ...

    async def create(self, caller: Principal, draft: KeyDraft) -> tuple[str, KeyRecord]:
        """Make a key for the caller, or for a team it belongs to. Raises `BadRequest`, `NotFound`, `Forbidden`."""
        ...

    async def issue(self, caller: Principal, draft: KeyDraft) -> tuple[str, KeyRecord]:
        """Make a key as drafted, for anybody. Admins only. Raises `BadRequest`."""
        ...

    async def rotate(self, caller: Principal, key_id: str) -> tuple[str, KeyRecord]:
        """Give a key another secret. Raises `NotFound`, `BadRequest` if it is revoked, `Forbidden`."""
        ...

    async def change(self, caller: Principal, key_id: str, change: KeyChange) -> KeyRecord:
        """Change a key; a member may rename it and tighten its limits. Raises `NotFound`, `BadRequest`, `Forbidden`."""
        ...

    async def revoke(self, caller: Principal, key_id: str) -> KeyRecord:
        """End a key. Raises `NotFound`, `Forbidden`."""
        ...


class People(Protocol):
    """Users and teams. Everything but `about` raises `Forbidden` without the scope "admin"."""

    async def about(self, caller: Principal) -> Self:
        """Return who the caller is."""
        ...

    async def users(self, caller: Principal, limit: int, after: str) -> Sequence[User]:
        """Return users by id."""
        ...

    async def add_user(self, caller: Principal, draft: UserDraft) -> tuple[User, str]:
        """Make a user, and the link that sets its password. Raises `BadRequest`, also for a taken email."""
        ...

    async def change_user(self, caller: Principal, user_id: str, change: UserChange) -> User:
        """Change a user. Raises `NotFound`, `BadRequest`, also for the last admin."""
        ...

    async def disable_user(self, caller: Principal, user_id: str) -> User:
        """Shut a user out: no log-in, and its keys die within a second. Raises as `change_user`."""
        ...

    async def reset_link(self, caller: Principal, user_id: str) -> tuple[str, Link]:
        """Return a link that sets the user's password. Raises `NotFound`."""
        ...

    async def teams(self, caller: Principal, limit: int, after: str) -> Sequence[Team]:
        """Return teams by id."""
        ...

    async def add_team(self, caller: Principal, team: str, plan: str, limits: Allowance | None) -> Team:
        """Make a team by name. Raises `BadRequest`."""
        ...

    async def change_team(self, caller: Principal, team_id: str, change: TeamChange) -> Team:
        """Change a team. Raises `NotFound`, `BadRequest`."""
        ...

    async def members(self, caller: Principal, team_id: str) -> Sequence[Member]:
        """Return a team's members. Raises `NotFound`."""
        ...

    async def put_member(self, caller: Principal, team_id: str, user_id: str, role: TeamRole) -> Member:
        """Add a member or change its role. Raises `NotFound`."""
        ...

    async def remove_member(self, caller: Principal, team_id: str, user_id: str) -> None:
        """End a membership; the user's keys for the team die within a second. Raises `NotFound`."""
        ...

    async def links(self, caller: Principal) -> Sequence[Link]:
        """Return the links that were not used, oldest first."""
        ...

    async def invite(self, caller: Principal, draft: LinkDraft) -> tuple[str, Link]:
        """Return a one-time sign-up link. Raises `BadRequest`, also for a taken email."""
        ...

    async def withdraw_link(self, caller: Principal, link_id: str) -> None:
        """Void a link. Raises `NotFound`."""
        ...

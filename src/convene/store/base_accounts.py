"""The seam of accounts: who may have keys. Users, teams and their members, one-time links, browser sessions.

    user     a person: an email to log in with, a role on this server, a plan and limits of its own
    team     several users that share a plan, limits and keys
    link     a one-time way in, stored as the SHA-256 of its text: to become a user, or to set a password
    session  a browser that has logged in, stored as the SHA-256 of its cookie

Not here: what a role may do, how a password is hashed, how long anything lives (`serving/accounts.py`). Every
implementation passes `tests/contract/test_accounts.py` unchanged. Times are Unix seconds.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from convene.limits.allowance import Allowance

__all__ = [
    "Accounts",
    "BrowserSession",
    "Link",
    "Member",
    "Purpose",
    "Redeemed",
    "Role",
    "Standing",
    "Team",
    "TeamChange",
    "TeamRole",
    "User",
    "UserChange",
]

Role = Literal["admin", "member"]
TeamRole = Literal["owner", "member"]
Purpose = Literal["signup", "password"]
Redeemed = Literal["done", "taken", "gone"]
"""Of a link: it did what it is for; it is used up, but the email has an account already; there is no such link."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One account."""

    id: str
    """Public; owns keys, sessions and runs (decisions 9)."""
    name: str
    email: str
    """Lower case, unique over all users."""
    password: str | None = None
    """Its Argon2id hash with parameters and salt; None until one was set. Never shown."""
    role: Role = "member"
    plan: str = ""
    """Empty: the team's, where a key belongs to one."""
    limits: Allowance | None = None
    """On all that its keys do together."""
    created_at: float
    disabled_at: float | None = None


class UserChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes different of a user; what is unset stays. A new role or password, and disabling, end sessions."""

    name: str | UnsetType = UNSET
    password: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    plan: str | UnsetType = UNSET
    limits: Allowance | UnsetType | None = UNSET
    disabled_at: float | UnsetType | None = UNSET

    @property
    def ends_sessions(self) -> bool:
        """Whether browsers must log in again (reliability 6.5: rotated at login and at a change of role)."""
        disabled = self.disabled_at is not UNSET and self.disabled_at is not None
        return disabled or self.role is not UNSET or self.password is not UNSET


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """Users who share something."""

    id: str
    name: str
    plan: str = ""
    limits: Allowance | None = None
    """On all that the team's keys do together."""
    created_at: float


class TeamChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What becomes different of a team; what is unset stays."""

    name: str | UnsetType = UNSET
    plan: str | UnsetType = UNSET
    limits: Allowance | UnsetType | None = UNSET


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A user in a team. Its owners see and revoke all of the team's keys."""

    team_id: str
    user_id: str
    role: TeamRole = "member"


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What stands behind a key, in one look-up; None: there is no such user, team, or membership."""

    user: User | None = None
    team: Team | None = None
    membership: Member | None = None


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time way in: with `signup` somebody becomes a user, with `password` `user_id` sets its password."""

    id: str
    digest: bytes
    """SHA-256 of its text, which is not kept."""
    purpose: Purpose
    email: str = ""
    """The only email it is good for; empty: any."""
    role: Role = "member"
    plan: str = ""
    team_id: str = ""
    """The team that the new user joins."""
    user_id: str = ""
    created_by: str
    created_at: float
    expires_at: float
    used_at: float | None = None

    def is_live(self, now: float) -> bool:
        """Whether it still opens anything."""
        return self.used_at is None and self.expires_at > now


class BrowserSession(msgspec.Struct, frozen=True, kw_only=True):
    """A browser that has logged in."""

    digest: bytes
    """SHA-256 of the cookie's value."""
    user_id: str
    created_at: float
    seen_at: float
    expires_at: float
    """However busy it is."""


class Accounts(Protocol):
    """The accounts of one store. Every call raises `StoreFault` if it cannot be used.

    A change of users, teams and members changes `Keys.version` too; links and sessions do not.
    """

    async def add_user(self, user: User) -> None:
        """Keep a new user. Raises `Conflict` if the id or the email is taken."""
        ...

    async def get_user(self, user_id: str) -> User | None:
        """Return the user with this id."""
        ...

    async def find_user(self, email: str) -> User | None:
        """Return the user with exactly this email."""
        ...

    async def list_users(self, limit: int, after: str = "") -> tuple[User, ...]:
        """Return at most `limit` users with an id above `after`, by id; disabled ones too."""
        ...

    async def change_user(self, user_id: str, change: UserChange) -> User | None:
        """Change a user, and end its sessions if the change says so, in one step. Return it as it is then."""
        ...

    async def add_team(self, team: Team) -> None:
        """Keep a new team. Raises `Conflict` if the id is taken."""
        ...

    async def get_team(self, team_id: str) -> Team | None:
        """Return the team with this id."""
        ...

    async def list_teams(self, limit: int, after: str = "") -> tuple[Team, ...]:
        """Return at most `limit` teams with an id above `after`, by id."""
        ...

    async def change_team(self, team_id: str, change: TeamChange) -> Team | None:
        """Change a team and return it as it is then."""
        ...

    async def put_member(self, member: Member) -> None:
        """Make a user a member, or change its role. Raises `NotFound` if there is no such user or team."""
        ...

    async def remove_member(self, team_id: str, user_id: str) -> bool:
        """End a membership; return whether there was one."""
        ...

    async def members_of(self, team_id: str) -> tuple[Member, ...]:
        """Return a team's members, by user id."""
        ...

    async def teams_of(self, user_id: str) -> tuple[Member, ...]:
        """Return a user's memberships, by team id."""
        ...

    async def standing(self, user_id: str, team_id: str) -> Standing:
        """Return the user, the team and the user's membership of it, as of one moment; empty ids find nothing."""
        ...

    async def add_link(self, link: Link) -> None:
        """Keep a link. Raises `Conflict` if its id or digest is taken."""
        ...

    async def add_first_link(self, link: Link, now: float) -> bool:
        """Keep a link unless an admin who is not disabled, or a live link for one, is there; return whether it was.

        One step: of several processes that start at once, one makes the link.
        """
        ...

    async def get_link(self, digest: bytes) -> Link | None:
        """Return the link with this digest, live or not."""
        ...

    async def list_links(self) -> tuple[Link, ...]:
        """Return all links that were not used, oldest first."""
        ...

    async def withdraw_link(self, link_id: str) -> bool:
        """Delete a link that was not used; return whether there was one."""
        ...

    async def redeem_signup(self, digest: bytes, user: User, now: float) -> Redeemed:
        """Use a live sign-up link up and keep `user`, with the link's team, in one step: one of many callers wins."""
        ...

    async def redeem_password(self, digest: bytes, password: str, now: float) -> str | None:
        """Use a live password link up, set the password and end the user's sessions, in one step.

        Return the user's id, or None: there is no such link, or the user is disabled.
        """
        ...

    async def add_session(self, session: BrowserSession) -> None:
        """Keep a session, unless there is one with its digest."""
        ...

    async def get_session(self, digest: bytes) -> BrowserSession | None:
        """Return the session with this digest, however old."""
        ...

    async def touch_session(self, digest: bytes, at: float) -> None:
        """Note that the session was used."""
        ...

    async def end_session(self, digest: bytes) -> bool:
        """Delete a session; return whether there was one."""
        ...

    async def forget_sessions(self, seen_before: float, now: float) -> int:
        """Delete sessions last seen before, or expired; return how many."""
        ...

"""Accounts in this process's memory: for tests, and for a server that is to leave nothing on the disk.

The oracle of the contract suite: each call is the sentence of `base_accounts.py` in the plainest form. One event loop
runs it, and no call waits in the middle, so each is one step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from convene.errors import Conflict, NotFound
from convene.store.base_accounts import Member, Standing, Team, TeamChange, User, UserChange
from convene.store.memory_part import MemoryPart

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.store.base_accounts import BrowserSession, Link, Redeemed

Kept = TypeVar("Kept", User, Team)


class MemoryAccounts(MemoryPart):
    """All accounts in dictionaries; `changed` is called after each change that `Keys.version` must show."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._users: dict[str, User] = {}
        self._teams: dict[str, Team] = {}
        self._members: dict[tuple[str, str], Member] = {}
        self._links: dict[str, Link] = {}
        self._sessions: dict[bytes, BrowserSession] = {}

    async def add_user(self, user: User) -> None:
        """Keep a new user. Raises `Conflict`."""
        self._check_open()
        if user.id in self._users or self._with_email(user.email):
            raise Conflict(f"There is already a user with the email {user.email}.", param="email")
        self._users[user.id] = user
        self._changed()

    async def get_user(self, user_id: str) -> User | None:
        """Return the user with this id."""
        self._check_open()
        return self._users.get(user_id)

    async def find_user(self, email: str) -> User | None:
        """Return the user with exactly this email."""
        self._check_open()
        return self._with_email(email)

    async def list_users(self, limit: int, after: str = "") -> tuple[User, ...]:
        """Return users by id."""
        self._check_open()
        return _page(self._users, limit, after)

    async def change_user(self, user_id: str, change: UserChange) -> User | None:
        """Change a user and end its sessions if need be."""
        self._check_open()
        user = self._users.get(user_id)
        if user is None:
            return None
        user = self._users[user_id] = _changed_copy(user, change)
        if change.ends_sessions:
            self._end_sessions_of(user_id)
        self._changed()
        return user

    async def add_team(self, team: Team) -> None:
        """Keep a new team. Raises `Conflict`."""
        self._check_open()
        if team.id in self._teams:
            raise Conflict(f"There is already a team with the id {team.id}.")
        self._teams[team.id] = team
        self._changed()

    async def get_team(self, team_id: str) -> Team | None:
        """Return the team with this id."""
        self._check_open()
        return self._teams.get(team_id)

    async def list_teams(self, limit: int, after: str = "") -> tuple[Team, ...]:
        """Return teams by id."""
        self._check_open()
        return _page(self._teams, limit, after)

    async def change_team(self, team_id: str, change: TeamChange) -> Team | None:
        """Change a team."""
        self._check_open()
        team = self._teams.get(team_id)
        if team is None:
            return None
        team = self._teams[team_id] = _changed_copy(team, change)
        self._changed()
        return team

    async def put_member(self, member: Member) -> None:
        """Make a user a member. Raises `NotFound`."""
        self._check_open()
        if member.team_id not in self._teams or member.user_id not in self._users:
            raise NotFound("There is no such user or team.")
        self._members[member.team_id, member.user_id] = member
        self._changed()

    async def remove_member(self, team_id: str, user_id: str) -> bool:
        """End a membership."""
        self._check_open()
        found = self._members.pop((team_id, user_id), None)
        if found is not None:
            self._changed()
        return found is not None

    async def members_of(self, team_id: str) -> tuple[Member, ...]:
        """Return a team's members."""
        self._check_open()
        return tuple(self._members[key] for key in sorted(self._members) if key[0] == team_id)

    async def teams_of(self, user_id: str) -> tuple[Member, ...]:
        """Return a user's memberships."""
        self._check_open()
        return tuple(self._members[key] for key in sorted(self._members) if key[1] == user_id)

    async def standing(self, user_id: str, team_id: str) -> Standing:
        """Return what stands behind a key."""
        self._check_open()
        return Standing(
            user=self._users.get(user_id),
            team=self._teams.get(team_id),
            membership=self._members.get((team_id, user_id)),
        )

    async def add_link(self, link: Link) -> None:
        """Keep a link. Raises `Conflict`."""
        self._check_open()
        if link.id in self._links or self._with_digest(link.digest):
            raise Conflict(f"There is already a link with the id {link.id}.")
        self._links[link.id] = link

    async def add_first_link(self, link: Link, now: float) -> bool:
        """Keep a link unless an admin, or a live link for one, is there."""
        self._check_open()
        admin = any(user.role == "admin" and user.disabled_at is None for user in self._users.values())
        offered = any(
            one.purpose == "signup" and one.role == "admin" and one.is_live(now) for one in self._links.values()
        )
        if admin or offered or link.id in self._links or self._with_digest(link.digest):
            return False
        self._links[link.id] = link
        return True

    async def get_link(self, digest: bytes) -> Link | None:
        """Return the link with this digest."""
        self._check_open()
        return self._with_digest(digest)

    async def list_links(self) -> tuple[Link, ...]:
        """Return all links that were not used."""
        self._check_open()
        unused = (link for link in self._links.values() if link.used_at is None)
        return tuple(sorted(unused, key=lambda link: (link.created_at, link.id)))

    async def withdraw_link(self, link_id: str) -> bool:
        """Delete a link that was not used."""
        self._check_open()
        link = self._links.get(link_id)
        if link is None or link.used_at is not None:
            return False
        del self._links[link_id]
        return True

    async def redeem_signup(self, digest: bytes, user: User, now: float) -> Redeemed:
        """Use a sign-up link up and keep the user."""
        self._check_open()
        link = self._with_digest(digest)
        if link is None or link.purpose != "signup" or not link.is_live(now):
            return "gone"
        self._links[link.id] = msgspec.structs.replace(link, used_at=now)
        if self._with_email(user.email):
            return "taken"
        await self.add_user(user)
        if link.team_id in self._teams:
            self._members[link.team_id, user.id] = Member(team_id=link.team_id, user_id=user.id)
        return "done"

    async def redeem_password(self, digest: bytes, password: str, now: float) -> str | None:
        """Use a password link up and set the password."""
        self._check_open()
        link = self._with_digest(digest)
        if link is None or link.purpose != "password" or not link.is_live(now):
            return None
        user = self._users.get(link.user_id)
        if user is None or user.disabled_at is not None:
            return None
        self._links[link.id] = msgspec.structs.replace(link, used_at=now)
        await self.change_user(user.id, UserChange(password=password))
        return user.id

    async def add_session(self, session: BrowserSession) -> None:
        """Keep a session."""
        self._check_open()
        self._sessions.setdefault(session.digest, session)

    async def get_session(self, digest: bytes) -> BrowserSession | None:
        """Return the session with this digest."""
        self._check_open()
        return self._sessions.get(digest)

    async def touch_session(self, digest: bytes, at: float) -> None:
        """Note that the session was used."""
        self._check_open()
        session = self._sessions.get(digest)
        if session is not None:
            self._sessions[digest] = msgspec.structs.replace(session, seen_at=at)

    async def end_session(self, digest: bytes) -> bool:
        """Delete a session."""
        self._check_open()
        return self._sessions.pop(digest, None) is not None

    async def forget_sessions(self, seen_before: float, now: float) -> int:
        """Delete old sessions."""
        self._check_open()
        old = [key for key, one in self._sessions.items() if one.seen_at < seen_before or one.expires_at <= now]
        for key in old:
            del self._sessions[key]
        return len(old)

    def close(self) -> None:
        """Forget everything."""
        super().close()
        for kept in (self._users, self._teams, self._members, self._links, self._sessions):
            kept.clear()

    def _with_email(self, email: str) -> User | None:
        return next((user for user in self._users.values() if user.email == email), None)

    def _with_digest(self, digest: bytes) -> Link | None:
        return next((link for link in self._links.values() if link.digest == digest), None)

    def _end_sessions_of(self, user_id: str) -> None:
        for digest in [digest for digest, session in self._sessions.items() if session.user_id == user_id]:
            del self._sessions[digest]


def _page(kept: dict[str, Kept], limit: int, after: str) -> tuple[Kept, ...]:
    return tuple(kept[one] for one in sorted(kept) if one > after)[:limit]


def _changed_copy(kept: Kept, change: UserChange | TeamChange) -> Kept:
    said = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not msgspec.UNSET}
    return msgspec.structs.replace(kept, **said)

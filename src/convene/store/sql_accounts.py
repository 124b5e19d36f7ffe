"""Accounts in tables, of SQLite or Postgres.

`REVISE` stands first in each change of several statements: in Postgres it holds the row that all of them must have, so
two such changes never mix; SQLite's write lock does the same. What a later statement needs to know of an earlier one is
asked in its WHERE, so a one-time link is used up and does what it is for in one transaction, or neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from convene.errors import Conflict, NotFound
from convene.limits.allowance import Allowance
from convene.store.base_accounts import BrowserSession, Link, Member, Standing, Team, User
from convene.store.schema import type_of
from convene.store.sql import REVISE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.store.base_accounts import Redeemed, TeamChange, UserChange
    from convene.store.schema import Dialect, Type
    from convene.store.sql import Change, Database, Row

Kept = TypeVar("Kept", User, Team, Link, BrowserSession, Member)

_TIMES: Final = ("created_at", "expires_at", "used_at", "disabled_at", "seen_at")
_TYPES: Final[Mapping[str, Type]] = {"digest": "blob", **dict.fromkeys(_TIMES, "real")}
"""What is in the columns that hold no text."""
_LIVE: Final = "links.digest = ? AND links.purpose = '{purpose}' AND links.used_at IS NULL AND links.expires_at > ?"
_SIGNUP: Final = _LIVE.format(purpose="signup")
_PASSWORD: Final = _LIVE.format(purpose="password")


def _columns(kind: type[msgspec.Struct], table: str = "") -> str:
    return ", ".join(f"{table}.{name}" if table else name for name in kind.__struct_fields__)


def _insert(kind: type[msgspec.Struct], table: str) -> str:
    holes = ", ".join("?" * len(kind.__struct_fields__))
    return f"INSERT INTO {table} ({_columns(kind)}) VALUES ({holes}) ON CONFLICT DO NOTHING"  # noqa: S608 -- constants


def _insert_if(kind: type[msgspec.Struct], table: str, dialect: Dialect, condition: str) -> str:
    """Return an insertion that happens only if the condition holds; Postgres must be told what a hole there is of."""
    holes = ", ".join(f"CAST(? AS {type_of(_TYPES.get(name, 'text'), dialect)})" for name in kind.__struct_fields__)
    return f"INSERT INTO {table} ({_columns(kind)}) SELECT {holes} WHERE {condition} ON CONFLICT DO NOTHING"


class SqlAccounts:
    """Accounts in a database. A table's columns have the names and the order of the Struct's fields."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_user(self, user: User) -> None:
        """Keep a new user. Raises `Conflict`."""
        if not await self._changed((_insert(User, "users"), _row_of(user))):
            raise Conflict(f"There is already a user with the email {user.email}.", param="email")

    async def get_user(self, user_id: str) -> User | None:
        """Return the user with this id."""
        return await self._one(User, "users", "id = ?", user_id)

    async def find_user(self, email: str) -> User | None:
        """Return the user with exactly this email."""
        return await self._one(User, "users", "email = ?", email)

    async def list_users(self, limit: int, after: str = "") -> tuple[User, ...]:
        """Return users by id."""
        return await self._all(User, "users", "id > ? ORDER BY id LIMIT ?", after, limit)

    async def change_user(self, user_id: str, change: UserChange) -> User | None:
        """Change a user and end its sessions if need be."""
        changes = [_update("users", user_id, change)]
        if change.ends_sessions:
            changes.append(("DELETE FROM browser_sessions WHERE user_id = ?", (user_id,)))
        return await self.get_user(user_id) if await self._changed(*changes) else None

    async def add_team(self, team: Team) -> None:
        """Keep a new team. Raises `Conflict`."""
        if not await self._changed((_insert(Team, "teams"), _row_of(team))):
            raise Conflict(f"There is already a team with the id {team.id}.")

    async def get_team(self, team_id: str) -> Team | None:
        """Return the team with this id."""
        return await self._one(Team, "teams", "id = ?", team_id)

    async def list_teams(self, limit: int, after: str = "") -> tuple[Team, ...]:
        """Return teams by id."""
        return await self._all(Team, "teams", "id > ? ORDER BY id LIMIT ?", after, limit)

    async def change_team(self, team_id: str, change: TeamChange) -> Team | None:
        """Change a team."""
        return await self.get_team(team_id) if await self._changed(_update("teams", team_id, change)) else None

    async def put_member(self, member: Member) -> None:
        """Make a user a member. Raises `NotFound`."""
        statement = (
            "INSERT INTO members (team_id, user_id, role) SELECT teams.id, users.id, CAST(? AS TEXT) "
            "FROM teams CROSS JOIN users WHERE teams.id = ? AND users.id = ? "
            "ON CONFLICT (team_id, user_id) DO UPDATE SET role = excluded.role"
        )
        if not await self._changed((statement, (member.role, member.team_id, member.user_id))):
            raise NotFound("There is no such user or team.")

    async def remove_member(self, team_id: str, user_id: str) -> bool:
        """End a membership."""
        statement = "DELETE FROM members WHERE team_id = ? AND user_id = ?"
        return bool(await self._changed((statement, (team_id, user_id))))

    async def members_of(self, team_id: str) -> tuple[Member, ...]:
        """Return a team's members."""
        return await self._all(Member, "members", "team_id = ? ORDER BY user_id", team_id)

    async def teams_of(self, user_id: str) -> tuple[Member, ...]:
        """Return a user's memberships."""
        return await self._all(Member, "members", "user_id = ? ORDER BY team_id", user_id)

    async def standing(self, user_id: str, team_id: str) -> Standing:
        """Return what stands behind a key."""
        statement = (
            f"SELECT {_columns(User, 'users')}, {_columns(Team, 'teams')}, {_columns(Member, 'members')} "  # noqa: S608 -- constants
            "FROM (SELECT CAST(? AS TEXT) AS user_id, CAST(? AS TEXT) AS team_id) AS asked "
            "LEFT JOIN users ON users.id = asked.user_id LEFT JOIN teams ON teams.id = asked.team_id "
            "LEFT JOIN members ON members.user_id = asked.user_id AND members.team_id = asked.team_id"
        )
        [row] = await self._database.rows(statement, (user_id, team_id))
        users, teams = len(User.__struct_fields__), len(Team.__struct_fields__)
        user, team, member = row[:users], row[users : users + teams], row[users + teams :]
        return Standing(
            user=_read(User, user) if user[0] is not None else None,
            team=_read(Team, team) if team[0] is not None else None,
            membership=_read(Member, member) if member[0] is not None else None,
        )

    async def add_link(self, link: Link) -> None:
        """Keep a link. Raises `Conflict`."""
        [added] = await self._database.write([(_insert(Link, "links"), _row_of(link))])
        if not added:
            raise Conflict(f"There is already a link with the id {link.id}.")

    async def add_first_link(self, link: Link, now: float) -> bool:
        """Keep a link unless an admin, or a live link for one, is there."""
        condition = (
            "NOT EXISTS (SELECT 1 FROM users WHERE role = 'admin' AND disabled_at IS NULL) AND NOT EXISTS "
            "(SELECT 1 FROM links WHERE purpose = 'signup' AND role = 'admin' AND used_at IS NULL AND expires_at > ?)"
        )
        return bool(
            await self._changed((_insert_if(Link, "links", self._database.dialect, condition), (*_row_of(link), now)))
        )

    async def get_link(self, digest: bytes) -> Link | None:
        """Return the link with this digest."""
        return await self._one(Link, "links", "digest = ?", digest)

    async def list_links(self) -> tuple[Link, ...]:
        """Return all links that were not used."""
        return await self._all(Link, "links", "used_at IS NULL ORDER BY created_at, id")

    async def withdraw_link(self, link_id: str) -> bool:
        """Delete a link that was not used."""
        statement = "DELETE FROM links WHERE id = ? AND used_at IS NULL"
        [deleted] = await self._database.write([(statement, (link_id,))])
        return deleted == 1

    async def redeem_signup(self, digest: bytes, user: User, now: float) -> Redeemed:
        """Use a sign-up link up and keep the user."""
        live = (digest, now)
        keep = _insert_if(User, "users", self._database.dialect, f"EXISTS (SELECT 1 FROM links WHERE {_SIGNUP})")  # noqa: S608 -- constants
        join = (
            "INSERT INTO members (team_id, user_id, role) SELECT teams.id, users.id, 'member' "  # noqa: S608 -- constants
            "FROM links JOIN teams ON teams.id = links.team_id CROSS JOIN users "
            f"WHERE {_SIGNUP} AND users.id = ? ON CONFLICT DO NOTHING"
        )
        _revised, kept, _joined, used = await self._database.write(
            [
                REVISE,
                (keep, (*_row_of(user), *live)),
                (join, (*live, user.id)),
                (f"UPDATE links SET used_at = ? WHERE {_SIGNUP}", (now, *live)),  # noqa: S608 -- constants
            ]
        )
        return "gone" if not used else "done" if kept else "taken"

    async def redeem_password(self, digest: bytes, password: str, now: float) -> str | None:
        """Use a password link up and set the password."""
        live = (digest, now)
        whose = (
            f"SELECT users.id FROM links JOIN users ON users.id = links.user_id WHERE {_PASSWORD} "  # noqa: S608 -- constants
            "AND users.disabled_at IS NULL"
        )
        use_up = (
            f"UPDATE links SET used_at = ? WHERE {_PASSWORD} AND user_id IN "  # noqa: S608 -- constants
            "(SELECT id FROM users WHERE disabled_at IS NULL)"
        )
        link = await self.get_link(digest)
        _revised, _ended, _set, used = await self._database.write(
            [
                REVISE,
                (f"DELETE FROM browser_sessions WHERE user_id IN ({whose})", live),  # noqa: S608 -- constants
                (f"UPDATE users SET password = ? WHERE id IN ({whose})", (password, *live)),  # noqa: S608 -- constants
                (use_up, (now, *live)),
            ]
        )
        return link.user_id if used and link is not None else None

    async def add_session(self, session: BrowserSession) -> None:
        """Keep a session."""
        await self._database.write([(_insert(BrowserSession, "browser_sessions"), _row_of(session))])

    async def get_session(self, digest: bytes) -> BrowserSession | None:
        """Return the session with this digest."""
        return await self._one(BrowserSession, "browser_sessions", "digest = ?", digest)

    async def touch_session(self, digest: bytes, at: float) -> None:
        """Note that the session was used."""
        await self._database.write([("UPDATE browser_sessions SET seen_at = ? WHERE digest = ?", (at, digest))])

    async def end_session(self, digest: bytes) -> bool:
        """Delete a session."""
        [ended] = await self._database.write([("DELETE FROM browser_sessions WHERE digest = ?", (digest,))])
        return ended == 1

    async def forget_sessions(self, seen_before: float, now: float) -> int:
        """Delete old sessions."""
        statement = "DELETE FROM browser_sessions WHERE seen_at < ? OR expires_at <= ?"
        [ended] = await self._database.write([(statement, (seen_before, now))])
        return ended

    async def _changed(self, *changes: Change) -> int:
        """Do the changes after `REVISE`, and return how many rows the first has touched."""
        counts = await self._database.write([REVISE, *changes])
        return counts[1]

    async def _one(self, kind: type[Kept], table: str, condition: str, *values: object) -> Kept | None:
        found = await self._all(kind, table, condition, *values)
        return found[0] if found else None

    async def _all(self, kind: type[Kept], table: str, condition: str, *values: object) -> tuple[Kept, ...]:
        statement = f"SELECT {_columns(kind)} FROM {table} WHERE {condition}"  # noqa: S608 -- constants
        return tuple(_read(kind, row) for row in await self._database.rows(statement, values))


def _update(table: str, kept_id: str, change: UserChange | TeamChange) -> Change:
    """Return the change of the columns that are said; of none, one that only tells whether the row is there."""
    said = {name: value for name in change.__struct_fields__ if (value := getattr(change, name)) is not msgspec.UNSET}
    columns = ", ".join(f"{name} = ?" for name in said) or "id = id"
    values = [_value(value) for value in said.values()]
    return f"UPDATE {table} SET {columns} WHERE id = ?", (*values, kept_id)  # noqa: S608 -- names of our own fields


def _value(value: object) -> object:
    return msgspec.json.encode(value).decode() if isinstance(value, Allowance) else value


def _row_of(kept: msgspec.Struct) -> Row:
    return tuple(_value(getattr(kept, name)) for name in kept.__struct_fields__)


def _read(kind: type[Kept], row: Row) -> Kept:
    fields: dict[str, Any] = dict(zip(kind.__struct_fields__, row, strict=True))
    if fields.get("limits") is not None:
        fields["limits"] = msgspec.json.decode(fields["limits"], type=Allowance)
    if "digest" in fields:
        fields["digest"] = bytes(fields["digest"])  # Postgres may hand out a view
    return kind(**fields)

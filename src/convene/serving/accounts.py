"""Users, teams, members and links as an admin changes them, and who a caller is. No HTTP, no SQL.

Called by `api/admin.py` with whoever asks and by `cli_users.py` as the operator of the machine (`keyring.LOCAL`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import UNSET

from convene.errors import BadRequest, Conflict, Forbidden, NotFound
from convene.serving.base_accounts import ADMIN, PAGE_MAX, LinkDraft, Self
from convene.serving.doors import LINK_S, NAME_MAX, RESET_S, check_email, check_text, draft_link
from convene.store.base_accounts import Link, Member, Team, TeamChange, User, UserChange

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convene.clock import Clock
    from convene.limits.allowance import Allowance
    from convene.serving.base import Principal
    from convene.serving.base_accounts import UserDraft
    from convene.store.base_accounts import Accounts, TeamRole

LIFETIME_MAX_S: Final = 90 * 86_400.0


class People:
    """The users and teams of one store (`serving.base_accounts.People`)."""

    def __init__(
        self, accounts: Callable[[], Accounts], clock: Clock, plan_limits: Callable[[str], Allowance | None]
    ) -> None:
        """`accounts` gives the store as it is at each call; `plan_limits` a plan's limits, None if there is no such."""
        self._accounts = accounts
        self._clock = clock
        self._plan_limits = plan_limits

    async def about(self, caller: Principal) -> Self:
        """Return who the caller is."""
        if not caller.user_id:
            return Self(principal=caller, user=None, teams=())
        accounts = self._accounts()
        teams = []
        for member in await accounts.teams_of(caller.user_id):
            team = await accounts.get_team(member.team_id)
            if team is not None:
                teams.append((team, member))
        return Self(principal=caller, user=await accounts.get_user(caller.user_id), teams=tuple(teams))

    async def users(self, caller: Principal, limit: int, after: str) -> Sequence[User]:
        """Return users by id."""
        check_admin(caller)
        return await self._accounts().list_users(limit, after)

    async def add_user(self, caller: Principal, draft: UserDraft) -> tuple[User, str]:
        """Make a user, and the link that sets its password."""
        check_admin(caller)
        self._check_plan(draft.plan)
        email = check_email(draft.email)
        user = User(
            id=self._clock.new_id("usr_"),
            name=check_text(draft.name or email[:NAME_MAX], "name"),
            email=email,
            role=draft.role,
            plan=draft.plan,
            limits=draft.limits,
            created_at=self._clock.now(),
        )
        try:
            await self._accounts().add_user(user)
        except Conflict as taken:  # clients repeat a 409, and this one lasts
            raise _exists(email) from taken
        text, _ = await self.reset_link(caller, user.id)
        return user, text

    async def change_user(self, caller: Principal, user_id: str, change: UserChange) -> User:
        """Change a user."""
        check_admin(caller)
        if change.name is not UNSET:
            check_text(change.name, "name")
        self._check_plan(change.plan or "")
        shut_out = change.disabled_at is not UNSET and change.disabled_at is not None
        if change.role == "member" or shut_out:
            await self._keep_an_admin(user_id)
        user = await self._accounts().change_user(user_id, change)
        if user is None:
            raise NotFound(f"There is no user with the id {user_id[:100]}.")
        return user

    async def disable_user(self, caller: Principal, user_id: str) -> User:
        """Shut a user out."""
        return await self.change_user(caller, user_id, UserChange(disabled_at=self._clock.now()))

    async def reset_link(self, caller: Principal, user_id: str) -> tuple[str, Link]:
        """Return a link that sets the user's password."""
        check_admin(caller)
        user = await self._accounts().get_user(user_id)
        if user is None:
            raise NotFound(f"There is no user with the id {user_id[:100]}.")
        text, link = draft_link(
            self._clock,
            purpose="password",
            user_id=user.id,
            email=user.email,
            created_by=_who(caller),
            lifetime_s=RESET_S,
        )
        await self._accounts().add_link(link)
        return text, link

    async def teams(self, caller: Principal, limit: int, after: str) -> Sequence[Team]:
        """Return teams by id."""
        check_admin(caller)
        return await self._accounts().list_teams(limit, after)

    async def add_team(self, caller: Principal, team: str, plan: str, limits: Allowance | None) -> Team:
        """Make a team by name."""
        check_admin(caller)
        self._check_plan(plan)
        made = Team(
            id=self._clock.new_id("team_"),
            name=check_text(team, "name"),
            plan=plan,
            limits=limits,
            created_at=self._clock.now(),
        )
        await self._accounts().add_team(made)
        return made

    async def change_team(self, caller: Principal, team_id: str, change: TeamChange) -> Team:
        """Change a team."""
        check_admin(caller)
        if change.name is not UNSET:
            check_text(change.name, "name")
        self._check_plan(change.plan or "")
        return await self._accounts().change_team(team_id, change) or await self._team(team_id)

    async def members(self, caller: Principal, team_id: str) -> Sequence[Member]:
        """Return a team's members."""
        check_admin(caller)
        await self._team(team_id)
        return await self._accounts().members_of(team_id)

    async def put_member(self, caller: Principal, team_id: str, user_id: str, role: TeamRole) -> Member:
        """Add a member or change its role."""
        check_admin(caller)
        member = Member(team_id=team_id, user_id=user_id, role=role)
        await self._accounts().put_member(member)
        return member

    async def remove_member(self, caller: Principal, team_id: str, user_id: str) -> None:
        """End a membership."""
        check_admin(caller)
        if not await self._accounts().remove_member(team_id, user_id):
            raise NotFound("There is no such membership.")

    async def links(self, caller: Principal) -> Sequence[Link]:
        """Return the links that were not used."""
        check_admin(caller)
        return await self._accounts().list_links()

    async def invite(self, caller: Principal, draft: LinkDraft) -> tuple[str, Link]:
        """Return a one-time sign-up link."""
        check_admin(caller)
        self._check_plan(draft.plan)
        lifetime_s = LINK_S if draft.lifetime_s is None else draft.lifetime_s
        if not 0 < lifetime_s <= LIFETIME_MAX_S:
            raise BadRequest("A link lives at most 90 days.", param="expires_in")
        email = check_email(draft.email) if draft.email else ""
        if email and await self._accounts().find_user(email) is not None:
            raise _exists(email)
        if draft.team_id:
            await self._team(draft.team_id)
        text, link = draft_link(
            self._clock,
            email=email,
            role=draft.role,
            plan=draft.plan,
            team_id=draft.team_id,
            created_by=_who(caller),
            lifetime_s=lifetime_s,
        )
        await self._accounts().add_link(link)
        return text, link

    async def withdraw_link(self, caller: Principal, link_id: str) -> None:
        """Void a link."""
        check_admin(caller)
        if not await self._accounts().withdraw_link(link_id):
            raise NotFound(f"There is no unused link with the id {link_id[:100]}.")

    async def _team(self, team_id: str) -> Team:
        team = await self._accounts().get_team(team_id)
        if team is None:
            raise NotFound(f"There is no team with the id {team_id[:100]}.")
        return team

    async def _keep_an_admin(self, user_id: str) -> None:
        """Raise `BadRequest` if this user is the last admin that is not disabled."""
        after, is_one, others = "", False, False
        while page := await self._accounts().list_users(PAGE_MAX, after):
            admins = [user.id for user in page if user.role == ADMIN and user.disabled_at is None]
            is_one = is_one or user_id in admins
            others = others or any(admin != user_id for admin in admins)
            after = page[-1].id
        if is_one and not others:
            raise BadRequest("This is the last admin. Make another one first.", code="last_admin")

    def _check_plan(self, plan: str) -> None:
        check_plan(plan, self._plan_limits)


def check_plan(plan: str, plan_limits: Callable[[str], Allowance | None]) -> None:
    """Raise `BadRequest` if a plan is named and there is none of that name."""
    if plan and plan_limits(plan) is None:
        raise BadRequest(f"There is no plan {plan[:100]!r}: see [plans] in the settings.", param="plan")


def check_admin(caller: Principal) -> None:
    """Raise `Forbidden` unless the caller has the scope "admin"."""
    if ADMIN not in caller.scopes:
        raise Forbidden("This needs a key or an account with the scope admin.")


def _exists(email: str) -> BadRequest:
    return BadRequest(f"There is already a user with the email {email}.", param="email", code="already_exists")


def _who(caller: Principal) -> str:
    return caller.user_id or caller.key_id

"""`/v1/admin`: users, teams, members and invitations, for keys and accounts with the scope "admin"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UNSET

from convene.api import shapes_accounts as shapes
from convene.api.accounts_wire import (
    account_of,
    address_of_link,
    allowance_of,
    changed_limits,
    invitation_of,
    page_of,
    read_body,
    read_page,
    reply,
    team_of,
)
from convene.serving.base_accounts import LinkDraft, TeamChange, UserChange, UserDraft

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call
    from convene.serving.base_accounts import People


class Admin:
    """The endpoints. The front door has checked the scope, and `People` checks it again."""

    def __init__(self, people: People, now: Callable[[], float], public_url: str = "") -> None:
        self._people = people
        self._now = now
        self._public_url = public_url

    async def list_users(self, call: Call) -> None:
        """List users, disabled ones too."""
        limit, after = read_page(call)
        found = await self._people.users(call.caller, limit + 1, after)
        data = [account_of(user) for user in found[:limit]]
        await reply(call, shapes.AccountList(data=data, has_more=len(found) > limit))

    async def add_user(self, call: Call) -> None:
        """Make a user; the answer has the link that sets its password, once."""
        body = await read_body(call, shapes.UserBody)
        draft = UserDraft(
            email=body.email,
            name=body.name or "",
            role=body.role or "member",
            plan=body.plan or "",
            limits=allowance_of(body.limits),
        )
        user, text = await self._people.add_user(call.caller, draft)
        await reply(call, account_of(user, address_of_link(call, self._public_url, text)))

    async def change_user(self, call: Call) -> None:
        """Change a user; `disabled: true` shuts it out, `false` lets it in again."""
        body = await read_body(call, shapes.UserChangeBody)
        change = UserChange(
            name=body.name,
            role=body.role,
            plan=body.plan,
            limits=changed_limits(body.limits),
            disabled_at=UNSET if body.disabled is UNSET else self._now() if body.disabled else None,
        )
        await reply(call, account_of(await self._people.change_user(call.caller, call.params["user"], change)))

    async def disable_user(self, call: Call) -> None:
        """Shut a user out. Its record stays, for the books."""
        user = await self._people.disable_user(call.caller, call.params["user"])
        await reply(call, shapes.Deleted(id=user.id, object="user"))

    async def reset_link(self, call: Call) -> None:
        """Make a link that sets a user's password, and show it, once."""
        text, link = await self._people.reset_link(call.caller, call.params["user"])
        await reply(call, invitation_of(link, address_of_link(call, self._public_url, text)))

    async def list_teams(self, call: Call) -> None:
        """List teams."""
        limit, after = read_page(call)
        found = await self._people.teams(call.caller, limit + 1, after)
        await reply(call, shapes.TeamList(data=[team_of(team) for team in found[:limit]], has_more=len(found) > limit))

    async def add_team(self, call: Call) -> None:
        """Make a team."""
        body = await read_body(call, shapes.TeamBody)
        team = await self._people.add_team(call.caller, body.name, body.plan or "", allowance_of(body.limits))
        await reply(call, team_of(team))

    async def change_team(self, call: Call) -> None:
        """Change a team."""
        body = await read_body(call, shapes.TeamChangeBody)
        change = TeamChange(name=body.name, plan=body.plan, limits=changed_limits(body.limits))
        await reply(call, team_of(await self._people.change_team(call.caller, call.params["team"], change)))

    async def list_members(self, call: Call) -> None:
        """List a team's members."""
        members = await self._people.members(call.caller, call.params["team"])
        data = [shapes.MemberReply(team_id=one.team_id, user_id=one.user_id, role=one.role) for one in members]
        await reply(call, shapes.MemberList(data=data))

    async def put_member(self, call: Call) -> None:
        """Add a member, or change its role."""
        body = await read_body(call, shapes.MemberBody)
        one = await self._people.put_member(call.caller, call.params["team"], body.user_id, body.role or "member")
        await reply(call, shapes.MemberReply(team_id=one.team_id, user_id=one.user_id, role=one.role))

    async def remove_member(self, call: Call) -> None:
        """End a membership."""
        user_id = call.params["user"]
        await self._people.remove_member(call.caller, call.params["team"], user_id)
        await reply(call, shapes.Deleted(id=user_id, object="team_member"))

    async def list_links(self, call: Call) -> None:
        """List the links that were not used."""
        limit, after = read_page(call)
        page, more = page_of(await self._people.links(call.caller), limit, after)
        await reply(call, shapes.InvitationList(data=[invitation_of(link) for link in page], has_more=more))

    async def invite(self, call: Call) -> None:
        """Make a one-time sign-up link and show it, once."""
        body = await read_body(call, shapes.InvitationBody)
        draft = LinkDraft(
            email=body.email or "",
            role=body.role or "member",
            plan=body.plan or "",
            team_id=body.team_id or "",
            lifetime_s=body.expires_in,
        )
        text, link = await self._people.invite(call.caller, draft)
        await reply(call, invitation_of(link, address_of_link(call, self._public_url, text)))

    async def withdraw_link(self, call: Call) -> None:
        """Void a link."""
        link_id = call.params["invitation"]
        await self._people.withdraw_link(call.caller, link_id)
        await reply(call, shapes.Deleted(id=link_id, object="invitation"))

"""`/v1/keys` and `/v1/me`: a user's own keys, by a key of its own or by a browser session (KEY-01, KEY-02)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.api import shapes_accounts as shapes
from convene.api.accounts_wire import (
    account_of,
    allowance_of,
    changed_limits,
    key_of,
    page_of,
    read_body,
    read_page,
    reply,
)
from convene.serving.base_accounts import API, KeyChange, KeyDraft

if TYPE_CHECKING:
    from collections.abc import Callable

    from convene.api.call import Call
    from convene.serving.base_accounts import KeyDesk, People


class Keys:
    """The endpoints."""

    def __init__(self, desk: KeyDesk, people: People, now: Callable[[], float]) -> None:
        self._desk = desk
        self._people = people
        self._now = now

    async def show_me(self, call: Call) -> None:
        """Say who is calling."""
        me = await self._people.about(call.caller)
        who = me.principal
        is_key = who.key_id != "browser"
        await reply(
            call,
            shapes.Me(
                key_id=who.key_id if is_key else None,
                key_name=who.name if is_key else None,
                owner=who.owner,
                plan=who.plan,
                scopes=list(who.scopes),
                models=None if who.models is None else list(who.models),
                user=None if me.user is None else account_of(me.user),
                teams=[shapes.OwnTeam(id=team.id, name=team.name, role=member.role) for team, member in me.teams],
            ),
        )

    async def list_mine(self, call: Call) -> None:
        """List the caller's keys and those of teams it owns."""
        limit, after = read_page(call)
        page, more = page_of(await self._desk.mine(call.caller), limit, after)
        now = self._now()
        await reply(call, shapes.ApiKeyList(data=[key_of(record, now) for record in page], has_more=more))

    async def create(self, call: Call) -> None:
        """Make a key and show it, once."""
        body = await read_body(call, shapes.KeyBody)
        draft = KeyDraft(
            name=body.name,
            expires_at=body.expires_at,
            models=None if body.models is None else tuple(body.models),
            scopes=(API,) if body.scopes is None else tuple(body.scopes),
            limits=allowance_of(body.limits),
            team_id=body.team_id or "",
        )
        text, record = await self._desk.create(call.caller, draft)
        await reply(call, key_of(record, self._now(), text))

    async def rotate(self, call: Call) -> None:
        """Give a key another secret and show it, once."""
        text, record = await self._desk.rotate(call.caller, call.params["key"])
        await reply(call, key_of(record, self._now(), text))

    async def change(self, call: Call) -> None:
        """Rename a key, tighten its limits; an admin may change the rest."""
        body = await read_body(call, shapes.KeyChangeBody)
        change = KeyChange(
            name=body.name,
            limits=changed_limits(body.limits),
            plan=body.plan,
            models=tuple(body.models) if isinstance(body.models, list) else body.models,
            expires_at=body.expires_at,
        )
        record = await self._desk.change(call.caller, call.params["key"], change)
        await reply(call, key_of(record, self._now()))

    async def revoke(self, call: Call) -> None:
        """End a key."""
        record = await self._desk.revoke(call.caller, call.params["key"])
        await reply(call, shapes.Deleted(id=record.id, object="api_key"))

    async def list_all(self, call: Call) -> None:
        """List every key, for admins."""
        limit, after = read_page(call)
        page, more = page_of(await self._desk.all(call.caller), limit, after)
        now = self._now()
        await reply(call, shapes.ApiKeyList(data=[key_of(record, now) for record in page], has_more=more))

    async def issue(self, call: Call) -> None:
        """Make a key for anybody, for admins."""
        body = await read_body(call, shapes.AdminKeyBody)
        limits = {name: allowance_of(one) for name, one in (body.model_limits or {}).items()}
        draft = KeyDraft(
            name=body.name,
            plan=body.plan or "",
            expires_at=body.expires_at,
            models=None if body.models is None else tuple(body.models),
            scopes=(API,) if body.scopes is None else tuple(body.scopes),
            limits=allowance_of(body.limits),
            model_limits={name: one for name, one in limits.items() if one is not None},
            user_id=body.user_id or "",
            team_id=body.team_id or "",
        )
        text, record = await self._desk.issue(call.caller, draft)
        await reply(call, key_of(record, self._now(), text))

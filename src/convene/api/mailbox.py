"""Where envelopes are posted for agents that are reached through this server: mailboxes and the proxy (MBOX, PROXY)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.api.shapes_market import waiting_of
from convene.errors import NotFound, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from convene.api.askers import Askers
    from convene.api.call import Call
    from convene.registry.base_desks import MailDesk, ProxyDesk
    from convene.store.base_market import Letter

EMPTY: Final = b"{}"
STATUS: Final = b"x-uagents-status"
ADDRESS: Final = b"x-uagents-address"
CONNECTION: Final = b"x-uagents-connection"
PROXIED: Final = b"x-convene-proxied"
OK: Final = b'{"status":"OK - Agent is running"}'


class MailPages:
    """The endpoints of mailboxes."""

    def __init__(self, desk: MailDesk, askers: Askers) -> None:
        self._desk = desk
        self._askers = askers

    async def submit(self, call: Call) -> None:
        """Keep an envelope (MBOX-01)."""
        await self._desk.submit(await call.body())
        await call.reply(200, EMPTY)

    async def probe(self, call: Call) -> None:
        """Say whether envelopes are taken for an agent (PROBE-01)."""
        await _probe(call, self._desk.is_ready)

    async def waiting(self, call: Call) -> None:
        """Give an agent what waits for it; 404: it has no mailbox (MBOX-02)."""
        address = call.params["address"]
        await self._askers.agent(call, address)
        await call.reply_json([waiting_of(letter) for letter in await self._letters(address)])

    async def take(self, call: Call) -> None:
        """Delete what was handled (MBOX-03)."""
        address = call.params["address"]
        await self._askers.agent(call, address)
        await self._take(call, address)

    async def old_waiting(self, call: Call) -> None:
        """Give it as old libraries read it: a page (LIST-17)."""
        found = await self._letters(await self._old_agent(call))
        items = [waiting_of(letter) for letter in found]
        await call.reply_json({"items": items, "total": len(items), "page": 1, "size": len(items), "pages": 1})

    async def old_take(self, call: Call) -> None:
        """Delete by an old path (LIST-17)."""
        await self._take(call, await self._old_agent(call))

    async def _letters(self, address: str) -> list[Letter]:
        found = await self._desk.waiting(address)
        if found is None:
            raise NotFound("The agent has no mailbox here yet; make one by its inspector.", code="mailbox_not_found")
        return list(found)

    async def _take(self, call: Call, address: str) -> None:
        if not await self._desk.take(address, call.params["uuid"]):
            raise NotFound("No envelope of this id waits.", code="envelope_not_found")
        await call.reply(200, EMPTY)

    async def _old_agent(self, call: Call) -> str:
        asker = await self._askers.known(call)
        if not asker.agent:
            raise Unauthorized("Send the token of POST /v1/auth/prove as Authorization: token TOKEN.")
        return asker.agent


class ProxyPages:
    """The endpoints of the proxy."""

    def __init__(self, desk: ProxyDesk) -> None:
        self._desk = desk

    async def submit(self, call: Call) -> None:
        """Hand an envelope on and give the answer back (PROXY-01)."""
        connection = (call.header(CONNECTION) or "").strip()
        answer = await self._desk.submit(await call.body(), connection, proxied=PROXIED in call.headers)
        await call.reply(
            answer.status, answer.body, answer.media_type.encode("latin-1"), [(b"x-content-type-options", b"nosniff")]
        )

    async def probe(self, call: Call) -> None:
        """Say whether envelopes are handed on for an agent (PROBE-01)."""
        await _probe(call, self._desk.is_ready)


async def _probe(call: Call, is_ready: Callable[[str], Awaitable[bool]]) -> None:
    address = call.header(ADDRESS)
    status = b"indeterminate" if address is None else b"ready" if await is_ready(address) else b"not-ready"
    await call.reply(200, OK, headers=[(STATUS, status)])

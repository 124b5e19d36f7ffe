"""`/agents/inbox`: where agents post their answers, in the words that agents know (CALL-03, PROBE-01, decision 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from convene.agents.base import Inbox
    from convene.api.call import Call

STATUS = b"x-uagents-status"


class AgentInbox:
    """The endpoints."""

    def __init__(self, inbox: Inbox) -> None:
        """`inbox` takes in what is posted."""
        self._inbox = inbox

    async def post(self, call: Call) -> None:
        """Take an envelope in. Nothing here waits for anybody but the store (TRAP-04)."""
        verdict = await self._inbox.receive(await call.body())
        body = b"{}" if not verdict.error else msgspec.json.encode({"error": verdict.error})
        await call.reply(verdict.status, body)

    async def probe(self, call: Call) -> None:
        """Say whether envelopes are taken for the address that is asked about."""
        asked = call.header(b"x-uagents-address")
        status = b"indeterminate" if asked is None else b"ready" if self._inbox.is_us(asked) else b"not-ready"
        await call.reply(200, b'{"status":"OK - Agent is running"}', headers=[(STATUS, status)])

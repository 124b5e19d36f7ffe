"""A talker behind what holds for agents of every protocol: a breaker for each, fair seats, a pace (HOSTED-05)."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Final

from convene.agents.faults import error
from convene.agents.seats import FullError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.agents.base import AgentCard, AgentProtocol, Conversation, Heard, Talker
    from convene.agents.breaker import Breaker
    from convene.agents.pace import Pace
    from convene.agents.seats import Seats

WAIT_S: Final = 60.0
"""For a seat, and for the pace."""
OWN: Final = frozenset({"local", "named"})
"""Directories of this server's own."""
ENDS: Final = frozenset({"end", "error", "needs_input", "payment"})
FAULTY: Final = frozenset({"timed_out", "unreachable"})
"""Ends that speak against an agent; a refusal or an error of its own shows that it is there."""
WELL: Final = frozenset({"well", "agent_error", "unreadable", "refused"})

OPEN: Final = "The agent has not answered several times in a row; it is left alone for {seconds:.0f} more seconds."
BUSY: Final = "Too many questions wait for this agent at this moment."


class GuardedTalker:
    """Implements `base.Talker` by another one."""

    def __init__(self, inner: Talker, seats: Seats, breaker: Breaker | None = None, pace: Pace | None = None) -> None:
        """Without `breaker`, `inner` has its own; `pace` is kept towards agents of directories elsewhere."""
        self._inner = inner
        self._seats = seats
        self._breaker = breaker
        self._pace = pace

    @property
    def protocol(self) -> AgentProtocol:
        """The other one's."""
        return self._inner.protocol

    async def give_up(self, card: AgentCard, conversation: Conversation) -> None:
        """See `base.Talker`."""
        await self._inner.give_up(card, conversation)

    async def talk(self, card: AgentCard, conversation: Conversation, say: str) -> AsyncGenerator[Heard]:
        """See `base.Talker`."""
        wait_s = None if self._breaker is None else self._breaker.admit(card.id)
        if wait_s is not None:
            yield error(OPEN.format(seconds=wait_s), "left_alone")
            return
        reason = ""
        try:
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(WAIT_S):
                        await stack.enter_async_context(self._seats.seat(card.id, conversation.owner))
                        if self._pace is not None and card.directory not in OWN:
                            await self._pace.wait()
                except (TimeoutError, FullError):
                    yield error(BUSY, "busy")
                    return
                talk = await stack.enter_async_context(aclosing(self._inner.talk(card, conversation, say)))
                async for heard in talk:
                    if heard.kind in ENDS:
                        reason = heard.metadata.get("reason", "well")
                    yield heard
        finally:
            self._judge(card.id, reason)

    def _judge(self, agent: str, reason: str) -> None:
        if self._breaker is None:
            return
        if reason in FAULTY:
            self._breaker.fault(agent)
        elif reason in WELL:
            self._breaker.well(agent)
        else:
            self._breaker.undecided(agent)

"""A marketplace for tests of what asks it: agents with a script each, found by name or by a word of theirs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.agents.base import Attachment, Heard
from convene.registry.base import Found
from convene.tools.ask_agent import AskAgent
from convene.tools.find_agents import FindAgents

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from convene.events import Noticed
    from convene.tools.agents_base import AgentOutcome, Asking, FoundAgent
    from convene.tools.base import Tool

ADDRESS = "agent1q" + "w" * 58
OTHER = "agent1q" + "z" * 58
END = Heard(kind="end")

Script = "Sequence[float | asyncio.Event | str | Heard]"


def found(name: str, address: str, **fields: object) -> Found:
    return Found(protocol="acp", name=name, address=address, handle=name, description=f"Knows {name}.", **fields)  # type: ignore[arg-type]  # tests name real fields


def image(uri: str) -> Heard:
    return Heard(kind="resource", attachments=(Attachment(uri=uri, media_type="image/png", role="image"),))


class Market:
    """An `AgentDesk` and a `Toolbox` of its two tools."""

    def __init__(self, *, anybody: bool = True) -> None:
        self.agents: dict[str, tuple[Found, Sequence[float | asyncio.Event | str | Heard]]] = {}
        self.asked: list[Asking] = []
        self.notes: list[tuple[str, AgentOutcome]] = []
        self.given_up: list[tuple[str, str]] = []
        self.searches: list[str] = []
        self.silent: set[str] = set()
        """Names of agents that do not acknowledge."""
        self._anybody = anybody

    def add(
        self, name: str, *script: float | asyncio.Event | str | Heard, address: str = ADDRESS, **fields: object
    ) -> Market:
        """Add an agent: a number waits so many seconds, an event until it is set, a text is said, all else is heard."""
        self.agents[address] = (found(name, address, **fields), script)
        return self

    def anybody(self) -> bool:
        return self._anybody

    def tools(self) -> Sequence[Tool]:
        return (FindAgents(self), AskAgent(self)) if self._anybody else ()

    def notices(self) -> Sequence[Noticed]:
        return ()

    async def search(self, query: str, limit: int) -> Sequence[Found]:
        self.searches.append(query)
        return [agent for agent, _ in self.agents.values()][:limit]

    async def find(self, name: str) -> Found | None:
        known = (agent for agent, _ in self.agents.values() if name.removeprefix("@") in {agent.address, agent.handle})
        return next(known, None)

    async def ask(self, agent: FoundAgent, asking: Asking) -> AsyncGenerator[Heard]:
        self.asked.append(asking)
        if agent.name not in self.silent:
            yield Heard(kind="acknowledged")
        for step in self.agents[agent.address][1]:
            if isinstance(step, int | float):
                await asyncio.sleep(step)
            elif isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield Heard(kind="text", text=step) if isinstance(step, str) else step
                if isinstance(step, Heard) and step.kind in {"error", "needs_input", "payment", "end"}:
                    return
        yield END

    async def give_up(self, agent: FoundAgent, asking: Asking) -> None:
        self.given_up.append((agent.name, asking.call_key))

    async def note(self, agent: FoundAgent, outcome: AgentOutcome, seconds: float) -> None:
        assert seconds >= 0
        self.notes.append((agent.name, outcome))

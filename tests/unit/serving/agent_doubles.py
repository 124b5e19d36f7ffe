"""What tests of agentic turns start from: a model that says what it is told round by round, and a house around it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from convene.events import Began, CallDelta, Finished, ReasoningDelta, TextDelta, UsageReported
from convene.messages import FunctionTool, Message
from convene.providers.base import Capabilities, Generation
from convene.serving.admission import OpenLease
from convene.serving.agent import Agent, AgentSettings, Hooks
from convene.serving.base import Agentic, ChatRequest, ModelCard, Outcome, Principal
from convene.serving.catalog import Catalog, Deployment
from convene.serving.terms import AGENTIC, PLAIN, AgenticTerms, Terms
from convene.serving.turn import Turn, Turns
from convene.usage import Usage
from fakes import FakeClock
from tool_doubles import Box, PlayedTool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.limits.limit import Refusal
    from convene.serving.admission import Ask
    from convene.tools.base import Tool

WHO = Principal(key_id="k", owner="ada")
CLIENT = FunctionTool("get_weather", "the client's own", {"type": "object"})
Said = list["Event | Exception"]


def call(
    name: str = "weather", arguments: str = '{"city":"Rome"}', *, index: int = 0, call_id: str = ""
) -> list[Event]:
    """Return the events of one call."""
    return [CallDelta(index, "", call_id or f"call_{name}_{index}", name), CallDelta(index, arguments)]


def says(words: str = "", *calls: list[Event], think: str = "", usage: Usage | None = None) -> Said:
    """Return what one round emits."""
    found: Said = [Began("up", "m")]
    if think:
        found.append(ReasoningDelta(think))
    if words:
        found.append(TextDelta(words))
    for one in calls:
        found += one
    found.append(Finished("tool_calls" if calls else "stop"))
    found.append(UsageReported(usage or Usage(10, 5)))
    return found


class Rounds:
    """A model that says what it is told, one list a round; the last one repeats. It remembers what it was asked."""

    whole = None

    def __init__(self, *rounds: Said, can: Capabilities | None = None) -> None:
        self.capabilities = can or Capabilities()
        self.upstream = "up"
        self.asked: list[Generation] = []
        self._rounds = rounds

    def ready(self) -> str | None:
        return None

    def _next(self, messages: tuple[Message, ...]) -> int:
        """Return which round is due: by default the next one."""
        del messages
        return len(self.asked)

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        said = self._rounds[min(self._next(generation.messages), len(self._rounds) - 1)]
        self.asked.append(generation)
        for event in said:
            await asyncio.sleep(0)
            if isinstance(event, Exception):
                raise event
            yield event


class Lease(OpenLease):
    """A lease that notes what is topped up, and refuses from a round on."""

    def __init__(self) -> None:
        self.topped: list[tuple[int, int, int | None]] = []
        self.refusal: Refusal | None = None
        self.settled = 0

    async def top_up(self, round_number: int, prompt_bytes: int, output_max: int | None) -> Refusal | None:
        if self.refusal is None:
            self.topped.append((round_number, prompt_bytes, output_max))
        return self.refusal

    def settle(self) -> None:
        self.settled += 1


class House:
    """One model, its tools and its agent."""

    def __init__(
        self,
        model: Rounds,
        *tools: Tool,
        hooks: Hooks | None = None,
        settings: AgentSettings = AgentSettings(),  # noqa: B008 -- frozen
        agentic: AgenticTerms = AGENTIC,
        terms: Terms = PLAIN,
    ) -> None:
        self.model = model
        self.clock = FakeClock()
        self.lease = Lease()
        self.tool = PlayedTool()
        box = Box(*(tools or (self.tool,)))
        self.agent = Agent(box, settings, self.clock, hooks)
        card = ModelCard(id="m", created=0, owned_by="up", upstream="up", target="t")
        catalog = Catalog([Deployment(card=card, chat=model, terms=terms, agentic=agentic)])
        self.turns = Turns(catalog, self, self.clock, self.agent)

    async def reserve(self, ask: Ask, outcome: Outcome) -> Lease:
        """Admit everybody."""
        del ask, outcome
        return self.lease

    def turn(
        self, *messages: Message, tools: tuple[FunctionTool, ...] = (), agentic: Agentic | None = None, **fields: object
    ) -> Turn:
        """Return an accepted turn; `fields` are those of the generation."""
        generation = Generation(
            messages=messages or (Message(role="user", content="How is the weather?"),),
            tools=tools,
            **fields,  # type: ignore[arg-type]  # tests name real fields
        )
        request = ChatRequest(model="m", generation=generation, agentic=agentic or Agentic())
        turn = self.turns.start(request, WHO, "req_1")
        assert isinstance(turn, Turn)
        return turn

    async def play(self, turn: Turn | None = None) -> list[Event]:
        """Return all events of a turn."""
        return [event async for event in (turn or self.turn()).events()]


def text_of(events: list[Event]) -> str:
    """Return the text of an answer."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))

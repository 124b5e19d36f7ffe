"""The composition of answering agents: the use case behind ACP, A2A and MCP, and who asks, for `app.py`.

A part of the composition root. `agents/` gets `Replies` made of turns, and of runs for what a crash has left open.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.api.a2a import TALK as A2A_TALK
from convene.api.a2a import A2aServer
from convene.api.a2a_http import A2aHttp
from convene.api.agent_inbox import AgentInbox
from convene.api.mcp import McpServer
from convene.app_books import allowances_by_plan
from convene.errors import ConveneError
from convene.events import TextDelta
from convene.serving.agent_callers import AgentCallers, KnownCallers
from convene.serving.answering import AgentAnswering, AnsweringTerms
from convene.serving.asked_tasks import AskedTasks
from convene.serving.base_answering import AgentFound, Question
from convene.serving.base_runs import RunEnded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from convene.agents.questions import Question as AgentQuestion
    from convene.agents.responder import Reply
    from convene.api.routes import Endpoint
    from convene.api.stream import Streams
    from convene.app_agents import AgentParts
    from convene.app_runs import RunParts
    from convene.clock import Clock
    from convene.config import Config
    from convene.serving.base import Catalog, Principal, Turns
    from convene.serving.base_answering import Answering, AskedTurn
    from convene.serving.base_runs import Run, RunDesk
    from convene.serving.runs import KeptRuns
    from convene.tools.agents_base import FoundAgent

TALK: Final = "acp:"
"""Before the name of a conversation over the Agent Chat Protocol."""
FAILED: Final = "The answer could not be finished."


class AnsweringParts:
    """Everything about answering agents, of one application."""

    def __init__(
        self, config: Config, clock: Clock, turns: Turns, catalog: Catalog, runs: RunParts, agents: AgentParts
    ) -> None:
        settings = config.agents.answering
        terms = AnsweringTerms(
            model=settings.model,
            history_turns=settings.history_turns,
            history_bytes=settings.history_bytes,
            depth=config.agents.depth,
        )
        self.answering = AgentAnswering(turns, catalog, runs.sessions, terms)
        self.callers = AgentCallers(settings.plan, allowances_by_plan(config)[settings.together])
        self.tasks = AskedTasks(self.answering, runs.runs, A2A_TALK)
        self.lookup = Lookup(agents)
        self._inbox = AgentInbox(agents)
        self._config = config
        self._clock = clock
        agents.replies = AgentReplies(self.answering, self.callers, runs.runs)

    def endpoints(self, streams: Streams) -> dict[str, Endpoint]:
        """Return the endpoints by their names in `api.table.Endpoints`."""
        mcp = McpServer(self.answering, self.lookup, streams, self._clock.token, self._config.public_url)
        a2a = A2aServer(
            self.tasks,
            self.lookup,
            streams,
            self._clock.stamped_id,
            self._clock.now,
            public_url=self._config.public_url,
            has_keys=self._config.auth != "none",
        )
        over_http = A2aHttp(a2a)
        return {
            "agent_inbox": self._inbox.post,
            "agent_probe": self._inbox.probe,
            "a2a": a2a.post,
            "a2a_card": a2a.card,
            "a2a_send": over_http.send,
            "a2a_stream": over_http.stream,
            "a2a_tasks": over_http.list_tasks,
            "a2a_task": over_http.get,
            "a2a_change_task": over_http.change,
            "a2a_delete": over_http.delete,
            "a2a_extended_card": over_http.card,
            "mcp": mcp.post,
            "mcp_other": mcp.refuse,
        }

    async def aclose(self) -> None:
        """Leave what goes on to the next start."""
        await self.tasks.aclose()

    def holder(self, key_id: str) -> Principal | None:
        """Return who is behind the key id of an agent; None: it is none."""
        return self.callers.holder(key_id)

    def known(self, keys: Mapping[str, Principal]) -> Mapping[str, Principal]:
        """Return who is behind every key id, agents' included."""
        return KnownCallers(keys, self.callers)


class Lookup:
    """Implements `base_answering.AgentLookup`."""

    def __init__(self, agents: AgentParts) -> None:
        self._agents = agents

    def anybody(self) -> bool:
        """See `AgentLookup.anybody`."""
        return self._agents.anybody()

    async def search(self, query: str, limit: int) -> list[AgentFound]:
        """See `AgentLookup.search`."""
        return [_shown(one) for one in await self._agents.search(query, limit)]

    async def find(self, name: str) -> AgentFound | None:
        """See `AgentLookup.find`."""
        found = await self._agents.find(name.strip())
        return None if found is None else _shown(found)


def _shown(agent: FoundAgent) -> AgentFound:
    return AgentFound(
        agent=agent.address or agent.url,
        name=agent.name,
        protocol=agent.protocol,
        handle=agent.handle,
        description=agent.description,
        skills=tuple(agent.skills),
        reachable=agent.reachable,
    )


class AgentReplies:
    """Implements `agents.responder.Replies`."""

    def __init__(self, answering: Answering, callers: AgentCallers, runs: KeptRuns) -> None:
        self._answering = answering
        self._callers = callers
        self._runs = runs

    async def begin(self, question: AgentQuestion) -> Reply:
        """See `Replies.begin`."""
        asked = Question(
            who=self._callers.of(question.sender),
            text=question.text,
            conversation=f"{TALK}{question.session}",
            caller=question.sender,
            hops=question.hops,
            request_id=f"acp_{question.msg_id}",
        )
        return TurnReply(await self._answering.ask(asked))

    async def go_on(self, question: AgentQuestion) -> Reply | None:
        """See `Replies.go_on`."""
        run = await self._runs.store.get(self._callers.of(question.sender).owner, question.run_id)
        return None if run is None else RunReply(self._runs, run, self._answering, question)


class TurnReply:
    """An answer while its turn runs."""

    def __init__(self, asked: AskedTurn) -> None:
        self._asked = asked
        self.run_id = asked.run_id

    async def texts(self) -> AsyncGenerator[str]:
        """See `Reply.texts`."""
        async with aclosing(self._asked.events()) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    yield event.text


class RunReply:
    """An answer whose turn has outlived the process that began it."""

    def __init__(self, desk: RunDesk, run: Run, answering: Answering, question: AgentQuestion) -> None:
        self._desk = desk
        self._run = run
        self._answering = answering
        self._question = question
        self.run_id = run.id

    async def texts(self) -> AsyncGenerator[str]:
        """See `Reply.texts`."""
        texts: list[str] = []
        async with aclosing(self._desk.read(self._run, 0)) as pieces:
            async for found in pieces:
                for _, event in found:
                    if isinstance(event, TextDelta):
                        texts.append(event.text)
                        yield event.text
                    elif isinstance(event, RunEnded) and event.status != "done":
                        raise ConveneError(event.message or FAILED, code=event.fault or None)
        talk, said = f"{TALK}{self._question.session}", self._question.text
        await self._answering.remember(self._run.owner, talk, self._run.id, said, "".join(texts))

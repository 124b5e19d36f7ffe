"""The composition of answering agents: the use case behind ACP, A2A and MCP, and who asks, for `app.py`.

A part of the composition root. `agents/` gets `Replies` made of turns, and of runs for what a crash has left open.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from convene.app_books import allowances_by_plan
from convene.errors import ConveneError
from convene.events import TextDelta
from convene.serving.agent_callers import AgentCallers, KnownCallers
from convene.serving.answering import AgentAnswering, AnsweringTerms
from convene.serving.base_answering import Question
from convene.serving.base_runs import RunEnded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from convene.agents.questions import Question as AgentQuestion
    from convene.agents.responder import Reply
    from convene.app_agents import AgentParts
    from convene.app_runs import RunParts
    from convene.config import Config
    from convene.serving.base import Catalog, Principal, Turns
    from convene.serving.base_answering import Answering, AskedTurn
    from convene.serving.base_runs import Run, RunDesk
    from convene.serving.runs import KeptRuns

TALK: Final = "acp:"
"""Before the name of a conversation over the Agent Chat Protocol."""
FAILED: Final = "The answer could not be finished."


class AnsweringParts:
    """Everything about answering agents, of one application."""

    def __init__(self, config: Config, turns: Turns, catalog: Catalog, runs: RunParts, agents: AgentParts) -> None:
        settings = config.agents.answering
        terms = AnsweringTerms(
            model=settings.model, history_turns=settings.history_turns, history_bytes=settings.history_bytes
        )
        self.answering = AgentAnswering(turns, catalog, runs.sessions, terms)
        self.callers = AgentCallers(settings.plan, allowances_by_plan(config)[settings.together])
        agents.replies = AgentReplies(self.answering, self.callers, runs.runs)

    def holder(self, key_id: str) -> Principal | None:
        """Return who is behind the key id of an agent; None: it is none."""
        return self.callers.holder(key_id)

    def known(self, keys: Mapping[str, Principal]) -> Mapping[str, Principal]:
        """Return who is behind every key id, agents' included."""
        return KnownCallers(keys, self.callers)


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

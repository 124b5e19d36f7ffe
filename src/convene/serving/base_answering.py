"""The face of answering agents: what the three protocols in which this server is asked know of the use case.

    Question ──► Answering.ask ──► AskedTurn: the events of a turn like any other        (`answering.py`)

ACP (`app_answering.py` hands it to `agents/responder.py`), A2A (`api/a2a.py`) and MCP (`api/mcp.py`) all come this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.serving.base import Outcome, Principal
from convene.store.base_runs import Run, RunStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from convene.events import Event
    from convene.serving.base_runs import RunEnded


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent asks."""

    who: Principal
    """Whose limits and books it is."""
    text: str
    model: str = ""
    """Empty: as the operator says."""
    conversation: str = ""
    """The caller's own name of the conversation, with its protocol in front; empty: it belongs to none."""
    caller: str = ""
    """Address of the agent that asks, as far as it is known."""
    hops: tuple[str, ...] = ()
    """Agents that the question has been through, as its caller says."""
    agent: str = ""
    """An agent that is asked in the place of the model: its address, handle or URL."""
    request_id: str = ""
    outlives: bool = False
    """The work goes on when nobody reads its events any more."""


class AskedTurn(Protocol):
    """One accepted question."""

    @property
    def run_id(self) -> str:
        """Of its run, by which it is found, read again, and ended (`base_runs.RunDesk`)."""
        ...

    @property
    def model(self) -> str:
        """Which model answers."""
        ...

    @property
    def outcome(self) -> Outcome:
        """What is known of it so far, for the access log."""
        ...

    def events(self) -> AsyncGenerator[Event]:
        """Run it, as `base.Turn.events` does; what was said is kept for the conversation's next question."""
        ...


class Answering(Protocol):
    """Answers what agents ask."""

    async def ask(self, question: Question) -> AskedTurn:
        """Accept a question with what its conversation remembers. Raises as `base.Turns.start` does."""
        ...

    async def remember(self, owner: str, conversation: str, key: str, said: str, answered: str) -> None:
        """Keep a turn of a conversation; again under the same key changes nothing. Never raises."""
        ...


class AgentFound(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An agent of the marketplace, as callers from outside see it."""

    agent: str
    """How it is named in a call: its address, or its URL."""
    name: str
    protocol: str
    handle: str = ""
    description: str = ""
    skills: tuple[str, ...] = ()
    reachable: bool = True


class AgentLookup(Protocol):
    """Finds agents for callers from outside. Raises `ConveneError` if no directory can be asked."""

    def anybody(self) -> bool:
        """Whether there is a marketplace at all."""
        ...

    async def search(self, query: str, limit: int) -> list[AgentFound]:
        """Return the agents that fit best, best first."""
        ...

    async def find(self, name: str) -> AgentFound | None:
        """Return the agent of an address, a handle or a URL."""
        ...


class AskedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A question as something that goes on by itself: a run, as whoever asked sees it."""

    run: Run
    context: str
    """The conversation, by the caller's name and without its protocol."""
    said: str
    """The question."""
    answer: str = ""
    """Once it is over."""
    message: str = ""
    """Why it ended without an answer, if it did."""
    outcome: Outcome | None = None
    """What is known of its turn so far, where it was begun just now."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.run.status != "running"


class TaskFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which tasks are listed, the ones that changed last first."""

    limit: int
    context: str = ""
    """Empty: of all conversations."""
    status: RunStatus | None = None
    since_us: int = 0
    """Begun, or ended, then or later, in Unix microseconds."""
    after: tuple[int, str] | None = None
    """`changed_us` of the run and id of the last one of the page before."""


class TaskPage(msgspec.Struct, frozen=True):
    """A page of tasks."""

    tasks: tuple[AskedTask, ...]
    total: int
    """Of all pages."""


class TaskDesk(Protocol):
    """Questions that go on whether or not anybody waits. A foreign one answers like a missing one (invariant 9)."""

    async def begin(self, question: Question) -> AskedTask:
        """Begin; returns as soon as it is written down. Raises as `Answering.ask` and `base.Turn.events` do."""
        ...

    async def show(self, who: Principal, task_id: str) -> AskedTask:
        """Return one as it is now. Raises `NotFound`."""
        ...

    async def list_all(self, who: Principal, which: TaskFilter) -> TaskPage:
        """Return a page of whoever asks."""
        ...

    def read(self, task: AskedTask) -> AsyncGenerator[list[Event | RunEnded]]:
        """Yield all that has been said from the beginning, then what comes, ending with `RunEnded`."""
        ...

    async def cancel(self, who: Principal, task_id: str) -> AskedTask:
        """End one, and return it once it has ended, or as it is after a while. Raises `NotFound`."""
        ...

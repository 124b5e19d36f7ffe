"""What tests of runs start from: a job, a room over a store of the test's own, plans of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.events import Finished, Fold, TextDelta, UsageReported
from convene.messages import Message
from convene.providers.base import Generation
from convene.serving.base import Agentic, ChatRequest, Principal
from convene.serving.base_agentic import Job
from convene.serving.base_steps import StepPlan
from convene.serving.runs import KeptRuns, RunTerms
from convene.serving.sessions import Conversations
from convene.usage import Usage
from fakes import FakeClock
from runs_double import RunsDouble
from sessions_double import SessionsDouble

if TYPE_CHECKING:
    from convene.serving.journal import StoredJournal

WHO = Principal(key_id="k", owner="o")
OTHER = Principal(key_id="k2", owner="o2")


def job(run_id: str = "run_1", *, session: str | None = None, text: str = "hi", owner: str = "o") -> Job:
    """A job of one message."""
    return Job(
        run_id=run_id,
        turn_id=f"chatcmpl-{run_id}",
        request_id="req_1",
        request=ChatRequest(
            model="m",
            generation=Generation(messages=(Message(role="user", content=text),)),
            agentic=Agentic(session_id=session),
        ),
        owner=owner,
        key_id="k",
        created_us=1_000_000 + len(run_id),
    )


def a_tool(name: str = "look", arguments: bytes = b"{}") -> StepPlan:
    """A call of a tool."""
    return StepPlan(kind="tool", name=name, input=arguments)


def a_round(number: int = 1, reserved: int = 0) -> StepPlan:
    """A round of the model."""
    return StepPlan(kind="model", name="m", input=b'{"round":%d}' % number, reserved_tokens=reserved)


def an_answer(text: str = "all said") -> Fold:
    """An answer as its turn gathers it."""
    gathered = Fold()
    gathered.extend((TextDelta(text), Finished("stop"), UsageReported(Usage(5, 7))))
    return gathered


class RunHouse:
    """A room of runs over a double of the store."""

    def __init__(self, terms: RunTerms = RunTerms()) -> None:  # noqa: B008 -- frozen
        self.store = RunsDouble()
        self.clock = FakeClock()
        self.going_down = False
        self.talk = SessionsDouble()
        self.sessions = Conversations(lambda: self.talk, lambda: self.store, self.clock)
        self.runs = KeptRuns(lambda: self.store, self.clock, terms, lambda: self.going_down, self.sessions)

    async def begun(self, run_id: str = "run_1", *, session: str | None = None) -> StoredJournal:
        """Begin a run."""
        return await self.runs.begin(job(run_id, session=session))

    async def after_a_kill(self) -> StoredJournal:
        """Kill the holder and take its run up, as another process would."""
        self.store.kill()
        self.runs.live.clear()
        (run,) = await self.store.claim(0, 1)
        return self.runs.take_up(run, await self.store.steps(run.id))

"""A stand-in for a run, for tests of preparations: what it is told, and tools that answer what a test says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.messages import Message, ResponseFormat
from convene.providers.base import Capabilities, Generation
from convene.serving.answer_text import AnswerText
from convene.serving.base import Agentic, ChatRequest
from convene.serving.base_agentic import CeilingReached, Job, Ran, Round, RunView
from convene.serving.passing import PassingStep
from convene.tools.base import ToolResult, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.events import Event, StepKind
    from convene.messages import ToolCall
    from convene.serving.base_agentic import SearchWay
    from convene.serving.base_steps import EndStatus, StepPlan
    from convene.tools.base import Label, ToolContext

NOON_US = 1_764_158_400_000_000
"""2025-11-26 12:00 UTC."""


def job_of(*messages: Message, agentic: Agentic | None = None, response_format: ResponseFormat | None = None) -> Job:
    generation = Generation(messages=messages, response_format=response_format or ResponseFormat())
    request = ChatRequest(model="m", generation=generation, agentic=agentic or Agentic(web_search=True))
    return Job(run_id="run_1", turn_id="t", request_id="r", request=request, owner="o", key_id="k", created_us=NOON_US)


class Answering:
    """A tool that gives what it was told to, by the first text among its arguments, and notes what it was asked."""

    def __init__(self, name: str, kind: StepKind, results: Mapping[str, ToolResult], *labels: Label) -> None:
        self.spec = ToolSpec(name=name, description="", parameters={}, kind=kind, labels=frozenset(labels))
        self.results = results
        self.asked: list[Mapping[str, object]] = []

    async def run(self, arguments: Mapping[str, object], context: ToolContext) -> ToolResult:
        del context
        self.asked.append(arguments)
        return self.results[str(next(iter(arguments.values())))]


class Spending:
    """What was spent, and what may be."""

    def __init__(self, calls: int) -> None:
        self.calls = calls


class StandIn:
    """The parts of an `AgenticRun` that preparations use."""

    model = "m"

    def __init__(
        self,
        job: Job,
        *,
        search: SearchWay = "off",
        tools: Sequence[Answering] = (),
        ran: Mapping[str, Ran] | None = None,
        window: int | None = None,
        says: str = "",
        calls: int = 9,
    ) -> None:
        self.job = job
        self.messages = list(job.request.generation.messages)
        self.view = RunView(messages=job.request.generation.messages)
        self.text = AnswerText(job, self.view)
        self.tools = {tool.spec.name: tool for tool in tools}
        self.all_tools = self.tools
        self.search = search
        self.capabilities = Capabilities(context_window=window)
        self.ceilings, self.spent = Spending(calls), Spending(0)
        self.calls: list[ToolCall] = []
        self.asked: list[Generation] = []
        self.told: list[str] = []
        self.notices: list[str] = []
        self.plans: list[StepPlan] = []
        self.closed: list[tuple[str, bytes]] = []
        self._ran = ran or {}
        self._says = says

    def emit(self, event: Event) -> None:
        del event

    def notice(self, code: str, message: str) -> None:
        del message
        self.notices.append(code)

    def instruct(self, text: str) -> None:
        self.told.append(text)

    def generation(self, messages: Sequence[Message] | None = None) -> Generation:
        return Generation(messages=tuple(self.messages if messages is None else messages))

    async def ask(self, generation: Generation, **_: object) -> Round:
        self.asked.append(generation)
        return Round(text=self._says)

    async def call(self, calls: Sequence[ToolCall], **_: object) -> list[Ran]:
        self.calls += calls
        self.spent.calls += len(calls)
        if self.spent.calls > self.ceilings.calls:
            raise CeilingReached("calls", "ceiling_reached", "No calls are left.")
        found: list[Ran] = []
        for call in calls:
            ran = self._ran[call.arguments]
            if ran.result is not None:
                ran = Ran(call=call, status=ran.status, text=self.text.present(ran.result), result=ran.result)
            found.append(ran)
        return found

    async def open_step(self, plan: StepPlan) -> PassingStep:
        self.plans.append(plan)
        return PassingStep("run_1", len(self.plans), plan, lambda: 0.0)

    async def close_step(self, step: PassingStep, status: EndStatus, output: bytes = b"", *, summary: str = "") -> None:
        del step, summary
        self.closed.append((status, output))

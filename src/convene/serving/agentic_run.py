"""One agentic turn under way: what drivers, preparations and tools have in common (`base_agentic.AgenticRun`).

It puts rounds of the model (`rounds.py`) and calls of tools (`tool_runs.py`) over one journal, one channel to the
reader, one lease and one outcome. `agent.py` makes one for each turn and walks it through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from convene.events import Began, Fold, Judged, Noticed, ReasoningDelta, TextDelta, UsageReported
from convene.messages import ToolChoice
from convene.serving.admission import Lease
from convene.serving.base import Outcome
from convene.serving.base_agentic import (
    CitedText,
    Job,
    PlainText,
    Policy,
    RunView,
    SearchWay,
)
from convene.serving.catalog import ChatDeployment
from convene.serving.ceilings import Ceilings, Spent, told
from convene.serving.conversation import instructed
from convene.serving.drain import UnreadRounds
from convene.serving.rounds import Rounds
from convene.serving.tool_runs import ToolRuns, Validators
from convene.tools.base import Tool
from convene.usage import FREE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from convene.events import Event, StepChanged, StepKind
    from convene.messages import Message, ToolCall
    from convene.providers.base import Capabilities, ChatModel, Generation
    from convene.serving.base_agentic import (
        CeilingReached,
        Ran,
        Round,
        RunJournal,
        Shown,
        Tell,
    )
    from convene.serving.base_steps import EndStatus, OpenStep, StepPlan
    from convene.serving.channel import Channel
    from convene.tools.base import ToolSpec

_SEPARATOR: Final = "\n\n"
"""Between the texts of two rounds that both go into the answer."""
_UNSEEN: Final = frozenset({Began, Judged, Noticed, UsageReported})
"""Events that make no frame of their own."""


class Seat(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn gives its run: the model, the reservation, and what is known so far."""

    deployment: ChatDeployment
    lease: Lease
    outcome: Outcome
    reserved_bytes: int = 0
    """Bytes of the prompt that the reservation was made for."""
    waits_until: float | None = None
    """The loop's time until which the request can wait for an agent (decision 3); None: it need not."""
    unread: UnreadRounds | None = None
    """Takes the rounds that are under way when the client leaves; None: they end with the run."""


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent gives its runs."""

    policy: Policy
    validators: Validators
    text: Callable[[Job, RunView], CitedText]
    tools: Mapping[str, Tool]
    all_tools: Mapping[str, Tool]
    search: SearchWay
    ceilings: Ceilings
    result_share: float
    calls_at_once: int
    currency: str
    judges: bool = True


class Run:
    """An `AgenticRun`. Belongs to the task that drives it."""

    def __init__(self, job: Job, seat: Seat, means: Means, journal: RunJournal, channel: Channel) -> None:
        self.job = job
        self.journal = journal
        self.channel = channel
        self.lease = seat.lease
        self.outcome = seat.outcome
        self.unread = seat.unread
        self._waits_until = seat.waits_until
        self.chat: ChatModel = seat.deployment.chat
        self.model = seat.deployment.card.id
        self.reserved_bytes = seat.reserved_bytes
        self.policy = means.policy
        self.tools, self.all_tools, self.search = means.tools, means.all_tools, means.search
        self.ceilings, self.result_share, self.currency = means.ceilings, means.result_share, means.currency
        self.spent = Spent()
        self.messages: list[Message] = list(job.request.generation.messages)
        self.added: list[Message] = []
        """What the driver has added to `messages`: kept for a client that comes back with results of its own."""
        self.view = RunView(messages=job.request.generation.messages)
        self.text = means.text(job, self.view)
        self.fold = Fold()
        self.silent = True
        """Whether the reader has got nothing yet."""
        self.wrote = False
        """Whether anything of the answer's text has gone out."""
        self._judges = means.judges
        self._price = seat.deployment.terms.price
        self._plain_text = isinstance(self.text, PlainText)
        self._noticed: set[str] = set()
        self._pending: list[Awaitable[StepChanged]] = []
        self._cut: list[tuple[OpenStep, str]] = []
        self._rounds = Rounds(self)
        self._tool_runs = ToolRuns(self, means.validators, means.calls_at_once)

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        return self.chat.capabilities

    @property
    def judges(self) -> bool:
        """See `AgenticRun.judges`."""
        return self._judges

    def wait_s(self) -> float | None:
        """Return how much longer the request can wait for an agent; None: it need not."""
        if self._waits_until is None:
            return None
        return max(0.0, self._waits_until - asyncio.get_running_loop().time())

    def emit(self, event: Event) -> None:
        """See `AgenticRun.emit`."""
        if self.silent and type(event) not in _UNSEEN:
            self.silent = False
        self.fold.add(event)
        self.journal.saw(event)
        self.channel.emit(event)

    def leave(self) -> None:
        """Take note that the reader has gone: a round under way may be read on for the books, and nothing is shown."""
        self.channel.abandon()
        if self.unread is not None:
            self.unread.client_left()

    def notice(self, code: str, message: str) -> None:
        """See `AgenticRun.notice`."""
        if code not in self._noticed:
            self._noticed.add(code)
            self.emit(Noticed(code, message))

    def instruct(self, text: str) -> None:
        """See `AgenticRun.instruct`."""
        self.messages = instructed(self.messages, text)

    def add(self, *messages: Message) -> None:
        """Go on with the conversation."""
        self.messages += messages
        self.added += messages

    def generation(self, messages: Sequence[Message] | None = None) -> Generation:
        """See `AgenticRun.generation`."""
        return msgspec.structs.replace(
            self.job.request.generation,
            messages=tuple(self.messages if messages is None else messages),
            tools=(),
            tool_choice=ToolChoice("none"),
            n=1,
        )

    async def ask(
        self,
        generation: Generation,
        *,
        shown: Shown = "content",
        kind: StepKind = "model",
        name: str = "",
        summary: str = "",
        depends_on: tuple[str, ...] = (),
        last: bool = False,
    ) -> Round:
        """See `AgenticRun.ask`."""
        return await self._rounds.ask(
            generation, shown=shown, kind=kind, name=name, summary=summary, depends_on=depends_on, last=last
        )

    async def aside(self, generation: Generation, plan: StepPlan, tell: Tell) -> Round:
        """See `AgenticRun.aside`."""
        return await self._rounds.aside(generation, plan, tell)

    async def call(self, calls: Sequence[ToolCall], *, depends_on: tuple[str, ...] = ()) -> list[Ran]:
        """See `AgenticRun.call`."""
        return await self._tool_runs.call(calls, depends_on)

    async def open_step(self, plan: StepPlan) -> OpenStep:
        """See `AgenticRun.open_step`."""
        step = await self.open_quietly(plan)
        self.emit(step.change if step.recorded is None else step.recorded.change)
        return step

    async def open_quietly(self, plan: StepPlan) -> OpenStep:
        """Open a step without showing it yet."""
        opening = self.journal.open(plan)
        await self.flush()
        return await opening

    async def close_step(self, step: OpenStep, status: EndStatus, output: bytes = b"", *, summary: str = "") -> None:
        """See `AgenticRun.close_step`."""
        if step.recorded is None:
            self.emit(await step.close(status, output, summary=summary))

    def closing(self, closes: Awaitable[StepChanged]) -> None:
        """Take the end of a step that is on its way to the journal; it is shown once it is there."""
        self._pending.append(closes)

    def cut(self, step: OpenStep, words: str) -> None:
        """Take a step whose work was cancelled: it ends with the turn, or is done again after a restart."""
        self._cut.append((step, words))

    async def flush(self, *, cut: bool = False) -> None:
        """Wait until all ends of steps are in the journal, and show them; `cut`: also of those that were cut off.

        While the reader has got nothing it stays so: a fault of the very first round is to have its real status.
        """
        if cut:
            self._pending += [step.close("failed", summary=words) for step, words in self._cut]
            self._cut.clear()
        pending, self._pending = self._pending, []
        for closes in pending:
            change = await closes
            if not self.silent:
                self.emit(change)

    def cost(self) -> int:
        """Return what all that is entered so far costs, in micro-units."""
        used = self.outcome.usage
        return 0 if used is None or self._price is FREE else self._price.cost(used)

    def take_result(self, ran: Ran, spec: ToolSpec | None) -> None:
        """Remember what has come into the run, for the policy, and tell what the tool has to say to the caller."""
        view = self.view
        view.results.append(ran)
        if spec is not None:
            view.labels |= spec.labels
        if ran.result is not None:
            view.addresses.update(source.url for source in ran.result.sources)
            view.addresses.update(ran.result.links)
            for noticed in ran.result.notices:
                self.notice(noticed.code, noticed.message)

    def show_text(self, event: TextDelta, *, opening: bool = False) -> None:
        """Pass text of the answer on; `opening`: the first of its round."""
        if opening and self.wrote:
            self._pass(TextDelta(_SEPARATOR))
        self._pass(event)
        self.wrote = True

    def show_thought(self, text: str, *, end: bool = False) -> None:
        """Pass reasoning on; `end`: the round is over."""
        shown = self.text.think(text, end=end)
        if shown:
            self.emit(ReasoningDelta(shown))

    def stop(self, reached: CeilingReached) -> None:
        """Say why the turn ends here: a notice, and where the answer is prose a sentence in it."""
        self.notice(reached.code, told(reached))
        if self.job.request.generation.response_format.kind == "text":
            self.show_text(TextDelta(reached.sentence), opening=True)

    def end_text(self, *, whole: bool) -> None:
        """Show what was held back of the answer's text and, if it is a whole one, what belongs under it."""
        for event in self.text.end(whole=whole):
            self.emit(event)

    def _pass(self, event: TextDelta) -> None:
        if self._plain_text:
            self.emit(event)
        else:
            for changed in self.text.write(event.text):
                self.emit(changed)

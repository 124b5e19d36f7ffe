"""The seam inside an agentic turn: what its driver, its tools and those who prepare it share.

    Job          all that is needed to run the turn, or to run it again after a crash, as JSON
    AgenticRun   one turn under way: ask the model, run tools, emit events; each as a step of the journal
    Driver       walks a run to its end: the loop (`agent_loop.py`), or the planner where planner_mode asks for it
    Preparation  goes before the driver: searches first, adds what the model is told (research, study mode)
    Policy       may a call run, after what has come into the run
    CitedText    text on its way to the reader: numbers become links and citations
    RunRoom      where runs are begun and ended (`runs.py` on the store, `passing.py` keeps nothing)

`agent.py` puts them together; `app.py` hands in which. A hook is given the run and calls back into it; it never sees
HTTP, SQL or a vendor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from convene.events import FinishReason, StepKind, TextDelta
from convene.messages import Message, ToolCall
from convene.serving.base import ChatRequest
from convene.serving.base_steps import Journal
from convene.tools.base import Label, ToolResult
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from convene.events import Event, Fold
    from convene.providers.base import Capabilities, Generation
    from convene.serving.base_steps import EndStatus, OpenStep, StepPlan
    from convene.serving.ceilings import Ceilings, Spent
    from convene.tools.base import Tool, ToolSpec

Shown = Literal["content", "held", "reasoning", "hidden"]
"""Where a round's text goes: into the answer as it comes; into the answer at the round's end, unless the round calls
something, then into the reasoning (decision 4); into the reasoning; nowhere."""
Tell = Callable[[str], tuple[str, dict[str, object] | None]]
RanStatus = Literal["done", "failed", "skipped"]
SearchWay = Literal["off", "before", "tool"]
"""`before`: the server searches before the answer. `tool`: the model decides, with the tools `web_search` and
`web_fetch`. `off`: the request asks for no search, or there is nothing to search with."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One agentic turn as a value: `msgspec.json` writes it and reads it back without loss.

    `request.generation` is fitted to the model already; it is what the client sent, before any preparation.
    """

    run_id: str
    turn_id: str
    request_id: str
    request: ChatRequest
    owner: str
    key_id: str
    created_us: int
    conversation_id: str | None = None
    remembered: tuple[str, ...] = ()
    """What the session brought along when the turn began (`recalling.py`)."""


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """What the model said in one round; also how a round is kept in the journal."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    finish: FinishReason = "stop"
    usage: Usage = Usage()
    cost_micros: int = 0
    step_id: str = ""
    replayed: bool = False
    """It was said before a crash, and comes from the journal."""


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """How a call of a server's tool ended; also how it is kept in the journal. `text` is what the model is told."""

    call: ToolCall
    status: RanStatus
    text: str
    result: ToolResult | None = None
    step_id: str = ""
    judged: str = ""
    """What the server itself has to say of the result, outside of what is quoted."""


class RunView(msgspec.Struct, kw_only=True):
    """What the policy judges by; filled by the run as results come in, in the order of the steps."""

    messages: tuple[Message, ...]
    """As the client sent them."""
    labels: set[Label] = msgspec.field(default_factory=set)
    """Labels of every tool whose result has come into the run."""
    addresses: set[str] = msgspec.field(default_factory=set)
    """Addresses that were in results, word for word: of sources, and links in texts."""
    results: list[Ran] = msgspec.field(default_factory=list)
    """All that has run so far."""


class Policy(Protocol):
    """Decides about calls before they run."""

    def check(self, call: ToolCall, spec: ToolSpec, arguments: Mapping[str, object], view: RunView) -> str | None:
        """Return None if it may run, else why not, in words for the model. Pure, and cheap."""
        ...


class CitedText(Protocol):
    """The text of one answer on its way to the reader. One a run; raw text in, events out."""

    def present(self, result: ToolResult) -> str:
        """Number the result's sources and return what the model reads of it, numbers included.

        Called in the order of the steps, again in the same order when a run is repeated.
        """
        ...

    def write(self, text: str) -> Sequence[Event]:
        """Return the events for a piece of the answer; an unfinished mark at its end may be held back."""
        ...

    def think(self, text: str, *, end: bool = False) -> str:
        """Return a piece of the model's reasoning as it may be shown; `end`: of a round, nothing is held back then."""
        ...

    def end(self, *, whole: bool = True) -> Sequence[Event]:
        """Return what was held back, the citations, and what else belongs under an answer. Called once, at the end.

        `whole`: it is an answer, and not what was said before calls that the client is to run.
        """
        ...


class AgenticRun(Protocol):
    """One agentic turn under way. `ask` and `call` may be awaited by several tasks of the driver at once."""

    job: Job
    model: str
    """The deployment's name."""
    messages: list[Message]
    """The conversation: what the client sent and what this turn has added. Preparations and drivers may change it."""
    added: list[Message]
    """What `add` has added to it: kept for a client that comes back with results of its own calls."""
    ceilings: Ceilings
    spent: Spent
    view: RunView
    text: CitedText
    tools: Mapping[str, Tool]
    """What the model may call, by name."""
    all_tools: Mapping[str, Tool]
    """Whatever the server has, also tools that the model is not offered (a search before the answer)."""
    search: SearchWay

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        ...

    @property
    def judges(self) -> bool:
        """Whether the model can judge what others have answered."""
        ...

    def emit(self, event: Event) -> None:
        """Hand an event on to the reader; never waits."""
        ...

    def notice(self, code: str, message: str) -> None:
        """Tell the caller something, in `metadata.notices`; a code is told once."""
        ...

    def instruct(self, text: str) -> None:
        """Add to what the model is told at the head of the conversation (a system message)."""
        ...

    def add(self, *messages: Message) -> None:
        """Go on with the conversation."""
        ...

    def stop(self, reached: CeilingReached) -> None:
        """Say why the turn ends here: a notice, and a sentence in the answer."""
        ...

    def generation(self, messages: Sequence[Message] | None = None) -> Generation:
        """Return a call of the model over these messages (else over `messages`), without tools, sampled as asked.

        `msgspec.structs.replace` changes the rest: `response_format` for constrained JSON, `tools`.
        """
        ...

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
        """Have the model generate, as one step. `last` lets one round pass that is above the ceilings of rounds.

        Raises:
            CeilingReached: the turn may not go on; drivers let it pass.
            ConveneError: the model failed; that fails the turn.
        """
        ...

    async def aside(self, generation: Generation, plan: StepPlan, tell: Tell) -> Round:
        """Have the model generate beside the loop, as a step of this plan: hidden, and no round of the ceilings.

        `tell` makes the words and the detail with which the step ends of its text. Raises as `ask` does.
        """
        ...

    async def call(self, calls: Sequence[ToolCall], *, depends_on: tuple[str, ...] = ()) -> list[Ran]:
        """Run tools of `all_tools`, in parallel, each as one step; results in the order of the calls.

        What fails, is not allowed, or is unknown comes back as `failed` with words for the model. Nothing is added to
        `messages`. Raises `CeilingReached` before the first if fewer calls are left than asked for.
        """
        ...

    async def open_step(self, plan: StepPlan) -> OpenStep:
        """Open a step of the driver's own (a plan, a judgement) and show it as running, or as it was recorded."""
        ...

    async def close_step(self, step: OpenStep, status: EndStatus, output: bytes = b"", *, summary: str = "") -> None:
        """End such a step and show it; nothing for one that was recorded."""
        ...


class Driver(Protocol):
    """Walks a run to its end."""

    async def drive(self, run: AgenticRun) -> FinishReason:
        """Do all that the turn is about and say how the answer ended. Its text has been shown by then.

        May be repeated with the same job after a crash: it must make the same steps from the same answers.
        """
        ...


class Preparation(Protocol):
    """Goes before the driver, in a fixed order."""

    async def prepare(self, run: AgenticRun) -> None:
        """Change what the model will read. Most return at once: they look whether the job asks for them."""
        ...


class RunJournal(Journal, Protocol):
    """The journal of one run with what belongs to its beginning and its end."""

    def attach(self, cancel: Callable[[], None]) -> None:
        """Take how to end the run from outside at once; `cancel` may be called at any time, more than once."""
        ...

    def saw(self, event: Event) -> None:
        """Take note of an event that goes out to the reader, in order, for readers who come back."""
        ...

    def finish(
        self, status: Literal["done", "failed", "cancelled"], answer: Fold, fault: str = "", message: str = ""
    ) -> Awaitable[None]:
        """End the run with its answer as far as it came; `fault` and `message` are those of the error that ended it.

        `cancelled` while this process goes down ends nothing: the run is taken up again.
        """
        ...


class RunRoom(Protocol):
    """Where runs are kept."""

    def begin(self, job: Job) -> Awaitable[RunJournal]:
        """Begin a run; awaited, it survives kill -9. Raises `StoreFault`."""
        ...


class CeilingReached(Exception):
    """A ceiling of the turn, or a limit of the caller, ends it well. `sentence` is what the reader is told."""

    def __init__(self, which: str, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.which = which
        """rounds, calls, seconds, tokens, money, or limit."""
        self.code = code
        """Of the notice: `ceiling_reached` or `limit_reached`."""
        self.sentence = sentence


class PlainText:
    """A `CitedText` that passes text on as it is and numbers nothing."""

    def present(self, result: ToolResult) -> str:
        """Return the text alone."""
        return result.text

    def write(self, text: str) -> Sequence[Event]:
        """Return one delta."""
        return (TextDelta(text),) if text else ()

    def think(self, text: str, *, end: bool = False) -> str:
        """Return it as it is."""
        del end
        return text

    def end(self, *, whole: bool = True) -> Sequence[Event]:
        """Return nothing: nothing was held back."""
        del whole
        return ()


class AllowAll:
    """A `Policy` that allows everything."""

    def check(self, call: ToolCall, spec: ToolSpec, arguments: Mapping[str, object], view: RunView) -> str | None:
        """Return None."""
        del call, spec, arguments, view
        return None

"""What a turn emits, and `Fold`, which gathers it into one answer (invariant 3: events are the truth).

A plain reply is the fold of a turn's events, a stream is the same events as frames; there is no other path. Providers
emit the generation events, `serving/` adds the rest. Pure values; nothing here knows JSON or HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from convene.messages import ToolCall
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
StepKind = Literal["plan", "model", "search", "fetch", "tool", "agent", "judge"]
StepStatus = Literal["pending", "running", "done", "failed", "skipped"]


class TokenLogprob(msgspec.Struct, frozen=True):
    """One generated token with its natural-log probability and rivals (OAI-21)."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()


class Began(msgspec.Struct, frozen=True):
    """The upstream has answered at all: its own name for the model and which upstream serves."""

    upstream: str
    model: str
    fingerprint: str | None = None


class TextDelta(msgspec.Struct, frozen=True):
    """A piece of the answer's text in choice `choice`."""

    text: str
    choice: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


class ReasoningDelta(msgspec.Struct, frozen=True):
    """A piece of the model's reasoning, never part of the content (OAI-48)."""

    text: str
    choice: int = 0


class RefusalDelta(msgspec.Struct, frozen=True):
    """A piece of a model's refusal text (OAI-43)."""

    text: str
    choice: int = 0


class CallDelta(msgspec.Struct, frozen=True):
    """A piece of a call of a client's function. `id` and `name` come once, on the call's first piece (SSE-08)."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None
    choice: int = 0


class Finished(msgspec.Struct, frozen=True):
    """Choice `choice` is complete."""

    reason: FinishReason
    choice: int = 0


class UsageReported(msgspec.Struct, frozen=True):
    """Tokens used by one generation; several of them add up."""

    usage: Usage


class StepChanged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The new state of one step of an agentic turn; readers fold them by `id` (decisions, shapes of the extras)."""

    id: str
    kind: StepKind
    name: str
    status: StepStatus
    depends_on: tuple[str, ...] = ()
    summary: str = ""
    started_at: float | None = None
    ended_at: float | None = None
    usage: dict[str, int] | None = None
    detail: dict[str, object] | None = None


class Cited(msgspec.Struct, frozen=True):
    """A source of the answer; the indexes count characters of the final text (OAI-44)."""

    url: str
    title: str
    start_index: int
    end_index: int


class ToolRan(msgspec.Struct, frozen=True, kw_only=True):
    """A server-side tool or agent ran: one item of `executable_data`."""

    id: str
    tool_name: str
    type: Literal["tool_call", "agent_manifest"] = "tool_call"
    args: dict[str, object] = {}
    result: object = None
    status: Literal["done", "failed"] = "done"
    agent: dict[str, object] | None = None


class Judged(msgspec.Struct, frozen=True):
    """What the judge said of an agent's answer: of the last `ToolRan` with this id that nobody has judged."""

    id: str
    useful: bool
    reason: str


class Noticed(msgspec.Struct, frozen=True):
    """Something the caller should know, for `metadata.notices`."""

    code: str
    message: str


Event = (
    Began
    | TextDelta
    | ReasoningDelta
    | RefusalDelta
    | CallDelta
    | Finished
    | UsageReported
    | StepChanged
    | Cited
    | ToolRan
    | Judged
    | Noticed
)


class PlainAnswer(msgspec.Struct, frozen=True, gc=False):
    """The commonest whole answer as one value: one text, how it ended, what it used.

    It stands for the four events that it gives when iterated, and reads like their fold, so invariant 3 holds for it;
    nobody on the way of a plain request looks at the events, which is why they are made only when asked for.
    """

    upstream: str
    model: str
    fingerprint: str | None
    text: str
    finish: FinishReason
    usage: Usage

    def __iter__(self) -> Iterator[Event]:
        yield Began(self.upstream, self.model, self.fingerprint)
        yield TextDelta(self.text)
        yield Finished(self.finish)
        yield UsageReported(self.usage)

    @property
    def choices(self) -> dict[int, Choice]:
        """The only choice."""
        return fold(self).choices


class GrowingCall:
    """A client call while its pieces arrive."""

    __slots__ = ("id", "name", "pieces")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.pieces: list[str] = []


class Choice:
    """One choice while it is gathered."""

    __slots__ = ("calls", "finish", "logprobs", "reasoning", "refusal", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.calls: dict[int, GrowingCall] = {}
        self.logprobs: list[TokenLogprob] = []
        self.finish: FinishReason | None = None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls in the order of their index."""
        if not self.calls:
            return ()
        calls = (self.calls[index] for index in sorted(self.calls))
        return tuple(ToolCall(call.id, call.name, "".join(call.pieces)) for call in calls)

    def grow_call(self, piece: CallDelta) -> None:
        """Add one piece to the call it belongs to."""
        call = self.calls.get(piece.index)
        if call is None:
            call = self.calls[piece.index] = GrowingCall(piece.id or "", piece.name or "")
        call.pieces.append(piece.arguments)


class Fold:
    """Gathers events into an answer, one `add` an event; readable at any moment, also after a failure."""

    __slots__ = ("began", "choices", "citations", "notices", "steps", "tools", "usage")

    def __init__(self) -> None:
        self.choices: dict[int, Choice] = {}
        self.usage: Usage | None = None
        self.began: Began | None = None
        self.steps: dict[str, StepChanged] = {}
        self.tools: list[ToolRan] = []
        self.citations: list[Cited] = []
        self.notices: list[Noticed] = []

    def choice(self, index: int) -> Choice:
        """Return choice `index`, made when first named."""
        found = self.choices.get(index)
        if found is None:
            found = self.choices[index] = Choice()
        return found

    def add(self, event: Event) -> None:
        """Take one event in. The common kinds first: this runs for every token."""
        if isinstance(event, TextDelta):
            choice = self.choice(event.choice)
            choice.text.append(event.text)
            if event.logprobs:
                choice.logprobs.extend(event.logprobs)
        elif isinstance(event, Finished):
            self.choice(event.choice).finish = event.reason
        elif isinstance(event, UsageReported):
            self.usage = event.usage if self.usage is None else self.usage + event.usage
        elif isinstance(event, Began):
            self.began = event
        elif isinstance(event, ReasoningDelta):
            self.choice(event.choice).reasoning.append(event.text)
        elif isinstance(event, CallDelta):
            self.choice(event.choice).grow_call(event)
        else:
            self._add_rare(event)

    def extend(self, events: Iterable[Event]) -> None:
        """Take several events in."""
        for event in events:
            self.add(event)

    @property
    def finish(self) -> FinishReason | Literal[""]:
        """How the last choice ended; empty while none has."""
        found: FinishReason | Literal[""] = ""
        for choice in self.choices.values():
            found = choice.finish or found
        return found

    @property
    def upstream(self) -> str:
        """Which upstream answered; empty while none has."""
        return "" if self.began is None else self.began.upstream

    def _judge(self, event: Judged) -> None:
        for index in range(len(self.tools) - 1, -1, -1):
            judged = _judged(self.tools[index], event)
            if judged is not None:
                self.tools[index] = judged
                return

    def _add_rare(self, event: Event) -> None:
        match event:
            case RefusalDelta():
                self.choice(event.choice).refusal.append(event.text)
            case StepChanged():
                self.steps[event.id] = event
            case ToolRan():
                self.tools.append(event)
            case Judged():
                self._judge(event)
            case Cited():
                self.citations.append(event)
            case Noticed():
                self.notices.append(event)
            case _:  # the common kinds were taken by `add`
                pass


def _judged(ran: ToolRan, event: Judged) -> ToolRan | None:
    """Return the item with the verdict in its result; None if it is none that can be judged, or was."""
    if ran.id != event.id or ran.agent is None or not isinstance(ran.result, dict) or "judged" in ran.result:
        return None
    return msgspec.structs.replace(
        ran, result={**ran.result, "judged": {"useful": event.useful, "reason": event.reason}}
    )


def fold(events: Iterable[Event]) -> Fold:
    """Return the whole of `events` gathered."""
    gathered = Fold()
    for event in events:
        gathered.add(event)
    return gathered

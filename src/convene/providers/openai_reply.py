"""What comes back from an OpenAI-compatible host: reply or stream bytes as events. Pure; no I/O.

A whole reply and a stream share one path: a reply is a stream of one chunk whose choices say `message` for `delta`.

    bytes --EventParser--> chunk --ReplyReader--> per choice: ChoiceReader --Markup--> events

What holds for all answers: `Began` first, `Finished` once a choice and `UsageReported` once, last; an answer that stops
without an end is `Malformed`, never just short (spec openai-conventions 1.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.errors import Malformed
from convene.events import Began, PlainAnswer, UsageReported
from convene.providers.markup import may_open
from convene.providers.openai_choice import ChoiceReader
from convene.providers.openai_codec import PLAIN, prompt_text
from convene.providers.openai_faults import Verdict, judge_error_frame
from convene.providers.openai_wire import (
    WireUsage,
    decode_any,
    decode_chunk,
    decode_plain,
    read_count,
    read_logprobs,
)
from convene.providers.sse import EventParser
from convene.usage import BYTES_PER_TOKEN, Usage, estimate_tokens

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.events import Event, FinishReason
    from convene.providers.base import Generation
    from convene.providers.openai_codec import Dialect
    from convene.providers.openai_faults import Blamed
    from convene.providers.openai_wire import WireChoice

CHOICES_MAX = 128

EVENT_NAMES = frozenset({b"", b"message", b"error", b"data", b"completion", b"chat.completion.chunk"})
"""Types of server-sent events that are read; all others are skipped unread (reliability 3.3, CVE-2025-64496)."""

FINISH_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop", "eos": "stop", "end_turn": "stop", "stop_sequence": "stop",
    "length": "length", "max_tokens": "length", "model_length": "length",
    "tool_calls": "tool_calls", "function_call": "tool_calls", "tool_use": "tool_calls",
    "content_filter": "content_filter", "safety": "content_filter", "recitation": "content_filter",
}  # fmt: skip
FAILED_REASONS = frozenset({"error", "abort", "aborted", "cancelled"})


class ErrorFrame(Exception):
    """The host reported an error inside of its answer; internal to this dialect, see `openai.py`."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.fault.message)
        self.verdict = verdict


def read_plain(body: bytes, generation: Generation, blamed: Blamed, dialect: Dialect = PLAIN) -> PlainAnswer | None:
    """Read the commonest whole reply in one step; None for any other, which `ReplyReader` takes.

    `PlainReply` is the question: what decodes as one is a single choice of text with its counts and nothing odd.
    """
    if generation.tools or generation.sampling.logprobs or generation.n > 1 or dialect.template_opens_thinking:
        return None
    plain = decode_plain(body)
    if plain is None or generation.messages[-1].role == "tool":
        return None
    choice, used = plain.choices[0], plain.usage
    text, prompt = choice.message.content, used.prompt_tokens
    if may_open(text):
        return None
    details = used.prompt_tokens_details
    cached = 0 if details is None else min(details.cached_tokens or 0, prompt)
    counts = Usage(prompt, used.completion_tokens, 0, cached)
    return PlainAnswer(blamed.upstream, plain.model, plain.system_fingerprint, text, choice.finish_reason, counts)


class ReplyReader:
    """One answer while it arrives. Feed it a stream's bytes, or one whole body; it never raises.

    When the answer turns out to be none, `verdict` says why; the events returned until then are still good.
    """

    __slots__ = (
        "_blamed",
        "_choices",
        "_clock",
        "_generation",
        "_logprobs",
        "_parser",
        "_template_opens",
        "_tools",
        "_usage",
        "begun",
        "complete",
        "verdict",
    )

    def __init__(self, generation: Generation, blamed: Blamed, clock: Clock, dialect: Dialect = PLAIN) -> None:
        """Read the answer to `generation`; `blamed` names whom faults are about."""
        self.begun = False
        self.complete = False
        self.verdict: Verdict | None = None
        self._parser: EventParser | None = None
        self._generation = generation
        self._blamed = blamed
        self._clock = clock
        self._template_opens = dialect.template_opens_thinking
        messages = generation.messages
        # after a tool's result many clients leave `tools` out (TOOLS-08), and the model may still write the tags
        self._tools = bool(generation.tools) or (bool(messages) and messages[-1].role == "tool")
        self._logprobs = generation.sampling.logprobs
        self._choices: dict[int, ChoiceReader] = {}
        self._usage: WireUsage | None = None

    @property
    def finished(self) -> bool:
        """Whether every choice asked for has its end, so that only usage can be missing."""
        choices = self._choices
        return len(choices) >= self._generation.n and all(choice.finish for choice in choices.values())

    def read_whole(self, body: bytes) -> list[Event]:
        """Return the events of a whole reply."""
        out: list[Event] = []
        try:
            self._take(body, out)
            self._end(out)
        except ErrorFrame as found:
            self.verdict = found.verdict
        except Malformed as fault:
            self.verdict = self._judge(fault)
        return out

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of a stream, return the events they complete; after the end or a fault nothing."""
        out: list[Event] = []
        try:
            if self._parser is None:
                self._parser = EventParser()
            for event in self._parser.feed(data):
                if self.complete:
                    break
                if event.name not in EVENT_NAMES or not event.data:
                    continue
                if event.data == b"[DONE]":
                    self._end(out)
                elif event.name == b"error":
                    self.verdict = judge_error_frame(decode_any(event.data), self._blamed, begun=self.begun)
                    break
                else:
                    self._take(event.data, out)
            if self._parser.too_large and not self.complete and self.verdict is None:
                # something was generated, though nothing could be read: no second try
                fault = self._malformed(self._blamed.detail("an event above the cap"))
                self.verdict = Verdict(fault, "end", blame=True)
        except ErrorFrame as found:
            self.verdict = found.verdict
        except Malformed as fault:
            self.verdict = self._judge(fault)
        return out

    def end_stream(self) -> list[Event]:
        """Take the end of a stream's bytes: fine after `[DONE]` or once every choice has its `finish_reason`."""
        out: list[Event] = []
        if self.complete or self.verdict:
            return out
        try:
            if self._choices and not self.finished:
                raise self._malformed("the stream stopped without finish_reason and without [DONE]")
            self._end(out)
        except Malformed as fault:
            self.verdict = self._judge(fault)
        return out

    def _judge(self, fault: Malformed) -> Verdict:
        fault.detail = self._blamed.detail(fault.detail)
        return Verdict(fault, "end" if self.begun else "again", blame=True)

    def _take(self, data: bytes, out: list[Event]) -> None:
        try:
            chunk = decode_chunk(data)
        except (ValueError, RecursionError) as error:
            raise self._malformed(f"not a chat reply: {error}") from error
        if chunk.error or chunk.kind == "error":
            found = chunk.error or {"message": chunk.message, "code": chunk.code}
            raise ErrorFrame(judge_error_frame(found, self._blamed, begun=self.begun))
        if chunk.usage is not None:
            self._usage = chunk.usage
        if not chunk.choices:
            return
        if not self.begun and any(chunk.choices):
            self.begun = True
            fingerprint = chunk.system_fingerprint if isinstance(chunk.system_fingerprint, str) else None
            model = chunk.model if isinstance(chunk.model, str) and chunk.model else self._blamed.model
            out.append(Began(self._blamed.upstream, model, fingerprint))
        for position, wire in enumerate(chunk.choices):
            if wire is not None:
                self._take_choice(wire, position, out)

    def _take_choice(self, wire: WireChoice, position: int, out: list[Event]) -> None:
        index = wire.index if isinstance(wire.index, int) else position
        choice = self._choices.get(index)
        if choice is None:
            if not 0 <= index < CHOICES_MAX:
                raise self._malformed(f"choice {index}")
            choice = self._choices[index] = ChoiceReader(
                index, self._clock, tools=self._tools, template_opens=self._template_opens
            )
        message = wire.delta or wire.message
        if message is not None:
            tokens = read_logprobs(wire.logprobs) if self._logprobs else ()
            choice.take(message, tokens, out, whole=wire.delta is None)
        reason = wire.finish_reason
        if reason:
            choice.finish = FINISH_REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
            if isinstance(reason, str) and reason in FAILED_REASONS:
                raise ErrorFrame(judge_error_frame(f"finish_reason {reason}", self._blamed, begun=self.begun))

    def _end(self, out: list[Event]) -> None:
        if not self._choices:
            raise self._malformed("no choice in the answer")
        for index in sorted(self._choices):
            self._choices[index].end(out)
        out.append(UsageReported(self._count_usage()))
        self.complete = True

    def _count_usage(self) -> Usage:
        """Return the host's counts, with a marked estimate for each that is missing or cannot be 0."""
        found = self._usage or WireUsage()
        prompt, completion = read_count(found.prompt_tokens), read_count(found.completion_tokens)
        total = read_count(found.total_tokens) or 0
        details, prompt_details = found.completion_tokens_details, found.prompt_tokens_details
        reasoning = (
            (read_count(details.reasoning_tokens) if details else None) or read_count(found.reasoning_tokens) or 0
        )
        cached = read_count(prompt_details.cached_tokens) if prompt_details else None
        cached = cached or read_count(found.prompt_cache_hit_tokens) or 0
        estimated = False
        if completion is None and prompt and total > prompt:
            completion = total - prompt
        if not prompt:
            prompt, estimated = estimate_tokens(prompt_text(self._generation)), True
        written = sum(choice.bytes_written for choice in self._choices.values())
        if not completion and written:
            completion, estimated = -(-written // BYTES_PER_TOKEN), True
            reasoning = -(-sum(choice.reasoning_bytes for choice in self._choices.values()) // BYTES_PER_TOKEN)
        elif completion and reasoning and total == prompt + completion + reasoning:
            completion += reasoning  # xAI counts reasoning beside the completion; ours includes it (CHAT-07)
        return Usage(prompt, completion or 0, reasoning, min(cached, prompt), estimated)

    def _malformed(self, what: str) -> Malformed:
        state = "broke off in mid-answer" if self.begun else "gave no answer"
        return Malformed(f"The upstream '{self._blamed.upstream}' {state}; try again.", detail=what)

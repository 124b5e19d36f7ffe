"""One choice of an OpenAI-compatible answer, from deltas to events. Pure. Used by `openai_reply.py` alone.

Holds for what comes out: call indexes count from 0, a call's id and name come once and first (SSE-08), arguments are
pieces of JSON text (SSE-09), markup is taken out, the finish reason is one of ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.errors import Malformed
from convene.events import CallDelta, Finished, ReasoningDelta, RefusalDelta, TextDelta
from convene.providers.markup import Markup, may_open
from convene.providers.openai_wire import byte_length, read_arguments, read_text

if TYPE_CHECKING:
    from convene.clock import Clock
    from convene.events import Event, FinishReason, TokenLogprob
    from convene.providers.openai_wire import WireCall, WireFunction, WireMessage

CALLS_MAX = 1024


class CallReader:
    """One call while its pieces arrive; nothing is given out before its name is known."""

    __slots__ = ("early", "id", "index", "named", "spoke")

    def __init__(self, index: int, call_id: str, *, named: bool) -> None:
        self.index = index
        self.id = call_id
        self.named = named
        self.early = ""  # arguments that came before the name
        self.spoke = named


class ChoiceReader:
    """One choice of the answer while its pieces arrive."""

    __slots__ = (
        "_by_key",
        "_calls",
        "_clock",
        "_last",
        "_markup",
        "_passing",
        "_template_opens",
        "_tokens",
        "_tools",
        "bytes_written",
        "finish",
        "index",
        "reasoning_bytes",
    )

    def __init__(self, index: int, clock: Clock, *, tools: bool, template_opens: bool) -> None:
        self.index = index
        self.finish: FinishReason | None = None
        self.bytes_written = 0  # everything generated, reasoning included: for an estimate of its tokens
        self.reasoning_bytes = 0
        self._clock = clock
        self._tools = tools
        self._template_opens = template_opens
        self._markup: Markup | None = None
        self._passing = False  # text goes out as it comes: no markup is left to look for
        self._tokens: list[TokenLogprob] = []  # log probabilities whose text has not been given out
        self._calls: list[CallReader] = []
        self._by_key: dict[object, CallReader] = {}
        self._last: CallReader | None = None

    def _number_call(self) -> tuple[int, str]:
        call = self._new_call(None, named=True)
        return call.index, call.id

    def _new_call(self, call_id: str | None, *, named: bool = False) -> CallReader:
        if len(self._calls) >= CALLS_MAX:
            raise Malformed("The model wrote too many tool calls.", detail=f"more than {CALLS_MAX}")
        call = CallReader(len(self._calls), call_id or self._clock.new_id("call_"), named=named)
        self._calls.append(call)
        return call

    def take(self, message: WireMessage, tokens: tuple[TokenLogprob, ...], out: list[Event], *, whole: bool) -> None:
        """Take one delta (or, if `whole`, one message) in."""
        content, reasoning = message.content, message.reasoning_content or message.reasoning or message.thinking
        if reasoning or not isinstance(content, str):
            content, inner = read_text(content)
            self._reason((read_text(reasoning)[0] if reasoning else "") + inner, out)
        if content:
            self._say(content, tokens, out)
        elif not reasoning:
            self._tokens.extend(tokens)
        if isinstance(message.refusal, str) and message.refusal:
            self.bytes_written += byte_length(message.refusal)
            out.append(RefusalDelta(message.refusal, self.index))
        if message.tool_calls:
            for wire in message.tool_calls:
                if wire is not None and wire.function is not None:
                    self._take_call(self._find_call(wire, wire.function, whole=whole), wire.function, out)
        if message.function_call is not None:
            call = self._by_key.get(None) or self._new_call(None)
            self._by_key[None] = call
            self._take_call(call, message.function_call, out)

    def _reason(self, text: str, out: list[Event]) -> None:
        if text:
            self._template_opens = False  # this host takes the reasoning out itself
            if self._markup is not None:
                self._markup.expect_no_thinking()
            self.bytes_written += byte_length(text)
            self.reasoning_bytes += byte_length(text)
            out.append(ReasoningDelta(text, self.index))

    def _say(self, text: str, tokens: tuple[TokenLogprob, ...], out: list[Event]) -> None:
        self.bytes_written += byte_length(text)
        if not self._passing and self._markup is None:
            self._passing = not (self._tools or self._template_opens or may_open(text))
        if self._passing:
            if self._tokens:
                tokens, self._tokens = (*self._tokens, *tokens), []
            out.append(TextDelta(text, self.index, tokens))
            return
        if self._markup is None:
            self._markup = Markup(
                self._number_call, choice=self.index, tools=self._tools, template_opens=self._template_opens
            )
        self._tokens.extend(tokens)
        for piece in self._markup.feed(text):
            self._pass(piece, out)
        self._passing = self._markup.idle

    def _pass(self, piece: TextDelta | ReasoningDelta | CallDelta, out: list[Event]) -> None:
        """Give out what the markup reader found, with the log probabilities of the tokens that are text."""
        if isinstance(piece, ReasoningDelta):
            self.reasoning_bytes += byte_length(piece.text)
        if self._tokens and not isinstance(piece, CallDelta):
            tokens = self._claim(piece.text)
            if isinstance(piece, TextDelta):
                piece = TextDelta(piece.text, piece.choice, tokens)
        out.append(piece)

    def _claim(self, text: str) -> tuple[TokenLogprob, ...]:
        """Take out the waiting tokens that make up `text`, and drop those before them: they were markup."""
        starts_at = "".join(token.token for token in self._tokens).find(text)
        if starts_at < 0:
            return ()
        position, claimed, left = 0, [], []
        for token in self._tokens:
            ends_at = position + len(token.token)
            if position >= starts_at + len(text):
                left.append(token)
            elif ends_at > starts_at:
                claimed.append(token)
            position = ends_at
        self._tokens = left
        return tuple(claimed)

    def _find_call(self, wire: WireCall, function: WireFunction, *, whole: bool) -> CallReader:
        """Return the call that a piece belongs to, made when it is a new one (Q20 to Q25)."""
        call_id = wire.id if isinstance(wire.id, str) and wire.id else None
        named = isinstance(function.name, str) and bool(function.name)
        key: object = wire.index if isinstance(wire.index, int) else call_id
        known: CallReader | None = None
        if not whole:
            known = self._by_key.get(key) if key is not None else None
            if known is not None and known.named and call_id and named and known.id != call_id:
                known = None  # one index for several calls: Google's layer sends 0 for all
            if known is None and key is call_id and not named:
                known = self._last
        if known is None:
            known = self._new_call(call_id)
        if key is not None:
            self._by_key[key] = known
        self._last = known
        return known

    def _take_call(self, call: CallReader, function: WireFunction, out: list[Event]) -> None:
        arguments = read_arguments(function.arguments)
        self.bytes_written += byte_length(arguments)
        if call.named:
            if arguments:
                call.spoke = True
                out.append(CallDelta(call.index, arguments, choice=self.index))
            return
        call.early += arguments
        if isinstance(function.name, str) and function.name:
            call.named, call.spoke = True, bool(call.early)
            self.bytes_written += byte_length(function.name)
            out.append(CallDelta(call.index, call.early, call.id, function.name, self.index))

    def end(self, out: list[Event]) -> None:
        """Give out what was held, and the end. Raises `Malformed` for a call without a name."""
        if self._markup is not None and not self._passing:
            for piece in self._markup.end():
                self._pass(piece, out)
        for call in self._calls:
            if not call.named:
                raise Malformed("The model called a function without naming it.", detail="a tool call without a name")
            if not call.spoke:
                out.append(CallDelta(call.index, "{}", choice=self.index))  # readers parse arguments: "" is no JSON
        reason = self.finish or "stop"
        if self._calls and reason == "stop":
            reason = "tool_calls"  # SSE-10, Q26
        elif not self._calls and reason == "tool_calls":
            reason = "stop"
        out.append(Finished(reason, self.index))

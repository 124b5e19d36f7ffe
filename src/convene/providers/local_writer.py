"""One text from the embedded engine: the prompt measured, the request sent, the stream read and held to its form.

Here: `LocalWriter`. Not here: which text (`local`, `local_tools`), what a request looks like (`local_body`), how a
chunk is read (`openai_reply`). Called by `local`.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec

from convene.errors import BadRequest, Malformed
from convene.events import CallDelta, Finished, ReasoningDelta, RefusalDelta, TextDelta, UsageReported
from convene.http.base import HttpError
from convene.messages import Message, ToolChoice
from convene.providers.base import Generation, Sampling
from convene.providers.local_body import Defaults, pick_extras, write_body
from convene.providers.local_child import refuse_length
from convene.providers.local_prompt import count_bytes
from convene.providers.local_tools import Written
from convene.providers.openai_codec import encode_chat
from convene.providers.openai_faults import Blamed
from convene.providers.openai_reply import ReplyReader
from convene.usage import Usage, estimate_tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence

    from convene.clock import Clock
    from convene.events import Event, FinishReason, TokenLogprob
    from convene.providers.grammar import JsonShape
    from convene.providers.local_child import LocalChild
    from convene.providers.local_prompt import Turn

CHAT_PATH = "/v1/chat/completions"
TEMPLATE_BYTES = 256
"""Allowance for what a template adds once: a default system message and the opening of the answer."""
TURN_BYTES = 32
"""Allowance for a turn's own marks."""
BYTES_PER_TOKEN_MAX = 128
"""A prompt with more bytes than this for each token of the window is refused uncounted."""
LOGPROB_MIN = -9999.0
"""OpenAI's figure for "too unlikely"; the child says -1.8e308."""

Prompt = dict[str, object]
"""The part of a body that holds the conversation: `messages`, and `tools` for a template that knows them."""


class Templated(msgspec.Struct, frozen=True):
    """The reply of `/apply-template`."""

    prompt: str


class Tokenized(msgspec.Struct, frozen=True):
    """The reply of `/tokenize`."""

    tokens: list[int]


def write_prompt(turns: Sequence[Turn]) -> Prompt:
    """Return the prompt of plain turns."""
    return {"messages": list(turns)}


def write_native_prompt(generation: Generation, model: str) -> Prompt:
    """Return the prompt for a template that knows tools, in OpenAI's form."""
    body = msgspec.json.decode(encode_chat(generation, model))
    kept = ("messages", "tools", "tool_choice", "parallel_tool_calls")
    return {name: body[name] for name in kept if name in body}


class ShapeWatch:
    """Holds one answer to its JSON form while it streams."""

    def __init__(self, shape: JsonShape, *, stops: bool) -> None:
        """`stops`: the client gave stop strings, which may cut the JSON at its own wish."""
        self._shape = shape
        self._stops = stops
        self._pieces: list[str] = []
        self._begun = False

    def take(self, text: str) -> None:
        """Take a piece. Raises `BadRequest` if the first character shows that the grammar was not applied."""
        if not self._begun and text:
            self._begun = True
            if text[0] not in self._shape.starts:
                # The engine drops a grammar that it cannot compile and says so to nobody but its log.
                raise BadRequest(
                    "The JSON schema cannot be enforced by the embedded model: it contradicts itself, or combines "
                    "keywords in a way that the grammar engine does not know. Simplify it.",
                    param="response_format",
                )
        self._pieces.append(text)

    def end(self, reason: FinishReason) -> None:
        """Check the whole. Raises `Malformed` for an answer that ended and is not valid."""
        if reason == "length" or self._stops:
            return
        fault = self._shape.find_fault("".join(self._pieces))
        if fault is not None:
            raise Malformed(
                "The embedded model's answer does not match the JSON schema; simplify the schema or ask another model.",
                detail=f"against the schema: {fault}",
            )


class LocalWriter:
    """Has the child write texts."""

    def __init__(self, child: LocalChild, upstream: str, window: int, defaults: Defaults, clock: Clock) -> None:
        self._child = child
        self._blamed = Blamed(upstream, child.model, "the embedded engine")
        self._window = window
        self._defaults = defaults
        self._clock = clock

    async def fit(self, prompt: Prompt, turns: Sequence[Turn] | None, wanted: int) -> int:
        """Return how many tokens the answer may have: `wanted`, or what the window leaves (OAI-06).

        Counts bytes first, as no token is shorter than one, and tokens only where that does not settle it.

        Args:
            prompt: see `Prompt`.
            turns: the same as plain turns, if it is that simple; None counts tokens always.
            wanted: the limit asked for.

        Raises:
            BadRequest: code `context_length_exceeded`, with the tokens and the window.
        """
        if turns is not None:
            size = count_bytes(turns)
            if size + TURN_BYTES * len(turns) + TEMPLATE_BYTES + wanted <= self._window:
                return wanted
            if size > BYTES_PER_TOKEN_MAX * self._window:
                raise refuse_length(
                    estimate_tokens("".join(turn["content"] for turn in turns)), self._window, about=True
                )
        tokens = await self._count(prompt)
        if tokens >= self._window:
            raise refuse_length(tokens, self._window)
        return min(wanted, self._window - tokens)

    async def tally(self, prompt: Prompt, written: str) -> Usage:
        """Return the tokens of a prompt and of what was written to it, by the model's own tokenizer."""
        body = {"content": written, "add_special": False}
        tokens = await self._child.call("/tokenize", body, Tokenized) if written else Tokenized([])
        return Usage(await self._count(prompt), len(tokens.tokens))

    async def _count(self, prompt: Prompt) -> int:
        templated = await self._child.call("/apply-template", prompt, Templated)
        body = {"content": templated.prompt, "add_special": True, "parse_special": True}
        return len((await self._child.call("/tokenize", body, Tokenized)).tokens)

    async def stream(
        self,
        prompt: Prompt,
        generation: Generation,
        tokens_max: int,
        *,
        choice: int = 0,
        shape: JsonShape | None = None,
        watched: bool = True,
    ) -> AsyncGenerator[Event]:
        """Stream one choice: `Began`, deltas, `Finished`, `UsageReported`. Closing it closes the response.

        With a `shape` that is `watched`, nothing is given out before the first text has shown that the grammar is
        applied, so a schema that cannot be enforced is still refused in the ordinary way; unwatched, the caller checks.
        """
        sampling = generation.sampling
        body = write_body(sampling, self._defaults, tokens_max, choice)
        body |= pick_extras(generation.extra, free=shape is None) | prompt
        if shape is not None:
            body["grammar"] = shape.grammar
        watch = ShapeWatch(shape, stops=bool(sampling.stop)) if shape is not None and watched else None
        held: list[Event] = []
        async with aclosing(self._read(body, generation)) as events:
            async for event in events:
                if watch is not None:
                    if isinstance(event, TextDelta):
                        watch.take(event.text)
                    elif isinstance(event, Finished):
                        watch.end(event.reason)
                    else:
                        held.append(event)
                        continue
                for ready in (*held, event):
                    yield _place(ready, choice, sampling)
                held.clear()
        for event in held:
            yield event

    async def _read(self, body: Mapping[str, object], generation: Generation) -> AsyncGenerator[Event]:
        reader = ReplyReader(generation, self._blamed, self._clock)
        async with self._child.open(CHAT_PATH, msgspec.json.encode(body)) as response:
            try:
                async for data in response.chunks():
                    for event in reader.feed(data):
                        yield event
                    if reader.verdict is not None:
                        raise reader.verdict.fault
                    if reader.complete:
                        return
            except HttpError as error:
                if not reader.finished:
                    raise self._child.judge(error) from error
        for event in reader.end_stream():
            yield event
        if reader.verdict is not None:
            raise reader.verdict.fault

    async def write(self, turns: Sequence[Turn], shape: JsonShape, tokens_max: int) -> Written:
        """Write one text under a grammar at temperature 0 and return it whole."""
        asked = Generation(
            messages=tuple(Message(role="user", content=turn["content"]) for turn in turns),
            sampling=Sampling(temperature=0.0, top_p=1.0),
        )
        prompt = write_prompt(turns)
        limit = await self.fit(prompt, turns, tokens_max)
        pieces: list[str] = []
        whole, usage = False, Usage()
        async with aclosing(self.stream(prompt, asked, limit, shape=shape, watched=False)) as events:
            async for event in events:
                match event:
                    case TextDelta():
                        pieces.append(event.text)
                    case Finished():
                        whole = event.reason == "stop"
                    case UsageReported():
                        usage = event.usage
                    case _:
                        pass
        return Written("".join(pieces), whole, usage)


def _place(event: Event, choice: int, sampling: Sampling) -> Event:
    """Return the event for its choice, with as many rivals a token as were asked for."""
    match event:
        case TextDelta():
            return TextDelta(event.text, choice, _trim(event.logprobs, sampling.top_logprobs or 0))
        case CallDelta() | ReasoningDelta() | RefusalDelta() | Finished():
            return msgspec.structs.replace(event, choice=choice)
        case _:
            return event


def _trim(tokens: Iterable[TokenLogprob], rivals: int) -> tuple[TokenLogprob, ...]:
    return tuple(
        msgspec.structs.replace(
            token, logprob=max(token.logprob, LOGPROB_MIN), top_logprobs=_trim(token.top_logprobs[:rivals], 0)
        )
        for token in tokens
    )


def as_single(generation: Generation, *, tools: bool) -> Generation:
    """Return the generation of one streamed choice; without `tools` none are left in it to be read from the text."""
    if tools:
        return msgspec.structs.replace(generation, n=1, stream=True)
    return msgspec.structs.replace(generation, n=1, stream=True, tools=(), tool_choice=ToolChoice())

"""Chat on the embedded engine: a `ChatModel` that needs no account, no GPU and no network.

    refuse what it cannot do ─► wait in line ─► functions to call? ─► arguments under a grammar ─► CallDelta
                                                     └ no ─► count, clamp ─► stream ─► text, held to a schema if asked

Here: the order of one generation. Its parts: `local_line` (queue), `local_child` (requests and faults), `local_prompt`
(turns for the template), `local_tools` (calls), `grammar` (schemas), `openai_reply` (reading). Not here: processes and
files (`engine/`). `app.py` makes it.

The recipe is engine.md 4: always streamed, progress and usage always asked for, never on a used connection, always a
token limit. Closing the generator closes the response, and the child frees its slot within a batch (0.03 to 0.8 s).
"""

from __future__ import annotations

from contextlib import aclosing
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from convene.errors import BadRequest, Malformed
from convene.events import Began, CallDelta, Finished, Noticed, UsageReported
from convene.providers.base import Capabilities
from convene.providers.grammar import JsonShape, SchemaRefused, shape_schema
from convene.providers.local_body import Defaults
from convene.providers.local_child import ChildSettings, LocalChild
from convene.providers.local_line import WaitingLine
from convene.providers.local_prompt import refuse_parts, render_turns
from convene.providers.local_tools import decide_calls, write_arguments
from convene.providers.local_writer import LocalWriter, as_single, write_native_prompt, write_prompt
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from convene.clock import Clock
    from convene.engine.base import EngineSettings, LocalEngine
    from convene.events import Event
    from convene.http.base import Client
    from convene.messages import ResponseFormat
    from convene.providers.base import Generation
    from convene.providers.local_prompt import Turn
    from convene.providers.local_tools import Decision
    from convene.providers.tool_choice import ToolChooser

FORM_TOKENS_MAX = 1024
"""The most that a JSON form is given unasked: half of the window."""


class LocalSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the embedded chat model is used.

    Attributes:
        upstream: its name in `metadata.upstream` and the books.
        temperature: when the client sets none; the child's own 0.8 makes a small model ramble.
        top_p: likewise.
        output_tokens: when the client sets no limit: a small model can loop to the end of its context.
        choices_max: the largest `n`; choices are written one after the other, in one place of the line.
        waiting_max: requests that may wait before the engine's slots; any more are `Busy`.
        native_tools: the model's own chat template knows tools: hand them to it instead of choosing by similarity.
        waits: time-outs towards the child.
    """

    upstream: str = "embedded"
    temperature: float = 0.2
    top_p: float = 0.9
    output_tokens: int = 512
    choices_max: int = 8
    waiting_max: int = 64
    native_tools: bool = False
    waits: ChildSettings = ChildSettings()


def describe_capabilities(engine: EngineSettings, settings: LocalSettings) -> Capabilities:
    """Return what a text model on this engine can do."""
    return Capabilities(
        context_window=engine.context_per_slot,
        output_tokens_max=engine.context_per_slot - 1,
        temperature=settings.temperature,
        vision=False,
        chains=settings.native_tools,
    )


class LocalChat:
    """One model on one embedded engine, as a `ChatModel`."""

    whole = None
    """The child is always asked for a stream: only that can be cancelled."""

    def __init__(
        self,
        engine: LocalEngine,
        client: Client,
        chooser: ToolChooser | None,
        settings: LocalSettings,
        capabilities: Capabilities,
        clock: Clock,
    ) -> None:
        """Serve `engine`'s model.

        Args:
            engine: started and closed by whoever made it.
            client: for requests to loopback.
            chooser: says which function a request means; without one only a named or single required one is called.
            settings: see there.
            capabilities: as published, see `describe_capabilities`.
            clock: for ids, and for the line's measure of waiting.
        """
        self._engine = engine
        self._chooser = chooser
        self._settings = settings
        self._capabilities = capabilities
        self._clock = clock
        self._child = LocalChild(engine, client, settings.waits)
        self._window = engine.settings.context_per_slot
        defaults = Defaults(settings.temperature, settings.top_p)
        self._writer = LocalWriter(self._child, settings.upstream, self._window, defaults, clock)
        self._line = WaitingLine(engine.settings.slots, settings.waiting_max, clock)

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    @property
    def upstream(self) -> str:
        """Its name in the books."""
        return self._settings.upstream

    def ready(self) -> str | None:
        """Return None if it can serve now, else why not, with the megabytes of a fetch under way."""
        return self._child.ready()

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        """Generate, see `ChatModel`. Raises `BadRequest`, `Busy` or `UpstreamFault`."""
        shape = self._refuse(generation)
        async with self._line.place():
            if self._settings.native_tools:
                prompt = write_native_prompt(generation, self._engine.name)
                events = self._talk(prompt, None, as_single(generation, tools=True), generation.n, shape, Usage())
            else:
                events = self._serve(generation, shape)
            async with aclosing(events):
                async for event in events:
                    yield event

    async def tally(self, generation: Generation, written: str) -> Usage:
        """Return what a generation that was cut off has used, for the books: its prompt and what had been written.

        Raises `UpstreamFault` if the engine cannot say.
        """
        return await self._writer.tally(write_prompt(render_turns(generation.messages)), written)

    def _refuse(self, generation: Generation) -> JsonShape | None:
        """Raise `BadRequest` for what this model cannot do; return the form the answer must have, if any."""
        refuse_parts(generation.messages)
        if not generation.messages:
            raise BadRequest("`messages` must hold at least one message.", param="messages")
        if generation.n > self._settings.choices_max:
            message = f"The embedded model gives at most {self._settings.choices_max} choices."
            raise BadRequest(message, code="unsupported_parameter", param="n")
        wanted = generation.response_format
        if wanted.kind == "text":
            return None
        if self._settings.native_tools and generation.tools and generation.tool_choice.mode != "none":
            # The engine takes one grammar a request, and its template's tools bring their own.
            message = "This model cannot combine `tools` with a JSON `response_format`; send one of them."
            raise BadRequest(message, code="unsupported_parameter", param="response_format")
        return _shape_answer(wanted)

    async def _serve(self, generation: Generation, shape: JsonShape | None) -> AsyncGenerator[Event]:
        """Call a function if one is meant, else answer with text."""
        decision = await decide_calls(generation, self._chooser)
        written, spent = await self._write_calls(decision, generation)
        if not written and decision.must and len(generation.tools) > 1 and generation.tool_choice.mode == "required":
            # Any function will do: one that it cannot fill in is passed over once for the next best.
            failed = decision.meant[0].tool.name
            rest = tuple(tool for tool in generation.tools if tool.name != failed)
            other = await decide_calls(msgspec.structs.replace(generation, tools=rest), self._chooser)
            written, more = await self._write_calls(other, generation)
            spent += more
        if written:
            for event in self._tell_calls(written, generation.n):
                yield event
            yield UsageReported(spent)
            return
        if decision.must:
            raise Malformed(
                f"The embedded model could not fill in the arguments of {decision.meant[0].tool.name!r}; "
                "simplify its parameters or ask a larger model."
            )
        turns = render_turns(generation.messages)
        single = as_single(generation, tools=False)
        async with aclosing(self._talk(write_prompt(turns), turns, single, generation.n, shape, spent)) as events:
            async for event in events:
                yield event
                if isinstance(event, Began) and decision.notice:
                    yield Noticed("tools_unavailable", decision.notice)

    async def _write_calls(self, decision: Decision, generation: Generation) -> tuple[list[tuple[str, str]], Usage]:
        """Return name and arguments of each call that the model could fill in, and what all of them took."""
        spent = Usage()
        written: list[tuple[str, str]] = []
        for meant in decision.meant:
            called = await write_arguments(meant, generation.messages, self._window, self._writer.write)
            spent += called.usage
            if called.arguments is not None:
                written.append((meant.tool.name, called.arguments))
        return written, spent

    def _tell_calls(self, written: Sequence[tuple[str, str]], choices: int) -> Iterator[Event]:
        """Give the same calls to each choice: at temperature 0 every try would write the same."""
        yield self._begin()
        for choice in range(choices):
            for index, (name, arguments) in enumerate(written):
                yield CallDelta(index, arguments, self._clock.new_id("call_"), name, choice)
            yield Finished("tool_calls", choice)

    def _begin(self) -> Began:
        """Return `Began` with our own fingerprint (OAI-20): the child's says nothing, and what changes answers does."""
        settings = self._engine.settings
        known = f"{self._engine.name} {settings.slots} {settings.context_per_slot} {settings.chat_template}"
        return Began(self.upstream, self._engine.name, "fp_" + sha256(known.encode()).hexdigest()[:10])

    async def _talk(
        self,
        prompt: dict[str, object],
        turns: list[Turn] | None,
        generation: Generation,
        choices: int,
        shape: JsonShape | None,
        spent: Usage,
    ) -> AsyncGenerator[Event]:
        """Write each choice in turn: the child would count the tokens of one only (engine.md 4.6)."""
        wanted = generation.sampling.max_tokens or self._settings.output_tokens
        if shape is not None and generation.sampling.max_tokens is None:
            # Half of a form is worth nothing, so a large one gets more room.
            wanted = max(wanted, min(shape.tokens, FORM_TOKENS_MAX))
        tokens_max = await self._writer.fit(prompt, turns, min(wanted, self._window))
        for choice in range(choices):
            stream = self._writer.stream(prompt, generation, tokens_max, choice=choice, shape=shape)
            async with aclosing(stream) as events:
                async for event in events:
                    if isinstance(event, UsageReported):
                        spent += event.usage
                    elif not isinstance(event, Began):
                        yield event
                    elif choice == 0:
                        yield self._begin()
        yield UsageReported(spent)


def _shape_answer(wanted: ResponseFormat) -> JsonShape:
    try:
        return shape_schema(wanted.schema if wanted.kind == "json_schema" else None)
    except SchemaRefused as refusal:
        raise BadRequest(f"{refusal}.", param="response_format") from refusal

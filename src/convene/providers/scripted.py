"""Models that say what a script tells them: deterministic, slow, flaky or failing on demand. No weights, no network.

They ship with the product, for trying a client, an agent or a limit without cost, and are off unless configured. Here:
the models themselves. What they say is in `scripted_scripts.py`, in which pieces in `scripted_pieces.py`. Built by
`app.py`; `serving/` uses them as it uses any model.

A token is a word, so usage, `max_tokens` and logprobs count words. Temperature, seed, penalties and biases are accepted
and change nothing, for nothing is drawn by lot.
"""

from __future__ import annotations

import asyncio
import json
import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from convene.errors import BadRequest
from convene.events import Began, CallDelta, Finished, UsageReported
from convene.providers.base import Capabilities, Embeddings
from convene.providers.scripted_pieces import Part, split_tokens
from convene.providers.scripted_schema import Unfillable, check_schema, fill
from convene.providers.scripted_scripts import (
    FAULTS,
    Call,
    Fail,
    Flaky,
    Pause,
    Say,
    Script,
    Step,
    call_tools,
    echo,
    fail_after,
    fail_before,
    last_user_text,
    load_scripts,
    must_call,
    think,
)
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from convene.clock import Clock
    from convene.events import Event
    from convene.messages import ResponseFormat
    from convene.providers.base import Generation
    from convene.providers.scripted_pieces import Piece

UPSTREAM = "scripted"
FINGERPRINT = "fp_scripted"

PIECES_PER_BREATH = 64
"""Pieces sent before other tasks get a turn, so a long answer starves nobody and can be cancelled."""

DIMENSIONS_MAX = 4096
"""The longest vector made on request."""


class ScriptedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator may set: whether there are scripted models, and a TOML or JSON file with more of them."""

    enabled: bool = False
    slow_pause_s: float = 0.05
    flaky_seed: int = 0
    scripts: Path | None = None


def catalogue(clock: Clock, settings: ScriptedSettings) -> dict[str, ScriptedChat]:
    """Return every scripted model by name; none unless enabled.

    Raises:
        ValueError: for a bad file of scripts, naming the file and the key; `OSError` if it cannot be read.
    """
    if not settings.enabled:
        return {}
    scripts: dict[str, Script] = {
        "scripted-echo": echo,
        "scripted-slow": echo,
        "scripted-flaky": Flaky(settings.flaky_seed),
        "scripted-tools": call_tools,
        "scripted-think": think,
        "scripted-fail-before": fail_before,
        "scripted-fail-after": fail_after,
    }
    written = load_scripts(settings.scripts) if settings.scripts is not None else {}
    for name, play in written.items():
        if name in scripts:
            raise ValueError(f"{settings.scripts}: models: {name!r} ships with the product; choose another name")
        scripts[name] = play
    pauses = {"scripted-slow": settings.slow_pause_s}
    return {name: ScriptedChat(name, script, clock, pause_s=pauses.get(name, 0.0)) for name, script in scripts.items()}


class ScriptedChat:
    """A `ChatModel` that follows `script`, with `pause_s` seconds of silence after each word."""

    whole = None
    """It speaks word by word."""

    def __init__(self, name: str, script: Script, clock: Clock, *, pause_s: float = 0.0) -> None:
        self.name = name
        self.capabilities = Capabilities(vision=True, audio=True, files=True, reasoning=True)
        self.upstream = UPSTREAM
        self._script = script
        self._clock = clock
        self._pause_s = pause_s
        self._calls = 0

    def ready(self) -> str | None:
        """Return None: a script always stands ready."""
        return None

    async def generate(self, generation: Generation) -> AsyncGenerator[Event]:
        """Follow the script; the same words in each of the `n` choices.

        Raises:
            BadRequest: for a schema that cannot be filled, or a tool that is not there.
            UpstreamFault: where the script says so; before `Began` if nothing was said until then.
        """
        part = Part(generation.sampling, self._steps(generation))
        choices = range(generation.n)
        began = Began(UPSTREAM, self.name, FINGERPRINT)
        sent = 0
        for move in part.moves():
            if isinstance(move, Pause):
                await asyncio.sleep(move.pause_s)
                continue
            if isinstance(move, Fail):
                raise FAULTS[move.code](f"The model {self.name!r} failed, as its script says.", detail=move.code)
            if not sent:
                yield began
            for choice in choices:
                yield self._place(move, choice)
            sent += 1
            if self._pause_s > 0:
                await asyncio.sleep(self._pause_s)
            elif sent % PIECES_PER_BREATH == 0:
                await asyncio.sleep(0)
        if not sent:
            yield began
        for choice in choices:
            yield Finished(part.reason, choice)
        yield UsageReported(part.count_usage(generation))

    def _steps(self, generation: Generation) -> tuple[Step, ...]:
        """Return the script's steps, bent to what the request demands of any model; one that fails, fails."""
        number = self._calls
        self._calls += 1
        steps = self._script(generation, number)
        if any(isinstance(step, Fail) for step in steps):
            return steps
        if generation.tool_choice.mode == "none":
            steps = tuple(step for step in steps if not isinstance(step, Call)) or echo(generation, number)
        if not any(isinstance(step, Call) for step in steps):
            if must_call(generation):
                return (*steps, *call_tools(generation, number))
            if generation.response_format.kind != "text":
                return _shape_text(steps, generation.response_format, last_user_text(generation))
        return steps

    def _place(self, piece: Piece, choice: int) -> Event:
        """Return `piece`, which was made for choice 0, for `choice`; each call gets an id of its own."""
        if isinstance(piece, CallDelta) and piece.name is not None:
            return CallDelta(piece.index, piece.arguments, self._clock.new_id("call_"), piece.name, choice)
        return piece if choice == 0 else msgspec.structs.replace(piece, choice=choice)


def _shape_text(steps: tuple[Step, ...], wanted: ResponseFormat, said: str) -> tuple[Step, ...]:
    """Return the steps with their text made JSON of the wanted form, unless it is that already (OAI-16)."""
    text = "".join(step.text for step in steps if isinstance(step, Say))
    at = next((i for i, step in enumerate(steps) if isinstance(step, Say)), len(steps))
    rest = tuple(step for step in steps[at:] if not isinstance(step, Say))
    return (*steps[:at], Say(_shape_json(text, wanted, said)), *rest)


def _shape_json(text: str, wanted: ResponseFormat, said: str) -> str:
    schema: dict[str, object] = {"type": "object"}
    if wanted.kind == "json_schema" and wanted.schema is not None:
        schema = wanted.schema
    try:
        validator = check_schema(schema)
        if _is_valid_text(text, validator.is_valid):
            return text
        filled = {"text": text} if wanted.kind == "json_object" else fill(schema, said)
    except Unfillable as fault:
        raise BadRequest(f"Scripted models cannot fill this schema: {fault}", param="response_format") from None
    return json.dumps(filled, ensure_ascii=False)


def _is_valid_text(text: str, is_valid: Callable[[object], bool]) -> bool:
    try:
        return is_valid(json.loads(text))
    except (ValueError, RecursionError):  # it is not JSON, or JSON too deep to look at
        return False


class ScriptedEmbeddings:
    """An `EmbeddingModel` that hashes character trigrams: alike texts get alike vectors, the same text the same one."""

    def __init__(self, name: str = "scripted-embedding", dimensions: int = 256) -> None:
        self.name = name
        self.upstream = UPSTREAM
        self._dimensions = dimensions

    def ready(self) -> str | None:
        """Return None: arithmetic always stands ready."""
        return None

    async def embed(self, inputs: Sequence[str | Sequence[int]], dimensions: int | None = None) -> Embeddings:
        """Return one unit vector an input; usage counts words, or token ids. Raises `BadRequest`."""
        length = self._dimensions if dimensions is None else dimensions
        if not 1 <= length <= DIMENSIONS_MAX:
            raise BadRequest(f"`dimensions` must be from 1 to {DIMENSIONS_MAX}.", param="dimensions")
        vectors: list[tuple[float, ...]] = []
        tokens = 0
        for entry in inputs:
            text = entry if isinstance(entry, str) else " ".join(map(str, entry))
            tokens += len(split_tokens(text))
            vectors.append(_embed_text(text, length))
            await asyncio.sleep(0)
        return Embeddings(tuple(vectors), Usage(prompt_tokens=tokens), self.name)


def _embed_text(text: str, length: int) -> tuple[float, ...]:
    """Return the unit vector of the signed trigram counts; the first axis where they cancel out."""
    sums = [0.0] * length
    for trigram in _trigrams(text):
        mark = zlib.crc32(trigram.encode("utf-8", "replace"))
        sums[(mark >> 1) % length] += 1.0 if mark & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in sums))
    if norm == 0:
        return (1.0, *(0.0 for _ in range(length - 1)))
    return tuple(value / norm for value in sums)


def _trigrams(text: str) -> Iterator[str]:
    framed = f"\x02{text.casefold()}\x03"
    for start in range(max(1, len(framed) - 2)):
        yield framed[start : start + 3]

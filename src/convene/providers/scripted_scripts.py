"""What a scripted model says: the steps, the scripts that ship with the product, and scripts from a file.

A script is a function from a `Generation` and the number of the call to steps; it reads no clock and does no I/O, so
the same conversation gets the same answer. Not here: how steps become events (`scripted.py`, which calls this).
"""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Protocol

import msgspec

from convene.errors import BadRequest, Malformed, Rejected, TimedOut, Unavailable
from convene.messages import ImagePart, Message, OpaquePart
from convene.providers.scripted_schema import Unfillable, fill
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from convene.errors import ConveneError
    from convene.messages import FunctionTool
    from convene.providers.base import Generation

FAULTS: Mapping[str, type[ConveneError]] = {
    "unavailable": Unavailable,
    "timed_out": TimedOut,
    "rejected": Rejected,
    "malformed": Malformed,
    "bad_request": BadRequest,
}
"""The words a `fail` step may use."""

NOTHING_SAID = "(empty message)"
"""What echo answers to an empty text: clients repeat a stream without any content (STREAM-11)."""

SCRIPT_BYTES_MAX = 1 << 20
"""A file of scripts above this is refused: it is read whole into memory."""

PAUSE_S_MAX = 3600.0
"""The longest pause of one step; longer ones are a slip of units."""


class Say(msgspec.Struct, frozen=True):
    """Answer text, sent word by word."""

    text: str


class Think(msgspec.Struct, frozen=True):
    """Reasoning, sent word by word (OAI-46)."""

    text: str


class Call(msgspec.Struct, frozen=True):
    """One call of a client's function; `arguments` is sent as it stands, valid JSON or not."""

    name: str
    arguments: str


class Pause(msgspec.Struct, frozen=True):
    """Silence of `pause_s` seconds."""

    pause_s: float


class Fail(msgspec.Struct, frozen=True):
    """The fault named by a key of `FAULTS`; before any other step's event it comes before `Began` too."""

    code: str


class Spend(msgspec.Struct, frozen=True):
    """Report this usage instead of the counted one."""

    usage: Usage


Step = Say | Think | Call | Pause | Fail | Spend


class Script(Protocol):
    """What to do in one generation."""

    def __call__(self, generation: Generation, call: int) -> tuple[Step, ...]:
        """Return the steps; `call` counts the calls of this model from 0. Raises `BadRequest`."""
        ...


def quote_message(message: Message) -> str:
    """Return the text of `message`, with a mark such as `[image]` for each part that is not text."""
    text = message.text()
    if isinstance(message.content, str):
        return text
    marks = [f"[{part.kind}]" for part in message.content if isinstance(part, OpaquePart)]
    marks += ["[image]" for part in message.content if isinstance(part, ImagePart)]
    return " ".join([text, *marks] if text else marks)


def last_user_text(generation: Generation) -> str:
    """Return what the user said last, or nothing."""
    return next((quote_message(m) for m in reversed(generation.messages) if m.role == "user"), "")


def since_last_user(generation: Generation) -> tuple[Message, ...]:
    """Return the messages after the last one of the user's (all of them if there is none)."""
    messages = generation.messages
    at = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "user"), -1)
    return messages[at + 1 :]


def echo(generation: Generation, call: int) -> tuple[Step, ...]:
    """Say the last user text again."""
    del call
    return (Say(last_user_text(generation) or NOTHING_SAID),)


def think(generation: Generation, call: int) -> tuple[Step, ...]:
    """Reason about the text in one sentence, then echo it."""
    text = last_user_text(generation)
    return (Think(f"The user wrote {len(text.split())} words. I shall repeat them."), *echo(generation, call))


def fail_before(generation: Generation, call: int) -> tuple[Step, ...]:
    """Fail without any event."""
    del generation, call
    return (Fail("unavailable"),)


def fail_after(generation: Generation, call: int) -> tuple[Step, ...]:
    """Say three words, then break off."""
    del generation, call
    return (Say("This answer breaks"), Fail("malformed"))


class Flaky:
    """Echo on one call of every `period`, and fail before any event on the others; `seed` shifts the pattern."""

    def __init__(self, seed: int = 0, period: int = 3) -> None:
        self.seed = seed
        self.period = period

    def __call__(self, generation: Generation, call: int) -> tuple[Step, ...]:
        """Return the steps of call number `call`: with seed 0 and period 3 it fails, fails, answers, and so on."""
        if (call + self.seed) % self.period != self.period - 1:
            return (Fail("unavailable"),)
        return echo(generation, call)


def must_call(generation: Generation) -> bool:
    """Whether the request demands a call: without tools it demands nothing (OAI-13)."""
    return bool(generation.tools) and generation.tool_choice.mode in {"required", "named"}


def callable_tools(generation: Generation) -> tuple[FunctionTool, ...]:
    """Return the functions that `tool_choice` lets the model call, in request order. Raises `BadRequest`."""
    choice = generation.tool_choice
    tools = generation.tools
    if choice.mode == "none" or not tools:
        return ()
    if choice.mode == "named":
        named = tuple(tool for tool in tools if tool.name == choice.name)[:1]
        if not named:
            raise BadRequest(f"No tool is called {choice.name!r}; name one of `tools`.", param="tool_choice")
        return named
    if choice.allowed is not None:
        return tuple(tool for tool in tools if tool.name in choice.allowed)
    return tools


def write_call(tool: FunctionTool, text: str) -> Call:
    """Return a call of `tool` with arguments valid for its schema. Raises `BadRequest` if none are found."""
    schema: dict[str, object] = tool.parameters or {"type": "object"}
    try:
        arguments = fill(schema, text)
    except Unfillable as fault:
        raise BadRequest(f"Scripted models cannot fill {tool.name!r}'s schema: {fault}", param="tools") from None
    return Call(tool.name, json.dumps(arguments, ensure_ascii=False))


def call_tools(generation: Generation, call: int) -> tuple[Step, ...]:
    """Call the client's functions, then quote their results.

    Two calls if the client allows parallel ones and offers two functions (CHAT-15), else one; with results at hand the
    answer quotes them, unless `tool_choice` demands a call still. Without a callable function it echoes.
    """
    results = [quote_message(m) for m in since_last_user(generation) if m.role == "tool"]
    if results and not must_call(generation):
        return (Say("The tools answered: " + "; ".join(f'"{result}"' for result in results)),)
    tools = callable_tools(generation)
    count = 1 if generation.parallel_tool_calls is False else 2
    text = last_user_text(generation) or NOTHING_SAID
    return tuple(write_call(tool, text) for tool in tools[:count]) or echo(generation, call)


class CallEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`call` of a step: `args` is an object, or text that goes out as it stands."""

    name: str
    args: dict[str, object] | str = {}


class StepEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A step as a file writes it: exactly one key."""

    text: str | None = None
    reasoning: str | None = None
    call: CallEntry | None = None
    pause_s: float | None = None
    fail: str | None = None
    usage: Usage | None = None

    def read(self, where: str) -> Step:
        """Return the step. Raises `ValueError` naming `where`."""
        if sum(getattr(self, key) is not None for key in self.__struct_fields__) != 1:
            raise ValueError(f"{where}: a step has exactly one of {', '.join(self.__struct_fields__)}")
        if self.fail is not None and self.fail not in FAULTS:
            raise ValueError(f"{where}.fail: {self.fail!r} is none of {', '.join(FAULTS)}")
        if self.pause_s is not None and not 0 <= self.pause_s <= PAUSE_S_MAX:
            raise ValueError(f"{where}.pause_s: {self.pause_s:g} is not within 0 and {PAUSE_S_MAX:g} seconds")
        return self._convert()

    def _convert(self) -> Step:
        if self.call is not None:
            args = self.call.args
            return Call(self.call.name, args if isinstance(args, str) else json.dumps(args, ensure_ascii=False))
        if self.pause_s is not None:
            return Pause(self.pause_s)
        if self.fail is not None:
            return Fail(self.fail)
        if self.usage is not None:
            return Spend(self.usage)
        return Say(self.text) if self.text is not None else Think(self.reasoning or "")


class TurnEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A turn as a file writes it."""

    steps: list[StepEntry]
    when: str | None = None


class ModelEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model as a file writes it."""

    name: str
    turns: list[TurnEntry]


class ScriptFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file of scripts."""

    models: list[ModelEntry]


class Turn(msgspec.Struct, frozen=True):
    """One reply: its steps, and the text it is an answer to, if only to some."""

    steps: tuple[Step, ...]
    when: str | None = None


class Play:
    """A script of written turns.

    Turns whose `when` is in the last user text go first; among them the number of assistant messages since that text
    chooses, so a call and the answer to its result are two turns with the same `when`. Without a match the turns
    without `when` are taken in the order of all assistant messages so far. The last one repeats.
    """

    def __init__(self, turns: tuple[Turn, ...]) -> None:
        if not turns:
            raise ValueError("a script needs at least one turn")
        self.turns = turns

    def __call__(self, generation: Generation, call: int) -> tuple[Step, ...]:
        """Return the steps of the turn that is due."""
        del call
        text = last_user_text(generation)
        due = [turn for turn in self.turns if turn.when is not None and turn.when in text]
        said = since_last_user(generation)
        if not due:
            due = [turn for turn in self.turns if turn.when is None] or [self.turns[-1]]
            said = generation.messages
        index = sum(message.role == "assistant" for message in said)
        return due[min(index, len(due) - 1)].steps


def load_scripts(path: Path) -> dict[str, Play]:
    """Read the scripts in the TOML or JSON file at `path` (by its ending), by model name.

    Raises:
        ValueError: naming the file and the key, for what is not a file of scripts; `OSError` if it cannot be read.
    """
    data = path.read_bytes()
    if len(data) > SCRIPT_BYTES_MAX:
        raise ValueError(f"{path}: {len(data)} bytes, above the cap of {SCRIPT_BYTES_MAX}")
    try:
        tree = json.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
        read = msgspec.convert(tree, ScriptFile)
    except (ValueError, RecursionError) as fault:  # msgspec, json, toml and UTF-8 faults are all ValueErrors
        raise ValueError(f"{path}: {fault}") from None
    plays: dict[str, Play] = {}
    for m, model in enumerate(read.models):
        where = f"{path}: models[{m}]"
        if not model.name or model.name in plays:
            raise ValueError(f"{where}.name: {model.name!r} is empty or taken")
        if not model.turns:
            raise ValueError(f"{where}.turns: needs at least one turn")
        plays[model.name] = Play(tuple(_read_turn(turn, f"{where}.turns[{t}]") for t, turn in enumerate(model.turns)))
    return plays


def _read_turn(turn: TurnEntry, where: str) -> Turn:
    steps = tuple(step.read(f"{where}.steps[{s}]") for s, step in enumerate(turn.steps))
    return Turn(steps, turn.when)

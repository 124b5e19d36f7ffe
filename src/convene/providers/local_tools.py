"""Calling functions with the embedded model: similarity says which, a grammar makes the arguments valid JSON.

    none asked / last word is a tool's result under auto ──► no call
    named ──► that one ─┐
    auto ──► chooser ───┼──► arguments by schema, temperature 0 ──► valid: a call
    required ► chooser ─┘      (cut off: once more with room)   └─► else no call (auto) or an error

Under auto, sentences that ask for different functions call each of them, with that sentence as its request.

Not here: how similarity is measured (`tool_choice`) and how the schema becomes a grammar (`grammar`). The words of the
arguments are the model's best guess: they are well-formed, and often poor (engine.md 7.3). Called by `local`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from convene.errors import BadRequest, Malformed, UpstreamFault
from convene.providers.grammar import JsonShape, SchemaRefused, shape_schema
from convene.providers.local_prompt import Turn, find_request, find_round, quote_data
from convene.providers.tool_choice import Meant
from convene.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from convene.messages import FunctionTool, Message
    from convene.providers.base import Generation
    from convene.providers.tool_choice import ToolChooser

ARGUMENT_TOKENS_MIN = 120
"""The limit that all measured arguments fitted (engine.md 7.2)."""
ARGUMENT_TOKENS_MAX = 600
PARAMETERS_CHARS_MAX = 1200
REQUEST_CHARS_MAX = 1600
RESULT_CHARS_MAX = 400
EXAMPLES: tuple[Turn, ...] = (
    {
        "role": "user",
        "content": "Function play_song: Play a song. Parameters: title (string), artist (string).\n"
        "Request: Please play Yesterday by the Beatles, loud",
    },
    {"role": "assistant", "content": '{"title":"Yesterday","artist":"the Beatles"}'},
    {
        "role": "user",
        "content": "Function add_event: Add an event to the calendar. Parameters: what (string), when (string), "
        "people (integer).\nRequest: Put lunch with Maria and 3 others at noon into my calendar",
    },
    {"role": "assistant", "content": '{"what":"lunch with Maria","when":"noon","people":4}'},
)
EXAMPLES_TOKENS = 200
"""What the examples and the system turn take, generously."""


class Written(NamedTuple):
    """What the model wrote under a grammar: the text, whether it came to its own end, and the tokens it took."""

    text: str
    whole: bool
    usage: Usage


class Decision(NamedTuple):
    """The functions to call; `must`: no call would be an error; `notice` says why tools were passed over."""

    meant: Sequence[Meant] = ()
    must: bool = False
    notice: str = ""


class Called(NamedTuple):
    """The arguments as JSON text, or None where the model did not manage; the tokens are spent either way."""

    arguments: str | None
    usage: Usage


async def decide_calls(generation: Generation, chooser: ToolChooser | None) -> Decision:
    """Say which functions this request calls, if any; more than one only under `auto` (OAI-12).

    After a tool's result `auto` answers with text (TOOLS-08): similarity alone would call the same function for ever.
    `required` still calls (TOOLS-11), first the functions that this round has not called yet.

    Raises:
        BadRequest: a named function that is not among the tools.
        UpstreamFault: a call is required and the embedding model cannot choose.
    """
    choice, tools = generation.tool_choice, _allow(generation)
    if not tools or choice.mode == "none":
        return Decision()
    request = find_request(generation.messages)
    if choice.mode == "named":
        for tool in tools:
            if tool.name == choice.name:
                return Decision([Meant(tool, request)], must=True)
        raise BadRequest(f"`tool_choice` names {choice.name!r}, which is not among `tools`.", param="tool_choice")
    must = choice.mode == "required"
    if not must and generation.messages[-1].role != "user":
        return Decision()
    if must:
        called = {call.name for message in find_round(generation.messages) for call in message.tool_calls}
        tools = tuple(tool for tool in tools if tool.name not in called) or tools
        if len(tools) == 1:
            return Decision([Meant(tools[0], request)], must=True)
    return await _choose(chooser, request, tools, must=must, several=generation.parallel_tool_calls is not False)


async def _choose(
    chooser: ToolChooser | None, request: str, tools: tuple[FunctionTool, ...], *, must: bool, several: bool
) -> Decision:
    try:
        if chooser is None:
            raise Malformed("Choosing among functions takes an embedding model, and none is set up.")
        if several and not must:
            return Decision(await chooser.choose_each(request, tools))
        chosen = await chooser.choose(request, tools, must=must)
        return Decision(() if chosen is None else [Meant(chosen, request)], must)
    except UpstreamFault as fault:
        if must:
            raise
        return Decision(notice=f"The functions were not considered: {fault.message}")


def _allow(generation: Generation) -> tuple[FunctionTool, ...]:
    allowed = generation.tool_choice.allowed
    if allowed is None:
        return generation.tools
    return tuple(tool for tool in generation.tools if tool.name in allowed)


def shape_parameters(tool: FunctionTool) -> JsonShape | None:
    """Return the form of a tool's arguments, or None if it takes none (OAI-14).

    What the engine cannot enforce is dropped, and a schema that makes no sense to it counts as any object: the caller
    checks arguments anyway, and other hosts accept such tools.
    """
    parameters = tool.parameters
    if not parameters or not (set(parameters) - {"type", "properties", "required", "additionalProperties", "$schema"}):
        takes = (parameters or {}).get("properties") or (parameters or {}).get("required")
        if not takes:
            return None
    try:
        shape = shape_schema(parameters, lenient=True)
    except SchemaRefused:
        return shape_schema(None)
    return shape if shape.starts == "{" else shape_schema(None)


def narrow_choices(parameters: dict[str, object], request: str) -> dict[str, object]:
    """Return the schema with each choice among texts held to those that the request names word for word, if any.

    The model copies what stands before it, and picks among choices by their order: of 16 sentences to pass on, offered
    two at a time, it took the wrong one twice; with this none can be.
    """
    properties = parameters.get("properties")
    if not isinstance(properties, dict):
        return parameters
    narrowed = {}
    for name, schema in properties.items():
        choices = schema.get("enum") if isinstance(schema, dict) else None
        if isinstance(choices, list):
            named = [one for one in choices if isinstance(one, str) and _is_named(one, request)]
            if named:
                narrowed[name] = schema | {"enum": named}
    return parameters | {"properties": properties | narrowed} if narrowed else parameters


def _is_named(choice: str, request: str) -> bool:
    return bool(choice) and re.search(rf"(?<!\w){re.escape(choice)}(?!\w)", request, re.IGNORECASE) is not None


def only_arguments(parameters: dict[str, object]) -> str | None:
    """Return the arguments where a schema leaves no choice, one text each for all properties: that takes no model."""
    properties, required = parameters.get("properties"), parameters.get("required")
    if not isinstance(properties, dict) or not isinstance(required, list) or set(required) != set(properties):
        return None
    found = {}
    for name, schema in properties.items():
        choices = schema.get("enum") if isinstance(schema, dict) else None
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
            return None
        found[name] = choices[0]
    return json.dumps(found, ensure_ascii=False) if found else None


def write_turns(tool: FunctionTool, request: str, messages: tuple[Message, ...], chars: int) -> list[Turn]:
    """Return the prompt that asks for arguments, at most about `chars` characters long besides the examples.

    Half of them are for the request, the rest for the parameters, the description and the round's last results. Two
    worked examples before it: 26 of 40 own requests had every wanted word in the arguments, 23 without them.
    """
    request = _cut_middle(request, min(REQUEST_CHARS_MAX, chars // 2))
    names = {call.id: call.name for message in messages for call in message.tool_calls}
    room = min(RESULT_CHARS_MAX, chars // 8)
    results = [
        f"{names.get(message.tool_call_id or '', 'a function')} returned {quote_data(message.text()[:room])}"
        for message in find_round(messages)
        if message.role == "tool"
    ]
    described = f"{tool.name}: {tool.description[:room]}" if tool.description else tool.name
    parameters = list_parameters(tool.parameters or {})[: min(PARAMETERS_CHARS_MAX, chars // 4)]
    asked = "\n".join([request or "Go on.", *results[-2:]])
    return [
        {"role": "system", "content": "Fill in the function arguments as JSON, copying words from the request."},
        *(dict(turn) for turn in EXAMPLES),
        {"role": "user", "content": f"Function {described}. Parameters: {parameters}.\nRequest: {asked}"},
    ]


def list_parameters(parameters: Mapping[str, object]) -> str:
    """Return the properties as words: each name with its description, choices or type. The grammar holds the rest."""
    properties = parameters.get("properties")
    if not isinstance(properties, dict):
        return json.dumps(parameters, ensure_ascii=False, separators=(",", ":"))
    listed = []
    for name, schema in properties.items():
        about = schema if isinstance(schema, dict) else {}
        choices = about.get("enum")
        said = " or ".join(map(str, choices)) if isinstance(choices, list) else about.get("description")
        said = said or about.get("type")
        listed.append(f"{name} ({said})" if isinstance(said, str) else name)
    return ", ".join(listed)


def _cut_middle(text: str, chars: int) -> str:
    """Keep the beginning and the end: people put what they want at either."""
    if len(text) <= chars:
        return text
    half = chars // 2
    return f"{text[:half]} … {text[-half:]}"


class Write(Protocol):
    """Generates under a grammar, see `LocalWriter.write`."""

    async def __call__(self, turns: list[Turn], shape: JsonShape, tokens_max: int) -> Written:
        """Return what the model wrote in at most `tokens_max` tokens."""
        ...


async def write_arguments(meant: Meant, messages: tuple[Message, ...], window: int, write: Write) -> Called:
    """Have the model write the arguments; a text that was cut off gets one more try with room for all of it."""
    tool, request = meant
    if tool.parameters is not None:
        parameters = narrow_choices(tool.parameters, request)
        only = only_arguments(parameters)
        if only is not None:
            return Called(only, Usage())
        tool = msgspec.structs.replace(tool, parameters=parameters)
    shape = shape_parameters(tool)
    if shape is None:
        return Called("{}", Usage())
    usage = Usage()
    limit = min(max(ARGUMENT_TOKENS_MIN, shape.tokens), ARGUMENT_TOKENS_MAX)
    # A character is at most one token in ASCII and about three in other scripts.
    plain = all(message.text().isascii() for message in messages) and list_parameters(tool.parameters or {}).isascii()
    for tokens in (limit, 2 * limit):
        tokens_max = min(tokens, window // 2)
        room = window - tokens_max - EXAMPLES_TOKENS
        written = await write(write_turns(tool, request, messages, room if plain else room // 3), shape, tokens_max)
        usage += written.usage
        if written.whole and shape.find_fault(written.text) is None:
            return Called(written.text, usage)
        if written.whole:
            break
    return Called(None, usage)

"""Which tool of an MCP server a message means, and how a server's tools are told to whoever asks it. Pure.

    {"tool": "add", "arguments": {"a": 1}}   that tool with these arguments, exactly
    weather in Rome                          the tool that takes one text; of several the one whose words fit best
    anything else                            a question back, which lists the tools

A server's list is a stranger's text: what is told of it is bounded.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from convene.agents.base import AgentCard

TOOLS_SHOWN_MAX: Final = 40
SIGNATURE_CHARS_MAX: Final = 400
DESCRIPTION_CHARS_MAX: Final = 200
INSTRUCTIONS_CHARS_MAX: Final = 4_000
PROPERTIES_MAX: Final = 24
ENUM_MAX: Final = 8
NAMES_IN_DESCRIPTION: Final = 6

USAGE: Final = 'Call a tool by a JSON object as the message: {"tool": NAME, "arguments": {...}}.'
NO_TOOLS: Final = "This MCP server offers no tools."
NO_SUCH_TOOL: Final = "There is no tool {name!r}."
NOT_CLEAR: Final = "It is not clear which tool is meant."
NO_ARGUMENTS: Final = "`arguments` must be a JSON object."

_WORD: Final = re.compile(r"[^\W_]{3,}")
_FENCE: Final = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


class OfferedTool(msgspec.Struct, frozen=True, kw_only=True):
    """One tool of a server."""

    name: str
    description: str = ""
    schema: dict[str, Any] = {}
    repeatable: bool = False
    """Calling it twice does no more than calling it once."""


class McpOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself."""

    name: str = ""
    instructions: str = ""
    tools: tuple[OfferedTool, ...] = ()


class Chosen(msgspec.Struct, frozen=True):
    """A tool to be called."""

    tool: OfferedTool
    arguments: dict[str, object]


class Unclear(msgspec.Struct, frozen=True):
    """Nothing to be called; the words are a question to whoever asked."""

    words: str


class _Wanted(msgspec.Struct):
    tool: str
    arguments: object = None


def choose(offer: McpOffer, say: str) -> Chosen | Unclear:
    """Return which tool a message means."""
    if not offer.tools:
        return Unclear(NO_TOOLS)
    fenced = _FENCE.fullmatch(say)
    wanted = _wanted(fenced[1] if fenced else say)
    if wanted is not None:
        tool = next((one for one in offer.tools if one.name == wanted.tool), None)
        if tool is None:
            return Unclear(f"{NO_SUCH_TOOL.format(name=wanted.tool[:100])}\n{listing(offer)}")
        arguments = {} if wanted.arguments is None else wanted.arguments
        if not isinstance(arguments, dict):
            return Unclear(f"{NO_ARGUMENTS}\n{signature(tool)}")
        return Chosen(tool, arguments)
    takers = [(one, name) for one in offer.tools if (name := _only_text(one.schema))]
    words = _words(say)
    scored = [(len(words & _words(f"{one.name} {one.description}")), one, name) for one, name in takers]
    best = max((score for score, _, _ in scored), default=0)
    fitting = [(one, name) for score, one, name in scored if score == best]
    if len(fitting) == 1:
        tool, name = fitting[0]
        return Chosen(tool, {name: say})
    return Unclear(f"{NOT_CLEAR}\n{listing(offer)}")


def names_tool(say: str) -> bool:
    """Whether a message is a JSON object that names a tool."""
    fenced = _FENCE.fullmatch(say)
    return _wanted(fenced[1] if fenced else say) is not None


def listing(offer: McpOffer) -> str:
    """Return the tools as lines, with what is needed to call each."""
    lines = [f"- {described(tool)}" for tool in offer.tools[:TOOLS_SHOWN_MAX]]
    if len(offer.tools) > TOOLS_SHOWN_MAX:
        lines.append(f"- and {len(offer.tools) - TOOLS_SHOWN_MAX} more")
    return "\n".join((USAGE, *lines))


def described(tool: OfferedTool) -> str:
    """Return one tool with its parameters and what it does."""
    words = " ".join(tool.description.split())
    words = words if len(words) <= DESCRIPTION_CHARS_MAX else words[: DESCRIPTION_CHARS_MAX - 1] + "…"
    return f"{signature(tool)} - {words}" if words else signature(tool)


def signature(tool: OfferedTool) -> str:
    """Return a tool as `name(city: string, days?: integer)`; what is optional has a question mark."""
    properties, required = tool.schema.get("properties"), tool.schema.get("required")
    needed = {one for one in required if isinstance(one, str)} if isinstance(required, list) else set()
    named = [*properties.items()][:PROPERTIES_MAX] if isinstance(properties, dict) else []
    inside = ", ".join(f"{name}{'' if name in needed else '?'}: {_type(shape)}" for name, shape in named)
    whole = f"{tool.name}({inside})"
    return whole if len(whole) <= SIGNATURE_CHARS_MAX else whole[: SIGNATURE_CHARS_MAX - 1] + "…"


def as_agent(url: str, offer: McpOffer) -> AgentCard:
    """Return a server as the rest of the house knows agents: name, instructions and tools are its entry (MCP-04)."""
    names = ", ".join(tool.name for tool in offer.tools[:NAMES_IN_DESCRIPTION])
    about = " ".join(offer.instructions.split())[:DESCRIPTION_CHARS_MAX]
    tools = f"An MCP server with the tools {names}." if names else "An MCP server."
    readme = (f"# {offer.name or url}", "", offer.instructions[:INSTRUCTIONS_CHARS_MAX], "", "## Tools", "")
    return AgentCard(
        protocol="mcp",
        url=url,
        name=offer.name or url,
        description=f"{about} {tools} {USAGE}".strip(),
        readme="\n".join((*readme, listing(offer), "")),
        skills=tuple(described(tool) for tool in offer.tools[:TOOLS_SHOWN_MAX]),
    )


def _wanted(text: str) -> _Wanted | None:
    try:
        return msgspec.json.decode(text, type=_Wanted)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return None


def _only_text(schema: dict[str, Any]) -> str:
    """Return the one parameter that a tool must have, if that is a text; else nothing."""
    properties, required = schema.get("properties"), schema.get("required")
    if not isinstance(properties, dict):
        return ""
    names = required if isinstance(required, list) and required else [*properties] if len(properties) == 1 else []
    if len(names) != 1 or not isinstance(names[0], str):
        return ""
    shape = properties.get(names[0])
    return names[0] if isinstance(shape, dict) and shape.get("type") == "string" and "enum" not in shape else ""


def _type(shape: object) -> str:
    if not isinstance(shape, dict):
        return "any"
    choices = shape.get("enum")
    if isinstance(choices, list) and choices:
        return " | ".join(msgspec.json.encode(one).decode() for one in choices[:ENUM_MAX])
    kind = shape.get("type")
    if isinstance(kind, list):
        return " | ".join(one for one in kind if isinstance(one, str)) or "any"
    if kind == "array":
        return f"array of {_type(shape.get('items'))}"
    if kind == "object" and isinstance(inner := shape.get("properties"), dict):
        return "{" + ", ".join(f"{name}: {_type(one)}" for name, one in [*inner.items()][:PROPERTIES_MAX]) + "}"
    return kind if isinstance(kind, str) else "any"


def _words(text: str) -> frozenset[str]:
    return frozenset(word.removesuffix("s") for word in _WORD.findall(text.casefold()))

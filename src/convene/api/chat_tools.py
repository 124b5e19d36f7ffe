"""`tools`, `tool_choice` and their deprecated forms off the wire (OAI-12 to OAI-15). Pure; for `chat_request.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convene.errors import BadRequest
from convene.messages import FunctionTool, ToolChoice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from convene.api.shapes import ChatBody, WireFunction

ALLOWED_LABELS = 1024
"""A list of allowed tools has a bound, like every list."""


def read_tools(wire: ChatBody, *, legacy: bool) -> tuple[FunctionTool, ...]:
    """Return the client's functions; tool types that this server does not run are left out (CHAT-24, ORESP-29)."""
    if legacy:
        return tuple(_tool(function) for function in wire.functions or ())
    tools: list[FunctionTool] = []
    for index, tool in enumerate(wire.tools or ()):
        if tool.type != "function":
            continue
        if tool.function is None:
            where = f"tools[{index}].function"
            raise BadRequest(f"'{where}' is missing.", code="missing_required_parameter", param=where)
        tools.append(_tool(tool.function))
    return tuple(tools)


def _tool(function: WireFunction) -> FunctionTool:
    return FunctionTool(function.name, function.description or "", function.parameters, function.strict)


def read_choice(
    choice: str | dict[str, object] | None, tools: tuple[FunctionTool, ...], *, legacy: bool, offered: bool
) -> ToolChoice:
    """Return whether to call. Without a function it is none; `offered`: there were tools of other types.

    Raises `BadRequest` for a form nobody knows, a function that is not there, or a demand that nothing can meet.
    """
    field = "function_call" if legacy else "tool_choice"
    if not tools:
        if offered and is_forced(choice):
            raise BadRequest(
                f"'{field}' demands a call, yet no tool of 'tools' is a function, the one type that runs here.",
                code="unsupported_parameter",
                param=field,
            )
        return ToolChoice("none")
    match choice:
        case None | "auto":
            return ToolChoice()
        case "none":
            return ToolChoice("none")
        case "required" | "any":
            return ToolChoice("required")
        case {"type": "allowed_tools", **rest}:
            return _read_allowed(rest, tools)
        case {"type": "function", "function": {"name": str(name)}} | {"type": "function", "name": str(name)}:
            return _named(name, tools, field)
        case {"name": str(name)} if legacy:
            return _named(name, tools, field)
        case {"type": "custom"}:
            raise BadRequest(
                "'tool_choice' of type custom is not supported.", code="unsupported_parameter", param=field
            )
        case _:
            raise BadRequest(
                f"Invalid '{field}': use none, auto, required or a function of 'tools' by name.", param=field
            )


def is_forced(choice: str | dict[str, object] | None) -> bool:
    """Whether the choice demands a call."""
    return choice not in (None, "none", "auto")


def _named(name: str, tools: tuple[FunctionTool, ...], field: str) -> ToolChoice:
    if all(tool.name != name for tool in tools):
        raise BadRequest(f"'{field}' names a function that 'tools' does not hold: '{name[:100]}'.", param=field)
    return ToolChoice("named", name)


def _read_allowed(choice: Mapping[object, object], tools: tuple[FunctionTool, ...]) -> ToolChoice:
    inner = choice.get("allowed_tools")
    allowed: Mapping[object, object] = inner if isinstance(inner, dict) else choice
    listed = allowed.get("tools")
    names: list[str] = []
    for entry in listed[:ALLOWED_LABELS] if isinstance(listed, list) else ():
        match entry:
            case {"function": {"name": str(name)}} | {"name": str(name)}:
                names.append(_named(name, tools, "tool_choice").name or "")
            case _:
                raise BadRequest(
                    "Each of 'tool_choice.allowed_tools.tools' needs a function name.", param="tool_choice"
                )
    if not names:
        raise BadRequest("'tool_choice.allowed_tools.tools' is empty.", param="tool_choice")
    return ToolChoice("required" if allowed.get("mode") == "required" else "auto", None, tuple(names))

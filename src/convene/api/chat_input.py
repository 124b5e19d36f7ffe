"""A body in the form of the Responses API at the chat path, rewritten as a chat body (OAI-26): what Cursor posts.

Only the fields are moved to where chat has them; `chat_request.py`, which calls this, reads and checks the result as
any other body. What needs stored answers is refused. Pure.
"""

from __future__ import annotations

from convene.errors import BadRequest

RENAMED = (("max_output_tokens", "max_completion_tokens"),)
DROPPED = ("input", "instructions", "text", "reasoning", "include", "truncation", "max_output_tokens", "background")
TOOL_FIELDS = ("name", "description", "parameters", "strict")


def as_chat(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields of a chat body. Raises `BadRequest` naming what cannot be moved."""
    for field in ("previous_response_id", "conversation", "prompt"):
        if fields.get(field) is not None:
            raise BadRequest(
                f"'{field}' needs stored answers, which the chat path does not have; send the whole conversation.",
                code="unsupported_parameter",
                param=field,
            )
    chat = {name: value for name, value in fields.items() if name not in DROPPED}
    chat["messages"] = _read_input(fields["input"], fields.get("instructions"))
    chat |= {new: fields[old] for old, new in RENAMED if fields.get(old) is not None}
    if isinstance(tools := fields.get("tools"), list):
        chat["tools"] = [_nest_tool(tool) for tool in tools]
    match fields.get("text"):
        case {"format": {"type": "json_schema", **schema}}:
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case {"format": dict(plain)}:
            chat["response_format"] = plain
    match fields.get("reasoning"):
        case {"effort": str(effort)}:
            chat["reasoning_effort"] = effort
    return chat


def _read_input(given: object, instructions: object) -> list[object]:
    messages: list[object] = []
    if isinstance(instructions, str) and instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list):
        raise BadRequest("'input' must be a text or a list of items.", code="invalid_type", param="input")
    calls: list[object] = []
    for place, item in enumerate(given):
        match item:
            case {"type": "function_call"}:
                if not calls:
                    messages.append({"role": "assistant", "tool_calls": calls})
                function = {"name": item.get("name"), "arguments": item.get("arguments")}
                calls.append({"id": item.get("call_id"), "type": "function", "function": function})
                continue
            case {"type": "function_call_output"}:
                message = {"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")}
                messages.append(message)
            case {"type": "reasoning"}:
                continue
            case {"role": str(role)} if item.get("type", "message") == "message":
                messages.append({"role": role, "content": item.get("content")})
            case _:
                raise BadRequest(
                    f"Invalid 'input[{place}]': use messages, function calls and their outputs.",
                    param=f"input[{place}]",
                )
        calls = []
    return messages


def _nest_tool(tool: object) -> object:
    if isinstance(tool, dict) and tool.get("type") == "function" and "function" not in tool:
        return {"type": "function", "function": {name: tool[name] for name in TOOL_FIELDS if name in tool}}
    return tool

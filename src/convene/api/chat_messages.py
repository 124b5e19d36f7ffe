"""Messages off the wire: every form that real clients send, read into `convene.messages` (OAI-07 to OAI-11, CHAT-03).

Pure. Developer is system, the deprecated `function` is `tool`, content may be text, parts, null or missing, echoed
extras and nulls pass. What cannot be read is refused with the path of the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.errors import BadRequest
from convene.messages import ImagePart, Message, OpaquePart, TextPart, ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convene.api.shapes import WireFunctionCall, WireMessage, WirePart, WireToolCall
    from convene.messages import Part, Role

ROLES: tuple[tuple[str, Role], ...] = (
    ("user", "user"),
    ("system", "system"),
    ("assistant", "assistant"),
    ("tool", "tool"),
    ("developer", "system"),
    ("function", "tool"),
)
_ROLE_OF: Final = dict(ROLES)
_PLAIN_ROLES: Final[dict[str, Role]] = {"user": "user", "system": "system"}


def read_messages(wire: Sequence[WireMessage]) -> tuple[Message, ...]:
    """Return the conversation. Raises `BadRequest` naming `messages[i]...`."""
    messages: list[Message] = []
    for index, one in enumerate(wire):
        content, role = one.content, _PLAIN_ROLES.get(one.role)
        if role is not None and isinstance(content, str):
            messages.append(Message(role=role, content=content, name=one.name))
        else:
            messages.append(_read_message(one, f"messages[{index}]"))
    _check_order(messages)
    return tuple(messages)


def _read_message(wire: WireMessage, where: str) -> Message:
    role = _ROLE_OF.get(wire.role)
    if role is None:
        raise BadRequest(
            f"Invalid '{where}.role': '{wire.role}'. Use system, developer, user, assistant or tool.",
            param=f"{where}.role",
        )
    content = wire.content if isinstance(wire.content, str) else _read_content(wire.content, where)
    if role in {"user", "system"}:
        if wire.content is None:
            raise _missing(f"{where}.content")
        return Message(role=role, content=content, name=wire.name)
    if role == "tool":
        return Message(role=role, content=content, name=wire.name, tool_call_id=wire.tool_call_id)
    return Message(
        role=role,
        content=content or wire.refusal or "",
        name=wire.name,
        tool_calls=_read_calls(wire, where),
        reasoning=wire.reasoning_content or (wire.reasoning if isinstance(wire.reasoning, str) else None),
    )


def _read_content(parts: list[WirePart] | None, where: str) -> str | tuple[Part, ...]:
    """Return plain text where all parts are text, so that every host understands it; else the parts."""
    if not parts:
        return ""
    read = tuple(_read_part(part, f"{where}.content[{place}]") for place, part in enumerate(parts))
    if all(isinstance(part, TextPart) for part in read):
        return "\n".join(part.text for part in read if isinstance(part, TextPart))
    return read


def _read_part(part: WirePart, where: str) -> Part:
    match part.type:
        case "text" | "input_text" | "output_text":
            if part.text is None:
                raise _missing(f"{where}.text")
            return TextPart(part.text)
        case "refusal":
            return TextPart(part.refusal or "")
        case "image_url" | "input_image":
            return _read_image(part, where)
        case "input_audio" if part.input_audio is not None:
            return OpaquePart("input_audio", part.input_audio)
        case "file" if part.file is not None:
            return OpaquePart("file", part.file)
        case "input_audio" | "file":
            raise _missing(f"{where}.{part.type}")
        case _:
            raise BadRequest(
                f"Invalid '{where}.type': '{part.type}'. Use text, image_url, input_audio or file.",
                param=f"{where}.type",
            )


def _read_image(part: WirePart, where: str) -> ImagePart:
    source = part.image_url
    if source is None:
        raise _missing(f"{where}.image_url")
    url, detail = (source, None) if isinstance(source, str) else (source.url, source.detail)
    if not url.startswith(("data:image/", "https://", "http://")):
        raise BadRequest(
            f"Invalid '{where}.image_url': give a data:image/...;base64 or a web URL.", param=f"{where}.image_url"
        )
    return ImagePart(url, detail)


def _read_calls(wire: WireMessage, where: str) -> tuple[ToolCall, ...]:
    if wire.tool_calls:
        return tuple(_read_call(call, f"{where}.tool_calls[{n}]", n) for n, call in enumerate(wire.tool_calls))
    if wire.function_call is not None:
        return (_call("call_0", wire.function_call, f"{where}.function_call"),)
    return ()


def _read_call(call: WireToolCall, where: str, index: int) -> ToolCall:
    call_id = call.id or f"call_{index}"
    if call.function is not None:
        return _call(call_id, call.function, f"{where}.function")
    match call.custom:
        case {"name": str(name), "input": str(text)} if name:
            return ToolCall(call_id, name, msgspec.json.encode({"input": text}).decode())
        case _:
            raise _missing(f"{where}.function")


def _call(call_id: str, function: WireFunctionCall, where: str) -> ToolCall:
    if not function.name:
        raise _missing(f"{where}.name")
    arguments = function.arguments
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    return ToolCall(call_id, function.name, text or "{}")


def _check_order(messages: Sequence[Message]) -> None:
    """A tool's result follows the assistant message that called it (TOOLS-07).

    The opposite, a call without a result, passes: replies of the ASI:One shape show calls the server itself ran, and
    clients echo them (CHAT-30).
    """
    open_calls: set[str] = set()
    for index, message in enumerate(messages):
        if message.role == "assistant":
            open_calls = {call.id for call in message.tool_calls}
        elif message.role == "tool":
            if not open_calls or (message.tool_call_id is not None and message.tool_call_id not in open_calls):
                raise BadRequest(
                    f"'messages[{index}]' is a tool result without a call: it must follow an assistant message whose "
                    "tool_calls hold its tool_call_id.",
                    param=f"messages[{index}].tool_call_id",
                )
        else:
            open_calls = set()


def _missing(where: str) -> BadRequest:
    return BadRequest(f"'{where}' is missing.", code="missing_required_parameter", param=where)

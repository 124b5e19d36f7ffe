"""The Model Context Protocol as values: bytes to messages and back, and what its results mean. Pure.

Revisions: 2026-07-28, which has no sessions (each request says all about itself), and before it 2025-11-25, 2025-06-18,
2025-03-26 and 2024-11-05, which begin with `initialize`. Whatever comes from a server is read leniently where nothing
depends on it and refused as `NotMcp` where something does. Not here: HTTP (`mcp_exchange.py`), which tools are offered
(`mcp_offer.py`).
"""

from __future__ import annotations

from typing import Any, Final, TypeGuard

import msgspec

import convene

MODERN: Final = "2026-07-28"
"""The revision without sessions."""
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""Those that begin with `initialize`, the one that is asked for first."""

CLIENT: Final = {"name": "convene", "version": convene.__version__}
KEY_FIELD: Final = "convene/idempotencyKey"
"""In `_meta` of every call: the same when a call is repeated after a crash, and never for two different calls."""

INVALID_PARAMS: Final = -32602
METHOD_NOT_FOUND: Final = -32601
HEADER_MISMATCH: Final = -32020
CAPABILITY_MISSING: Final = -32021
VERSION_UNSUPPORTED: Final = -32022

_NAME_CHARS_MAX: Final = 256
_TEXT_CHARS_MAX: Final = 4_000


class McpFault(Exception):
    """A request failed; the text is for the log and may hold the server's words, never a secret."""


class NotMcp(McpFault):
    """What came is not the protocol, or asks for what is not offered; the text says why in words of ours."""


class Reply(msgspec.Struct, frozen=True):
    """The result of a request."""

    id: int | str
    result: dict[str, Any]


class Fault(msgspec.Struct, frozen=True):
    """The error that a request ended with; without an id where the server could not read it."""

    id: int | str | None
    code: int
    message: str
    data: object = None


class Note(msgspec.Struct, frozen=True):
    """A notification."""

    method: str
    params: dict[str, Any]


class Ask(msgspec.Struct, frozen=True):
    """A request of the server's to us."""

    id: int | str
    method: str


Message = Reply | Fault | Note | Ask


class Greeting(msgspec.Struct, frozen=True):
    """What a server says of itself. `versions` has one entry after `initialize`."""

    versions: tuple[str, ...]
    list_changed: bool = False
    """It tells when its list of tools changes."""
    name: str = ""
    """What it calls itself, in one line."""
    instructions: str = ""
    """What it says of its use, bounded."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One tool as a server lists it, bounded in nothing yet."""

    name: str
    description: str = ""
    schema: dict[str, Any]
    read_only: bool = False
    open_world: bool = True
    """It deals with the world outside of the server; so it is assumed where nothing is said."""
    idempotent: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a call ended. `text` is all content in words; `structured` is UNSET where there is none."""

    text: str
    structured: object = msgspec.UNSET
    failed: bool = False


def encode_request(number: int, method: str, params: dict[str, object], version: str) -> bytes:
    """Return a request. In the modern revision each one carries who asks in which version."""
    if version == MODERN:
        about: dict[str, object] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientInfo": CLIENT,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        given = params.get("_meta")
        params = {**params, "_meta": about | given if isinstance(given, dict) else about}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def encode_initialize(number: int) -> bytes:
    """Return the first request of the revisions with sessions."""
    params: dict[str, object] = {"protocolVersion": LEGACY[0], "capabilities": {}, "clientInfo": CLIENT}
    return encode_request(number, "initialize", params, LEGACY[0])


def encode_note(method: str, params: dict[str, object] | None = None) -> bytes:
    """Return a notification."""
    note: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    return msgspec.json.encode(note | {"params": params} if params else note)


def encode_answer(ask: Ask) -> bytes:
    """Return our answer to a server's request: we are there, and can do nothing else for it."""
    answer: dict[str, object] = {"jsonrpc": "2.0", "id": ask.id}
    if ask.method == "ping":
        return msgspec.json.encode(answer | {"result": {}})
    error = {"code": METHOD_NOT_FOUND, "message": "This client offers neither sampling nor elicitation nor roots."}
    return msgspec.json.encode(answer | {"error": error})


def read_messages(raw: bytes) -> list[Message]:
    """Return the messages of one body or event, several where they come as a list (2025-03-26). Raises `NotMcp`."""
    value = decode(raw)
    return [_message(one) for one in (value if isinstance(value, list) else [value])]


def decode(raw: bytes) -> object:
    """Return any JSON. Raises `NotMcp`."""
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError) as error:  # msgspec's own faults are ValueErrors
        raise NotMcp("it is not JSON") from error


def read_initialize(result: dict[str, Any]) -> Greeting:
    """Return the greeting of a server with sessions. Raises `NotMcp`."""
    version = result.get("protocolVersion")
    if not isinstance(version, str):
        raise NotMcp("initialize names no protocol version")
    if version not in LEGACY:
        raise NotMcp(f"it wants revision {clean(version, 20)!r}, which is not spoken here")
    return Greeting((version,), _tells_changes(result), *_about(result))


def read_discover(result: dict[str, Any]) -> Greeting:
    """Return the greeting of a modern server. Raises `NotMcp`."""
    versions = result.get("supportedVersions")
    if not isinstance(versions, list):
        raise NotMcp("server/discover names no versions")
    spoken = tuple(version for version in versions if isinstance(version, str))
    return Greeting(spoken, _tells_changes(result), *_about(result))


def read_page(result: dict[str, Any]) -> tuple[list[Listed], str | None, int]:
    """Return the tools of one page, the cursor of the next, and how many tools could not be read. Raises `NotMcp`."""
    tools = result.get("tools")
    if not isinstance(tools, list):
        raise NotMcp("tools/list gave no list")
    read = [_listed(one) for one in tools]
    cursor = result.get("nextCursor")
    found = [one for one in read if one is not None]
    return found, cursor if isinstance(cursor, str) and cursor else None, len(read) - len(found)


def read_outcome(result: dict[str, Any]) -> Outcome:
    """Return what a call gave. Raises `NotMcp`, also for a result that asks for more input, which nobody can give."""
    kind = result.get("resultType", "complete")
    if kind == "input_required":
        raise NotMcp("it asks for input during a call, which is not offered")
    if kind != "complete":
        raise NotMcp("the result is of an unknown type")
    content = result.get("content", [])
    if not isinstance(content, list):
        raise NotMcp("the content of a result is not a list")
    structured = result.get("structuredContent", msgspec.UNSET)
    text = "\n\n".join(part for part in map(_in_words, content) if part)
    if not text and structured is not msgspec.UNSET:
        text = msgspec.json.encode(structured).decode()
    return Outcome(text=text, structured=structured, failed=result.get("isError") is True)


def read_progress(note: Note) -> tuple[int | str, str] | None:
    """Return the token of the call that a note is about and in a few words how far it is; None for any other note."""
    token = note.params.get("progressToken")
    if note.method != "notifications/progress" or not _is_id(token):
        return None
    message = note.params.get("message")
    if isinstance(message, str) and (words := clean(message, 200)):
        return token, words
    done, total = note.params.get("progress"), note.params.get("total")
    if not _is_number(done):
        return None
    return token, f"{done:g} of {total:g}" if _is_number(total) else f"{done:g}"


def clean(text: str, chars_max: int) -> str:
    """Return one line of a stranger's text: control characters and runs of white space as one space, cut to size."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text[: 2 * chars_max]).split())
    return line if len(line) <= chars_max else line[: chars_max - 1].rstrip() + "…"


def _message(value: object) -> Message:
    if not isinstance(value, dict):
        raise NotMcp("a message is not an object")
    number, method, params = value.get("id"), value.get("method"), value.get("params")
    if isinstance(method, str):
        if number is None:
            return Note(method, params if isinstance(params, dict) else {})
        if not _is_id(number):
            raise NotMcp("a request has no usable id")
        return Ask(number, method[:_NAME_CHARS_MAX])
    error = value.get("error")
    if isinstance(error, dict):
        code, message = error.get("code"), error.get("message")
        code = code if isinstance(code, int) and not isinstance(code, bool) else 0
        words = clean(message, _TEXT_CHARS_MAX) if isinstance(message, str) else ""
        return Fault(number if _is_id(number) else None, code, words, error.get("data"))
    result = value.get("result")
    if not _is_id(number) or not isinstance(result, dict):
        raise NotMcp("a message is neither request, reply nor notification")
    return Reply(number, result)


def _is_id(value: object) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15  # noqa: PLR2004 -- `:g`


def _tells_changes(result: dict[str, Any]) -> bool:
    capabilities = result.get("capabilities")
    tools = capabilities.get("tools") if isinstance(capabilities, dict) else None
    return isinstance(tools, dict) and tools.get("listChanged") is True


def _about(result: dict[str, Any]) -> tuple[str, str]:
    """Return name and instructions; in the modern revision the name may stand in `_meta` instead."""
    meta = result.get("_meta")
    info = result.get("serverInfo")
    if not isinstance(info, dict) and isinstance(meta, dict):
        info = meta.get("io.modelcontextprotocol/serverInfo")
    info = info if isinstance(info, dict) else {}
    return _short(info, "title") or _short(info, "name"), _text(result, "instructions")[:_TEXT_CHARS_MAX]


def _listed(value: object) -> Listed | None:
    if not isinstance(value, dict):
        return None
    name, schema = value.get("name"), value.get("inputSchema")
    if not isinstance(name, str) or not 0 < len(name) <= _NAME_CHARS_MAX or not isinstance(schema, dict):
        return None
    hints = value.get("annotations")
    hints = hints if isinstance(hints, dict) else {}
    words = (value.get("description"), value.get("title"), hints.get("title"))
    return Listed(
        name=name,
        description=next((one for one in words if isinstance(one, str) and one.strip()), ""),
        schema=schema,
        read_only=hints.get("readOnlyHint") is True,
        open_world=hints.get("openWorldHint") is not False,
        idempotent=hints.get("idempotentHint") is True,
    )


def _in_words(part: object) -> str:
    """Return one piece of content as text. What is no text is named, never sent on and never fetched."""
    if not isinstance(part, dict):
        return ""
    match part.get("type"):
        case "text":
            return _text(part, "text")
        case "image" | "audio" as kind:
            size = len(_text(part, "data")) * 3 // 4
            return f"[{kind}, {_short(part, 'mimeType') or 'of an unknown type'}, about {size} bytes, not shown]"
        case "resource_link":
            about = [_short(part, key) for key in ("title", "name", "description", "mimeType")]
            return f"[link to a resource: {', '.join(one for one in (*about, _short(part, 'uri')) if one)}]"
        case "resource":
            return _resource(part.get("resource"))
    return "[content of an unknown kind, not shown]"


def _resource(value: object) -> str:
    if not isinstance(value, dict):
        return ""
    name = _short(value, "uri") or "without a name"
    if text := _text(value, "text"):
        return f"[resource {name}]\n{text}"
    size = len(_text(value, "blob")) * 3 // 4
    return f"[resource {name}, {_short(value, 'mimeType') or 'of an unknown type'}, about {size} bytes, not shown]"


def _text(part: dict[str, Any], key: str) -> str:
    value = part.get(key)
    return value if isinstance(value, str) else ""


def _short(part: dict[str, Any], key: str) -> str:
    return clean(_text(part, key), 500)

"""The server's side of the Model Context Protocol as values: which revision a request is of, and what its results are.

Revisions: 2026-07-28, in which each request says all about itself, and those before it, which begin with `initialize`.
Pure; `mcp.py` answers. The client's side is `tools/mcp_codec.py`: rooms do not see each other, and the two sides have
little in common but the names.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

import msgspec

import convene
from convene.agent_hops import KEY, read_hops
from convene.api.json_rpc import INVALID_PARAMS, JsonObject, Request, RpcFault

if TYPE_CHECKING:
    from collections.abc import Sequence

MODERN: Final = "2026-07-28"
LEGACY: Final = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
ASSUMED: Final = "2025-03-26"
"""What a request without a version is of."""
HEADER_MISMATCH: Final = -32020
VERSION_UNSUPPORTED: Final = -32022

VERSION_HEADER: Final = b"mcp-protocol-version"
SESSION_HEADER: Final = b"mcp-session-id"
METHOD_HEADER: Final = b"mcp-method"
NAME_HEADER: Final = b"mcp-name"
META: Final = "io.modelcontextprotocol/"
CALLER: Final = "convene/agentAddress"
"""In `_meta`: address of the agent that asks."""
SERVER: Final[dict[str, str]] = {"name": "convene", "title": "Convene", "version": convene.__version__}
INSTRUCTIONS: Final = (
    "ask has a model answer, which may search the web and ask other agents. search_agents finds agents in the "
    "marketplace, call_agent asks one of them. Give the same `conversation` to go on with an earlier one."
)
_SENTINEL: Final = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL).fullmatch


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every tool that asks takes."""

    conversation: str = ""


class AskArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `ask`."""

    prompt: str
    model: str = ""


class SearchArguments(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `search_agents`."""

    query: str
    limit: int = 5


class CallArguments(Arguments, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of `call_agent`."""

    agent: str
    message: str


CONVERSATION: Final[JsonObject] = {
    "type": "string",
    "maxLength": 256,
    "description": "A name of yours for the conversation; what was said in it before is remembered",
}
ASK: Final[JsonObject] = {
    "name": "ask",
    "title": "Ask a model",
    "description": "Have a model answer a prompt. It may use tools, search the web and ask other agents on the way.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "minLength": 1, "description": "What to ask"},
            "model": {"type": "string", "description": "Which model answers; left out, the server's own choice"},
            "conversation": CONVERSATION,
        },
        "required": ["prompt"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": False, "openWorldHint": True, "destructiveHint": False, "idempotentHint": False},
}
SEARCH: Final[JsonObject] = {
    "name": "search_agents",
    "title": "Find agents",
    "description": "Find agents in the marketplace by what they can do.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": 2000,
                "description": "What it is to be able to do",
            },
            "limit": {"type": "integer", "minimum": 1, "maximum": 20, "description": "At most so many; 5 by default"},
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": True, "openWorldHint": True},
}
CALL: Final[JsonObject] = {
    "name": "call_agent",
    "title": "Ask an agent",
    "description": "Send a message to an agent and return its answer word for word.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "agent": {
                "type": "string",
                "minLength": 1,
                "maxLength": 2000,
                "description": "Its address (agent1q...), @handle or URL, as search_agents gives it",
            },
            "message": {"type": "string", "minLength": 1, "description": "What to tell it"},
            "conversation": CONVERSATION,
        },
        "required": ["agent", "message"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": False, "openWorldHint": True, "destructiveHint": True, "idempotentHint": False},
}


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What of `_meta` counts here."""

    progress_token: str | int | None = None
    hops: tuple[str, ...] = ()
    caller: str = ""


def meta_of(params: JsonObject) -> Meta:
    """Return what `_meta` says, leniently: nothing in it makes a request invalid."""
    given = params.get("_meta")
    if not isinstance(given, dict):
        return Meta()
    token, caller = given.get("progressToken"), given.get(CALLER)
    return Meta(
        progress_token=token if isinstance(token, str | int) and not isinstance(token, bool) else None,
        hops=read_hops(given.get(KEY)),
        caller=caller[:200] if isinstance(caller, str) else "",
    )


def version_of(asked: Request, headers: dict[bytes, bytes]) -> str:
    """Return the revision that a request is of.

    Raises `RpcFault` for one that is not spoken here, and where header and body of the newest disagree.
    """
    stated = headers.get(VERSION_HEADER)
    header = None if stated is None else stated.decode("latin-1")
    given = asked.params.get("_meta")
    within = given.get(f"{META}protocolVersion") if isinstance(given, dict) else None
    if asked.method == "initialize":
        return LEGACY[0]
    if within is None and header != MODERN:
        if header is None or header in LEGACY:
            return header or ASSUMED
        raise _unsupported(asked, header)
    if header is None or header != within:
        words = "The header mcp-protocol-version and the protocol version in _meta must be the same."
        raise RpcFault(HEADER_MISMATCH, words, request_id=asked.id, status=400)
    if within != MODERN:
        raise _unsupported(asked, header)
    if not isinstance(given, dict) or f"{META}clientCapabilities" not in given:
        words = f"params._meta must have {META}protocolVersion and {META}clientCapabilities."
        raise RpcFault(INVALID_PARAMS, words, request_id=asked.id, status=400)
    _check_headers(asked, headers)
    return MODERN


def _check_headers(asked: Request, headers: dict[bytes, bytes]) -> None:
    """Raise `RpcFault` unless the headers of a modern request repeat what its body says."""
    if headers.get(METHOD_HEADER, b"").decode("latin-1") != asked.method:
        words = "The header mcp-method must repeat the method of the body."
        raise RpcFault(HEADER_MISMATCH, words, request_id=asked.id, status=400)
    name = asked.params.get("name") if asked.method == "tools/call" else None
    if isinstance(name, str) and decoded(headers.get(NAME_HEADER)) != name:
        words = "The header mcp-name must repeat the name of the tool."
        raise RpcFault(HEADER_MISMATCH, words, request_id=asked.id, status=400)


def decoded(value: bytes | None) -> str | None:
    """Return what a header repeats: as it stands, or out of base64 between marks; None for what cannot be read."""
    if value is None:
        return None
    text = value.decode("latin-1")
    marked = _SENTINEL(text)
    if marked is None:
        return text
    try:
        return base64.b64decode(marked[1], validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def negotiated(params: JsonObject) -> JsonObject:
    """Return the result of `initialize`: the version that was asked for if it is one of ours, else our newest."""
    wanted = params.get("protocolVersion")
    return {
        "protocolVersion": wanted if wanted in LEGACY else LEGACY[0],
        "capabilities": {"tools": {"listChanged": False}},
        "serverInfo": SERVER,
        "instructions": INSTRUCTIONS,
    }


def discovered() -> JsonObject:
    """Return the result of `server/discover`."""
    return {
        "supportedVersions": [MODERN],
        "capabilities": {"tools": {}},
        "instructions": INSTRUCTIONS,
        "ttlMs": 0,
        "cacheScope": "private",
    }


def listed(tools: Sequence[JsonObject], version: str) -> JsonObject:
    """Return the result of `tools/list`."""
    found: JsonObject = {"tools": list(tools)}
    return found | {"ttlMs": 0, "cacheScope": "private"} if version == MODERN else found


def told(text: str, structured: JsonObject | None = None, *, failed: bool = False) -> JsonObject:
    """Return the result of a call."""
    found: JsonObject = {"content": [{"type": "text", "text": text}], "isError": failed}
    return found if structured is None else found | {"structuredContent": structured}


def completed(result: JsonObject, version: str) -> JsonObject:
    """Return a result as its revision wants it."""
    if version != MODERN:
        return result
    return result | {"resultType": "complete", "_meta": {f"{META}serverInfo": SERVER}}


def _unsupported(asked: Request, version: str) -> RpcFault:
    data = {"supported": [MODERN, *LEGACY], "requested": version[:100]}
    return RpcFault(VERSION_UNSUPPORTED, "Unsupported protocol version.", data, request_id=asked.id, status=400)

"""Messages of the MCPProtocol 0.1.0, by which agents of `uagents` lend the tools of an MCP server (ACP-14). Pure.

    write_list, write_call ──► Draft          read(schema digest, JSON) ──► ToolsListed | ToolGave | None

Digests are those of the classes of `uagents-adapter` 0.6.2, titles and docstrings included; tests compare them with the
library's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from convene.agents.envelope import Draft
from convene.agents.mcp_choice import OfferedTool

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOL_PROTOCOL: Final = "proto:bc7aed33dbd44a2a415c513666b6f2504ba7ab63ba326dbe63efd86921c629dc"
LIST_TOOLS: Final = "model:ebcd0ac6720c049515a2b5da6f744f0cd9ac9070766d6dde8e0b9d70621affa9"
LIST_TOOLS_RESPONSE: Final = "model:12f5cb14c6477a0601e40da853236eb24772025e2d9fbb0366e2851fe96e81f8"
CALL_TOOL: Final = "model:4bcd4178c45f68f7ce820d330063d70a4cc9a7e50f499b846748a9bb4404719d"
CALL_TOOL_RESPONSE: Final = "model:6a1ab91005d96333668d0e7b479ef07700b7deb4356d68717085cf817043ee0b"
TOOLS_MAX: Final = 200
"""Of one agent; more are left out."""


class ToolsListed(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of an agent, or why they cannot be told."""

    tools: tuple[OfferedTool, ...] = ()
    error: str = ""


class ToolGave(msgspec.Struct, frozen=True, kw_only=True):
    """What a call gave."""

    result: str = ""
    error: str = ""


class _WireTool(msgspec.Struct, rename={"schema": "inputSchema"}):
    name: str
    description: str | None = None
    schema: dict[str, Any] | None = None


class _WireTools(msgspec.Struct):
    tools: list[msgspec.Raw] | None = None
    error: str | None = None


class _WireResult(msgspec.Struct):
    result: str | None = None
    error: str | None = None


_encode = msgspec.json.Encoder().encode
_tools = msgspec.json.Decoder(_WireTools).decode
_tool = msgspec.json.Decoder(_WireTool).decode
_result = msgspec.json.Decoder(_WireResult).decode


def lends_tools(protocols: tuple[str, ...]) -> bool:
    """Whether an agent of these protocols has tools that can be called."""
    return any(digest.removeprefix("proto:") == TOOL_PROTOCOL.removeprefix("proto:") for digest in protocols)


def write_list() -> Draft:
    """Return the question which tools there are."""
    return Draft(schema_digest=LIST_TOOLS, protocol_digest=TOOL_PROTOCOL, body=b"{}")


def write_call(tool: str, arguments: Mapping[str, object]) -> Draft:
    """Return a call. `arguments` are JSON values."""
    body = _encode({"tool": tool, "args": dict(arguments)})
    return Draft(schema_digest=CALL_TOOL, protocol_digest=TOOL_PROTOCOL, body=body)


def read(schema_digest: str, body: bytes) -> ToolsListed | ToolGave | None:
    """Read an answer; None: the message is of another protocol. Raises `msgspec.MsgspecError` and its kin."""
    if schema_digest == LIST_TOOLS_RESPONSE:
        listed = _tools(body)
        found = [_offered(raw) for raw in (listed.tools or ())[:TOOLS_MAX]]
        return ToolsListed(tools=tuple(one for one in found if one is not None), error=listed.error or "")
    if schema_digest == CALL_TOOL_RESPONSE:
        gave = _result(body)
        return ToolGave(result=gave.result or "", error=gave.error or "")
    return None


def _offered(raw: msgspec.Raw) -> OfferedTool | None:
    """Return one tool; None for what is none: a list with one bad entry is still a list.

    A call is known by its session, so it is made once however often it is asked for (`acp_tools.py`).
    """
    try:
        tool = _tool(raw)
    except msgspec.MsgspecError:
        return None
    return OfferedTool(name=tool.name, description=tool.description or "", schema=tool.schema or {}, repeatable=True)

"""JSON-RPC 2.0 as A2A and MCP speak it over HTTP: one request in, one answer or a stream of messages out. Pure.

    body ──► read_request ──► Request | Notification        RpcFault: what is wrong, with the code that says so
    reply(id, result), failure(fault, id), note(method, params) ──► bytes;  frame(bytes) ──► one server-sent event

What the methods mean is `mcp.py`'s and `a2a.py`'s. A caller's id is given back as it came and never logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from convene.api.sse import encode_line

if TYPE_CHECKING:
    from collections.abc import Mapping

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
ID_MAX: Final = 1_000
"""Characters of a text id."""
METHOD_MAX: Final = 200
ONE: Final = "The body must be a single JSON-RPC request or notification."

RpcId = str | int | float | None
JsonObject = dict[str, object]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request, which is owed an answer."""

    id: RpcId
    method: str
    params: JsonObject


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """A notification, or an answer to something, which are owed none."""

    method: str = ""
    params: JsonObject = {}


class RpcFault(Exception):
    """A request cannot be answered; the text is for the caller."""

    def __init__(
        self, code: int, message: str, data: object = None, *, request_id: RpcId = None, status: int = 200
    ) -> None:
        """`status` is that of HTTP where no stream has begun."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data
        self.request_id = request_id
        self.status = status


_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def read_request(body: bytes) -> Request | Notification:
    """Read a body. Raises `RpcFault`, whatever the bytes are."""
    try:
        value = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise RpcFault(PARSE_ERROR, "The body is not JSON.", status=400) from None
    if not isinstance(value, dict):
        raise RpcFault(INVALID_REQUEST, ONE, status=400)
    request_id = value.get("id")
    if not _is_id(request_id):
        raise RpcFault(INVALID_REQUEST, "'id' must be a text or a number.", status=400)
    method, params = value.get("method"), value.get("params", {})
    if method is None and ("result" in value or "error" in value):
        return Notification()
    if value.get("jsonrpc") != "2.0" or not isinstance(method, str) or not 0 < len(method) <= METHOD_MAX:
        raise RpcFault(INVALID_REQUEST, ONE, request_id=request_id, status=400)
    if params is None:
        params = {}
    if not isinstance(params, dict):
        raise RpcFault(INVALID_PARAMS, "'params' must be an object.", request_id=request_id, status=400)
    if "id" not in value:
        return Notification(method=method, params=params)
    return Request(id=request_id, method=method, params=params)


def reply(request_id: RpcId, result: object) -> bytes:
    """Return an answer."""
    return encode_line({"jsonrpc": "2.0", "id": request_id, "result": result})


def failure(fault: RpcFault, request_id: RpcId = None) -> bytes:
    """Return an error as the answer to a request."""
    error: JsonObject = {"code": fault.code, "message": fault.message}
    if fault.data is not None:
        error["data"] = fault.data
    return encode_line(
        {"jsonrpc": "2.0", "id": request_id if fault.request_id is None else fault.request_id, "error": error}
    )


def note(method: str, params: Mapping[str, object]) -> bytes:
    """Return a notification."""
    return encode_line({"jsonrpc": "2.0", "method": method, "params": params})


def frame(message: bytes) -> bytes:
    """Return a message as one server-sent event."""
    return b"event: message\ndata: " + message + b"\n\n"


def _is_id(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, str | int | float) and not isinstance(value, bool) and len(str(value)) <= ID_MAX

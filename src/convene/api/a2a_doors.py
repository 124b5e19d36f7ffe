"""The two bindings of A2A as answers are written in them: JSON-RPC, and plain HTTP with JSON. Pure.

    JSON-RPC    {"jsonrpc": "2.0", "id": ..., "result": ...}    errors are answers, under 200
    HTTP+JSON   the result itself                                errors have a status, and {"error": {...}}

`a2a.py` answers through either; `a2a_http.py` makes requests of paths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from convene.api import a2a_wire as codec
from convene.api.json_rpc import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    JsonObject,
    Request,
    RpcFault,
    failure,
    reply,
)
from convene.api.sse import encode_line
from convene.errors import BadRequest, ClientFault, ConveneError, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSED: Final = -32000
"""Of the codes that JSON-RPC leaves to servers: a limit, or a fault of ours; `data` says which."""
JSON_TYPE: Final = b"application/a2a+json"
NO_RUN: Final = "run_not_found"
DOMAIN: Final = "a2a-protocol.org"
DETAIL: Final = "type.googleapis.com/google.rpc.ErrorInfo"


class HttpError(NamedTuple):
    """What an error of the protocol is over plain HTTP."""

    status: int
    name: str
    """Of google.rpc.Code."""
    reason: str


HTTP_ERRORS: Final[Mapping[int, HttpError]] = {
    codec.TASK_NOT_FOUND: HttpError(404, "NOT_FOUND", "TASK_NOT_FOUND"),
    codec.NOT_CANCELABLE: HttpError(400, "FAILED_PRECONDITION", "TASK_NOT_CANCELABLE"),
    codec.PUSH_UNSUPPORTED: HttpError(400, "FAILED_PRECONDITION", "PUSH_NOTIFICATION_NOT_SUPPORTED"),
    codec.UNSUPPORTED: HttpError(400, "FAILED_PRECONDITION", "UNSUPPORTED_OPERATION"),
    codec.CONTENT_UNSUPPORTED: HttpError(400, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED"),
    codec.NO_EXTENDED_CARD: HttpError(400, "FAILED_PRECONDITION", "EXTENDED_AGENT_CARD_NOT_CONFIGURED"),
    codec.VERSION_UNSUPPORTED: HttpError(400, "FAILED_PRECONDITION", "VERSION_NOT_SUPPORTED"),
    INVALID_PARAMS: HttpError(400, "INVALID_ARGUMENT", "INVALID_PARAMS"),
    INVALID_REQUEST: HttpError(400, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    PARSE_ERROR: HttpError(400, "INVALID_ARGUMENT", "INVALID_REQUEST"),
    METHOD_NOT_FOUND: HttpError(404, "NOT_FOUND", "METHOD_NOT_FOUND"),
}
"""As the specification maps them (A2A 1.0, section 5.4)."""
OTHERWISE: Final = HttpError(500, "INTERNAL", "INTERNAL_ERROR")


class Door(Protocol):
    """How answers to one request are written."""

    @property
    def media_type(self) -> bytes:
        """Of answers that are no streams."""
        ...

    def answer(self, result: JsonObject) -> bytes:
        """Return the body of an answer."""
        ...

    def frame(self, result: JsonObject) -> bytes:
        """Return one event of a stream."""
        ...

    def fault(self, fault: RpcFault) -> tuple[int, bytes]:
        """Return the status and the body of an error."""
        ...

    def fault_frame(self, fault: RpcFault) -> bytes:
        """Return the event in which a stream ends that cannot go on."""
        ...

    def refusal(self, fault: ConveneError) -> RpcFault | None:
        """Return a fault of ours as an error of the protocol; None: it is said as everywhere in this API."""
        ...


class RpcDoor:
    """JSON-RPC."""

    media_type = b"application/json"

    def __init__(self, asked: Request) -> None:
        self._id = asked.id

    def answer(self, result: JsonObject) -> bytes:
        """See `Door.answer`."""
        return reply(self._id, result)

    def frame(self, result: JsonObject) -> bytes:
        """See `Door.frame`."""
        return b"data: " + reply(self._id, result) + b"\n\n"

    def fault(self, fault: RpcFault) -> tuple[int, bytes]:
        """See `Door.fault`: clients read errors under 200 alone."""
        return 200, failure(fault, self._id)

    def fault_frame(self, fault: RpcFault) -> bytes:
        """See `Door.fault_frame`."""
        return b"data: " + failure(fault, self._id) + b"\n\n"

    def refusal(self, fault: ConveneError) -> RpcFault | None:
        """See `Door.refusal`: clients read nothing but errors of JSON-RPC."""
        return refusal_of(fault)


class HttpDoor:
    """Plain HTTP with JSON."""

    media_type = JSON_TYPE

    def answer(self, result: JsonObject) -> bytes:
        """See `Door.answer`."""
        return encode_line(result)

    def frame(self, result: JsonObject) -> bytes:
        """See `Door.frame`."""
        return b"data: " + encode_line(result) + b"\n\n"

    def fault(self, fault: RpcFault) -> tuple[int, bytes]:
        """See `Door.fault`."""
        known = HTTP_ERRORS.get(fault.code, OTHERWISE)
        about = {name: str(value) for name, value in fault.data.items()} if isinstance(fault.data, dict) else {}
        detail = {"@type": DETAIL, "reason": known.reason, "domain": DOMAIN, "metadata": about}
        error = {"code": known.status, "status": known.name, "message": fault.message, "details": [detail]}
        return known.status, encode_line({"error": error})

    def fault_frame(self, fault: RpcFault) -> bytes:
        """See `Door.fault_frame`."""
        return b"event: error\ndata: " + self.fault(fault)[1] + b"\n\n"

    def refusal(self, fault: ConveneError) -> RpcFault | None:
        """See `Door.refusal`: limits and faults of ours have statuses and headers of their own."""
        is_of_it = isinstance(fault, BadRequest) or (isinstance(fault, NotFound) and fault.code == NO_RUN)
        return refusal_of(fault) if is_of_it else None


def refusal_of(fault: ConveneError) -> RpcFault:
    """Return a fault of ours as an error of the protocol."""
    data: JsonObject = {"code": fault.code}
    if fault.retry_after_s is not None:
        data["retryAfterSeconds"] = round(fault.retry_after_s, 3)
    if isinstance(fault, NotFound) and fault.code == NO_RUN:
        return RpcFault(codec.TASK_NOT_FOUND, "You have no task with this id.")
    code = INVALID_PARAMS if isinstance(fault, ClientFault) else REFUSED
    code = INTERNAL_ERROR if type(fault) is ConveneError else code
    return RpcFault(code, fault.message, data)

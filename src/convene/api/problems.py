"""Errors as HTTP: each class of `convene.errors` to its status, type, headers and the one body shape.

The body is OpenAI's error object with all four keys and the message again at the top (ERRSHAPE-01, ERR-08). Statuses
follow what SDKs repeat and what they do not (OSDK-01 to OSDK-05): bad input is 400, lasting faults are never 409 or
5xx. Nothing else in the house knows a status code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from convene import errors
from convene.api.shapes import ErrorDetail, ErrorReply

if TYPE_CHECKING:
    from typing import Literal

    ErrorType = Literal[
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "rate_limit_error",
        "insufficient_quota",
        "server_error",
    ]

Header = tuple[bytes, bytes]


class MethodNotAllowed(errors.ClientFault):
    """The path exists, the method does not; `allow` lists those that do."""

    code = "method_not_allowed"

    def __init__(self, method: str, path: str, allow: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed on {path}. Allowed: {', '.join(allow)}.")
        self.allow = allow


class UnsupportedMedia(errors.ClientFault):
    """A body in a form this server does not read."""

    code = "unsupported_media_type"


STATUSES: tuple[tuple[type[errors.ConveneError], int, ErrorType], ...] = (
    (MethodNotAllowed, 405, "invalid_request_error"),
    (UnsupportedMedia, 415, "invalid_request_error"),
    (errors.Unauthorized, 401, "authentication_error"),
    (errors.Forbidden, 403, "permission_error"),
    (errors.NotFound, 404, "not_found_error"),
    (errors.Conflict, 409, "invalid_request_error"),
    (errors.TooLarge, 413, "invalid_request_error"),
    (errors.ClientFault, 400, "invalid_request_error"),
    (errors.OverBudget, 429, "insufficient_quota"),
    (errors.RateLimited, 429, "rate_limit_error"),
    (errors.Refused, 503, "server_error"),
    (errors.TimedOut, 504, "server_error"),
    (errors.Unavailable, 503, "server_error"),
    (errors.StoreFault, 503, "server_error"),
    (errors.UpstreamFault, 502, "server_error"),
    (errors.ConveneError, 500, "server_error"),
)
"""Read from the top: the first row whose class fits decides."""

_encode = msgspec.json.Encoder().encode


def status_of(error: errors.ConveneError) -> int:
    """Return the status of an error's answer."""
    return next(status for kind, status, _ in STATUSES if isinstance(error, kind))


def detail_of(error: errors.ConveneError) -> ErrorDetail:
    """Return the error object that clients read."""
    error_type = next(error_type for kind, _, error_type in STATUSES if isinstance(error, kind))
    return ErrorDetail(message=error.message, type=error_type, param=error.param, code=error.code)


def body_of(error: errors.ConveneError) -> bytes:
    """Return the whole JSON body of an error's answer."""
    detail = detail_of(error)
    return _encode(ErrorReply(error=detail, message=detail.message))


def headers_of(error: errors.ConveneError) -> list[Header]:
    """Return the headers that go with an error: when to come back, whether to, what is allowed."""
    headers: list[Header] = []
    if error.retry_after_s is not None:
        wait_us = max(0, round(error.retry_after_s * 1_000_000))  # whole, so that no float rounds a wait up or down
        headers.append((b"retry-after", b"%d" % -(-wait_us // 1_000_000)))
        headers.append((b"retry-after-ms", b"%d" % -(-wait_us // 1_000)))
    if isinstance(error, errors.OverBudget):
        headers.append((b"x-should-retry", b"false"))
    if isinstance(error, errors.Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", ", ".join(error.allow).encode()))
    return headers


def internal(request_id: str) -> errors.ConveneError:
    """Return the error that clients see for a fault of our own: nothing of its text, only where to look."""
    return errors.ConveneError(f"Internal error. The server's log has it under request id {request_id}.")

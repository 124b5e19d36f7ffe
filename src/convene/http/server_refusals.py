"""What the server answers by itself, before or instead of the application: which status, code and words, and as bytes.

Pure. Callers: `server_protocol.py`, which judges requests, and `server_exchange.py`, whose application may fail.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec

from convene.http.server_wire import encode_fields, status_line


class Refusal(NamedTuple):
    """An answer that the server gives by itself, before or instead of the application's."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


DRAINING: Final = Refusal(
    503, "server_shutting_down", "The server is shutting down. Try again shortly.", ((b"retry-after", b"1"),)
)
FAILED: Final = Refusal(500, "internal_error", "The server had an error while answering. Try again.")


def bad_request(message: str) -> Refusal:
    """Return a 400, with what is wrong."""
    return Refusal(400, "bad_request", message)


def too_many_headers(limit: int) -> Refusal:
    """Return a 431 for their number."""
    return Refusal(431, "headers_too_many", f"The request has more than {limit} header fields.")


def head_too_large(limit: int) -> Refusal:
    """Return a 431 for their size, in bytes."""
    return Refusal(431, "headers_too_large", f"The request head is larger than {limit} bytes.")


def body_too_large(limit: int) -> Refusal:
    """Return a 413; the limit is in bytes."""
    return Refusal(413, "body_too_large", f"The request body is larger than {limit} bytes.")


def timed_out(message: str) -> Refusal:
    """Return a 408, with what took too long."""
    return Refusal(408, "request_timeout", message)


def encode_refusal_body(status: int, code: str, message: str) -> bytes:
    """Return the house's error object as JSON (ERRSHAPE-01; the top-level `message` is ASI:One's, ERR-08)."""
    kind = "rate_limit_error" if status == HTTPStatus.TOO_MANY_REQUESTS else "invalid_request_error"
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code}
    return msgspec.json.encode({"error": error, "message": message})


def encode_refusal(refusal: Refusal, body: bytes, request_id: bytes, date_line: bytes, *, with_body: bool) -> bytes:
    """Return a whole refusal: head and JSON body, `x-request-id` (OSDK-07) and `connection: close`."""
    headers = ((b"content-type", b"application/json"), (b"x-request-id", request_id), *refusal.headers)
    block = encode_fields(headers)[0]
    framing = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    head = status_line(refusal.status) + date_line + block + framing
    return head + body if with_body else head

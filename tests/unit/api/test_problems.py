"""Each error to its status, type, body and headers."""

from __future__ import annotations

import msgspec
import pytest

from convene import errors
from convene.api.problems import MethodNotAllowed, UnsupportedMedia, body_of, detail_of, headers_of, internal, status_of

TABLE: list[tuple[errors.ConveneError, int, str, str]] = [
    (errors.BadRequest("m"), 400, "invalid_request_error", "invalid_value"),
    (errors.BadRequest("m", code="context_length_exceeded"), 400, "invalid_request_error", "context_length_exceeded"),
    (errors.Unauthorized("m"), 401, "authentication_error", "invalid_api_key"),
    (errors.Forbidden("m"), 403, "permission_error", "permission_denied"),
    (errors.NotFound("m"), 404, "not_found_error", "not_found"),
    (MethodNotAllowed("PUT", "/x", ("GET", "HEAD")), 405, "invalid_request_error", "method_not_allowed"),
    (errors.Conflict("m"), 409, "invalid_request_error", "conflict"),
    (errors.TooLarge("m"), 413, "invalid_request_error", "request_too_large"),
    (UnsupportedMedia("m"), 415, "invalid_request_error", "unsupported_media_type"),
    (errors.RateLimited("m"), 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.OverBudget("m"), 429, "insufficient_quota", "insufficient_quota"),
    (errors.Busy("m"), 503, "server_error", "server_busy"),
    (errors.UpstreamFault("m"), 502, "server_error", "upstream_error"),
    (errors.Unavailable("m"), 503, "server_error", "model_unavailable"),
    (errors.TimedOut("m"), 504, "server_error", "upstream_timeout"),
    (errors.Rejected("m"), 502, "server_error", "upstream_rejected"),
    (errors.ConveneError("m"), 500, "server_error", "internal_error"),
]


@pytest.mark.req("ERRSHAPE-01", "ERRSHAPE-04", "ERRSHAPE-05", "ERR-07", "ERR-08", "DEC-10")
@pytest.mark.parametrize(("fault", "status", "kind", "code"), TABLE)
def test_an_error_has_its_status_and_one_body(fault: errors.ConveneError, status: int, kind: str, code: str) -> None:
    assert status_of(fault) == status
    assert msgspec.json.decode(body_of(fault)) == {
        "error": {"message": fault.message, "type": kind, "param": None, "code": code},
        "message": fault.message,
    }


@pytest.mark.req("ERR-09")
def test_the_detail_for_the_log_never_shows() -> None:
    fault = errors.Unavailable("The model is away.", param="model", detail="http://10.0.0.1: secret")
    assert b"10.0.0.1" not in body_of(fault)
    assert not any(b"10.0.0.1" in value for _, value in headers_of(fault))
    assert detail_of(fault).param == "model"


@pytest.mark.req("OSDK-05")
@pytest.mark.parametrize(
    ("wait_s", "seconds", "milliseconds"), [(0, 0, 0), (0.2, 1, 200), (1, 1, 1000), (59.5, 60, 59500), (-3, 0, 0)]
)
def test_both_waits_say_the_same(wait_s: float, seconds: int, milliseconds: int) -> None:
    headers = dict(headers_of(errors.RateLimited("m", retry_after_s=wait_s)))
    assert headers == {b"retry-after": b"%d" % seconds, b"retry-after-ms": b"%d" % milliseconds}
    assert milliseconds <= seconds * 1000


@pytest.mark.req("ERRSHAPE-02")
def test_each_header_stands_only_where_it_belongs() -> None:
    assert dict(headers_of(TABLE[5][0])) == {b"allow": b"GET, HEAD"}
    assert dict(headers_of(errors.Unauthorized("m"))) == {b"www-authenticate": b"Bearer"}
    assert dict(headers_of(errors.OverBudget("m"))) == {b"x-should-retry": b"false"}
    for fault, status, _, _ in TABLE:
        if status not in {401, 405} and not isinstance(fault, errors.OverBudget):
            assert headers_of(fault) == []


@pytest.mark.req("ERR-03")
def test_an_internal_error_says_where_to_look() -> None:
    assert "req_7" in internal("req_7").message
    assert status_of(internal("req_7")) == 500

"""What the server answers by itself, as bytes."""

from __future__ import annotations

import msgspec
import pytest

from convene.http.server_refusals import DRAINING, Refusal, encode_refusal, encode_refusal_body


@pytest.mark.req("ERRSHAPE-01", "ERRSHAPE-04")
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (431, "invalid_request_error"), (429, "rate_limit_error"), (503, "server_error")],
)
def test_a_refusal_body_is_the_house_error_object(status: int, kind: str) -> None:
    body = msgspec.json.decode(encode_refusal_body(status, "a_code", 'say "why"'))
    error = {"message": 'say "why"', "type": kind, "param": None, "code": "a_code"}
    assert body == {"error": error, "message": 'say "why"'}


@pytest.mark.req("OSDK-07")
def test_a_refusal_is_a_whole_answer_that_closes() -> None:
    sent = encode_refusal(DRAINING, b"{}", b"req_1", b"date: now\r\n", with_body=True)
    assert sent == (
        b"HTTP/1.1 503 Service Unavailable\r\ndate: now\r\ncontent-type: application/json\r\nx-request-id: req_1\r\n"
        b"retry-after: 1\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
    )


def test_a_refusal_of_a_head_request_has_no_body() -> None:
    sent = encode_refusal(Refusal(400, "c", "m"), b"{}", b"r", b"", with_body=False)
    assert sent.endswith(b"content-length: 2\r\nconnection: close\r\n\r\n")

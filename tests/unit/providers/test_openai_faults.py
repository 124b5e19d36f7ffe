"""What refusals and failures of a host mean: class, message, next try, and who is to blame; and that no key leaks."""

from __future__ import annotations

import pytest

from convene.errors import BadRequest, ConveneError, Malformed, RateLimited, Rejected, TimedOut, Unavailable
from convene.http import base as http
from convene.providers.openai_faults import (
    MESSAGE_CHARS_MAX,
    Blamed,
    Verdict,
    clean,
    judge_status,
    judge_transport,
    read_retry_after,
    read_words,
)

BLAMED = Blamed("up", "m", "http://gpu-1:8000/v1", "zq9-own-key")
NOW = 1_800_000_000.0


def judge(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> Verdict:
    return judge_status(status, headers or {}, body, BLAMED, NOW)


@pytest.mark.parametrize(
    ("status", "kind", "after", "blame"),
    [
        (400, BadRequest, "end", False),
        (413, BadRequest, "end", False),
        (422, BadRequest, "end", False),
        (401, Rejected, "end", False),
        (402, Rejected, "end", False),
        (403, Rejected, "end", False),
        (405, Rejected, "end", False),
        (404, Unavailable, "end", False),
        (408, RateLimited, "elsewhere", False),
        (429, RateLimited, "elsewhere", False),
        (500, Unavailable, "end", True),
        (501, Unavailable, "end", True),
        (502, Unavailable, "again", True),
        (503, Unavailable, "again", True),
        (504, Unavailable, "again", True),
        (529, Unavailable, "again", True),
        (302, Malformed, "end", True),
    ],
)
def test_every_status_has_its_meaning(status: int, kind: type[ConveneError], after: str, blame: bool) -> None:  # noqa: FBT001 - a column
    verdict = judge(status, b'{"error":{"message":"words of the host"}}')
    assert type(verdict.fault) is kind
    assert (verdict.next, verdict.blame) == (after, blame)
    assert "gpu-1" not in verdict.fault.message
    assert f"status {status}" in verdict.fault.detail
    assert "http://gpu-1:8000/v1" in verdict.fault.detail
    assert "words of the host" in verdict.fault.detail
    assert ("words of the host" in verdict.fault.message) == (kind is BadRequest)


def test_a_bad_request_keeps_the_hosts_message_param_and_known_code() -> None:
    fault = judge(400, b'{"error":{"message":"Too high.","param":"top_p","code":"unsupported_value"}}').fault
    assert (fault.message, fault.param, fault.code) == ("Too high.", "top_p", "unsupported_value")


@pytest.mark.parametrize("code", ["400", "made_up", "null"])
def test_other_codes_are_not_handed_on(code: str) -> None:
    fault = judge(400, b'{"error":{"message":"No.","code":"' + code.encode() + b'"}}').fault
    assert fault.code == BadRequest.code


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"x","code":"context_length_exceeded"}}',
        b'{"error":{"message":"x","code":400,"type":"exceed_context_size_error"}}',
        b'{"message":"This model\'s maximum context length is 4096 tokens.","code":400}',
    ],
)
def test_a_prompt_that_is_too_long_has_openais_code(body: bytes) -> None:
    assert judge(400, body).fault.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"A"}}', "A"),
        (b'{"error":"A"}', "A"),
        (b'{"message":"A"}', "A"),
        (b'{"detail":"A"}', "A"),
        (b'{"detail":[{"loc":["body"],"msg":"A"}]}', "A"),
        (b'[{"error":{"message":"A"}}]', "A"),
        (b'"A"', "A"),
        (b"<html>", ""),
        (b"", ""),
        (b"[]", ""),
        (b'{"error":{"message":7}}', ""),
        (b"[" * 100_000, ""),
    ],
)
def test_error_bodies_are_read_in_all_their_forms(body: bytes, message: str) -> None:
    assert read_words(body).message == message


def test_a_bad_request_without_words_has_a_sentence_of_ours() -> None:
    assert judge(400, b"<html>proxy</html>").fault.message == "The model's host refused it."
    assert "large" in judge(413).fault.message


def test_a_spent_quota_is_not_a_rate_limit() -> None:
    verdict = judge(429, b'{"error":{"message":"x","code":"insufficient_quota"}}')
    assert isinstance(verdict.fault, Rejected)
    assert verdict.next == "elsewhere"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0),
        ({"retry-after": "Fri, 15 Jan 2027 07:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "1e12"}, 86_400.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_milliseconds_seconds_or_a_date(headers: dict[str, str], wait_s: float | None) -> None:
    assert read_retry_after(headers, NOW) == wait_s
    assert judge(429, headers=headers).fault.retry_after_s == wait_s


@pytest.mark.parametrize(
    "secret",
    [
        "sk-abcdefgh12345678",
        "sk-proj-abc***********xyz",
        "Bearer abcdefghijkl",
        "Basic dXNlcjpwYXNzd29yZA==",
        "gsk_abcdef123456",
        "hf_abcdefghij",
        "AIzaSyA1234567890abc",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.sig",
        "token_1234567890ab",
        "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6",
        "zq9-own-key",
    ],
)
def test_nothing_that_looks_like_a_key_is_repeated(secret: str) -> None:
    fault = judge(400, b'{"error":{"message":"Incorrect: ' + secret.encode() + b' (see docs)"}}').fault
    for text in (fault.message, fault.detail):
        assert secret not in text
        assert secret[-6:] not in text
        assert "(see docs)" in text


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens is too large: 999999 > 4096",
        "token_limit_exceeded",
        "Invalid schema for function 'get_weather': basic structure expected",
        "model meta-llama/Llama-3.1-8B-Instruct does not exist",
    ],
)
def test_ordinary_words_are_left_alone(text: str) -> None:
    assert clean(text) == text


def test_a_url_loses_its_password() -> None:
    assert clean("at http://me:pw@host/v1") == "at http://[removed]host/v1"
    blamed = Blamed("up", "m", "http://me:pw@host/v1")
    assert "pw" not in judge_status(500, {}, b"", blamed, NOW).fault.detail


def test_long_messages_are_cut_and_kept_on_one_line() -> None:
    text = clean("a\r\nb\u2028c " + "word " * 10_000)
    assert text.startswith("a b c word")
    assert len(text) == MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    ("error", "kind", "after", "blame"),
    [
        (http.ConnectFailed("no route"), Unavailable, "again", True),
        (http.PoolTimedOut("full"), Unavailable, "end", False),
        (http.TimedOut("first_byte", 1), TimedOut, "end", True),
        (http.TimedOut("between_bytes", 1), TimedOut, "end", True),
        (http.TimedOut("total", 1), TimedOut, "end", False),
        (http.Disconnected(received=False), Unavailable, "again", True),
        (http.Disconnected(received=True), Malformed, "end", True),
        (http.ProtocolBroken("bad chunk"), Malformed, "end", True),
    ],
)
def test_every_failure_of_the_connection_has_its_meaning(
    error: http.HttpError,
    kind: type[ConveneError],
    after: str,
    blame: bool,  # noqa: FBT001 - a column
) -> None:
    verdict = judge_transport(error, BLAMED, begun=False)
    assert type(verdict.fault) is kind
    assert (verdict.next, verdict.blame) == (after, blame)
    assert str(error) not in verdict.fault.message
    assert str(error) in verdict.fault.detail


def test_a_close_after_events_is_a_broken_answer() -> None:
    verdict = judge_transport(http.Disconnected(received=False), BLAMED, begun=True)
    assert isinstance(verdict.fault, Malformed)
    assert verdict.next == "end"

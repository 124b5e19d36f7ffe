"""Request heads: their form, and that nothing can be smuggled into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.http.client_head import encode_head


def test_a_head_has_the_request_line_the_host_and_the_fields_as_given() -> None:
    head = encode_head(
        "POST", "/v1/x?y=1", "host:8", (("Content-Type", "a/b"), ("x-tab", "a\tb")), (("connection", "close"),)
    )
    assert head == (
        b"POST /v1/x?y=1 HTTP/1.1\r\nhost: host:8\r\nContent-Type: a/b\r\nx-tab: a\tb\r\n"
        b"accept-encoding: identity\r\nconnection: close\r\n"
    )


def test_the_caller_may_ask_for_a_coding() -> None:
    head = encode_head("GET", "/", "h", (("Accept-Encoding", "gzip"),))
    assert head.lower().count(b"accept-encoding") == 1


@pytest.mark.parametrize("bad", ["a\rb", "a\nb", "a\r\nx: y", "a\0b", "a\x7fb", "a\x1bb", "\u010d", "\u560a", "\ud800"])
def test_a_value_with_a_control_character_or_beyond_latin_1_is_refused_and_not_repeated(bad: str) -> None:
    with pytest.raises(ValueError, match="x-secret") as caught:
        encode_head("GET", "/", "h", (("X-Secret", "sk-123" + bad),))
    assert "sk-123" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "a b", "a:", "a\r\nb", "a\0", "\u00e9", "(a)", "a\n"])
def test_a_name_that_is_not_a_token_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="name"):
        encode_head("GET", "/", "h", ((bad, "v"),))


@pytest.mark.parametrize("bad", ["", "/a b", "/a\r\nx", "/\u00e9", "/a\0", "/a\n"])
def test_a_target_with_a_space_or_a_control_character_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="target"):
        encode_head("GET", bad, "h", ())


@pytest.mark.parametrize("bad", ["", "GET /", "G\r\nET", "G\u00e9T"])
def test_a_method_that_is_not_a_token_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="method"):
        encode_head(bad, "/", "h", ())


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "connection", "Expect", "upgrade", "te", "Proxy-Authorization"],
)
def test_framing_is_the_client_s_alone(name: str) -> None:
    with pytest.raises(ValueError, match=name.lower()):
        encode_head("GET", "/", "h", ((name, "x"),))


def test_a_head_above_64_kib_is_refused() -> None:
    with pytest.raises(ValueError, match="larger"):
        encode_head("GET", "/", "h", (("a", "b" * 70_000),))


@given(name=st.text(max_size=8), value=st.text(max_size=12), method=st.text(max_size=6), target=st.text(max_size=8))
def test_whatever_is_accepted_is_exactly_one_line_for_each_field(
    name: str, value: str, method: str, target: str
) -> None:
    try:
        head = encode_head(method, target, "h", ((name, value),))
    except ValueError:
        return
    lines = head.split(b"\r\n")
    assert len(lines) - 1 == 3 + (name.lower() != "accept-encoding")
    assert lines[2] == f"{name}: {value}".encode("latin-1")
    assert head.count(b"\n") == head.count(b"\r") == len(lines) - 1

"""The pure byte functions of the server: status lines, header blocks, targets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.http.server_wire import (
    encode_fields,
    read_target,
    status_line,
)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK\r\n"),
        (431, b"HTTP/1.1 431 Request Header Fields Too Large\r\n"),
        (599, b"HTTP/1.1 599 \r\n"),
    ],
)
def test_a_status_line_has_its_phrase_or_none(status: int, line: bytes) -> None:
    assert status_line(status) == line


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600, 1000])
def test_a_status_that_is_not_final_is_refused(status: int) -> None:
    with pytest.raises(ValueError, match="status"):
        status_line(status)


def test_header_fields_are_encoded_in_order_with_lower_case_names() -> None:
    block, length, close, dated = encode_fields([(b"Content-Type", b"a/b"), (b"x-request-id", b"1"), (b"x-A", b"")])
    assert block == b"content-type: a/b\r\nx-request-id: 1\r\nx-a: \r\n"
    assert (length, close, dated) == (None, False, False)


def test_framing_headers_are_read_and_kept_out_of_the_block() -> None:
    fields = [
        (b"Content-Length", b"5"),
        (b"content-length", b"5"),
        (b"transfer-encoding", b"gzip"),
        (b"Connection", b" Close "),
        (b"keep-alive", b"timeout=5"),
    ]
    assert encode_fields(fields) == (b"", 5, True, False)


def test_an_own_date_stays_and_is_noted() -> None:
    assert encode_fields([(b"Date", b"today")]) == (b"date: today\r\n", None, False, True)


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1 ", b"0x1", b"1,1", b"one"])
def test_a_bad_content_length_of_the_application_is_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="content-length"):
        encode_fields([(b"content-length", value)])


def test_two_different_content_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="content-length"):
        encode_fields([(b"content-length", b"1"), (b"content-length", b"2")])


@pytest.mark.parametrize("bad", [b"\r", b"\n", b"\r\n", b"\0", b"x\r\nset-cookie: a=b"])
@pytest.mark.parametrize("name", [b"content-type", b"x-any"])
def test_a_value_that_would_split_the_answer_is_refused(name: bytes, bad: bytes) -> None:
    with pytest.raises(ValueError, match="CR, LF or NUL"):
        encode_fields([(name, b"a" + bad + b"b")])


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\nb", b"\xc3\xa9", b"a\0"])
def test_a_name_that_is_no_token_is_refused(name: bytes) -> None:
    with pytest.raises(ValueError, match="header name"):
        encode_fields([(name, b"v")])


@given(st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=5))
def test_whatever_headers_an_application_gives_the_block_has_one_line_each_or_is_refused(
    headers: list[tuple[bytes, bytes]],
) -> None:
    try:
        block = encode_fields(headers)[0]
    except ValueError:
        return
    lines = block.split(b"\r\n")
    assert lines.pop() == b""
    assert len(lines) <= len(headers)
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)


@pytest.mark.parametrize(
    ("target", "read"),
    [
        (b"/", ("/", b"/", b"")),
        (b"/a%20b?x=%20", ("/a b", b"/a%20b", b"x=%20")),
        (b"/%C3%A9%2F", ("/é/", b"/%C3%A9%2F", b"")),
        (b"/a%zz", ("/a%zz", b"/a%zz", b"")),
        (b"*", ("*", b"*", b"")),
        (b"http://h:80/p?q", ("/p", b"/p", b"q")),
        (b"HTTPS://h?q", ("/", b"/", b"q")),
        (b"http://h", ("/", b"/", b"")),
        (b"//host/p", ("//host/p", b"//host/p", b"")),
        (b"/a?b?c", ("/a", b"/a", b"b?c")),
    ],
)
def test_a_target_is_read_in_every_form_a_client_may_use(target: bytes, read: tuple[str, bytes, bytes]) -> None:
    assert read_target(target) == read


@pytest.mark.parametrize("target", [b"/a#b", b"/%00", b"/%ff", b"/%ed%a0%80", b"host:443", b"ftp://h/", b"", b"/\xff"])
def test_a_target_that_routers_and_stores_would_see_differently_is_refused(target: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - UnicodeDecodeError and ours alike
        read_target(target)


@given(st.binary(max_size=30))
def test_any_target_is_read_as_storable_text_or_refused(target: bytes) -> None:
    try:
        path, _, _ = read_target(target)
    except ValueError:
        return
    assert "\0" not in path
    path.encode("utf-8")

"""Heads by their form: which lengths a message may have, and what stands in the gaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.http.known import HEAD_BYTES_MAX, form_of

DATE = b"Thu, 26 Nov 2026 12:00:00 GMT"
LATER = b"Fri, 27 Nov 2026 12:00:00 GMT"


def message(body: bytes, *lines: bytes) -> bytes:
    """Return a message whose head has these lines, `%d` standing for the length of the body."""
    head = b"".join(line.replace(b"%d", b"%d" % len(body)) + b"\r\n" for line in (b"A / B", *lines))
    return head + b"\r\n" + body


LENGTH_ONLY = (b"Content-Length: %d",)
DATE_FIRST = (b"x: y", b"Date: " + DATE, b"content-length:%d", b"z: 1")
LENGTH_FIRST = (b"Content-Length: %d", b"q: 1", b"Date: " + DATE)


@given(st.sampled_from([LENGTH_ONLY, DATE_FIRST, LENGTH_FIRST]), st.integers(0, 2000), st.integers(0, 2000))
def test_a_form_finds_its_head_before_a_body_of_any_length(lines: tuple[bytes, ...], first: int, then: int) -> None:
    form = form_of(message(b"x" * first, *lines))
    assert form is not None
    for size in (then, first, then):
        data = message(b"y" * size, *lines)
        assert form.find(data) == data[: len(data) - size]


@given(st.sampled_from([LENGTH_ONLY, DATE_FIRST, LENGTH_FIRST]), st.integers(0, 1100), st.integers(1, 30))
def test_a_body_that_does_not_fill_its_length_is_found_by_no_form(
    lines: tuple[bytes, ...], size: int, more: int
) -> None:
    whole = message(b"x" * size, *lines)
    form = form_of(whole)
    assert form is not None
    assert form.find(whole + b"x" * more) is None
    assert size < more or form.find(whole[:-more]) is None
    assert form.find(whole) is not None


@pytest.mark.parametrize("lines", [DATE_FIRST, LENGTH_FIRST])
def test_another_date_is_taken_and_remembered_and_what_is_none_is_not(lines: tuple[bytes, ...]) -> None:
    form = form_of(message(b"x", *lines))
    assert form is not None
    assert (form.dated, form.date) == (True, DATE)
    later = message(b"x", *(line.replace(DATE, LATER) for line in lines))
    assert form.find(later) is not None
    assert form.date == LATER
    assert form.find(message(b"x", *(line.replace(DATE, b"x" * len(DATE)) for line in lines))) is None
    assert form.find(message(b"x", *lines)) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        message(b"x"),
        message(b"x", b"Content-Length: 2"),
        message(b"x", b"Content-Length: 01"),
        message(b"x", b"Content-Length: %d", b"Content-Length: %d"),
        message(b"x", b"Date: " + DATE),
        message(b"x", b"Content-Length: %d", b"Date: " + DATE, b"Date: " + DATE),
        message(b"x", b"Content-Length: %d", b"Long: " + b"x" * HEAD_BYTES_MAX),
        message(b"", b"Content-Length : %d"),
    ],
)
def test_what_cannot_be_known_again_has_no_form(data: bytes) -> None:
    assert form_of(data) is None


def test_more_lengths_than_are_kept_are_still_found() -> None:
    form = form_of(message(b"x", *LENGTH_ONLY))
    assert form is not None
    for size in [*range(100), *range(100)]:
        assert form.find(message(b"x" * size, *LENGTH_ONLY)) is not None
    assert len(form._written) < 10

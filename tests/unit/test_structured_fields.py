"""The tests' own reader of structured fields: it takes what the grammar takes, and only that."""

from __future__ import annotations

import pytest

from structured_fields import parse_list


def test_examples_of_the_draft_are_read() -> None:
    assert parse_list(b'"burst";q=100;w=60,"daily";q=1000;w=86400') == [
        ("burst", {"q": 100, "w": 60}),
        ("daily", {"q": 1000, "w": 86400}),
    ]
    assert parse_list(b'"peruser"; q=65535;qu="content-bytes";w=10') == [
        ("peruser", {"q": 65535, "qu": "content-bytes", "w": 10})
    ]
    assert parse_list(rb'"a\"b\\"') == [('a"b\\', {})]
    assert parse_list(b"") == []


@pytest.mark.parametrize(
    "field",
    [
        b"default;r=1",
        b'"a";r=1,',
        b'"a" "b"',
        b'"a";r',
        b'"a";R=1',
        b'"a";r=1.5',
        b'"a";r=1234567890123456',
        b'"a',
        rb'"a\n"',
        b'"a";r=-',
        '"ü"'.encode("latin-1"),
    ],
)
def test_what_breaks_the_grammar_is_refused(field: bytes) -> None:
    with pytest.raises(ValueError, match=r"no |ascii"):
        parse_list(field)

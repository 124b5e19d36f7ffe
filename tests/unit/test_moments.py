"""Moments as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.errors import BadRequest
from convene.moments import LATEST_US, SECOND_US, iso, moment_us

NOW_US = 1_795_651_200 * SECOND_US


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("30s", 1_795_651_170),
        ("7d", 1_795_651_200 - 7 * 86_400),
        ("2w", 1_795_651_200 - 14 * 86_400),
        ("90m", 1_795_651_200 - 5_400),
        ("2026-11-26", 1_795_651_200),
        ("2026-11-26T01:00", 1_795_654_800),
        ("2026-11-26T01:00Z", 1_795_654_800),
        ("2026-11-26T01:00+01:00", 1_795_651_200),
        (" 1795651200 ", 1_795_651_200),
        ("0", 0),
        ("999999d", 0),
    ],
)
def test_spans_count_back_and_the_rest_is_utc(text: str, expected_s: int) -> None:
    assert moment_us(text, NOW_US, "since") == expected_s * SECOND_US


def test_fractions_of_seconds_are_exact() -> None:
    assert moment_us("1795651200.000001", NOW_US, "since") == NOW_US + 1
    assert moment_us("1795651200.5", NOW_US, "since") == NOW_US + 500_000
    assert moment_us("2026-11-26T00:00:00.000123", NOW_US, "since") == NOW_US + 123


@pytest.mark.parametrize(
    "text",
    ["yesterday", "7y", "-1", "1e9", "2026-13-01", "1969-12-31", "1795651200000", "٣d", "0001-01-01T00:00+20:00", ""],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadRequest, match="no time for until") as caught:
        moment_us(text, NOW_US, "until")
    assert caught.value.param == "until"


@given(st.integers(0, LATEST_US // SECOND_US - 1))
def test_what_is_written_as_iso_is_read_back(at_s: int) -> None:
    assert moment_us(iso(at_s * SECOND_US), NOW_US, "since") == at_s * SECOND_US

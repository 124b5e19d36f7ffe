"""Entries and intents as rows and as bytes, and the time of a report divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.limits.limit import DAY_US, Amounts
from convene.store.base_ledger import Intent
from convene.store.ledger_rows import (
    ENTRY_FIELDS,
    MOST,
    entry_of,
    packed_intents,
    packed_values,
    row_of,
    rows_of,
    spans,
    storable,
    unpacked_intents,
    unpacked_rows,
)
from ledger_samples import entry, intent

if TYPE_CHECKING:
    from convene.store.base_ledger import Entry

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
moments = st.one_of(st.none(), st.integers(0, 10 * DAY_US))


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    return entry(
        draw(st.integers(0, 1000)),
        request_id=draw(texts),
        stream=draw(st.booleans()),
        estimated=draw(st.booleans()),
        ttft_us=draw(st.one_of(st.none(), st.integers(0, 1 << 62))),
        cost_micros=draw(st.integers(0, MOST // 2)),
    )


@given(entries())
def test_an_entry_survives_being_a_row(one: Entry) -> None:
    row = row_of(one)
    assert entry_of(row) == one
    assert not any(isinstance(value, bool) for value in row)


@given(st.lists(entries(), max_size=5))
def test_entries_survive_being_bytes(some: list[Entry]) -> None:
    rows = msgspec.msgpack.decode(packed_values([row_of(one) for one in some]))
    assert [entry_of(row) for row in rows_of(ENTRY_FIELDS, rows)] == some


@given(st.lists(st.tuples(st.integers(0, 1000), texts, st.booleans(), st.integers(0, 1 << 62)), max_size=5))
def test_intents_survive_being_bytes(some: list[tuple[int, str, bool, int]]) -> None:
    intents = [
        intent(number, session_id=text, stream=stream, reserved=Amounts(1, tokens, 3, 4, 5, 6, 7))
        for number, text, stream, tokens in some
    ]
    back = unpacked_intents(packed_intents(intents))
    assert back == intents
    assert all(isinstance(one.reserved, Amounts) for one in back)


def test_bytes_of_an_older_convene_are_read_by_the_names_of_their_fields() -> None:
    names = [name for name in ENTRY_FIELDS if name != "agent_calls"]
    one = entry(1)
    old = msgspec.msgpack.encode((["gone", *names], [["x", *(getattr(one, name) for name in names)]]))
    assert [entry_of(row) for row in unpacked_rows(old)] == [one]
    begun = intent(1)
    names = [name for name in Intent.__struct_fields__ if name != "agent_address"]
    old = msgspec.msgpack.encode((names, [[getattr(begun, name) for name in names]]))
    assert unpacked_intents(old) == [begun]


def test_what_no_database_holds_is_mended_and_the_rest_stays() -> None:
    row = ["a\ud800b", "ü\0", 1 << 63, -(1 << 70), (1 << 63) - 1, True, None, 1.5, (1, 2)]
    assert storable(row) == ["a?b", "ü\0", (1 << 63) - 1, -(1 << 63) + 1, (1 << 63) - 1, True, None, 1.5, (1, 2)]


def test_figures_that_would_overflow_their_sums_are_cut() -> None:
    one = entry(1, prompt_tokens=1 << 62, cost_micros=1 << 70, images=3)
    assert entry_of(row_of(one)) == entry(1, prompt_tokens=MOST, cost_micros=MOST, images=3)
    assert entry_of(row_of(entry(1, cost_micros=-(1 << 70)))) == entry(1, cost_micros=-MOST)


def test_intents_that_cannot_be_packed_are_mended() -> None:
    [one] = unpacked_intents(packed_intents([intent(1, model_asked="\ud800")]))
    assert one == intent(1, model_asked="?")


@given(moments, moments, st.lists(st.integers(-DAY_US, 11 * DAY_US), max_size=20))
def test_spans_hold_every_moment_of_the_time_once_and_no_other(
    since: int | None, until: int | None, moments: list[int]
) -> None:
    (first, last), rests = spans(since, until)
    edges = [edge + step for edge in (since, until) if edge is not None for step in (-1, 0, 1)]
    for at in [*moments, *edges]:
        day = at // DAY_US
        times = int((first is None or day >= first) and (last is None or day < last))
        times += sum(start <= at < end for start, end in rests)
        assert times == ((since is None or at >= since) and (until is None or at < until))


@pytest.mark.parametrize(
    ("since", "until", "days", "rests"),
    [
        (None, None, (None, None), ()),
        (DAY_US, 3 * DAY_US, (1, 3), ()),
        (1, None, (1, None), ((1, DAY_US),)),
        (None, 1, (None, 0), ((0, 1),)),
        (1, 2, (0, 0), ((1, 2),)),
        (5, 5, (0, 0), ((5, 5),)),
        (DAY_US - 1, DAY_US + 1, (1, 1), ((DAY_US - 1, DAY_US), (DAY_US, DAY_US + 1))),
    ],
)
def test_a_time_is_whole_days_and_rests(
    since: int | None, until: int | None, days: tuple[int | None, int | None], rests: tuple[tuple[int, int], ...]
) -> None:
    assert spans(since, until) == (days, rests)

"""Event streams, however their bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.event_stream import EventStream, EventTooLarge

STREAM = (
    b"\xef\xbb\xbf: hello\n\nid: a1\nretry: 250\ndata: \n\n"
    b"event: message\nid: a2\ndata: one\ndata: two\n\n"
    b"data: three\n\nid: a3\ndata: cut off"
)


def read(*chunks: bytes, bytes_max: int = 1000) -> tuple[list[bytes], EventStream]:
    stream = EventStream(bytes_max)
    return [event for chunk in chunks for event in stream.feed(chunk)], stream


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_events_come_out_whatever_ends_their_lines(end: bytes) -> None:
    events, stream = read(STREAM.replace(b"\n", end))
    assert events == [b"one\ntwo", b"three"]
    assert stream.retry_ms == 250


def test_an_id_counts_once_its_event_is_whole_and_stays_until_the_next() -> None:
    _, stream = read(STREAM)
    assert stream.last_id == "a2"
    stream.feed(b"\n\n")
    assert stream.last_id == "a3"


def test_an_event_without_data_gives_an_id_alone() -> None:
    events, stream = read(b"id: first\ndata:\n\n")
    assert (events, stream.last_id) == ([], "first")


def test_a_stream_that_is_taken_up_again_goes_on_from_the_id_before() -> None:
    _, before = read(b"id: 7\nretry: 20\ndata: x\n\n")
    stream = EventStream(1000, before)
    assert (stream.last_id, stream.retry_ms) == ("7", 20)
    stream.feed(b"data: y\n\n")
    assert stream.last_id == "7"


@pytest.mark.parametrize("line", [b"id: a\x00b", b"id: \xc3\xa4", b"id: a\x07", b"id: " + b"x" * 1100])
def test_an_id_that_no_header_could_carry_is_none(line: bytes) -> None:
    _, stream = read(line + b"\ndata: x\n\n", bytes_max=5000)
    assert not stream.last_id


@pytest.mark.parametrize("line", [b"retry: -1", b"retry: soon", b"retry: 12345678", b"retry:"])
def test_a_retry_that_is_no_number_of_milliseconds_is_none(line: bytes) -> None:
    _, stream = read(line + b"\n\n")
    assert stream.retry_ms is None


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 60 + b"\n", b"y" * 60])
def test_an_event_above_the_cap_is_refused(piece: bytes) -> None:
    with pytest.raises(EventTooLarge):
        read(*[piece] * 3, bytes_max=100)


def test_many_small_events_are_not_one_large_one() -> None:
    events, _ = read(*[b"data: 12345678\n\n", b": ping\n\n"] * 200, bytes_max=40)
    assert len(events) == 200


@given(st.lists(st.integers(0, len(STREAM)), max_size=8), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_the_cuts_between_chunks_change_nothing(cuts: list[int], end: bytes) -> None:
    raw = STREAM.replace(b"\n", end)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    events, stream = read(*(raw[start:stop] for start, stop in itertools.pairwise(edges)))
    assert events == [b"one\ntwo", b"three"]
    assert (stream.last_id, stream.retry_ms) == ("a2", 250)


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_whatever_comes_is_read_or_refused(chunks: list[bytes]) -> None:
    try:
        events, _ = read(*chunks, bytes_max=100)
    except EventTooLarge:
        return
    assert sum(map(len, events)) <= sum(map(len, chunks))

"""The byte machine for server-sent events, against the WHATWG rules and against every way to cut a stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.providers.sse import EventParser, ServerSentEvent


def parse(*pieces: bytes) -> list[ServerSentEvent]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def data(*pieces: bytes) -> list[bytes]:
    return [event.data for event in parse(*pieces)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_lines_end_at_lf_cr_or_crlf(end: bytes) -> None:
    assert data(b"data: one", end, end, b"data: two", end, end) == [b"one", b"two"]


def test_crlf_cut_between_its_bytes_is_one_line_end() -> None:
    assert data(b"data: a\r", b"\ndata: b\r", b"\n", b"\r\n") == [b"a\nb"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_no_other_character_ends_a_line(mark: str) -> None:
    body = f'{{"a":"{mark}"}}'.encode()
    assert data(b"data: " + body + b"\n\n") == [body]


def test_several_data_lines_are_joined_by_lf() -> None:
    assert data(b"data: a\ndata: b\ndata:\ndata\n\n") == [b"a\nb\n\n"]


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert data(b"data:x\n\ndata:  y\n\n") == [b"x", b" y"]


def test_comments_ids_retries_and_unknown_fields_are_skipped() -> None:
    assert data(b": ping\n\nid: 7\nretry: 3\ncolour: red\ndata: a\n: ping\n\n") == [b"a"]


def test_an_event_has_its_own_name_and_the_next_has_none() -> None:
    assert parse(b"event: error\ndata: x\n\ndata: y\n\n") == [(b"error", b"x"), (b"", b"y")]


def test_a_name_without_data_is_no_event_and_does_not_stick() -> None:
    assert parse(b"event: ping\n\ndata: y\n\n") == [(b"", b"y")]


def test_a_byte_order_mark_is_dropped_at_the_start_and_nowhere_else() -> None:
    assert data(b"\xef", b"\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\ndata: c\n\n") == [b"a", b"c"]


def test_an_event_that_the_end_cuts_off_is_dropped() -> None:
    assert data(b"data: a\n\ndata: b\n") == [b"a"]


@pytest.mark.parametrize(
    "pieces", [[b"data: " + b"x" * 200], [b"data: " + b"x" * 40 + b"\n"] * 3, [b": " + b"x" * 200]]
)
def test_an_event_or_line_above_the_cap_ends_the_reading(pieces: list[bytes]) -> None:
    parser = EventParser(bytes_max=100)
    for piece in pieces:
        assert not parser.too_large
        assert parser.feed(piece) == []
    assert parser.too_large
    assert parser.feed(b"\n\ndata: y\n\n") == []


def test_events_before_one_that_is_too_large_are_not_lost() -> None:
    parser = EventParser(bytes_max=100)
    assert parser.feed(b"data: a\n\ndata: " + b"x" * 200 + b"\n\ndata: c\n\n") == [(b"", b"a")]
    assert parser.too_large


def test_a_line_fed_byte_by_byte_counts_once_towards_the_cap() -> None:
    parser = EventParser(bytes_max=20)
    pieces = [bytes([byte]) for byte in b"data: 0123456789\n\n"]
    assert [event.data for piece in pieces for event in parser.feed(piece)] == [b"0123456789"]


def test_pings_do_not_add_up_towards_the_cap() -> None:
    parser = EventParser(bytes_max=100)
    for _ in range(1000):
        parser.feed(b": keep-alive\n")
    assert parser.feed(b"data: x\n\n") == [(b"", b"x")]


def standard(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The standard's algorithm, written down once more in its own words."""
    text = stream.decode("utf-8", "surrogateescape")
    text = text.removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]
    events, name, buffer = [], "", ""
    for line in lines:
        if line == "":
            if buffer:
                events.append((name.encode("utf-8", "surrogateescape"), buffer[:-1].encode("utf-8", "surrogateescape")))
            name, buffer = "", ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                buffer += value + "\n"
            elif field == "event":
                name = value
    return events


WORDS = [b"data", b"event", b"id", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b"\xef\xbb\xbf", b"\xe2\x80\xa8"]


@given(st.lists(st.sampled_from(WORDS), max_size=60), st.data())
def test_any_stream_cut_anywhere_reads_as_the_standard_says(words: list[bytes], cuts: st.DataObject) -> None:
    stream = b"".join(words)
    at = sorted(cuts.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *at], [*at, len(stream)], strict=True)]
    assert [tuple(event) for event in parse(*pieces)] == standard(stream)

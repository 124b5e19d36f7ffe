"""Heads of answers known again by their bytes: what comes of them is what the parser would have made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.http.base import Disconnected, ProtocolBroken
from convene.http.client_codec import Caps, ResponseReader
from convene.http.client_known import learn
from convene.http.known import HEAD_BYTES_MAX, LESSONS
from unit.http.client_doubles import plain

if TYPE_CHECKING:
    from collections.abc import Sequence

DATE = "Date: Thu, 26 Nov 2026 12:00:00 GMT"
LATER = "Date: Thu, 26 Nov 2026 12:00:01 GMT"
FIRST = plain(b"first", "Server: x", DATE, "Content-Type: application/json", "Keep-Alive: timeout=7")
Seen = tuple[object, ...]


def play(answers: Sequence[Sequence[bytes]], *, knows: bool, glances: bool = False) -> list[Seen]:
    """Return what a reader says of each answer, which comes in pieces; it ends at the first fault.

    `glances`: the reader is asked as a connection asks it.
    """
    reader = ResponseReader(Caps(head_bytes_max=500, headers_max=9))
    if not knows:
        reader._lessons = 0
    seen: list[Seen] = []
    for pieces in answers:
        reader.begin(head_only=False)
        fault = ""
        if glances and (head := reader.glance(pieces[0])) is not None:
            body = head.body
            seen.append(("", 200, dict(head.headers), len(body), body, True, True, False, head.keep_alive_s))
            continue
        try:
            for piece in pieces:
                reader.read(piece) if glances else reader.feed(piece)
        except ProtocolBroken as error:
            fault = str(error)
        seen.append(
            (
                fault,
                reader.status,
                dict(reader.headers),
                reader.length,
                b"".join(reader.pieces),
                reader.complete,
                reader.reusable,
                reader.surplus,
                reader.keep_alive_s if reader.head_done else None,
            )
        )
        if fault or not reader.reusable or not reader.complete:  # its connection is never used again
            break
    return seen


def known(reader: ResponseReader, data: bytes) -> bool:
    """Feed a whole answer; return whether its head was known before."""
    reader.begin(head_only=False)
    learned = reader._known
    reader.feed(data)
    return learned is not None and learned.take(data)


def test_a_head_that_comes_again_has_its_own_date_length_and_body() -> None:
    reader = ResponseReader(Caps())
    assert not known(reader, FIRST)
    assert known(
        reader, plain(b"another one", "Server: x", LATER, "Content-Type: application/json", "Keep-Alive: timeout=7")
    )
    assert reader.headers == {
        "server": "x",
        "date": LATER.removeprefix("Date: "),
        "content-type": "application/json",
        "keep-alive": "timeout=7",
        "content-length": "11",
    }
    assert (reader.pieces, reader.length, reader.buffered) == ([b"another one"], 11, 11)
    assert (reader.complete, reader.reusable, reader.keep_alive_s) == (True, True, 7.0)


def test_the_answers_of_one_connection_do_not_share_their_headers() -> None:
    reader = ResponseReader(Caps())
    kept = []
    for body in (b"a", b"bb", b"ccc"):
        reader.begin(head_only=False)
        reader.feed(plain(body, DATE))
        kept.append((reader.headers, reader.pieces))
    assert [(headers["content-length"], pieces) for headers, pieces in kept] == [
        ("1", [b"a"]),
        ("2", [b"bb"]),
        ("3", [b"ccc"]),
    ]


def test_an_answer_to_head_is_never_taken_for_a_known_one() -> None:
    reader = ResponseReader(Caps())
    assert not known(reader, FIRST)
    reader.begin(head_only=True)
    reader.feed(FIRST[: -len(b"first")])
    assert (reader.complete, reader.pieces) == (True, [])
    assert known(reader, FIRST), "and the next one is known again"


def test_bytes_behind_a_known_answer_are_surplus_and_a_known_beginning_waits_for_its_end() -> None:
    for data, complete, surplus in ((FIRST + b"x", True, True), (FIRST[:-1], False, False)):
        reader = ResponseReader(Caps())
        assert not known(reader, FIRST)
        reader.begin(head_only=False)
        reader.feed(data)
        assert (reader.complete, reader.surplus, reader.reusable) == (complete, surplus, not surplus)
        if not complete:
            with pytest.raises(Disconnected):
                reader.feed_eof()


def test_a_host_whose_heads_all_differ_is_soon_left_alone() -> None:
    reader = ResponseReader(Caps())
    for number in range(2 * LESSONS):
        assert not known(reader, plain(b"x", f"X-Request-Id: {number}"))
    assert reader._lessons == 0


@pytest.mark.parametrize(
    "data",
    [
        plain(b"x", "Date: yesterday"),
        plain(b"x", DATE, LATER),
        plain(b"x", "Content-Encoding: identity"),
        plain(b"x", "X-A: " + "x" * HEAD_BYTES_MAX),
        FIRST.replace(b"200 OK", b"201 Created"),
        b"HTTP/1.1 103 Early\r\nLink: a\r\n\r\n" + FIRST,
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
def test_what_is_no_plain_answer_is_not_learned(data: bytes) -> None:
    reader = ResponseReader(Caps())
    reader.begin(head_only=False)
    reader.feed(data)
    assert reader.complete
    assert reader._known is None


def test_lines_of_the_body_are_no_headers() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\n\r\nContent-Length: 0\r\n"
    assert learn(data, 200, {}, None) is None


@st.composite
def followers(draw: st.DrawFn) -> bytes:
    """A further answer: the first one with bytes changed, lost or put in anywhere, or with another length or date."""
    body = draw(st.binary(max_size=20))
    date = draw(
        st.sampled_from([DATE, LATER, "Date: Thu, 26 Nov 2026 12:00:00 GM", "Date: Thu; 26 Nov 2026 12:00:00 GMT"])
    )
    data = bytearray(plain(body, "Server: x", date, "Content-Type: application/json", "Keep-Alive: timeout=7"))
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["put", "lose", "change", "cut"]))
        if kind == "put":
            data[place:place] = draw(st.sampled_from([b"\r", b"\n", b" ", b"0", b"9", b"a", b":", b"\r\n", b"\0"]))
        elif kind == "lose":
            del data[place : place + draw(st.integers(1, 3))]
        elif kind == "change" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        else:
            del data[place:]
    return bytes(data)


@settings(deadline=None, max_examples=300)
@given(st.lists(followers(), min_size=1, max_size=3))
def test_whatever_follows_a_known_answer_is_read_as_without_it(data: list[bytes]) -> None:
    answers = [[FIRST], *([one] for one in data), [FIRST]]
    expected = play(answers, knows=False)
    assert play(answers, knows=True) == expected
    assert play(answers, knows=True, glances=True) == expected


@settings(deadline=None)
@given(st.lists(followers(), min_size=1, max_size=3), st.integers(1, 300))
def test_whatever_comes_in_pieces_is_read_as_without_it(data: list[bytes], size: int) -> None:
    cut = [[one[start : start + size] for start in range(0, len(one), size)] or [b""] for one in data]
    answers = [[FIRST], *cut, [FIRST]]
    expected = play(answers, knows=False)
    assert play(answers, knows=True) == expected
    assert play(answers, knows=True, glances=True) == expected

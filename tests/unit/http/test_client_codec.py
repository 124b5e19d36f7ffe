"""The response reader: where answers end, what is refused, and that the network's cutting makes no difference."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convene.http.base import Disconnected, ProtocolBroken
from convene.http.client_codec import Caps, ResponseReader
from unit.http.client_doubles import chunked, plain

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"


def read(*data: bytes, head_only: bool = False, caps: Caps | None = None) -> ResponseReader:
    reader = ResponseReader(caps or Caps())
    reader.begin(head_only=head_only)
    for part in data:
        reader.feed(part)
    return reader


def test_a_body_of_known_length_that_came_whole_is_one_piece() -> None:
    reader = read(plain(b"hello", "Content-Type: text/plain"))
    assert (reader.status, reader.complete, reader.reusable) == (200, True, True)
    assert reader.pieces == [b"hello"]
    assert reader.headers == {"content-type": "text/plain", "content-length": "5"}
    assert reader.length == 5


def test_repeated_fields_are_joined_and_names_are_lower_case() -> None:
    reader = read(plain(b"", "VARY: a", "Vary: b", "X-Empty:"))
    assert reader.headers["vary"] == "a, b"
    assert reader.headers["x-empty"] == ""


def test_a_chunked_body_ends_at_its_last_chunk_and_trailers_are_not_headers() -> None:
    reader = read(CHUNKED + chunked(b"ab", b"c", trailer=b"x-late: 1\r\n"))
    assert (b"".join(reader.pieces), reader.complete, reader.reusable) == (b"abc", True, True)
    assert "x-late" not in reader.headers


def test_a_body_without_length_ends_when_the_peer_closes() -> None:
    reader = read(OK + b"\r\nabc", b"def")
    assert (reader.complete, reader.reusable) == (False, False)
    reader.feed_eof()
    assert (reader.complete, b"".join(reader.pieces)) == (True, b"abcdef")


@pytest.mark.parametrize(
    ("data", "received"),
    [(b"", False), (b"HTTP/1.1 2", True), (plain(b"abc")[:-1], True), (CHUNKED + b"3\r\nabc\r\n", True)],
)
def test_a_close_before_the_end_is_a_disconnect(data: bytes, received: bool) -> None:  # noqa: FBT001 - a table
    reader = read(*([data] if data else []))
    with pytest.raises(Disconnected) as caught:
        reader.feed_eof()
    assert caught.value.received is received


def test_interim_answers_are_skipped_with_their_headers() -> None:
    reader = read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + plain(b"a"))
    assert (reader.status, reader.headers, reader.pieces) == (200, {"content-length": "1"}, [b"a"])
    assert reader.reusable


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_204_and_304_have_no_body_whatever_their_length_says(status: str) -> None:
    reader = read(f"HTTP/1.1 {status}\r\ncontent-length: 9\r\ncontent-encoding: gzip\r\n\r\n".encode())
    assert (reader.complete, reader.pieces, reader.reusable) == (True, [], True)


@pytest.mark.parametrize("field", [b"content-length: 9", b"transfer-encoding: chunked", b"x-none: 1"])
def test_the_answer_to_head_ends_with_its_headers_and_the_next_one_is_read_as_usual(field: bytes) -> None:
    reader = read(OK + field + b"\r\n\r\n", head_only=True)
    assert (reader.complete, reader.pieces, reader.surplus) == (True, [], False)
    reader.begin(head_only=False)
    reader.feed(plain(b"next"))
    assert reader.pieces == [b"next"]


def test_the_pieces_of_an_answer_survive_the_next_one() -> None:
    reader = read(plain(b"first"))
    pieces = reader.pieces
    reader.begin(head_only=False)
    reader.feed(plain(b"second"))
    assert (pieces, reader.pieces) == ([b"first"], [b"second"])


@pytest.mark.parametrize(
    ("fields", "reusable"),
    [
        (("connection: close",), False),
        (("Connection: Close",), False),
        (("connection: keep-alive",), True),
        (("connection: x, close",), False),
    ],
)
def test_the_peer_says_whether_the_connection_may_be_used_again(fields: tuple[str, ...], reusable: bool) -> None:  # noqa: FBT001 - a table
    assert read(plain(b"a", *fields)).reusable is reusable


def test_http_1_0_keeps_a_connection_only_when_it_says_so() -> None:
    old = b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n"
    assert not read(old + b"\r\n").reusable
    assert read(old + b"connection: keep-alive\r\n\r\n").reusable


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("timeout=5", 5.0), ("max=9, timeout=15", 15.0), ("TIMEOUT = 7", 7.0), ("max=9", None), ("timeout=x", None)],
)
def test_the_keep_alive_field_gives_the_peer_s_idle_time_out(value: str, seconds: float | None) -> None:
    assert read(plain(b"", f"keep-alive: {value}")).keep_alive_s == seconds


@pytest.mark.parametrize(
    "surplus", [b"X", b"\0", plain(b"second"), b"HTTP/1.1 100 Continue\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"]
)
def test_bytes_after_the_end_leave_the_answer_whole_and_the_connection_unusable(surplus: bytes) -> None:
    reader = read(plain(b"first") + surplus)
    assert (reader.complete, reader.pieces, reader.status) == (True, [b"first"], 200)
    assert (reader.surplus, reader.reusable) == (True, False)


def test_a_body_after_an_answer_to_head_makes_the_connection_unusable() -> None:
    reader = read(plain(b"body"), head_only=True)
    assert (reader.complete, reader.pieces, reader.surplus, reader.reusable) == (True, [], True, False)


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 1000 High\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        OK + b"a: b\r\n folded\r\n\r\n",
        OK + b"a: b\nc: d\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        OK + b"a : b\r\n\r\n",
        OK + b": b\r\n\r\n",
        OK + b"a: b\0c\r\n\r\n",
        OK + b"a: b\rc\r\n\r\n",
        OK + b"content-length: 1\r\ncontent-length: 1\r\n\r\na",
        OK + b"content-length: 1, 1\r\n\r\na",
        OK + b"content-length: -1\r\n\r\n",
        OK + b"content-length: +1\r\n\r\na",
        OK + b"content-length: 0x1\r\n\r\na",
        OK + b"content-length: 99999999999999999999999\r\n\r\na",
        OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: gzip\r\n\r\nabc",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        OK + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        OK + b"content-encoding: br\r\ncontent-length: 1\r\n\r\na",
        OK + b"content-encoding: gzip, gzip\r\ncontent-length: 1\r\n\r\na",
        CHUNKED + b"x\r\n",
        CHUNKED + b"0x2\r\nhi\r\n",
        CHUNKED + b"-2\r\nhi\r\n",
        CHUNKED + b"2\r\nhiX\r\n",
        CHUNKED + b"fffffffffffffffffffff\r\n",
    ],
)
def test_what_is_not_http_1_1_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolBroken):
        read(data)
    with pytest.raises(ProtocolBroken):
        read(*(data[i : i + 1] for i in range(len(data))))


def flood(piece: bytes, start: bytes) -> tuple[ResponseReader, int]:
    """Feed `piece` again and again until it is refused; return how many bytes that took."""
    reader = read(start)
    for count in range(4096):
        try:
            reader.feed(piece)
        except ProtocolBroken:
            return reader, (count + 1) * len(piece)
    raise AssertionError("never refused")


@pytest.mark.parametrize(
    ("piece", "start"),
    [
        (b"a: " + b"b" * 1000 + b"\r\n", OK),
        (b"b" * 1000, OK + b"a: "),
        (b"b" * 1000, OK + b"a"),
        (b"b" * 1000, b"HTTP/1.1 200 "),
        (b"HTTP/1.1 100 Continue\r\na: b\r\n\r\n", b""),
        (b"b" * 1000, CHUNKED + b"1;"),
        (b"a: " + b"b" * 1000 + b"\r\n", CHUNKED + b"0\r\n"),
        (b"b" * 1000, CHUNKED + b"0\r\na: "),
        (b"\r\n" * 500, b""),
    ],
)
def test_a_peer_that_never_ends_its_headers_or_framing_is_refused_at_64_kib(piece: bytes, start: bytes) -> None:
    reader, fed = flood(piece, start or b"\r\n")
    assert fed <= 66 * 1024
    assert not reader.complete


def test_a_header_block_of_more_than_64_kib_is_refused_also_in_one_piece() -> None:
    fields = [f"x-{n}: {'v' * 1000}" for n in range(70)]
    with pytest.raises(ProtocolBroken, match="header block"):
        read(plain(b"", *fields))
    assert read(plain(b"", *fields[:60])).complete


def test_more_than_200_header_fields_are_refused() -> None:
    assert read(plain(b"", *["a: b"] * 199)).complete
    with pytest.raises(ProtocolBroken, match="header block"):
        read(plain(b"", *["a: b"] * 200))


def test_a_large_body_is_not_taken_for_framing() -> None:
    body = b"x" * 300_000
    whole = plain(body)
    reader = read(*(whole[i : i + 10_000] for i in range(0, len(whole), 10_000)))
    assert b"".join(reader.pieces) == body
    one_byte_chunks = CHUNKED + chunked(*[b"y"] * 30_000)
    reader = read(*(one_byte_chunks[i : i + 4096] for i in range(0, len(one_byte_chunks), 4096)))
    assert (reader.complete, b"".join(reader.pieces)) == (True, b"y" * 30_000)


def test_compressed_bodies_are_decoded_as_they_arrive() -> None:
    press = zlib.compressobj(wbits=31)
    first = press.compress(b"first ") + press.flush(zlib.Z_SYNC_FLUSH)
    second = press.compress(b"second") + press.flush()
    reader = read(OK + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
    reader.feed(b"%x\r\n%b\r\n" % (len(first), first))
    assert b"".join(reader.pieces) == b"first "
    reader.feed(chunked(second))
    assert (b"".join(reader.pieces), reader.complete, reader.length) == (b"first second", True, None)


@pytest.mark.parametrize("coding", ["identity", "", " Identity "])
def test_an_identity_coding_is_no_coding(coding: str) -> None:
    assert read(plain(b"abc", f"content-encoding: {coding}")).pieces == [b"abc"]


def test_a_compressed_body_that_is_cut_short_or_damaged_is_refused() -> None:
    packed = gzip.compress(b"hello" * 100)
    for body in (packed[:-1], packed[:20], b"not gzip at all", packed[:-8] + bytes(8)):
        with pytest.raises(ProtocolBroken, match="compressed"):
            read(plain(body, "content-encoding: gzip"))


def test_a_compressed_body_until_close_that_is_cut_short_is_refused_at_the_close() -> None:
    packed = gzip.compress(b"hello" * 100)
    reader = read(OK + b"content-encoding: gzip\r\n\r\n" + packed[:-1])
    with pytest.raises(ProtocolBroken, match="cut short"):
        reader.feed_eof()


def test_a_compression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    with pytest.raises(ProtocolBroken, match="expands"):
        read(plain(bomb, "content-encoding: gzip"))


def test_a_released_reader_reads_nothing_more() -> None:
    reader = read()
    reader.release()
    reader.feed(plain(b"a"))
    assert not reader.head_done


VALID = [
    plain(b"hello world", "Content-Type: text/plain", "Vary: a", "vary: b", "x-e:"),
    plain(b""),
    CHUNKED + chunked(b"hello", b" ", b"world" * 20, trailer=b"x-t: 1\r\n"),
    plain(gzip.compress(b"packed " * 50, mtime=0), "content-encoding: gzip"),
    OK + b"content-encoding: deflate\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(zlib.compress(b"packed " * 50)),
    b"HTTP/1.1 100 Continue\r\n\r\n" + plain(b"after", "connection: close"),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    OK + b"server: x\r\n\r\nuntil the close",
]


@settings(max_examples=400, deadline=None)
@given(which=st.sampled_from(VALID), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_a_response_cut_anywhere_reads_the_same(which: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(which)) for cut in cuts), len(which)]
    parts = [which[a:b] for a, b in pairwise(edges) if a < b]

    def outcome(reader: ResponseReader) -> object:
        reader.feed_eof()
        state = (reader.status, reader.headers, b"".join(reader.pieces), reader.complete, reader.length)
        return state, reader.keep_alive_s, reader.surplus

    assert outcome(read(*parts)) == outcome(read(which))


@settings(max_examples=400, deadline=None)
@given(
    which=st.sampled_from(VALID),
    at=st.integers(0, 400),
    noise=st.binary(max_size=8),
    cut=st.integers(1, 50),
)
def test_damage_ends_in_an_answer_or_in_protocol_broken_and_never_otherwise(
    which: bytes, at: int, noise: bytes, cut: int
) -> None:
    at = min(at, len(which))
    damaged = which[:at] + noise + which[at + len(noise) :]
    reader = ResponseReader(Caps())
    try:
        for start in range(0, len(damaged), cut):
            reader.feed(damaged[start : start + cut])
            if reader.complete:
                break
        reader.feed_eof()
    except (ProtocolBroken, Disconnected):
        assert not reader.complete
    else:
        assert reader.complete
        assert 200 <= reader.status <= 999
